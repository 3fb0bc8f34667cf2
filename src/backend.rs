//! What a kernel does for a poller.

use std::io;
use std::os::fd::RawFd;

use crate::object::EventObject;

/// What stands behind a [`Registry`](crate::Registry): the three verbs of a kernel, and how to wake it.
///
/// A poller of your own, over io_uring or a network stack in user space, implements this trait
/// and [`Poller`](crate::Poller), which has the contract to keep. Its waits use [`Wakeups`](crate::Wakeups).
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
    /// [`block`](crate::Wakeups::block) ends, without an event of this. Several calls before that may count as one.
    ///
    /// It is called by [`Waker::wake`](crate::Waker::wake), and only if a thread sleeps, or if the poller
    /// itself is watched; for the first time when the first waker is created. If the poller itself can be
    /// watched, this makes it ready. Do not create a waker within it.
    ///
    /// # Errors
    ///
    /// The kernel's own: see [`Waker::new`](crate::Waker::new).
    fn wake(&self) -> io::Result<()>;
}
