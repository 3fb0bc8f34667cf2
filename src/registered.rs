//! A source together with its registration: deleted first, then closed.

use std::io::{self, IoSlice, IoSliceMut, Read, Write};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd};

use crate::foreign::{ForeignSource, Source};
use crate::object::EventObject;
use crate::registry::Registry;

/// Owns a source and its registration: a drop deletes the registration, then drops the source.
///
/// The source is anything that is [`AsFd`], such as a socket, a pipe or a [`Timer`](crate::Timer), or a
/// [`ForeignSource`]. Its descriptor stays open while it is registered, so no event
/// belongs to another file, not even if a duplicate of the descriptor outlives it (C16). This is how you
/// register with [I/O safety](crate::Poller#io-safety). For many sources, each with the program's data, see
/// [`Connections`](crate::Connections).
///
/// A [forked child](crate::Poller#forking) that drops its copy deletes the registration of its parent.
///
/// It reads and writes as its source does, so it can take the place of the source below a library: a TLS
/// session or a WebSocket over `Registered<TcpStream>`. There is no `get_mut`: replacing the source in place
/// would close its descriptor while it is registered. If you need other methods that take `&mut`, register
/// a duplicate, and keep the source next to it; events then have the number of the duplicate:
///
/// ```
/// # use std::os::fd::{AsFd, OwnedFd};
/// # use pollio::{EventObject, Registered, Registry};
/// struct Watched<T> {
///     registration: Registered<OwnedFd>,
///     source: T,
/// }
///
/// fn watch<T: AsFd>(registry: &Registry, source: T) -> std::io::Result<Watched<T>> {
///     let duplicate = source.as_fd().try_clone_to_owned()?;
///     let registration = Registered::new(registry, duplicate, EventObject::client)?;
///     Ok(Watched { registration, source })
/// }
/// ```
///
/// # Example
///
/// ```
/// use std::io::{Read, Write};
/// use std::os::unix::net::UnixStream;
/// use pollio::{EventObject, OsPoller};
/// use pollio::{Poller, Registered};
///
/// let mut poller = OsPoller::new()?;
/// let (near, mut far) = UnixStream::pair()?;
/// let registry = poller.registry();
/// let mut near = Registered::new(registry, near, |fd| {
///     EventObject::client(fd).with_token(7)
/// })?;
///
/// far.write_all(b"hello")?;
/// assert_eq!(poller.wait(-1)?[0].token, 7);
/// near.read_exact(&mut [0; 5])?;
///
/// let duplicate = near.get_ref().try_clone()?;
/// drop(near);
/// far.write_all(b"again")?;
/// // Though `duplicate` is readable:
/// assert!(poller.wait(0)?.is_empty());
/// # drop(duplicate);
/// # Ok::<(), std::io::Error>(())
/// ```
#[derive(Debug)]
#[must_use = "dropping it deletes the registration"]
pub struct Registered<T> {
    // Fields are dropped in this order.
    registration: Registration,
    source: T,
}

impl<T> Registered<T> {
    /// Registers `source` with the object that `object` returns for its descriptor: pass
    /// `EventObject::server`, or a closure.
    ///
    /// If that fails, `source` is dropped, which closes it. To keep it, register a reference to it, or an
    /// [`Arc`](std::sync::Arc) of it: both are sources as well.
    ///
    /// # Errors
    ///
    /// - `InvalidInput`: the object is of another descriptor.
    /// - Otherwise see [`Registry::add`].
    pub fn new<By: ?Sized>(
        registry: &Registry,
        source: T,
        object: impl FnOnce(RawFd) -> EventObject,
    ) -> io::Result<Self>
    where
        T: Source<By>,
    {
        let fd = source.source_fd();
        Self::with_fd(registry, source, fd, object)
    }

    /// Registers `source` by the number that it has returned.
    pub(crate) fn with_fd(
        registry: &Registry,
        source: T,
        fd: RawFd,
        object: impl FnOnce(RawFd) -> EventObject,
    ) -> io::Result<Self> {
        registry.add(object_of(fd, object)?)?;
        let registration = Registration { registry: registry.clone(), fd };
        Ok(Self { registration, source })
    }

    /// The source.
    #[must_use]
    pub fn get_ref(&self) -> &T {
        &self.source
    }

    /// Replaces interest, mode, kind and token of the registration, and re-arms a oneshot; see
    /// [`Registry::modify`].
    ///
    /// # Errors
    ///
    /// - `InvalidInput`: the object is of another descriptor. The registration stays as it was.
    /// - Otherwise see [`Registry::modify`].
    pub fn modify(&self, object: impl FnOnce(RawFd) -> EventObject) -> io::Result<()> {
        let Registration { registry, fd } = &self.registration;
        registry.modify(object_of(*fd, object)?)
    }

    /// Deletes the registration, and returns the source.
    #[must_use = "the source is closed when it is dropped"]
    pub fn into_inner(self) -> T {
        let Self { registration, source } = self;
        drop(registration);
        source
    }
}

impl<T: AsFd> AsFd for Registered<T> {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.source.as_fd()
    }
}

impl<T: ForeignSource> ForeignSource for Registered<T> {
    fn foreign_fd(&self) -> RawFd {
        self.source.foreign_fd()
    }
}

/// The descriptor that is registered, and that its events have.
impl<T> AsRawFd for Registered<T> {
    fn as_raw_fd(&self) -> RawFd {
        self.registration.fd
    }
}

/// As the source reads.
impl<T: Read> Read for Registered<T> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.source.read(buffer)
    }

    fn read_vectored(&mut self, buffers: &mut [IoSliceMut<'_>]) -> io::Result<usize> {
        self.source.read_vectored(buffers)
    }
}

/// As a reference to the source reads, for sources such as a `TcpStream` that need no `&mut`.
impl<T> Read for &Registered<T>
where
    for<'a> &'a T: Read,
{
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        (&self.source).read(buffer)
    }

    fn read_vectored(&mut self, buffers: &mut [IoSliceMut<'_>]) -> io::Result<usize> {
        (&self.source).read_vectored(buffers)
    }
}

/// As the source writes.
impl<T: Write> Write for Registered<T> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.source.write(bytes)
    }

    fn write_vectored(&mut self, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        self.source.write_vectored(slices)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.source.flush()
    }
}

/// As a reference to the source writes, for sources such as a `TcpStream` that need no `&mut`.
impl<T> Write for &Registered<T>
where
    for<'a> &'a T: Write,
{
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        (&self.source).write(bytes)
    }

    fn write_vectored(&mut self, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        (&self.source).write_vectored(slices)
    }

    fn flush(&mut self) -> io::Result<()> {
        (&self.source).flush()
    }
}

/// Deletes `fd` when it is dropped.
#[derive(Debug)]
struct Registration {
    registry: Registry,
    /// The number that was added: a later `as_fd` of the source may return another one.
    fd: RawFd,
}

impl Drop for Registration {
    fn drop(&mut self) {
        // An error says that it is no longer registered, which is the purpose of the drop.
        let _ = self.registry.delete(self.fd);
    }
}

/// The object that `object` makes of `fd`, unless it is of another descriptor.
fn object_of(fd: RawFd, object: impl FnOnce(RawFd) -> EventObject) -> io::Result<EventObject> {
    let object = object(fd);
    if object.fd == fd {
        return Ok(object);
    }
    let why = format!("the object is of descriptor {}, the source is {fd}", object.fd);
    Err(io::Error::new(io::ErrorKind::InvalidInput, why))
}
