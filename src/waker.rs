//! A way into a wait from another thread.

use std::fmt;
use std::io;
use std::sync::Arc;

use crate::registry::Registry;
use crate::wakers::Wakers;

/// Ends a wait from another thread.
///
/// A waker belongs to a poller. After a [`wake`](Self::wake), the wait that is blocked, or else the next one,
/// returns an event: [`is_wake`](crate::Event::is_wake), with the waker's token. There is nothing to register, to
/// clear or to re-arm. All wakes of a waker before a wait returns are one event.
///
/// A wake makes a system call only if a thread is blocked in a wait: a busy loop is woken for the price of two
/// atomic operations. So a waker has no descriptor; a poller with wakers has one, on epoll an
/// [eventfd(2)](https://man7.org/linux/man-pages/man2/eventfd.2.html).
///
/// It is cheap to clone. Several wakers of one poller differ by their tokens.
///
/// ```
/// use std::thread;
/// use pollio::{OsPoller, Poller, Waker};
///
/// let mut poller = OsPoller::new()?;
/// let waker = Waker::new(poller.registry(), 7)?;
///
/// let elsewhere = thread::spawn(move || waker.wake());
///
/// let events = poller.wait(-1)?;
/// assert!(events[0].is_wake());
/// assert_eq!(events[0].token, 7);
/// # elsewhere.join().unwrap()?;
/// # Ok::<(), std::io::Error>(())
/// ```
#[derive(Clone)]
pub struct Waker {
    slot: Arc<Slot>,
}

/// The place of a waker among those of its poller, until the last clone is dropped.
struct Slot {
    wakers: Arc<Wakers>,
    index: u32,
}

impl Waker {
    /// Creates a waker of the poller that `registry` belongs to. Its events have `token`, which may be that of
    /// other registrations and wakers as well.
    ///
    /// # Errors
    ///
    /// The first waker of a poller prepares the kernel, with the errors of
    /// [eventfd(2)](https://man7.org/linux/man-pages/man2/eventfd.2.html) and
    /// [epoll_ctl(2)](https://man7.org/linux/man-pages/man2/epoll_ctl.2.html), or of
    /// [kevent(2)](https://man.freebsd.org/cgi/man.cgi?query=kevent): `EMFILE` or `ENFILE` when the process or the
    /// system has too many descriptors, `ENOMEM`, `ENOSPC`. Otherwise `OutOfMemory`.
    pub fn new(registry: &Registry, token: u32) -> io::Result<Self> {
        Self::of(registry, token, false)
    }

    /// Creates the waker of a channel: once a wait has returned its event, each further wait returns it again, until
    /// the receiver [finds](Self::finish) its queue empty.
    pub(crate) fn of_channel(registry: &Registry, token: u32) -> io::Result<Self> {
        Self::of(registry, token, true)
    }

    fn of(registry: &Registry, token: u32, is_channel: bool) -> io::Result<Self> {
        let wakers = Arc::clone(registry.wakers());
        let index = wakers.create(token, is_channel)?;
        Ok(Self { slot: Arc::new(Slot { wakers, index }) })
    }

    /// Wakes the poller: the wait that is blocked, or the next one, returns an event. It never blocks, and is never
    /// lost. If two threads wake at once, the wait may end only after both calls; two wakes of one waker are one event.
    ///
    /// What a thread wrote before `wake` is visible to the thread whose wait returns the event. If several
    /// handles wait on one poller, exactly one of them returns it (C18). If the waker is dropped, its last wake is
    /// still reported. If the poller is dropped, nothing happens.
    ///
    /// # Errors
    ///
    /// Fails only if other code closed the poller's descriptors.
    #[doc(alias = "notify")]
    pub fn wake(&self) -> io::Result<()> {
        self.slot.wakers.wake(self.slot.index)
    }

    /// Whether there are other clones of this waker.
    pub(crate) fn has_clones(&self) -> bool {
        Arc::strong_count(&self.slot) > 1
    }

    /// Notes that the receiver of a channel found its queue empty.
    pub(crate) fn finish(&self) {
        self.slot.wakers.finish(self.slot.index);
    }

    /// Notes that the receiver of a channel is dropped.
    pub(crate) fn close(&self) {
        self.slot.wakers.close(self.slot.index);
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        self.wakers.retire(self.index);
    }
}

impl fmt::Debug for Waker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Waker").finish_non_exhaustive()
    }
}
