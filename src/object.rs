//! What goes into a poller: a registration.

use std::os::fd::RawFd;

use crate::interest::{Interest, Mode};

/// A registration: a descriptor, which readiness to report, and when.
///
/// [`server`](Self::server), [`client`](Self::client) and [`new`](Self::new) create one that is readable,
/// level-triggered, with token 0; the `with_…` methods refine it. Then [`add`](crate::Poller::add) it.
///
/// [`modify`](crate::Poller::modify) replaces all of a registration. So keep the `EventObject` that you added, or build
/// it again: an [`Event`](crate::Event) is not one.
///
/// ```
/// use pollio::{EventObject, Interest, Mode};
///
/// let object = EventObject::client(5)
///     .with_interest(Interest::BOTH)
///     .with_mode(Mode::Edge)
///     .with_token(42);
/// assert_eq!((object.fd, object.token), (5, 42));
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[must_use = "it registers nothing until it is added to a poller"]
pub struct EventObject {
    /// The descriptor.
    pub fd: RawFd,
    /// The descriptor's role in the program.
    pub kind: EventKind,
    /// Any number that the program finds useful: the slot of a connection, or a generation that
    /// distinguishes a stale event from a current one when a descriptor's number is used again.
    #[doc(alias("Token", "key", "user_data"))]
    pub token: u32,
    interest: Interest,
    mode: Mode,
    exclusive: bool,
}

const _: () = assert!(size_of::<EventObject>() <= 16);

/// The role of a descriptor, as the program sees it; pollio treats both alike.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum EventKind {
    /// A listening socket.
    Server,
    /// A connection, or anything else: a timer, a signal pipe. `fd` or `token` tells them apart.
    Client,
}

impl EventObject {
    /// A registration of `fd` in the role of a listening socket: readable, level, token 0.
    pub const fn server(fd: RawFd) -> Self {
        Self { kind: EventKind::Server, ..Self::new(fd) }
    }

    /// A registration of `fd` in the role of a connection: readable, level, token 0.
    pub const fn client(fd: RawFd) -> Self {
        Self::new(fd)
    }

    /// A registration of `fd` that is neither: a timer, a pipe, another poller. It is readable, level, token 0,
    /// and its kind is [`Client`](EventKind::Client).
    pub const fn new(fd: RawFd) -> Self {
        Self {
            fd,
            kind: EventKind::Client,
            token: 0,
            interest: Interest::READABLE,
            mode: Mode::Level,
            exclusive: false,
        }
    }

    /// The same registration with another interest.
    pub const fn with_interest(self, interest: Interest) -> Self {
        Self { interest, ..self }
    }

    /// The same registration, reported as often as `mode` says.
    pub const fn with_mode(self, mode: Mode) -> Self {
        Self { mode, ..self }
    }

    /// The same registration with another [`token`](Self::token).
    pub const fn with_token(self, token: u32) -> Self {
        Self { token, ..self }
    }

    /// The same registration, sharing its wake-ups: if several pollers add one descriptor as exclusive,
    /// the kernel wakes one or a few of them instead of all.
    ///
    /// Linux only (`EPOLLEXCLUSIVE` in
    /// [epoll_ctl(2)](https://man7.org/linux/man-pages/man2/epoll_ctl.2.html), 4.5): kqueue wakes all of
    /// them. It is meant for listening sockets. The kernel accepts it only with `READABLE` and `WRITABLE`,
    /// level or edge. With `PRIORITY` or `Oneshot`, `add` is `InvalidInput`; a later `modify` always is.
    /// A half-close is reported as readable, without [`is_read_closed`](crate::Event::is_read_closed). It
    /// does not balance the load; see the [guide](crate::guide::descriptors#listening-sockets).
    pub const fn exclusive(self) -> Self {
        Self { exclusive: true, ..self }
    }

    /// Which readiness is reported.
    #[must_use]
    pub const fn interest(&self) -> Interest {
        self.interest
    }

    /// When it is reported.
    #[must_use]
    pub const fn mode(&self) -> Mode {
        self.mode
    }

    /// Whether it is [`exclusive`](Self::exclusive).
    #[must_use]
    pub const fn is_exclusive(&self) -> bool {
        self.exclusive
    }
}
