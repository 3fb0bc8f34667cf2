//! polling: oneshot by default.
#![allow(unsafe_code, reason = "its add wants a promise that the descriptor outlives it")]

use std::io;
use std::os::fd::{BorrowedFd, RawFd};
use std::sync::Arc;
use std::time::Duration;

use polling::{Event, Events, PollMode, Poller};

use super::{Asked, Mode, Peer, TimesOut, Wakes};

pub(crate) struct Polling {
    poller: Arc<Poller>,
    events: Events,
}

impl Peer for Polling {
    const NAME: &'static str = "polling";

    fn new() -> io::Result<Self> {
        Ok(Self { poller: Arc::new(Poller::new()?), events: Events::new() })
    }

    fn lacks(_: Asked) -> Option<&'static str> {
        None
    }

    fn add(&mut self, fd: RawFd, asked: Asked) -> io::Result<()> {
        // SAFETY: the workloads delete a descriptor, or drop the poller, before they close it.
        unsafe { self.poller.add_with_mode(fd, event(fd, asked), mode(asked)) }
    }

    fn modify(&mut self, fd: RawFd, asked: Asked) -> io::Result<()> {
        self.poller.modify_with_mode(borrowed(fd), event(fd, asked), mode(asked))
    }

    fn delete(&mut self, fd: RawFd) -> io::Result<()> {
        self.poller.delete(borrowed(fd))
    }

    fn wait(&mut self, mut reported: impl FnMut(RawFd)) -> io::Result<()> {
        self.events.clear();
        self.poller.wait(&mut self.events, None)?;
        for event in self.events.iter() {
            reported(RawFd::try_from(event.key).expect("a descriptor went in"));
        }
        Ok(())
    }
}

impl Wakes for Polling {
    type Waker = Arc<Poller>;

    fn with_waker() -> io::Result<(Self, Arc<Poller>)> {
        let polling = Self::new()?;
        let waker = Arc::clone(&polling.poller);
        Ok((polling, waker))
    }

    fn wake(waker: &Arc<Poller>) -> io::Result<()> {
        waker.notify()
    }

    fn wait_for_wake(&mut self) -> io::Result<()> {
        self.events.clear();
        self.poller.wait(&mut self.events, None)?;
        Ok(())
    }
}

impl TimesOut for Polling {
    fn wait_for(&mut self, timeout: Duration) -> io::Result<()> {
        self.events.clear();
        self.poller.wait(&mut self.events, Some(timeout))?;
        Ok(())
    }
}

fn borrowed(fd: RawFd) -> BorrowedFd<'static> {
    // SAFETY: as for `add`.
    unsafe { BorrowedFd::borrow_raw(fd) }
}

fn event(fd: RawFd, asked: Asked) -> Event {
    Event::new(fd.unsigned_abs() as usize, true, asked.writable_too)
}

fn mode(asked: Asked) -> PollMode {
    match asked.mode {
        Mode::Level => PollMode::Level,
        Mode::Edge => PollMode::Edge,
        Mode::Oneshot => PollMode::Oneshot,
    }
}
