//! What a registration asks for: which readiness, and how often it is reported.

use crate::bits::bit_set;

/// The readiness that a registration asks for, joined by `|`.
///
/// Epoll reports errors and hang-ups with any interest; kqueue reports them only for the directions
/// that the interest has.
///
/// ```
/// use pollio::Interest;
///
/// let both = Interest::READABLE | Interest::WRITABLE;
/// assert_eq!(both, Interest::BOTH);
/// assert!(both.contains(Interest::WRITABLE));
/// assert!(Interest::NONE.is_empty());
/// ```
#[derive(Clone, Copy, Default, PartialEq, Eq, Hash)]
pub struct Interest(u8);

impl Interest {
    /// No interest. The registration stays, and reports only errors and hang-ups, on kqueue nothing.
    pub const NONE: Self = Self(0);
    /// A read would not block: data, a connection to accept, or the end.
    pub const READABLE: Self = Self(1 << 0);
    /// A write would not block: there is room, or a connection was made or refused.
    pub const WRITABLE: Self = Self(1 << 1);
    /// `READABLE | WRITABLE`: what most connections need in [`Mode::Edge`].
    pub const BOTH: Self = Self::READABLE.union(Self::WRITABLE);
    /// Exceptional data can be read: out-of-band data on a TCP socket, a packet from a pseudo-terminal in
    /// packet mode, a changed file in cgroupfs. `POLLPRI` in
    /// [poll(2)](https://man7.org/linux/man-pages/man2/poll.2.html) lists them all. Kqueue reports only
    /// out-of-band data, and on FreeBSD and NetBSD nothing.
    ///
    /// On Apple systems, use [`Mode::Edge`] with it. As a level, out-of-band data is reported until ordinary
    /// data follows; and while the receive buffer is full, a wait polls instead of sleeping.
    pub const PRIORITY: Self = Self(1 << 2);
}

bit_set!(Interest { READABLE WRITABLE PRIORITY });

/// When a registration reports its readiness.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Mode {
    /// By every wait, while the condition holds.
    #[default]
    Level,
    /// Once for each new arrival. If the descriptor is ready when it is added or modified, that counts as
    /// an arrival.
    ///
    /// Read or write until `WouldBlock`, or there may be no further event. To stop earlier, so that
    /// others have their turn, `modify` the registration: what is left is then reported again.
    Edge,
    /// Once, for all interests together; then nothing until the next `modify`.
    ///
    /// After a `modify`, the next wait reports what is still pending, so nothing needs to be drained.
    Oneshot,
}
