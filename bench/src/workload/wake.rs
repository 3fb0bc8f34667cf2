//! Another thread ends the wait.

use std::io;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::thread;
use std::time::{Duration, Instant};

use indicatif::ProgressBar;

use super::Plan;
use crate::machine::{Busy, cores, pin};
use crate::method::{Case, Figures, Row, Turn, compare, ns_each};
use crate::peer::{Peer, Wakes, all};
use crate::stats::Latencies;

pub(crate) const COUNTS: &str = "Two threads, each with a poller and a waker: one wakes the other, \
    which wakes it back. Counted: how long that takes, with a core for each thread, with one for \
    both, and with one for each that has other work as well. And: the time for each of 1,000 wakes \
    in a burst, which nobody looks for until it is over.";

/// What a turn ends with, whichever comes first.
const TRIPS: usize = 3_000;
const TIME: Duration = Duration::from_millis(250);

const BURST: usize = 1_000;

pub(crate) fn run(plan: Plan, progress: &ProgressBar) -> io::Result<Vec<Row>> {
    let [one, other] = cores()?;
    let mut rows = Vec::new();
    for (name, cores) in [("two cores", [one, other]), ("one core", [one, one])] {
        let turns = of_each_waker(move |waker| (waker.ping_pong)(cores));
        rows.extend(compare(case(name, plan), turns, progress));
    }
    let busy = Busy::new()?;
    let turns = of_each_waker(move |waker| (waker.ping_pong)([one, other]));
    rows.extend(compare(case("two busy cores", plan), turns, progress));
    drop(busy);
    let turns = of_each_waker(|waker| (waker.burst)());
    rows.extend(compare(case("burst", plan), turns, progress));
    Ok(rows)
}

fn case(name: &str, plan: Plan) -> Case {
    Case { workload: "wake", name: name.to_owned(), rounds: plan.rounds() }
}

/// The two measurements of a peer, whichever it is.
struct Waker {
    ping_pong: fn([usize; 2]) -> io::Result<Figures>,
    burst: fn() -> io::Result<Figures>,
}

fn of_each_waker(
    measure: impl Fn(&Waker) -> io::Result<Figures> + Copy + 'static,
) -> Vec<Turn<'static>> {
    fn waker<P: Wakes>() -> (&'static str, Result<Waker, &'static str>) {
        (P::NAME, Ok(Waker { ping_pong: ping_pong::<P>, burst: burst::<P> }))
    }
    let wakers = [
        waker::<all::Bare>(),
        waker::<all::Pollio<0>>(),
        waker::<all::Pollio<{ all::SPIN_US }>>(),
        (all::Pollio01::NAME, Err("has no waker")),
        waker::<all::Mio>(),
        waker::<all::Polling>(),
        #[cfg(feature = "c-peers")]
        waker::<all::Libevent>(),
        #[cfg(feature = "c-peers")]
        waker::<all::Libev>(),
        #[cfg(feature = "c-peers")]
        waker::<all::Libuv>(),
    ];
    let turn = |(peer, waker): (_, Result<Waker, _>)| Turn {
        peer,
        run: waker.map(|waker| Box::new(move || measure(&waker)) as _),
    };
    wakers.into_iter().map(turn).collect()
}

fn ping_pong<P: Wakes>([here, there]: [usize; 2]) -> io::Result<Figures> {
    let (mut pong, pong_waker) = P::with_waker()?;
    let (mut ping, ping_waker) = P::with_waker()?;
    let is_over = AtomicBool::new(false);
    thread::scope(|scope| {
        let other = scope.spawn(|| {
            pin(there)?;
            loop {
                pong.wait_for_wake()?;
                if is_over.load(Relaxed) {
                    return Ok::<_, io::Error>(());
                }
                P::wake(&ping_waker)?;
            }
        });
        let one = scope.spawn(|| {
            pin(here)?;
            let mut trip = || {
                let start = Instant::now();
                P::wake(&pong_waker)?;
                ping.wait_for_wake()?;
                Ok::<_, io::Error>(start.elapsed())
            };
            for _ in 0..TRIPS / 10 {
                trip()?;
            }
            let (mut latencies, start) = (Latencies::new(), Instant::now());
            for _ in 0..TRIPS {
                latencies.record(trip()?);
                if start.elapsed() > TIME {
                    break;
                }
            }
            is_over.store(true, Relaxed);
            P::wake(&pong_waker)?;
            Ok(latencies.figures().collect())
        });
        let figures = one.join().expect("it does not panic");
        other.join().expect("it does not panic")?;
        figures
    })
}

fn burst<P: Wakes>() -> io::Result<Figures> {
    let (mut poller, waker) = P::with_waker()?;
    let mut time = Duration::ZERO;
    for turn in 0..11 {
        let start = Instant::now();
        (0..BURST).try_for_each(|_| P::wake(&waker))?;
        // The first is to warm up.
        if turn > 0 {
            time += start.elapsed();
        }
        poller.wait_for_wake()?;
    }
    Ok(vec![("a wake [ns]", ns_each(time, 10 * BURST))])
}
