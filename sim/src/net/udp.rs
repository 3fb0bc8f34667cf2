//! A UDP socket, under the name that `std::net` has for it.

use std::io::{self, ErrorKind};
use std::net::{SocketAddr, ToSocketAddrs};
use std::time::Duration;

use super::each;
use crate::descriptor::Descriptor;
use crate::kernel::Kernel;
use crate::machine::Machine;
use crate::stream::{
    descriptor, local_addr, peek, read, set_nonblocking, set_timeout, take_error, write,
};

#[doc = include_str!("udp.md")]
pub struct UdpSocket(pub(crate) Descriptor);

descriptor!(UdpSocket);

impl UdpSocket {
    /// Creates a socket with an address, which is of this world like every other: any IP will do. A port 0 becomes one
    /// that is free.
    ///
    /// # Errors
    ///
    /// `AddrInUse`; `EMFILE` at the limit of descriptors.
    pub fn bind(address: impl ToSocketAddrs) -> io::Result<Self> {
        each(address, |address| {
            let machine = Machine::current();
            let mut kernel = machine.enter();
            let fd = kernel.open_udp_socket()?;
            let file = kernel.file(fd)?;
            if let Err(error) = kernel.bind(file, address) {
                kernel.close(fd);
                return Err(error);
            }
            let label = kernel.label(fd);
            kernel.schedule_mut().note_call(|| format!("bind {label}"));
            Ok(Self(Descriptor::new(&machine, fd)))
        })
    }

    /// Sends a datagram to the first of these addresses.
    ///
    /// # Errors
    ///
    /// `InvalidInput` if there is no address, or for port 0; `EMSGSIZE` over 65,507 bytes, or 65,527 over IPv6;
    /// `EAFNOSUPPORT` from an IPv4 socket to an IPv6 address, `NetworkUnreachable` the other way round. If the socket
    /// is connected, as [`send`](Self::send).
    pub fn send_to(&self, bytes: &[u8], address: impl ToSocketAddrs) -> io::Result<usize> {
        let address = address.to_socket_addrs()?.next().ok_or(ErrorKind::InvalidInput)?;
        let send = |kernel: &mut Kernel, file| kernel.send_to(file, bytes, address);
        let show = |_: &Kernel, count: &usize| format!(" sends {count} to {address}");
        self.0.blocking_call("send from", |settings| settings.write_timeout, send, show)
    }

    /// Takes a datagram, of which it copies what fits: the rest is lost. Returns the number of bytes, and who has sent
    /// it.
    ///
    /// # Errors
    ///
    /// `WouldBlock` if there is none. `ConnectionRefused` if the socket is connected, and nobody had the peer's port
    /// when a datagram arrived there.
    pub fn recv_from(&self, buffer: &mut [u8]) -> io::Result<(usize, SocketAddr)> {
        self.receive("receive from", buffer, true)
    }

    /// As [`recv_from`](Self::recv_from), and leaves the datagram there.
    ///
    /// # Errors
    ///
    /// As [`recv_from`](Self::recv_from).
    pub fn peek_from(&self, buffer: &mut [u8]) -> io::Result<(usize, SocketAddr)> {
        self.receive("peek from", buffer, false)
    }

    fn receive(
        &self,
        what: &'static str,
        buffer: &mut [u8],
        is_taken: bool,
    ) -> io::Result<(usize, SocketAddr)> {
        let receive = |kernel: &mut Kernel, file| kernel.receive(file, buffer, is_taken);
        let show = |_: &Kernel, (count, source): &(usize, Option<SocketAddr>)| match source {
            Some(source) => format!(" gives {count} of {source}"),
            None => " ends".into(),
        };
        let received = self.0.blocking_call(what, |settings| settings.read_timeout, receive, show);
        let (count, source) = received?;
        Ok((count, source.ok_or(ErrorKind::InvalidInput)?))
    }

    /// Connects: from now on the socket sends to this address and hears no other. Connected again, it has another peer.
    /// What has arrived before stays.
    ///
    /// # Errors
    ///
    /// `EAFNOSUPPORT` for an address of the other family.
    pub fn connect(&self, address: impl ToSocketAddrs) -> io::Result<()> {
        each(address, |address| {
            self.0.call("connect", |kernel, file| kernel.connect(file, address))
        })
    }

    /// Sends a datagram to the peer.
    ///
    /// # Errors
    ///
    /// `EDESTADDRREQ` if it is not connected; `EMSGSIZE` as [`send_to`](Self::send_to). `ConnectionRefused` as
    /// [`recv_from`](Self::recv_from): the datagram is not sent.
    pub fn send(&self, bytes: &[u8]) -> io::Result<usize> {
        write(&self.0, bytes)
    }

    /// As [`recv_from`](Self::recv_from), without the sender.
    ///
    /// # Errors
    ///
    /// As [`recv_from`](Self::recv_from).
    pub fn recv(&self, buffer: &mut [u8]) -> io::Result<usize> {
        read(&self.0, buffer)
    }

    /// As [`peek_from`](Self::peek_from), without the sender.
    ///
    /// # Errors
    ///
    /// As [`recv_from`](Self::recv_from).
    pub fn peek(&self, buffer: &mut [u8]) -> io::Result<usize> {
        peek(&self.0, buffer)
    }

    /// The address of this socket.
    ///
    /// # Errors
    ///
    /// It never fails: the signature is that of `std`.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        local_addr(&self.0)
    }

    /// The address that it is connected to.
    ///
    /// # Errors
    ///
    /// `NotConnected`.
    pub fn peer_addr(&self) -> io::Result<SocketAddr> {
        self.0.call("peer address of", |kernel, file| kernel.peer_address(file))
    }

    /// Makes calls fail with `WouldBlock` instead of blocking.
    ///
    /// # Errors
    ///
    /// It never fails: the signature is that of `std`.
    pub fn set_nonblocking(&self, nonblocking: bool) -> io::Result<()> {
        set_nonblocking(&self.0, nonblocking)
    }

    /// Makes a blocked read fail with `WouldBlock` after this time.
    ///
    /// # Errors
    ///
    /// `InvalidInput` for zero.
    pub fn set_read_timeout(&self, timeout: Option<Duration>) -> io::Result<()> {
        set_timeout(&self.0, timeout, |settings| &mut settings.read_timeout)
    }

    /// Has no effect: there is always room to send.
    ///
    /// # Errors
    ///
    /// `InvalidInput` for zero.
    pub fn set_write_timeout(&self, timeout: Option<Duration>) -> io::Result<()> {
        set_timeout(&self.0, timeout, |settings| &mut settings.write_timeout)
    }

    /// Another descriptor of the same socket.
    ///
    /// # Errors
    ///
    /// `EMFILE` at the limit of descriptors.
    pub fn try_clone(&self) -> io::Result<Self> {
        self.0.try_clone().map(Self)
    }

    /// The error that is pending, which is none afterwards.
    ///
    /// # Errors
    ///
    /// It never fails: the signature is that of `std`.
    pub fn take_error(&self) -> io::Result<Option<io::Error>> {
        take_error(&self.0)
    }
}
