//! The rules of epoll, by which an arrival becomes an event: what one poller watches.

use std::collections::BTreeMap;
use std::io;
use std::mem;
use std::os::fd::RawFd;

use pollio::{Event, EventObject, Interest, Mode, Readiness};

use super::errno::errno;
use super::ids::FileId;
use crate::schedule::Random;

/// Every readiness that there is.
pub(super) const ALL: Readiness = Readiness::READABLE
    .union(Readiness::WRITABLE)
    .union(Readiness::PRIORITY)
    .union(Readiness::READ_CLOSED)
    .union(Readiness::WRITE_CLOSED)
    .union(Readiness::ERROR);

/// As epoll knows a registration: a number that is closed while the file lives on stays registered.
pub(super) type Key = (RawFd, FileId);

#[derive(Default)]
pub(crate) struct InterestList {
    items: BTreeMap<Key, Item>,
    /// The registrations that the next wait examines: those with a round, in any order.
    ready: Vec<Candidate>,
    /// How many waits have returned events.
    round: u64,
    /// Its eventfd, once it has a waker: whether it was written to, and has woken up no wait since.
    eventfd: Option<bool>,
}

/// A registration that a wait examines. Only during the wait it has a round, and what is true of its file.
pub(super) struct Candidate {
    key: Key,
    round: u64,
    readiness: Readiness,
}

impl Candidate {
    pub(super) const fn file(&self) -> FileId {
        self.key.1
    }

    pub(super) const fn set_readiness(&mut self, readiness: Readiness) {
        self.readiness = readiness;
    }
}

/// How many events a wait returns.
#[derive(Clone, Copy)]
pub(super) struct Batch {
    /// As a test has it; any number, if none.
    pub(super) size: Option<usize>,
    /// As the program has it.
    pub(super) max_events: usize,
}

struct Item {
    object: EventObject,
    /// Not a oneshot that was reported.
    is_armed: bool,
    /// The round in which it came on the ready list.
    queued_in: Option<u64>,
    /// What is reported once, though it is not true.
    spurious: Readiness,
}

impl InterestList {
    pub(super) fn object(&self, key: Key) -> Option<EventObject> {
        self.items.get(&key).map(|item| item.object)
    }

    /// Whether it has, or had, a waker.
    pub(super) const fn has_wakers(&self) -> bool {
        self.eventfd.is_some()
    }

    /// As a write to its eventfd, which is created by the first one.
    pub(super) const fn set_woken(&mut self) {
        self.eventfd = Some(true);
    }

    /// Whether a wait is woken up: one for each wake.
    pub(super) fn take_wake_up(&mut self) -> bool {
        self.eventfd.as_mut().is_some_and(mem::take)
    }

    pub(super) fn registered(&self) -> impl Iterator<Item = Key> {
        self.items.keys().copied()
    }

    pub(super) fn add(&mut self, key: Key, object: EventObject) -> io::Result<()> {
        let (interest, mode) = (object.interest(), object.mode());
        let is_shareable =
            matches!(mode, Mode::Level | Mode::Edge) && !interest.contains(Interest::PRIORITY);
        // As `EPOLLEXCLUSIVE_OK_BITS` has it.
        if object.is_exclusive() && !is_shareable {
            return Err(errno(libc::EINVAL));
        }
        if self.items.contains_key(&key) {
            return Err(errno(libc::EEXIST));
        }
        self.insert(key, object);
        Ok(())
    }

    pub(super) fn modify(&mut self, key: Key, object: EventObject) -> io::Result<()> {
        if object.is_exclusive() {
            return Err(errno(libc::EINVAL));
        }
        let Some(before) = self.object(key) else { return Err(errno(libc::ENOENT)) };
        if before.is_exclusive() {
            return Err(errno(libc::EINVAL));
        }
        self.insert(key, object);
        Ok(())
    }

    pub(super) fn delete(&mut self, key: Key) -> io::Result<()> {
        if self.forget(key) { Ok(()) } else { Err(errno(libc::ENOENT)) }
    }

    fn insert(&mut self, key: Key, object: EventObject) {
        self.forget(key);
        let item = Item { object, is_armed: true, queued_in: None, spurious: Readiness::NONE };
        self.items.insert(key, item);
    }

    /// Returns whether it was registered.
    pub(super) fn forget(&mut self, key: Key) -> bool {
        let Some(item) = self.items.remove(&key) else { return false };
        if item.queued_in.is_some() {
            self.ready.retain(|candidate| candidate.key != key);
        }
        true
    }

    /// Puts it on the ready list, if it is armed and asks for `arrival`. Returns whether it does.
    pub(super) fn queue(&mut self, key: Key, arrival: Readiness) -> bool {
        let Some(item) = self.items.get_mut(&key) else { return false };
        let is_asked = item.is_armed && !item.reported(arrival).is_empty();
        if is_asked && item.queued_in.is_none() {
            item.queued_in = Some(self.round);
            self.ready.push(Candidate { key, round: 0, readiness: Readiness::NONE });
        }
        is_asked
    }

    /// Makes one wait report `readiness`, though it is not true.
    pub(super) fn report_once(&mut self, key: Key, readiness: Readiness) {
        if let Some(item) = self.items.get_mut(&key) {
            item.spurious |= readiness;
        }
    }

    /// Takes the registrations that the next wait examines: [`collect`](Self::collect) takes them back, with the
    /// readiness of each.
    pub(super) fn take_ready(&mut self) -> Vec<Candidate> {
        mem::take(&mut self.ready)
    }

    /// Makes the events of a wait: of those that have waited longest, and else in any order.
    /// Returns whether more are ready.
    pub(super) fn collect(
        &mut self,
        mut candidates: Vec<Candidate>,
        batch: Batch,
        random: &mut Random,
        events: &mut Vec<Event>,
    ) -> bool {
        candidates.retain_mut(|candidate| {
            let Some(item) = self.items.get_mut(&candidate.key) else { return false };
            candidate.readiness = item.reported(candidate.readiness | item.spurious);
            match item.queued_in {
                Some(round) if !candidate.readiness.is_empty() => {
                    candidate.round = round;
                    true
                }
                // It came and went before a wait looked.
                _ => {
                    item.queued_in = None;
                    false
                }
            }
        });
        let count = candidates.len();
        if count > 1 {
            // In a fixed order first: it is shuffled by the seed and by nothing else.
            candidates.sort_unstable_by_key(|candidate| candidate.key);
            candidates.sort_by_cached_key(|candidate| (candidate.round, random.next()));
        }
        let size = match batch.size {
            Some(size) => size,
            None if count <= 1 => 1,
            None => random.index(count) + 1,
        };
        let mut left = size.min(batch.max_events);
        self.round += u64::from(count > 0);
        candidates.retain(|candidate| {
            if left == 0 {
                return true;
            }
            left -= 1;
            let Some(item) = self.items.get_mut(&candidate.key) else { return false };
            events.push(item.report(candidate.readiness, self.round));
            item.queued_in.is_some()
        });
        self.ready = candidates;
        !self.ready.is_empty()
    }
}

impl Item {
    fn reported(&self, readiness: Readiness) -> Readiness {
        let reported = reported(readiness, self.object.interest());
        // `EPOLLRDHUP` is none of `EPOLLEXCLUSIVE_OK_BITS`.
        if self.object.is_exclusive() && !reported.contains(Readiness::WRITE_CLOSED) {
            return reported - Readiness::READ_CLOSED;
        }
        reported
    }

    /// Makes the event, and decides by the mode whether the next wait examines it again.
    fn report(&mut self, readiness: Readiness, round: u64) -> Event {
        self.spurious = Readiness::NONE;
        self.queued_in = (self.object.mode() == Mode::Level).then_some(round);
        self.is_armed = self.object.mode() != Mode::Oneshot;
        let EventObject { fd, kind, token, .. } = self.object;
        Event::new(fd, kind, token, readiness)
    }
}

/// What epoll reports of a descriptor that is ready for `readiness`, to those who asked for
/// `interest`.
fn reported(readiness: Readiness, interest: Interest) -> Readiness {
    const BOTH: Readiness = Readiness::READABLE.union(Readiness::WRITABLE);
    let mut asked = Readiness::NONE;
    let mut implied = Readiness::NONE;
    if interest.contains(Interest::READABLE) {
        asked |= Readiness::READABLE | Readiness::READ_CLOSED;
    }
    if interest.contains(Interest::WRITABLE) {
        asked |= Readiness::WRITABLE;
    }
    if interest.contains(Interest::PRIORITY) {
        asked |= Readiness::PRIORITY;
    }
    if readiness.contains(Readiness::READ_CLOSED) {
        implied |= Readiness::READABLE;
    }
    // These need no interest, and let no call block.
    if readiness.contains(Readiness::WRITE_CLOSED) {
        let hang_up = Readiness::READ_CLOSED | Readiness::WRITE_CLOSED | BOTH;
        asked |= hang_up;
        implied |= hang_up;
    }
    if readiness.contains(Readiness::ERROR) {
        asked |= Readiness::ERROR | BOTH;
        implied |= BOTH;
    }
    (readiness | implied) & asked
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_reported_is_what_was_asked_for() {
        let both = Readiness::READABLE | Readiness::WRITABLE;
        assert_eq!(reported(both, Interest::READABLE), Readiness::READABLE);
        assert_eq!(reported(both, Interest::WRITABLE), Readiness::WRITABLE);
        assert_eq!(reported(both, Interest::PRIORITY), Readiness::NONE);
        assert_eq!(reported(Readiness::PRIORITY, Interest::PRIORITY), Readiness::PRIORITY);
        assert_eq!(reported(Readiness::PRIORITY, Interest::READABLE), Readiness::NONE);
        assert_eq!(reported(ALL, Interest::BOTH | Interest::PRIORITY), ALL);
    }

    #[test]
    fn hang_ups_and_errors_are_reported_as_epoll_reports_them() {
        let both = Readiness::READABLE | Readiness::WRITABLE;
        let closed = Readiness::READ_CLOSED | Readiness::WRITE_CLOSED;
        let half = Readiness::READ_CLOSED;
        assert_eq!(reported(half, Interest::READABLE), half | Readiness::READABLE);
        assert_eq!(reported(half, Interest::WRITABLE), Readiness::NONE);
        assert_eq!(reported(half, Interest::NONE), Readiness::NONE);
        assert_eq!(reported(Readiness::WRITE_CLOSED, Interest::NONE), both | closed);
        assert_eq!(reported(Readiness::ERROR, Interest::NONE), both | Readiness::ERROR);
    }
}
