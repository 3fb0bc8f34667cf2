//! A way into a blocked wait from another thread.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd};
use std::sync::atomic::Ordering::AcqRel;

use crate::sys::{AtomicBool, WakerFd};

/// Ends a wait from another thread: a source that is readable from the first
/// [`wake`](Self::wake) until [`clear`](Self::clear).
///
/// It is a descriptor that you register with any poller, under any token, in any mode: on Linux an
/// [eventfd(2)](https://man7.org/linux/man-pages/man2/eventfd.2.html), elsewhere one of a pair of connected
/// sockets. When it is reported, [`clear`](Self::clear) it; or, if it is registered edge-triggered,
/// [`rearm`](Self::rearm) it.
///
/// Dropping a waker discards a wake that no wait has reported yet: keep the waker until then.
///
/// ```
/// use std::{os::fd::AsRawFd, sync::Arc, thread};
/// use pollio::{EventObject, OsPoller, Poller, Waker};
///
/// let mut poller = OsPoller::new()?;
/// let waker = Arc::new(Waker::new()?);
/// let object = EventObject::client(waker.as_raw_fd());
/// poller.add(object.with_token(7))?;
///
/// let elsewhere = thread::spawn({
///     let waker = Arc::clone(&waker);
///     move || waker.wake()
/// });
///
/// let events = poller.wait(-1)?;
/// assert_eq!(events[0].token, 7);
/// waker.clear()?;
/// # elsewhere.join().unwrap()?;
/// # Ok::<(), std::io::Error>(())
/// ```
#[derive(Debug)]
pub struct Waker {
    fd: WakerFd,
    /// A wake was made since the last clear, so that `fd` is readable, or is about to be.
    is_woken: AtomicBool,
}

impl Waker {
    /// Creates a waker that has not been woken.
    ///
    /// # Errors
    ///
    /// The kernel's own, from
    /// [eventfd(2)](https://man7.org/linux/man-pages/man2/eventfd.2.html) or
    /// [socketpair(2)](https://man7.org/linux/man-pages/man2/socketpair.2.html): `EMFILE` or
    /// `ENFILE` when the process or the system has too many descriptors, `ENOMEM`.
    pub fn new() -> io::Result<Self> {
        Ok(Self { fd: WakerFd::new()?, is_woken: AtomicBool::new(false) })
    }

    /// Makes the waker readable. It never blocks, and is never lost: all the wakes before the next
    /// [`clear`](Self::clear) are one event, and of these only the first is a system call.
    ///
    /// What a thread wrote before `wake` is visible to the thread that calls `clear`, after that call.
    /// Only `clear` may read from the descriptor.
    ///
    /// Do not use a waker across `fork`: the flag of a pending wake is copied, while the descriptor is
    /// shared, so wakes are lost. Use a pipe.
    ///
    /// # Errors
    ///
    /// Fails only if other code closed the waker's descriptor.
    #[doc(alias = "notify")]
    pub fn wake(&self) -> io::Result<()> {
        if self.is_woken.swap(true, AcqRel) {
            return Ok(());
        }
        let woken = self.fd.wake();
        if woken.is_err() {
            self.is_woken.swap(false, AcqRel);
        }
        woken
    }

    /// Forgets the wakes so far. A later wake is reported again.
    ///
    /// Clear first, then look for the work that the wakes announced: the other order loses what is
    /// announced in between.
    ///
    /// # Errors
    ///
    /// Fails only if other code closed the waker's descriptor.
    pub fn clear(&self) -> io::Result<()> {
        // In this order, a wake in between is forgotten with the others, before the caller looks for
        // its work. In the other order its write would be read here and its flag would stay set, so
        // that no later wake would write again.
        let cleared = self.fd.clear();
        self.rearm();
        cleared
    }

    /// Forgets the wakes so far as [`clear`](Self::clear) does, without its system call: for a waker that
    /// is registered with [`Mode::Edge`](crate::Mode::Edge).
    ///
    /// The descriptor stays readable, and each later wake is a new arrival. A level-triggered
    /// registration would be reported by every wait.
    ///
    /// As with `clear`, look for the announced work afterwards.
    pub fn rearm(&self) {
        self.is_woken.swap(false, AcqRel);
    }
}

impl AsFd for Waker {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

impl AsRawFd for Waker {
    fn as_raw_fd(&self) -> RawFd {
        self.as_fd().as_raw_fd()
    }
}
