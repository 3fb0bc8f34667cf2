//! One end of a connection: its received bytes, its room to send, and its end.

use std::collections::VecDeque;
use std::io;
use std::mem;
use std::net::SocketAddr;
use std::time::Duration;

use pollio::Readiness;

use crate::kernel::base::Base;
use crate::kernel::errno::errno;
use crate::kernel::ids::FileId;
use crate::kernel::received::Received;
use crate::kernel::rules::Rule;

pub(super) enum Segment {
    Bytes(Box<[u8]>),
    /// A FIN.
    End,
    Reset,
}

impl Segment {
    pub(super) const fn len(&self) -> usize {
        match self {
            Self::Bytes(bytes) => bytes.len(),
            Self::End | Self::Reset => 0,
        }
    }
}

/// The effect of an arriving segment.
pub(super) enum Reply {
    Nothing,
    /// The program can find it: there are bytes, which may be the first ones.
    Bytes {
        were_none: bool,
    },
    /// This many bytes will never be read.
    Discarded(usize),
    /// The peer has ended its direction.
    End,
    /// This end is reset.
    Reset,
    /// The peer is reset: these bytes will never be read.
    ResetPeer,
    /// Both are reset: the peer keeps sending, although this end was shut down in both directions.
    ResetBoth,
    /// Both are reset at this byte, scripted by a test.
    ResetAsScripted,
}

/// The outcome of an attempt to connect, for a call of `connect`.
pub(super) enum Attempt {
    GoesOn,
    Succeeded,
    /// With this error; the socket may try again.
    Failed(io::Error),
    /// An earlier call has returned it.
    IsKnown,
}

pub(super) struct End {
    address: Option<SocketAddr>,
    /// None before it is accepted, and after it is closed.
    file: Option<FileId>,
    /// The program has closed it.
    is_orphan: bool,
    is_connected: bool,
    /// A call of `connect` has returned the outcome.
    is_announced: bool,
    /// As the state `TCP_CLOSE`: it was reset, or both directions have ended.
    is_closed: bool,
    /// On other kernels, its control block is gone. That of an end in `TIME_WAIT` is not.
    is_gone: bool,
    /// As `RCV_SHUTDOWN` and `SEND_SHUTDOWN`.
    is_read_shut: bool,
    is_write_shut: bool,
    /// The peer's end has arrived. It hides an error that comes later, if `hides_error`.
    is_done: bool,
    hides_error: bool,
    error: Option<i32>,
    has_linger_zero: bool,
    /// On its way here, in order.
    inbox: VecDeque<Segment>,
    last_arrival: Duration,
    received: Received,
    /// The most bytes that may be written here and not yet read, and their number.
    capacity: usize,
    in_use: usize,
    /// A write found too little room, so that room is reported once there is some.
    wants_room: bool,
    /// A fault: no room, whatever the numbers say.
    has_no_room: bool,
    /// The number of bytes that still arrive here before the connection is reset, scripted by a test.
    bytes_until_reset: Option<usize>,
}

impl End {
    pub(super) fn new(capacity: usize) -> Self {
        Self {
            address: None,
            file: None,
            is_orphan: false,
            is_connected: false,
            is_announced: false,
            is_closed: false,
            is_gone: false,
            is_read_shut: false,
            is_write_shut: false,
            is_done: false,
            hides_error: true,
            error: None,
            has_linger_zero: false,
            inbox: VecDeque::new(),
            last_arrival: Duration::ZERO,
            received: Received::default(),
            capacity,
            in_use: 0,
            wants_room: false,
            has_no_room: false,
            bytes_until_reset: None,
        }
    }

    pub(super) const fn address(&self) -> Option<SocketAddr> {
        self.address
    }

    pub(super) const fn set_address(&mut self, address: SocketAddr) {
        self.address = Some(address);
    }

    pub(super) const fn file(&self) -> Option<FileId> {
        self.file
    }

    /// Gives it to a program, under this file.
    pub(super) const fn attach(&mut self, file: FileId, has_linger_zero: bool) {
        (self.file, self.has_linger_zero) = (Some(file), has_linger_zero);
    }

    pub(super) const fn has_linger_zero(&self) -> bool {
        self.has_linger_zero
    }

    pub(super) const fn set_linger_zero(&mut self, has_linger_zero: bool) {
        self.has_linger_zero = has_linger_zero;
    }

    pub(super) const fn set_bytes_until_reset(&mut self, count: usize) {
        self.bytes_until_reset = Some(count);
    }
}

/// Connecting.
impl End {
    pub(super) const fn is_connected(&self) -> bool {
        self.is_connected
    }

    pub(super) const fn is_closed(&self) -> bool {
        self.is_closed
    }

    /// Whether other kernels know no connection of it any more.
    pub(super) const fn is_gone(&self) -> bool {
        self.is_gone
    }

    /// Whether both directions have ended.
    pub(super) const fn is_shut(&self) -> bool {
        self.is_read_shut && self.is_write_shut || self.is_closed
    }

    /// Whether its program still waits for the connection.
    pub(super) const fn is_wanted(&self) -> bool {
        !self.is_orphan && !self.is_closed
    }

    pub(super) const fn set_connected(&mut self) {
        self.is_connected = true;
    }

    pub(super) fn attempt(&mut self) -> Attempt {
        if !self.is_connected && !self.is_closed {
            return Attempt::GoesOn;
        }
        if mem::replace(&mut self.is_announced, true) {
            return Attempt::IsKnown;
        }
        if !self.is_closed {
            return Attempt::Succeeded;
        }
        Attempt::Failed(errno(self.error.take().unwrap_or(libc::ECONNABORTED)))
    }

    /// Takes it from its program, which keeps the file.
    pub(super) const fn detach(&mut self) {
        (self.file, self.is_orphan) = (None, true);
    }
}

/// What arrives.
impl End {
    /// Puts a segment on its way here, which arrives after those before it. Returns whether it is the only one.
    pub(super) fn send(&mut self, segment: Segment) -> bool {
        self.inbox.push_back(segment);
        self.inbox.len() == 1
    }

    /// The arrival time of a segment that is sent now: at `soonest`, or after all before it plus its transmission time.
    pub(super) fn next_arrival(&mut self, soonest: Duration, transmission: Duration) -> Duration {
        self.last_arrival = self.last_arrival.max(soonest) + transmission;
        self.last_arrival
    }

    /// Nothing arrives before this time.
    pub(super) const fn set_last_arrival(&mut self, time: Duration) {
        self.last_arrival = time;
    }

    /// Takes the next segment.
    pub(super) fn arrive(&mut self, base: &mut Base) -> Reply {
        match self.inbox.pop_front() {
            None => Reply::Nothing,
            Some(_) if self.is_closed => Reply::Nothing,
            Some(Segment::Reset) => Reply::Reset,
            Some(Segment::Bytes(_)) if self.is_orphan => {
                self.is_closed = true;
                Reply::ResetPeer
            }
            Some(Segment::Bytes(_))
                if self.is_read_shut && base.applies(Rule::ReadShutdownResets) =>
            {
                (self.is_closed, self.is_write_shut, self.is_gone) = (true, true, true);
                Reply::ResetPeer
            }
            Some(Segment::Bytes(bytes))
                if self.is_read_shut && base.applies(Rule::ReadShutdownDrops) =>
            {
                Reply::Discarded(bytes.len())
            }
            // As in FIN_WAIT with `RCV_SHUTDOWN`.
            Some(Segment::Bytes(_)) if self.is_read_shut && self.is_write_shut && !self.is_done => {
                Reply::ResetBoth
            }
            Some(Segment::Bytes(bytes)) => {
                let were_none = self.received.is_empty();
                if let Some(count) = &mut self.bytes_until_reset {
                    if *count <= bytes.len() {
                        self.received.push(&bytes[..*count]);
                        return Reply::ResetAsScripted;
                    }
                    *count -= bytes.len();
                }
                self.received.push(&bytes);
                Reply::Bytes { were_none }
            }
            Some(Segment::End) => {
                (self.is_read_shut, self.is_done) = (true, true);
                Reply::End
            }
        }
    }

    pub(super) const fn is_done(&self) -> bool {
        self.is_done
    }

    /// As the state `TCP_ESTABLISHED`.
    pub(super) const fn is_established(&self) -> bool {
        self.is_connected && !self.is_closed && !self.is_done && !self.is_write_shut
    }

    pub(super) const fn is_write_shut(&self) -> bool {
        self.is_write_shut
    }

    /// As the state `TCP_CLOSE`.
    pub(super) const fn set_closed(&mut self) {
        self.is_closed = true;
    }

    pub(super) const fn set_gone(&mut self) {
        self.is_gone = true;
    }

    /// Resets it. Returns whether it was still open.
    pub(super) fn reset(&mut self, error: i32, base: &mut Base) -> bool {
        if self.is_closed {
            return false;
        }
        let is_half_closed = self.is_done && !self.is_write_shut;
        self.hides_error = !is_half_closed || !base.applies(Rule::ResetComesBeforeEnd);
        let is_pipe = is_half_closed && self.hides_error;
        self.error = Some(if is_pipe { libc::EPIPE } else { error });
        (self.is_closed, self.is_read_shut, self.is_write_shut) = (true, true, true);
        self.is_gone = true;
        self.inbox.clear();
        (self.in_use, self.has_no_room) = (0, false);
        true
    }
}

/// Calls of a program.
impl End {
    pub(super) fn readiness(&mut self) -> Readiness {
        let mut readiness = Readiness::NONE;
        if !self.is_connected && !self.is_closed {
            return readiness;
        }
        if self.is_read_shut {
            readiness |= Readiness::READABLE | Readiness::READ_CLOSED;
        }
        if !self.received.is_empty() {
            readiness |= Readiness::READABLE;
        }
        if (self.is_read_shut && self.is_write_shut) || self.is_closed {
            readiness |= Readiness::WRITE_CLOSED;
        }
        if self.error.is_some() {
            readiness |= Readiness::ERROR;
        }
        if self.is_writable() || self.is_write_shut {
            readiness |= Readiness::WRITABLE;
        } else {
            self.wants_room = true;
        }
        readiness
    }

    pub(super) fn has_bytes(&self) -> bool {
        !self.received.is_empty()
    }

    pub(super) fn unread(&self) -> usize {
        self.received.len()
    }

    /// Room is worth an event if it is a third.
    pub(super) const fn is_writable(&self) -> bool {
        self.in_use * 3 <= self.capacity * 2 && !self.has_no_room
    }

    /// The result of a read without bytes.
    fn read_nothing(&mut self) -> io::Result<usize> {
        if self.is_done && self.hides_error {
            return Ok(0);
        }
        if let Some(error) = self.error.take() {
            return Err(errno(error));
        }
        if self.is_read_shut {
            return Ok(0);
        }
        Err(errno(if self.is_closed { libc::ENOTCONN } else { libc::EAGAIN }))
    }

    pub(super) fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.received.is_empty() {
            return self.read_nothing();
        }
        Ok(self.received.take(buffer).0)
    }

    pub(super) fn peek(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.received.is_empty() {
            return self.read_nothing();
        }
        Ok(self.received.peek(buffer))
    }

    /// Fails if nothing may be written.
    pub(super) fn check_write(&mut self, base: &mut Base) -> io::Result<()> {
        if !self.is_connected && !self.is_closed {
            let needs_connection = base.applies(Rule::WriteNeedsConnection);
            return Err(errno(if needs_connection { libc::ENOTCONN } else { libc::EAGAIN }));
        }
        if self.error.is_some() && self.is_write_shut && base.applies(Rule::WriteLeavesError) {
            return Err(errno(libc::EPIPE));
        }
        match self.error.take() {
            Some(error) => Err(errno(error)),
            None if self.is_write_shut => Err(errno(libc::EPIPE)),
            None => Ok(()),
        }
    }

    pub(super) const fn room(&self) -> usize {
        if self.has_no_room { 0 } else { self.capacity.saturating_sub(self.in_use) }
    }

    /// Uses room for `count` bytes of `wanted`.
    pub(super) fn use_room(&mut self, count: usize, wanted: usize) {
        self.in_use += count;
        self.wants_room |= count < wanted;
    }

    /// A fault: there is no room from here on.
    pub(super) const fn lose_room(&mut self) {
        (self.has_no_room, self.wants_room) = (true, true);
    }

    /// The end of that fault.
    pub(super) const fn return_room(&mut self) {
        self.has_no_room = false;
    }

    pub(super) const fn wants_room(&self) -> bool {
        self.wants_room
    }

    /// Makes room that the peer's reads have left. Returns whether that is an event.
    pub(super) fn make_room(&mut self, count: usize) -> bool {
        self.in_use = self.in_use.saturating_sub(count);
        let is_event = self.wants_room && self.is_writable();
        self.wants_room &= !is_event;
        is_event
    }

    pub(super) const fn take_error(&mut self) -> Option<i32> {
        self.error.take()
    }

    pub(super) const fn set_error(&mut self, error: i32) {
        self.error = Some(error);
    }

    pub(super) const fn is_read_shut(&self) -> bool {
        self.is_read_shut
    }

    /// Ends the reading. Returns how many bytes are thrown away.
    pub(super) fn shut_down_reading(&mut self, base: &mut Base) -> usize {
        self.is_read_shut = true;
        if self.received.is_empty() || !base.applies(Rule::ReadShutdownDiscards) {
            return 0;
        }
        mem::take(&mut self.received).len()
    }

    /// Ends the writing. Returns whether it was open.
    pub(super) const fn shut_down_writing(&mut self) -> bool {
        !mem::replace(&mut self.is_write_shut, true)
    }

    /// Ends an attempt to connect, and clears the shutdown: see `inet_shutdown`.
    pub(super) fn end_attempt(&mut self, base: &mut Base) -> bool {
        let was_open = self.reset(libc::ECONNRESET, base);
        self.is_read_shut = false;
        was_open
    }

    /// Closes it with its last descriptor. Returns the segment to send.
    pub(super) fn close(&mut self, base: &mut Base) -> Option<Segment> {
        (self.file, self.is_orphan) = (None, true);
        let has_unread = !mem::take(&mut self.received).is_empty();
        if self.is_closed || !self.is_connected {
            // A connection that is not yet made is reset when it is.
            self.is_closed |= !self.is_connected;
            return None;
        }
        let resets = self.has_linger_zero || has_unread && !base.applies(Rule::CloseNeverResets);
        if resets {
            self.is_closed = true;
            return Some(Segment::Reset);
        }
        if mem::replace(&mut self.is_write_shut, true) { None } else { Some(Segment::End) }
    }

    /// Its state, for a report.
    pub(super) fn describe(&self) -> String {
        let mut text = String::new();
        if !self.is_connected {
            text += ", not connected";
        }
        if !self.received.is_empty() {
            text += &format!(", {} bytes to read", self.received.len());
        }
        if !self.inbox.is_empty() {
            text += ", more on the way";
        }
        if self.is_closed {
            text += ", closed";
        } else if self.is_read_shut {
            text += ", at its end";
        }
        if !self.is_writable() {
            text += ", no room to write";
        }
        text
    }
}
