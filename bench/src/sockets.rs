//! The descriptors that the workloads use.
#![allow(unsafe_code, reason = "a workload gets descriptors as numbers")]

use std::io;
use std::net::{TcpListener, TcpStream};
use std::os::fd::{AsRawFd, BorrowedFd, RawFd};
use std::os::unix::net::UnixStream;

use socket2::{Domain, Socket, Type};

/// Pairs of connected non-blocking sockets.
pub(crate) struct Pairs(pub(crate) Vec<(UnixStream, UnixStream)>);

impl Pairs {
    pub(crate) fn new(count: usize) -> io::Result<Self> {
        let pair = || {
            let (near, far) = UnixStream::pair()?;
            near.set_nonblocking(true)?;
            far.set_nonblocking(true)?;
            Ok((near, far))
        };
        (0..count).map(|_| pair()).collect::<io::Result<_>>().map(Self)
    }

    pub(crate) fn near(&self) -> impl Iterator<Item = RawFd> {
        self.0.iter().map(|(near, _)| near.as_raw_fd())
    }

    /// `count` of the pairs, spread evenly: near ends, far ends.
    pub(crate) fn spread(&self, count: usize) -> (Vec<RawFd>, Vec<RawFd>) {
        let step = self.0.len() / count;
        let chosen = self.0.iter().step_by(step).take(count);
        chosen.map(|(near, far)| (near.as_raw_fd(), far.as_raw_fd())).unzip()
    }
}

/// Sockets that never get data, one descriptor each.
pub(crate) fn idle(count: usize) -> io::Result<Vec<Socket>> {
    (0..count).map(|_| Socket::new(Domain::IPV4, Type::DGRAM, None)).collect()
}

/// A listening socket with room for all clients that connect at once.
pub(crate) fn listener() -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None)?;
    socket.bind(&std::net::SocketAddr::from(([127, 0, 0, 1], 0)).into())?;
    socket.listen(4096)?;
    Ok(socket.into())
}

/// Prepares a connection for requests and answers.
pub(crate) fn prepare(stream: &TcpStream) -> io::Result<()> {
    stream.set_nodelay(true)?;
    stream.set_nonblocking(true)
}

/// Reads once, up to the buffer's size.
pub(crate) fn read(fd: RawFd, buffer: &mut [u8]) -> io::Result<usize> {
    // SAFETY: the workloads keep their descriptors open for as long as pollers report them.
    let fd = unsafe { BorrowedFd::borrow_raw(fd) };
    Ok(nix::unistd::read(fd, buffer)?)
}

/// Writes all bytes, or fails: the workloads never write more than the kernel has room for.
pub(crate) fn write(fd: RawFd, bytes: &[u8]) -> io::Result<()> {
    // SAFETY: as for `read`.
    let fd = unsafe { BorrowedFd::borrow_raw(fd) };
    let written = nix::unistd::write(fd, bytes)?;
    if written < bytes.len() { Err(io::ErrorKind::WriteZero.into()) } else { Ok(()) }
}
