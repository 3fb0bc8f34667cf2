//! The workloads.

pub(crate) mod echo;
pub(crate) mod idle;
pub(crate) mod look_up;
pub(crate) mod many_idle;
pub(crate) mod memory;
pub(crate) mod ready_events;
pub(crate) mod registering;
pub(crate) mod send;
pub(crate) mod share;
pub(crate) mod spin;
pub(crate) mod timeout;
pub(crate) mod wake;

use std::io;

use indicatif::ProgressBar;

use crate::method::Row;

/// The size of a run.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Plan {
    pub(crate) quick: bool,
}

impl Plan {
    pub(crate) fn rounds(self) -> usize {
        self.of([3, 15])
    }

    /// `quick` in the quick plan, otherwise `full`.
    pub(crate) fn of<T: Copy>(self, [quick, full]: [T; 2]) -> T {
        if self.quick { quick } else { full }
    }

    /// Few of `all`, or all of them.
    pub(crate) fn some<T: Copy>(self, few: &[T], all: &[T]) -> Vec<T> {
        self.of([few, all]).to_vec()
    }
}

/// A workload: its name, its description, and its code.
pub(crate) struct Workload {
    pub(crate) name: &'static str,
    pub(crate) counts: &'static str,
    /// The number of its cases in the quick plan, and in the full one.
    pub(crate) cases: [u64; 2],
    pub(crate) run: fn(Plan, &ProgressBar) -> io::Result<Vec<Row>>,
}

pub(crate) const ALL: [Workload; 13] = [
    Workload {
        name: "ready_events",
        counts: ready_events::COUNTS,
        cases: [6, 30],
        run: ready_events::run,
    },
    Workload { name: "many_idle", counts: many_idle::COUNTS, cases: [2, 5], run: many_idle::run },
    Workload {
        name: "add_delete",
        counts: registering::ADD_DELETE,
        cases: [1, 1],
        run: registering::add_delete,
    },
    Workload {
        name: "modify",
        counts: registering::MODIFY,
        cases: [1, 1],
        run: registering::modify,
    },
    Workload { name: "look_up", counts: look_up::COUNTS, cases: [1, 3], run: look_up::run },
    Workload { name: "wake", counts: wake::COUNTS, cases: [6, 6], run: wake::run },
    Workload { name: "send", counts: send::COUNTS, cases: [2, 2], run: send::run },
    Workload { name: "share", counts: share::COUNTS, cases: [2, 6], run: share::run },
    Workload { name: "spin", counts: spin::COUNTS, cases: [3, 3], run: spin::run },
    Workload { name: "timeout", counts: timeout::COUNTS, cases: [3, 3], run: timeout::run },
    Workload { name: "idle", counts: idle::COUNTS, cases: [1, 1], run: idle::run },
    Workload { name: "memory", counts: memory::COUNTS, cases: [1, 1], run: memory::run },
    Workload { name: "echo", counts: echo::COUNTS, cases: [4, 13], run: echo::run },
];
