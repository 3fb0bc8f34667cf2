//! What the network of a world is like, and what may go wrong in it.

use std::ops::RangeInclusive;
use std::time::Duration;

use crate::random::Random;

/// What the network is like, and what may go wrong: limits within which the seed chooses.
///
/// A world begins with the default: every condition that a correct server passes without its clients
/// noticing. What breaks connections has to be switched on. Set it with
/// [`World::set_conditions`](super::World::set_conditions):
///
/// ```
/// use pollio_sim::{self as sim, Conditions};
///
/// sim::check(100, |world| {
///     world.set_conditions(Conditions { resets: true, ..Conditions::default() });
///     // …
///     Ok(())
/// });
/// ```
///
/// Each seed draws which kinds of faults it has at all, so that in some worlds only one kind occurs and
/// often. Sizes and times are drawn over their orders of magnitude.
#[derive(Debug, Clone)]
pub struct Conditions {
    /// How long a packet takes from one end of a connection to the other.
    pub latency: RangeInclusive<Duration>,
    /// Bytes a second, in each direction of a connection.
    pub bandwidth: RangeInclusive<u64>,
    /// How many bytes a direction of a connection holds, written and not yet read. Honest programs can
    /// deadlock where it is below 512.
    pub buffer: RangeInclusive<u64>,
    /// How many faults there are at most in a world: faults without end make a correct program fail.
    pub faults: u32,
    /// A thread stops between two calls, for up to 10 ms, as one does that computes or shares its core.
    /// Costs no fault.
    pub pauses: bool,
    /// Data arrives in pieces, down to single bytes, each with an event of its own. Costs no fault.
    pub fragments: bool,
    /// A write finds less room than there is, and the room comes back later, with an event.
    pub short_writes: bool,
    /// [`accept`](super::net::TcpListener::accept) fails with `EMFILE`: the client stays in the queue, and
    /// no new edge is reported for it. So does [`Socket::new`](super::socket2::Socket::new), once a
    /// connection was accepted.
    pub failing_accepts: bool,
    /// A wait reports a stream or a listener as readable that is not; one at a
    /// [`Condvar`](super::sync::Condvar) ends without a notification.
    pub spurious: bool,
    /// For some seconds nothing arrives at either end of a connection.
    pub stalls: bool,
    /// A connection is reset, at both ends, at any byte; or before it is accepted, which is
    /// `ECONNABORTED`.
    pub resets: bool,
    /// A connection is refused although somebody listens.
    pub refusals: bool,
}

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
            faults: 0,
            pauses: false,
            fragments: false,
            short_writes: false,
            failing_accepts: false,
            spurious: false,
            stalls: false,
            resets: false,
            refusals: false,
        }
    }
}

impl Default for Conditions {
    /// 1 µs to 100 ms, 64 KiB to 1 GiB a second, buffers of 512 bytes to 256 KiB; at most 16 faults, of
    /// every kind but resets and refusals.
    fn default() -> Self {
        Self {
            latency: Duration::from_micros(1)..=Duration::from_millis(100),
            bandwidth: 1 << 16..=1 << 30,
            buffer: 1 << 9..=1 << 18,
            faults: 16,
            pauses: true,
            fragments: true,
            short_writes: true,
            failing_accepts: true,
            spurious: true,
            stalls: true,
            resets: false,
            refusals: false,
        }
    }
}

/// The conditions of one world: which kinds of faults it has, and how many are left.
pub(super) struct Weather {
    pub(super) limits: Conditions,
    /// A fault of a kind that may happen happens one time in so many.
    rarity: u64,
    pub(super) faults_left: u32,
}

impl Weather {
    pub(super) fn draw(mut limits: Conditions, random: &mut Random) -> Self {
        for kind in [
            &mut limits.pauses,
            &mut limits.fragments,
            &mut limits.short_writes,
            &mut limits.failing_accepts,
            &mut limits.spurious,
            &mut limits.stalls,
            &mut limits.resets,
            &mut limits.refusals,
        ] {
            *kind &= random.one_in(2);
        }
        let faults_left = limits.faults;
        Self { limits, rarity: random.magnitude(&(2..=64)), faults_left }
    }

    /// Whether a fault happens here, of a kind that the conditions have or not.
    pub(super) fn fault(
        &mut self,
        kind: impl Fn(&Conditions) -> bool,
        random: &mut Random,
    ) -> bool {
        let happens = self.faults_left > 0 && kind(&self.limits) && random.one_in(self.rarity);
        if happens {
            self.faults_left -= 1;
        }
        happens
    }
}
