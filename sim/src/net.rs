//! Sockets, under the names of `std::net`.

mod udp;

use std::io::{self, ErrorKind};
#[doc(no_inline)]
pub use std::net::{
    IpAddr, Ipv4Addr, Ipv6Addr, Shutdown, SocketAddr, SocketAddrV4, SocketAddrV6, ToSocketAddrs,
};
use std::time::Duration;

use crate::descriptor::Descriptor;
use crate::kernel::{BACKLOG, FileId, Kernel, Options};
use crate::machine::Machine;
use crate::stream::{accept, listener, local_addr, peek, set_option, stream};
pub use udp::UdpSocket;

/// A simulated listener, in place of [`std::net::TcpListener`].
pub struct TcpListener(pub(super) Descriptor);

/// A simulated TCP connection, in place of [`std::net::TcpStream`].
pub struct TcpStream(pub(super) Descriptor);

impl TcpListener {
    /// Listens at an address, which is of this world like every other: any IP will do. A port 0 becomes
    /// one that is free.
    ///
    /// Addresses have to be literals: names of hosts ask the real resolver.
    ///
    /// # Errors
    ///
    /// `AddrInUse`; `EMFILE` at the limit of descriptors.
    pub fn bind(address: impl ToSocketAddrs) -> io::Result<Self> {
        each(address, |address| {
            let machine = Machine::current();
            let mut kernel = machine.enter();
            let fd = kernel.open_socket(Options { reuses_address: true, ..Options::default() })?;
            let file = kernel.file(fd)?;
            let listening = kernel.bind(file, address).and_then(|()| kernel.listen(file, BACKLOG));
            if let Err(error) = listening {
                kernel.close(fd);
                return Err(error);
            }
            kernel.schedule_mut().note_call(|| format!("listen at {address}"));
            Ok(Self(Descriptor::new(&machine, fd)))
        })
    }

    /// Takes a connection from the queue.
    ///
    /// # Errors
    ///
    /// `WouldBlock` if there is none. `EMFILE` at the limit of descriptors, whether or not there is one. As
    /// faults, `EMFILE` and `ConnectionAborted`.
    pub fn accept(&self) -> io::Result<(TcpStream, SocketAddr)> {
        accept(&self.0, Kernel::accept).map(|(stream, client)| (TcpStream(stream), client))
    }

    /// The address that it listens at.
    ///
    /// # Errors
    ///
    /// It never fails: the signature is that of `std`.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        local_addr(&self.0)
    }
}

impl TcpStream {
    /// Connects, and blocks until it is connected. [`Socket::connect`](super::socket2::Socket::connect)
    /// does not block.
    ///
    /// # Errors
    ///
    /// `ConnectionRefused`; `TimedOut`, after two minutes of a full queue; `EMFILE` at the limit of
    /// descriptors.
    pub fn connect(address: impl ToSocketAddrs) -> io::Result<Self> {
        each(address, |address| Self::connect_within(address, None))
    }

    /// Connects, and gives up after `timeout`.
    ///
    /// # Errors
    ///
    /// As [`connect`](Self::connect); `InvalidInput` for zero.
    pub fn connect_timeout(address: &SocketAddr, timeout: Duration) -> io::Result<Self> {
        if timeout.is_zero() {
            return Err(ErrorKind::InvalidInput.into());
        }
        Self::connect_within(*address, Some(timeout))
    }

    fn connect_within(address: SocketAddr, timeout: Option<Duration>) -> io::Result<Self> {
        let machine = Machine::current();
        let socket = Descriptor::open(&machine, |kernel| kernel.open_socket(Options::default()))?;
        socket.call("connect", |kernel, file| kernel.connect(file, address))?;
        let connected = |kernel: &mut Kernel, file: FileId| kernel.finish_connect(file);
        let show = |_: &Kernel, (): &()| ": connected".into();
        match socket.blocking_call("connect", |_| timeout, connected, show) {
            Err(error) if error.kind() == ErrorKind::WouldBlock => Err(ErrorKind::TimedOut.into()),
            result => result.map(|()| Self(socket)),
        }
    }
}

listener!(TcpListener, TcpStream);
stream!(TcpStream);

impl TcpStream {
    /// The address of this end.
    ///
    /// # Errors
    ///
    /// It never fails: the signature is that of `std`.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        local_addr(&self.0)
    }

    /// The address of the other end.
    ///
    /// # Errors
    ///
    /// `NotConnected`.
    pub fn peer_addr(&self) -> io::Result<SocketAddr> {
        self.0.call("peer address of", |kernel, file| kernel.peer_address(file))
    }

    /// Has no effect: nothing is held back here.
    ///
    /// # Errors
    ///
    /// Not on Linux. On other kernels, `EINVAL` or `ECONNRESET` once the connection has ended.
    pub fn set_nodelay(&self, _nodelay: bool) -> io::Result<()> {
        set_option(&self.0, true, |_, _| Ok(()))
    }

    /// Reads, and leaves the bytes in the buffer.
    ///
    /// # Errors
    ///
    /// As a read.
    pub fn peek(&self, buffer: &mut [u8]) -> io::Result<usize> {
        peek(&self.0, buffer)
    }
}

/// Tries one address after the other. Returns why the last one fails, if all do.
fn each<T>(
    addresses: impl ToSocketAddrs,
    mut attempt: impl FnMut(SocketAddr) -> io::Result<T>,
) -> io::Result<T> {
    let mut result = Err(ErrorKind::InvalidInput.into());
    for address in addresses.to_socket_addrs()? {
        result = attempt(address);
        if result.is_ok() {
            break;
        }
    }
    result
}
