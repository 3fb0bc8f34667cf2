//! The sources, as descriptors: a kqueue with one filter, which is readable once the filter has fired.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::Duration;

use super::kevent::{self, Flags, Kevent};
use crate::sys::process::check_unreaped;

/// The timer's half: a kqueue with EVFILT_TIMER.
#[derive(Debug)]
pub(crate) struct TimerFd {
    kqueue: OwnedFd,
    /// The notes for the unit and the clock.
    notes: u32,
}

impl TimerFd {
    pub(crate) fn new() -> io::Result<Self> {
        Ok(Self { kqueue: kevent::kqueue()?, notes: kevent::NOTE_TIMER_UNIT })
    }

    pub(crate) fn new_boottime() -> io::Result<Self> {
        let Some(continuous) = kevent::NOTE_MACH_CONTINUOUS_TIME else {
            let why = "EVFILT_TIMER has no clock here that counts while the machine is suspended";
            return Err(io::Error::new(io::ErrorKind::Unsupported, why));
        };
        let timer = Self::new()?;
        Ok(Self { notes: timer.notes | continuous, ..timer })
    }

    pub(crate) fn set(&self, after: Duration) -> io::Result<()> {
        self.start(after, kevent::EV_ONESHOT)
    }

    pub(crate) fn set_interval(&self, every: Duration) -> io::Result<()> {
        self.start(every, 0)
    }

    pub(crate) fn disarm(&self) -> io::Result<()> {
        let mut receipt = [Kevent::NONE];
        // The receipt's error only says whether it was running.
        kevent::kevent(self.kqueue.as_fd(), &[STOP], &mut receipt, Some(Duration::ZERO)).map(drop)
    }

    pub(crate) fn clear(&self) -> io::Result<u64> {
        let mut fired = [Kevent::NONE];
        // Older macOS sleeps for a moment anyway, and can be interrupted.
        while let Err(error) =
            kevent::kevent(self.kqueue.as_fd(), &[], &mut fired, Some(Duration::ZERO))
        {
            if error.kind() != io::ErrorKind::Interrupted {
                return Err(error);
            }
        }
        // macOS counts how often a timer that goes off once could have gone off since:
        // `filt_timerprocess` in bsd/kern/kern_event.c.
        let is_once = fired[0].flags() & kevent::EV_ONESHOT != 0;
        Ok(if is_once { 1 } else { fired[0].data().unsigned_abs() })
    }

    fn start(&self, period: Duration, flags: Flags) -> io::Result<()> {
        if period > kevent::longest_timer() {
            return self.disarm();
        }
        let units = period.as_nanos().div_ceil(kevent::TIMER_UNIT.as_nanos()).max(1);
        let flags = kevent::EV_ADD | kevent::EV_RECEIPT | flags;
        let start = Kevent::new(0, kevent::EVFILT_TIMER, flags)
            .with_fflags(self.notes)
            .with_data(i64::try_from(units).unwrap_or(i64::MAX));
        // Stopped first: starting it again would keep its count.
        let mut receipts = [Kevent::NONE; 2];
        let changes = [STOP, start];
        kevent::kevent(self.kqueue.as_fd(), &changes, &mut receipts, Some(Duration::ZERO))?;
        match receipts[1].data() {
            0 => Ok(()),
            errno => {
                Err(io::Error::from_raw_os_error(i32::try_from(errno).unwrap_or(libc::EINVAL)))
            }
        }
    }
}

const STOP: Kevent = Kevent::new(0, kevent::EVFILT_TIMER, kevent::EV_DELETE | kevent::EV_RECEIPT);

impl AsFd for TimerFd {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.kqueue.as_fd()
    }
}

/// The child's half: a kqueue with EVFILT_PROC.
#[derive(Debug)]
pub(crate) struct ChildFd {
    kqueue: OwnedFd,
}

impl ChildFd {
    pub(crate) fn new(pid: u32) -> io::Result<Self> {
        // The number of a child that was waited for may belong to another process by now.
        check_unreaped(pid)?;
        let kqueue = kevent::kqueue()?;
        let exit = Kevent::new(pid as usize, kevent::EVFILT_PROC, kevent::EV_ADD)
            .with_fflags(kevent::NOTE_EXIT);
        match kevent::kevent(kqueue.as_fd(), &[exit], &mut [], Some(Duration::ZERO)) {
            // It has ended, or begun to. FreeBSD reports that. macOS and OpenBSD no longer find the process, so another
            // filter has to make the kqueue readable.
            Err(error) if error.raw_os_error() == Some(libc::ESRCH) => {
                let timer = TimerFd { kqueue, notes: kevent::NOTE_TIMER_UNIT };
                timer.set(Duration::ZERO)?;
                Ok(Self { kqueue: timer.kqueue })
            }
            watched => watched.map(|_| Self { kqueue }),
        }
    }
}

impl AsFd for ChildFd {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.kqueue.as_fd()
    }
}
