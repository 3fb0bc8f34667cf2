//! The calls of [eventfd(2)](https://man7.org/linux/man-pages/man2/eventfd.2.html).

use std::fs::File;
use std::io::{self, Write};
use std::os::fd::{FromRawFd, OwnedFd};

use crate::sys::result;

/// Creates an eventfd that an exec closes: `eventfd(2)`.
pub(crate) fn create() -> io::Result<File> {
    // SAFETY: the call takes no pointer.
    let fd = result(unsafe { libc::eventfd(0, libc::EFD_CLOEXEC | libc::EFD_NONBLOCK) })?;
    // SAFETY: the kernel just made `fd` for us; nobody else owns it.
    Ok(File::from(unsafe { OwnedFd::from_raw_fd(fd) }))
}

/// Adds one to the counter, which is an arrival to an epoll that watches it: `write(2)`.
pub(crate) fn add_one(mut eventfd: &File) -> io::Result<()> {
    eventfd.write(&1_u64.to_ne_bytes()).map(drop)
}
