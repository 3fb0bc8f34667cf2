//! The sources, as the descriptors that Linux has for them.

use std::ffi::c_int;
use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::ptr;
use std::time::Duration;

use crate::sys::process::check_unreaped;
use crate::sys::result;

/// The timer's half, by
/// [timerfd_create(2)](https://man7.org/linux/man-pages/man2/timerfd_create.2.html): a counter of
/// expirations.
#[derive(Debug)]
pub(crate) struct TimerFd {
    timerfd: File,
}

impl TimerFd {
    pub(crate) fn new() -> io::Result<Self> {
        Self::on(libc::CLOCK_MONOTONIC)
    }

    pub(crate) fn new_boottime() -> io::Result<Self> {
        Self::on(libc::CLOCK_BOOTTIME)
    }

    fn on(clock: libc::clockid_t) -> io::Result<Self> {
        let flags = libc::TFD_CLOEXEC | libc::TFD_NONBLOCK;
        // SAFETY: the call takes no pointer.
        let fd = result(unsafe { libc::timerfd_create(clock, flags) })?;
        // SAFETY: the kernel just made `fd` for us; nobody else owns it.
        let timerfd = unsafe { OwnedFd::from_raw_fd(fd) };
        Ok(Self { timerfd: File::from(timerfd) })
    }

    pub(crate) fn set(&self, after: Duration) -> io::Result<()> {
        // Zero would disarm the timer.
        self.settime(after.max(Duration::from_nanos(1)), Duration::ZERO)
    }

    pub(crate) fn set_interval(&self, every: Duration) -> io::Result<()> {
        self.settime(every, every)
    }

    pub(crate) fn disarm(&self) -> io::Result<()> {
        self.settime(Duration::ZERO, Duration::ZERO)
    }

    pub(crate) fn clear(&self) -> io::Result<u64> {
        read_counter(&self.timerfd)
    }

    /// Also sets the counter to zero.
    fn settime(&self, first: Duration, then: Duration) -> io::Result<()> {
        let times = libc::itimerspec { it_value: timespec(first), it_interval: timespec(then) };
        let timerfd = self.timerfd.as_raw_fd();
        // SAFETY: the kernel reads `times`, and writes nothing where the old ones are not asked for.
        result(unsafe { libc::timerfd_settime(timerfd, 0, &times, ptr::null_mut()) })?;
        Ok(())
    }
}

impl AsFd for TimerFd {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.timerfd.as_fd()
    }
}

/// The child's half, by
/// [pidfd_open(2)](https://man7.org/linux/man-pages/man2/pidfd_open.2.html): readable once the
/// process has ended.
#[derive(Debug)]
pub(crate) struct ChildFd {
    pidfd: OwnedFd,
}

impl ChildFd {
    pub(crate) fn new(pid: u32) -> io::Result<Self> {
        // The number of a child that was waited for may belong to another process by now.
        check_unreaped(pid)?;
        // Android's seccomp policy kills the process for a system call that it does not know.
        if cfg!(target_os = "android") {
            return Err(io::Error::from_raw_os_error(libc::ENOSYS));
        }
        // SAFETY: the call takes no pointer.
        let fd = unsafe { libc::syscall(libc::SYS_pidfd_open, pid, 0) };
        // A descriptor is an int, though libc has a long of it.
        let fd = result(c_int::try_from(fd).unwrap_or(-1))?;
        // SAFETY: the kernel just made `fd` for us; nobody else owns it.
        Ok(Self { pidfd: unsafe { OwnedFd::from_raw_fd(fd) } })
    }
}

impl AsFd for ChildFd {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.pidfd.as_fd()
    }
}

/// Takes the count of a timerfd, 0 if it has not expired.
fn read_counter(mut counter: &File) -> io::Result<u64> {
    let mut count = [0; size_of::<u64>()];
    match counter.read(&mut count) {
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(0),
        read => read.map(|_| u64::from_ne_bytes(count)),
    }
}

/// `duration` for the kernel. One that no clock reaches is infinite.
#[allow(clippy::cast_possible_wrap, reason = "a billion fits, whatever the type is here")]
fn timespec(duration: Duration) -> libc::timespec {
    let seconds = duration.as_secs().min(i64::MAX.unsigned_abs());
    libc::timespec {
        // Where the seconds have 32 bits, they end after 68 years.
        tv_sec: seconds.try_into().unwrap_or(i32::MAX as _),
        tv_nsec: duration.subsec_nanos() as _,
    }
}
