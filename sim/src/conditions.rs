//! The network of a world, and its faults.

use std::ops::RangeInclusive;
use std::time::Duration;

/// What the network is like, and what may go wrong: limits within which the seed chooses.
///
/// A world begins with the [default](Self::default): every condition that a correct server passes without its
/// clients noticing. You switch on what breaks connections:
///
/// ```
/// use pollio_sim::Conditions;
///
/// pollio_sim::check(100, |world| {
///     world.set_conditions(Conditions::default().with_resets(true));
///     // …
///     Ok(())
/// });
/// ```
///
/// Each seed draws which kinds of faults it has at all, so that in some worlds only one kind occurs and
/// often. Sizes and times are drawn over their orders of magnitude.
#[derive(Debug, Clone)]
pub struct Conditions {
    latency: RangeInclusive<Duration>,
    bandwidth: RangeInclusive<u64>,
    buffer: RangeInclusive<u64>,
    max_faults: u32,
    kinds: [bool; Kind::ALL.len()],
}

/// A property or a fault that can be on or off.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Pauses,
    Fragments,
    ShortWrites,
    FailingAccepts,
    Spurious,
    Stalls,
    Resets,
    Refusals,
    Losses,
    Duplicates,
    Reordering,
}

impl Kind {
    const ALL: [Self; 11] = [
        Self::Pauses,
        Self::Fragments,
        Self::ShortWrites,
        Self::FailingAccepts,
        Self::Spurious,
        Self::Stalls,
        Self::Resets,
        Self::Refusals,
        Self::Losses,
        Self::Duplicates,
        Self::Reordering,
    ];

    pub(crate) const fn is_of_datagrams(self) -> bool {
        matches!(self, Self::Losses | Self::Duplicates | Self::Reordering)
    }
}

/// The kinds that a correct program passes.
const DEFAULT: [Kind; 9] = [
    Kind::Pauses,
    Kind::Fragments,
    Kind::ShortWrites,
    Kind::FailingAccepts,
    Kind::Spurious,
    Kind::Stalls,
    Kind::Losses,
    Kind::Duplicates,
    Kind::Reordering,
];

impl Conditions {
    /// A network of one millisecond, in which nothing goes wrong. The seed still chooses which thread
    /// runs, and the order of events.
    #[must_use]
    pub fn calm() -> Self {
        let latency = Duration::from_millis(1);
        Self {
            latency: latency..=latency,
            bandwidth: 1 << 30..=1 << 30,
            buffer: 1 << 16..=1 << 16,
            max_faults: 0,
            kinds: [false; Kind::ALL.len()],
        }
    }

    /// How long a packet takes from one end of a connection to the other, or a datagram from a UDP socket to where it
    /// is sent.
    #[must_use]
    pub fn with_latency(self, latency: RangeInclusive<Duration>) -> Self {
        Self { latency, ..self }
    }

    /// How many bytes a second pass in each direction of a connection.
    #[must_use]
    pub fn with_bandwidth(self, bandwidth: RangeInclusive<u64>) -> Self {
        Self { bandwidth, ..self }
    }

    /// How many bytes a direction of a connection holds, written and not yet read, and a UDP socket, received and not
    /// yet read: there each datagram counts 832 bytes more, and a datagram that finds no room is lost, unless it would
    /// be the only one. Correct programs can deadlock where it is below 512.
    #[must_use]
    pub fn with_buffer(self, buffer: RangeInclusive<u64>) -> Self {
        Self { buffer, ..self }
    }

    /// At most this many faults occur in a world: without a limit, a correct program fails. Set it if you begin
    /// with [`calm`](Self::calm), where it is 0.
    #[must_use]
    pub fn with_max_faults(self, max_faults: u32) -> Self {
        Self { max_faults, ..self }
    }

    /// A thread stops between two calls, for up to 10 ms, as one does that computes or shares its core.
    /// Does not count as a fault.
    #[must_use]
    pub fn with_pauses(self, pauses: bool) -> Self {
        self.with(Kind::Pauses, pauses)
    }

    /// Data arrives in pieces, down to single bytes, each with an event of its own. Does not count as a fault.
    #[must_use]
    pub fn with_fragments(self, fragments: bool) -> Self {
        self.with(Kind::Fragments, fragments)
    }

    /// A write finds less room than there is, and the room comes back later, with an event.
    #[must_use]
    pub fn with_short_writes(self, short_writes: bool) -> Self {
        self.with(Kind::ShortWrites, short_writes)
    }

    /// [`accept`](crate::net::TcpListener::accept), of a Unix listener too, fails with `EMFILE`: the client
    /// stays in the queue, and no new edge is reported for it. So does
    /// [`Socket::new`](crate::socket2::Socket::new), once a TCP connection was accepted. On Apple systems no
    /// `accept` fails, since the client would be lost, whatever a server does:
    /// [`World::set_descriptor_limit`](crate::World::set_descriptor_limit) shows that.
    #[must_use]
    pub fn with_failing_accepts(self, failing_accepts: bool) -> Self {
        self.with(Kind::FailingAccepts, failing_accepts)
    }

    /// A wait reports a stream or a listener as readable that is not; one at a
    /// [`Condvar`](crate::sync::Condvar) ends without a notification, and a [`park`](crate::thread::park) without an
    /// `unpark`.
    #[must_use]
    pub fn with_spurious(self, spurious: bool) -> Self {
        self.with(Kind::Spurious, spurious)
    }

    /// For some seconds nothing arrives at either end of a connection.
    #[must_use]
    pub fn with_stalls(self, stalls: bool) -> Self {
        self.with(Kind::Stalls, stalls)
    }

    /// A connection is reset, at both ends, at any byte; or before it is accepted, which is
    /// `ECONNABORTED`.
    #[must_use]
    pub fn with_resets(self, resets: bool) -> Self {
        self.with(Kind::Resets, resets)
    }

    /// A connection is refused although a listener is there.
    #[must_use]
    pub fn with_refusals(self, refusals: bool) -> Self {
        self.with(Kind::Refusals, refusals)
    }

    /// A datagram is lost, or the error that would answer it.
    #[must_use]
    pub fn with_losses(self, losses: bool) -> Self {
        self.with(Kind::Losses, losses)
    }

    /// A datagram arrives twice, the second time up to 30 seconds later.
    #[must_use]
    pub fn with_duplicates(self, duplicates: bool) -> Self {
        self.with(Kind::Duplicates, duplicates)
    }

    /// A datagram is up to 30 seconds late, so that others overtake it.
    #[must_use]
    pub fn with_reordering(self, reordering: bool) -> Self {
        self.with(Kind::Reordering, reordering)
    }

    pub(crate) const fn latency(&self) -> &RangeInclusive<Duration> {
        &self.latency
    }

    pub(crate) const fn bandwidth(&self) -> &RangeInclusive<u64> {
        &self.bandwidth
    }

    pub(crate) const fn buffer(&self) -> &RangeInclusive<u64> {
        &self.buffer
    }

    pub(crate) const fn max_faults(&self) -> u32 {
        self.max_faults
    }

    pub(crate) const fn has(&self, kind: Kind) -> bool {
        self.kinds[kind as usize]
    }

    fn with(mut self, kind: Kind, is_on: bool) -> Self {
        self.kinds[kind as usize] = is_on;
        self
    }

    /// Leaves only the kinds that `is_kept` chooses, of those that are on. It is asked for each kind.
    pub(crate) fn keep(&mut self, mut is_kept: impl FnMut(Kind) -> bool) {
        for kind in Kind::ALL {
            self.kinds[kind as usize] &= is_kept(kind);
        }
    }
}

impl Default for Conditions {
    /// 1 µs to 100 ms, 64 KiB to 1 GiB a second, buffers of 512 bytes to 256 KiB; at most 16 faults, of
    /// every kind but resets and refusals.
    fn default() -> Self {
        let conditions = Self {
            latency: Duration::from_micros(1)..=Duration::from_millis(100),
            bandwidth: 1 << 16..=1 << 30,
            buffer: 1 << 9..=1 << 18,
            max_faults: 16,
            kinds: [false; Kind::ALL.len()],
        };
        DEFAULT.into_iter().fold(conditions, |conditions, kind| conditions.with(kind, true))
    }
}
