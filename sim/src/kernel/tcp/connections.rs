//! The travel of bytes between the two ends of a connection.

use std::io;
use std::net::{Shutdown, SocketAddr};
use std::time::Duration;

use pollio::{Interest, Readiness};

use super::end::{End, Reply, Segment};
use crate::conditions;
use crate::kernel::base::Base;
use crate::kernel::epoll::ALL;
use crate::kernel::errno::errno;
use crate::kernel::event::{Arrival, Event};
use crate::kernel::ids::{EndId, FileId};
use crate::kernel::rules::Rule;

#[derive(Default)]
pub(super) struct Connections(Vec<Connection>);

struct Connection {
    latency: Duration,
    bandwidth: u64,
    /// Nothing arrives before.
    stalled_until: Duration,
    /// The one that connected, and the one that was accepted.
    ends: [End; 2],
}

impl Connections {
    /// Adds one whose latency, bandwidth and buffers are drawn. Returns the end of the client.
    pub(super) fn add(&mut self, base: &mut Base) -> EndId {
        self.0.push(base.draw(|conditions, random| {
            let latency = random.duration(conditions.latency());
            let bandwidth = random.magnitude(conditions.bandwidth());
            let ends = [(); 2].map(|()| {
                let capacity = random.magnitude(conditions.buffer());
                End::new(usize::try_from(capacity).unwrap_or(usize::MAX / 4))
            });
            Connection { latency, bandwidth, stalled_until: Duration::ZERO, ends }
        }));
        EndId { connection: self.0.len() - 1, side: 0 }
    }

    fn of(&self, id: EndId) -> &Connection {
        &self.0[id.connection]
    }

    pub(super) fn end(&self, id: EndId) -> &End {
        &self.0[id.connection].ends[id.side]
    }

    pub(super) fn end_mut(&mut self, id: EndId) -> &mut End {
        &mut self.0[id.connection].ends[id.side]
    }

    pub(super) fn latency(&self, id: EndId) -> Duration {
        self.of(id).latency
    }

    pub(super) fn peer_address(&self, id: EndId, base: &mut Base) -> io::Result<SocketAddr> {
        let end = self.end(id);
        if end.is_shut() && base.applies(Rule::PeerOfEndedIsInvalid) {
            return Err(errno(libc::EINVAL));
        }
        let address = self.end(id.peer()).address();
        let address = address.filter(|_| end.is_connected() && !end.is_closed());
        address.ok_or_else(|| errno(libc::ENOTCONN))
    }

    /// The addresses of both ends, for the trace and for reports.
    pub(super) fn label(&self, id: EndId) -> String {
        match (self.end(id).address(), self.end(id.peer()).address()) {
            (Some(here), Some(there)) => format!("{here} to {there}"),
            _ => "a stream".into(),
        }
    }

    fn notify(&self, id: EndId, arrival: Readiness, base: &mut Base) {
        if let Some(file) = self.end(id).file() {
            base.notify(file, arrival);
        }
    }
}

/// Arrivals.
impl Connections {
    /// Sends a segment from this end to the other.
    fn send(&mut self, id: EndId, segment: Segment, base: &mut Base) {
        let connection = &mut self.0[id.connection];
        let to = id.peer();
        let length = segment.len() as u64;
        let end = &mut connection.ends[to.side];
        if end.send(segment) && connection.latency.is_zero() {
            return self.segment_arrives(to, base);
        }
        let transmission =
            Duration::from_nanos(length * 1_000_000_000 / connection.bandwidth.max(1));
        let arrival = end.next_arrival(base.now() + connection.latency, transmission);
        base.add_event(arrival, Event::Tcp(Arrival::Segment(to)));
    }

    pub(super) fn segment_arrives(&mut self, id: EndId, base: &mut Base) {
        let stalled_until = self.of(id).stalled_until;
        if base.now() < stalled_until {
            base.add_event(stalled_until, Event::Tcp(Arrival::Segment(id)));
            return;
        }
        match self.end_mut(id).arrive(base) {
            Reply::Nothing => {}
            Reply::Reset => self.reset_arrives(id, libc::ECONNRESET, base),
            Reply::ResetPeer => {
                self.reset_peer(id, base);
                self.notify(id, ALL, base);
            }
            Reply::ResetBoth => {
                self.reset_arrives(id, libc::ECONNRESET, base);
                self.reset_peer(id, base);
            }
            Reply::ResetAsScripted => self.reset_both(id, base),
            Reply::Bytes { were_none } => {
                // Linux reports data as a possible PRIORITY too.
                self.notify(id, Readiness::READABLE | Readiness::PRIORITY, base);
                if let Some(file) = self.end(id).file().filter(|_| were_none) {
                    base.touch(file);
                    base.check_later(file);
                }
            }
            Reply::Discarded(count) => self.acknowledge(id, count, base),
            Reply::End => {
                let is_peer_done = self.end(id.peer()).is_done();
                if is_peer_done {
                    self.end_mut(id).set_closed();
                    let last = self.end_mut(id.peer());
                    last.set_closed();
                    last.set_gone();
                }
                self.notify(id, ALL, base);
            }
        }
    }

    /// An acknowledgement arrives: it makes room to write.
    pub(super) fn ack_arrives(&mut self, id: EndId, count: usize, base: &mut Base) {
        if self.end_mut(id).make_room(count) || self.is_edge_of_room(id, base) {
            self.notify(id, Readiness::WRITABLE, base);
        }
    }

    /// Whether an acknowledgement is an edge, though no write waits for room.
    fn is_edge_of_room(&self, id: EndId, base: &mut Base) -> bool {
        let end = self.end(id);
        let is_edge = |file| base.files().has_edges(file, Interest::WRITABLE);
        base.rules().has(Rule::RoomIsEdge)
            && end.is_writable()
            && end.file().is_some_and(is_edge)
            && base.applies(Rule::RoomIsEdge)
    }

    /// The end of the fault that there was no room.
    pub(super) fn room_returns(&mut self, id: EndId, base: &mut Base) {
        self.end_mut(id).return_room();
        self.ack_arrives(id, 0, base);
    }

    /// Resets the other end of the connection that this one is of, behind what was sent before.
    pub(super) fn reset_peer(&mut self, id: EndId, base: &mut Base) {
        self.end_mut(id).set_closed();
        self.send(id, Segment::Reset, base);
    }

    pub(super) fn reset_arrives(&mut self, id: EndId, error: i32, base: &mut Base) {
        if self.end_mut(id).reset(error, base) {
            self.notify(id, ALL, base);
        }
    }

    /// A fault: both ends are reset, whatever is on its way.
    pub(super) fn reset_both(&mut self, id: EndId, base: &mut Base) {
        base.note(|| "fault: a connection is reset".into());
        self.reset_arrives(id, libc::ECONNRESET, base);
        self.reset_arrives(id.peer(), libc::ECONNRESET, base);
    }

    /// A fault: nothing arrives at either end for a while.
    pub(super) fn stall(&mut self, id: EndId, length: Duration, base: &mut Base) {
        base.note(|| format!("fault: a connection stalls for {length:?}"));
        self.0[id.connection].stalled_until = base.now() + length;
    }

    /// The error of a further call of `connect` on a failed connection, if it cannot try again.
    pub(super) fn reconnect_error(
        &mut self,
        id: EndId,
        blocks: bool,
        base: &mut Base,
    ) -> Option<io::Error> {
        let end = self.end_mut(id);
        if base.applies(Rule::ReconnectIsRefused) {
            end.take_error();
            return Some(errno(libc::ECONNREFUSED));
        }
        if base.applies(Rule::ReconnectReturnsError) {
            return Some(errno(end.take_error().unwrap_or(libc::EINVAL)));
        }
        if base.applies(Rule::ReconnectIsInvalid) {
            return Some(errno(libc::EINVAL));
        }
        if !base.applies(Rule::ReconnectFailsLater) {
            return None;
        }
        end.take_error();
        if blocks {
            return Some(errno(libc::EINVAL));
        }
        end.set_error(libc::EINVAL);
        self.notify(id, ALL, base);
        Some(errno(libc::EINPROGRESS))
    }

    /// The client's end is connected.
    pub(super) fn connected(&mut self, id: EndId, base: &mut Base) {
        let end = self.end_mut(id);
        if end.is_wanted() {
            end.set_connected();
            self.notify(id, ALL, base);
        }
    }
}

/// Calls of a program on an end.
impl Connections {
    pub(super) fn attach(&mut self, id: EndId, file: FileId, has_linger_zero: bool) {
        self.end_mut(id).attach(file, has_linger_zero);
    }

    pub(super) fn read(
        &mut self,
        id: EndId,
        buffer: &mut [u8],
        base: &mut Base,
    ) -> io::Result<usize> {
        let had_bytes = self.end(id).has_bytes();
        let count = self.end_mut(id).read(buffer)?;
        if had_bytes {
            self.acknowledge(id, count, base);
            self.end(id).file().into_iter().for_each(|file| base.touch(file));
        }
        Ok(count)
    }

    /// A read makes room for the other end to write, which learns of it a latency later.
    fn acknowledge(&mut self, id: EndId, count: usize, base: &mut Base) {
        let (writer, latency) = (id.peer(), self.latency(id));
        if !self.end(writer).wants_room() && !base.rules().has(Rule::RoomIsEdge) {
            self.end_mut(writer).make_room(count);
        } else if latency.is_zero() {
            self.ack_arrives(writer, count, base);
        } else {
            base.add_event(base.now() + latency, Event::Tcp(Arrival::Ack(writer, count)));
        }
    }

    pub(super) fn write(&mut self, id: EndId, bytes: &[u8], base: &mut Base) -> io::Result<usize> {
        let end = self.end_mut(id);
        end.check_write(base)?;
        if bytes.is_empty() {
            return Ok(0);
        }
        let mut count = end.room().min(bytes.len());
        if count > 0 && base.draw_fault(conditions::Kind::ShortWrites) {
            count = base.random().index(count + 1);
            end.lose_room();
            let time = self.latency(id).max(Duration::from_nanos(1));
            base.add_event(base.now() + time, Event::Tcp(Arrival::RoomReturns(id)));
            base.note(|| format!("fault: room for {count} bytes only"));
        }
        self.end_mut(id).use_room(count, bytes.len());
        if count == 0 {
            return Err(errno(libc::EAGAIN));
        }
        let has_fragments = base.conditions().has(conditions::Kind::Fragments);
        let mut rest = &bytes[..count];
        while !rest.is_empty() {
            let is_cut = has_fragments && base.random().one_in(2);
            let piece = if is_cut { 1 + base.random().index(rest.len()) } else { rest.len() };
            self.send(id, Segment::Bytes(rest[..piece].into()), base);
            rest = &rest[piece..];
        }
        Ok(count)
    }

    pub(super) fn shut_down(
        &mut self,
        id: EndId,
        how: Shutdown,
        base: &mut Base,
    ) -> io::Result<()> {
        let (reads, writes) = (how != Shutdown::Write, how != Shutdown::Read);
        let end = self.end_mut(id);
        if end.is_closed() {
            return self.shut_down_closed(id, reads, writes, base);
        }
        if reads {
            if end.is_read_shut() && base.applies(Rule::ShutdownOnce) {
                return Err(errno(libc::ENOTCONN));
            }
            let discarded = end.shut_down_reading(base);
            if discarded > 0 {
                self.acknowledge(id, discarded, base);
            }
        }
        let end = self.end_mut(id);
        let ends = writes && end.shut_down_writing();
        if !end.is_connected() {
            if end.end_attempt(base) {
                self.notify(id, ALL, base);
            }
            return Ok(());
        }
        if ends {
            self.send(id, Segment::End, base);
        }
        // Any shutdown is an arrival at this end too.
        self.notify(id, ALL, base);
        if writes && !ends && base.applies(Rule::ShutdownOnce) {
            return Err(errno(libc::ENOTCONN));
        }
        Ok(())
    }

    fn shut_down_closed(
        &mut self,
        id: EndId,
        reads: bool,
        writes: bool,
        base: &mut Base,
    ) -> io::Result<()> {
        let end = self.end_mut(id);
        if reads {
            end.shut_down_reading(base);
        }
        if writes {
            end.shut_down_writing();
        }
        let is_gone = end.is_gone();
        self.notify(id, ALL, base);
        if !base.applies(Rule::ShutdownOfEndedIsInvalid) {
            return Err(errno(libc::ENOTCONN));
        }
        if writes && is_gone { Err(errno(libc::EINVAL)) } else { Ok(()) }
    }

    /// Closes an end with its last descriptor.
    pub(super) fn close(&mut self, id: EndId, base: &mut Base) {
        let unread = self.end(id).unread();
        let Some(segment) = self.end_mut(id).close(base) else { return };
        if unread > 0 && matches!(segment, Segment::End) {
            self.acknowledge(id, unread, base);
        }
        self.send(id, segment, base);
    }
}
