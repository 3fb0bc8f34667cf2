//! The places of a wait's events, by descriptor: the filters of one descriptor become one event.

use std::io;

/// A table with open addressing, twice as large as the number of events that a wait can have.
///
/// Descriptors are small numbers close to each other, so their lowest bits serve as the hash.
pub(super) struct Places {
    /// In each slot, the number of the wait that wrote it, and the place of an event.
    slots: Vec<u64>,
    /// Zero only in slots that no wait wrote.
    wait: u64,
}

/// A wait has no more events than `MAX_CAPACITY`.
const PLACE_BITS: u32 = 20;
/// The largest number of a wait that a slot can hold. Waits that poll reach it within weeks.
const LAST_WAIT: u64 = u64::MAX >> PLACE_BITS;
const _: () = assert!(crate::os_poller::MAX_CAPACITY <= 1 << PLACE_BITS);

impl Places {
    pub(super) fn new() -> Self {
        Self { slots: Vec::new(), wait: 0 }
    }

    /// Makes room for `capacity` events.
    pub(super) fn reserve(&mut self, capacity: usize) -> io::Result<()> {
        let count = 2 * capacity.next_power_of_two();
        self.slots.try_reserve_exact(count - self.slots.len())?;
        self.slots.resize(count, 0);
        Ok(())
    }

    /// Forgets the places of the last wait.
    pub(super) fn start(&mut self) {
        if self.wait == LAST_WAIT {
            self.slots.fill(0);
            self.wait = 0;
        }
        self.wait += 1;
    }

    /// The place for which `is_it` returns true, or else the slot in which to put it. `is_it` is called only for places
    /// of this wait.
    pub(super) fn find(
        &self,
        number: usize,
        is_it: impl Fn(usize) -> bool,
    ) -> Result<usize, usize> {
        let mask = self.slots.len() - 1;
        let mut slot = number & mask;
        loop {
            let (wait, place) = split(self.slots[slot]);
            if wait != self.wait {
                return Err(slot);
            }
            if is_it(place) {
                return Ok(place);
            }
            slot = (slot + 1) & mask;
        }
    }

    /// Puts a place in the slot that [`find`](Self::find) returned.
    pub(super) fn put(&mut self, slot: usize, place: usize) {
        self.slots[slot] = self.wait << PLACE_BITS | place as u64;
    }
}

fn split(slot: u64) -> (u64, usize) {
    let place = slot & ((1 << PLACE_BITS) - 1);
    (slot >> PLACE_BITS, usize::try_from(place).expect("it was one"))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The place of `number`, which is new at `place` if it has none.
    fn place_of(places: &mut Places, numbers: &mut Vec<usize>, number: usize) -> usize {
        match places.find(number, |place| numbers[place] == number) {
            Ok(place) => place,
            Err(slot) => {
                places.put(slot, numbers.len());
                numbers.push(number);
                numbers.len() - 1
            }
        }
    }

    #[test]
    fn a_full_table_of_numbers_that_share_their_low_bits_finds_each() {
        for step in [1, 8, 16, 1 << 20] {
            let mut places = Places::new();
            places.reserve(8).unwrap();
            for _ in 0..3 {
                places.start();
                let mut numbers = Vec::new();
                for place in 0..8 {
                    assert_eq!(place_of(&mut places, &mut numbers, place * step), place);
                }
                for place in (0..8).rev() {
                    assert_eq!(place_of(&mut places, &mut numbers, place * step), place);
                }
            }
        }
    }

    #[test]
    fn the_numbers_of_waits_start_again_and_find_nothing_of_the_first_ones() {
        let mut places = Places::new();
        places.reserve(8).unwrap();
        places.start();
        place_of(&mut places, &mut Vec::new(), 7);
        places.wait = LAST_WAIT - 1;
        for expected in [LAST_WAIT, 1, 2] {
            places.start();
            assert_eq!(places.wait, expected);
            let mut numbers = vec![99];
            for _ in 0..2 {
                assert_eq!(place_of(&mut places, &mut numbers, 8), 1);
            }
            assert_eq!(place_of(&mut places, &mut numbers, 7), 2);
            assert_eq!(place_of(&mut places, &mut numbers, 7), 2);
        }
    }

    #[test]
    fn a_wait_finds_nothing_of_those_before_it_nor_does_more_room_bring_it_back() {
        let mut places = Places::new();
        for capacity in [1, 2, 3, 224] {
            places.reserve(capacity).unwrap();
            places.start();
            assert_eq!(place_of(&mut places, &mut vec![99], 7), 1);
        }
    }
}
