//! What is measured.

pub(crate) mod churn;
pub(crate) mod crowd;
pub(crate) mod echo;
pub(crate) mod hot;
pub(crate) mod idle;
pub(crate) mod memory;
pub(crate) mod timeout;
pub(crate) mod wake;

use std::io;

use indicatif::ProgressBar;

use crate::method::Row;
use crate::peer::{Asked, Mode, Peer};

/// How much is measured.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Plan {
    pub(crate) quick: bool,
}

impl Plan {
    pub(crate) fn rounds(self) -> usize {
        if self.quick { 3 } else { 11 }
    }

    /// Few of `all`, or all of them.
    pub(crate) fn some<T: Copy>(self, few: &[T], all: &[T]) -> Vec<T> {
        if self.quick { few.to_vec() } else { all.to_vec() }
    }
}

/// A workload: what it is called, what it counts, and how it is run.
pub(crate) struct Workload {
    pub(crate) name: &'static str,
    pub(crate) counts: &'static str,
    pub(crate) run: fn(Plan, &ProgressBar) -> io::Result<Vec<Row>>,
}

pub(crate) const ALL: [Workload; 9] = [
    Workload { name: "hot", counts: hot::COUNTS, run: hot::run },
    Workload { name: "crowd", counts: crowd::COUNTS, run: crowd::run },
    Workload { name: "churn", counts: churn::CHURN, run: churn::churn },
    Workload { name: "flip", counts: churn::FLIP, run: churn::flip },
    Workload { name: "wake", counts: wake::COUNTS, run: wake::run },
    Workload { name: "timeout", counts: timeout::COUNTS, run: timeout::run },
    Workload { name: "idle", counts: idle::COUNTS, run: idle::run },
    Workload { name: "memory", counts: memory::COUNTS, run: memory::run },
    Workload { name: "echo", counts: echo::COUNTS, run: echo::run },
];

/// Level-triggered, or edge-triggered if a peer has nothing else.
pub(crate) fn asked_naturally<P: Peer>() -> Asked {
    if P::lacks(Asked::LEVEL).is_none() { Asked::LEVEL } else { Asked::in_mode(Mode::Edge) }
}
