//! pollio as it was first published: level-triggered, only reading.

use std::io;
use std::os::fd::RawFd;

use pollio_0_1::{EventObject, OsPoller, Poller};

use super::{Asked, Mode, Peer};

pub(crate) struct Pollio01(OsPoller);

impl Peer for Pollio01 {
    const NAME: &'static str = "pollio 0.1.3";

    fn new() -> io::Result<Self> {
        OsPoller::new().map(Self)
    }

    fn lacks(asked: Asked) -> Option<&'static str> {
        match asked {
            Asked { writable_too: true, .. } => Some("asks only for reading"),
            Asked { mode: Mode::Level, .. } => None,
            _ => Some("is only level-triggered"),
        }
    }

    fn add(&mut self, fd: RawFd, _: Asked) -> io::Result<()> {
        self.0.add(EventObject::client(fd))
    }

    fn modify(&mut self, _: RawFd, _: Asked) -> io::Result<()> {
        Err(io::ErrorKind::Unsupported.into())
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
