//! The end of a child process, as a descriptor.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd};
use std::process;

use crate::sys::ChildFd;

/// The end of a child process: a source that is readable once the process has ended.
///
/// It is a descriptor that you register with any poller, under any token, in any mode: on Linux a
/// [pidfd](https://man7.org/linux/man-pages/man2/pidfd_open.2.html), elsewhere a kqueue with `EVFILT_PROC`.
/// It never reaps the process: [`wait`](process::Child::wait) or [`try_wait`](process::Child::try_wait) of the
/// standard library does, and returns the status.
///
/// **Delete it before you reap.** On Linux 6.9 or later, reaping hangs the descriptor up. An edge is then
/// reported a second time. A level is reported by every wait, even with
/// [`Interest::NONE`](crate::Interest::NONE), which does not report the end itself.
///
/// **A reported process cannot always be reaped.** Until it can, `try_wait` returns `None`, and `wait` blocks:
///
/// - On Linux and FreeBSD, a debugger that traces the process reaps it first. It may take its time.
/// - Apple systems report the process microseconds before it can be reaped, and so does OpenBSD if it was
///   about to end when you began to watch it. For a session leader whose terminal still has output to drain,
///   it takes longer: if you read that terminal, read it first.
///
/// So in a loop that must not block, call `try_wait`, and while it returns `None` call it again every few
/// milliseconds. Do not count on another event. A level is reported by every wait, so your loop would spin. A
/// oneshot is not reported again, and an edge only on Linux, when the tracer lets go.
///
/// ```
/// use std::process::Command;
/// use pollio::{ChildExit, EventObject};
/// use pollio::{OsPoller, Poller, Registered};
///
/// let mut poller = OsPoller::new()?;
/// let mut process = Command::new("true").spawn()?;
/// let exit = ChildExit::new(&process)?;
/// let registry = poller.registry();
/// let exit = Registered::new(registry, exit, |fd| {
///     EventObject::new(fd).with_token(1)
/// })?;
///
/// assert_eq!(poller.wait(-1)?[0].token, 1);
/// drop(exit); // deletes it, before the process is reaped
/// let status = loop {
///     if let Some(status) = process.try_wait()? {
///         break status;
///     }
///     poller.wait(10)?; // and handle what it returns
/// };
/// assert!(status.success());
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
