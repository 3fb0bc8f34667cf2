//! Connections: what the two ends of one know of each other, and when.
//!
//! The rules are Linux's, for TCP and for pairs of Unix sockets; the tests run both in step with real
//! ones. A connection has a latency, a bandwidth and a buffer in each direction, drawn by the seed.

use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::mem;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, Shutdown, SocketAddr};
use std::os::fd::RawFd;
use std::time::Duration;

use crate::addresses::Addresses;
use crate::agenda::Action;
use crate::kernel::{ALL, File, FileId, Kind, Received, errno};
use crate::world::State;
use pollio::{Interest, Readiness};

#[derive(Default)]
pub(super) struct Network {
    connections: Vec<Connection>,
    addresses: Addresses,
    /// How many connections each address still refuses, as a test scripts it.
    refusals: BTreeMap<SocketAddr, usize>,
}

struct Connection {
    is_unix: bool,
    latency: Duration,
    bandwidth: u64,
    /// Nothing arrives before.
    stalled_until: Duration,
    /// The one that connected, and the one that was accepted.
    ends: [End; 2],
}

/// One end of a connection.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) struct EndId {
    connection: usize,
    side: usize,
}

impl EndId {
    const fn peer(self) -> Self {
        Self { connection: self.connection, side: 1 - self.side }
    }
}

struct End {
    address: Option<SocketAddr>,
    /// None before it is accepted, and after it is closed.
    file: Option<FileId>,
    /// The program has closed it.
    is_orphan: bool,
    is_connected: bool,
    /// A call of `connect` has returned how it ended.
    is_announced: bool,
    /// As the state `TCP_CLOSE`: it was reset, or both directions have ended.
    is_closed: bool,
    /// As `RCV_SHUTDOWN` and `SEND_SHUTDOWN`.
    is_read_shut: bool,
    is_write_shut: bool,
    /// The peer's end has arrived. It hides an error that comes later.
    is_done: bool,
    error: Option<i32>,
    has_linger_zero: bool,
    /// On its way here, in order.
    inbox: VecDeque<Segment>,
    last_arrival: Duration,
    received: Received,
    /// Of what is sent from here: how many bytes may be written and not yet read, and how many are.
    capacity: usize,
    in_use: usize,
    /// A write found too little room, so that room is reported once there is some.
    wants_room: bool,
    /// A fault: no room, whatever the numbers say.
    has_no_room: bool,
    /// As a test scripts it: how many more bytes arrive here before the connection is reset.
    bytes_until_reset: Option<usize>,
}

enum Segment {
    Bytes(Box<[u8]>),
    End,
    Reset,
}

/// Something that arrives at an end of a connection.
pub(super) enum Delivery {
    Syn(EndId, u32),
    Connected(EndId),
    Enqueue(EndId, FileId),
    Segment(EndId),
    Room(EndId, usize),
    /// The end of the fault that there was no room.
    RoomReturns(EndId),
    Reset(EndId, i32),
    /// A fault: a reset of both ends.
    ResetBoth(EndId),
    Stall(EndId, Duration),
}

#[derive(Default, Clone, Copy)]
pub(super) struct Unconnected {
    pub(super) bound: Option<SocketAddr>,
    pub(super) reuses_address: bool,
    pub(super) reuses_port: bool,
    pub(super) has_linger_zero: bool,
}

pub(super) struct Listening {
    pub(super) address: SocketAddr,
    pub(super) queue: VecDeque<EndId>,
    /// How many are on their way into the queue.
    coming: usize,
    backlog: usize,
    /// What it was before. Those that it accepts linger as it does.
    pub(super) socket: Unconnected,
    /// When a connection was last taken, or came to an empty queue.
    pub(super) last_progress: Duration,
}

/// What the standard library asks for.
pub(super) const BACKLOG: usize = 128;

/// How often a connection is tried before `ETIMEDOUT`, as `tcp_syn_retries` has it.
const SYN_RETRIES: u32 = 6;

/// One that is written to and not read can hold so much, between Unix sockets.
const UNIX_CAPACITY: usize = 208 << 10;

impl Network {
    fn end(&self, id: EndId) -> &End {
        &self.connections[id.connection].ends[id.side]
    }

    fn end_mut(&mut self, id: EndId) -> &mut End {
        &mut self.connections[id.connection].ends[id.side]
    }

    fn of(&self, id: EndId) -> &Connection {
        &self.connections[id.connection]
    }

    fn is_unix(&self, id: EndId) -> bool {
        self.of(id).is_unix
    }

    /// Whether a test has scripted that this connection is refused.
    fn takes_refusal(&mut self, address: SocketAddr) -> bool {
        let Some(count) = self.refusals.get_mut(&address).filter(|count| **count > 0) else {
            return false;
        };
        *count -= 1;
        true
    }

    fn is_writable(&self, id: EndId) -> bool {
        let end = self.end(id);
        // Each kernel socket has its own idea of how much room is worth an event.
        let has_room = if self.is_unix(id) {
            end.in_use * 4 <= end.capacity
        } else {
            end.in_use * 3 <= end.capacity * 2
        };
        has_room && !end.has_no_room
    }
}

impl End {
    fn new(capacity: usize) -> Self {
        Self {
            address: None,
            file: None,
            is_orphan: false,
            is_connected: false,
            is_announced: false,
            is_closed: false,
            is_read_shut: false,
            is_write_shut: false,
            is_done: false,
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
}

/// Making connections.
impl State {
    fn add_connection(&mut self, is_unix: bool) -> EndId {
        let Self { weather, random, .. } = self;
        let limits = &weather.limits;
        let draw = |random: &mut super::random::Random| {
            usize::try_from(random.magnitude(&limits.buffer)).unwrap_or(usize::MAX / 4)
        };
        let connection = if is_unix {
            Connection {
                is_unix,
                latency: Duration::ZERO,
                bandwidth: u64::MAX,
                stalled_until: Duration::ZERO,
                ends: [End::new(UNIX_CAPACITY), End::new(UNIX_CAPACITY)],
            }
        } else {
            Connection {
                is_unix,
                latency: random.duration(&limits.latency),
                bandwidth: random.magnitude(&limits.bandwidth),
                stalled_until: Duration::ZERO,
                ends: [End::new(draw(random)), End::new(draw(random))],
            }
        };
        self.network.connections.push(connection);
        EndId { connection: self.network.connections.len() - 1, side: 0 }
    }

    /// Two ends that are connected to each other, as socketpair(2) makes them.
    pub(super) fn connect_pair(&mut self) -> [FileId; 2] {
        let near = self.add_connection(true);
        [near, near.peer()].map(|id| {
            let file = self.files.add(Kind::Stream(id));
            let end = self.network.end_mut(id);
            (end.file, end.is_connected) = (Some(file), true);
            file
        })
    }

    /// Gives a socket an address that nobody else has, or all who have it share.
    pub(super) fn bind(&mut self, file: FileId, mut address: SocketAddr) -> io::Result<()> {
        let socket = *self.unconnected(file)?;
        if socket.bound.is_some() {
            return Err(errno(libc::EINVAL));
        }
        if address.port() == 0 {
            let port = self.network.addresses.free_port();
            address.set_port(port.ok_or_else(|| errno(libc::EADDRINUSE))?);
        }
        self.check_rivals(file, address, socket)?;
        self.network.addresses.take(address, file);
        self.unconnected(file)?.bound = Some(address);
        Ok(())
    }

    /// Fails if somebody has this address who does not share it: two who listen share a port, others an
    /// address too. See `inet_csk_bind_conflict`.
    fn check_rivals(
        &self,
        file: FileId,
        address: SocketAddr,
        socket: Unconnected,
    ) -> io::Result<()> {
        let mut rivals = self.network.addresses.rivals(address).filter(|rival| *rival != file);
        let is_shared = |rival| match self.files.get(rival).map(|file| &file.kind) {
            Some(Kind::Socket(rival)) => {
                rival.reuses_port && socket.reuses_port
                    || rival.reuses_address && socket.reuses_address
            }
            Some(Kind::Listener(rival)) => rival.socket.reuses_port && socket.reuses_port,
            _ => false,
        };
        if rivals.all(is_shared) { Ok(()) } else { Err(errno(libc::EADDRINUSE)) }
    }

    pub(super) fn unconnected(&mut self, file: FileId) -> io::Result<&mut Unconnected> {
        match self.files.get_mut(file) {
            Some(File { kind: Kind::Socket(socket), .. }) => Ok(socket),
            _ => Err(errno(libc::EINVAL)),
        }
    }

    /// Listens, at any port if the socket has none, or changes the length of the queue.
    pub(super) fn listen(&mut self, file: FileId, backlog: usize) -> io::Result<()> {
        if let Some(File { kind: Kind::Listener(listening), .. }) = self.files.get_mut(file) {
            listening.backlog = backlog;
            return Ok(());
        }
        if self.unconnected(file)?.bound.is_none() {
            self.bind(file, (Ipv4Addr::UNSPECIFIED, 0).into())?;
        }
        let socket = *self.unconnected(file)?;
        let address = socket.bound.ok_or_else(|| errno(libc::EINVAL))?;
        self.check_rivals(file, address, socket)?;
        let (queue, last_progress) = (VecDeque::new(), self.now);
        let listening = Listening { address, queue, coming: 0, backlog, socket, last_progress };
        if let Some(file) = self.files.get_mut(file) {
            file.kind = Kind::Listener(listening);
        }
        Ok(())
    }

    /// Ends the listening, as a shutdown does: the address stays.
    fn stop_listening(&mut self, id: FileId) {
        let Some(file) = self.files.get_mut(id) else { return };
        let Kind::Listener(Listening { socket, .. }) = file.kind else { return };
        if let Kind::Listener(listening) = mem::replace(&mut file.kind, Kind::Socket(socket)) {
            self.reset_queue(listening);
        }
    }

    pub(super) fn reset_queue(&mut self, listening: Listening) {
        for id in listening.queue {
            self.reset_peer(id);
        }
    }

    /// What closing the last descriptor of a socket does to its address.
    pub(super) fn release(&mut self, address: Option<SocketAddr>, file: FileId) {
        if let Some(address) = address {
            self.network.addresses.release(address, file);
        }
    }

    /// Begins to connect the socket `file` to `address`.
    pub(super) fn connect(&mut self, file: FileId, address: SocketAddr) -> io::Result<()> {
        if matches!(self.files.get(file), Some(File { kind: Kind::Listener(_), .. })) {
            return Err(errno(libc::EISCONN));
        }
        let Unconnected { bound, has_linger_zero, .. } = *self.unconnected(file)?;
        let own_ip = match address.ip() {
            ip if !ip.is_unspecified() => ip,
            IpAddr::V4(_) => Ipv4Addr::LOCALHOST.into(),
            IpAddr::V6(_) => Ipv6Addr::LOCALHOST.into(),
        };
        let client = match bound {
            Some(bound) if bound.ip().is_unspecified() => SocketAddr::new(own_ip, bound.port()),
            Some(bound) => bound,
            None => {
                let port = self.network.addresses.free_port();
                let port = port.ok_or_else(|| errno(libc::EADDRNOTAVAIL))?;
                let client = SocketAddr::new(own_ip, port);
                self.network.addresses.take(client, file);
                client
            }
        };
        let id = self.add_connection(false);
        let end = self.network.end_mut(id);
        (end.address, end.file, end.has_linger_zero) = (Some(client), Some(file), has_linger_zero);
        let server = SocketAddr::new(own_ip, address.port());
        self.network.end_mut(id.peer()).address = Some(server);
        if let Some(file) = self.files.get_mut(file) {
            file.kind = Kind::Stream(id);
        }
        let latency = self.network.of(id).latency;
        self.deliver_in(latency, Delivery::Syn(id, 0));
        Ok(())
    }

    /// What another call of `connect` returns: once how it ended, and from then on that it has. Who could
    /// not be connected may try again.
    pub(super) fn connect_again(&mut self, file: FileId, id: EndId) -> io::Result<()> {
        let Some(file) = self.files.get_mut(file) else { return Err(errno(libc::EBADF)) };
        let end = self.network.end_mut(id);
        if !end.is_connected && !end.is_closed {
            return Err(errno(if file.is_nonblocking { libc::EALREADY } else { libc::EAGAIN }));
        }
        if mem::replace(&mut end.is_announced, true) {
            return Err(errno(libc::EISCONN));
        }
        if !end.is_closed {
            return Ok(());
        }
        let (bound, has_linger_zero) = (end.address, end.has_linger_zero);
        file.kind = Kind::Socket(Unconnected { bound, has_linger_zero, ..Default::default() });
        (end.file, end.is_orphan) = (None, true);
        Err(errno(end.error.take().unwrap_or(libc::ECONNABORTED)))
    }

    /// Who takes clients of an address: those at exactly this one come first.
    fn listeners(&self, address: SocketAddr) -> Vec<FileId> {
        let all: IpAddr = match address {
            SocketAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
            SocketAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
        };
        let listens = |file: &FileId| {
            matches!(self.files.get(*file), Some(File { kind: Kind::Listener(_), .. }))
        };
        let at = |ip| {
            let owners = self.network.addresses.owners(SocketAddr::new(ip, address.port()));
            owners.filter(listens).collect::<Vec<_>>()
        };
        let ips = [address.ip(), all, Ipv6Addr::UNSPECIFIED.into()];
        ips.into_iter().map(at).find(|files| !files.is_empty()).unwrap_or_default()
    }

    fn syn_arrives(&mut self, id: EndId, attempt: u32) {
        let Some(address) = self.network.end(id.peer()).address else { return };
        let client = self.network.end(id);
        if client.is_orphan || client.is_closed {
            return;
        }
        let is_refused = self.network.takes_refusal(address);
        let listeners = self.listeners(address);
        let latency = self.network.of(id).latency;
        if listeners.is_empty()
            || is_refused
            || self.weather.fault(|kind| kind.refusals, &mut self.random)
        {
            self.note(|| format!("nobody listens at {address}"));
            return self.deliver_in(latency, Delivery::Reset(id, libc::ECONNREFUSED));
        }
        let listener = match listeners[..] {
            [listener] => listener,
            _ => listeners[self.random.index(listeners.len())],
        };
        let Some(File { kind: Kind::Listener(listening), .. }) = self.files.get_mut(listener)
        else {
            return;
        };
        if listening.queue.len() + listening.coming > listening.backlog {
            return if attempt < SYN_RETRIES {
                self.deliver_in(Duration::from_secs(1 << attempt), Delivery::Syn(id, attempt + 1));
            } else {
                self.deliver_in(Duration::ZERO, Delivery::Reset(id, libc::ETIMEDOUT));
            };
        }
        listening.coming += 1;
        // What the client sends arrives after its connection.
        self.network.end_mut(id.peer()).last_arrival = self.now + 2 * latency;
        self.network.end_mut(id.peer()).is_connected = true;
        self.deliver_in(latency, Delivery::Connected(id));
        self.deliver_in(2 * latency, Delivery::Enqueue(id.peer(), listener));
        let soon = Duration::ZERO..=(40 * latency).max(Duration::from_millis(1));
        if self.weather.fault(|kind| kind.resets, &mut self.random) {
            let time = self.random.duration(&soon);
            self.deliver_in(latency + time, Delivery::ResetBoth(id));
        }
        if self.weather.fault(|kind| kind.stalls, &mut self.random) {
            let time = self.random.duration(&soon);
            let length = Duration::from_millis(1)..=Duration::from_secs(30);
            let length = self.random.duration(&length);
            self.deliver_in(latency + time, Delivery::Stall(id, length));
        }
    }

    /// The client's end is connected.
    fn connected(&mut self, id: EndId) {
        let end = self.network.end_mut(id);
        if !end.is_orphan && !end.is_closed {
            end.is_connected = true;
            self.notify_end(id, ALL);
        }
    }

    fn enqueue(&mut self, id: EndId, listener: FileId) {
        let now = self.now;
        let Some(File { kind: Kind::Listener(listening), .. }) = self.files.get_mut(listener)
        else {
            return self.reset_peer(id);
        };
        listening.coming -= 1;
        if !self.network.end(id.peer()).is_connected {
            // Its client has given up.
            return;
        }
        if listening.queue.is_empty() {
            listening.last_progress = now;
        }
        let address = listening.address;
        listening.queue.push_back(id);
        self.note(|| format!("a client waits at {address}"));
        self.notify(listener, Readiness::READABLE);
        self.look_after_patience(listener);
    }

    /// Takes a connection from the queue of a listener: the file of its end, and the client's address.
    pub(super) fn accept(&mut self, listener: FileId) -> io::Result<(FileId, SocketAddr)> {
        let now = self.now;
        let Some(File { kind: Kind::Listener(listening), .. }) = self.files.get_mut(listener)
        else {
            return Err(errno(libc::EINVAL));
        };
        if listening.queue.is_empty() {
            return Err(errno(libc::EAGAIN));
        }
        listening.last_progress = now;
        if self.weather.fault(|kind| kind.failing_accepts, &mut self.random) {
            return Err(errno(libc::EMFILE));
        }
        if self.weather.fault(|kind| kind.resets, &mut self.random) {
            let id = listening.queue.pop_front();
            id.into_iter().for_each(|id| self.reset_peer(id));
            return Err(errno(libc::ECONNABORTED));
        }
        let Some(id) = listening.queue.pop_front() else { return Err(errno(libc::EAGAIN)) };
        let has_linger_zero = listening.socket.has_linger_zero;
        let file = self.files.add(Kind::Stream(id));
        let end = self.network.end_mut(id);
        (end.file, end.has_linger_zero) = (Some(file), has_linger_zero);
        self.has_accepted = true;
        let client = self.network.end(id.peer()).address;
        client.map(|client| (file, client)).ok_or_else(|| errno(libc::EINVAL))
    }
}

/// What arrives, and when.
impl State {
    fn deliver_in(&mut self, time: Duration, delivery: Delivery) {
        if time.is_zero() {
            return self.deliver(delivery);
        }
        self.agenda.add(self.now + time, Action::Delivery(delivery));
    }

    pub(super) fn deliver(&mut self, delivery: Delivery) {
        match delivery {
            Delivery::Syn(id, attempt) => self.syn_arrives(id, attempt),
            Delivery::Connected(id) => self.connected(id),
            Delivery::Enqueue(id, listener) => self.enqueue(id, listener),
            Delivery::Segment(id) => self.segment_arrives(id),
            Delivery::Room(id, count) => self.room_arrives(id, count),
            Delivery::RoomReturns(id) => {
                self.network.end_mut(id).has_no_room = false;
                self.room_arrives(id, 0);
            }
            Delivery::Reset(id, error) => self.reset_arrives(id, error),
            Delivery::ResetBoth(id) => {
                self.note(|| "fault: a connection is reset".into());
                self.reset_arrives(id, libc::ECONNRESET);
                self.reset_arrives(id.peer(), libc::ECONNRESET);
            }
            Delivery::Stall(id, length) => {
                self.note(|| format!("fault: a connection stalls for {length:?}"));
                self.network.connections[id.connection].stalled_until = self.now + length;
            }
        }
    }

    /// Sends a segment from this end to the other.
    fn send(&mut self, id: EndId, segment: Segment) {
        let connection = &mut self.network.connections[id.connection];
        let to = id.peer();
        let length = match &segment {
            Segment::Bytes(bytes) => bytes.len() as u64,
            Segment::End | Segment::Reset => 0,
        };
        let end = &mut connection.ends[to.side];
        end.inbox.push_back(segment);
        if connection.latency.is_zero() && end.inbox.len() == 1 {
            return self.segment_arrives(to);
        }
        let transmission =
            Duration::from_nanos(length * 1_000_000_000 / connection.bandwidth.max(1));
        let arrival = end.last_arrival.max(self.now + connection.latency) + transmission;
        end.last_arrival = arrival;
        self.agenda.add(arrival, Action::Delivery(Delivery::Segment(to)));
    }

    fn segment_arrives(&mut self, id: EndId) {
        let stalled_until = self.network.of(id).stalled_until;
        if self.now < stalled_until {
            self.agenda.add(stalled_until, Action::Delivery(Delivery::Segment(id)));
            return;
        }
        let end = self.network.end_mut(id);
        match end.inbox.pop_front() {
            None => {}
            Some(_) if end.is_closed => {}
            Some(Segment::Reset) => self.reset_arrives(id, libc::ECONNRESET),
            Some(Segment::Bytes(_)) if end.is_orphan => {
                // Nobody will ever read this, and the peer has to know.
                end.is_closed = true;
                self.reset_peer(id);
            }
            // As in FIN_WAIT with `RCV_SHUTDOWN`.
            Some(Segment::Bytes(_)) if end.is_read_shut && end.is_write_shut && !end.is_done => {
                self.reset_arrives(id, libc::ECONNRESET);
                self.reset_peer(id);
            }
            Some(Segment::Bytes(bytes)) => {
                let was_empty = end.received.bytes.is_empty();
                if let Some(count) = &mut end.bytes_until_reset {
                    if *count <= bytes.len() {
                        end.received.push(&bytes[..*count]);
                        return self.reset_now(id);
                    }
                    *count -= bytes.len();
                }
                end.received.push(&bytes);
                // Linux reports data as a possible PRIORITY too.
                self.notify_end(id, Readiness::READABLE | Readiness::PRIORITY);
                if was_empty {
                    self.look_after_patience_of(id);
                }
            }
            Some(Segment::End) => {
                (end.is_read_shut, end.is_done) = (true, true);
                self.close_if_both_have_ended(id);
                self.notify_end(id, ALL);
            }
        }
    }

    fn close_if_both_have_ended(&mut self, id: EndId) {
        let [near, far] = &mut self.network.connections[id.connection].ends;
        if near.is_done && far.is_done {
            (near.is_closed, far.is_closed) = (true, true);
        }
    }

    fn room_arrives(&mut self, id: EndId, count: usize) {
        let end = self.network.end_mut(id);
        end.in_use = end.in_use.saturating_sub(count);
        if end.wants_room && self.network.is_writable(id) {
            self.network.end_mut(id).wants_room = false;
            self.notify_end(id, Readiness::WRITABLE);
        }
    }

    /// Resets the other end of the connection that this one is of, behind what was sent before.
    fn reset_peer(&mut self, id: EndId) {
        self.network.end_mut(id).is_closed = true;
        self.send(id, Segment::Reset);
    }

    fn reset_arrives(&mut self, id: EndId, error: i32) {
        let end = self.network.end_mut(id);
        if end.is_closed {
            return;
        }
        let error = if end.is_done && !end.is_write_shut { libc::EPIPE } else { error };
        end.error = Some(error);
        (end.is_closed, end.is_read_shut, end.is_write_shut) = (true, true, true);
        end.inbox.clear();
        (end.in_use, end.has_no_room) = (0, false);
        self.notify_end(id, ALL);
    }

    fn notify_end(&mut self, id: EndId, arrival: Readiness) {
        if let Some(file) = self.network.end(id).file {
            self.notify(file, arrival);
        }
    }
}

/// What a program does with an end.
impl State {
    pub(super) fn is_tcp(&self, id: EndId) -> bool {
        !self.network.is_unix(id)
    }

    pub(super) fn end_readiness(&mut self, id: EndId) -> Readiness {
        let is_unix = self.network.is_unix(id);
        let is_writable = self.network.is_writable(id);
        let end = self.network.end_mut(id);
        let mut readiness = Readiness::NONE;
        if !end.is_connected && !end.is_closed {
            return readiness;
        }
        if end.is_read_shut {
            readiness |= Readiness::READABLE | Readiness::READ_CLOSED;
        }
        if !end.received.bytes.is_empty() {
            readiness |= Readiness::READABLE;
        }
        if (end.is_read_shut && end.is_write_shut) || end.is_closed {
            readiness |= Readiness::WRITE_CLOSED;
        }
        if end.error.is_some() {
            readiness |= Readiness::ERROR;
        }
        if is_writable || (end.is_write_shut && !is_unix) {
            readiness |= Readiness::WRITABLE;
        } else {
            end.wants_room = true;
        }
        readiness
    }

    pub(super) fn read(
        &mut self,
        id: EndId,
        buffer: &mut [u8],
        is_peek: bool,
    ) -> io::Result<usize> {
        let is_unix = self.network.is_unix(id);
        let end = self.network.end_mut(id);
        if !end.received.bytes.is_empty() {
            if is_peek {
                return Ok(end.received.peek(buffer));
            }
            let (count, used_up) = end.received.take(buffer);
            self.make_room(id.peer(), if is_unix { used_up } else { count });
            self.note_progress(id);
            return Ok(count);
        }
        if end.is_done && !is_unix {
            return Ok(0);
        }
        if let Some(error) = end.error.take() {
            return Err(errno(error));
        }
        if end.is_read_shut {
            return Ok(0);
        }
        Err(errno(if end.is_closed { libc::ENOTCONN } else { libc::EAGAIN }))
    }

    /// What was read leaves room for the other end to write.
    fn make_room(&mut self, writer: EndId, count: usize) {
        let (is_unix, latency) = (self.network.is_unix(writer), self.network.of(writer).latency);
        let end = self.network.end_mut(writer);
        if is_unix {
            end.in_use = end.in_use.saturating_sub(count);
            // Between Unix sockets a piece that is used up is an edge, whether or not anybody waits for room.
            if count > 0 && self.network.is_writable(writer) {
                self.notify_end(writer, Readiness::WRITABLE);
            }
        } else if end.wants_room {
            self.deliver_in(latency, Delivery::Room(writer, count));
        } else {
            end.in_use = end.in_use.saturating_sub(count);
        }
    }

    pub(super) fn write(&mut self, id: EndId, bytes: &[u8]) -> io::Result<usize> {
        let is_unix = self.network.is_unix(id);
        let is_peer_gone = is_unix && {
            let peer = self.network.end(id.peer());
            peer.is_orphan || peer.is_read_shut
        };
        let end = self.network.end_mut(id);
        if !end.is_connected && !end.is_closed {
            return Err(errno(libc::EAGAIN));
        }
        let error = if is_unix && end.is_write_shut { None } else { end.error.take() };
        if error.is_some() || end.is_write_shut || is_peer_gone {
            return Err(errno(error.unwrap_or(libc::EPIPE)));
        }
        if bytes.is_empty() {
            return Ok(0);
        }
        let room = match end.capacity.saturating_sub(end.in_use) {
            _ if end.has_no_room => 0,
            // Any room is enough for a whole piece.
            1.. if is_unix => UNIX_CAPACITY,
            room => room,
        };
        let mut count = room.min(bytes.len());
        if count > 0 && !is_unix && self.weather.fault(|kind| kind.short_writes, &mut self.random) {
            count = self.random.index(count + 1);
            let end = self.network.end_mut(id);
            (end.has_no_room, end.wants_room) = (true, true);
            let time = self.network.of(id).latency.max(Duration::from_nanos(1));
            self.agenda.add(self.now + time, Action::Delivery(Delivery::RoomReturns(id)));
            self.note(|| format!("fault: room for {count} bytes only"));
        }
        let end = self.network.end_mut(id);
        if count < bytes.len() {
            end.wants_room = true;
        }
        if count == 0 {
            return Err(errno(libc::EAGAIN));
        }
        end.in_use += count;
        let mut rest = &bytes[..count];
        while !rest.is_empty() {
            let is_cut = !is_unix && self.weather.limits.fragments && self.random.one_in(2);
            let piece = if is_cut { 1 + self.random.index(rest.len()) } else { rest.len() };
            self.send(id, Segment::Bytes(rest[..piece].into()));
            rest = &rest[piece..];
        }
        Ok(count)
    }

    pub(super) fn shut_down(&mut self, file: FileId, how: Shutdown) -> io::Result<()> {
        let reads = !matches!(how, Shutdown::Write);
        match self.files.get(file).map(|file| &file.kind) {
            Some(Kind::Stream(id)) => self.shut_down_end(*id, how),
            Some(Kind::Listener(_)) => {
                if reads {
                    self.stop_listening(file);
                }
                self.notify(file, ALL);
                Ok(())
            }
            _ => {
                self.notify(file, ALL);
                Err(errno(libc::ENOTCONN))
            }
        }
    }

    fn shut_down_end(&mut self, id: EndId, how: Shutdown) -> io::Result<()> {
        let is_unix = self.network.is_unix(id);
        let end = self.network.end_mut(id);
        let was_closed = end.is_closed;
        let (reads, writes) =
            (matches!(how, Shutdown::Read | Shutdown::Both), !matches!(how, Shutdown::Read));
        let ends_now = writes && !end.is_write_shut;
        end.is_read_shut |= reads;
        end.is_write_shut |= writes;
        if is_unix {
            self.notify_end(id, ALL);
            let peer = self.network.end_mut(id.peer());
            if !peer.is_orphan {
                peer.is_read_shut |= writes;
                peer.is_write_shut |= reads;
                self.notify_end(id.peer(), ALL);
            }
            return Ok(());
        }
        if was_closed {
            self.notify_end(id, ALL);
            return Err(errno(libc::ENOTCONN));
        }
        if !end.is_connected {
            // The attempt to connect ends, and with it what was shut down: see `inet_shutdown`.
            self.reset_arrives(id, libc::ECONNRESET);
            self.network.end_mut(id).is_read_shut = false;
            return Ok(());
        }
        if ends_now {
            self.send(id, Segment::End);
        }
        // Any shutdown is an arrival at this end too.
        self.notify_end(id, ALL);
        Ok(())
    }

    /// What closing the last descriptor of an end does.
    pub(super) fn close_end(&mut self, id: EndId) {
        let is_unix = self.network.is_unix(id);
        let end = self.network.end_mut(id);
        (end.file, end.is_orphan) = (None, true);
        let has_unread = !end.received.bytes.is_empty();
        end.received = Received::default();
        if is_unix {
            let peer = self.network.end_mut(id.peer());
            if !peer.is_orphan {
                (peer.is_read_shut, peer.is_write_shut) = (true, true);
                if has_unread {
                    (peer.error, peer.in_use) = (Some(libc::ECONNRESET), 0);
                }
                self.notify_end(id.peer(), ALL);
            }
        } else if end.is_closed || !end.is_connected {
            // A connection that is made only now is reset when it is.
            end.is_closed |= !end.is_connected;
        } else if has_unread || end.has_linger_zero {
            self.reset_peer(id);
        } else if !end.is_write_shut {
            end.is_write_shut = true;
            self.send(id, Segment::End);
        }
    }

    pub(super) fn take_error(&mut self, id: EndId) -> Option<io::Error> {
        self.network.end_mut(id).error.take().map(errno)
    }

    pub(super) fn set_linger_zero(&mut self, file: FileId, has_linger_zero: bool) {
        let place = match self.files.get_mut(file).map(|file| &mut file.kind) {
            Some(Kind::Socket(socket)) => &mut socket.has_linger_zero,
            Some(Kind::Listener(listening)) => &mut listening.socket.has_linger_zero,
            Some(Kind::Stream(id)) => &mut self.network.end_mut(*id).has_linger_zero,
            _ => return,
        };
        *place = has_linger_zero;
    }

    pub(super) fn address(&self, id: EndId) -> Option<SocketAddr> {
        self.network.end(id).address
    }

    pub(super) fn peer_address(&self, id: EndId) -> io::Result<SocketAddr> {
        let (end, peer) = (self.network.end(id), self.network.end(id.peer()));
        let address = peer.address.filter(|_| end.is_connected && !end.is_closed);
        address.ok_or_else(|| errno(libc::ENOTCONN))
    }

    pub(super) fn reset_now(&mut self, id: EndId) {
        self.deliver(Delivery::ResetBoth(id));
    }

    pub(super) fn reset_after(&mut self, id: EndId, count: usize) {
        self.network.end_mut(id.peer()).bytes_until_reset = Some(count);
    }

    pub(super) fn refuse(&mut self, address: SocketAddr, count: usize) {
        self.network.refusals.insert(address, count);
    }

    pub(super) fn stall_now(&mut self, id: EndId, length: Duration) {
        self.deliver(Delivery::Stall(id, length));
    }

    pub(super) fn describe_end(&self, id: EndId) -> String {
        let end = self.network.end(id);
        let peer = self.network.end(id.peer());
        let mut text = match (end.address, peer.address) {
            (Some(here), Some(there)) => format!("{here} to {there}"),
            _ => "pair".into(),
        };
        if !end.is_connected {
            text += ", not connected";
        }
        if !end.received.bytes.is_empty() {
            text += &format!(", {} bytes to read", end.received.bytes.len());
        }
        if !end.inbox.is_empty() {
            text += ", more on the way";
        }
        if end.is_closed {
            text += ", closed";
        } else if end.is_read_shut {
            text += ", at its end";
        }
        if !self.network.is_writable(id) {
            text += ", no room to write";
        }
        text
    }
}

/// What was not taken in time.
impl State {
    fn look_after_patience(&mut self, file: FileId) {
        if let Some(patience) = self.patience {
            self.agenda.add(self.now + patience, Action::Patience(file, self.now));
        }
    }

    fn look_after_patience_of(&mut self, id: EndId) {
        if let (Some(_), Some(file)) = (self.patience, self.network.end(id).file) {
            self.progress.insert(file, self.now);
            self.look_after_patience(file);
        }
    }

    fn note_progress(&mut self, id: EndId) {
        if let (Some(_), Some(file)) = (self.patience, self.network.end(id).file) {
            self.progress.insert(file, self.now);
        }
    }

    /// Whether something has come to `file` that nobody has touched since `since`, although a thread
    /// that could take it waits for its poller; then what, in words.
    pub(super) fn forgotten(&mut self, id: FileId, since: Duration) -> Option<String> {
        let patience = self.patience?;
        let file = self.files.get(id)?;
        let last = match &file.kind {
            Kind::Listener(listening) if !listening.queue.is_empty() => listening.last_progress,
            Kind::Stream(end) if !self.network.end(*end).received.bytes.is_empty() => {
                self.progress.get(&id).copied()?
            }
            _ => return None,
        };
        if last > since {
            // Something was taken since: look again.
            let time = (last + patience).max(self.now + Duration::from_nanos(1));
            self.agenda.add(time, Action::Patience(id, last));
            return None;
        }
        // Who does not ask for it leaves it there on purpose.
        let asks = |(list, fd): &(FileId, RawFd)| match self.files.get(*list).map(|list| &list.kind)
        {
            Some(Kind::InterestList(list)) => list
                .get((*fd, id))
                .is_some_and(|item| item.object.interest().contains(Interest::READABLE)),
            _ => false,
        };
        let watchers = file.watchers.iter().filter(|watcher| asks(watcher));
        let lists: Vec<_> = watchers.map(|(list, _)| *list).collect();
        let all_wait = !lists.is_empty()
            && lists
                .iter()
                .all(|list| self.files.get(*list).is_some_and(|l| !l.waiters.is_empty()));
        // Who waits for room somewhere has a reason not to read.
        let is_held_back = matches!(file.kind, Kind::Stream(_)) && self.is_any_held_back(&lists);
        if !all_wait || is_held_back {
            self.agenda.add(self.now + patience, Action::Patience(id, since));
            return None;
        }
        Some(format!(
            "{} has waited for {:?}, while every thread that could take it waits for events",
            self.describe(id),
            self.now - since,
        ))
    }

    fn is_any_held_back(&self, lists: &[FileId]) -> bool {
        let files = lists.iter().filter_map(|list| self.files.get(*list));
        let mut watched = files.flat_map(|file| match &file.kind {
            Kind::InterestList(list) => list.registered().map(|(_, file)| file).collect(),
            _ => Vec::new(),
        });
        watched.any(|file| match self.files.get(file).map(|file| &file.kind) {
            Some(Kind::Stream(end)) => {
                !self.network.is_writable(*end) || !self.network.end(*end).is_connected
            }
            _ => false,
        })
    }
}
