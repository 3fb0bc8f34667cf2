//! pollio as it is here, with and without spinning.

use std::io;
use std::os::fd::{AsRawFd, RawFd};
use std::sync::Arc;
use std::time::Duration;

use pollio::{EventObject, Interest, OsPoller, Poller, Waker};

use super::{Asked, Mode, Peer, Shares, TimesOut, Wakes};

/// Spins for up to so many microseconds.
pub(crate) struct Pollio<const SPIN_US: u64> {
    poller: OsPoller,
    waker: Option<Arc<Waker>>,
}

/// What the guide recommends.
pub(crate) const SPIN_US: u64 = 50;

impl<const SPIN: u64> Peer for Pollio<SPIN> {
    const NAME: &'static str = if SPIN == 0 { "pollio" } else { "pollio, spinning" };

    fn new() -> io::Result<Self> {
        let mut poller = OsPoller::new()?;
        poller.set_spin(Duration::from_micros(SPIN));
        Ok(Self { poller, waker: None })
    }

    fn lacks(_: Asked) -> Option<&'static str> {
        None
    }

    fn add(&mut self, fd: RawFd, asked: Asked) -> io::Result<()> {
        self.poller.add(object(fd, asked))
    }

    fn modify(&mut self, fd: RawFd, asked: Asked) -> io::Result<()> {
        self.poller.modify(object(fd, asked))
    }

    fn delete(&mut self, fd: RawFd) -> io::Result<()> {
        self.poller.delete(fd)
    }

    fn wait(&mut self, mut reported: impl FnMut(RawFd)) -> io::Result<()> {
        for event in self.poller.wait(-1)? {
            reported(event.fd);
        }
        Ok(())
    }
}

impl<const SPIN: u64> Wakes for Pollio<SPIN> {
    type Waker = Arc<Waker>;

    fn with_waker() -> io::Result<(Self, Arc<Waker>)> {
        let waker = Arc::new(Waker::new()?);
        let pollio = Self { waker: Some(Arc::clone(&waker)), ..Self::new()? };
        let object = EventObject::client(waker.as_raw_fd());
        pollio.poller.add(object.with_mode(pollio::Mode::Edge))?;
        Ok((pollio, waker))
    }

    fn wake(waker: &Arc<Waker>) -> io::Result<()> {
        waker.wake()
    }

    fn wait_for_wake(&mut self) -> io::Result<()> {
        self.poller.wait(-1)?;
        if let Some(waker) = &self.waker {
            waker.rearm();
        }
        Ok(())
    }
}

impl<const SPIN: u64> Shares for Pollio<SPIN> {
    fn share(&self) -> io::Result<Self> {
        let mut poller = self.poller.try_clone()?;
        poller.set_spin(Duration::from_micros(SPIN));
        Ok(Self { poller, waker: None })
    }
}

impl<const SPIN: u64> TimesOut for Pollio<SPIN> {
    fn wait_for(&mut self, timeout: Duration) -> io::Result<()> {
        self.poller.wait_timeout(Some(timeout))?;
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
