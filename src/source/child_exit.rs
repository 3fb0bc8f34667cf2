//! The end of a child process, as a descriptor.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd};
use std::process;

use crate::sys::ChildFd;

/// The end of a child process: a source that is readable once the process has ended.
///
/// It is a descriptor, so it is registered with any poller, under any token, in any mode: on Linux
/// a [pidfd](https://man7.org/linux/man-pages/man2/pidfd_open.2.html), elsewhere a kqueue with
/// `EVFILT_PROC`. It never reaps the process: call [`wait`](process::Child::wait) of the standard
/// library, which does that and returns its status.
///
/// Call `wait`, not [`try_wait`](process::Child::try_wait). On Linux, FreeBSD and NetBSD the process can
/// be reaped once it is reported, and `wait` does not block. Apple systems report a process that is about
/// to end, OpenBSD one that ended before it was watched: `try_wait` may return `None`, and an edge or a
/// oneshot is not reported again, while `wait` blocks for the microseconds that are left. It blocks
/// longer only for a session leader whose terminal still has output to drain: if that is yours to read,
/// read it first.
///
/// ```
/// use std::{os::fd::AsRawFd, process::Command};
/// use pollio::{ChildExit, EventObject, OsPoller, Poller};
///
/// let mut poller = OsPoller::new()?;
/// let mut process = Command::new("true").spawn()?;
/// let child = ChildExit::new(&process)?;
/// poller.add(EventObject::client(child.as_raw_fd()).with_token(1))?;
///
/// assert_eq!(poller.wait(-1)?[0].token, 1);
/// assert!(process.wait()?.success());
/// # Ok::<(), std::io::Error>(())
/// ```
#[derive(Debug)]
pub struct ChildExit {
    fd: ChildFd,
}

impl ChildExit {
    /// Watches for the end of `process`, which may have come already.
    ///
    /// # Errors
    ///
    /// - `ECHILD`: the process was waited for already, or `SIGCHLD` is ignored, so that the kernel
    ///   did that.
    /// - `Unsupported` (`ENOSYS`): the kernel has no `pidfd_open`, as Linux before 5.3; or it is
    ///   Android.
    /// - `PermissionDenied` (`EPERM`): a seccomp filter rejects that call.
    /// - `EMFILE`, `ENFILE`: the process or the system has too many descriptors; `ENOMEM`.
    pub fn new(process: &process::Child) -> io::Result<Self> {
        Self::from_pid(process.id())
    }

    /// Watches for the end of a child that the standard library did not start: the one with the number
    /// `pid`, which may have ended already, and must not have been waited for.
    ///
    /// The number of a child that was waited for may belong to another process by now.
    ///
    /// # Errors
    ///
    /// `InvalidInput` for 0 and for more than 2,147,483,647, which no process has; `ECHILD` also for a
    /// process that is not a child of this one; else see [`new`](Self::new).
    pub fn from_pid(pid: u32) -> io::Result<Self> {
        if pid == 0 || i32::try_from(pid).is_err() {
            let why = format!("no process has the number {pid}");
            return Err(io::Error::new(io::ErrorKind::InvalidInput, why));
        }
        Ok(Self { fd: ChildFd::new(pid)? })
    }
}

impl AsFd for ChildExit {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

impl AsRawFd for ChildExit {
    fn as_raw_fd(&self) -> RawFd {
        self.as_fd().as_raw_fd()
    }
}
