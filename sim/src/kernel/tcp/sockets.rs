//! The sockets of programs: their addresses, and whether they listen, connect or neither.

use std::collections::VecDeque;
use std::io;
use std::mem;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use crate::kernel::addresses::Addresses;
use crate::kernel::base::Base;
use crate::kernel::errno::errno;
use crate::kernel::ids::{EndId, FileId, SocketId};
use crate::kernel::rules::Rule;

#[derive(Default)]
pub(super) struct Sockets {
    list: Vec<Socket>,
    addresses: Addresses,
}

struct Socket {
    file: FileId,
    state: State,
}

pub(super) enum State {
    /// It neither listens nor was ever connected.
    New(Options),
    Listening(Listening),
    /// One end of a connection that is made, or was.
    Connected(EndId),
    Closed,
}

/// The settings of a socket before it listens or connects.
#[derive(Default, Clone, Copy)]
pub(crate) struct Options {
    pub(crate) bound: Option<SocketAddr>,
    pub(crate) reuses_address: bool,
    pub(crate) reuses_port: bool,
    pub(crate) has_linger_zero: bool,
}

pub(super) struct Listening {
    address: SocketAddr,
    queue: VecDeque<EndId>,
    /// The number of connections on their way into the queue.
    coming: usize,
    backlog: usize,
    /// Its options from before. Accepted sockets inherit its linger.
    options: Options,
}

impl Sockets {
    pub(super) fn add(&mut self, file: FileId, state: State) -> SocketId {
        self.list.push(Socket { file, state });
        SocketId(self.list.len() - 1)
    }

    /// The socket that the next [`add`](Self::add) makes.
    pub(super) fn next_id(&self) -> SocketId {
        SocketId(self.list.len())
    }

    pub(super) fn file(&self, id: SocketId) -> FileId {
        self.list[id.0].file
    }

    pub(super) fn state(&self, id: SocketId) -> &State {
        &self.list[id.0].state
    }

    fn state_mut(&mut self, id: SocketId) -> &mut State {
        &mut self.list[id.0].state
    }

    /// The options of a socket that neither listens nor was ever connected.
    pub(super) fn new_options(&mut self, id: SocketId) -> io::Result<&mut Options> {
        match self.state_mut(id) {
            State::New(options) => Ok(options),
            _ => Err(errno(libc::EINVAL)),
        }
    }

    /// Its options, or those that it had before it listened.
    pub(super) fn options(&mut self, id: SocketId) -> io::Result<&mut Options> {
        match self.state_mut(id) {
            State::New(options) | State::Listening(Listening { options, .. }) => Ok(options),
            _ => Err(errno(libc::EINVAL)),
        }
    }

    pub(super) fn listening(&self, id: SocketId) -> Option<&Listening> {
        match self.state(id) {
            State::Listening(listening) => Some(listening),
            _ => None,
        }
    }

    pub(super) fn listening_mut(&mut self, id: SocketId) -> Option<&mut Listening> {
        match self.state_mut(id) {
            State::Listening(listening) => Some(listening),
            _ => None,
        }
    }

    /// The end that a socket is, if it was ever connected.
    pub(super) fn end(&self, id: SocketId) -> io::Result<EndId> {
        match self.state(id) {
            State::Connected(end) => Ok(*end),
            _ => Err(errno(libc::ENOTCONN)),
        }
    }

    pub(super) fn set_connected(&mut self, id: SocketId, end: EndId) {
        *self.state_mut(id) = State::Connected(end);
    }

    /// Lets it try again to connect.
    pub(super) fn set_new(&mut self, id: SocketId, options: Options) {
        *self.state_mut(id) = State::New(options);
    }
}

/// Addresses.
impl Sockets {
    /// Gives a socket an address that no other has, or all that have it share.
    pub(super) fn bind(
        &mut self,
        id: SocketId,
        mut address: SocketAddr,
        base: &mut Base,
    ) -> io::Result<()> {
        let options = *self.new_options(id)?;
        if options.bound.is_some() {
            return Err(errno(libc::EINVAL));
        }
        if address.port() == 0 {
            let port = self.addresses.free_port();
            address.set_port(port.ok_or_else(|| errno(libc::EADDRINUSE))?);
        }
        self.check_rivals(id, address, options, base)?;
        self.addresses.take(address, id);
        self.new_options(id)?.bound = Some(address);
        Ok(())
    }

    /// Gives a socket that connects from `ip` an address with a free port.
    pub(super) fn bind_to_free_port(&mut self, id: SocketId, ip: IpAddr) -> io::Result<SocketAddr> {
        let port = self.addresses.free_port().ok_or_else(|| errno(libc::EADDRNOTAVAIL))?;
        let address = SocketAddr::new(ip, port);
        self.addresses.take(address, id);
        Ok(address)
    }

    /// Fails if a socket has this address that does not share it: two that listen share a port, others an
    /// address too. See `inet_csk_bind_conflict`.
    fn check_rivals(
        &self,
        id: SocketId,
        address: SocketAddr,
        options: Options,
        base: &mut Base,
    ) -> io::Result<()> {
        let is_shared = |rival| match self.state(rival) {
            State::New(rival) => {
                rival.reuses_port && options.reuses_port
                    || rival.reuses_address && options.reuses_address
            }
            State::Listening(rival) => rival.options.reuses_port && options.reuses_port,
            State::Connected(_) | State::Closed => false,
        };
        let rivals = self.addresses.rivals(address).filter(|(_, rival)| *rival != id);
        let rivals = rivals.filter(|(_, rival)| !is_shared(*rival)).map(|(ip, _)| *ip);
        let reuses = options.reuses_address || options.reuses_port;
        for ip in rivals {
            let is_other_family = ip.is_ipv6() != address.is_ipv6();
            // A listener at all addresses of IPv6 has all of IPv4.
            let is_other = ip != address.ip()
                && !(is_other_family && ip.is_ipv6() && address.ip().is_unspecified());
            let is_free = is_other_family && base.applies(Rule::Ipv6Only)
                || is_other && reuses && base.applies(Rule::ListenersNest);
            if !is_free {
                return Err(errno(libc::EADDRINUSE));
            }
        }
        Ok(())
    }

    /// The listeners that take clients of an address: those at exactly this one come first.
    pub(super) fn listeners(&self, address: SocketAddr, base: &mut Base) -> Vec<SocketId> {
        let listens = |id| self.listening(id).is_some();
        self.addresses.receivers(address, listens, || !base.applies(Rule::Ipv6Only))
    }

    /// Closes a socket that had this address. Returns its state.
    pub(super) fn close(&mut self, id: SocketId, address: Option<SocketAddr>) -> State {
        if let Some(address) = address {
            self.addresses.release(address, id);
        }
        mem::replace(self.state_mut(id), State::Closed)
    }
}

/// Listening.
impl Sockets {
    /// Listens, at any port if the socket has none, or changes the length of the queue.
    pub(super) fn listen(
        &mut self,
        id: SocketId,
        backlog: usize,
        base: &mut Base,
    ) -> io::Result<()> {
        if let Some(listening) = self.listening_mut(id) {
            listening.backlog = backlog;
            return Ok(());
        }
        if self.new_options(id)?.bound.is_none() {
            self.bind(id, (Ipv4Addr::UNSPECIFIED, 0).into(), base)?;
        }
        let options = *self.new_options(id)?;
        let address = options.bound.ok_or_else(|| errno(libc::EINVAL))?;
        self.check_rivals(id, address, options, base)?;
        let queue = VecDeque::new();
        *self.state_mut(id) =
            State::Listening(Listening { address, queue, coming: 0, backlog, options });
        Ok(())
    }

    /// Ends the listening, as a shutdown does: the address stays. Returns the queue.
    pub(super) fn stop_listening(&mut self, id: SocketId) -> VecDeque<EndId> {
        let Some(Listening { options, queue, .. }) = self.listening_mut(id) else {
            return VecDeque::new();
        };
        let (options, queue) = (*options, mem::take(queue));
        self.set_new(id, options);
        queue
    }
}

impl Listening {
    pub(super) const fn address(&self) -> SocketAddr {
        self.address
    }

    pub(super) const fn options(&self) -> Options {
        self.options
    }

    pub(super) fn queue_length(&self) -> usize {
        self.queue.len()
    }

    pub(super) fn first(&self) -> Option<EndId> {
        self.queue.front().copied()
    }

    pub(super) fn remove_first(&mut self) {
        self.queue.pop_front();
    }

    /// Reserves room in the queue for a connection. Returns whether there was any.
    pub(super) fn reserve(&mut self) -> bool {
        let has_room = self.queue.len() + self.coming <= self.backlog;
        self.coming += usize::from(has_room);
        has_room
    }

    /// The expected connection does not come.
    pub(super) const fn unreserve(&mut self) {
        self.coming -= 1;
    }

    /// The expected connection comes. Returns whether the queue was empty.
    pub(super) fn push(&mut self, end: EndId) -> bool {
        self.coming -= 1;
        self.queue.push_back(end);
        self.queue.len() == 1
    }

    pub(super) fn into_queue(self) -> VecDeque<EndId> {
        self.queue
    }
}
