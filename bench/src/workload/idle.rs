//! A loop that only reads the clock.

use std::io;
use std::time::{Duration, Instant};

use indicatif::ProgressBar;
use nix::time::{ClockId, clock_gettime};

use super::Plan;
use crate::method::{Case, Row, Turn, compare};
use crate::peer::{TimesOut, all};

pub(crate) const COUNTS: &str = "A loop that nothing comes to, and that wakes up every 10 ms. \
    Counted: the part of a core that it takes.";

const TICK: Duration = Duration::from_millis(10);

pub(crate) fn run(plan: Plan, progress: &ProgressBar) -> io::Result<Vec<Row>> {
    let case = Case { workload: "idle", name: "every 10 ms".to_owned(), rounds: plan.of([1, 5]) };
    let turns = vec![
        turn::<all::Bare>(),
        turn::<all::Pollio<0>>(),
        turn::<all::Pollio<{ all::SPIN_US }>>(),
        turn::<all::Mio>(),
        turn::<all::Polling>(),
    ];
    Ok(compare(case, turns, progress))
}

fn turn<P: TimesOut>() -> Turn<'static> {
    let run = move || {
        let mut poller = P::new()?;
        let (start, busy) = (Instant::now(), time_on_a_core()?);
        (0..60).try_for_each(|_| poller.wait_for(TICK))?;
        let busy = time_on_a_core()? - busy;
        Ok(vec![("time [% of a core]", 100.0 * busy.as_secs_f64() / start.elapsed().as_secs_f64())])
    };
    Turn { peer: P::NAME, run: Ok(Box::new(run)) }
}

fn time_on_a_core() -> io::Result<Duration> {
    Ok(clock_gettime(ClockId::CLOCK_THREAD_CPUTIME_ID)?.into())
}
