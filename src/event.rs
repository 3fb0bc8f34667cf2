//! What comes out of a poller: an event.

use std::os::fd::RawFd;

use crate::object::EventKind;
use crate::readiness::Readiness;

/// What a wait returns: a descriptor that is ready, and for what; or [a waker](Self::is_wake) that was woken.
///
/// `fd`, `kind` and `token` are those of the last `add` or `modify`.
///
/// An error or a full hang-up counts as readable and as writable too, since neither a read nor a write
/// would block. So a loop that checks only [`is_readable`](Self::is_readable) and
/// [`is_writable`](Self::is_writable) learns of each of them from its next read or write.
///
/// An event is not an [`EventObject`](crate::EventObject): the kernel does not return interest and mode.
/// Registering an event would lose both, so it does not compile. Keep the `EventObject` that you added, or
/// build it again:
///
/// ```
/// # use pollio::{EventObject, Interest, Mode, OsPoller, Poller};
/// # use std::os::{fd::AsRawFd, unix::net::UnixStream};
/// # let (stream, _peer) = UnixStream::pair()?;
/// # let mut poller = OsPoller::new()?;
/// # let registry = poller.registry().clone();
/// let object = EventObject::client(stream.as_raw_fd())
///     .with_interest(Interest::WRITABLE)
///     .with_mode(Mode::Oneshot);
/// registry.add(object)?;
/// for event in poller.wait(-1)? {
///     if event.is_writable() { /* write */ }
///     registry.modify(object)?; // and armed again
/// }
/// # Ok::<(), std::io::Error>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Event {
    /// The descriptor.
    pub fd: RawFd,
    /// The [`token`](crate::EventObject::token) of its registration.
    #[doc(alias("Token", "key"))]
    pub token: u32,
    /// The descriptor's role in the program.
    pub kind: EventKind,
    readiness: Readiness,
    is_wake: bool,
}

/// Where the docs don't show it:
///
/// ```compile_fail,E0308
/// # use pollio::{OsPoller, Poller};
/// # let mut poller = OsPoller::new()?;
/// # let registry = poller.registry().clone();
/// for event in poller.wait(0)? {
///     registry.modify(*event)?; // expected `EventObject`, found `Event`
/// }
/// # Ok::<(), std::io::Error>(())
/// ```
#[cfg(doctest)]
struct RegisteringAnEventDoesNotCompile;

// A wait writes one of these for each event: five to a cache line.
const _: () = assert!(size_of::<Event>() == 12);

impl Event {
    /// An event, for a backend of your own.
    #[must_use]
    pub const fn new(fd: RawFd, kind: EventKind, token: u32, readiness: Readiness) -> Self {
        Self { fd, token, kind, readiness, is_wake: false }
    }

    /// The event of a [`Waker`](crate::Waker), for a backend of your own. `fd` is the poller's own descriptor, if
    /// it has one, or negative: nothing that is registered can have it.
    #[must_use]
    pub const fn wake(fd: RawFd, token: u32) -> Self {
        let (kind, readiness) = (EventKind::Client, Readiness::READABLE);
        Self { fd, token, kind, readiness, is_wake: true }
    }

    /// A [`Waker`](crate::Waker) was woken, or a [`channel`](crate::channel()) has values: the one with this
    /// `token`. No descriptor is ready; `fd` is that of the poller.
    #[must_use]
    pub const fn is_wake(&self) -> bool {
        self.is_wake
    }

    /// A read would not block: it returns data, a connection, the end, or the error.
    #[must_use]
    pub const fn is_readable(&self) -> bool {
        self.readiness.contains(Readiness::READABLE)
    }

    /// A write would not block: there is room, or it returns the error.
    #[must_use]
    pub const fn is_writable(&self) -> bool {
        self.readiness.contains(Readiness::WRITABLE)
    }

    /// Exceptional data can be read, as [`Interest::PRIORITY`](crate::Interest::PRIORITY) explains,
    /// also where there is none.
    #[must_use]
    pub const fn is_priority(&self) -> bool {
        self.readiness.contains(Readiness::PRIORITY)
    }

    /// The peer will send no more, or the program has shut down its own reading. You can still read what was
    /// sent before, until a read returns zero bytes. A half-close needs the interest `READABLE`.
    #[must_use]
    pub const fn is_read_closed(&self) -> bool {
        self.readiness.contains(Readiness::READ_CLOSED)
    }

    /// Nothing more can be sent: both directions are shut down. Epoll reports this also for a socket that
    /// is not yet connected.
    #[must_use]
    pub const fn is_write_closed(&self) -> bool {
        self.readiness.contains(Readiness::WRITE_CLOSED)
    }

    /// An error is pending, which the next call returns: the connection was refused or reset, or, on epoll, the reader
    /// of a pipe is gone. For a socket, [`TcpStream::take_error`](std::net::TcpStream::take_error) says which
    /// (`SO_ERROR`). On epoll it may also be a message in the socket's [error
    /// queue](crate::guide::first_server#what-readiness-does-not-mean), which no read returns.
    #[must_use]
    pub const fn is_error(&self) -> bool {
        self.readiness.contains(Readiness::ERROR)
    }

    /// All of the readiness, as bits.
    #[must_use]
    pub const fn readiness(&self) -> Readiness {
        self.readiness
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_predicate_reads_only_its_own_bit() {
        let predicates = [
            (Readiness::READABLE, Event::is_readable as fn(&Event) -> bool),
            (Readiness::WRITABLE, Event::is_writable),
            (Readiness::PRIORITY, Event::is_priority),
            (Readiness::READ_CLOSED, Event::is_read_closed),
            (Readiness::WRITE_CLOSED, Event::is_write_closed),
            (Readiness::ERROR, Event::is_error),
        ];
        for (bit, _) in predicates {
            let event = Event::new(5, EventKind::Client, 0, bit);
            for (other, predicate) in predicates {
                assert_eq!(predicate(&event), bit == other);
            }
        }
    }
}
