//! The system-call layer below the crate's files in this program.

pub(crate) mod kevent;
pub(crate) mod mpsc;

use std::io;
use std::os::fd::RawFd;

use loom::sync::atomic::Ordering::SeqCst;
use loom::sync::atomic::fence;
pub(crate) use loom::sync::atomic::{AtomicBool, AtomicU32};
pub(crate) use loom::sync::{Mutex, MutexGuard};

/// Only for fences does loom have one order for all threads.
pub(crate) fn fence_for_loom() {
    fence(SeqCst);
}

/// Any number of a test counts as open.
pub(crate) fn check_is_open(_: RawFd) -> io::Result<()> {
    Ok(())
}
