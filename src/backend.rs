//! What a kernel does for a poller.

use std::io;
use std::os::fd::RawFd;

use crate::object::EventObject;

/// The kernel's side of a [`Registry`](crate::Registry): the three verbs, and how to wake a wait.
///
/// A poller of your own, over io_uring or a network stack in user space, implements this trait
/// and [`Poller`](crate::Poller), whose contract it keeps. Its waits use [`Wakeups`](crate::Wakeups).
pub trait Backend: Send + Sync {
    /// Registers a descriptor; see [`Registry::add`](crate::Registry::add).
    ///
    /// # Errors
    ///
    /// See [`Registry::add`](crate::Registry::add).
    fn add(&self, object: EventObject) -> io::Result<()>;

    /// Replaces a registration; see [`Registry::modify`](crate::Registry::modify).
    ///
    /// # Errors
    ///
    /// See [`Registry::modify`](crate::Registry::modify).
    fn modify(&self, object: EventObject) -> io::Result<()>;

    /// Deletes a registration; see [`Registry::delete`](crate::Registry::delete).
    ///
    /// # Errors
    ///
    /// See [`Registry::delete`](crate::Registry::delete).
    fn delete(&self, fd: RawFd) -> io::Result<()>;

    /// Wakes one thread that is blocked in a wait, or else the next one that blocks: its
    /// [`block`](crate::Wakeups::block) ends without an event for this. Several calls before that may count as one.
    ///
    /// The creation of the first waker calls it, and [`Waker::wake`](crate::Waker::wake) does if a thread sleeps or the
    /// poller itself is watched. If the poller itself can be watched, this makes it ready. Do not create a waker within
    /// it.
    ///
    /// # Errors
    ///
    /// The kernel's own: see [`Waker::new`](crate::Waker::new).
    fn wake(&self) -> io::Result<()>;
}
