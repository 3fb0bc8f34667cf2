//! What the standard library has no call for, under the names of the crate `socket2`: a connection that
//! is made without blocking, options, a backlog.

use std::io;
use std::net::{Shutdown, SocketAddr};
use std::time::Duration;

use crate::descriptor::Descriptor;
use crate::kernel::{FileId, Kernel, Options, errno};
use crate::machine::Machine;
use crate::net::{TcpListener, TcpStream, UdpSocket};
use crate::os::fd::{AsFd, BorrowedFd};
use crate::stream::{
    accept, descriptor, local_addr, set_nonblocking, set_option, shut_down, take_error, write,
};

/// The family of a socket's addresses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Domain(());

impl Domain {
    /// Here all families are one.
    pub const IPV4: Self = Self(());
    /// Here all families are one.
    pub const IPV6: Self = Self(());

    /// The family of an address.
    #[must_use]
    pub const fn for_address(_address: SocketAddr) -> Self {
        Self(())
    }
}

/// The kind of a socket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Type(Protocol);

impl Type {
    /// TCP.
    pub const STREAM: Self = Self(Protocol::TCP);
    /// UDP.
    pub const DGRAM: Self = Self(Protocol::UDP);
}

/// When the kernel asks after a silent peer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TcpKeepalive(());

impl TcpKeepalive {
    /// The kernel's own times.
    #[must_use]
    #[allow(clippy::new_without_default, reason = "the original has none")]
    pub const fn new() -> Self {
        Self(())
    }

    /// How long it waits before it asks.
    #[must_use]
    pub const fn with_time(self, _time: Duration) -> Self {
        self
    }

    /// How long it waits for an answer.
    #[must_use]
    pub const fn with_interval(self, _interval: Duration) -> Self {
        self
    }

    /// How often it asks.
    #[must_use]
    pub const fn with_retries(self, _retries: u32) -> Self {
        self
    }
}

/// The protocol of a socket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Protocol(i32);

impl Protocol {
    /// TCP.
    pub const TCP: Self = Self(libc::IPPROTO_TCP);
    /// UDP.
    pub const UDP: Self = Self(libc::IPPROTO_UDP);
}

/// An address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SockAddr(SocketAddr);

impl SockAddr {
    /// The address, as the standard library has it.
    #[must_use]
    pub const fn as_socket(&self) -> Option<SocketAddr> {
        Some(self.0)
    }
}

impl<T: Into<SocketAddr>> From<T> for SockAddr {
    fn from(address: T) -> Self {
        Self(address.into())
    }
}

/// A simulated socket of which nothing is known yet.
pub struct Socket(Descriptor);

descriptor!(Socket);

impl Socket {
    /// Creates a socket.
    ///
    /// # Errors
    ///
    /// `EMFILE` at the limit of descriptors, and as a fault, once a connection was accepted in this world;
    /// `EPROTONOSUPPORT` if the protocol is another than that of the type.
    pub fn new(_domain: Domain, kind: Type, protocol: Option<Protocol>) -> io::Result<Self> {
        if protocol.is_some_and(|protocol| protocol != kind.0) {
            return Err(errno(libc::EPROTONOSUPPORT));
        }
        let machine = Machine::current();
        let mut kernel = machine.enter();
        if kernel.draw_failing_socket() {
            kernel.schedule_mut().note_call(|| "fault: no descriptor for a socket".into());
            return Err(errno(libc::EMFILE));
        }
        let fd = if kind == Type::DGRAM {
            kernel.open_udp_socket()
        } else {
            kernel.open_socket(Options::default())
        }?;
        drop(kernel);
        Ok(Self(Descriptor::new(&machine, fd)))
    }

    /// Gives it an address; a port 0 becomes one that is free.
    ///
    /// # Errors
    ///
    /// `AddrInUse`; `EINVAL` if it has one.
    pub fn bind(&self, address: &SockAddr) -> io::Result<()> {
        self.0.call("bind", |kernel, file| kernel.bind(file, address.0))
    }

    /// Listens, with a queue of `backlog` and one; at a free port if it has no address.
    ///
    /// # Errors
    ///
    /// `EINVAL` if it is connected; `EOPNOTSUPP` if it is one of UDP.
    pub fn listen(&self, backlog: i32) -> io::Result<()> {
        listen(&self.0, backlog)
    }

    /// Connects. One that does not block is `EINPROGRESS`: it is writable once it is connected, or could
    /// not be. One of UDP [is connected at once](UdpSocket::connect).
    ///
    /// # Errors
    ///
    /// As [`TcpStream::connect`]; `EALREADY` while it connects. The first call after that returns how it ended,
    /// others `EISCONN`; if it could not be connected, they try again.
    pub fn connect(&self, address: &SockAddr) -> io::Result<()> {
        let mut has_begun = false;
        let connect = |kernel: &mut Kernel, file: FileId| {
            if kernel.udp_socket(file).is_some() {
                return kernel.connect(file, address.0);
            }
            if has_begun {
                return kernel.finish_connect(file);
            }
            if kernel.has_connected(file) {
                return kernel.connect_again(file);
            }
            kernel.connect(file, address.0)?;
            has_begun = true;
            let is_nonblocking = kernel.settings(file)?.is_nonblocking;
            Err(errno(if is_nonblocking { libc::EINPROGRESS } else { libc::EAGAIN }))
        };
        let show = |_: &Kernel, (): &()| ": connected".into();
        self.0.blocking_call("connect", |_| None, connect, show)
    }

    /// The error that is pending, which is none afterwards.
    ///
    /// # Errors
    ///
    /// It never fails: the signature is that of `socket2`.
    pub fn take_error(&self) -> io::Result<Option<io::Error>> {
        take_error(&self.0)
    }

    /// Makes calls fail with `WouldBlock` instead of blocking.
    ///
    /// # Errors
    ///
    /// It never fails: the signature is that of `socket2`.
    pub fn set_nonblocking(&self, nonblocking: bool) -> io::Result<()> {
        set_nonblocking(&self.0, nonblocking)
    }

    /// Lets several sockets have one address, of which none listens. An address is free once its listener is
    /// closed, with or without.
    ///
    /// # Errors
    ///
    /// `EINVAL` once it is connected.
    pub fn set_reuse_address(&self, reuse: bool) -> io::Result<()> {
        set(&self.0, |socket| socket.reuses_address = reuse)
    }

    /// Lets several listeners have one address. The seed chooses the listener that gets a client.
    ///
    /// # Errors
    ///
    /// `EINVAL` once it is connected.
    pub fn set_reuse_port(&self, reuse: bool) -> io::Result<()> {
        set(&self.0, |socket| socket.reuses_port = reuse)
    }

    /// Has no effect: nothing is held back here.
    ///
    /// # Errors
    ///
    /// As [`TcpStream::set_nodelay`].
    pub fn set_tcp_nodelay(&self, _nodelay: bool) -> io::Result<()> {
        set_option(&self.0, true, |_, _| Ok(()))
    }

    /// The address of this end.
    ///
    /// # Errors
    ///
    /// It never fails: the signature is that of `socket2`.
    pub fn local_addr(&self) -> io::Result<SockAddr> {
        local_addr(&self.0).map(SockAddr)
    }

    /// Takes a connection from the queue.
    ///
    /// # Errors
    ///
    /// As [`TcpListener::accept`].
    pub fn accept(&self) -> io::Result<(Self, SockAddr)> {
        accept(&self.0, Kernel::accept).map(|(stream, client)| (Self(stream), SockAddr(client)))
    }
}

fn set(socket: &Descriptor, change: impl FnOnce(&mut Options)) -> io::Result<()> {
    socket.call("set option of", |kernel, file| kernel.set_options(file, change))
}

fn listen(socket: &Descriptor, backlog: i32) -> io::Result<()> {
    let backlog = usize::try_from(backlog).unwrap_or(usize::MAX);
    socket.call("listen", |kernel, file| kernel.listen(file, backlog))
}

impl From<Socket> for TcpListener {
    fn from(socket: Socket) -> Self {
        Self(socket.0)
    }
}

impl From<Socket> for TcpStream {
    fn from(socket: Socket) -> Self {
        Self(socket.0)
    }
}

impl From<Socket> for UdpSocket {
    fn from(socket: Socket) -> Self {
        Self(socket.0)
    }
}

impl From<UdpSocket> for Socket {
    fn from(socket: UdpSocket) -> Self {
        Self(socket.0)
    }
}

impl From<TcpStream> for Socket {
    fn from(stream: TcpStream) -> Self {
        Self(stream.0)
    }
}

/// A socket that somebody else owns, for what the type of the standard library cannot do.
#[derive(Debug, Clone, Copy)]
pub struct SockRef<'a>(BorrowedFd<'a>);

impl<'a, T: AsFd> From<&'a T> for SockRef<'a> {
    fn from(socket: &'a T) -> Self {
        Self(socket.as_fd())
    }
}

impl SockRef<'_> {
    /// Changes how many clients wait to be accepted.
    ///
    /// # Errors
    ///
    /// As [`Socket::listen`].
    pub fn listen(&self, backlog: i32) -> io::Result<()> {
        listen(self.0.0, backlog)
    }

    /// As [`Socket::set_reuse_port`].
    ///
    /// # Errors
    ///
    /// `EINVAL` once it is connected.
    pub fn set_reuse_port(&self, reuse: bool) -> io::Result<()> {
        set(self.0.0, |socket| socket.reuses_port = reuse)
    }

    /// Makes the close a reset, if `linger` is zero. Other values have no effect: no close blocks here. Sockets that a
    /// listener accepts inherit it.
    ///
    /// # Errors
    ///
    /// Not on Linux. On Apple systems, `EINVAL` once both directions have ended.
    pub fn set_linger(&self, linger: Option<Duration>) -> io::Result<()> {
        set_option(self.0.0, false, |kernel, file| {
            kernel.set_linger_zero(file, linger == Some(Duration::ZERO));
            Ok(())
        })
    }

    /// Makes calls fail with `WouldBlock` instead of blocking.
    ///
    /// # Errors
    ///
    /// It never fails: the signature is that of `socket2`.
    pub fn set_nonblocking(&self, nonblocking: bool) -> io::Result<()> {
        set_nonblocking(self.0.0, nonblocking)
    }

    /// Has no effect: no peer vanishes here without an end to its connections.
    ///
    /// # Errors
    ///
    /// As [`TcpStream::set_nodelay`].
    pub fn set_tcp_keepalive(&self, _parameters: &TcpKeepalive) -> io::Result<()> {
        set_option(self.0.0, true, |_, _| Ok(()))
    }

    /// Has no effect: no bytes wait to be sent here, since written ones are on their way.
    ///
    /// # Errors
    ///
    /// As [`TcpStream::set_nodelay`].
    pub fn set_tcp_notsent_lowat(&self, _lowat: u32) -> io::Result<()> {
        set_option(self.0.0, true, |_, _| Ok(()))
    }

    /// Has no effect: nothing is held back here.
    ///
    /// # Errors
    ///
    /// As [`TcpStream::set_nodelay`].
    pub fn set_tcp_nodelay(&self, _nodelay: bool) -> io::Result<()> {
        set_option(self.0.0, true, |_, _| Ok(()))
    }

    /// As [`TcpStream::shutdown`]; a listener whose reading is shut down listens no more.
    ///
    /// # Errors
    ///
    /// `NotConnected`.
    pub fn shutdown(&self, how: Shutdown) -> io::Result<()> {
        shut_down(self.0.0, how)
    }

    /// As a write.
    ///
    /// # Errors
    ///
    /// As a write.
    pub fn send(&self, bytes: &[u8]) -> io::Result<usize> {
        write(self.0.0, bytes)
    }

    /// The error that is pending, which is none afterwards.
    ///
    /// # Errors
    ///
    /// It never fails: the signature is that of `socket2`.
    pub fn take_error(&self) -> io::Result<Option<io::Error>> {
        take_error(self.0.0)
    }
}
