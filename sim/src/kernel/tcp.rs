//! TCP by the rules of Linux: connecting, accepting, and the calls of a program on a socket.

mod connections;
mod end;
mod sockets;

use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, Shutdown, SocketAddr};
use std::time::Duration;

use pollio::Readiness;

use super::base::Base;
use super::epoll::ALL;
use super::errno::errno;
use super::event::{Arrival, Event};
use super::ids::{EndId, FileId, SocketId};
use super::rules::Rule;
use crate::conditions;
use connections::Connections;
use end::Attempt;
use sockets::{Sockets, State};

pub(crate) use sockets::Options;

/// The length of the queue that the standard library asks for.
pub(crate) const BACKLOG: usize = 128;

/// The number of attempts to connect before `ETIMEDOUT`, as in `tcp_syn_retries`.
const SYN_RETRIES: u32 = 6;

#[derive(Default)]
pub(super) struct Tcp {
    sockets: Sockets,
    connections: Connections,
    /// The number of connections that each address still refuses, scripted by a test.
    refusals: BTreeMap<SocketAddr, usize>,
    has_accepted: bool,
}

impl Tcp {
    /// Adds a socket that neither listens nor was ever connected, for the file that `file` adds.
    pub(super) fn add(
        &mut self,
        options: Options,
        file: impl FnOnce(SocketId) -> FileId,
    ) -> FileId {
        self.add_state(State::New(options), file)
    }

    fn add_state(&mut self, state: State, file: impl FnOnce(SocketId) -> FileId) -> FileId {
        let file = file(self.sockets.next_id());
        self.sockets.add(file, state);
        file
    }

    pub(super) fn bind(
        &mut self,
        id: SocketId,
        address: SocketAddr,
        base: &mut Base,
    ) -> io::Result<()> {
        self.sockets.bind(id, address, base)
    }

    pub(super) fn listen(
        &mut self,
        id: SocketId,
        backlog: usize,
        base: &mut Base,
    ) -> io::Result<()> {
        self.sockets.listen(id, backlog, base)
    }

    /// Fails if an option of a connection can no longer be set: one of TCP, or of any socket.
    pub(super) fn check_option(
        &self,
        id: SocketId,
        is_of_tcp: bool,
        base: &mut Base,
    ) -> io::Result<()> {
        let Ok(end) = self.sockets.end(id) else { return Ok(()) };
        let end = self.connections.end(end);
        if end.is_shut() && base.applies(Rule::OptionsOfEndedAreInvalid) {
            return Err(errno(libc::EINVAL));
        }
        if is_of_tcp && end.is_gone() && base.applies(Rule::TcpOptionsNeedConnection) {
            return Err(errno(libc::ECONNRESET));
        }
        Ok(())
    }

    /// Changes the options of a socket that is not connected, or those that it had before it listened.
    pub(super) fn set_options(
        &mut self,
        id: SocketId,
        change: impl FnOnce(&mut Options),
    ) -> io::Result<()> {
        self.sockets.options(id).map(change)
    }

    pub(super) fn set_linger_zero(&mut self, id: SocketId, has_linger_zero: bool) {
        if let Ok(end) = self.sockets.end(id) {
            self.connections.end_mut(end).set_linger_zero(has_linger_zero);
        } else if let Ok(options) = self.sockets.options(id) {
            options.has_linger_zero = has_linger_zero;
        }
    }

    pub(super) fn local_address(&self, id: SocketId) -> Option<SocketAddr> {
        match self.sockets.state(id) {
            State::New(options) => options.bound,
            State::Listening(listening) => Some(listening.address()),
            State::Connected(end) => self.connections.end(*end).address(),
            State::Closed => None,
        }
    }

    pub(super) fn peer_address(&self, id: SocketId, base: &mut Base) -> io::Result<SocketAddr> {
        self.connections.peer_address(self.sockets.end(id)?, base)
    }

    /// The end that a socket is, if it was ever connected.
    pub(super) fn end(&self, id: SocketId) -> io::Result<EndId> {
        self.sockets.end(id)
    }
}

/// Connecting.
impl Tcp {
    /// Begins to connect a socket to `address`.
    pub(super) fn connect(
        &mut self,
        id: SocketId,
        address: SocketAddr,
        base: &mut Base,
    ) -> io::Result<()> {
        if self.sockets.listening(id).is_some() {
            return Err(errno(libc::EISCONN));
        }
        let Options { bound, has_linger_zero, .. } = *self.sockets.new_options(id)?;
        let own_ip = match address.ip() {
            ip if !ip.is_unspecified() => ip,
            IpAddr::V4(_) => Ipv4Addr::LOCALHOST.into(),
            IpAddr::V6(_) => Ipv6Addr::LOCALHOST.into(),
        };
        let client = match bound {
            Some(bound) if bound.ip().is_unspecified() => SocketAddr::new(own_ip, bound.port()),
            Some(bound) => bound,
            None => self.sockets.bind_to_free_port(id, own_ip)?,
        };
        let end = self.connections.add(base);
        self.connections.attach(end, self.sockets.file(id), has_linger_zero);
        self.connections.end_mut(end).set_address(client);
        let server = SocketAddr::new(own_ip, address.port());
        self.connections.end_mut(end.peer()).set_address(server);
        self.sockets.set_connected(id, end);
        let latency = self.connections.latency(end);
        self.arrive_in(latency, Arrival::Syn(end, 0), base);
        Ok(())
    }

    /// The result of a call of `connect` that has waited for the connection.
    pub(super) fn finish_connect(&mut self, id: SocketId, base: &mut Base) -> io::Result<()> {
        self.attempt(id, true, base)
    }

    /// The result of another call of `connect`: the outcome once, and an error from then on. A socket that could not be
    /// connected may try again.
    pub(super) fn connect_again(
        &mut self,
        id: SocketId,
        blocks: bool,
        base: &mut Base,
    ) -> io::Result<()> {
        let end = self.sockets.end(id)?;
        if self.connections.end(end).is_closed() {
            if let Some(error) = self.connections.reconnect_error(end, blocks, base) {
                return Err(error);
            }
        }
        match self.attempt(id, blocks, base) {
            Ok(()) if base.applies(Rule::ConnectIsConnected) => Err(errno(libc::EISCONN)),
            result => result,
        }
    }

    fn attempt(&mut self, id: SocketId, blocks: bool, base: &Base) -> io::Result<()> {
        let end = self.sockets.end(id)?;
        match self.connections.end_mut(end).attempt() {
            Attempt::GoesOn => Err(errno(if blocks { libc::EAGAIN } else { libc::EALREADY })),
            Attempt::Succeeded => Ok(()),
            Attempt::IsKnown => Err(errno(libc::EISCONN)),
            Attempt::Failed(error) if base.rules().connects_once() => Err(error),
            Attempt::Failed(error) => {
                let end = self.connections.end_mut(end);
                end.detach();
                let (bound, has_linger_zero) = (end.address(), end.has_linger_zero());
                let options = Options { bound, has_linger_zero, ..Options::default() };
                self.sockets.set_new(id, options);
                Err(error)
            }
        }
    }

    fn syn_arrives(&mut self, end: EndId, attempt: u32, base: &mut Base) {
        let Some(address) = self.connections.end(end.peer()).address() else { return };
        if !self.connections.end(end).is_wanted() {
            return;
        }
        let is_refused = self.takes_refusal(address);
        let listeners = self.sockets.listeners(address, base);
        let latency = self.connections.latency(end);
        if listeners.is_empty() || is_refused || base.draw_fault(conditions::Kind::Refusals) {
            base.note(|| format!("nobody listens at {address}"));
            return self.arrive_in(latency, Arrival::Reset(end, libc::ECONNREFUSED), base);
        }
        let id = match listeners[..] {
            [id] => id,
            _ if base.applies(Rule::ReusedPortIsOnes) => listeners[0],
            _ => listeners[base.random().index(listeners.len())],
        };
        let Some(listening) = self.sockets.listening_mut(id) else { return };
        if !listening.reserve() {
            if base.applies(Rule::FullQueueResets) {
                self.connections.end_mut(end.peer()).set_closed();
                self.arrive_in(latency, Arrival::Connected(end), base);
                return self.arrive_in(3 * latency, Arrival::Reset(end, libc::ECONNRESET), base);
            }
            return if attempt < SYN_RETRIES {
                let time = Duration::from_secs(1 << attempt);
                self.arrive_in(time, Arrival::Syn(end, attempt + 1), base);
            } else {
                self.connections.reset_arrives(end, libc::ETIMEDOUT, base);
            };
        }
        let server = self.connections.end_mut(end.peer());
        // What the client sends arrives after its connection.
        server.set_last_arrival(base.now() + 2 * latency);
        server.set_connected();
        self.arrive_in(latency, Arrival::Connected(end), base);
        self.arrive_in(2 * latency, Arrival::Enqueue(end.peer(), id), base);
        self.draw_breaks(end, latency, base);
    }

    fn takes_refusal(&mut self, address: SocketAddr) -> bool {
        let Some(count) = self.refusals.get_mut(&address).filter(|count| **count > 0) else {
            return false;
        };
        *count -= 1;
        true
    }

    /// Draws the faults of a new connection.
    fn draw_breaks(&mut self, end: EndId, latency: Duration, base: &mut Base) {
        let soon = Duration::ZERO..=(40 * latency).max(Duration::from_millis(1));
        if base.draw_fault(conditions::Kind::Resets) {
            let time = base.random().duration(&soon);
            self.arrive_in(latency + time, Arrival::ResetBoth(end), base);
        }
        if base.draw_fault(conditions::Kind::Stalls) {
            let time = base.random().duration(&soon);
            let lengths = Duration::from_millis(1)..=Duration::from_secs(30);
            let length = base.random().duration(&lengths);
            self.arrive_in(latency + time, Arrival::Stall(end, length), base);
        }
    }

    fn arrive_in(&mut self, time: Duration, arrival: Arrival, base: &mut Base) {
        if time.is_zero() {
            return self.arrive(arrival, base);
        }
        base.add_event(base.now() + time, Event::Tcp(arrival));
    }

    pub(super) fn arrive(&mut self, arrival: Arrival, base: &mut Base) {
        match arrival {
            Arrival::Syn(end, attempt) => self.syn_arrives(end, attempt, base),
            Arrival::Enqueue(end, listener) => self.enqueue(end, listener, base),
            Arrival::Connected(end) => self.connections.connected(end, base),
            Arrival::Segment(end) => self.connections.segment_arrives(end, base),
            Arrival::Ack(end, count) => self.connections.ack_arrives(end, count, base),
            Arrival::RoomReturns(end) => self.connections.room_returns(end, base),
            Arrival::Reset(end, error) => self.connections.reset_arrives(end, error, base),
            Arrival::ResetBoth(end) => self.connections.reset_both(end, base),
            Arrival::Stall(end, length) => self.connections.stall(end, length, base),
        }
    }
}

/// Accepting.
impl Tcp {
    fn enqueue(&mut self, end: EndId, listener: SocketId, base: &mut Base) {
        let is_connected = self.connections.end(end.peer()).is_connected();
        let file = self.sockets.file(listener);
        let Some(listening) = self.sockets.listening_mut(listener) else {
            return self.connections.reset_peer(end, base);
        };
        if !is_connected {
            // Its client has given up.
            return listening.unreserve();
        }
        if listening.push(end) {
            base.touch(file);
        }
        let address = listening.address();
        base.note(|| format!("a client waits at {address}"));
        base.notify(file, Readiness::READABLE);
        base.check_later(file);
    }

    /// Takes a connection from the queue of a listener, for the file that `file` adds, if there is room for one more.
    /// Returns that, and the client's address.
    pub(super) fn accept(
        &mut self,
        id: SocketId,
        has_room: bool,
        base: &mut Base,
        file: impl FnOnce(SocketId, &mut Base) -> FileId,
    ) -> io::Result<(FileId, SocketAddr)> {
        let listener = self.sockets.file(id);
        let listening = self.sockets.listening_mut(id).ok_or_else(|| errno(libc::EINVAL))?;
        let end = listening.first().ok_or_else(|| errno(libc::EAGAIN))?;
        base.touch(listener);
        if !has_room && base.applies(Rule::AcceptLosesClient) {
            listening.remove_first();
            self.connections.close(end, base);
            return Err(errno(libc::EMFILE));
        }
        if base.draw_failing_accept() {
            return Err(errno(libc::EMFILE));
        }
        listening.remove_first();
        if self.connections.end(end).is_closed() && base.applies(Rule::AcceptOfResetAborts) {
            return Err(errno(libc::ECONNABORTED));
        }
        let has_linger_zero = listening.options().has_linger_zero;
        if base.draw_fault(conditions::Kind::Resets) {
            self.connections.reset_peer(end, base);
            return Err(errno(libc::ECONNABORTED));
        }
        self.has_accepted = true;
        let client = self.connections.end(end.peer()).address();
        let client = client.ok_or_else(|| errno(libc::EINVAL))?;
        let file = self.add_state(State::Connected(end), |id| file(id, base));
        self.connections.attach(end, file, has_linger_zero);
        if self.sockets.listening(id).is_some_and(|it| it.first().is_some()) {
            base.notify_of_next_client(listener);
        }
        Ok((file, client))
    }

    /// Whether a connection was ever accepted: the program has started.
    pub(super) const fn has_accepted(&self) -> bool {
        self.has_accepted
    }

    fn reset_queue(&mut self, queue: VecDeque<EndId>, base: &mut Base) {
        for end in queue {
            self.connections.reset_peer(end, base);
        }
    }
}

/// Calls of a program on a socket.
impl Tcp {
    pub(super) fn readiness(&mut self, id: SocketId, base: &mut Base) -> Readiness {
        match self.sockets.state(id) {
            State::New(_) if base.applies(Rule::UnconnectedIsSilent) => Readiness::NONE,
            State::New(_) => Readiness::WRITE_CLOSED | Readiness::WRITABLE,
            State::Listening(listening) if listening.first().is_some() => Readiness::READABLE,
            State::Listening(_) | State::Closed => Readiness::NONE,
            State::Connected(end) => self.connections.end_mut(*end).readiness(),
        }
    }

    /// Whether the program itself has ended what it sends.
    pub(super) fn is_write_shut(&self, id: SocketId) -> bool {
        self.sockets.end(id).is_ok_and(|end| self.connections.end(end).is_write_shut())
    }

    /// Whether it is connected, and neither direction has ended by a FIN.
    pub(super) fn is_established(&self, id: SocketId) -> bool {
        self.sockets.end(id).is_ok_and(|end| self.connections.end(end).is_established())
    }

    pub(super) fn read(
        &mut self,
        id: SocketId,
        buffer: &mut [u8],
        base: &mut Base,
    ) -> io::Result<usize> {
        self.connections.read(self.sockets.end(id)?, buffer, base)
    }

    pub(super) fn peek(&mut self, id: SocketId, buffer: &mut [u8]) -> io::Result<usize> {
        self.connections.end_mut(self.sockets.end(id)?).peek(buffer)
    }

    pub(super) fn write(
        &mut self,
        id: SocketId,
        bytes: &[u8],
        base: &mut Base,
    ) -> io::Result<usize> {
        let Ok(end) = self.sockets.end(id) else {
            // A socket that was never connected.
            let needs_connection = base.applies(Rule::WriteNeedsConnection);
            return Err(errno(if needs_connection { libc::ENOTCONN } else { libc::EPIPE }));
        };
        self.connections.write(end, bytes, base)
    }

    pub(super) fn take_error(&mut self, id: SocketId) -> Option<io::Error> {
        let end = self.sockets.end(id).ok()?;
        self.connections.end_mut(end).take_error().map(errno)
    }

    pub(super) fn shut_down(
        &mut self,
        id: SocketId,
        how: Shutdown,
        base: &mut Base,
    ) -> io::Result<()> {
        if let Ok(end) = self.sockets.end(id) {
            return self.connections.shut_down(end, how, base);
        }
        let is_listening = self.sockets.listening(id).is_some();
        if how != Shutdown::Write {
            let queue = self.sockets.stop_listening(id);
            self.reset_queue(queue, base);
        }
        base.notify(self.sockets.file(id), ALL);
        if is_listening { Ok(()) } else { Err(errno(libc::ENOTCONN)) }
    }

    /// Closes a socket with its last descriptor.
    pub(super) fn close(&mut self, id: SocketId, base: &mut Base) {
        match self.sockets.close(id, self.local_address(id)) {
            State::Connected(end) => self.connections.close(end, base),
            State::Listening(listening) => self.reset_queue(listening.into_queue(), base),
            State::New(_) | State::Closed => {}
        }
    }
}

/// Scripts of a test.
impl Tcp {
    pub(super) fn refuse(&mut self, address: SocketAddr, count: usize) {
        self.refusals.insert(address, count);
    }

    /// Resets both ends once `count` more bytes of this one have arrived.
    pub(super) fn reset_after(&mut self, end: EndId, count: usize) {
        self.connections.end_mut(end.peer()).set_bytes_until_reset(count);
    }
}

/// Texts of reports, and the patience of a test.
impl Tcp {
    /// The name of a socket: by its addresses.
    pub(super) fn label(&self, id: SocketId) -> String {
        match self.sockets.state(id) {
            State::Listening(listening) => format!("listener {}", listening.address()),
            State::Connected(end) => self.connections.label(*end),
            State::New(Options { bound: Some(address), .. }) => format!("socket {address}"),
            State::New(_) | State::Closed => "a socket".into(),
        }
    }

    /// Its name and its state.
    pub(super) fn describe(&self, id: SocketId) -> String {
        let what = match self.sockets.state(id) {
            State::Listening(listening) if listening.queue_length() > 0 => {
                format!(", {} in its queue", listening.queue_length())
            }
            State::Connected(end) => self.connections.end(*end).describe(),
            _ => String::new(),
        };
        self.label(id) + &what
    }

    /// Whether it was ever connected.
    pub(super) fn is_stream(&self, id: SocketId) -> bool {
        self.sockets.end(id).is_ok()
    }

    /// Whether another process could take its bytes or clients.
    pub(super) fn is_shareable(&self, id: SocketId) -> bool {
        self.is_stream(id) || self.sockets.listening(id).is_some()
    }

    /// Whether there is something to take: bytes, or a client.
    pub(super) fn has_something(&self, id: SocketId) -> bool {
        match self.sockets.state(id) {
            State::Listening(listening) => listening.queue_length() > 0,
            State::Connected(end) => self.connections.end(*end).has_bytes(),
            State::New(_) | State::Closed => false,
        }
    }

    /// Whether it is a stream that waits for room to write, or to be connected.
    pub(super) fn is_held_back(&self, id: SocketId) -> bool {
        let Ok(end) = self.sockets.end(id) else { return false };
        let end = self.connections.end(end);
        !end.is_writable() || !end.is_connected()
    }
}
