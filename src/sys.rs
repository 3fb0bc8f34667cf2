//! The system-call layer: a safe function for each call, and all of the crate's `unsafe`.
#![allow(unsafe_code, reason = "system calls are foreign functions, and stand only here")]

#[cfg(any(target_os = "linux", target_os = "android"))]
#[path = "sys/linux/mod.rs"]
mod system;

#[cfg(any(
    target_vendor = "apple",
    target_os = "freebsd",
    target_os = "netbsd",
    target_os = "openbsd",
    target_os = "dragonfly",
))]
#[path = "sys/bsd/mod.rs"]
mod system;

mod process;

pub(crate) use system::*;

// The types that threads share are named here, so that `tests/loom/` can replace them with loom's.
pub(crate) use std::sync::atomic::{AtomicBool, AtomicU32};
pub(crate) use std::sync::{Mutex, mpsc};

use std::ffi::c_int;
use std::io;

/// Called between a `SeqCst` store and a `SeqCst` load of another place. Loom treats these as `AcqRel`, so it has a
/// fence here.
#[inline]
pub(crate) fn fence_for_loom() {}

/// The value that a system call returned, or the error that it left in `errno`.
fn result(returned: c_int) -> io::Result<c_int> {
    if returned == -1 { Err(io::Error::last_os_error()) } else { Ok(returned) }
}
