//! The kernel's knotes, one for each descriptor and filter, and the three verbs.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd, RawFd};
use std::sync::{OnceLock, PoisonError};
use std::time::Duration;

use super::encoding::{
    ALL, errno, filters, generation_from, kevent_for, mode_flags, oneshot_bits, udata,
};
use super::numbers::{Entry, Numbers};
use super::trigger::Trigger;
use crate::sys::kevent::{self, Kevent};
use crate::sys::{Mutex, MutexGuard, check_is_open};
use crate::{Backend, EventObject, Interest};

/// The kqueue, shared by the poller's handles and its registries.
///
/// The kernel has a knote for each descriptor and filter, so a registration is one knote for each interest. A
/// registration without interest is one disabled knote.
pub(super) struct Knotes {
    kqueue: OwnedFd,
    numbers: Numbers,
    /// Held while a registration changes: the kernel takes its knotes one by one, and two threads would mix theirs.
    turn: Mutex<()>,
    can_rearm: bool,
    /// Created with the first waker.
    trigger: OnceLock<Trigger>,
}

impl Backend for Knotes {
    fn add(&self, object: EventObject) -> io::Result<()> {
        let _turn = self.take_turn();
        let entry = self.entry(object.fd)?;
        entry.reset();
        // An existing registration is replaced.
        self.attach(deletions(object.fd), object, entry, next_generation(object, entry))
    }

    fn modify(&self, object: EventObject) -> io::Result<()> {
        let _turn = self.take_turn();
        let rearming = self.rearmable(object).map(|entry| (entry, entry.renew()));
        if rearming.is_some_and(|(entry, generation)| self.rearm(object, entry, generation)) {
            return Ok(());
        }
        // Two calls: in one, modifying an unknown descriptor would add it.
        self.detach(object.fd)?;
        let entry = self.entry(object.fd)?;
        // Another wait may have reported a part that was re-armed. The generation stays, so it is not reported again.
        let generation = match rearming {
            Some((_, generation)) => generation,
            None => next_generation(object, entry),
        };
        self.attach(Changes::new(), object, entry, generation)
    }

    fn delete(&self, fd: RawFd) -> io::Result<()> {
        let _turn = self.take_turn();
        self.detach(fd)
    }

    fn wake(&self) -> io::Result<()> {
        let trigger = match self.trigger.get() {
            Some(trigger) => trigger,
            None => {
                let trigger = Trigger::add(self.kqueue.as_fd())?;
                self.trigger.get_or_init(|| trigger)
            }
        };
        trigger.fire(self.kqueue.as_fd())
    }
}

impl AsFd for Knotes {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.kqueue.as_fd()
    }
}

impl Knotes {
    pub(super) fn create() -> io::Result<Self> {
        Ok(Self {
            kqueue: kevent::kqueue()?,
            numbers: Numbers::new(),
            turn: Mutex::new(()),
            can_rearm: kevent::can_rearm(),
            trigger: OnceLock::new(),
        })
    }

    fn take_turn(&self) -> MutexGuard<'_, ()> {
        self.turn.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes that the kernel dropped a knote by itself: FreeBSD when the reader of a pipe is gone, macOS when a
    /// terminal is revoked. It reports EV_ONESHOT then, which pollio never sets. The knote may have been the last of
    /// its descriptor, and cannot be added again. The descriptor counts as registered until it is next added, modified
    /// or deleted.
    #[cold]
    pub(super) fn note_dropped(&self, number: usize) {
        if let Some(entry) = self.numbers.get(number) {
            entry.note_dropped();
        }
    }

    /// Whether the event of this filter has not been reported yet.
    pub(super) fn may_report(&self, kevent: &Kevent) -> bool {
        let generation = generation_from(kevent.udata());
        let is_claimed = |entry: &Entry| entry.claim(generation);
        generation == 0 || self.numbers.get(kevent.ident()).is_some_and(is_claimed)
    }

    /// The entry of this descriptor. For a number that is not open, none is allocated.
    fn entry(&self, fd: RawFd) -> io::Result<&Entry> {
        let Ok(number) = usize::try_from(fd) else {
            return Err(io::Error::from_raw_os_error(libc::EBADF));
        };
        match self.numbers.get(number) {
            Some(entry) => Ok(entry),
            None => check_is_open(fd).and_then(|()| self.numbers.reserve(number, Entry::new)),
        }
    }

    /// The entry of a oneshot that [`rearm`](Self::rearm) can re-arm as `object`: one that was registered here with the
    /// same interest. A level must not be: EV_ENABLE would succeed, and it would stay a level.
    fn rearmable(&self, object: EventObject) -> Option<&Entry> {
        let interest = oneshot_bits(object);
        let entry = self.numbers.get(usize::try_from(object.fd).ok()?)?;
        (self.can_rearm && interest != 0 && entry.oneshot() == interest).then_some(entry)
    }

    /// Enables the knotes of a oneshot with the user data of `object` and its generation. Returns whether at
    /// least one exists, and the kernel dropped those that do not.
    fn rearm(&self, object: EventObject, entry: &Entry, generation: u32) -> bool {
        let udata = udata(object, generation);
        let mut changes = Changes::<3>::new();
        for filter in filters(object.interest()) {
            changes.push(kevent_for(object.fd, filter, kevent::EV_ENABLE).with_udata(udata));
        }
        // The calls that follow report the error.
        let Ok(receipts) = self.apply(&changes) else { return false };
        let is_there = |receipt| errno(receipt) == 0;
        let was_dropped = |receipt| errno(receipt) == libc::ENOENT && entry.has_dropped();
        let receipts = &receipts[..changes.count];
        receipts.iter().any(is_there)
            && receipts.iter().all(|receipt| is_there(receipt) || was_dropped(receipt))
    }

    /// Deletes the knotes of a descriptor. At least one must exist, or have existed until the kernel dropped it.
    fn detach(&self, fd: RawFd) -> io::Result<()> {
        let number = usize::try_from(fd).ok();
        let entry = number.and_then(|number| self.numbers.get(number));
        let was_dropped = entry.is_some_and(Entry::reset);
        let deletion = deletions(fd);
        let receipts = self.apply(&deletion)?;
        check_open(&receipts[..deletion.count])?;
        let was_there = receipts[..deletion.count].iter().any(|receipt| errno(receipt) == 0);
        if was_there || was_dropped && self.is_broken(fd)? {
            return Ok(());
        }
        Err(io::Error::from_raw_os_error(libc::ENOENT))
    }

    /// Whether `fd`, of which the kernel has dropped a knote, is still the same file: another file under this number
    /// accepts a knote.
    fn is_broken(&self, fd: RawFd) -> io::Result<bool> {
        let change = |flags| kevent_for(fd, kevent::EVFILT_WRITE, flags);
        if self.apply_one(change(kevent::EV_ADD | kevent::EV_DISABLE))? != 0 {
            return Ok(true);
        }
        self.apply_one(change(kevent::EV_DELETE))?;
        Ok(false)
    }

    /// Applies `changes`, which delete the old knotes, and adds the knotes of `object`. After an error its descriptor
    /// has none.
    ///
    /// The old knotes have to go: EV_ADD leaves the EV_CLEAR and EV_DISPATCH of an existing knote as they are.
    fn attach(
        &self,
        changes: Changes<6>,
        object: EventObject,
        entry: &Entry,
        generation: u32,
    ) -> io::Result<()> {
        let attached = self.try_attach(changes, object, generation);
        match attached {
            Ok(()) => entry.set_oneshot(oneshot_bits(object)),
            // The knotes that were added must not report; those that were replaced are gone.
            Err(_) => drop(self.apply(&deletions(object.fd))),
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
            match errno(receipt) {
                0 => {}
                // The other end of the pipe is gone, which the filter added before this one reports.
                libc::EPIPE | libc::EBADF
                    if change.filter() == kevent::EVFILT_WRITE
                        && object.interest().contains(Interest::READABLE) => {}
                errno => return Err(io::Error::from_raw_os_error(errno)),
            }
        }
        Ok(())
    }

    /// Applies `change`, and returns the error of its receipt.
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
            kevent::kevent(self.as_fd(), list, room, Some(Duration::ZERO))?;
        }
        Ok(receipts)
    }
}

/// Starts a generation for what `object` registers and returns it; 0 if it needs none.
fn next_generation(object: EventObject, entry: &Entry) -> u32 {
    if oneshot_bits(object) == 0 { 0 } else { entry.renew() }
}

/// The changes of one kevent call.
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

/// The changes that delete every knote a descriptor can have.
fn deletions(fd: RawFd) -> Changes<6> {
    let mut deletions = Changes::new();
    for filter in filters(ALL) {
        deletions.push(kevent_for(fd, filter, kevent::EV_DELETE));
    }
    deletions
}

/// Fails if the receipts say that the descriptor is not open.
fn check_open(receipts: &[Kevent]) -> io::Result<()> {
    if receipts.iter().any(|receipt| errno(receipt) == libc::EBADF) {
        return Err(io::Error::from_raw_os_error(libc::EBADF));
    }
    Ok(())
}
