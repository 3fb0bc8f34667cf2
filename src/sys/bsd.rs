//! What a BSD makes descriptors of: a pair of connected sockets.

use std::io::{self, Read, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;

/// The waker's half: a connection to itself, readable while there is a byte in it.
///
/// EVFILT_USER would need one descriptor instead of two, but NetBSD before 10 and older OpenBSDs
/// do not have it.
#[derive(Debug)]
pub(crate) struct WakeSignal {
    near: UnixStream,
    far: UnixStream,
}

impl WakeSignal {
    pub(crate) fn new() -> io::Result<Self> {
        let (near, far) = UnixStream::pair()?;
        near.set_nonblocking(true)?;
        far.set_nonblocking(true)?;
        Ok(Self { near, far })
    }

    pub(crate) fn wake(&self) -> io::Result<()> {
        match (&self.far).write(&[1]) {
            // The connection is full, so it is readable: the wake is told all the same.
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(()),
            written => written.map(drop),
        }
    }

    pub(crate) fn clear(&self) -> io::Result<()> {
        let mut wakes = [0; 1024];
        loop {
            match (&self.near).read(&mut wakes) {
                Ok(count) if count == wakes.len() => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                read => return read.map(drop),
            }
        }
    }
}

impl AsFd for WakeSignal {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.near.as_fd()
    }
}
