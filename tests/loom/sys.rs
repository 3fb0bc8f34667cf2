//! What stands below the crate's files here.

pub(crate) mod kevent;
pub(crate) mod mpsc;

use std::cell::RefCell;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, RawFd};

pub(crate) use loom::sync::Arc;
use loom::sync::atomic::Ordering::Relaxed;
pub(crate) use loom::sync::atomic::{AtomicBool, AtomicU32};
pub(crate) use loom::sync::{Mutex, MutexGuard};

thread_local! {
    /// Loom runs all its threads in this one.
    static LAST_MADE: RefCell<Option<Arc<AtomicBool>>> = const { RefCell::new(None) };
}

/// Whether the waker that was made last is readable, as a poller would find.
pub(crate) fn last_made() -> Arc<AtomicBool> {
    LAST_MADE.take().expect("a waker was made")
}

/// Whatever number a test has made up is open.
pub(crate) fn check_is_open(_: RawFd) -> io::Result<()> {
    Ok(())
}

/// A descriptor that orders nothing between threads, so that all the order there is comes from
/// the waker.
#[derive(Debug)]
pub(crate) struct WakerFd {
    is_readable: Arc<AtomicBool>,
}

impl WakerFd {
    pub(crate) fn new() -> io::Result<Self> {
        let is_readable = Arc::new(AtomicBool::new(false));
        LAST_MADE.set(Some(Arc::clone(&is_readable)));
        Ok(Self { is_readable })
    }

    pub(crate) fn wake(&self) -> io::Result<()> {
        // A store could come to stand before the swap that did not see it: the kernel has a lock.
        self.is_readable.swap(true, Relaxed);
        Ok(())
    }

    pub(crate) fn clear(&self) -> io::Result<()> {
        self.is_readable.swap(false, Relaxed);
        Ok(())
    }
}

impl AsFd for WakerFd {
    fn as_fd(&self) -> BorrowedFd<'_> {
        unreachable!("no kernel looks at it")
    }
}
