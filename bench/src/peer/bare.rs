//! The bare system calls of epoll(7), the lower bound of all peers.
#![allow(unsafe_code, reason = "system calls are foreign functions")]

use std::ffi::c_int;
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::time::Duration;

use super::{Asked, Mode, Peer, Shares, TimesOut, Wakes};

/// Blocks until something is ready. If it `SPINS`, it polls while it waits for a wake.
pub(crate) struct Bare<const SPINS: bool = false> {
    epoll: OwnedFd,
    events: Vec<libc::epoll_event>,
}

impl<const SPINS: bool> Bare<SPINS> {
    fn ctl(&self, operation: c_int, fd: RawFd, events: u32) -> io::Result<()> {
        let mut event = libc::epoll_event { events, u64: u64::from(fd.unsigned_abs()) };
        // SAFETY: `event` is alive during the call, which keeps no pointer to it.
        result(unsafe { libc::epoll_ctl(self.epoll.as_raw_fd(), operation, fd, &mut event) })?;
        Ok(())
    }

    fn ask(&mut self, timeout_ms: c_int) -> io::Result<usize> {
        let room = c_int::try_from(self.events.len()).unwrap_or(c_int::MAX);
        let (epoll, events) = (self.epoll.as_raw_fd(), self.events.as_mut_ptr());
        // SAFETY: the kernel writes at most `room` events, and `events` has that many.
        let count = result(unsafe { libc::epoll_wait(epoll, events, room, timeout_ms) })?;
        Ok(count.unsigned_abs() as usize)
    }

    /// Calls `reported` with each ready descriptor, after at most this many milliseconds, or without a limit if they
    /// are negative.
    pub(crate) fn poll(
        &mut self,
        timeout_ms: c_int,
        mut reported: impl FnMut(RawFd),
    ) -> io::Result<()> {
        let count = self.ask(timeout_ms)?;
        for event in &self.events[..count] {
            reported(fd_from(event.u64));
        }
        Ok(())
    }
}

impl<const SPINS: bool> Peer for Bare<SPINS> {
    const NAME: &'static str = if SPINS { "bare, spinning" } else { "bare epoll" };

    fn new() -> io::Result<Self> {
        // SAFETY: the call takes no pointer.
        let fd = result(unsafe { libc::epoll_create1(libc::EPOLL_CLOEXEC) })?;
        // SAFETY: the kernel just made `fd` for us; nobody else owns it.
        let epoll = unsafe { OwnedFd::from_raw_fd(fd) };
        Ok(Self { epoll, events: vec![libc::epoll_event { events: 0, u64: 0 }; 1024] })
    }

    fn lacks(_: Asked) -> Option<&'static str> {
        None
    }

    fn add(&mut self, fd: RawFd, asked: Asked) -> io::Result<()> {
        self.ctl(libc::EPOLL_CTL_ADD, fd, bits(asked))
    }

    fn modify(&mut self, fd: RawFd, asked: Asked) -> io::Result<()> {
        self.ctl(libc::EPOLL_CTL_MOD, fd, bits(asked))
    }

    fn delete(&mut self, fd: RawFd) -> io::Result<()> {
        self.ctl(libc::EPOLL_CTL_DEL, fd, 0)
    }

    fn wait(&mut self, reported: impl FnMut(RawFd)) -> io::Result<()> {
        self.poll(-1, reported)
    }
}

impl<const SPINS: bool> Wakes for Bare<SPINS> {
    type Waker = OwnedFd;

    fn with_waker() -> io::Result<(Self, OwnedFd)> {
        // SAFETY: the call takes no pointer.
        let fd = result(unsafe { libc::eventfd(0, libc::EFD_CLOEXEC | libc::EFD_NONBLOCK) })?;
        // SAFETY: the kernel just made `fd` for us; nobody else owns it.
        let waker = unsafe { OwnedFd::from_raw_fd(fd) };
        let mut bare = Self::new()?;
        // Each write is an arrival, so nothing has to be read.
        bare.add(fd, Asked::in_mode(Mode::Edge))?;
        Ok((bare, waker))
    }

    fn wake(waker: &OwnedFd) -> io::Result<()> {
        nix::unistd::write(waker, &1_u64.to_ne_bytes())?;
        Ok(())
    }

    fn wait_for_wake(&mut self) -> io::Result<()> {
        while self.ask(if SPINS { 0 } else { -1 })? == 0 {}
        Ok(())
    }
}

impl Shares for Bare {
    fn share(&self) -> io::Result<Self> {
        Ok(Self { epoll: self.epoll.try_clone()?, events: self.events.clone() })
    }
}

impl TimesOut for Bare {
    fn wait_for(&mut self, timeout: Duration) -> io::Result<()> {
        let spec = libc::timespec {
            tv_sec: timeout.as_secs().cast_signed(),
            tv_nsec: timeout.subsec_nanos().into(),
        };
        let (epoll, events) = (self.epoll.as_raw_fd(), self.events.as_mut_ptr());
        // SAFETY: the kernel reads `spec`, and writes one event at most.
        match result(unsafe { libc::epoll_pwait2(epoll, events, 1, &spec, std::ptr::null()) }) {
            // Valgrind does not know it.
            Err(error) if error.kind() == io::ErrorKind::Unsupported => {
                let ms = timeout.as_nanos().div_ceil(1_000_000);
                self.ask(c_int::try_from(ms).unwrap_or(c_int::MAX)).map(drop)
            }
            reported => reported.map(drop),
        }
    }
}

fn bits(asked: Asked) -> u32 {
    let writable = if asked.writable_too { libc::EPOLLOUT } else { 0 };
    let mode = match asked.mode {
        Mode::Level => 0,
        Mode::Edge => libc::EPOLLET,
        Mode::Oneshot => libc::EPOLLONESHOT,
    };
    (libc::EPOLLIN | libc::EPOLLRDHUP | writable | mode).cast_unsigned()
}

fn fd_from(data: u64) -> RawFd {
    RawFd::try_from(data).expect("a descriptor went in")
}

fn result(returned: c_int) -> io::Result<c_int> {
    if returned == -1 { Err(io::Error::last_os_error()) } else { Ok(returned) }
}
