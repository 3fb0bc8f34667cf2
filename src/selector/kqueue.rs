//! Readiness through [kqueue(2)](https://man.freebsd.org/cgi/man.cgi?query=kqueue).

use std::collections::HashMap;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd, RawFd};
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use crate::os_poller::Selector;
use crate::sys::kevent::{self, Filter, Flags, Kevent};
use crate::sys::{Mutex, MutexGuard};
use crate::{Event, EventKind, EventObject, Interest, Mode, Readiness, Register};

/// A kqueue, and what the kernel writes for it.
pub(crate) struct KqueueSelector {
    knotes: Arc<Knotes>,
    /// What the kernel writes; their number is how many kevents one wait can take.
    kevents: Vec<Kevent>,
    /// How many of them the last wait wrote.
    written: usize,
    /// The descriptors of this wait that have several filters, of which each is a kevent.
    shared: HashMap<RawFd, Shared>,
}

/// A descriptor with several filters, in one wait.
struct Shared {
    /// Its place in the events.
    event: usize,
    /// The place of its first filter in the kevents.
    kevent: usize,
    /// The interests whose filters fired.
    fired: Interest,
}

/// The longest timeout of one call: macOS refuses to wait for years.
const LONGEST: Duration = Duration::from_secs(24 * 60 * 60);

pub(crate) use KqueueSelector as OsSelector;

impl Selector for KqueueSelector {
    const CAPACITY: usize = 32;

    fn create() -> io::Result<Self> {
        Ok(Self {
            knotes: Arc::new(Knotes { kqueue: kevent::kqueue()?, turn: Mutex::new(()) }),
            kevents: Vec::new(),
            written: 0,
            shared: HashMap::new(),
        })
    }

    fn register(&self) -> Arc<dyn Register + Send + Sync> {
        self.knotes.clone()
    }

    fn reserve(&mut self, capacity: usize) -> io::Result<()> {
        // Empty, so that its capacity is that of one wait.
        self.shared.clear();
        self.kevents.try_reserve_exact(capacity - self.kevents.len())?;
        self.shared.try_reserve(capacity)?;
        self.kevents.resize(capacity, Kevent::NONE);
        Ok(())
    }

    fn wait(&mut self, events: &mut [Event], timeout: Option<Duration>) -> io::Result<usize> {
        // Whatever came of the last wait: an entry left behind would merge two descriptors. Emptied at
        // once, since a table that entries leave one by one grows in the end.
        self.shared.clear();
        self.written = 0;
        let timeout = timeout.map(|timeout| timeout.min(LONGEST));
        let kqueue = self.knotes.kqueue.as_fd();
        self.written = kevent::kevent(kqueue, &[], &mut self.kevents, timeout)?;
        let (mut count, room) = (0, self.shared.capacity());
        for index in 0..self.written {
            count = self.take(index, events, count);
        }
        debug_assert_eq!(self.shared.capacity(), room, "a wait has grown its table");
        // Where the kernel has no memory for it, one event too many is better than these lost.
        let _ = self.silence_siblings(&events[..count]);
        Ok(count)
    }

    fn is_full(&self) -> bool {
        self.written == self.kevents.len()
    }
}

impl KqueueSelector {
    /// Puts a filter that fired behind the `count` events that there are, or into the event of its
    /// descriptor. Returns how many events there are then.
    fn take(&mut self, index: usize, events: &mut [Event], count: usize) -> usize {
        let kevent = &self.kevents[index];
        let event = event_from(kevent);
        if has_several_filters(interest_from(kevent.udata())) {
            let first = Shared { event: count, kevent: index, fired: Interest::NONE };
            let shared = self.shared.entry(event.fd).or_insert(first);
            shared.fired |= interest_of(kevent.filter());
            if shared.event < count {
                let merged = &mut events[shared.event];
                debug_assert_eq!(merged.fd, event.fd, "filters of two descriptors are merged");
                let readiness = merged.readiness() | event.readiness();
                *merged = Event::new(merged.fd, merged.kind, merged.token, readiness);
                return count;
            }
        }
        events[count] = event;
        count + 1
    }

    /// Disables what EV_DISPATCH leaves armed: it knows of the one filter that fired, while a
    /// oneshot is reported once for all its interests together.
    ///
    /// A registration that another thread makes between the kernel's answer and this call loses the
    /// siblings that it armed. The docs of [`Poller`](crate::Poller#where-kernels-differ) say what to
    /// do.
    fn silence_siblings(&self, events: &[Event]) -> io::Result<()> {
        if self.shared.is_empty() {
            return Ok(());
        }
        let mut silence = Changes::<32>::new();
        for event in events {
            let Some(shared) = self.shared.get(&event.fd) else { continue };
            let udata = self.kevents[shared.kevent].udata();
            if udata & ONESHOT == 0 {
                continue;
            }
            for filter in filters(interest_from(udata) - shared.fired) {
                if silence.is_full() {
                    self.knotes.apply(&silence)?;
                    silence = Changes::new();
                }
                silence.push(change(event.fd, filter, kevent::EV_DISABLE).with_udata(udata));
            }
        }
        // A receipt could say no more than that the descriptor was closed or deleted since.
        self.knotes.apply(&silence)?;
        Ok(())
    }
}

impl AsFd for KqueueSelector {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.knotes.kqueue.as_fd()
    }
}

/// The kqueue, shared by the poller and its registries.
///
/// The kernel has a knote for each descriptor and filter, so a registration is one knote for each
/// interest. Without any, a disabled one keeps its place.
struct Knotes {
    kqueue: OwnedFd,
    /// Held while a registration changes: the kernel takes its knotes one by one, and those of two
    /// threads would mix.
    turn: Mutex<()>,
}

impl Register for Knotes {
    fn add(&self, object: EventObject) -> io::Result<()> {
        let _turn = self.take_turn();
        // A registration that there is already is replaced.
        self.attach(deletions(object.fd), object)
    }

    fn modify(&self, object: EventObject) -> io::Result<()> {
        let _turn = self.take_turn();
        // In one call with what follows, the kernel would add what there was not to modify.
        self.forget(object.fd)?;
        self.attach(Changes::new(), object)
    }

    fn delete(&self, fd: RawFd) -> io::Result<()> {
        let _turn = self.take_turn();
        self.forget(fd)
    }
}

impl Knotes {
    fn take_turn(&self) -> MutexGuard<'_, ()> {
        // What it guards is the kernel's, which nobody's panic leaves half done.
        self.turn.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Deletes the knotes of a descriptor, one of which at least must be there.
    fn forget(&self, fd: RawFd) -> io::Result<()> {
        let deletion = deletions(fd);
        let receipts = self.apply(&deletion)?;
        check_open(&receipts[..deletion.count])?;
        if receipts[..deletion.count].iter().any(|receipt| errno(receipt) == 0) {
            return Ok(());
        }
        Err(io::Error::from_raw_os_error(libc::ENOENT))
    }

    /// Adds the knotes of `object`, after the `changes` that delete those before it. On an error its
    /// descriptor has none.
    ///
    /// None must be left: EV_ADD leaves the EV_CLEAR and EV_DISPATCH of an existing one as they are.
    fn attach(&self, mut changes: Changes<6>, object: EventObject) -> io::Result<()> {
        let deletions = changes.count;
        let (mode, udata) = (mode_flags(object.mode()), udata(object));
        for filter in filters(object.interest()) {
            changes.push(change(object.fd, filter, kevent::EV_ADD | mode).with_udata(udata));
        }
        if changes.count == deletions {
            let flags = kevent::EV_ADD | kevent::EV_DISABLE;
            changes.push(change(object.fd, kevent::EVFILT_READ, flags).with_udata(udata));
        }
        let receipts = self.apply(&changes)?;
        let (deleted, added) = receipts[..changes.count].split_at(deletions);
        check_open(deleted)?;
        for (receipt, change) in added.iter().zip(&changes.list[deletions..]) {
            if let Err(error) = self.check_added(receipt, change) {
                // What else was added must not be told of.
                let _ = self.forget(object.fd);
                return Err(error);
            }
        }
        Ok(())
    }

    /// Whether a knote was added, says its receipt.
    fn check_added(&self, receipt: &Kevent, change: &Kevent) -> io::Result<()> {
        match errno(receipt) {
            0 => Ok(()),
            // The other end of the pipe is closed: old versions of macOS register the filter all
            // the same, FreeBSD does not. Enabling it once more tells which.
            libc::EPIPE if self.is_there(change)? => Ok(()),
            errno => Err(io::Error::from_raw_os_error(errno)),
        }
    }

    fn is_there(&self, change: &Kevent) -> io::Result<bool> {
        let mut enabling = Changes::<1>::new();
        enabling.push(change.with_flags(kevent::EV_ENABLE | kevent::EV_RECEIPT));
        Ok(errno(&self.apply(&enabling)?[0]) == 0)
    }

    /// Applies `changes`, and returns a receipt for each, in their order.
    fn apply<const MOST: usize>(&self, changes: &Changes<MOST>) -> io::Result<[Kevent; MOST]> {
        let mut receipts = [Kevent::NONE; MOST];
        if changes.count > 0 {
            let room = &mut receipts[..changes.count];
            let list = &changes.list[..changes.count];
            kevent::kevent(self.kqueue.as_fd(), list, room, Some(Duration::ZERO))?;
        }
        Ok(receipts)
    }
}

/// What one kevent call changes.
struct Changes<const MOST: usize> {
    list: [Kevent; MOST],
    count: usize,
}

impl<const MOST: usize> Changes<MOST> {
    fn new() -> Self {
        Self { list: [Kevent::NONE; MOST], count: 0 }
    }

    fn push(&mut self, change: Kevent) {
        self.list[self.count] = change;
        self.count += 1;
    }

    fn is_full(&self) -> bool {
        self.count == MOST
    }
}

/// A change that comes back with a receipt.
#[expect(clippy::cast_sign_loss, reason = "a negative descriptor is EBADF to the kernel")]
fn change(fd: RawFd, filter: Filter, flags: Flags) -> Kevent {
    let change = Kevent::new(fd as usize, filter, flags | kevent::EV_RECEIPT);
    if Some(filter) == kevent::EVFILT_EXCEPT {
        // macOS tells by this filter of ordinary data too, once there is as much as this.
        change.with_fflags(kevent::NOTE_OOB | kevent::NOTE_LOWAT).with_data(i64::MAX)
    } else {
        change
    }
}

/// The changes that delete whatever knotes a descriptor has.
fn deletions(fd: RawFd) -> Changes<6> {
    let mut deletions = Changes::new();
    for filter in filters(Interest::all()) {
        deletions.push(change(fd, filter, kevent::EV_DELETE));
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
    interest.bits().count_ones() > 1
}

/// The interest that `filter` reports.
fn interest_of(filter: Filter) -> Interest {
    match filter {
        kevent::EVFILT_READ => Interest::READABLE,
        kevent::EVFILT_WRITE => Interest::WRITABLE,
        _ => Interest::PRIORITY,
    }
}

fn mode_flags(mode: Mode) -> Flags {
    match mode {
        Mode::Level => 0,
        Mode::Edge => kevent::EV_CLEAR,
        // EV_ONESHOT would delete the knote.
        Mode::Oneshot => kevent::EV_DISPATCH,
        Mode::EdgeOneshot => kevent::EV_CLEAR | kevent::EV_DISPATCH,
    }
}

// The descriptor is in `ident`, so `udata` has room for what a oneshot needs to know.
const SERVER: u64 = 1 << 32;
const ONESHOT: u64 = 1 << 33;
const INTEREST_BYTE: usize = 5;

/// What a knote carries of its registration.
fn udata(object: EventObject) -> u64 {
    let kind = match object.kind {
        EventKind::Server => SERVER,
        EventKind::Client => 0,
    };
    let mode = match object.mode() {
        Mode::Level | Mode::Edge => 0,
        Mode::Oneshot | Mode::EdgeOneshot => ONESHOT,
    };
    u64::from(object.interest().bits()) << (8 * INTEREST_BYTE)
        | mode
        | kind
        | u64::from(object.token)
}

/// What was asked of a registration.
fn interest_from(udata: u64) -> Interest {
    Interest::from_bits_truncate(udata.to_le_bytes()[INTEREST_BYTE])
}

/// The event of one filter.
#[expect(clippy::cast_possible_truncation, reason = "the token is the low half of the user data")]
fn event_from(kevent: &Kevent) -> Event {
    let fd = RawFd::try_from(kevent.ident()).unwrap_or(-1);
    let udata = kevent.udata();
    let kind = if udata & SERVER == 0 { EventKind::Client } else { EventKind::Server };
    Event::new(fd, kind, udata as u32, readiness(kevent))
}

/// What a filter and its flags mean. An error lets no call block, hence both directions.
fn readiness(kevent: &Kevent) -> Readiness {
    const FAILED: Readiness =
        Readiness::READABLE.union(Readiness::WRITABLE).union(Readiness::ERROR);
    if kevent.flags() & kevent::EV_ERROR != 0 {
        return FAILED;
    }
    let (ready, closed) = match kevent.filter() {
        kevent::EVFILT_WRITE => (Readiness::WRITABLE, Readiness::WRITE_CLOSED),
        kevent::EVFILT_READ => (Readiness::READABLE, Readiness::READ_CLOSED),
        // The filter for out-of-band data, which tells of the end as EVFILT_READ does.
        _ if kevent.fflags() == kevent::NOTE_OOB => (Readiness::PRIORITY, Readiness::READ_CLOSED),
        _ => (Readiness::READABLE, Readiness::READ_CLOSED),
    };
    if kevent.flags() & kevent::EV_EOF == 0 {
        return ready;
    }
    match kevent.fflags() {
        0 | kevent::NOTE_OOB => ready | closed,
        // The socket's error, which is left for the next call to return.
        _errno => ready | closed | FAILED,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(filter: Filter, flags: Flags, fflags: u32) -> Readiness {
        readiness(&Kevent::new(0, filter, flags).with_fflags(fflags))
    }

    #[test]
    fn udata_brings_back_what_was_asked() {
        for token in [0, 1, u32::MAX] {
            for object in [EventObject::server(3), EventObject::client(3)] {
                let udata = udata(object.with_token(token));
                let kevent = Kevent::new(3, kevent::EVFILT_READ, 0).with_udata(udata);
                let event = event_from(&kevent);
                assert_eq!((event.fd, event.kind, event.token), (3, object.kind, token));
            }
        }
    }

    #[test]
    fn udata_knows_interest_and_oneshots() {
        let object = EventObject::server(3).with_token(u32::MAX);
        for interest in [Interest::NONE, Interest::WRITABLE, Interest::all()] {
            for (mode, is_oneshot) in [
                (Mode::Level, false),
                (Mode::Edge, false),
                (Mode::Oneshot, true),
                (Mode::EdgeOneshot, true),
            ] {
                let udata = udata(object.with_interest(interest).with_mode(mode));
                assert_eq!(interest_from(udata), interest);
                assert_eq!(udata & ONESHOT != 0, is_oneshot);
            }
        }
    }

    #[test]
    fn every_interest_has_the_filter_that_tells_of_it() {
        for interest in [Interest::READABLE, Interest::WRITABLE, Interest::PRIORITY] {
            for filter in filters(interest) {
                assert_eq!(interest_of(filter), interest);
            }
        }
        assert_eq!(filters(Interest::NONE).count(), 0);
    }

    #[test]
    fn the_end_of_a_direction_is_told_with_its_filter() {
        let (read, write) = (kevent::EVFILT_READ, kevent::EVFILT_WRITE);
        let eof = kevent::EV_EOF;
        assert_eq!(told(read, 0, 0), Readiness::READABLE);
        assert_eq!(told(write, 0, 0), Readiness::WRITABLE);
        assert_eq!(told(read, eof, 0), Readiness::READABLE | Readiness::READ_CLOSED);
        assert_eq!(told(write, eof, 0), Readiness::WRITABLE | Readiness::WRITE_CLOSED);
    }

    #[test]
    fn an_error_is_readable_and_writable() {
        let failed = Readiness::READABLE | Readiness::WRITABLE | Readiness::ERROR;
        let errno = libc::ECONNRESET.unsigned_abs();
        let (read, write) = (kevent::EVFILT_READ, kevent::EVFILT_WRITE);
        assert_eq!(told(read, kevent::EV_EOF, errno), failed | Readiness::READ_CLOSED);
        assert_eq!(told(write, kevent::EV_EOF, errno), failed | Readiness::WRITE_CLOSED);
        assert_eq!(told(read, kevent::EV_ERROR, 0), failed);
    }
}
