//! What goes into a poller and what comes out, and how it travels through the kernel.

use std::os::fd::RawFd;

use crate::{Interest, Mode, Readiness};

/// A registered descriptor: what is asked of it on the way in, what is true of it on the way out.
///
/// On the way in, [`server`](Self::server) or [`client`](Self::client) make one that asks for
/// reading, level-triggered, with token 0; the `with_…` methods refine it.
///
/// On the way out, [`wait`](crate::Poller::wait) gives back `fd`, `kind` and `token` as they were
/// last added or modified, and the predicates tell the readiness. Interest and mode are not
/// kept: they are again those of `server` and `client`, so that an event can be refined once more
/// and handed to [`modify`](crate::Poller::modify).
///
/// ```
/// use pollio::{EventObject, Interest, Mode};
///
/// let object = EventObject::client(5)
///     .with_interest(Interest::READABLE | Interest::WRITABLE)
///     .with_mode(Mode::Edge)
///     .with_token(42);
/// assert_eq!((object.fd, object.token), (5, 42));
/// assert!(!object.is_readable()); // nobody has waited yet
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EventObject {
    /// The descriptor.
    pub fd: RawFd,
    /// The descriptor's role in the program.
    pub kind: EventKind,
    /// Any number that the program finds useful: the slot of a connection, or a generation that
    /// tells a stale event from a fresh one when a descriptor's number is used again.
    pub token: u32,
    interest: Interest,
    mode: Mode,
    exclusive: bool,
    readiness: Readiness,
}

// A wait decodes one of these for each event: four to a cache line.
const _: () = assert!(size_of::<EventObject>() <= 16);

/// The role of a descriptor, as the program sees it; pollio treats both alike.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum EventKind {
    /// A listening socket.
    Server,
    /// A connection, or anything else: a waker, a signal pipe, told apart by `fd` or `token`.
    Client,
}

/// What goes in.
impl EventObject {
    /// Asks for `fd` in the role of a listening socket: readable, level, token 0.
    #[must_use]
    pub const fn server(fd: RawFd) -> Self {
        Self::new(fd, EventKind::Server, 0)
    }

    /// Asks for `fd` in the role of a connection: readable, level, token 0.
    #[must_use]
    pub const fn client(fd: RawFd) -> Self {
        Self::new(fd, EventKind::Client, 0)
    }

    const fn new(fd: RawFd, kind: EventKind, token: u32) -> Self {
        Self {
            fd,
            kind,
            token,
            interest: Interest::READABLE,
            mode: Mode::Level,
            exclusive: false,
            readiness: Readiness::empty(),
        }
    }

    /// The same object, asking for `interest` in place of what it asked for.
    #[must_use]
    pub const fn with_interest(self, interest: Interest) -> Self {
        Self { interest, ..self }
    }

    /// The same object, told as often as `mode` says.
    #[must_use]
    pub const fn with_mode(self, mode: Mode) -> Self {
        Self { mode, ..self }
    }

    /// The same object with another [`token`](Self::token).
    #[must_use]
    pub const fn with_token(self, token: u32) -> Self {
        Self { token, ..self }
    }

    /// The same object, sharing its wake-ups: of several pollers that wait for one descriptor,
    /// each of which added it as exclusive, the kernel wakes one or a few instead of all.
    ///
    /// Linux only (`EPOLLEXCLUSIVE` in
    /// [epoll_ctl(2)](https://man7.org/linux/man-pages/man2/epoll_ctl.2.html), 4.5): kqueue wakes all
    /// of them. It is meant for listening sockets, and the kernel takes it with `READABLE` and
    /// `WRITABLE`, level or edge, alone: priority and the oneshot modes are `InvalidInput`, and so is
    /// a later `modify`. A half-close is told as readable, without
    /// [`is_read_closed`](Self::is_read_closed).
    #[must_use]
    pub const fn exclusive(self) -> Self {
        Self { exclusive: true, ..self }
    }

    /// What is asked for.
    #[must_use]
    pub const fn interest(&self) -> Interest {
        self.interest
    }

    /// How often it is told.
    #[must_use]
    pub const fn mode(&self) -> Mode {
        self.mode
    }

    /// Whether [`exclusive`](Self::exclusive) was asked for.
    #[must_use]
    pub const fn is_exclusive(&self) -> bool {
        self.exclusive
    }
}

/// What comes out.
///
/// An error or a full hang-up counts as readable and as writable too, for neither a read nor a
/// write would block: a loop that looks at [`is_readable`](Self::is_readable) and
/// [`is_writable`](Self::is_writable) alone meets every one of them in the call that it makes.
impl EventObject {
    /// A read would not block: it gives data, a connection, the end, or the error.
    #[must_use]
    pub const fn is_readable(&self) -> bool {
        self.readiness.contains(Readiness::READABLE)
    }

    /// A write would not block: there is room, or it gives the error.
    #[must_use]
    pub const fn is_writable(&self) -> bool {
        self.readiness.contains(Readiness::WRITABLE)
    }

    /// Something exceptional is there to be read, as [`Interest::PRIORITY`] explains. FreeBSD and
    /// NetBSD never tell of it.
    #[must_use]
    pub const fn is_priority(&self) -> bool {
        self.readiness.contains(Readiness::PRIORITY)
    }

    /// The peer will send no more, or the program has shut its own reading down. What was sent before
    /// is still there to be read, up to a read of zero bytes. A half-close is told to those who asked
    /// for `READABLE`.
    #[must_use]
    pub const fn is_read_closed(&self) -> bool {
        self.readiness.contains(Readiness::READ_CLOSED)
    }

    /// Nothing can be sent any more: both directions are shut, or were never open, as on a socket
    /// that epoll watches before it is connected.
    #[must_use]
    pub const fn is_write_closed(&self) -> bool {
        self.readiness.contains(Readiness::WRITE_CLOSED)
    }

    /// An error is pending, which the next call returns: a refused or reset connection, and on epoll
    /// a pipe whose reader is gone. Of a socket, `SO_ERROR` tells which
    /// ([`TcpStream::take_error`](std::net::TcpStream::take_error)).
    #[must_use]
    pub const fn is_error(&self) -> bool {
        self.readiness.contains(Readiness::ERROR)
    }

    /// All that is true of the descriptor, as bits.
    #[must_use]
    pub const fn readiness(&self) -> Readiness {
        self.readiness
    }

    /// The same object with this readiness: for backends, which make events.
    #[must_use]
    pub const fn with_readiness(self, readiness: Readiness) -> Self {
        Self { readiness, ..self }
    }
}

/// The bit of the user data that tells a server from a client. The descriptor leaves it free:
/// it is not negative.
const SERVER: u64 = 1 << 63;

/// How identity travels through a kernel that carries 64 bits for each registration.
impl EventObject {
    /// Packs `token`, `fd` and `kind` into 32, 31 and 1 bits, from the low end up.
    ///
    /// The sign of `fd` is lost: no kernel registers a negative descriptor.
    #[must_use]
    #[expect(clippy::cast_sign_loss, reason = "the sign bit is masked off")]
    pub const fn to_user_data(self) -> u64 {
        let fd = (self.fd & RawFd::MAX) as u64;
        let kind = match self.kind {
            EventKind::Server => SERVER,
            EventKind::Client => 0,
        };
        kind | fd << 32 | self.token as u64
    }

    /// Unpacks what [`to_user_data`](Self::to_user_data) packed; the rest is as in
    /// [`client`](Self::client).
    #[must_use]
    #[expect(clippy::cast_possible_truncation, reason = "each part is masked to its width")]
    pub const fn from_user_data(data: u64) -> Self {
        let kind = if data & SERVER == 0 { EventKind::Client } else { EventKind::Server };
        Self::new(((data & !SERVER) >> 32) as RawFd, kind, data as u32)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn user_data_brings_back_fd_kind_and_token() {
        for fd in [0, 1, 16_384, RawFd::MAX] {
            for token in [0, 1, 1 << 31, u32::MAX] {
                for object in [EventObject::server(fd), EventObject::client(fd)] {
                    let object = object.with_token(token);
                    assert_eq!(EventObject::from_user_data(object.to_user_data()), object);
                }
            }
        }
    }

    #[test]
    fn every_part_of_the_user_data_has_bits_of_its_own() {
        let client = EventObject::client(0);
        assert_eq!(client.with_token(u32::MAX).to_user_data(), 0xffff_ffff);
        assert_eq!(EventObject::client(RawFd::MAX).to_user_data(), 0x7fff_ffff << 32);
        assert_eq!(EventObject::server(0).to_user_data(), 1 << 63);
    }

    #[test]
    fn each_predicate_tells_of_its_own_bit_alone() {
        for (bit, predicate) in [
            (Readiness::READABLE, EventObject::is_readable as fn(&EventObject) -> bool),
            (Readiness::WRITABLE, EventObject::is_writable),
            (Readiness::PRIORITY, EventObject::is_priority),
            (Readiness::READ_CLOSED, EventObject::is_read_closed),
            (Readiness::WRITE_CLOSED, EventObject::is_write_closed),
            (Readiness::ERROR, EventObject::is_error),
        ] {
            assert!(predicate(&EventObject::client(0).with_readiness(bit)));
            assert!(!predicate(&EventObject::client(0).with_readiness(!bit)));
        }
    }

    #[test]
    fn a_negative_descriptor_does_not_change_the_kind() {
        let object = EventObject::from_user_data(EventObject::client(-1).to_user_data());
        assert_eq!(object.kind, EventKind::Client);
    }
}
