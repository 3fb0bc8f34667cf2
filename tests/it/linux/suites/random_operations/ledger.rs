//! The registrations of several threads, and the reports of a wait in another thread.

use std::collections::HashMap;
use std::io;
use std::os::fd::RawFd;
use std::sync::{Mutex, MutexGuard};

use pollio::{Backend, Event, EventObject, Mode, Readiness, Registry};

/// Registers with a poller, and keeps account. A number that is closed must be deleted first: it may
/// be another thread's next.
pub(super) struct Ledger {
    registry: Registry,
    pages: Mutex<Pages>,
}

#[derive(Default)]
struct Pages {
    /// By token, of which no two are the same.
    entries: HashMap<u32, Entry>,
    /// The token that is registered for a descriptor.
    tokens: HashMap<RawFd, u32>,
    /// How often something ended.
    ends: u64,
    failure: Option<String>,
}

struct Entry {
    object: EventObject,
    /// How often it was reported.
    reported: u64,
    /// The time by which its `delete` or `modify` had returned.
    end: Option<u64>,
}

impl Pages {
    /// Ends the registration with this token.
    fn end(&mut self, token: u32) {
        self.ends += 1;
        if let Some(entry) = self.entries.get_mut(&token) {
            entry.end = Some(self.ends);
        }
    }
}

impl Ledger {
    pub(super) fn new(registry: Registry) -> Self {
        Self { registry, pages: Mutex::default() }
    }

    fn pages(&self) -> MutexGuard<'_, Pages> {
        self.pages.lock().expect("nobody panics")
    }

    /// The current time, for a wait that begins.
    pub(super) fn now(&self) -> u64 {
        self.pages().ends
    }

    /// How often a registration was reported.
    pub(super) fn reported(&self, token: u32) -> u64 {
        self.pages().entries.get(&token).map_or(0, |entry| entry.reported)
    }

    /// Checks that a wait that began at `now` may have reported this event.
    pub(super) fn report(&self, now: u64, event: &Event) -> Result<(), String> {
        let mut pages = self.pages();
        let Some(entry) = pages.entries.get_mut(&event.token) else {
            return Err(format!("{event:?} was reported, which was never registered"));
        };
        let object = entry.object;
        if (event.fd, event.kind) != (object.fd, object.kind) {
            return Err(format!("{event:?} was reported for {object:?}"));
        }
        if entry.end.is_some_and(|end| end <= now) {
            return Err(format!("{event:?} was reported by a wait that began after its end"));
        }
        if event.readiness() == Readiness::NONE {
            return Err(format!("{event:?} was reported, and nothing of it"));
        }
        entry.reported += 1;
        let is_oneshot = object.mode() == Mode::Oneshot;
        if is_oneshot && entry.reported > 1 {
            return Err(format!("{event:?} was reported again, though it is a oneshot"));
        }
        Ok(())
    }

    /// Ends the run.
    pub(super) fn fail(&self, failure: String) {
        self.pages().failure.get_or_insert(failure);
    }

    pub(super) fn failure(&self) -> Option<String> {
        self.pages().failure.clone()
    }
}

impl Ledger {
    /// Registers `object` in place of the last one. A wait may report it before this returns.
    fn register(
        &self,
        object: EventObject,
        register: fn(&Registry, EventObject) -> io::Result<()>,
    ) -> io::Result<()> {
        let entry = Entry { object, reported: 0, end: None };
        self.pages().entries.insert(object.token, entry);
        let outcome = register(&self.registry, object);
        let mut pages = self.pages();
        let ended = match outcome {
            Ok(()) => pages.tokens.insert(object.fd, object.token),
            Err(_) => Some(object.token),
        };
        ended.into_iter().for_each(|token| pages.end(token));
        outcome
    }
}

impl Backend for Ledger {
    fn add(&self, object: EventObject) -> io::Result<()> {
        self.register(object, Registry::add)
    }

    fn modify(&self, object: EventObject) -> io::Result<()> {
        self.register(object, Registry::modify)
    }

    fn delete(&self, fd: RawFd) -> io::Result<()> {
        let outcome = self.registry.delete(fd);
        let mut pages = self.pages();
        if outcome.is_ok() {
            let ended = pages.tokens.remove(&fd);
            ended.into_iter().for_each(|token| pages.end(token));
        }
        outcome
    }

    fn wake(&self) -> io::Result<()> {
        unreachable!("it has no waker")
    }
}
