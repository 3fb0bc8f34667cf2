//! A wait that only its timeout ends.

use std::io;
use std::time::{Duration, Instant};

use indicatif::ProgressBar;

use super::Plan;
use crate::method::{Case, Row, Turn, compare};
use crate::peer::{Peer, TimesOut, all};
use crate::stats::Latencies;

pub(crate) const COUNTS: &str = "A wait for 50 µs, 500 µs and 5 ms, with nothing registered. \
    Counted: how late it ends, and how many end early.";

pub(crate) fn run(plan: Plan, progress: &ProgressBar) -> io::Result<Vec<Row>> {
    let mut rows = Vec::new();
    for (us, times) in [(50, 100), (500, 40), (5_000, 10)] {
        let timeout = Duration::from_micros(us);
        let case =
            Case { workload: "timeout", name: format!("{timeout:?}"), rounds: plan.rounds() };
        let mut turns = vec![
            turn::<all::Bare>(timeout, times),
            turn::<all::Pollio<0>>(timeout, times),
            turn::<all::Pollio<{ all::SPIN_US }>>(timeout, times),
            Turn { peer: all::Pollio01::NAME, run: Err("has whole milliseconds") },
            turn::<all::Mio>(timeout, times),
            turn::<all::Polling>(timeout, times),
        ];
        if cfg!(feature = "c-peers") {
            let absent = |peer| Turn { peer, run: Err("has timers in the place of a timeout") };
            turns.extend(["libevent", "libev", "libuv"].map(absent));
        }
        rows.extend(compare(case, turns, progress));
    }
    Ok(rows)
}

fn turn<P: TimesOut>(timeout: Duration, times: usize) -> Turn<'static> {
    let run = move || {
        let mut poller = P::new()?;
        poller.wait_for(timeout)?;
        let (mut late, mut early) = (Latencies::new(), 0_u32);
        for _ in 0..times {
            let start = Instant::now();
            poller.wait_for(timeout)?;
            match start.elapsed().checked_sub(timeout) {
                Some(time) => late.record(time),
                None => early += 1,
            }
        }
        Ok(vec![
            ("late, p50 [µs]", late.us_at(0.5)),
            ("late, p99 [µs]", late.us_at(0.99)),
            ("ended early", early.into()),
        ])
    };
    Turn { peer: P::NAME, run: Ok(Box::new(run)) }
}
