//! What Linux makes descriptors of:
//! [eventfd(2)](https://man7.org/linux/man-pages/man2/eventfd.2.html).

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, BorrowedFd, FromRawFd, OwnedFd};

use super::result;

/// The waker's half: a counter in the kernel, readable while it is not zero.
#[derive(Debug)]
pub(crate) struct WakeSignal {
    eventfd: File,
}

impl WakeSignal {
    pub(crate) fn new() -> io::Result<Self> {
        // SAFETY: the call takes no pointer.
        let fd = result(unsafe { libc::eventfd(0, libc::EFD_CLOEXEC | libc::EFD_NONBLOCK) })?;
        // SAFETY: the kernel just made `fd` for us; nobody else owns it.
        let eventfd = unsafe { OwnedFd::from_raw_fd(fd) };
        Ok(Self { eventfd: File::from(eventfd) })
    }

    pub(crate) fn wake(&self) -> io::Result<()> {
        match (&self.eventfd).write(&1_u64.to_ne_bytes()) {
            // The counter is full, so it is readable: the wake is told all the same.
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(()),
            written => written.map(drop),
        }
    }

    pub(crate) fn clear(&self) -> io::Result<()> {
        match (&self.eventfd).read(&mut [0; size_of::<u64>()]) {
            // The counter is zero: there was no wake to forget.
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(()),
            read => read.map(drop),
        }
    }
}

impl AsFd for WakeSignal {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.eventfd.as_fd()
    }
}
