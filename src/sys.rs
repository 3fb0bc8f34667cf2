//! The wall: a safe function for each system call, and all of the crate's `unsafe`.
#![allow(unsafe_code, reason = "system calls are foreign functions, and stand here alone")]

#[cfg(any(target_os = "linux", target_os = "android"))]
pub(crate) mod epoll;
#[cfg(any(target_os = "linux", target_os = "android"))]
mod linux;
#[cfg(any(target_os = "linux", target_os = "android"))]
pub(crate) use linux::{ChildFd, TimerFd, WakerFd};

#[cfg(not(any(target_os = "linux", target_os = "android")))]
mod bsd;
#[cfg(not(any(target_os = "linux", target_os = "android")))]
pub(crate) mod kevent;
#[cfg(not(any(target_os = "linux", target_os = "android")))]
pub(crate) use bsd::{ChildFd, TimerFd, WakerFd};

#[cfg(not(any(
    target_os = "linux",
    target_os = "android",
    target_vendor = "apple",
    target_os = "freebsd",
    target_os = "netbsd",
    target_os = "openbsd",
    target_os = "dragonfly",
)))]
compile_error!("pollio needs epoll or kqueue: Linux, Android, an Apple system or a BSD");

mod process;

// What threads share is named here, so that `tests/loom/` can put loom's in its place.
pub(crate) use std::sync::atomic::AtomicBool;
#[cfg(not(any(target_os = "linux", target_os = "android")))]
pub(crate) use std::sync::{Mutex, MutexGuard};

use std::ffi::c_int;
use std::io;

/// What a system call returned, or the error that it left in `errno`.
fn result(returned: c_int) -> io::Result<c_int> {
    if returned == -1 { Err(io::Error::last_os_error()) } else { Ok(returned) }
}
