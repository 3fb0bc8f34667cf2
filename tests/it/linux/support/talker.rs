//! A client of an echo server that sends and receives at once, and compares.

use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::os::fd::AsRawFd;

use pollio::{EventObject, Interest, Mode};

use crate::linux::support::example::reset;
use crate::linux::support::random::Random;

/// The data and the random numbers of talkers.
pub(crate) struct Script {
    pub(crate) random: Random,
    /// The data that they send: a cycle, with its beginning repeated at the end, so that no piece is split.
    data: Vec<u8>,
    /// The buffer in which they receive.
    buffer: Vec<u8>,
}

const CYCLE: usize = 1 << 20;
const LARGEST_PIECE: usize = 1 << 16;

impl Script {
    pub(crate) fn new(seed: usize) -> Self {
        let mut random = Random::new(seed);
        let mut data = random.bytes(CYCLE);
        data.extend_from_within(..LARGEST_PIECE);
        Self { random, data, buffer: vec![0; LARGEST_PIECE] }
    }
}

pub(crate) struct Talker {
    stream: TcpStream,
    token: u32,
    mode: Mode,
    /// Its start in the data.
    start: usize,
    /// The number of bytes that it will have sent.
    target: usize,
    sent: usize,
    received: usize,
    ending: Option<Ending>,
}

/// The last action of a talker that has sent everything.
#[derive(Clone, Copy, PartialEq)]
pub(crate) enum Ending {
    /// Waits for the rest, and closes the connection.
    Close,
    /// Half-closes, and waits for the rest and for the end.
    HalfClose,
    /// Ends the connection with a reset, though answers are still to come.
    Reset,
    /// Closes the connection without a read, even before everything is sent: with a reset if there are unread bytes.
    Vanish,
}

impl Talker {
    /// A talker with nothing to send yet.
    pub(crate) fn new(stream: TcpStream, token: u32, script: &mut Script) -> Self {
        stream.set_nonblocking(true).unwrap();
        let mode = script.random.pick([Mode::Level, Mode::Edge, Mode::Oneshot]);
        let start = script.random.below(CYCLE);
        Self { stream, token, mode, start, target: 0, sent: 0, received: 0, ending: None }
    }

    pub(crate) fn object(&self, interest: Interest) -> EventObject {
        let object = EventObject::client(self.stream.as_raw_fd()).with_token(self.token);
        object.with_interest(interest).with_mode(self.mode)
    }

    /// Will send `length` more bytes, and then end or stay.
    pub(crate) fn say(&mut self, length: usize, ending: Option<Ending>) {
        self.target += length;
        self.ending = ending;
    }

    /// Whether it stays, and has nothing to send or to receive.
    pub(crate) fn is_silent(&self) -> bool {
        self.ending.is_none() && self.received == self.target
    }

    pub(crate) fn received(&self) -> usize {
        self.received
    }

    /// Sends and receives as much as it can now. Returns the interest to wait for, or nothing when it is time to
    /// [`end`](Self::end).
    pub(crate) fn talk(&mut self, script: &mut Script) -> Option<Interest> {
        self.send(script);
        let has_sent = self.sent == self.target;
        match self.ending {
            Some(Ending::Reset) if has_sent => return None,
            // Before anything is sent, it may not be connected yet.
            Some(Ending::Vanish) if self.sent > 0 => return None,
            _ => {}
        }
        let is_at_end = self.receive(script);
        let has_received = self.received == self.target;
        if is_at_end {
            assert!(self.ending == Some(Ending::HalfClose) && has_received, "an early end");
            return None;
        }
        if has_received && self.ending == Some(Ending::Close) {
            return None;
        }
        Some(if has_sent { Interest::READABLE } else { Interest::BOTH })
    }

    pub(crate) fn end(self) -> Ending {
        let ending = self.ending.expect("one that leaves");
        if ending == Ending::Reset {
            reset(self.stream);
        }
        ending
    }

    fn send(&mut self, script: &mut Script) {
        while self.sent < self.target {
            let piece = script.random.size().min(self.target - self.sent);
            let from = (self.start + self.sent) % CYCLE;
            match self.stream.write(&script.data[from..from + piece]) {
                Ok(count) => self.sent += count,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return,
                Err(error) => panic!("after {} bytes sent: {error}", self.sent),
            }
            if self.sent == self.target && self.ending == Some(Ending::HalfClose) {
                self.stream.shutdown(Shutdown::Write).unwrap();
            }
        }
    }

    /// Returns whether it saw the end.
    fn receive(&mut self, script: &mut Script) -> bool {
        loop {
            let piece = &mut script.buffer[..script.random.size()];
            match self.stream.read(piece) {
                Ok(0) => return true,
                Ok(count) => {
                    let from = (self.start + self.received) % CYCLE;
                    self.received += count;
                    assert!(self.received <= self.sent, "more comes back than was sent");
                    assert!(
                        piece[..count] == script.data[from..from + count],
                        "other bytes come back than were sent, among the first {}",
                        self.received
                    );
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => return false,
                Err(error) => panic!("after {} bytes received: {error}", self.received),
            }
        }
    }
}
