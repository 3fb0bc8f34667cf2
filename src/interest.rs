//! What is asked of a poller: which readiness, and how often it is told.

use bitflags::bitflags;

bitflags! {
    /// The readiness that a registration asks for, joined by `|`.
    ///
    /// Epoll tells of errors and hang-ups whatever the interest is, kqueue with the directions that
    /// were asked for.
    ///
    /// ```
    /// use pollio::Interest;
    ///
    /// let both = Interest::READABLE | Interest::WRITABLE;
    /// assert!(both.contains(Interest::WRITABLE));
    /// assert!(Interest::NONE.is_empty());
    /// ```
    #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
    pub struct Interest: u8 {
        /// A read would not block: there is data, a connection to accept, or the end.
        const READABLE = 1 << 0;
        /// A write would not block: there is room, or a connection was made or refused.
        const WRITABLE = 1 << 1;
        /// Something exceptional is there to be read: out-of-band data on a TCP socket, a packet
        /// from a pseudo-terminal in packet mode, a changed file in cgroupfs. `POLLPRI` in
        /// [poll(2)](https://man7.org/linux/man-pages/man2/poll.2.html) lists them all. Kqueue knows
        /// of out-of-band data alone, and on FreeBSD and NetBSD of nothing.
        const PRIORITY = 1 << 2;
    }
}

impl Interest {
    /// Nothing is asked. The registration stays, and tells of errors and hang-ups alone, on kqueue
    /// of nothing.
    pub const NONE: Self = Self::empty();
}

/// How often a registration tells of its readiness.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub enum Mode {
    /// At every wait, for as long as the condition lasts.
    #[default]
    Level,
    /// Once for each new arrival, counting what is there when the descriptor is added or modified.
    ///
    /// Read or write until `WouldBlock`, or there may be no further event. To stop earlier, so that
    /// others have their turn, `modify` the registration: that tells again of what is left.
    Edge,
    /// Once, for all interests together; then silence until the next `modify`.
    ///
    /// A `modify` tells at once of what is still there, so nothing needs to be drained.
    Oneshot,
    /// [`Edge`](Self::Edge) and [`Oneshot`](Self::Oneshot) at once, for those who have to say both.
    /// Epoll makes no difference between this and `Oneshot`.
    EdgeOneshot,
}
