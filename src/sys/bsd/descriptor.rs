//! Whether a number is that of an open descriptor.

use std::io;
use std::os::fd::RawFd;

use crate::sys::result;

/// Fails with `EBADF` if `fd` is not open:
/// [fcntl(2)](https://man.freebsd.org/cgi/man.cgi?query=fcntl).
pub(crate) fn check_is_open(fd: RawFd) -> io::Result<()> {
    // SAFETY: the call takes no pointer, and changes nothing.
    result(unsafe { libc::fcntl(fd, libc::F_GETFD) }).map(drop)
}
