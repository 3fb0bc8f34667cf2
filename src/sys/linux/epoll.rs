//! The calls of [epoll(7)](https://man7.org/linux/man-pages/man7/epoll.7.html).

use std::ffi::c_int;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::ptr;
use std::time::Duration;

use crate::sys::result;

/// What the kernel writes for a ready descriptor: bits, and the registration's user data.
pub(crate) type Event = libc::epoll_event;

/// An event that no kernel wrote.
pub(crate) const NO_EVENT: Event = Event { events: 0, u64: 0 };

// libc has these as c_int, while the kernel's field is unsigned.
pub(crate) const EPOLLIN: u32 = bits(libc::EPOLLIN);
pub(crate) const EPOLLPRI: u32 = bits(libc::EPOLLPRI);
pub(crate) const EPOLLOUT: u32 = bits(libc::EPOLLOUT);
pub(crate) const EPOLLERR: u32 = bits(libc::EPOLLERR);
pub(crate) const EPOLLHUP: u32 = bits(libc::EPOLLHUP);
pub(crate) const EPOLLRDHUP: u32 = bits(libc::EPOLLRDHUP);
pub(crate) const EPOLLEXCLUSIVE: u32 = bits(libc::EPOLLEXCLUSIVE);
pub(crate) const EPOLLONESHOT: u32 = bits(libc::EPOLLONESHOT);
pub(crate) const EPOLLET: u32 = bits(libc::EPOLLET);

#[expect(clippy::cast_sign_loss, reason = "EPOLLET is the sign bit")]
const fn bits(flag: c_int) -> u32 {
    flag as u32
}

/// Creates an epoll instance that an exec closes: `epoll_create1(2)`.
pub(crate) fn create() -> io::Result<OwnedFd> {
    // SAFETY: the call takes no pointer.
    let fd = result(unsafe { libc::epoll_create1(libc::EPOLL_CLOEXEC) })?;
    // SAFETY: the kernel just made `fd` for us; nobody else owns it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Registers `fd`: `epoll_ctl(2)` with `EPOLL_CTL_ADD`.
pub(crate) fn add(epoll: BorrowedFd<'_>, fd: RawFd, events: u32, data: u64) -> io::Result<()> {
    ctl(epoll, libc::EPOLL_CTL_ADD, fd, Event { events, u64: data })
}

/// Replaces a registration: `epoll_ctl(2)` with `EPOLL_CTL_MOD`.
pub(crate) fn modify(epoll: BorrowedFd<'_>, fd: RawFd, events: u32, data: u64) -> io::Result<()> {
    ctl(epoll, libc::EPOLL_CTL_MOD, fd, Event { events, u64: data })
}

/// Forgets `fd`: `epoll_ctl(2)` with `EPOLL_CTL_DEL`.
pub(crate) fn delete(epoll: BorrowedFd<'_>, fd: RawFd) -> io::Result<()> {
    ctl(epoll, libc::EPOLL_CTL_DEL, fd, NO_EVENT)
}

fn ctl(epoll: BorrowedFd<'_>, operation: c_int, fd: RawFd, mut event: Event) -> io::Result<()> {
    // SAFETY: `event` is alive during the call, which keeps no pointer to it. A `fd` that is not
    // open, or not ours, cannot harm memory: the kernel looks it up.
    result(unsafe { libc::epoll_ctl(epoll.as_raw_fd(), operation, fd, &mut event) })?;
    Ok(())
}

/// Waits up to `timeout_ms`, indefinitely if it is negative, and returns how many of `events` were
/// written: `epoll_wait(2)`.
pub(crate) fn wait(
    epoll: BorrowedFd<'_>,
    events: &mut [Event],
    timeout_ms: c_int,
) -> io::Result<usize> {
    let (epoll, room) = (epoll.as_raw_fd(), room(events));
    // SAFETY: the kernel writes at most `room` events, and `events` has that many.
    let written =
        result(unsafe { libc::epoll_wait(epoll, events.as_mut_ptr(), room, timeout_ms) })?;
    Ok(written.unsigned_abs() as usize)
}

/// Waits as [`wait`] does, up to `timeout` to the nanosecond: `epoll_pwait2(2)`, of Linux 5.11.
pub(crate) fn pwait2(
    epoll: BorrowedFd<'_>,
    events: &mut [Event],
    timeout: Duration,
) -> io::Result<usize> {
    // Android's seccomp policy kills the process for a system call that it does not know; Miri stops.
    if cfg!(any(target_os = "android", miri)) {
        return Err(io::Error::from_raw_os_error(libc::ENOSYS));
    }
    let timeout = KernelTimespec::from(timeout);
    // SAFETY: the kernel reads `timeout` and, the signal mask being null, nothing else; it writes
    // at most `room` events, and `events` has that many.
    let written = unsafe {
        libc::syscall(
            libc::SYS_epoll_pwait2,
            epoll.as_raw_fd(),
            events.as_mut_ptr(),
            room(events),
            &raw const timeout,
            ptr::null::<libc::sigset_t>(),
            0_usize,
        )
    };
    let written = result(c_int::try_from(written).unwrap_or(-1))?;
    Ok(written.unsigned_abs() as usize)
}

/// How many events the kernel may write.
fn room(events: &[Event]) -> c_int {
    c_int::try_from(events.len()).unwrap_or(c_int::MAX)
}

/// `struct __kernel_timespec`: 64 bits for the seconds even where libc's `time_t` has 32.
#[repr(C)]
struct KernelTimespec {
    seconds: i64,
    nanoseconds: i64,
}

impl From<Duration> for KernelTimespec {
    fn from(duration: Duration) -> Self {
        Self {
            seconds: i64::try_from(duration.as_secs()).unwrap_or(i64::MAX),
            nanoseconds: i64::from(duration.subsec_nanos()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_timespec_keeps_every_nanosecond_and_never_wraps() {
        let KernelTimespec { seconds, nanoseconds } = Duration::new(7, 999_999_999).into();
        assert_eq!((seconds, nanoseconds), (7, 999_999_999));
        let KernelTimespec { seconds, nanoseconds } = Duration::MAX.into();
        assert_eq!((seconds, nanoseconds), (i64::MAX, 999_999_999));
    }
}
