//! What will happen, and when.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::kernel::FileId;
use crate::network::Delivery;
use crate::threads::ThreadId;
use crate::world::World;

/// Something that will happen at a time.
pub(super) enum Action {
    /// What a test has planned.
    Plan(Box<dyn FnOnce(&World) + Send>),
    /// The timeout of what a thread waits for.
    Wake(ThreadId),
    Timer(FileId),
    Delivery(Delivery),
    /// A look at whether what came to this file was taken.
    Patience(FileId, Duration),
}

impl Action {
    const fn is_look(&self) -> bool {
        matches!(self, Self::Patience(..))
    }
}

/// By its time, and then by the order of planning.
pub(super) type When = (Duration, u64);

#[derive(Default)]
pub(super) struct Agenda {
    actions: BTreeMap<When, Action>,
    made: u64,
    /// How many are [`Action::Patience`], which only looks.
    looks: usize,
}

impl Agenda {
    pub(super) fn add(&mut self, time: Duration, action: Action) -> When {
        self.made += 1;
        let when = (time, self.made);
        self.looks += usize::from(action.is_look());
        self.actions.insert(when, action);
        when
    }

    pub(super) fn remove(&mut self, when: When) {
        self.actions.remove(&when);
    }

    /// How many were ever added: the number of the last one.
    pub(super) const fn made(&self) -> u64 {
        self.made
    }

    /// When something happens next, if anything ever does.
    pub(super) fn next_time(&self) -> Option<Duration> {
        if self.looks == self.actions.len() {
            return None;
        }
        self.actions.keys().next().map(|(time, _)| *time)
    }

    /// What is due, with its number.
    pub(super) fn take_due(&mut self, now: Duration) -> Option<(u64, Action)> {
        let due = self.actions.first_entry().filter(|entry| entry.key().0 <= now);
        let (when, action) = due?.remove_entry();
        self.looks -= usize::from(action.is_look());
        Some((when.1, action))
    }
}
