//! pollio as it is here, with and without spinning.

use std::io;
use std::os::fd::RawFd;
use std::time::Duration;

use pollio::{EventObject, Interest, OsPoller, Poller, Waker};

use super::{Asked, Mode, Peer, Shares, TimesOut, Wakes};

/// Spins for up to `SPIN_US` microseconds.
pub(crate) struct Pollio<const SPIN_US: u64>(OsPoller);

/// The guide's recommendation.
pub(crate) const SPIN_US: u64 = 50;

impl<const SPIN: u64> Peer for Pollio<SPIN> {
    const NAME: &'static str = if SPIN == 0 { "pollio" } else { "pollio, spinning" };

    fn new() -> io::Result<Self> {
        let mut poller = OsPoller::new()?;
        poller.set_spin(Duration::from_micros(SPIN));
        Ok(Self(poller))
    }

    fn lacks(_: Asked) -> Option<&'static str> {
        None
    }

    fn add(&mut self, fd: RawFd, asked: Asked) -> io::Result<()> {
        self.0.add(object(fd, asked))
    }

    fn modify(&mut self, fd: RawFd, asked: Asked) -> io::Result<()> {
        self.0.modify(object(fd, asked))
    }

    fn delete(&mut self, fd: RawFd) -> io::Result<()> {
        self.0.delete(fd)
    }

    fn wait(&mut self, mut reported: impl FnMut(RawFd)) -> io::Result<()> {
        for event in self.0.wait(-1)? {
            reported(event.fd);
        }
        Ok(())
    }
}

impl<const SPIN: u64> Wakes for Pollio<SPIN> {
    type Waker = Waker;

    fn with_waker() -> io::Result<(Self, Waker)> {
        let pollio = Self::new()?;
        let waker = Waker::new(pollio.0.registry(), 0)?;
        Ok((pollio, waker))
    }

    fn wake(waker: &Waker) -> io::Result<()> {
        waker.wake()
    }

    fn wait_for_wake(&mut self) -> io::Result<()> {
        self.0.wait(-1)?;
        Ok(())
    }
}

impl<const SPIN: u64> Shares for Pollio<SPIN> {
    fn share(&self) -> io::Result<Self> {
        let mut poller = self.0.try_clone()?;
        poller.set_spin(Duration::from_micros(SPIN));
        Ok(Self(poller))
    }
}

impl<const SPIN: u64> TimesOut for Pollio<SPIN> {
    fn wait_for(&mut self, timeout: Duration) -> io::Result<()> {
        self.0.wait_timeout(Some(timeout))?;
        Ok(())
    }
}

fn object(fd: RawFd, asked: Asked) -> EventObject {
    let writable = if asked.writable_too { Interest::WRITABLE } else { Interest::NONE };
    let mode = match asked.mode {
        Mode::Level => pollio::Mode::Level,
        Mode::Edge => pollio::Mode::Edge,
        Mode::Oneshot => pollio::Mode::Oneshot,
    };
    EventObject::client(fd).with_interest(Interest::READABLE | writable).with_mode(mode)
}
