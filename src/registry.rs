//! The half of a poller that registers: from any thread, at any time.

use std::fmt;
use std::io;
use std::os::fd::RawFd;
use std::panic::{RefUnwindSafe, UnwindSafe};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use crate::backend::Backend;
use crate::object::EventObject;
use crate::wakers::{Wakers, Wakeups};

/// A handle that registers descriptors with the poller that it came from.
///
/// It is cheap to clone, and you can send it to other threads. You can use it while the events of a wait
/// are borrowed. A wait that is already blocked sees what you register (C12).
///
/// A handle that outlives its poller still works: it keeps the kernel's interest list open, though
/// nobody waits for it.
///
/// ```
/// use pollio::{EventObject, OsPoller, Poller};
/// # use std::{net::TcpListener, os::fd::AsRawFd};
///
/// let listener = TcpListener::bind("127.0.0.1:0")?;
/// let poller = OsPoller::new()?;
/// let registry = poller.registry().clone();
/// let fd = listener.as_raw_fd();
/// let thread = std::thread::spawn(move || {
///     registry.add(EventObject::server(fd))
/// });
/// thread.join().unwrap()?;
/// # Ok::<(), std::io::Error>(())
/// ```
#[derive(Clone)]
pub struct Registry {
    backend: Arc<dyn Backend>,
    /// Shared by all tables of connections on one poller, so that no event of one finds an entry of another.
    next_token: Arc<AtomicU32>,
    wakers: Arc<Wakers>,
}

impl Registry {
    /// Creates the handle that a backend returns; see [`Backend`].
    #[must_use]
    pub fn new(backend: Arc<dyn Backend>) -> Self {
        let wakers = Arc::new(Wakers::new(Arc::clone(&backend)));
        Self { backend, wakers, next_token: Arc::default() }
    }

    /// A token that no other call returns, until it has wrapped around.
    pub(crate) fn next_token(&self) -> u32 {
        self.next_token.fetch_add(1, Ordering::Relaxed)
    }

    /// What the waits of a handle need for wakers, in a backend of your own.
    #[must_use]
    pub fn wakeups(&self) -> Wakeups {
        Wakeups::new(Arc::clone(&self.wakers))
    }

    pub(crate) fn wakers(&self) -> &Arc<Wakers> {
        &self.wakers
    }

    /// Registers `object.fd` with the interest, mode, kind and token of `object`.
    ///
    /// A descriptor that is already ready is reported by the next wait, in every mode (C3).
    /// The descriptor stays yours: pollio never closes it. Delete it before you close it (C16).
    ///
    /// # Errors
    ///
    /// The kernel's own, from
    /// [epoll_ctl(2)](https://man7.org/linux/man-pages/man2/epoll_ctl.2.html) or
    /// [kevent(2)](https://man.freebsd.org/cgi/man.cgi?query=kevent):
    ///
    /// - `AlreadyExists`: it is already registered. Kqueue replaces the registration instead.
    /// - `EBADF`: it is not an open descriptor, or other code closed the poller's own.
    /// - `PermissionDenied` (`EPERM`): it cannot be watched. To epoll, a regular file or a
    ///   directory is always ready, so there is nothing to wait for.
    /// - `EINVAL`: the descriptor is the poller itself, or the object is
    ///   [`exclusive`](EventObject::exclusive) with an interest or a mode that this excludes. On
    ///   kqueue, it cannot be watched for one of the interests.
    /// - `BrokenPipe` (`EPIPE`): on kqueue, the other end of the pipe is gone, and the object asks for
    ///   `WRITABLE` without `READABLE`. On NetBSD that is `EBADF`.
    /// - `ELOOP`: the descriptor is a poller that watches this one, or pollers watch pollers more
    ///   than five deep.
    /// - `ENOSPC`, `ENOMEM`: the limit of `/proc/sys/fs/epoll/max_user_watches` is reached, or
    ///   there is no memory.
    #[doc(alias("register", "epoll_ctl", "kevent"))]
    #[inline]
    pub fn add(&self, object: EventObject) -> io::Result<()> {
        self.backend.add(object)
    }

    /// Replaces interest, mode, kind and token of the registration of `object.fd`, and arms it
    /// again if it was a oneshot that has been reported.
    ///
    /// A descriptor that is already ready is reported by the next wait, in every mode (C3). All four are replaced, so
    /// pass the `EventObject` that you added: an [`Event`](crate::Event) is not one. Events that a wait has already
    /// returned stay in its slice, as they are.
    ///
    /// # Errors
    ///
    /// - `NotFound`: it is not registered.
    /// - `EBADF`: it is not an open descriptor. On Apple systems that is `NotFound`.
    /// - `EINVAL`: it was added as [`exclusive`](EventObject::exclusive), or the new object is.
    /// - On kqueue, all that [`add`](Self::add) lists. The registration is then gone; another thread's wait may
    ///   have reported the new one by then.
    #[doc(alias("reregister", "rearm"))]
    #[inline]
    pub fn modify(&self, object: EventObject) -> io::Result<()> {
        self.backend.modify(object)
    }

    /// Deletes the registration of `fd`: no later wait reports it.
    ///
    /// Events that a wait has already returned stay in its slice.
    ///
    /// # Errors
    ///
    /// - `NotFound`: it is not registered.
    /// - `EBADF`: it is not an open descriptor. On Apple systems that is `NotFound`.
    #[doc(alias("deregister", "unregister", "remove"))]
    #[inline]
    pub fn delete(&self, fd: RawFd) -> io::Result<()> {
        self.backend.delete(fd)
    }
}

// A backend is `Sync`: other threads see the state that a panic leaves behind, so it must stay consistent
// anyway. `Backend` need not demand that it is `RefUnwindSafe`.
impl UnwindSafe for Registry {}
impl RefUnwindSafe for Registry {}

impl fmt::Debug for Registry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Registry").finish_non_exhaustive()
    }
}
