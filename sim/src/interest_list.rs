//! What a poller watches: the rules of epoll, by which an arrival becomes an event.

use std::collections::BTreeMap;
use std::io;
use std::os::fd::RawFd;

use crate::kernel::{FileId, Kind, errno};
use crate::world::State;
use pollio::{Event, EventObject, Interest, Mode, Readiness};

/// As epoll knows a registration: a number that is closed while the file lives on stays registered.
pub(super) type Key = (RawFd, FileId);

#[derive(Default)]
pub(super) struct InterestList {
    items: BTreeMap<Key, Item>,
    /// What the next wait looks at: those with a round, in any order.
    ready: Vec<Key>,
    /// How many waits have returned events.
    round: u64,
}

pub(super) struct Item {
    pub(super) object: EventObject,
    /// Not a oneshot that was reported.
    is_armed: bool,
    /// The round in which it came on the ready list.
    queued_in: Option<u64>,
    /// What is reported once, though it is not true.
    spurious: Readiness,
}

impl InterestList {
    pub(super) fn get(&self, key: Key) -> Option<&Item> {
        self.items.get(&key)
    }

    pub(super) fn registered(&self) -> impl Iterator<Item = Key> {
        self.items.keys().copied()
    }

    pub(super) fn forget(&mut self, key: Key) -> Option<Item> {
        let item = self.items.remove(&key)?;
        if item.queued_in.is_some() {
            self.ready.retain(|ready| *ready != key);
        }
        Some(item)
    }

    /// Puts it on the ready list, if it is armed and asks for `arrival`. Returns whether it does.
    fn queue(&mut self, key: Key, arrival: Readiness) -> bool {
        let Some(item) = self.items.get_mut(&key) else { return false };
        let is_asked = item.is_armed && !item.reported(arrival).is_empty();
        if is_asked && item.queued_in.is_none() {
            item.queued_in = Some(self.round);
            self.ready.push(key);
        }
        is_asked
    }
}

impl State {
    /// The list and the file of a registration.
    fn key(&self, fd: RawFd) -> io::Result<Key> {
        Ok((fd, self.files.of(fd)?))
    }

    pub(super) fn add(&mut self, list: FileId, object: EventObject) -> io::Result<()> {
        if let Some(error) = self.add_errors.pop_front() {
            return Err(error);
        }
        let key = self.key(object.fd)?;
        let (interest, mode) = (object.interest(), object.mode());
        let is_shareable =
            matches!(mode, Mode::Level | Mode::Edge) && !interest.contains(Interest::PRIORITY);
        // As `EPOLLEXCLUSIVE_OK_BITS` has it.
        if object.is_exclusive() && !is_shareable {
            return Err(errno(libc::EINVAL));
        }
        let Some(items) = self.files.list(list) else { return Err(errno(libc::EBADF)) };
        if items.get(key).is_some() {
            return Err(errno(libc::EEXIST));
        }
        if let Some(file) = self.files.get_mut(key.1) {
            file.watchers.push((list, key.0));
        }
        self.register(list, key, object);
        Ok(())
    }

    pub(super) fn modify(&mut self, list: FileId, object: EventObject) -> io::Result<()> {
        let key = self.key(object.fd)?;
        if object.is_exclusive() {
            return Err(errno(libc::EINVAL));
        }
        let item = self.files.list(list).and_then(|items| items.get(key));
        let Some(item) = item else { return Err(errno(libc::ENOENT)) };
        if item.object.is_exclusive() {
            return Err(errno(libc::EINVAL));
        }
        self.register(list, key, object);
        Ok(())
    }

    pub(super) fn delete(&mut self, list: FileId, fd: RawFd) -> io::Result<()> {
        let key = self.key(fd)?;
        self.files
            .list(list)
            .and_then(|items| items.forget(key))
            .ok_or_else(|| errno(libc::ENOENT))?;
        if let Some(file) = self.files.get_mut(key.1) {
            file.watchers.retain(|watcher| *watcher != (list, fd));
        }
        Ok(())
    }

    fn register(&mut self, list: FileId, key: Key, object: EventObject) {
        if let Some(items) = self.files.list(list) {
            items.forget(key);
            let item = Item { object, is_armed: true, queued_in: None, spurious: Readiness::NONE };
            items.items.insert(key, item);
            let readiness = self.readiness(key.1);
            self.queue(list, key, readiness);
        }
    }

    /// Has the next wait look at a registration that asks for `arrival`. Returns whether a thread was
    /// woken that waits for it.
    pub(super) fn queue(&mut self, list: FileId, key: Key, arrival: Readiness) -> bool {
        let items = self.files.list(list);
        items.is_some_and(|items| items.queue(key, arrival)) && self.wake_one(list)
    }

    /// Has one wait report `readiness`, though it is not true.
    pub(super) fn report_spuriously(&mut self, fd: RawFd, readiness: Readiness) {
        let Ok(id) = self.files.of(fd) else { return };
        let Some(file) = self.files.get(id) else { return };
        for (list, fd) in file.watchers.clone() {
            self.queue(list, (fd, id), readiness);
            if let Some(item) = self.files.list(list).and_then(|list| list.items.get_mut(&(fd, id)))
            {
                item.spurious |= readiness;
            }
        }
    }

    /// A fault: a socket on this list is reported as readable.
    pub(super) fn report_any_spuriously(&mut self, list: FileId) {
        let Some(items) = self.files.list(list) else { return };
        let registered: Vec<_> = items.registered().collect();
        if registered.is_empty() {
            return;
        }
        let (fd, file) = registered[self.random.index(registered.len())];
        // Nobody else can take what has come to a pair.
        let may = match self.files.get(file).map(|file| &file.kind) {
            Some(Kind::Stream(end)) => self.is_tcp(*end),
            Some(Kind::Listener(_)) => true,
            _ => false,
        };
        if may && self.files.of(fd).is_ok_and(|open| open == file) {
            self.note(|| format!("fault: {fd} is reported as readable"));
            self.report_spuriously(fd, Readiness::READABLE);
        }
    }

    /// Makes the events of a wait, at most `max_events`: of those that have waited longest, and else in any
    /// order.
    pub(super) fn collect(&mut self, list: FileId, max_events: usize, events: &mut Vec<Event>) {
        let Some(items) = self.files.list(list) else { return };
        if items.ready.is_empty() {
            return;
        }
        let mut candidates = Vec::with_capacity(items.ready.len());
        for key in std::mem::take(&mut items.ready) {
            let now = self.readiness(key.1);
            let Some(items) = self.files.list(list) else { return };
            let Some(item) = items.items.get_mut(&key) else { continue };
            let readiness = item.reported(now | item.spurious);
            match item.queued_in {
                Some(round) if !readiness.is_empty() => candidates.push((round, key, readiness)),
                // It came and went before anyone looked.
                _ => item.queued_in = None,
            }
        }
        if candidates.is_empty() {
            return;
        }
        let count = candidates.len();
        if count > 1 {
            // In a fixed order first: it is shuffled by the seed and by nothing else.
            candidates.sort_unstable_by_key(|(_, key, _)| *key);
            let random = &mut self.random;
            candidates.sort_by_cached_key(|(round, ..)| (*round, random.next()));
        }
        let size = match self.batch {
            Some(size) => size,
            None if count == 1 => 1,
            None => self.random.index(count) + 1,
        };
        let size = size.min(max_events);
        let Some(items) = self.files.list(list) else { return };
        items.round += 1;
        for (place, (_, key, readiness)) in candidates.into_iter().enumerate() {
            if place < size {
                let Some(item) = items.items.get_mut(&key) else { continue };
                events.push(item.report(readiness, items.round));
                if item.queued_in.is_none() {
                    continue;
                }
            }
            items.ready.push(key);
        }
        if !items.ready.is_empty() {
            self.wake_one(list);
        }
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

    /// Makes the event, and decides by the mode whether the next wait looks again.
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
    use crate::kernel::ALL;

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
