//! Connected Unix sockets, by the rules of Linux: the bytes that one end writes are at the other at once.

use std::io;
use std::mem;
use std::net::Shutdown;
use std::path::{Path, PathBuf};

use pollio::Readiness;

use super::base::Base;
use super::epoll::ALL;
use super::errno::errno;
use super::ids::{EndId, FileId};
use super::received::Received;
use super::rules::Rule;

/// The most bytes that an unread socket holds.
const CAPACITY: usize = 208 << 10;

#[derive(Default)]
pub(super) struct Pairs(Vec<[End; 2]>);

#[derive(Default)]
struct End {
    /// None before it is accepted, and after it is closed.
    file: Option<FileId>,
    is_closed: bool,
    /// It connects to a listener, or one accepts it. A pair has none.
    has_listener: bool,
    /// The name of the listener that accepts it. The end that connects has none.
    path: Option<PathBuf>,
    is_read_shut: bool,
    is_write_shut: bool,
    /// The program itself has shut down writing here, not the peer.
    has_own_end: bool,
    error: Option<i32>,
    received: Received,
    /// The number of bytes that were written here and not yet read.
    in_use: usize,
}

impl Pairs {
    /// The ends of the next pair, before [`add`](Self::add).
    pub(super) fn next_ends(&self) -> [EndId; 2] {
        let near = EndId { connection: self.0.len(), side: 0 };
        [near, near.peer()]
    }

    /// Adds two ends that are connected to each other, as socketpair(2) makes them.
    pub(super) fn add(&mut self, files: [FileId; 2]) {
        self.0.push(files.map(|file| End { file: Some(file), ..End::default() }));
    }

    /// Adds an end that will connect. Its peer is the end that a listener accepts.
    pub(super) fn add_connecting(&mut self, file: FileId) {
        let files = [Some(file), None];
        self.0.push(files.map(|file| End { file, has_listener: true, ..End::default() }));
    }

    /// Gives an end the name of the listener that will accept it.
    pub(super) fn set_path(&mut self, id: EndId, path: &Path) {
        self.end_mut(id).path = Some(path.to_owned());
    }

    pub(super) fn path(&self, id: EndId) -> Option<&Path> {
        self.end(id).path.as_deref()
    }

    /// Gives an end a file once it is accepted.
    pub(super) fn attach(&mut self, id: EndId, file: FileId, base: &mut Base) {
        let end = self.end_mut(id);
        end.file = Some(file);
        if !end.received.is_empty() {
            base.touch(file);
            base.check_later(file);
        }
    }

    /// Ends a connection that nobody will accept, since its listener is closed.
    pub(super) fn abort(&mut self, id: EndId, base: &mut Base) {
        let has_peer = !self.end(id.peer()).is_closed;
        let is_reset = has_peer && !base.applies(Rule::ClosedListenerEnds);
        self.leave(id, is_reset, base);
    }

    fn end(&self, id: EndId) -> &End {
        &self.0[id.connection][id.side]
    }

    fn end_mut(&mut self, id: EndId) -> &mut End {
        &mut self.0[id.connection][id.side]
    }

    fn notify(&self, id: EndId, arrival: Readiness, base: &mut Base) {
        if let Some(file) = self.end(id).file {
            base.notify(file, arrival);
        }
    }

    pub(super) fn readiness(&self, id: EndId) -> Readiness {
        let end = self.end(id);
        let mut readiness = Readiness::NONE;
        if end.is_read_shut {
            readiness |= Readiness::READABLE | Readiness::READ_CLOSED;
        }
        if !end.received.is_empty() {
            readiness |= Readiness::READABLE;
        }
        if end.is_read_shut && end.is_write_shut {
            readiness |= Readiness::WRITE_CLOSED;
        }
        if end.error.is_some() {
            readiness |= Readiness::ERROR;
        }
        if end.is_writable() {
            readiness |= Readiness::WRITABLE;
        }
        readiness
    }

    pub(super) fn read(
        &mut self,
        id: EndId,
        buffer: &mut [u8],
        base: &mut Base,
    ) -> io::Result<usize> {
        let end = self.end_mut(id);
        if end.received.is_empty() {
            return match end.error.take() {
                Some(error) => Err(errno(error)),
                None if end.is_read_shut => Ok(0),
                None => Err(errno(libc::EAGAIN)),
            };
        }
        let (count, used_up) = end.received.take(buffer);
        let file = end.file;
        let writer = self.end_mut(id.peer());
        writer.in_use = writer.in_use.saturating_sub(used_up);
        // A piece that is used up is an edge, whether or not a thread waits for room.
        if used_up > 0 && writer.is_writable() {
            self.notify(id.peer(), Readiness::WRITABLE, base);
        }
        file.into_iter().for_each(|file| base.touch(file));
        Ok(count)
    }

    pub(super) fn write(&mut self, id: EndId, bytes: &[u8], base: &mut Base) -> io::Result<usize> {
        let peer = self.end(id.peer());
        let is_peer_gone = peer.is_closed || peer.is_read_shut;
        let end = self.end_mut(id);
        let error = if end.is_write_shut { None } else { end.error.take() };
        if error.is_some() || end.is_write_shut || is_peer_gone {
            return Err(errno(error.unwrap_or(libc::EPIPE)));
        }
        if bytes.is_empty() {
            return Ok(0);
        }
        if end.in_use >= CAPACITY {
            return Err(errno(libc::EAGAIN));
        }
        // Any room is enough for a whole piece.
        let bytes = &bytes[..bytes.len().min(CAPACITY)];
        end.in_use += bytes.len();
        let peer = self.end_mut(id.peer());
        let were_none = peer.received.is_empty();
        peer.received.push(bytes);
        let file = peer.file;
        // Linux reports data as a possible PRIORITY too.
        self.notify(id.peer(), Readiness::READABLE | Readiness::PRIORITY, base);
        if let Some(file) = file.filter(|_| were_none) {
            base.touch(file);
            base.check_later(file);
        }
        Ok(bytes.len())
    }

    pub(super) fn take_error(&mut self, id: EndId) -> Option<io::Error> {
        self.end_mut(id).error.take().map(errno)
    }

    /// Fails if an option can no longer be set.
    pub(super) fn check_option(&self, id: EndId, base: &mut Base) -> io::Result<()> {
        let end = self.end(id);
        let is_shut = end.is_read_shut && end.is_write_shut;
        if is_shut && base.applies(Rule::OptionsOfEndedAreInvalid) {
            return Err(errno(libc::EINVAL));
        }
        Ok(())
    }

    pub(super) fn shut_down(
        &mut self,
        id: EndId,
        how: Shutdown,
        base: &mut Base,
    ) -> io::Result<()> {
        let (reads, writes) = (how != Shutdown::Write, how != Shutdown::Read);
        let has_peer = !self.end(id.peer()).is_closed;
        if !has_peer && base.applies(Rule::PairShutdownNeedsPeer) {
            return Err(errno(libc::ENOTCONN));
        }
        let end = self.end(id);
        if reads && end.is_read_shut && base.applies(Rule::ShutdownOnce) {
            return Err(errno(libc::ENOTCONN));
        }
        let is_twice = writes && end.is_write_shut && base.applies(Rule::ShutdownOnce);
        if reads && !end.received.is_empty() && base.applies(Rule::ReadShutdownDiscards) {
            let discarded = mem::take(&mut self.end_mut(id).received).len();
            let writer = self.end_mut(id.peer());
            writer.in_use = writer.in_use.saturating_sub(discarded);
        }
        let end = self.end_mut(id);
        end.shut_down(reads, writes);
        end.has_own_end |= writes;
        self.notify(id, ALL, base);
        self.end_mut(id.peer()).shut_down(writes, reads);
        self.notify(id.peer(), ALL, base);
        if is_twice { Err(errno(libc::ENOTCONN)) } else { Ok(()) }
    }

    /// Closes an end with its last descriptor.
    pub(super) fn close(&mut self, id: EndId, base: &mut Base) {
        let is_reset = self.has_bytes(id) && !base.applies(Rule::PairsNeverReset);
        self.leave(id, is_reset, base);
    }

    /// Ends a connection at this end. The peer reads an end, or fails.
    fn leave(&mut self, id: EndId, is_reset: bool, base: &mut Base) {
        let end = self.end_mut(id);
        (end.file, end.is_closed) = (None, true);
        end.received = Received::default();
        let peer = self.end_mut(id.peer());
        peer.shut_down(true, true);
        if is_reset {
            (peer.error, peer.in_use) = (Some(libc::ECONNRESET), 0);
        }
        self.notify(id.peer(), ALL, base);
    }

    /// Whether the program itself has ended what it sends.
    pub(super) fn is_write_shut(&self, id: EndId) -> bool {
        self.end(id).has_own_end
    }

    pub(super) fn has_bytes(&self, id: EndId) -> bool {
        !self.end(id).received.is_empty()
    }

    pub(super) fn is_held_back(&self, id: EndId) -> bool {
        !self.end(id).is_writable()
    }

    /// What an end is, for a report.
    pub(super) fn noun(&self, id: EndId) -> &'static str {
        if self.end(id).has_listener { "Unix socket" } else { "pair" }
    }

    /// The state of an end, for a report.
    pub(super) fn describe(&self, id: EndId) -> String {
        let end = self.end(id);
        let mut text = String::new();
        if !end.received.is_empty() {
            text += &format!(", {} bytes to read", end.received.len());
        }
        if end.is_read_shut {
            text += ", at its end";
        }
        if !end.is_writable() {
            text += ", no room to write";
        }
        text
    }
}

impl End {
    /// Room is worth an event if it is three quarters.
    const fn is_writable(&self) -> bool {
        self.in_use * 4 <= CAPACITY
    }

    const fn shut_down(&mut self, reads: bool, writes: bool) {
        self.is_read_shut |= reads;
        self.is_write_shut |= writes;
    }
}
