//! Readiness through [kqueue(2)](https://man.freebsd.org/cgi/man.cgi?query=kqueue).

use std::collections::BTreeSet;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd, RawFd};
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use crate::os_poller::Selector;
use crate::sys::kevent::{self, Filter, Flags, Kevent};
use crate::sys::{Mutex, MutexGuard, check_is_open};
use crate::{Backend, Event, EventKind, EventObject, Interest, Mode, Readiness};
use claims::{Claims, GENERATION_BITS};
use places::Places;

#[path = "kqueue/claims.rs"]
mod claims;
#[path = "kqueue/places.rs"]
mod places;

/// A kqueue, and what the kernel writes for it.
pub(crate) struct KqueueSelector {
    knotes: Arc<Knotes>,
    /// What the kernel writes; their number is how many kevents one wait can take. After a wait, the
    /// first of them are those of its events, in the same order.
    kevents: Vec<Kevent>,
    /// How many of them the last wait wrote.
    written: usize,
    /// The events of this wait whose descriptors have several filters.
    places: Places,
}

/// Each interest that has a filter.
const ALL: Interest = Interest::READABLE.union(Interest::WRITABLE).union(Interest::PRIORITY);

/// The longest timeout of one call: macOS refuses to wait for years.
const MAX_WAIT: Duration = Duration::from_secs(24 * 60 * 60);

pub(crate) use KqueueSelector as OsSelector;

impl Selector for KqueueSelector {
    const CAPACITY: usize = 32;

    fn create() -> io::Result<Self> {
        Ok(Self::of(Arc::new(Knotes {
            kqueue: kevent::kqueue()?,
            claims: Claims::new(),
            dropped: Mutex::new(BTreeSet::new()),
        })))
    }

    fn share(&self) -> Self {
        Self::of(self.knotes.clone())
    }

    fn backend(&self) -> Arc<dyn Backend> {
        self.knotes.clone()
    }

    fn reserve(&mut self, capacity: usize) -> io::Result<()> {
        self.kevents.try_reserve_exact(capacity - self.kevents.len())?;
        self.places.reserve(capacity)?;
        self.kevents.resize(capacity, Kevent::NONE);
        Ok(())
    }

    fn wait(&mut self, events: &mut [Event], timeout: Option<Duration>) -> io::Result<usize> {
        let timeout = timeout.map(|timeout| timeout.min(MAX_WAIT));
        loop {
            self.places.start();
            self.written = 0;
            let kqueue = self.knotes.kqueue.as_fd();
            self.written = kevent::kevent(kqueue, &[], &mut self.kevents, timeout)?;
            let mut count = 0;
            for index in 0..self.written {
                count = self.merge(index, events, count);
            }
            // A poll says that nothing is ready, while there may be something behind oneshots that were
            // all reported before. They are disabled now, so this ends.
            if count > 0
                || timeout != Some(Duration::ZERO)
                || !self.is_full()
                || !self.has_oneshot()
            {
                // Woken up for nothing, before its time.
                if count == 0 && self.written > 0 && timeout != Some(Duration::ZERO) {
                    return Err(io::ErrorKind::Interrupted.into());
                }
                return Ok(count);
            }
        }
    }

    fn is_full(&self) -> bool {
        self.written == self.kevents.len()
    }
}

impl KqueueSelector {
    fn of(knotes: Arc<Knotes>) -> Self {
        Self { knotes, kevents: Vec::new(), written: 0, places: Places::new() }
    }

    fn has_oneshot(&self) -> bool {
        self.kevents[..self.written].iter().any(|kevent| generation_from(kevent.udata()) != 0)
    }

    /// Puts a filter that fired behind the `count` events that there are, or into the event of its
    /// descriptor. Returns how many events there are then.
    fn merge(&mut self, index: usize, events: &mut [Event], count: usize) -> usize {
        let kevent = self.kevents[index];
        let event = event_from(&kevent);
        if kevent.flags() & kevent::EV_ONESHOT != 0 {
            self.knotes.note_dropped(event.fd);
        }
        if is_false_alarm(&kevent) {
            return count;
        }
        let mut slot = None;
        if has_several_filters(registered_interest(kevent.udata())) {
            let (number, udata) = (kevent.ident(), kevent.udata());
            let is_same = |place: usize| {
                let first = &self.kevents[place];
                first.ident() == number && first.udata() == udata
            };
            match self.places.find(number, is_same) {
                Ok(place) => {
                    let merged = &mut events[place];
                    debug_assert_eq!(merged.fd, event.fd, "two descriptors are one event");
                    let readiness = merged.readiness() | event.readiness();
                    *merged = Event::new(merged.fd, merged.kind, merged.token, readiness);
                    return count;
                }
                Err(free) => slot = Some(free),
            }
        }
        if !self.knotes.may_report(&kevent) {
            return count;
        }
        if let Some(slot) = slot {
            self.places.put(slot, count);
        }
        self.kevents[count] = kevent;
        events[count] = event;
        count + 1
    }
}

impl AsFd for KqueueSelector {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.knotes.kqueue.as_fd()
    }
}

/// The kqueue, shared by the poller's handles and its registries.
///
/// The kernel has a knote for each descriptor and filter, so a registration is one knote for each
/// interest. Without any, a disabled one keeps its place.
struct Knotes {
    kqueue: OwnedFd,
    claims: Claims,
    /// The descriptors of which the kernel dropped a knote by itself: they count as registered until
    /// they are next added, modified or deleted.
    ///
    /// Locked while a registration changes: the kernel takes its knotes one by one, and those of two
    /// threads would mix.
    dropped: Mutex<BTreeSet<RawFd>>,
}

impl Backend for Knotes {
    fn add(&self, object: EventObject) -> io::Result<()> {
        let mut dropped = self.lock();
        let generation = self.next_generation(object)?;
        dropped.remove(&object.fd);
        // An existing registration is replaced.
        self.attach(deletions(object.fd), object, generation)
    }

    fn modify(&self, object: EventObject) -> io::Result<()> {
        let mut dropped = self.lock();
        // Two calls: in one, modifying what is not registered would add it.
        self.detach(object.fd, &mut dropped)?;
        let generation = self.next_generation(object)?;
        self.attach(Changes::new(), object, generation)
    }

    fn delete(&self, fd: RawFd) -> io::Result<()> {
        self.detach(fd, &mut self.lock())
    }
}

impl Knotes {
    fn lock(&self) -> MutexGuard<'_, BTreeSet<RawFd>> {
        // No panic leaves the set half changed.
        self.dropped.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The kernel has dropped a knote by itself, saying so by EV_ONESHOT, which is never asked for:
    /// FreeBSD does when the reader of a pipe is gone, macOS when a terminal is revoked. It may have
    /// been the last knote of its descriptor, and cannot be added again.
    #[cold]
    fn note_dropped(&self, fd: RawFd) {
        self.lock().insert(fd);
    }

    /// Starts a generation for this registration and returns it; 0 if it needs none.
    fn next_generation(&self, object: EventObject) -> io::Result<u32> {
        if object.mode() != Mode::Oneshot {
            return Ok(0);
        }
        let Ok(number) = usize::try_from(object.fd) else {
            return Err(io::Error::from_raw_os_error(libc::EBADF));
        };
        if !self.claims.has(number) {
            // A number that is not open has no claim to the memory.
            check_is_open(object.fd)?;
            self.claims.reserve(number)?;
        }
        Ok(self.claims.renew(number))
    }

    /// Whether the event of this filter has not been reported yet.
    fn may_report(&self, kevent: &Kevent) -> bool {
        let generation = generation_from(kevent.udata());
        generation == 0 || self.claims.claim(kevent.ident(), generation)
    }

    /// Deletes the knotes of a descriptor, one of which at least must be there, or have been.
    fn detach(&self, fd: RawFd, dropped: &mut BTreeSet<RawFd>) -> io::Result<()> {
        let was_dropped = dropped.remove(&fd);
        let deletion = deletions(fd);
        let receipts = self.apply(&deletion)?;
        check_open(&receipts[..deletion.count])?;
        let was_there = receipts[..deletion.count].iter().any(|receipt| errno(receipt) == 0);
        if was_there || was_dropped && self.is_broken(fd)? {
            return Ok(());
        }
        Err(io::Error::from_raw_os_error(libc::ENOENT))
    }

    /// Whether `fd`, of which the kernel has dropped a knote, is still what it was: something else that
    /// was opened under the number takes a knote.
    fn is_broken(&self, fd: RawFd) -> io::Result<bool> {
        let change = |flags| kevent_for(fd, kevent::EVFILT_WRITE, flags);
        if self.apply_one(change(kevent::EV_ADD | kevent::EV_DISABLE))? != 0 {
            return Ok(true);
        }
        self.apply_one(change(kevent::EV_DELETE))?;
        Ok(false)
    }

    /// Adds the knotes of `object`, after the `changes` that delete those before it. On an error its
    /// descriptor has none.
    ///
    /// None must be left: EV_ADD leaves the EV_CLEAR and EV_DISPATCH of an existing one as they are.
    fn attach(&self, changes: Changes<6>, object: EventObject, generation: u32) -> io::Result<()> {
        let attached = self.try_attach(changes, object, generation);
        if attached.is_err() {
            // What else was added must not be reported, and what was replaced no longer can be.
            let _ = self.apply(&deletions(object.fd));
        }
        attached
    }

    fn try_attach(
        &self,
        mut changes: Changes<6>,
        object: EventObject,
        generation: u32,
    ) -> io::Result<()> {
        let deletions = changes.count;
        let udata = udata(object, generation);
        for filter in filters(object.interest()) {
            let flags = kevent::EV_ADD | mode_flags(object.mode(), filter);
            changes.push(kevent_for(object.fd, filter, flags).with_udata(udata));
        }
        if changes.count == deletions {
            let flags = kevent::EV_ADD | kevent::EV_DISABLE;
            changes.push(kevent_for(object.fd, kevent::EVFILT_READ, flags).with_udata(udata));
        }
        let receipts = self.apply(&changes)?;
        let (deleted, added) = receipts[..changes.count].split_at(deletions);
        check_open(deleted)?;
        for (receipt, change) in added.iter().zip(&changes.list[deletions..]) {
            self.check_added(receipt, change)?;
        }
        Ok(())
    }

    /// Whether a knote was added, says its receipt.
    fn check_added(&self, receipt: &Kevent, change: &Kevent) -> io::Result<()> {
        match errno(receipt) {
            0 => Ok(()),
            // The other end of the pipe is closed: old versions of macOS register the filter all
            // the same, FreeBSD does not. Enabling it shows which.
            libc::EPIPE if self.enable(change)? => Ok(()),
            errno => Err(io::Error::from_raw_os_error(errno)),
        }
    }

    /// Enables the knote of a change, and returns whether there is one.
    fn enable(&self, change: &Kevent) -> io::Result<bool> {
        let enabling = change.with_flags(kevent::EV_ENABLE | kevent::EV_RECEIPT);
        Ok(self.apply_one(enabling)? == 0)
    }

    /// Applies `change`, and returns what its receipt says.
    fn apply_one(&self, change: Kevent) -> io::Result<i32> {
        let mut changes = Changes::<1>::new();
        changes.push(change);
        Ok(errno(&self.apply(&changes)?[0]))
    }

    /// Applies `changes`, and returns a receipt for each, in their order.
    fn apply<const N: usize>(&self, changes: &Changes<N>) -> io::Result<[Kevent; N]> {
        let mut receipts = [Kevent::NONE; N];
        if changes.count > 0 {
            let room = &mut receipts[..changes.count];
            let list = &changes.list[..changes.count];
            kevent::kevent(self.kqueue.as_fd(), list, room, Some(Duration::ZERO))?;
        }
        Ok(receipts)
    }
}

/// What one kevent call changes.
struct Changes<const N: usize> {
    list: [Kevent; N],
    count: usize,
}

impl<const N: usize> Changes<N> {
    fn new() -> Self {
        Self { list: [Kevent::NONE; N], count: 0 }
    }

    fn push(&mut self, change: Kevent) {
        self.list[self.count] = change;
        self.count += 1;
    }
}

/// A change to the knote of `fd` and `filter`, which comes back with a receipt.
#[expect(clippy::cast_sign_loss, reason = "a negative descriptor is EBADF to the kernel")]
fn kevent_for(fd: RawFd, filter: Filter, flags: Flags) -> Kevent {
    let change = Kevent::new(fd as usize, filter, flags | kevent::EV_RECEIPT);
    if Some(filter) == kevent::EVFILT_EXCEPT {
        // macOS fires this filter for ordinary data too, once there is as much as this or the buffer is
        // full: see `is_false_alarm`.
        change.with_fflags(kevent::NOTE_OOB | kevent::NOTE_LOWAT).with_data(i64::MAX)
    } else {
        change
    }
}

/// The changes that delete whatever knotes a descriptor has.
fn deletions(fd: RawFd) -> Changes<6> {
    let mut deletions = Changes::new();
    for filter in filters(ALL) {
        deletions.push(kevent_for(fd, filter, kevent::EV_DELETE));
    }
    deletions
}

/// Fails if these receipts are about a descriptor that is not open.
fn check_open(receipts: &[Kevent]) -> io::Result<()> {
    if receipts.iter().any(|receipt| errno(receipt) == libc::EBADF) {
        return Err(io::Error::from_raw_os_error(libc::EBADF));
    }
    Ok(())
}

/// What a receipt says: 0 for success.
fn errno(receipt: &Kevent) -> i32 {
    i32::try_from(receipt.data()).unwrap_or(libc::EINVAL)
}

/// The filters that report `interest`. FreeBSD and NetBSD have none for out-of-band data.
fn filters(interest: Interest) -> impl Iterator<Item = Filter> {
    let asked = move |one| interest.contains(one);
    [
        Some(kevent::EVFILT_READ).filter(|_| asked(Interest::READABLE)),
        Some(kevent::EVFILT_WRITE).filter(|_| asked(Interest::WRITABLE)),
        kevent::EVFILT_EXCEPT.filter(|_| asked(Interest::PRIORITY)),
    ]
    .into_iter()
    .flatten()
}

fn has_several_filters(interest: Interest) -> bool {
    interest_bits(interest).count_ones() > 1
}

/// The interest that `filter` reports.
fn filter_interest(filter: Filter) -> Interest {
    match filter {
        kevent::EVFILT_READ => Interest::READABLE,
        kevent::EVFILT_WRITE => Interest::WRITABLE,
        _ => Interest::PRIORITY,
    }
}

fn mode_flags(mode: Mode, filter: Filter) -> Flags {
    match mode {
        Mode::Edge => kevent::EV_CLEAR,
        // A false alarm would disable this one, and nothing would enable it again. Its claim keeps it to
        // one event.
        Mode::Oneshot if Some(filter) == kevent::EVFILT_EXCEPT => kevent::EV_CLEAR,
        // EV_ONESHOT would delete the knote. EV_CLEAR would change nothing, since `modify` makes a
        // new knote, but on NetBSD that EV_DISPATCH is ignored.
        Mode::Oneshot => kevent::EV_DISPATCH,
        // Level. Not by name: in the tests that include this file, `Mode` is non-exhaustive.
        _ => 0,
    }
}

// The descriptor is in `ident`, so `udata` has room for what a wait needs to know.
const SERVER: u64 = 1 << 32;
const INTEREST_SHIFT: u32 = 33;
const GENERATION_SHIFT: u32 = 36;
const _: () = assert!(GENERATION_SHIFT + GENERATION_BITS == u64::BITS);

/// What a knote carries of its registration.
fn udata(object: EventObject, generation: u32) -> u64 {
    let kind = match object.kind {
        EventKind::Server => SERVER,
        EventKind::Client => 0,
    };
    u64::from(generation) << GENERATION_SHIFT
        | interest_bits(object.interest()) << INTEREST_SHIFT
        | kind
        | u64::from(object.token)
}

/// An interest as a number of three bits.
fn interest_bits(interest: Interest) -> u64 {
    let bit = |one, place| u64::from(interest.contains(one)) << place;
    bit(Interest::READABLE, 0) | bit(Interest::WRITABLE, 1) | bit(Interest::PRIORITY, 2)
}

/// The interest of a knote's registration.
fn registered_interest(udata: u64) -> Interest {
    let if_set = |one, place| {
        if udata >> (INTEREST_SHIFT + place) & 1 == 0 { Interest::NONE } else { one }
    };
    if_set(Interest::READABLE, 0) | if_set(Interest::WRITABLE, 1) | if_set(Interest::PRIORITY, 2)
}

fn generation_from(udata: u64) -> u32 {
    (udata >> GENERATION_SHIFT) as u32
}

/// Whether a filter fired that reports nothing of its registration.
fn is_false_alarm(kevent: &Kevent) -> bool {
    let interest = filter_interest(kevent.filter());
    // NetBSD before 10 reports a knote that is added as disabled, if another thread waits.
    !registered_interest(kevent.udata()).contains(interest)
        // macOS fires this filter without out-of-band data on a full buffer, whatever its mark is.
        || interest == Interest::PRIORITY
            && kevent.fflags() & kevent::NOTE_OOB == 0
            && kevent.flags() & (kevent::EV_EOF | kevent::EV_ERROR) == 0
}

/// The event of one filter.
#[expect(clippy::cast_possible_truncation, reason = "the token is the low half of the user data")]
fn event_from(kevent: &Kevent) -> Event {
    let fd = RawFd::try_from(kevent.ident()).unwrap_or(-1);
    let udata = kevent.udata();
    let kind = if udata & SERVER == 0 { EventKind::Client } else { EventKind::Server };
    Event::new(fd, kind, udata as u32, readiness(kevent))
}

/// What a filter and its flags mean. After an error no call blocks, hence both directions.
fn readiness(kevent: &Kevent) -> Readiness {
    const FAILED: Readiness =
        Readiness::READABLE.union(Readiness::WRITABLE).union(Readiness::ERROR);
    if kevent.flags() & kevent::EV_ERROR != 0 {
        return FAILED;
    }
    let (ready, closed) = match kevent.filter() {
        kevent::EVFILT_WRITE => (Readiness::WRITABLE, Readiness::WRITE_CLOSED),
        kevent::EVFILT_READ => (Readiness::READABLE, Readiness::READ_CLOSED),
        // The filter for out-of-band data, which on macOS reports the end as EVFILT_READ does.
        _ if kevent.fflags() == kevent::NOTE_OOB => (Readiness::PRIORITY, Readiness::READ_CLOSED),
        _ => (Readiness::READABLE, Readiness::READ_CLOSED),
    };
    if kevent.flags() & kevent::EV_EOF == 0 {
        return ready;
    }
    match kevent.fflags() {
        0 | kevent::NOTE_OOB => ready | closed,
        // The socket's error, which the next call returns.
        _errno => ready | closed | FAILED,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn decoded(filter: Filter, flags: Flags, fflags: u32) -> Readiness {
        readiness(&Kevent::new(0, filter, flags).with_fflags(fflags))
    }

    #[test]
    fn udata_brings_back_what_was_asked() {
        for token in [0, 1, u32::MAX] {
            for object in [EventObject::server(3), EventObject::client(3)] {
                let udata = udata(object.with_token(token), u32::MAX >> 5);
                let kevent = Kevent::new(3, kevent::EVFILT_READ, 0).with_udata(udata);
                let event = event_from(&kevent);
                assert_eq!((event.fd, event.kind, event.token), (3, object.kind, token));
            }
        }
    }

    #[test]
    fn udata_carries_interest_and_generation() {
        let object = EventObject::server(3).with_token(u32::MAX);
        let last = (1 << GENERATION_BITS) - 1;
        let (read, write, priority) = (Interest::READABLE, Interest::WRITABLE, Interest::PRIORITY);
        for interest in [Interest::NONE, read, write, priority, read | priority, ALL] {
            for generation in [0, 1, last] {
                let udata = udata(object.with_interest(interest), generation);
                assert_eq!(registered_interest(udata), interest);
                assert_eq!(generation_from(udata), generation);
            }
        }
    }

    #[test]
    fn a_filter_that_reports_nothing_of_its_registration_is_a_false_alarm() {
        let fired = |filter, flags, fflags, interest| {
            let object = EventObject::client(3).with_interest(interest);
            let kevent = Kevent::new(3, filter, flags).with_fflags(fflags);
            is_false_alarm(&kevent.with_udata(udata(object, 0)))
        };
        let (read, write) = (kevent::EVFILT_READ, kevent::EVFILT_WRITE);
        let both = Interest::READABLE | Interest::WRITABLE;
        assert!(!fired(read, 0, 0, Interest::READABLE) && !fired(write, 0, 0, both));
        assert!(fired(read, 0, 0, Interest::NONE) && fired(read, 0, 0, Interest::WRITABLE));
        let Some(except) = kevent::EVFILT_EXCEPT else { return };
        let (eof, oob) = (kevent::EV_EOF, kevent::NOTE_OOB);
        assert!(fired(except, 0, 0, Interest::PRIORITY));
        assert!(!fired(except, 0, oob, Interest::PRIORITY));
        assert!(!fired(except, eof, 0, Interest::PRIORITY));
    }

    #[test]
    fn every_interest_has_the_filter_that_reports_it() {
        for interest in [Interest::READABLE, Interest::WRITABLE, Interest::PRIORITY] {
            for filter in filters(interest) {
                assert_eq!(filter_interest(filter), interest);
            }
        }
        assert_eq!(filters(Interest::NONE).count(), 0);
    }

    #[test]
    fn the_end_of_a_direction_is_reported_with_its_filter() {
        let (read, write) = (kevent::EVFILT_READ, kevent::EVFILT_WRITE);
        let eof = kevent::EV_EOF;
        assert_eq!(decoded(read, 0, 0), Readiness::READABLE);
        assert_eq!(decoded(write, 0, 0), Readiness::WRITABLE);
        assert_eq!(decoded(read, eof, 0), Readiness::READABLE | Readiness::READ_CLOSED);
        assert_eq!(decoded(write, eof, 0), Readiness::WRITABLE | Readiness::WRITE_CLOSED);
    }

    #[test]
    fn an_error_is_readable_and_writable() {
        let failed = Readiness::READABLE | Readiness::WRITABLE | Readiness::ERROR;
        let errno = libc::ECONNRESET.unsigned_abs();
        let (read, write) = (kevent::EVFILT_READ, kevent::EVFILT_WRITE);
        assert_eq!(decoded(read, kevent::EV_EOF, errno), failed | Readiness::READ_CLOSED);
        assert_eq!(decoded(write, kevent::EV_EOF, errno), failed | Readiness::WRITE_CLOSED);
        assert_eq!(decoded(read, kevent::EV_ERROR, 0), failed);
    }
}
