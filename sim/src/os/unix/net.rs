//! In place of [`std::os::unix::net`].
//!
//! A path is a name in the world: [`UnixListener::bind`] makes a file there, in any directory, and nothing in the real
//! file system. Two paths are the same file if they are equal as [`Path`]s. As on a real system the file outlives its
//! listener: a server that starts again calls [`fs::remove_file`](crate::fs::remove_file) first.
//!
//! Names are pathnames: abstract ones are not simulated.

use std::io::{self, ErrorKind};
#[doc(no_inline)]
pub use std::os::unix::net::SocketAddr;
use std::path::Path;

use crate::descriptor::Descriptor;
use crate::kernel::{FileId, Kernel};
use crate::machine::Machine;
use crate::stream::{accept, listener, stream};

/// A simulated Unix listener, in place of [`std::os::unix::net::UnixListener`].
pub struct UnixListener(Descriptor);

/// One end of a simulated connection, in place of [`std::os::unix::net::UnixStream`]. What is written to the
/// other end is there at once.
pub struct UnixStream(pub(crate) Descriptor);

impl UnixListener {
    /// Listens at a path, and makes a file there.
    ///
    /// # Errors
    ///
    /// `AddrInUse` if the file is there, even if nobody listens; `InvalidInput` for a path that is too long for the
    /// kernel of the world, or for the system that the test runs on; `Unsupported` for an empty path; `EMFILE` at the
    /// limit of descriptors.
    pub fn bind<P: AsRef<Path>>(path: P) -> io::Result<Self> {
        Self::bind_addr(&SocketAddr::from_pathname(path)?)
    }

    /// As [`bind`](Self::bind).
    ///
    /// # Errors
    ///
    /// As [`bind`](Self::bind); `Unsupported` for an address without a pathname.
    pub fn bind_addr(address: &SocketAddr) -> io::Result<Self> {
        let (machine, path) = (Machine::current(), pathname(address)?);
        let mut kernel = machine.enter();
        let fd = kernel.open_unix_listener(path)?;
        kernel.schedule_mut().note_call(|| format!("listen at {}", path.display()));
        Ok(Self(Descriptor::new(&machine, fd)))
    }

    /// Takes a connection from the queue. The client's address is unnamed.
    ///
    /// # Errors
    ///
    /// `WouldBlock` if there is none. `EMFILE` at the limit of descriptors, whether or not there is one, and as a
    /// fault.
    pub fn accept(&self) -> io::Result<(UnixStream, SocketAddr)> {
        let accepted = accept(&self.0, |kernel, file| Ok((kernel.accept_unix(file)?, ())));
        Ok((UnixStream(accepted?.0), address_of(None)?))
    }

    /// The path that it listens at.
    ///
    /// # Errors
    ///
    /// It never fails: the signature is that of `std`.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        local_addr(&self.0)
    }
}

listener!(UnixListener, UnixStream);

impl<'a> IntoIterator for &'a UnixListener {
    type Item = io::Result<UnixStream>;
    type IntoIter = Incoming<'a>;

    fn into_iter(self) -> Incoming<'a> {
        self.incoming()
    }
}

impl UnixStream {
    /// Two that are connected to each other.
    ///
    /// # Errors
    ///
    /// `EMFILE` at the limit of descriptors.
    pub fn pair() -> io::Result<(Self, Self)> {
        let machine = Machine::current();
        let ends = machine.enter().open_pair()?;
        let [near, far] = ends.map(|fd| Self(Descriptor::new(&machine, fd)));
        Ok((near, far))
    }

    /// Connects to a listener: before it accepts, so that you can write at once. Blocks while its queue is full.
    ///
    /// # Errors
    ///
    /// `NotFound` if there is no such file; `ConnectionRefused` if nobody listens there, and on other kernels than
    /// Linux if the queue is full; `InvalidInput` and `Unsupported` as [`UnixListener::bind`]; `EMFILE` at the limit of
    /// descriptors.
    pub fn connect<P: AsRef<Path>>(path: P) -> io::Result<Self> {
        Self::connect_addr(&SocketAddr::from_pathname(path)?)
    }

    /// As [`connect`](Self::connect).
    ///
    /// # Errors
    ///
    /// As [`connect`](Self::connect); `Unsupported` for an address without a pathname.
    pub fn connect_addr(address: &SocketAddr) -> io::Result<Self> {
        let (machine, path) = (Machine::current(), pathname(address)?);
        let socket = Descriptor::open(&machine, Kernel::open_unix_socket)?;
        let connect = |kernel: &mut Kernel, file: FileId| kernel.connect_unix(file, path);
        let show = |_: &Kernel, (): &()| format!(" to {}", path.display());
        socket.blocking_call("connect", |_| None, connect, show)?;
        Ok(Self(socket))
    }

    /// The path of the listener that has accepted this end. Other ends are unnamed.
    ///
    /// # Errors
    ///
    /// It never fails: the signature is that of `std`.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        local_addr(&self.0)
    }

    /// The path of the listener that this end has connected to. Other peers are unnamed.
    ///
    /// # Errors
    ///
    /// Never, as on Linux. Some other kernels have no address of a peer that is gone, which is not simulated.
    pub fn peer_addr(&self) -> io::Result<SocketAddr> {
        self.0.call("peer address of", |kernel, file| address_of(kernel.unix_peer_path(file)))
    }
}

stream!(UnixStream);

fn local_addr(socket: &Descriptor) -> io::Result<SocketAddr> {
    socket.call("address of", |kernel, file| address_of(kernel.unix_path(file)))
}

/// The address of a path, or an unnamed one.
fn address_of(path: Option<&Path>) -> io::Result<SocketAddr> {
    SocketAddr::from_pathname(path.unwrap_or_else(|| Path::new("")))
}

fn pathname(address: &SocketAddr) -> io::Result<&Path> {
    address.as_pathname().ok_or_else(|| {
        io::Error::new(ErrorKind::Unsupported, "only pathnames are simulated, no abstract names")
    })
}
