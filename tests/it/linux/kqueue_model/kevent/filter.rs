//! The operations of each filter on its knotes: attach, touch, and make an event.

use std::fs::{File, Metadata};
use std::io::{self, Read, Write};
use std::os::fd::OwnedFd;
use std::thread;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::sys::eventfd::{EfdFlags, EventFd};
use nix::sys::timerfd::{ClockId, Expiration, TimerFd, TimerFlags, TimerSetTimeFlags};
use nix::sys::wait::{Id, WaitPidFlag, WaitStatus, waitid};
use nix::unistd::Pid;

use super::knote::Knote;
use super::state::{self, is_fifo, is_pipe_without_its_other_end, is_socket};
use super::{
    CONTINUOUS, EV_ADD, EV_CLEAR, EV_EOF, EV_ONESHOT, EVFILT_PROC, EVFILT_READ, EVFILT_TIMER,
    EVFILT_USER, EVFILT_WRITE, EXCEPT, Kevent, NEXT_PROC, NOTE_EXIT, NOTE_NSECONDS, NOTE_OOB,
    NOTE_TRIGGER, kqueues_have,
};
use crate::linux::kqueue_model::sys::epoll;
use crate::support::kernel::Kernel;

/// Returns the file that is readable while a new knote is active, if it is not the descriptor that the knote names.
/// Adds the flags that all knotes of its filter have.
pub(super) fn attach(
    kernel: Kernel,
    registered: &mut Kevent,
    named: Option<&Metadata>,
) -> io::Result<Option<File>> {
    Ok(match registered.filter {
        EVFILT_READ => None,
        // Another kqueue can only be read: `kqueue_kqfilter`.
        EVFILT_WRITE | EXCEPT if kqueues_have(registered.ident) => {
            return Err(match kernel {
                Kernel::NetBsd => Errno::EPERM,
                Kernel::DragonFly => Errno::EOPNOTSUPP,
                _ => Errno::EINVAL,
            }
            .into());
        }
        // macOS registers it, since 10.15. The others attach this filter to the other end, for either end:
        // `pipe_kqfilter`.
        EVFILT_WRITE
            if kernel != Kernel::Apple
                && is_pipe_without_its_other_end(registered.ident, named)? =>
        {
            let is_netbsd = kernel == Kernel::NetBsd;
            return Err(if is_netbsd { Errno::EBADF } else { Errno::EPIPE }.into());
        }
        // A filter of sockets: `pipe_kqfilter`, `vn_kqfilter`.
        EXCEPT if kernel.has_priority() && !named.is_some_and(is_socket) => {
            let is_dragonfly = kernel == Kernel::DragonFly;
            return Err(if is_dragonfly { Errno::EOPNOTSUPP } else { Errno::EINVAL }.into());
        }
        // FreeBSD's pipes go both ways, so that a reading end can be written as well.
        EVFILT_WRITE
            if kernel == Kernel::FreeBsd
                && named.is_some_and(is_fifo)
                && state::is_only(registered.ident, OFlag::O_RDONLY) =>
        {
            Some(eventfd(false)?)
        }
        EVFILT_WRITE | EXCEPT => None,
        // FreeBSD clears the fflags before it attaches: `kqueue_register`.
        EVFILT_USER => {
            let is_triggered = registered.fflags & NOTE_TRIGGER != 0;
            Some(eventfd(is_triggered && kernel != Kernel::FreeBsd)?)
        }
        EVFILT_TIMER => {
            registered.flags |= EV_CLEAR;
            check_ticks(kernel, registered)?;
            Some(timer(registered)?)
        }
        _ => {
            registered.flags |= EV_CLEAR | EV_ONESHOT;
            if let Some(errno) = NEXT_PROC.take() {
                return Err(errno.into());
            }
            // FreeBSD finds a process that has ended: `filt_procattach`.
            Some(exit_of(registered.ident, kernel == Kernel::FreeBsd)?)
        }
    })
}

impl Knote {
    /// Passes a change on to a user event or a timer.
    pub(super) fn touch(&mut self, kernel: Kernel, change: &Kevent) -> io::Result<()> {
        match (change.filter, &mut self.own) {
            (EVFILT_USER, Some(trigger)) => {
                if change.fflags & NOTE_TRIGGER != 0 {
                    trigger.write_all(&1_u64.to_ne_bytes())?;
                }
                // In this order: both together lose the trigger. macOS clears only a user event that was added with
                // EV_CLEAR, at its report: `filt_usertouch`.
                if change.has(EV_CLEAR) && kernel != Kernel::Apple {
                    expirations(trigger);
                }
            }
            (EVFILT_TIMER, own) if change.has(EV_ADD) => {
                check_ticks(kernel, change)?;
                *own = Some(timer(change)?);
                self.seen.since = Instant::now();
            }
            _ => {}
        }
        Ok(())
    }

    /// Its event. Clears its own file, if its events clear.
    pub(super) fn event(&mut self, kernel: Kernel, bits: u32) -> Kevent {
        let event = self.registered;
        let mut clear = || self.own.as_mut().map_or(0, expirations);
        match event.filter {
            // macOS counts the periods that have passed: `filt_timerprocess`.
            EVFILT_TIMER if kernel == Kernel::Apple && event.has(EV_ONESHOT) => {
                clear();
                let periods = self.seen.since.elapsed().as_nanos() / period(&event).as_nanos();
                Kevent { data: i64::try_from(periods.max(1)).unwrap_or(i64::MAX), ..event }
            }
            EVFILT_TIMER => Kevent { data: clear(), ..event },
            EVFILT_USER => {
                if event.has(EV_CLEAR) {
                    clear();
                }
                Kevent { fflags: event.fflags & !NOTE_TRIGGER, ..event }
            }
            EVFILT_PROC => Kevent { flags: event.flags | EV_EOF, fflags: NOTE_EXIT, ..event },
            _ => self.descriptor_event(kernel, bits),
        }
    }

    fn descriptor_event(&mut self, kernel: Kernel, bits: u32) -> Kevent {
        let bits = if self.is_broken() { bits | epoll::EPOLLHUP } else { bits };
        let mut event = descriptor_event(self.registered, bits, self.is_socket());
        let is_end = event.has(EV_EOF);
        if kernel == Kernel::FreeBsd && is_end && event.filter == EVFILT_WRITE && self.is_fifo() {
            // The other end's close drops the knotes that are attached to it: `pipeclose`, `knlist_clear`.
            event.flags |= EV_ONESHOT;
        }
        if event.filter == EXCEPT {
            // `filt_soread_common`: the note is cleared with EV_CLEAR, and overwritten at the end.
            let stays = kernel == Kernel::Apple && !event.has(EV_CLEAR) && !is_end;
            self.seen.has_oob |= stays && event.fflags & NOTE_OOB != 0;
            if stays && self.seen.has_oob {
                event.fflags |= NOTE_OOB;
            }
        }
        let can_be_deaf = matches!(kernel, Kernel::FreeBsd | Kernel::NetBsd)
            && event.filter == EVFILT_READ
            && event.has(EV_CLEAR);
        if can_be_deaf && is_end && state::is_established(self.named.as_ref()) {
            self.seen.is_deaf = true;
        }
        event
    }
}

/// The event of a filter of descriptors for epoll's bits.
fn descriptor_event(registered: Kevent, bits: u32, is_socket: bool) -> Kevent {
    let is_error = bits & epoll::EPOLLERR != 0;
    let end = match registered.filter {
        // A pipe without a reader has an error, and no hang-up.
        EVFILT_WRITE if !is_socket => epoll::EPOLLHUP | epoll::EPOLLERR,
        EVFILT_WRITE => epoll::EPOLLHUP,
        EVFILT_READ if !is_socket => epoll::EPOLLHUP | epoll::EPOLLRDHUP | epoll::EPOLLERR,
        _ => epoll::EPOLLHUP | epoll::EPOLLRDHUP,
    };
    let mut event = Kevent { fflags: 0, data: 1, ..registered };
    if registered.filter == EXCEPT
        && registered.fflags & NOTE_OOB != 0
        && bits & epoll::EPOLLPRI != 0
    {
        event.fflags = NOTE_OOB;
    } else if bits & end != 0 {
        event.flags |= EV_EOF;
        if is_error && is_socket {
            // Reading the error with SO_ERROR would take it away from the program. This one has the bit of NOTE_OOB,
            // like BSD's ECONNRESET.
            event.fflags = Errno::ECONNREFUSED as u32;
        }
    }
    event
}

/// More ticks than fit in an `int` make NetBSD panic (`callout_schedule_locked`), and make other kernels' timers go off
/// early.
fn check_ticks(kernel: Kernel, timer: &Kevent) -> io::Result<()> {
    const TICK: Duration = Duration::from_millis(10);
    let ticks = period(timer).as_nanos() / TICK.as_nanos();
    let is_over = kernel.counts_timers_in_ticks() && ticks > i32::MAX as u128;
    if is_over { Err(Errno::EOVERFLOW.into()) } else { Ok(()) }
}

/// The time of a timer that was accepted.
fn period(timer: &Kevent) -> Duration {
    let data = timer.data.unsigned_abs().max(1);
    if timer.fflags & NOTE_NSECONDS != 0 {
        Duration::from_nanos(data)
    } else {
        Duration::from_millis(data)
    }
}

/// A timer that goes off every `data` milliseconds or nanoseconds, or once.
fn timer(change: &Kevent) -> io::Result<File> {
    if change.data < 0 || ![0, NOTE_NSECONDS].contains(&(change.fflags & !CONTINUOUS)) {
        return Err(Errno::EINVAL.into());
    }
    let time = period(change);
    let clock = match change.fflags & CONTINUOUS {
        0 => ClockId::CLOCK_MONOTONIC,
        _ => ClockId::CLOCK_BOOTTIME,
    };
    let timer = TimerFd::new(clock, TimerFlags::TFD_CLOEXEC | TimerFlags::TFD_NONBLOCK)?;
    let expiration =
        if change.has(EV_ONESHOT) { Expiration::OneShot } else { Expiration::Interval };
    timer.set(expiration(time.into()), TimerSetTimeFlags::empty())?;
    Ok(OwnedFd::from(timer).into())
}

/// The number of times that a timer went off, or a user event was triggered, since the last call.
pub(super) fn expirations(own: &mut File) -> i64 {
    let mut count = [0; size_of::<i64>()];
    own.read_exact(&mut count).map_or(0, |()| i64::from_ne_bytes(count))
}

/// A file that is readable after the end of a child. Only some kernels find a child that has ended and was not reaped.
fn exit_of(ident: usize, finds_ended: bool) -> io::Result<File> {
    let ended = WaitPidFlag::WEXITED | WaitPidFlag::WNOWAIT;
    let pid = Pid::from_raw(ident.try_into().map_err(|_| Errno::ESRCH)?);
    match waitid(Id::Pid(pid), ended | WaitPidFlag::WNOHANG) {
        Ok(WaitStatus::StillAlive) => {}
        Ok(_) if finds_ended => return eventfd(true),
        _ => return Err(Errno::ESRCH.into()),
    }
    let own = eventfd(false)?;
    let mut waker = own.try_clone()?;
    thread::spawn(move || {
        while waitid(Id::Pid(pid), ended) == Err(Errno::EINTR) {}
        waker.write_all(&1_u64.to_ne_bytes())
    });
    Ok(own)
}

pub(super) fn eventfd(is_ready: bool) -> io::Result<File> {
    let flags = EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK;
    let eventfd = EventFd::from_value_and_flags(is_ready.into(), flags)?;
    Ok(OwnedFd::from(eventfd).into())
}
