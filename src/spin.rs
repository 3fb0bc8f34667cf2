//! Whether to spin before sleeping, and for how long: pure, with the times as arguments.

use std::time::Duration;

/// Decides what the next wait does, from the results of the last ones.
///
/// [KVM's halt polling](https://docs.kernel.org/virt/kvm/halt-polling.html) has the same to decide:
/// it spins longer where an event came soon, shorter and then not at all where none did. Here two
/// things pay for a spin.
///
/// An account of time pays for spins of the full limit. A caught event adds one limit, a spin without an event costs
/// the time that it took, and a sleep beyond the limit adds a little. So a side that has caught events keeps spinning
/// through a pause of the other side.
///
/// A sleep that an event ends within the limit pays for a *probe*: a spin no longer than that sleep. If the other side
/// has a core of its own, its answer arrives sooner than that, since no thread has to be woken here. If it needs this
/// core, no spin ever sees its answer. So probes without an event become rare.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Spin {
    /// In nanoseconds, like all times here: adding `Duration`s takes more instructions.
    limit: u64,
    /// The time left for spins of the full limit. It starts at one limit.
    balance: u64,
    /// The length of the probe that is due; zero if none is.
    probe: u64,
    /// How many probes have failed since an event was caught.
    failed: u32,
    /// How many waits only slept since the last spin.
    sleeps: u32,
}

/// What a wait does before it blocks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Next {
    /// Nothing.
    Sleep,
    /// Nothing, but if an event ends the sleep, [`Spin::slept`] gets its length.
    TimedSleep,
    /// It spins for up to this long, then calls [`Spin::caught`] or [`Spin::missed`].
    Spin(Duration),
    /// The same, but the time of a caught event is always measured, however short.
    Probe(Duration),
}

/// The account holds at most this many limits: after as many misses in a row, spinning stops.
const MAX_SAVED_SPINS: u64 = 8;

/// The part of a sleep beyond the limit that pays for spins.
const SLEEP_PER_SPIN: u64 = 256;

/// In nanoseconds. A wait shorter than this did not sleep (that costs two context switches): its event was
/// already pending.
const SHORTEST_SLEEP: u64 = 1_000;

/// How many sleeps come before the next probe, after `failed` probes since an event was caught:
///
/// | failed | sleeps before each probe | what this buys |
/// |---|---|---|
/// | 0 to 4 | 1, 2, 4, 8, 16 | after a pause, two sides are in step again within 8 rounds |
/// | 5 to 54 | 30; 1,500 in all | once each has a core again, they are in step within 60 rounds |
/// | 55 to 60 | 60, 120, … 1,920 | each step halves the time that probes cost |
/// | 61 and more | 1,920 | two sides that share a core lose less than 1 % to probes |
const fn sleeps_before_probe(failed: u32) -> u32 {
    match failed {
        0..5 => 1 << failed,
        5..55 => 30,
        55..61 => 60 << (failed - 55),
        61.. => 1_920,
    }
}

impl Spin {
    /// Spins for up to `limit`; not at all, if it is zero.
    pub(crate) fn up_to(limit: Duration) -> Option<Self> {
        // The account holds up to this many limits plus one, which must not overflow.
        let limit = nanoseconds(limit).min(u64::MAX / (MAX_SAVED_SPINS + 1));
        (limit > 0).then_some(Self { limit, balance: limit, probe: 0, failed: 0, sleeps: 0 })
    }

    /// What the next wait does. Counts a sleep.
    pub(crate) fn next_wait(&mut self) -> Next {
        if self.balance >= self.limit {
            return Next::Spin(Duration::from_nanos(self.limit));
        }
        if self.probe > 0 {
            return Next::Probe(Duration::from_nanos(self.probe));
        }
        self.sleeps = self.sleeps.saturating_add(1);
        if self.sleeps < sleeps_before_probe(self.failed) { Next::Sleep } else { Next::TimedSleep }
    }

    /// An event ended a timed sleep after `slept`.
    pub(crate) fn slept(&mut self, slept: Duration) {
        let slept = nanoseconds(slept);
        if slept > self.limit {
            self.earn(slept);
        } else if slept >= SHORTEST_SLEEP {
            self.probe = slept;
        }
    }

    /// An event came after spinning for `spun`; zero if it came too soon to be measured.
    pub(crate) fn caught(&mut self, spun: Duration) {
        let window = if self.balance >= self.limit { self.limit } else { self.probe };
        if nanoseconds(spun) > window {
            // Longer than the spin may last: another thread had the core. A sleeper would have got it back at once.
            return self.missed(spun, Duration::ZERO);
        }
        self.balance = (self.balance + self.limit).min(MAX_SAVED_SPINS * self.limit);
        (self.probe, self.failed, self.sleeps) = (0, 0, 0);
    }

    /// No event came while spinning for `spun`. One ended the sleep that followed after `slept`; zero if none did.
    pub(crate) fn missed(&mut self, spun: Duration, slept: Duration) {
        if self.balance >= self.limit {
            self.balance -= self.limit.min(nanoseconds(spun));
        } else {
            self.failed = self.failed.saturating_add(1);
        }
        (self.probe, self.sleeps) = (0, 0);
        if nanoseconds(slept) > self.limit {
            self.earn(nanoseconds(slept));
        }
    }

    /// Pays for a sleep beyond the limit, up to the price of one spin.
    fn earn(&mut self, slept: u64) {
        if self.balance < self.limit {
            self.balance = (self.balance + slept / SLEEP_PER_SPIN).min(self.limit);
        }
    }
}

fn nanoseconds(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

// Tests that include this file do not repeat these.
#[cfg(all(test, not(included)))]
#[path = "spin/tests.rs"]
mod tests;
