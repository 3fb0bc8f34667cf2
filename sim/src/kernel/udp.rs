//! UDP by the rules of Linux: datagrams, their travel, and the calls of a program on a socket.

use std::collections::VecDeque;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, Shutdown, SocketAddr};
use std::ops::RangeInclusive;
use std::sync::Arc;
use std::time::Duration;

use pollio::Readiness;

use super::addresses::Addresses;
use super::base::Base;
use super::epoll::ALL;
use super::errno::errno;
use super::event::Event;
use super::ids::{FileId, SocketId};
use super::rules::Rule;
use super::tcp::Options;
use crate::conditions;
use crate::schedule::Random;

/// The part of a receive buffer that a datagram takes beyond its bytes: 256 empty ones fill the 212,992 bytes of Linux
/// 6.18.
const OVERHEAD: usize = 832;

/// An IPv4 packet has at most 65,535 bytes, 20 of them for its header and 8 for that of UDP. An IPv6 packet does not
/// count its own header.
const MAX_LENGTH_IPV4: usize = 65_507;
const MAX_LENGTH_IPV6: usize = 65_527;

/// The longest datagram on systems with [`Rule::DatagramsAreShort`], by default: `udp_sendspace`.
const SEND_SPACE: usize = 9_216;

/// The delay of a datagram that a fault makes late.
const LATE: RangeInclusive<Duration> = Duration::from_micros(1)..=Duration::from_secs(30);

#[derive(Default)]
pub(super) struct Udp {
    sockets: Vec<Socket>,
    addresses: Addresses,
}

struct Socket {
    /// None after it is closed.
    file: Option<FileId>,
    options: Options,
    /// Its family, once it has an address. One of IPv6 has IPv4 addresses too.
    is_ipv6: bool,
    peer: Option<SocketAddr>,
    error: Option<i32>,
    is_read_shut: bool,
    is_write_shut: bool,
    received: VecDeque<Received>,
    /// The used bytes of the receive buffer, and its size.
    in_use: usize,
    capacity: usize,
    latency: Duration,
}

struct Received {
    source: SocketAddr,
    bytes: Arc<[u8]>,
}

impl Received {
    fn size(&self) -> usize {
        self.bytes.len() + OVERHEAD
    }
}

/// Something on its way from one address to another.
#[derive(Clone)]
pub(crate) struct Packet {
    source: SocketAddr,
    destination: SocketAddr,
    content: Content,
    latency: Duration,
}

#[derive(Clone)]
enum Content {
    Datagram(Arc<[u8]>),
    /// An ICMP error: the port to which the destination has sent is free.
    PortUnreachable,
}

impl Udp {
    /// Adds a socket without an address, for the file that `file` adds. Its latency and its buffer are drawn.
    pub(super) fn add(
        &mut self,
        base: &mut Base,
        file: impl FnOnce(SocketId, &mut Base) -> FileId,
    ) -> FileId {
        let (latency, capacity) = base.draw(|conditions, random| {
            (random.duration(conditions.latency()), random.magnitude(conditions.buffer()))
        });
        let file = file(SocketId(self.sockets.len()), base);
        self.sockets.push(Socket {
            file: Some(file),
            options: Options::default(),
            is_ipv6: false,
            peer: None,
            error: None,
            is_read_shut: false,
            is_write_shut: false,
            received: VecDeque::new(),
            in_use: 0,
            capacity: usize::try_from(capacity).unwrap_or(usize::MAX / 4),
            latency,
        });
        file
    }

    fn socket(&self, id: SocketId) -> &Socket {
        &self.sockets[id.0]
    }

    fn socket_mut(&mut self, id: SocketId) -> &mut Socket {
        &mut self.sockets[id.0]
    }

    fn notify(&self, id: SocketId, arrival: Readiness, base: &mut Base) {
        if let Some(file) = self.socket(id).file {
            base.notify(file, arrival);
        }
    }
}

/// Addresses.
impl Udp {
    /// Gives a socket an address that no other has, or all that have it share: see `inet_rcv_saddr_equal`.
    pub(super) fn bind(&mut self, id: SocketId, mut address: SocketAddr) -> io::Result<()> {
        let options = self.socket(id).options;
        if options.bound.is_some() {
            return Err(errno(libc::EINVAL));
        }
        if address.port() == 0 {
            let port = self.addresses.free_port();
            address.set_port(port.ok_or_else(|| errno(libc::EADDRINUSE))?);
        }
        let is_shared = |(_, rival): &(IpAddr, SocketId)| {
            let rival = self.socket(*rival).options;
            rival.reuses_port && options.reuses_port
                || rival.reuses_address && options.reuses_address
        };
        if !self.addresses.rivals(address).all(is_shared) {
            return Err(errno(libc::EADDRINUSE));
        }
        self.addresses.take(address, id);
        let socket = self.socket_mut(id);
        (socket.options.bound, socket.is_ipv6) = (Some(address), address.is_ipv6());
        Ok(())
    }

    /// The address of a socket, at a free port if it had none.
    fn own_address(&mut self, id: SocketId, is_ipv6: bool) -> io::Result<SocketAddr> {
        if let Some(address) = self.socket(id).options.bound {
            return Ok(address);
        }
        let all: IpAddr =
            if is_ipv6 { Ipv6Addr::UNSPECIFIED.into() } else { Ipv4Addr::UNSPECIFIED.into() };
        self.bind(id, (all, 0).into()).map_err(|_| errno(libc::EAGAIN))?;
        self.socket(id).options.bound.ok_or_else(|| errno(libc::EAGAIN))
    }

    /// Connects a socket: from now on it receives only from its peer.
    pub(super) fn connect(&mut self, id: SocketId, address: SocketAddr) -> io::Result<()> {
        let address = reached(address);
        let local = self.own_address(id, address.is_ipv6())?;
        let socket = self.socket_mut(id);
        if !socket.may_reach(local, address) {
            return Err(errno(libc::EAFNOSUPPORT));
        }
        socket.peer = Some(address);
        if local.ip().is_unspecified() {
            let local = SocketAddr::new(address.ip(), local.port());
            self.socket_mut(id).options.bound = Some(local);
            self.addresses.release(local, id);
            self.addresses.take(local, id);
        }
        Ok(())
    }

    pub(super) fn set_options(&mut self, id: SocketId, change: impl FnOnce(&mut Options)) {
        change(&mut self.socket_mut(id).options);
    }

    pub(super) fn local_address(&self, id: SocketId) -> Option<SocketAddr> {
        let socket = self.socket(id);
        socket.options.bound.map(|address| socket.shown(address))
    }

    pub(super) fn peer_address(&self, id: SocketId) -> io::Result<SocketAddr> {
        let socket = self.socket(id);
        let peer = socket.peer.filter(|peer| peer.port() != 0);
        peer.map(|peer| socket.shown(peer)).ok_or_else(|| errno(libc::ENOTCONN))
    }

    /// The receiver of a datagram from `source` to `destination`, as in `__udp4_lib_lookup`: first a socket that is
    /// connected to the source, then the one that was bound last, and among those that share a port, always the same.
    fn receiver(&self, source: SocketAddr, destination: SocketAddr, seed: u64) -> Option<SocketId> {
        let hears = |id| self.socket(id).peer.is_none_or(|peer| peer == source);
        let receivers = self.addresses.receivers(destination, hears, || true);
        let connected = receivers.iter().rfind(|id| self.socket(**id).peer.is_some());
        let last = *connected.or(receivers.last())?;
        if connected.is_some() || !self.socket(last).options.reuses_port {
            return Some(last);
        }
        let ip = match source.ip() {
            IpAddr::V4(ip) => ip.to_ipv6_mapped(),
            IpAddr::V6(ip) => ip,
        };
        let flow = ip.octets().into_iter().chain(source.port().to_be_bytes());
        let hash = flow.fold(seed, |hash, byte| hash.rotate_left(8) ^ u64::from(byte));
        Some(receivers[Random::new(hash).index(receivers.len())])
    }
}

/// The address at which a datagram arrives, in its own family: one to all interfaces arrives at the loopback.
fn reached(address: SocketAddr) -> SocketAddr {
    let ip = match address.ip().to_canonical() {
        IpAddr::V4(Ipv4Addr::UNSPECIFIED) => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(Ipv6Addr::UNSPECIFIED) => Ipv6Addr::LOCALHOST.into(),
        ip => ip,
    };
    SocketAddr::new(ip, address.port())
}

impl Socket {
    /// Whether it can send from an address to this one.
    fn may_reach(&self, local: SocketAddr, destination: SocketAddr) -> bool {
        let is_any = self.is_ipv6 && local.ip().is_unspecified();
        is_any || local.is_ipv6() == destination.is_ipv6()
    }

    /// An address as a socket of its family shows it.
    fn shown(&self, address: SocketAddr) -> SocketAddr {
        match address.ip() {
            IpAddr::V4(ip) if self.is_ipv6 => {
                SocketAddr::new(ip.to_ipv6_mapped().into(), address.port())
            }
            _ => address,
        }
    }
}

/// Sending.
impl Udp {
    /// Sends a datagram to an address, or to the peer.
    pub(super) fn send(
        &mut self,
        id: SocketId,
        bytes: &[u8],
        to: Option<SocketAddr>,
        base: &mut Base,
    ) -> io::Result<usize> {
        let is_ipv6 = to.is_some_and(|address| reached(address).is_ipv6());
        let local = self.own_address(id, is_ipv6)?;
        let socket = self.socket_mut(id);
        let is_short = bytes.len() <= SEND_SPACE;
        if bytes.len() > usize::from(u16::MAX) || !is_short && base.applies(Rule::DatagramsAreShort)
        {
            return Err(errno(libc::EMSGSIZE));
        }
        if to.is_some() && socket.peer.is_some() && base.applies(Rule::ConnectedSendsToPeer) {
            return Err(errno(libc::EISCONN));
        }
        if to.is_some_and(|address| address.is_ipv6() && !socket.is_ipv6) {
            return Err(errno(libc::EAFNOSUPPORT));
        }
        if to.is_some_and(|address| address.port() == 0) {
            return Err(errno(libc::EINVAL));
        }
        let to = to.map(reached).or(socket.peer);
        let destination = to.ok_or_else(|| errno(libc::EDESTADDRREQ))?;
        if !socket.may_reach(local, destination) {
            return Err(errno(libc::ENETUNREACH));
        }
        let max_length = if destination.is_ipv6() { MAX_LENGTH_IPV6 } else { MAX_LENGTH_IPV4 };
        if bytes.len() > max_length {
            return Err(errno(libc::EMSGSIZE));
        }
        // See `sock_alloc_send_pskb`.
        if let Some(error) = socket.error.take() {
            return Err(errno(error));
        }
        if socket.is_write_shut {
            return Err(errno(libc::EPIPE));
        }
        let ip = if local.ip().is_unspecified() { destination.ip() } else { local.ip() };
        let source = SocketAddr::new(ip, local.port());
        let (content, latency) = (Content::Datagram(bytes.into()), socket.latency);
        self.transmit(Packet { source, destination, content, latency }, base);
        // A sent datagram leaves the send buffer, and `sock_wfree` reports that each time.
        self.notify(id, Readiness::WRITABLE, base);
        Ok(bytes.len())
    }

    fn transmit(&mut self, packet: Packet, base: &mut Base) {
        let Packet { source, destination, latency, .. } = packet;
        if base.draw_fault(conditions::Kind::Losses) {
            return base.note(|| format!("fault: lost from {source} to {destination}"));
        }
        if base.draw_fault(conditions::Kind::Duplicates) {
            let time = base.random().duration(&LATE);
            base.note(|| format!("fault: again in {time:?} from {source} to {destination}"));
            base.add_event(base.now() + latency + time, Event::Udp(Box::new(packet.clone())));
        }
        let mut time = latency;
        if base.draw_fault(conditions::Kind::Reordering) {
            time += base.random().duration(&LATE);
            base.note(|| {
                format!("fault: late by {:?} from {source} to {destination}", time - latency)
            });
        }
        if time.is_zero() {
            self.arrive(packet, base);
        } else {
            base.add_event(base.now() + time, Event::Udp(Box::new(packet)));
        }
    }

    pub(super) fn arrive(&mut self, packet: Packet, base: &mut Base) {
        let Packet { source, destination, content, latency } = packet;
        let receiver = self.receiver(source, destination, base.schedule().seed());
        match (content, receiver) {
            (Content::Datagram(bytes), Some(id)) => {
                self.enqueue(id, Received { source, bytes }, base);
            }
            (Content::Datagram(_), None) => {
                base.note(|| format!("nobody has {destination}"));
                let (source, destination) = (destination, source);
                let content = Content::PortUnreachable;
                self.transmit(Packet { source, destination, content, latency }, base);
            }
            // See `__udp4_lib_err`: an unconnected socket gets no error.
            (Content::PortUnreachable, Some(id)) if self.socket(id).peer.is_some() => {
                self.socket_mut(id).error = Some(libc::ECONNREFUSED);
                self.notify(id, Readiness::ERROR, base);
            }
            (Content::PortUnreachable, _) => {}
        }
    }

    fn enqueue(&mut self, id: SocketId, datagram: Received, base: &mut Base) {
        let (source, length, size) = (datagram.source, datagram.bytes.len(), datagram.size());
        let socket = self.socket_mut(id);
        let is_first = socket.received.is_empty();
        if !is_first && socket.in_use + size > socket.capacity {
            let label = self.label(id);
            return base.note(|| format!("no room at {label}: lost {length} bytes from {source}"));
        }
        socket.in_use += size;
        socket.received.push_back(datagram);
        let file = socket.file;
        // Linux reports data as a possible PRIORITY too.
        self.notify(id, Readiness::READABLE | Readiness::PRIORITY, base);
        if let Some(file) = file.filter(|_| is_first) {
            base.touch(file);
            base.check_later(file);
        }
    }
}

/// Other calls of a program on a socket.
impl Udp {
    pub(super) fn readiness(&self, id: SocketId) -> Readiness {
        let socket = self.socket(id);
        let mut readiness = Readiness::WRITABLE;
        if socket.is_read_shut {
            readiness |= Readiness::READABLE | Readiness::READ_CLOSED;
        }
        if !socket.received.is_empty() {
            readiness |= Readiness::READABLE;
        }
        if socket.is_read_shut && socket.is_write_shut {
            readiness |= Readiness::WRITE_CLOSED;
        }
        if socket.error.is_some() {
            readiness |= Readiness::ERROR;
        }
        readiness
    }

    /// Takes or peeks at a datagram, and copies as much as fits: the rest is lost. Returns the number of copied bytes
    /// and the sender, or no sender if a blocking read was shut down.
    pub(super) fn receive(
        &mut self,
        id: SocketId,
        buffer: &mut [u8],
        is_taken: bool,
        base: &mut Base,
    ) -> io::Result<(usize, Option<SocketAddr>)> {
        let socket = self.socket_mut(id);
        // The error comes before datagrams: see `__skb_recv_udp`.
        if let Some(error) = socket.error.take() {
            return Err(errno(error));
        }
        let file = socket.file;
        let Some(datagram) = socket.received.front() else {
            let blocks = file.and_then(|file| base.file(file));
            let blocks = blocks.is_some_and(|file| !file.settings().is_nonblocking);
            return if socket.is_read_shut && blocks {
                Ok((0, None))
            } else {
                Err(errno(libc::EAGAIN))
            };
        };
        let count = datagram.bytes.len().min(buffer.len());
        buffer[..count].copy_from_slice(&datagram.bytes[..count]);
        let source = socket.shown(datagram.source);
        if is_taken {
            socket.in_use -= datagram.size();
            socket.received.pop_front();
            file.into_iter().for_each(|file| base.touch(file));
        }
        Ok((count, Some(source)))
    }

    pub(super) fn take_error(&mut self, id: SocketId) -> Option<io::Error> {
        self.socket_mut(id).error.take().map(errno)
    }

    pub(super) fn shut_down(
        &mut self,
        id: SocketId,
        how: Shutdown,
        base: &mut Base,
    ) -> io::Result<()> {
        let socket = self.socket_mut(id);
        socket.is_read_shut |= how != Shutdown::Write;
        socket.is_write_shut |= how != Shutdown::Read;
        let is_connected = socket.peer.is_some();
        self.notify(id, ALL, base);
        // It was shut down all the same: see `inet_shutdown`.
        if is_connected { Ok(()) } else { Err(errno(libc::ENOTCONN)) }
    }

    /// Closes a socket with its last descriptor.
    pub(super) fn close(&mut self, id: SocketId) {
        let socket = self.socket_mut(id);
        socket.file = None;
        socket.received.clear();
        if let Some(address) = socket.options.bound.take() {
            self.addresses.release(address, id);
        }
    }
}

/// Texts of reports, and the patience of a test.
impl Udp {
    /// The name of a socket: by its addresses.
    pub(super) fn label(&self, id: SocketId) -> String {
        match (self.local_address(id), self.socket(id).peer) {
            (Some(local), Some(peer)) => format!("udp {local} to {peer}"),
            (Some(local), None) => format!("udp {local}"),
            (None, _) => "a udp socket".into(),
        }
    }

    /// Its name and its state.
    pub(super) fn describe(&self, id: SocketId) -> String {
        let socket = self.socket(id);
        let mut text = self.label(id);
        if !socket.received.is_empty() {
            text += &format!(", {} datagrams to read", socket.received.len());
        }
        if socket.error.is_some() {
            text += ", an error to read";
        }
        text
    }

    pub(super) fn has_datagrams(&self, id: SocketId) -> bool {
        !self.socket(id).received.is_empty()
    }
}
