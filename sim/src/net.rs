//! Sockets, under the names of `std::net`.

use std::fmt;
use std::io::{self, ErrorKind, Read, Write};
use std::mem;
#[doc(no_inline)]
pub use std::net::{
    IpAddr, Ipv4Addr, Ipv6Addr, Shutdown, SocketAddr, SocketAddrV4, SocketAddrV6, ToSocketAddrs,
};
use std::os::fd::{AsRawFd, RawFd};
use std::time::Duration;

use crate::descriptor::Descriptor;
use crate::kernel::{File, FileId, Kind, errno};
use crate::network::{BACKLOG, Unconnected};
use crate::os::fd::{AsFd, BorrowedFd};
use crate::world::{State, World};

/// A simulated listener, in place of [`std::net::TcpListener`].
pub struct TcpListener(pub(super) Descriptor);

/// A simulated TCP connection, in place of [`std::net::TcpStream`].
pub struct TcpStream(pub(super) Descriptor);

/// The connections that a listener accepts: see [`TcpListener::incoming`].
#[derive(Debug)]
pub struct Incoming<'a>(&'a TcpListener);

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
            let world = World::current();
            let mut state = world.enter();
            state.files.check_limit(1)?;
            let socket = Unconnected { reuses_address: true, ..Default::default() };
            let file = state.files.add(Kind::Socket(socket));
            let listening = state.bind(file, address).and_then(|()| state.listen(file, BACKLOG));
            if let Err(error) = listening {
                state.close_file(file);
                return Err(error);
            }
            state.call(|| format!("listen at {address}"));
            Ok(Self(Descriptor::of(&world, &mut state, file)))
        })
    }

    /// Takes a connection from the queue.
    ///
    /// # Errors
    ///
    /// `WouldBlock` if there is none. `EMFILE` at the limit of descriptors, whether or not there is one. As
    /// faults, `EMFILE` and `ConnectionAborted`.
    pub fn accept(&self) -> io::Result<(TcpStream, SocketAddr)> {
        accept(&self.0).map(|(stream, client)| (TcpStream(stream), client))
    }

    /// [`accept`](Self::accept), again and again.
    #[must_use]
    pub fn incoming(&self) -> Incoming<'_> {
        Incoming(self)
    }

    /// The address that it listens at.
    ///
    /// # Errors
    ///
    /// It never fails: the signature is that of `std`.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        local_addr(&self.0)
    }

    /// Has calls fail with `WouldBlock` instead of blocking.
    ///
    /// # Errors
    ///
    /// It never fails: the signature is that of `std`.
    pub fn set_nonblocking(&self, nonblocking: bool) -> io::Result<()> {
        set_nonblocking(&self.0, nonblocking)
    }

    /// Another descriptor of the same listener.
    ///
    /// # Errors
    ///
    /// `EMFILE` at the limit of descriptors.
    pub fn try_clone(&self) -> io::Result<Self> {
        self.0.try_clone().map(Self)
    }

    /// The error that is pending: none.
    ///
    /// # Errors
    ///
    /// It never fails: the signature is that of `std`.
    pub fn take_error(&self) -> io::Result<Option<io::Error>> {
        Ok(None)
    }
}

impl Iterator for Incoming<'_> {
    type Item = io::Result<TcpStream>;

    fn next(&mut self) -> Option<Self::Item> {
        Some(self.0.accept().map(|(stream, _)| stream))
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
        let world = World::current();
        let socket = Descriptor::open(&world, Kind::Socket(Unconnected::default()))?;
        socket.call("connect", |state, file| state.connect(file, address))?;
        let connected = |state: &mut State, file: FileId| {
            let end = state.stream(file)?;
            state.connect_again(file, end)
        };
        let show = |(): &()| format!("to {address}");
        match socket.blocking_call("connect", |_| timeout, connected, show) {
            Err(error) if error.kind() == ErrorKind::WouldBlock => Err(ErrorKind::TimedOut.into()),
            result => result.map(|()| Self(socket)),
        }
    }
}

/// Methods of both kinds of stream.
macro_rules! stream {
    ($stream:ident) => {
        impl $stream {
            /// Ends the writing, so that the peer reads an end, or the reading, or both.
            ///
            /// # Errors
            ///
            /// `NotConnected`.
            pub fn shutdown(&self, how: Shutdown) -> io::Result<()> {
                shut_down(&self.0, how)
            }

            /// Has calls fail with `WouldBlock` instead of blocking.
            ///
            /// # Errors
            ///
            /// It never fails: the signature is that of `std`.
            pub fn set_nonblocking(&self, nonblocking: bool) -> io::Result<()> {
                set_nonblocking(&self.0, nonblocking)
            }

            /// Has a blocked read fail with `WouldBlock` after a while.
            ///
            /// # Errors
            ///
            /// `InvalidInput` for zero.
            pub fn set_read_timeout(&self, timeout: Option<Duration>) -> io::Result<()> {
                set_timeout(&self.0, timeout, |file| &mut file.read_timeout)
            }

            /// Has a blocked write fail with `WouldBlock` after a while.
            ///
            /// # Errors
            ///
            /// `InvalidInput` for zero.
            pub fn set_write_timeout(&self, timeout: Option<Duration>) -> io::Result<()> {
                set_timeout(&self.0, timeout, |file| &mut file.write_timeout)
            }

            /// The error that is pending, which is none afterwards.
            ///
            /// # Errors
            ///
            /// It never fails: the signature is that of `std`.
            pub fn take_error(&self) -> io::Result<Option<io::Error>> {
                take_error(&self.0)
            }

            /// Another descriptor of the same end of the connection.
            ///
            /// # Errors
            ///
            /// `EMFILE` at the limit of descriptors.
            pub fn try_clone(&self) -> io::Result<Self> {
                self.0.try_clone().map(Self)
            }
        }

        impl Read for &$stream {
            fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
                read(&self.0, buffer)
            }
        }

        impl Read for $stream {
            fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
                read(&self.0, buffer)
            }
        }

        impl Write for &$stream {
            fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
                write(&self.0, bytes)
            }

            fn flush(&mut self) -> io::Result<()> {
                Ok(())
            }
        }

        impl Write for $stream {
            fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
                write(&self.0, bytes)
            }

            fn flush(&mut self) -> io::Result<()> {
                Ok(())
            }
        }

        descriptor!($stream);
    };
}

/// The descriptor of a simulated object.
macro_rules! descriptor {
    ($object:ident) => {
        impl AsRawFd for $object {
            fn as_raw_fd(&self) -> RawFd {
                self.0.as_raw_fd()
            }
        }

        impl pollio::ForeignSource for $object {
            fn foreign_fd(&self) -> RawFd {
                self.0.as_raw_fd()
            }
        }

        impl AsFd for $object {
            fn as_fd(&self) -> BorrowedFd<'_> {
                BorrowedFd(&self.0)
            }
        }

        impl fmt::Debug for $object {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.debug_struct(stringify!($object)).field("fd", &self.0).finish()
            }
        }
    };
}

pub(super) use {descriptor, stream};

stream!(TcpStream);
descriptor!(TcpListener);

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
        self.0.call("peer address of", |state, file| {
            let end = state.stream(file)?;
            state.peer_address(end)
        })
    }

    /// Has no effect: nothing is held back here.
    ///
    /// # Errors
    ///
    /// It never fails: the signature is that of `std`.
    pub fn set_nodelay(&self, _nodelay: bool) -> io::Result<()> {
        Ok(())
    }

    /// Reads, and leaves there what was read.
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

pub(super) fn accept(listener: &Descriptor) -> io::Result<(Descriptor, SocketAddr)> {
    let mut has_room = false;
    let accept = |state: &mut State, file| {
        if !has_room {
            // The kernel reserves the descriptor before it looks at the queue.
            state.files.check_limit(1)?;
            has_room = true;
        }
        let (file, client) = state.accept(file)?;
        Ok((Descriptor::of(&listener.world, state, file), client))
    };
    listener.blocking_call(
        "accept",
        |file| file.read_timeout,
        accept,
        |(stream, client)| format!("is {} from {client}", stream.as_raw_fd()),
    )
}

pub(super) fn read(stream: &Descriptor, buffer: &mut [u8]) -> io::Result<usize> {
    receive(stream, "read", buffer, false)
}

fn peek(stream: &Descriptor, buffer: &mut [u8]) -> io::Result<usize> {
    receive(stream, "peek", buffer, true)
}

fn receive(
    stream: &Descriptor,
    what: &'static str,
    buffer: &mut [u8],
    is_peek: bool,
) -> io::Result<usize> {
    let call = |state: &mut State, file| {
        let end = state.stream(file)?;
        state.read(end, buffer, is_peek)
    };
    stream.blocking_call(what, |file| file.read_timeout, call, |count| format!("gives {count}"))
}

pub(super) fn write(stream: &Descriptor, bytes: &[u8]) -> io::Result<usize> {
    let mut is_first = true;
    let call = |state: &mut State, file| {
        // A socket that was never connected.
        let end = state.stream(file).map_err(|_| errno(libc::EPIPE))?;
        // One that was blocked looks for an error before anything else.
        let error = if mem::take(&mut is_first) { None } else { state.take_error(end) };
        error.map_or_else(|| state.write(end, bytes), Err)
    };
    let show = |count: &usize| format!("takes {count} of {}", bytes.len());
    // A blocking write of the kernel goes on until it has taken everything, this one until it has taken
    // something: `write_all` makes no difference.
    stream.blocking_call("write", |file| file.write_timeout, call, show)
}

pub(super) fn take_error(socket: &Descriptor) -> io::Result<Option<io::Error>> {
    socket.call("take error of", |state, file| {
        Ok(state.stream(file).ok().and_then(|end| state.take_error(end)))
    })
}

pub(super) fn shut_down(stream: &Descriptor, how: Shutdown) -> io::Result<()> {
    stream.call("shut down", |state, file| state.shut_down(file, how))
}

pub(super) fn set_nonblocking(socket: &Descriptor, nonblocking: bool) -> io::Result<()> {
    set(socket, |file| file.is_nonblocking = nonblocking)
}

pub(super) fn set_timeout(
    socket: &Descriptor,
    timeout: Option<Duration>,
    place: impl FnOnce(&mut File) -> &mut Option<Duration>,
) -> io::Result<()> {
    if timeout == Some(Duration::ZERO) {
        return Err(ErrorKind::InvalidInput.into());
    }
    set(socket, |file| *place(file) = timeout)
}

/// Changes what a file is set to.
fn set(socket: &Descriptor, change: impl FnOnce(&mut File)) -> io::Result<()> {
    let mut state = socket.world.enter();
    let file = state.files.of(socket.as_raw_fd())?;
    state.files.get_mut(file).map(change);
    Ok(())
}

pub(super) fn local_addr(socket: &Descriptor) -> io::Result<SocketAddr> {
    let unspecified = SocketAddr::from(([0, 0, 0, 0], 0));
    socket.call("address of", |state, file| {
        let address = match state.files.get(file).map(|file| &file.kind) {
            Some(Kind::Listener(listening)) => Some(listening.address),
            Some(Kind::Stream(end)) => state.address(*end),
            Some(Kind::Socket(socket)) => socket.bound,
            _ => None,
        };
        Ok(address.unwrap_or(unspecified))
    })
}
