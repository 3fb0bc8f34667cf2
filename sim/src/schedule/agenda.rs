//! The events to come, by time.

use std::collections::BTreeMap;
use std::time::Duration;

/// Its time, and its number among all entries so far: events at the same time happen in that order.
pub(crate) type When = (Duration, u64);

pub(super) struct Agenda<A> {
    entries: BTreeMap<When, Entry<A>>,
    added: u64,
    /// The number of entries that are checks.
    checks: usize,
}

struct Entry<A> {
    action: A,
    /// It only checks something, so it keeps no wait from being a deadlock.
    is_check: bool,
}

impl<A> Agenda<A> {
    pub(super) const fn new() -> Self {
        Self { entries: BTreeMap::new(), added: 0, checks: 0 }
    }

    pub(super) fn add(&mut self, time: Duration, action: A) -> When {
        self.insert(time, Entry { action, is_check: false })
    }

    pub(super) fn add_check(&mut self, time: Duration, action: A) {
        self.checks += 1;
        self.insert(time, Entry { action, is_check: true });
    }

    fn insert(&mut self, time: Duration, entry: Entry<A>) -> When {
        self.added += 1;
        self.entries.insert((time, self.added), entry);
        (time, self.added)
    }

    pub(super) fn cancel(&mut self, when: When) {
        if self.entries.remove(&when).is_some_and(|entry| entry.is_check) {
            self.checks -= 1;
        }
    }

    /// The number of the last entry.
    pub(super) const fn added(&self) -> u64 {
        self.added
    }

    /// The time of the next event that is more than a check.
    pub(super) fn next_time(&self) -> Option<Duration> {
        if self.checks == self.entries.len() {
            return None;
        }
        self.entries.keys().next().map(|(time, _)| *time)
    }

    pub(super) fn take_due(&mut self, now: Duration) -> Option<(When, A)> {
        let due = self.entries.first_entry().filter(|entry| entry.key().0 <= now);
        let (when, entry) = due?.remove_entry();
        self.checks -= usize::from(entry.is_check);
        Some((when, entry.action))
    }
}
