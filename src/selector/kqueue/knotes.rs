//! What the kernel has registered: a knote for each descriptor and filter.

use std::collections::BTreeSet;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd, RawFd};
use std::sync::PoisonError;
use std::time::Duration;

use super::claims::Claims;
use super::encoding::{ALL, errno, filters, generation_from, kevent_for, mode_flags, udata};
use crate::sys::kevent::{self, Kevent};
use crate::sys::{Mutex, MutexGuard, check_is_open};
use crate::{Backend, EventObject, Interest, Mode};

/// The kqueue, shared by the poller's handles and its registries.
///
/// The kernel has a knote for each descriptor and filter, so a registration is one knote for each
/// interest. Without any, a disabled one keeps its place.
pub(super) struct Knotes {
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

impl AsFd for Knotes {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.kqueue.as_fd()
    }
}

impl Knotes {
    pub(super) fn create() -> io::Result<Self> {
        Ok(Self {
            kqueue: kevent::kqueue()?,
            claims: Claims::new(),
            dropped: Mutex::new(BTreeSet::new()),
        })
    }

    fn lock(&self) -> MutexGuard<'_, BTreeSet<RawFd>> {
        // No panic leaves the set half changed.
        self.dropped.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The kernel has dropped a knote by itself, saying so by EV_ONESHOT, which is never asked for:
    /// FreeBSD does when the reader of a pipe is gone, macOS when a terminal is revoked. It may have
    /// been the last knote of its descriptor, and cannot be added again.
    #[cold]
    pub(super) fn note_dropped(&self, fd: RawFd) {
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
    pub(super) fn may_report(&self, kevent: &Kevent) -> bool {
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
            match errno(receipt) {
                0 => {}
                // The other end of the pipe is gone. The filter before this one was added, and reports it.
                libc::EPIPE | libc::EBADF
                    if change.filter() == kevent::EVFILT_WRITE
                        && object.interest().contains(Interest::READABLE) => {}
                errno => return Err(io::Error::from_raw_os_error(errno)),
            }
        }
        Ok(())
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
            kevent::kevent(self.as_fd(), list, room, Some(Duration::ZERO))?;
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
