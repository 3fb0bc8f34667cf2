//! The end of a child process, as a descriptor.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd};
use std::process;

use crate::sys::ChildFd;

/// The end of a child process: a source that is readable once the process has ended.
///
/// It is a descriptor that you register with any poller, under any token, in any mode: on Linux a
/// [pidfd](https://man7.org/linux/man-pages/man2/pidfd_open.2.html), elsewhere a kqueue with `EVFILT_PROC`.
/// It never reaps the process: [`wait`](process::Child::wait) of the standard library does, and returns the
/// status.
///
/// Call `wait`, not [`try_wait`](process::Child::try_wait):
///
/// - On Linux, FreeBSD and NetBSD the process can be reaped once it is reported, and `wait` does not block.
/// - Apple systems report it a moment before it can be reaped, and so does OpenBSD if it was about to end
///   when you began to watch it. `try_wait` may then return `None`, and an edge or a oneshot is not reported
///   again. `wait` blocks for the microseconds that are left. It blocks longer only for a session leader
///   whose terminal still has output to drain: if you read that terminal, read it first.
///
/// ```
/// use std::{os::fd::AsRawFd, process::Command};
/// use pollio::{ChildExit, EventObject};
/// use pollio::{OsPoller, Poller};
///
/// let mut poller = OsPoller::new()?;
/// let mut process = Command::new("true").spawn()?;
/// let child = ChildExit::new(&process)?;
/// let object = EventObject::client(child.as_raw_fd());
/// poller.add(object.with_token(1))?;
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
    /// Watches for the end of `process`, which may already have ended.
    ///
    /// # Errors
    ///
    /// - `ECHILD`: the process was already waited for, or the kernel reaped it because `SIGCHLD` is
    ///   ignored.
    /// - `Unsupported` (`ENOSYS`): the kernel has no `pidfd_open`: Linux before 5.3, and Android.
    /// - `PermissionDenied` (`EPERM`): a seccomp filter rejects that call.
    /// - `EMFILE`, `ENFILE`: the process or the system has too many descriptors; `ENOMEM`.
    pub fn new(process: &process::Child) -> io::Result<Self> {
        Self::from_pid(process.id())
    }

    /// Watches for the end of the child with the number `pid`: one that the standard library did not
    /// start. It may already have ended.
    ///
    /// It must not have been waited for: then its number may belong to another process by now.
    ///
    /// # Errors
    ///
    /// - `InvalidInput`: no process has the number, which is 0 or more than 2,147,483,647.
    /// - `ECHILD`: also for a process that is not a child of this one.
    /// - Otherwise see [`new`](Self::new).
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
