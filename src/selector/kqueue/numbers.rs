//! An entry for each descriptor number, next to the kernel's knotes.

use std::sync::atomic::Ordering::Relaxed;

use crate::chunks::Chunks;
use crate::sys::AtomicU32;

/// An entry for each descriptor number. The first registration allocates the first of them. Waits read and mark them
/// without a lock.
pub(super) type Numbers = Chunks<Entry>;

/// Which oneshot a number has, whether it was reported, and whether the kernel dropped a knote.
///
/// The kernel disables only the filter that fired, but a oneshot is reported once for all its interests together.
/// NetBSD can even report one filter to two waits at once: `kqueue_scan` unlocks the queue while it runs the filter. So
/// each oneshot has a generation, which its knotes carry. A wait reports a oneshot only if it claims it here. It drops
/// one that another wait has claimed, or that was re-registered since. Dropping loses nothing: the kernel has disabled
/// the filter, and `modify` makes it report again.
///
/// Waits claim and mark, without a lock. All else happens with the lock held.
pub(super) struct Entry(AtomicU32);

const CLAIMED: u32 = 1 << 0;
const DROPPED: u32 = 1 << 1;
const INTEREST_SHIFT: u32 = 2;
const INTEREST: u32 = 0b111 << INTEREST_SHIFT;
const GENERATION_SHIFT: u32 = 5;

/// How many bits a generation has, here and in a knote's user data.
pub(super) const GENERATION_BITS: u32 = u32::BITS - GENERATION_SHIFT;

impl Entry {
    pub(super) fn new() -> Self {
        Self(AtomicU32::new(0))
    }

    /// The interest, as bits, with which this number is known to be a oneshot; else 0.
    pub(super) fn oneshot(&self) -> u32 {
        (self.0.load(Relaxed) & INTEREST) >> INTEREST_SHIFT
    }

    /// Notes that this number is a oneshot with this interest, once the kernel has all its knotes.
    pub(super) fn set_oneshot(&self, interest: u32) {
        self.0.fetch_or(interest << INTEREST_SHIFT, Relaxed);
    }

    /// Notes that this number is no oneshot, and has lost no knote. Returns whether it had.
    pub(super) fn reset(&self) -> bool {
        self.0.fetch_and(!(INTEREST | DROPPED), Relaxed) & DROPPED != 0
    }

    /// Starts a generation. Call it before the kernel gets knotes of it: otherwise a wait in between would drop an
    /// event that it must report.
    pub(super) fn renew(&self) -> u32 {
        // Relaxed is enough: the kernel's lock on the kqueue orders this before the new knotes, and the
        // read-modify-write orders it after any claim of the old generation.
        let before = self.0.fetch_update(Relaxed, Relaxed, |entry| Some(renewed(entry)));
        generation_of(renewed(before.unwrap_or_else(|entry| entry)))
    }

    /// Claims this generation. Returns whether the caller is the one to report it.
    pub(super) fn claim(&self, generation: u32) -> bool {
        self.0.fetch_update(Relaxed, Relaxed, |entry| claimed(entry, generation)).is_ok()
    }

    /// Notes that the kernel dropped a knote of this number.
    pub(super) fn note_dropped(&self) {
        self.0.fetch_or(DROPPED, Relaxed);
    }

    /// Whether the kernel dropped a knote of this number.
    pub(super) fn has_dropped(&self) -> bool {
        self.0.load(Relaxed) & DROPPED != 0
    }
}

fn generation_of(entry: u32) -> u32 {
    entry >> GENERATION_SHIFT
}

/// The entry with its next generation, not yet claimed.
fn renewed(entry: u32) -> u32 {
    next(generation_of(entry)) << GENERATION_SHIFT | entry & (INTEREST | DROPPED)
}

/// The entry with this generation claimed. `None` if it has another generation, or was already claimed.
fn claimed(entry: u32, generation: u32) -> Option<u32> {
    let is_unclaimed = generation_of(entry) == generation && entry & CLAIMED == 0;
    is_unclaimed.then_some(entry | CLAIMED)
}

/// The generation after this one. Not 0, which stands for knotes that need no claim.
fn next(generation: u32) -> u32 {
    generation % ((1 << GENERATION_BITS) - 1) + 1
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn generations_start_again_at_one() {
        let last = (1 << GENERATION_BITS) - 1;
        assert_eq!((next(0), next(1), next(last - 1), next(last)), (1, 2, last, 1));
        assert_eq!(generation_of(renewed(last << GENERATION_SHIFT | CLAIMED)), 1);
    }

    #[test]
    fn a_generation_is_claimed_once() {
        let first = renewed(0);
        assert_eq!(claimed(first, 1), Some(first | CLAIMED));
        assert_eq!(claimed(first | CLAIMED, 1), None);
        assert_eq!(claimed(first, 0), None);
        let second = renewed(first | CLAIMED);
        assert_eq!((claimed(second, 1), claimed(second, 2)), (None, Some(second | CLAIMED)));
    }

    #[test]
    fn a_generation_and_its_claim_change_nothing_else() {
        for kept in [0, DROPPED, INTEREST, 0b101 << INTEREST_SHIFT | DROPPED] {
            let entry = renewed(kept);
            assert_eq!(entry & (INTEREST | DROPPED), kept);
            assert_eq!(claimed(entry, 1), Some(entry | CLAIMED));
            assert_eq!(renewed(entry | CLAIMED) & (INTEREST | DROPPED | CLAIMED), kept);
        }
    }
}
