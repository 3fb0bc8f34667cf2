//! The calls of [kqueue(2)](https://man.freebsd.org/cgi/man.cgi?query=kqueue).

use std::io;
use std::mem;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::ptr;
use std::time::Duration;

use crate::sys::result;

// Apple's `kevent64_s` has them whatever the width of a pointer is.
#[cfg(not(target_vendor = "apple"))]
const _: () = assert!(
    size_of::<*mut libc::c_void>() == size_of::<u64>(),
    "pollio keeps 64 bits in a kevent's udata: BSD targets of 32 bits are not supported"
);

// Apple has two interfaces, of which a kqueue takes only the one that was used on it first. The newer one
// has a flag not to sleep for a timeout of zero: see `kevent`.
#[cfg(not(target_vendor = "apple"))]
use libc::{kevent as call, kevent as Entry};
#[cfg(target_vendor = "apple")]
use libc::{kevent64 as call, kevent64_s as Entry};

// NetBSD has other widths than the others.
#[cfg(not(target_os = "netbsd"))]
mod width {
    pub(crate) type Filter = i16;
    pub(crate) type Flags = u16;
    pub(super) type Count = std::ffi::c_int;
}
#[cfg(target_os = "netbsd")]
mod width {
    pub(crate) type Filter = u32;
    pub(crate) type Flags = u32;
    pub(super) type Count = libc::size_t;
}
use width::Count;
pub(crate) use width::{Filter, Flags};

pub(crate) use libc::{
    EV_ADD, EV_CLEAR, EV_DELETE, EV_DISABLE, EV_DISPATCH, EV_ENABLE, EV_EOF, EV_ERROR, EV_ONESHOT,
    EV_RECEIPT, EVFILT_PROC, EVFILT_READ, EVFILT_TIMER, EVFILT_USER, EVFILT_WRITE, NOTE_EXIT,
    NOTE_LOWAT, NOTE_TRIGGER,
};

/// The filter for out-of-band data: FreeBSD and NetBSD have none.
#[cfg(not(any(target_os = "freebsd", target_os = "netbsd")))]
pub(crate) const EVFILT_EXCEPT: Option<Filter> = Some(libc::EVFILT_EXCEPT);
#[cfg(any(target_os = "freebsd", target_os = "netbsd"))]
pub(crate) const EVFILT_EXCEPT: Option<Filter> = None;
#[cfg(not(any(target_os = "freebsd", target_os = "netbsd")))]
pub(crate) use libc::NOTE_OOB;
#[cfg(any(target_os = "freebsd", target_os = "netbsd"))]
pub(crate) const NOTE_OOB: u32 = 2;

/// The unit of EVFILT_TIMER, and its note. Milliseconds where nanoseconds came late or never: a kernel without them
/// takes the number for milliseconds.
#[cfg(any(target_vendor = "apple", target_os = "freebsd"))]
pub(crate) const TIMER_UNIT: Duration = Duration::from_nanos(1);
#[cfg(any(target_vendor = "apple", target_os = "freebsd"))]
pub(crate) use libc::NOTE_NSECONDS as NOTE_TIMER_UNIT;
#[cfg(not(any(target_vendor = "apple", target_os = "freebsd")))]
pub(crate) const TIMER_UNIT: Duration = Duration::from_millis(1);
#[cfg(not(any(target_vendor = "apple", target_os = "freebsd")))]
pub(crate) const NOTE_TIMER_UNIT: u32 = 0;

/// Whether EV_ENABLE replaces the user data of a knote, and reports a condition that already holds, even if the knote
/// was enabled. `kevent_register` of XNU and `kqueue_register` of FreeBSD do, when run; NetBSD and OpenBSD keep the
/// user data.
pub(crate) const fn can_rearm() -> bool {
    cfg!(any(target_vendor = "apple", target_os = "freebsd"))
}

/// The longest period of a timer; a longer one never ends. FreeBSD's clock ends after 68 years. The others count
/// ticks in an `int`, as a rule 100 a second. It overflows after 248 days: then a timer goes off early, or NetBSD
/// panics (`callout_schedule_locked`, with DIAGNOSTIC).
pub(crate) const fn longest_timer() -> Duration {
    let days =
        if cfg!(any(target_vendor = "apple", target_os = "freebsd")) { 30 * 365 } else { 240 };
    Duration::from_secs(days * 24 * 60 * 60)
}

/// Lets a timer run while the machine is suspended, also one with an interval: `filt_timervalidate` in
/// bsd/kern/kern_event.c. Only Apple has it.
#[cfg(target_vendor = "apple")]
pub(crate) const NOTE_MACH_CONTINUOUS_TIME: Option<u32> = Some(libc::NOTE_MACH_CONTINUOUS_TIME);
#[cfg(not(target_vendor = "apple"))]
pub(crate) const NOTE_MACH_CONTINUOUS_TIME: Option<u32> = None;

/// One entry of a list of changes, or of events.
#[derive(Debug, Clone, Copy)]
#[repr(transparent)]
pub(crate) struct Kevent(Entry);

// SAFETY: `udata` is a number that the kernel carries, not a pointer that anyone follows.
#[cfg(not(target_vendor = "apple"))]
unsafe impl Send for Kevent {}

impl Kevent {
    /// An entry that no kernel wrote.
    // SAFETY: `struct kevent` has integers and a pointer, all of which may be zero.
    pub(crate) const NONE: Self = Self(unsafe { mem::zeroed() });

    #[allow(clippy::cast_lossless, trivial_numeric_casts, reason = "Apple has a u64 here")]
    pub(crate) const fn new(ident: usize, filter: Filter, flags: Flags) -> Self {
        let mut kevent = Self::NONE;
        kevent.0.ident = ident as _;
        kevent.0.filter = filter;
        kevent.0.flags = flags;
        kevent
    }

    pub(crate) const fn with_fflags(mut self, fflags: u32) -> Self {
        self.0.fflags = fflags;
        self
    }

    #[allow(trivial_numeric_casts, clippy::cast_possible_truncation, reason = "64 bits everywhere")]
    pub(crate) const fn with_data(mut self, data: i64) -> Self {
        self.0.data = data as _;
        self
    }

    pub(crate) const fn with_udata(mut self, udata: u64) -> Self {
        self.0.udata = udata_from(udata);
        self
    }

    #[allow(
        clippy::cast_possible_truncation,
        clippy::unnecessary_cast,
        trivial_numeric_casts,
        reason = "Apple has a u64 here, which holds a usize"
    )]
    pub(crate) const fn ident(&self) -> usize {
        self.0.ident as usize
    }

    pub(crate) const fn filter(&self) -> Filter {
        self.0.filter
    }

    pub(crate) const fn flags(&self) -> Flags {
        self.0.flags
    }

    pub(crate) const fn fflags(&self) -> u32 {
        self.0.fflags
    }

    #[allow(clippy::unnecessary_cast, reason = "macOS and DragonFly BSD have an isize here")]
    pub(crate) const fn data(&self) -> i64 {
        self.0.data as i64
    }

    #[cfg(target_vendor = "apple")]
    pub(crate) fn udata(&self) -> u64 {
        self.0.udata
    }

    #[cfg(not(target_vendor = "apple"))]
    pub(crate) fn udata(&self) -> u64 {
        self.0.udata.addr() as u64
    }
}

#[cfg(target_vendor = "apple")]
const fn udata_from(udata: u64) -> u64 {
    udata
}

#[cfg(not(target_vendor = "apple"))]
#[expect(clippy::cast_possible_truncation, reason = "a pointer has 64 bits, as asserted above")]
const fn udata_from(udata: u64) -> *mut libc::c_void {
    ptr::without_provenance_mut(udata as usize)
}

/// Creates a kqueue that an exec closes: `kqueue(2)`, then `fcntl(2)`.
pub(crate) fn kqueue() -> io::Result<OwnedFd> {
    // SAFETY: the call takes no pointer.
    let fd = result(unsafe { libc::kqueue() })?;
    // SAFETY: the kernel just made `fd` for us; nobody else owns it.
    let kqueue = unsafe { OwnedFd::from_raw_fd(fd) };
    // A child of fork(2) has no kqueue, so nothing is lost between the two calls.
    // SAFETY: the call takes no pointer.
    result(unsafe { libc::fcntl(fd, libc::F_SETFD, libc::FD_CLOEXEC) })?;
    Ok(kqueue)
}

/// Applies `changes`, waits up to `timeout`, without one indefinitely, and returns how many of `events`
/// were written: `kevent(2)`, on Apple systems `kevent64(2)`.
pub(crate) fn kevent(
    kqueue: BorrowedFd<'_>,
    changes: &[Kevent],
    events: &mut [Kevent],
    timeout: Option<Duration>,
) -> io::Result<usize> {
    // Without this flag, a timeout of zero sleeps for at least 10 µs since macOS 10.15, and can be interrupted:
    // `kevent_legacy_get_deadline` and `kqueue_scan` in bsd/kern/kern_event.c.
    #[cfg(target_vendor = "apple")]
    let flags = match timeout {
        Some(Duration::ZERO) => libc::KEVENT_FLAG_IMMEDIATE,
        _ => libc::KEVENT_FLAG_NONE,
    };
    let timeout = timeout.map(timespec);
    // SAFETY: the kernel reads `changes` and `timeout`, and writes at most as many events as
    // `events` has; a `Kevent` is laid out as libc's.
    let written = result(unsafe {
        call(
            kqueue.as_raw_fd(),
            changes.as_ptr().cast(),
            count(changes),
            events.as_mut_ptr().cast(),
            count(events),
            #[cfg(target_vendor = "apple")]
            flags,
            timeout.as_ref().map_or(ptr::null(), ptr::from_ref),
        )
    })?;
    Ok(written.unsigned_abs() as usize)
}

fn count(kevents: &[Kevent]) -> Count {
    Count::try_from(kevents.len()).unwrap_or(Count::MAX)
}

fn timespec(timeout: Duration) -> libc::timespec {
    libc::timespec {
        tv_sec: libc::time_t::try_from(timeout.as_secs()).unwrap_or(libc::time_t::MAX),
        tv_nsec: timeout.subsec_nanos() as libc::c_long,
    }
}
