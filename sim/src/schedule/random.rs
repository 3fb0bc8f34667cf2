//! Numbers that look random and depend on the seed only.

use std::ops::RangeInclusive;
use std::time::Duration;

/// [SplitMix64](https://prng.di.unimi.it/splitmix64.c), by Steele, Lea and Flood: every seed is as
/// good as any other.
pub(crate) struct Random(u64);

impl Random {
    pub(crate) const fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// A fork: its numbers depend on the earlier ones, and do not change the later ones.
    pub(crate) const fn fork(&self) -> Self {
        Self(!self.0)
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut bits = self.0;
        bits = (bits ^ bits >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        bits = (bits ^ bits >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        bits ^ bits >> 31
    }

    /// A number below `limit`, and 0 below 0.
    pub(crate) fn below(&mut self, limit: u64) -> u64 {
        self.next().checked_rem(limit).unwrap_or(0)
    }

    /// An index into something of this length.
    pub(crate) fn index(&mut self, length: usize) -> usize {
        usize::try_from(self.below(length as u64)).unwrap_or(0)
    }

    pub(crate) fn one_in(&mut self, many: u64) -> bool {
        self.below(many) == 0
    }

    /// A number of the range, as often small as large: each order of magnitude is as likely.
    pub(crate) fn magnitude(&mut self, range: &RangeInclusive<u64>) -> u64 {
        let bits = |number: u64| u64::BITS - number.leading_zeros();
        let (low, high) = (*range.start(), *range.end());
        if low >= high {
            return low;
        }
        let span = u64::from(bits(high) - bits(low)) + 1;
        let shift = bits(low) + u32::try_from(self.below(span)).unwrap_or(0);
        let number = match shift {
            0 => 0,
            bits => 1 << (bits - 1) | self.below(1 << (bits - 1)),
        };
        number.clamp(low, high)
    }

    /// As [`magnitude`](Self::magnitude), of nanoseconds.
    pub(crate) fn duration(&mut self, range: &RangeInclusive<Duration>) -> Duration {
        let nanos = |time: &Duration| u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
        Duration::from_nanos(self.magnitude(&(nanos(range.start())..=nanos(range.end()))))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn random_numbers_are_those_of_splitmix64() {
        let mut random = Random::new(1_234_567);
        let numbers = [(); 3].map(|()| random.next());
        assert_eq!(numbers, [6457827717110365317, 3203168211198807973, 9817491932198370423]);
    }

    #[test]
    fn a_magnitude_is_of_the_range_and_reaches_its_ends() {
        let mut random = Random::new(1);
        for range in [0..=0, 0..=1, 7..=7, 1..=1000, 512..=262_144, 0..=u64::MAX] {
            let drawn: Vec<_> = (0..1_000).map(|_| random.magnitude(&range)).collect();
            assert!(drawn.iter().all(|number| range.contains(number)), "{range:?}");
            assert!(drawn.iter().any(|number| *number < range.end() / 64 + range.start() + 1));
        }
    }
}
