//! mio: edge-triggered, always.

use std::io;
use std::os::fd::RawFd;
use std::time::Duration;

use mio::unix::SourceFd;
use mio::{Events, Interest, Poll, Token, Waker};

use super::{Asked, Mode, Peer, TimesOut, Wakes};

pub(crate) struct Mio {
    poll: Poll,
    events: Events,
}

impl Peer for Mio {
    const NAME: &'static str = "mio";

    fn new() -> io::Result<Self> {
        Ok(Self { poll: Poll::new()?, events: Events::with_capacity(1024) })
    }

    fn lacks(asked: Asked) -> Option<&'static str> {
        (asked.mode != Mode::Edge).then_some("is only edge-triggered")
    }

    fn add(&mut self, fd: RawFd, asked: Asked) -> io::Result<()> {
        self.poll.registry().register(&mut SourceFd(&fd), token(fd), interest(asked))
    }

    fn modify(&mut self, fd: RawFd, asked: Asked) -> io::Result<()> {
        self.poll.registry().reregister(&mut SourceFd(&fd), token(fd), interest(asked))
    }

    fn delete(&mut self, fd: RawFd) -> io::Result<()> {
        self.poll.registry().deregister(&mut SourceFd(&fd))
    }

    fn wait(&mut self, mut reported: impl FnMut(RawFd)) -> io::Result<()> {
        self.poll.poll(&mut self.events, None)?;
        for event in &self.events {
            // The waker's token is no descriptor.
            if let Ok(fd) = RawFd::try_from(event.token().0) {
                reported(fd);
            }
        }
        Ok(())
    }
}

impl Wakes for Mio {
    type Waker = Waker;

    fn with_waker() -> io::Result<(Self, Waker)> {
        let mio = Self::new()?;
        let waker = Waker::new(mio.poll.registry(), Token(usize::MAX))?;
        Ok((mio, waker))
    }

    fn wake(waker: &Waker) -> io::Result<()> {
        waker.wake()
    }

    fn wait_for_wake(&mut self) -> io::Result<()> {
        self.poll.poll(&mut self.events, None)
    }
}

impl TimesOut for Mio {
    fn wait_for(&mut self, timeout: Duration) -> io::Result<()> {
        self.poll.poll(&mut self.events, Some(timeout))
    }
}

fn token(fd: RawFd) -> Token {
    Token(fd.unsigned_abs() as usize)
}

fn interest(asked: Asked) -> Interest {
    if asked.writable_too { Interest::READABLE | Interest::WRITABLE } else { Interest::READABLE }
}
