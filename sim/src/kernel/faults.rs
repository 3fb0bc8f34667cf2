//! The faults of one world, drawn by its conditions.

use crate::conditions::{Conditions, Kind};
use crate::schedule::Random;

/// The kinds of faults that a world has, and the number that is left.
pub(crate) struct Faults {
    conditions: Conditions,
    /// A fault of a kind that may occur occurs one time in so many.
    rarity: u64,
    left: u32,
}

impl Faults {
    pub(crate) fn draw(mut conditions: Conditions, random: &mut Random) -> Self {
        // A fork, so that a world without datagrams draws what it drew before there were any.
        let mut fork = random.fork();
        conditions.keep(
            |kind| {
                if kind.is_of_datagrams() { fork.one_in(2) } else { random.one_in(2) }
            },
        );
        let left = conditions.max_faults();
        Self { conditions, rarity: random.magnitude(&(2..=64)), left }
    }

    pub(crate) const fn conditions(&self) -> &Conditions {
        &self.conditions
    }

    /// Draws whether a fault occurs here.
    pub(crate) fn draw_fault(&mut self, kind: Kind, random: &mut Random) -> bool {
        let occurs = self.left > 0 && self.conditions.has(kind) && random.one_in(self.rarity);
        self.left -= u32::from(occurs);
        occurs
    }
}
