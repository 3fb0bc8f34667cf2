//! Which wait reports a oneshot: the first one, and no other.

use std::io;
use std::sync::OnceLock;
use std::sync::atomic::Ordering::Relaxed;

use crate::sys::AtomicU32;

/// The generation of each descriptor's oneshot, and whether it was reported.
///
/// The kernel disables the one filter that fired, while a oneshot is reported once for all its
/// interests together. NetBSD's can report even the one filter to two waits at once: `kqueue_scan` unlocks
/// the queue while it runs the filter. So each oneshot has a generation, which its knotes carry. A wait
/// reports only what it can claim here: what an earlier wait or another thread's has reported, or what was
/// registered again since, it drops. Dropping loses nothing: the kernel has disabled the filter, and
/// `modify` makes it report again.
///
/// The entries stand in chunks, each as large as all before it, so that none ever moves: a wait reads
/// them without a lock. There is none before the first such registration.
pub(super) struct Claims {
    chunks: [OnceLock<Box<[AtomicU32]>>; CHUNKS],
}

/// How many numbers the first chunk has.
const FIRST: usize = 64;

/// Enough for every descriptor number: each chunk after the first doubles them.
const CHUNKS: usize = 1 + (31 - FIRST.ilog2()) as usize;

/// How many bits of a knote's user data are a generation.
pub(super) const GENERATION_BITS: u32 = 28;

// An entry is a generation, and in its lowest bit whether it was claimed.
const CLAIMED: u32 = 1;

impl Claims {
    pub(super) fn new() -> Self {
        Self { chunks: [const { OnceLock::new() }; CHUNKS] }
    }

    /// Whether there is an entry for this number.
    pub(super) fn has(&self, number: usize) -> bool {
        self.entry(number).is_some()
    }

    /// Makes an entry for this number, and for the others of its chunk. Only for the number of an open
    /// descriptor, and with the registry's lock held.
    pub(super) fn reserve(&self, number: usize) -> io::Result<()> {
        let (chunk, _) = locate(number);
        let count = if chunk == 0 { FIRST } else { FIRST << (chunk - 1) };
        let mut entries = Vec::new();
        entries.try_reserve_exact(count)?;
        entries.resize_with(count, || AtomicU32::new(0));
        // With the registry's lock held, no other thread makes it.
        self.chunks[chunk].get_or_init(|| entries.into_boxed_slice());
        Ok(())
    }

    /// Starts a generation of this number, with the registry's lock held and before the kernel has its
    /// knotes: afterwards, a wait in between would drop what it must report.
    pub(super) fn renew(&self, number: usize) -> u32 {
        let entry = self.entry(number).expect("it was reserved");
        let generation = next(entry.load(Relaxed) >> 1);
        // The kernel's lock on the kqueue orders this before the knotes that carry it; the swap, after any
        // claim of the generation before.
        entry.swap(generation << 1, Relaxed);
        generation
    }

    /// Whether the caller is the one to report this generation of the number.
    pub(super) fn claim(&self, number: usize, generation: u32) -> bool {
        let unclaimed = generation << 1;
        self.entry(number).is_some_and(|entry| {
            entry.compare_exchange(unclaimed, unclaimed | CLAIMED, Relaxed, Relaxed).is_ok()
        })
    }

    fn entry(&self, number: usize) -> Option<&AtomicU32> {
        let (chunk, place) = locate(number);
        self.chunks.get(chunk)?.get()?.get(place)
    }
}

/// The generation after this one. Not 0, which stands for knotes that need no claim.
fn next(generation: u32) -> u32 {
    generation % ((1 << GENERATION_BITS) - 1) + 1
}

/// The chunk of a number, and its place there.
fn locate(number: usize) -> (usize, usize) {
    let doublings = (usize::BITS - (number / FIRST).leading_zeros()) as usize;
    let before = if doublings == 0 { 0 } else { FIRST << (doublings - 1) };
    (doublings, number - before)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_number_has_a_place_of_its_own() {
        let mut expected = (0, 0);
        for number in 0..10_000 {
            assert_eq!(locate(number), expected);
            expected.1 += 1;
            if number + 1 == FIRST << expected.0 {
                expected = (expected.0 + 1, 0);
            }
        }
        assert_eq!(locate(i32::MAX as usize), (CHUNKS - 1, (1 << 30) - 1));
    }

    #[test]
    fn generations_start_again_at_one() {
        let last = (1 << GENERATION_BITS) - 1;
        assert_eq!((next(0), next(1), next(last - 1), next(last)), (1, 2, last, 1));
    }
}
