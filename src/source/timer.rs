//! Time, as a descriptor.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd};
use std::time::Duration;

use crate::sys::TimerFd;

/// A timer that goes off once or periodically: a source that is readable from its first
/// expiration until [`clear`](Self::clear).
///
/// It is a descriptor, so it is registered with any poller, under any token, in any mode: on Linux
/// a [timerfd](https://man7.org/linux/man-pages/man2/timerfd_create.2.html), elsewhere a kqueue with
/// `EVFILT_TIMER`. It runs on the monotonic clock, which stands still while the machine is suspended (see
/// [`new_boottime`](Self::new_boottime) for one that does not), to the nanosecond on Linux, Apple systems and
/// FreeBSD, and rounded up to milliseconds on the others. It can be set from another thread while a
/// wait is blocked.
///
/// If one event makes you disarm or set a timer, an event of that timer may come later in the same slice. So
/// act on an event only if [`clear`](Self::clear) returns more than zero.
///
/// For many timeouts you need one timer, set to the next of them; or none, since the timeout of
/// [`wait_timeout`](crate::Poller::wait_timeout) does the same. The guide
/// [shows how](crate::guide::threads#ten-thousand-timeouts).
///
/// ```
/// use std::{os::fd::AsRawFd, time::Duration};
/// use pollio::{EventObject, OsPoller, Poller, Timer};
///
/// let mut poller = OsPoller::new()?;
/// let timer = Timer::new()?;
/// let object = EventObject::new(timer.as_raw_fd());
/// poller.add(object.with_token(3))?;
///
/// timer.set(Duration::from_millis(1))?;
/// assert_eq!(poller.wait(-1)?[0].token, 3);
/// assert_eq!(timer.clear()?, 1);
/// assert!(poller.wait(0)?.is_empty());
/// # Ok::<(), std::io::Error>(())
/// ```
#[derive(Debug)]
pub struct Timer {
    fd: TimerFd,
}

impl Timer {
    /// Creates a timer that is not set.
    ///
    /// # Errors
    ///
    /// The kernel's own, from
    /// [timerfd_create(2)](https://man7.org/linux/man-pages/man2/timerfd_create.2.html) or
    /// [kqueue(2)](https://man.freebsd.org/cgi/man.cgi?query=kqueue): `EMFILE` or `ENFILE` when the
    /// process or the system has too many descriptors, `ENOMEM`.
    pub fn new() -> io::Result<Self> {
        Ok(Self { fd: TimerFd::new()? })
    }

    /// Creates a timer that is not set, whose clock also counts the time that the machine is suspended.
    ///
    /// A timeout that ends while the machine is suspended is reported once it has resumed: the timer does not
    /// wake the machine. Linux and Android have `CLOCK_BOOTTIME` of
    /// [timerfd_create(2)](https://man7.org/linux/man-pages/man2/timerfd_create.2.html) for it, Apple systems
    /// `NOTE_MACH_CONTINUOUS_TIME` of `EVFILT_TIMER` (`sys/event.h`). Nothing here was run over a suspension.
    ///
    /// # Errors
    ///
    /// `Unsupported` on FreeBSD, NetBSD, OpenBSD and DragonFly BSD: `EVFILT_TIMER` of
    /// [kqueue(2)](https://man.freebsd.org/cgi/man.cgi?query=kqueue) has no such clock there. `InvalidInput`
    /// (`EINVAL`) before Linux 3.15. Otherwise see [`new`](Self::new).
    pub fn new_boottime() -> io::Result<Self> {
        Ok(Self { fd: TimerFd::new_boottime()? })
    }

    /// Goes off once, `after` this long: at once for zero, never for [`Duration::MAX`]. [Where kqueue counts
    /// ticks](crate::kernels), nor for more than 240 days.
    ///
    /// What it was set to before, and the expirations so far, are forgotten. An event that a wait has already
    /// returned stays in its slice: see [`clear`](Self::clear).
    ///
    /// # Errors
    ///
    /// Fails only if other code closed the timer's descriptor; on kqueue also with `ENOMEM`.
    pub fn set(&self, after: Duration) -> io::Result<()> {
        self.fd.set(after)
    }

    /// Goes off repeatedly: after `every`, then again after each further `every`.
    ///
    /// What it was set to before, and the expirations so far, are forgotten, as by [`set`](Self::set).
    /// Registered edge-triggered, it is reported again only after a [`clear`](Self::clear).
    ///
    /// # Errors
    ///
    /// `InvalidInput` for zero, which no clock can keep up with; else as [`set`](Self::set).
    pub fn set_interval(&self, every: Duration) -> io::Result<()> {
        if every.is_zero() {
            let why = "a timer cannot go off every zero seconds";
            return Err(io::Error::new(io::ErrorKind::InvalidInput, why));
        }
        self.fd.set_interval(every)
    }

    /// Stops the timer until it is set again. The expirations so far are forgotten. An event that a wait has
    /// already returned stays in its slice: see [`clear`](Self::clear).
    ///
    /// # Errors
    ///
    /// As [`set`](Self::set).
    pub fn disarm(&self) -> io::Result<()> {
        self.fd.disarm()
    }

    /// Returns how often it went off since it was set or last cleared, and forgets that. Zero means
    /// that it was not readable. An event for which it is zero is out of date: the timer was disarmed, set or
    /// cleared after the wait had returned it.
    ///
    /// # Errors
    ///
    /// As [`set`](Self::set).
    pub fn clear(&self) -> io::Result<u64> {
        self.fd.clear()
    }
}

impl AsFd for Timer {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

impl AsRawFd for Timer {
    fn as_raw_fd(&self) -> RawFd {
        self.as_fd().as_raw_fd()
    }
}
