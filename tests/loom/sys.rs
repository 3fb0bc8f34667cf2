//! What stands below the crate's files here.

pub(crate) mod kevent;
pub(crate) mod mpsc;

use std::io;
use std::os::fd::RawFd;

use loom::sync::atomic::Ordering::SeqCst;
use loom::sync::atomic::fence;
pub(crate) use loom::sync::atomic::{AtomicBool, AtomicU32};
pub(crate) use loom::sync::{Mutex, MutexGuard};

/// Loom knows one order for all threads only of fences.
pub(crate) fn fence_for_loom() {
    fence(SeqCst);
}

/// Whatever number a test has made up is open.
pub(crate) fn check_is_open(_: RawFd) -> io::Result<()> {
    Ok(())
}
