//! The time that bytes and clients may stay in a file untaken.

use std::collections::HashMap;
use std::time::Duration;

use super::ids::FileId;

#[derive(Default)]
pub(super) struct Patience {
    /// Without a limit, if none.
    limit: Option<Duration>,
    /// The time when something was last taken from a file, or arrived at an empty one.
    touched: HashMap<FileId, Duration>,
}

impl Patience {
    pub(super) const fn limit(&self) -> Option<Duration> {
        self.limit
    }

    pub(super) const fn set_limit(&mut self, limit: Duration) {
        self.limit = Some(limit);
    }

    pub(super) fn touch(&mut self, file: FileId, now: Duration) {
        if self.limit.is_some() {
            self.touched.insert(file, now);
        }
    }

    pub(super) fn last_touched(&self, file: FileId) -> Duration {
        self.touched.get(&file).copied().unwrap_or_default()
    }
}
