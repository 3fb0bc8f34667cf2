//! What happened in a world: for a person to read, and to compare two runs.

use std::time::Duration;

/// A line for each call and each event until the world ends, if it is kept: writing a line takes longer than
/// most calls.
pub(super) struct Trace(Option<Vec<String>>);

impl Trace {
    pub(super) fn new(is_kept: bool) -> Self {
        Self(is_kept.then(Vec::new))
    }

    pub(super) const fn is_kept(&self) -> bool {
        self.0.is_some()
    }

    pub(super) fn push(&mut self, now: Duration, who: &str, text: &str) {
        if let Some(lines) = &mut self.0 {
            let (seconds, nanos) = (now.as_secs(), now.subsec_nanos());
            lines.push(format!("{seconds:>4}.{nanos:09} {who:<12} {text}"));
        }
    }

    pub(super) fn take(&mut self) -> Vec<String> {
        self.0.take().unwrap_or_default()
    }
}
