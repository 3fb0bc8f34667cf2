//! The half of a poller that registers: from any thread, at any time.

use std::fmt;
use std::io;
use std::os::fd::RawFd;
use std::sync::Arc;

use crate::object::EventObject;

/// A handle that registers descriptors with the poller that it came from.
///
/// It is cheap to clone and goes to other threads. It works while the events of a wait are
/// borrowed, and a wait that is already blocked sees what it does (C12).
///
/// A handle that outlives its poller keeps the kernel's interest list open, and goes on
/// registering descriptors that nobody waits for.
///
/// ```
/// use pollio::{EventObject, OsPoller, Poller};
/// # use std::{net::TcpListener, os::fd::AsRawFd};
///
/// let listener = TcpListener::bind("127.0.0.1:0")?;
/// let poller = OsPoller::new()?;
/// let registry = poller.registry().clone();
/// std::thread::spawn(move || registry.add(EventObject::server(listener.as_raw_fd())))
///     .join()
///     .unwrap()?;
/// # Ok::<(), std::io::Error>(())
/// ```
#[derive(Clone)]
pub struct Registry {
    register: Arc<dyn Register + Send + Sync>,
}

impl Registry {
    /// Makes the handle that a backend gives out; see [`Register`].
    #[must_use]
    pub fn new(register: Arc<dyn Register + Send + Sync>) -> Self {
        Self { register }
    }

    /// Registers `object.fd` with the interest, mode, kind and token of `object`.
    ///
    /// A descriptor that is already ready is reported by the next wait, in every mode (C3).
    /// The descriptor stays the caller's: pollio never closes it, and it should be deleted before
    /// it is closed (C16).
    ///
    /// # Errors
    ///
    /// The kernel's own, from
    /// [epoll_ctl(2)](https://man7.org/linux/man-pages/man2/epoll_ctl.2.html) or
    /// [kevent(2)](https://man.freebsd.org/cgi/man.cgi?query=kevent):
    ///
    /// - `AlreadyExists`: it is registered already. Kqueue replaces the registration instead.
    /// - `EBADF`: it is not an open descriptor, or other code closed the poller's own.
    /// - `PermissionDenied` (`EPERM`): it cannot be watched. To epoll, a regular file or a
    ///   directory is always ready, so there is nothing to wait for.
    /// - `EINVAL`: the descriptor is the poller itself, or
    ///   [`exclusive`](EventObject::exclusive) was asked for together with what it cannot be. On
    ///   kqueue, it cannot be watched for one of the interests.
    /// - `BrokenPipe` (`EPIPE`): on kqueue, the reader of the pipe is gone.
    /// - `ELOOP`: the descriptor is a poller that watches this one, or pollers watch pollers more
    ///   than five deep.
    /// - `ENOSPC`, `ENOMEM`: the limit of `/proc/sys/fs/epoll/max_user_watches` is reached, or
    ///   there is no memory.
    #[doc(alias("register", "epoll_ctl", "kevent"))]
    #[inline]
    pub fn add(&self, object: EventObject) -> io::Result<()> {
        self.register.add(object)
    }

    /// Replaces interest, mode, kind and token of the registration of `object.fd`, and arms it
    /// again if it was a oneshot that has been reported.
    ///
    /// A descriptor that is already ready is reported by the next wait, in every mode (C3). All four
    /// are replaced, so keep the `EventObject` that you added, or build it again: an
    /// [`Event`](crate::Event) has neither interest nor mode.
    ///
    /// # Errors
    ///
    /// - `NotFound`: it is not registered.
    /// - `EBADF`: it is not an open descriptor.
    /// - `EINVAL`: it was added as [`exclusive`](EventObject::exclusive), or now would be.
    /// - All that [`add`](Self::add) lists, on kqueue, where the registration is gone then.
    #[doc(alias("reregister", "rearm"))]
    #[inline]
    pub fn modify(&self, object: EventObject) -> io::Result<()> {
        self.register.modify(object)
    }

    /// Deletes the registration of `fd`: no later wait reports it.
    ///
    /// Events that a wait has already given out stay in its slice.
    ///
    /// # Errors
    ///
    /// - `NotFound`: it is not registered.
    /// - `EBADF`: it is not an open descriptor. One that was closed needs no delete.
    #[doc(alias("deregister", "unregister", "remove"))]
    #[inline]
    pub fn delete(&self, fd: RawFd) -> io::Result<()> {
        self.register.delete(fd)
    }
}

impl fmt::Debug for Registry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Registry").finish_non_exhaustive()
    }
}

/// What a backend does to register: the three verbs behind a [`Registry`].
///
/// A poller of one's own, over io_uring or a network stack in user space, implements this trait
/// and [`Poller`](crate::Poller), which explains the promises to keep.
pub trait Register {
    /// Registers a descriptor; see [`Registry::add`].
    ///
    /// # Errors
    ///
    /// See [`Registry::add`].
    fn add(&self, object: EventObject) -> io::Result<()>;

    /// Replaces a registration; see [`Registry::modify`].
    ///
    /// # Errors
    ///
    /// See [`Registry::modify`].
    fn modify(&self, object: EventObject) -> io::Result<()>;

    /// Forgets a descriptor; see [`Registry::delete`].
    ///
    /// # Errors
    ///
    /// See [`Registry::delete`].
    fn delete(&self, fd: RawFd) -> io::Result<()>;
}
