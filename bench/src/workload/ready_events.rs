//! A few descriptors of many are ready, again and again.

use std::hint::black_box;
use std::io;
use std::os::fd::RawFd;
use std::time::Instant;

use indicatif::ProgressBar;

use super::Plan;
use crate::method::{Case, NO_POLLER, Row, Turn, compare, ns_each};
use crate::peer::{Asked, Mode, Peer, of_each_peer};
use crate::sockets::{Pairs, read, write};

pub(crate) const COUNTS: &str = "A of N registered Unix sockets are sent a byte each, the poller is \
    waited on until it has reported all A, and each is read when it is reported (and armed again, if \
    oneshot). Counted: the time for each event, in all, and net of the same writes and reads \
    without a poller.";

/// The number of events in a turn, after a tenth of them to warm up.
const EVENTS: usize = 10_000;

const METRIC: &str = "an event [ns]";

pub(crate) fn run(plan: Plan, progress: &ProgressBar) -> io::Result<Vec<Row>> {
    let mut rows = Vec::new();
    for registered in plan.some(&[1_000], &[100, 1_000, 9_000]) {
        let pairs = Pairs::new(registered)?;
        for active in plan.some(&[1, 256], &[1, 16, 256, 1_000]) {
            if active > registered {
                continue;
            }
            for mode in Mode::ALL {
                let case = Case {
                    workload: "ready_events",
                    name: format!("{}, {active} of {registered}", mode.name()),
                    rounds: plan.rounds(),
                };
                let mut turns = of_each_peer!(turn(&pairs, mode, active));
                turns.push(Turn {
                    peer: NO_POLLER,
                    run: Ok(Box::new(|| {
                        let turn = without(&pairs, active)?;
                        Ok(vec![(METRIC, turn)])
                    })),
                });
                rows.extend(compare(case, turns, progress));
            }
        }
    }
    Ok(rows)
}

fn turn<P: Peer>(pairs: &Pairs, mode: Mode, active: usize) -> Turn<'_> {
    let run = move || {
        let mut batches = Batches::<P>::new(pairs, mode, active)?;
        batches.handle(EVENTS / 10 / active + 1)?;
        let count = EVENTS / active;
        let start = Instant::now();
        batches.handle(count)?;
        Ok(vec![(METRIC, ns_each(start.elapsed(), count * active))])
    };
    let lacks = P::lacks(Asked::in_mode(mode));
    Turn { peer: P::NAME, run: lacks.map_or(Ok(Box::new(run)), Err) }
}

/// Sends to some of many sockets, and handles the events.
pub(crate) struct Batches<P> {
    poller: P,
    asked: Asked,
    far: Vec<RawFd>,
    reported: Vec<RawFd>,
}

impl<P: Peer> Batches<P> {
    pub(crate) fn new(pairs: &Pairs, mode: Mode, active: usize) -> io::Result<Self> {
        Self::over(P::new()?, pairs, mode, active)
    }

    /// The same, with a poller that has other registrations.
    pub(crate) fn over(
        mut poller: P,
        pairs: &Pairs,
        mode: Mode,
        active: usize,
    ) -> io::Result<Self> {
        let asked = Asked::in_mode(mode);
        pairs.near().try_for_each(|fd| poller.add(fd, asked))?;
        let (_, far) = pairs.spread(active);
        Ok(Self { poller, asked, far, reported: Vec::new() })
    }

    pub(crate) fn handle(&mut self, count: usize) -> io::Result<()> {
        let oneshot = self.asked.mode == Mode::Oneshot;
        for _ in 0..count {
            self.far.iter().try_for_each(|fd| write(*fd, b"x"))?;
            let mut reported = 0;
            while reported < self.far.len() {
                let mut byte = [0];
                self.poller.wait(|fd| {
                    // A spurious event would find nothing, and would not count.
                    reported += usize::from(read(fd, &mut byte).is_ok());
                    if oneshot {
                        self.reported.push(fd);
                    }
                })?;
                for fd in self.reported.drain(..) {
                    self.poller.modify(fd, self.asked)?;
                }
            }
        }
        Ok(())
    }
}

/// The same calls, by a loop that knows the ready sockets without a poller.
fn without(pairs: &Pairs, active: usize) -> io::Result<f64> {
    handle_without(pairs, active, EVENTS / 10 / active + 1)?;
    let count = EVENTS / active;
    let start = Instant::now();
    handle_without(pairs, active, count)?;
    Ok(ns_each(start.elapsed(), count * active))
}

pub(crate) fn handle_without(pairs: &Pairs, active: usize, count: usize) -> io::Result<()> {
    let (near, far) = pairs.spread(active);
    for _ in 0..count {
        far.iter().try_for_each(|fd| write(*fd, b"x"))?;
        let mut byte = [0];
        near.iter().try_for_each(|fd| read(black_box(*fd), &mut byte).map(drop))?;
    }
    Ok(())
}
