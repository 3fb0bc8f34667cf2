//! The end of a child process, as a descriptor.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd};
use std::process;

use crate::sys::ChildFd;

/// The end of a child process: a source that is readable once the process has ended.
///
/// It is a descriptor, so it is registered with any poller, under any token, in any mode: on Linux
/// a [pidfd](https://man7.org/linux/man-pages/man2/pidfd_open.2.html), elsewhere a kqueue with
/// `EVFILT_PROC`. It never reaps the process: that is done, and its status told, by
/// [`wait`](process::Child::wait) of the standard library, which does not block any more.
///
/// ```
/// use std::{os::fd::AsRawFd, process::Command};
/// use pollio::{Child, EventObject, OsPoller, Poller};
///
/// let mut poller = OsPoller::new()?;
/// let mut process = Command::new("true").spawn()?;
/// let child = Child::new(&process)?;
/// poller.add(EventObject::client(child.as_raw_fd()).with_token(1))?;
///
/// assert_eq!(poller.wait(-1)?[0].token, 1);
/// assert!(process.wait()?.success());
/// # Ok::<(), std::io::Error>(())
/// ```
#[derive(Debug)]
pub struct Child {
    fd: ChildFd,
}

impl Child {
    /// Watches for the end of `process`, which may have come already.
    ///
    /// # Errors
    ///
    /// - `ECHILD`: the process was waited for already, or `SIGCHLD` is ignored, so that the kernel
    ///   did that.
    /// - `Unsupported` (`ENOSYS`): the kernel has no `pidfd_open`, as Linux before 5.3; or it is
    ///   Android.
    /// - `PermissionDenied` (`EPERM`): a sandbox does not know that call.
    /// - `EMFILE`, `ENFILE`: the process or the system has too many descriptors; `ENOMEM`.
    pub fn new(process: &process::Child) -> io::Result<Self> {
        Ok(Self { fd: ChildFd::new(process.id())? })
    }
}

impl AsFd for Child {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

impl AsRawFd for Child {
    fn as_raw_fd(&self) -> RawFd {
        self.as_fd().as_raw_fd()
    }
}
