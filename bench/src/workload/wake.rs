//! Another thread ends the wait.

use std::io;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed, Ordering::SeqCst};
use std::thread;
use std::time::{Duration, Instant};

use indicatif::ProgressBar;

use super::Plan;
use super::ready_events::Batches;
use crate::machine::{Busy, cores, pin};
use crate::method::{Case, Figures, Row, Turn, compare, ns_each};
use crate::peer::{Asked, BASE_SPINNING, Mode, Peer, Wakes, all};
use crate::sockets::Pairs;
use crate::stats::Latencies;

pub(crate) const COUNTS: &str = "Two threads, each with a poller and a waker: one wakes the other, \
    which wakes it back. Counted: how long that takes, with a core for each thread, with one for \
    both, and with one for each that has other work as well. The bare calls that spin poll instead of \
    sleeping. A sleeper: one thread waits, the other wakes it 100 µs later, on another core; the time \
    of that call, and until the wait returns. A loop that is awake: the time for each of 1,000 wakes \
    in a burst, which nobody looks for until it is over, and for a wake and the wait that returns it, \
    in one thread. An event: as in ready_events, edge, 1 of 256, with a poller that has no waker, and \
    with one that has.";

/// The limits of a turn: the first to be reached ends it.
const TRIPS: usize = 3_000;
const TIME: Duration = Duration::from_millis(250);

const BURST: usize = 1_000;

/// The number of wakes of the sleeper, and the time that it has to fall asleep.
const SLEEPS: usize = 100;
const ASLEEP: Duration = Duration::from_micros(100);

const EVENTS: usize = 10_000;

pub(crate) fn run(plan: Plan, progress: &ProgressBar) -> io::Result<Vec<Row>> {
    let [one, other] = cores()?;
    let mut rows = Vec::new();
    for (name, cores) in [("two cores", [one, other]), ("one core", [one, one])] {
        let mut turns = of_each_waker(move |waker| (waker.ping_pong)(cores));
        let spinning = if name == "two cores" {
            Ok(Box::new(move || ping_pong::<all::Bare<true>>(cores)) as _)
        } else {
            Err("spins until it is preempted, where the other thread needs its core")
        };
        turns.push(Turn { peer: BASE_SPINNING, run: spinning });
        rows.extend(compare(case(name, plan), turns, progress));
    }
    let busy = Busy::new()?;
    let turns = of_each_waker(move |waker| (waker.ping_pong)([one, other]));
    rows.extend(compare(case("two busy cores", plan), turns, progress));
    drop(busy);
    let turns = of_each_waker(move |waker| (waker.sleeper)([one, other]));
    rows.extend(compare(case("a sleeper", plan), turns, progress));
    let turns = of_each_waker(|waker| (waker.awake)());
    rows.extend(compare(case("awake", plan), turns, progress));
    let turns = of_each_waker(|waker| (waker.event)());
    rows.extend(compare(case("an event", plan), turns, progress));
    Ok(rows)
}

fn case(name: &str, plan: Plan) -> Case {
    Case { workload: "wake", name: name.to_owned(), rounds: plan.rounds() }
}

/// The measurements of any peer.
struct Waker {
    ping_pong: fn([usize; 2]) -> io::Result<Figures>,
    sleeper: fn([usize; 2]) -> io::Result<Figures>,
    awake: fn() -> io::Result<Figures>,
    event: fn() -> io::Result<Figures>,
}

fn of_each_waker(
    measure: impl Fn(&Waker) -> io::Result<Figures> + Copy + 'static,
) -> Vec<Turn<'static>> {
    fn waker<P: Wakes>() -> (&'static str, Result<Waker, &'static str>) {
        let waker = Waker {
            ping_pong: ping_pong::<P>,
            sleeper: sleeper::<P>,
            awake: awake::<P>,
            event: event::<P>,
        };
        (P::NAME, Ok(waker))
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

fn sleeper<P: Wakes>([here, there]: [usize; 2]) -> io::Result<Figures> {
    let (mut poller, waker) = P::with_waker()?;
    let start = Instant::now();
    // The time when a wait last returned.
    let awake_at = AtomicU64::new(0);
    thread::scope(|scope| {
        let sleeper = scope.spawn(|| {
            pin(there)?;
            for _ in 0..SLEEPS {
                poller.wait_for_wake()?;
                awake_at.store(nanoseconds(start.elapsed()), SeqCst);
            }
            Ok::<_, io::Error>(())
        });
        let one = scope.spawn(|| {
            pin(here)?;
            let (mut calls, mut returns) = (Latencies::new(), Latencies::new());
            for _ in 0..SLEEPS {
                thread::sleep(ASLEEP);
                let (before, awake_before) = (start.elapsed(), awake_at.load(SeqCst));
                P::wake(&waker)?;
                calls.record(start.elapsed() - before);
                let mut awake = awake_before;
                while awake == awake_before {
                    awake = awake_at.load(SeqCst);
                }
                returns.record(Duration::from_nanos(awake).saturating_sub(before));
            }
            Ok(vec![
                ("the call, p50 [µs]", calls.us_at(0.5)),
                ("until the wait returns, p50 [µs]", returns.us_at(0.5)),
            ])
        });
        let figures = one.join().expect("it does not panic");
        sleeper.join().expect("it does not panic")?;
        figures
    })
}

fn nanoseconds(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

fn awake<P: Wakes>() -> io::Result<Figures> {
    let (mut poller, waker) = P::with_waker()?;
    let mut burst = Duration::ZERO;
    for turn in 0..11 {
        let start = Instant::now();
        (0..BURST).try_for_each(|_| P::wake(&waker))?;
        // The first one warms up.
        if turn > 0 {
            burst += start.elapsed();
        }
        poller.wait_for_wake()?;
    }
    let start = Instant::now();
    for _ in 0..BURST {
        P::wake(&waker)?;
        poller.wait_for_wake()?;
    }
    Ok(vec![
        ("a wake of a burst [ns]", ns_each(burst, 10 * BURST)),
        ("a wake and the wait for it [ns]", ns_each(start.elapsed(), BURST)),
    ])
}

fn event<P: Wakes>() -> io::Result<Figures> {
    let pairs = Pairs::new(256)?;
    let mode =
        if P::lacks(Asked::in_mode(Mode::Edge)).is_none() { Mode::Edge } else { Mode::Level };
    let (poller, _waker) = P::with_waker()?;
    let mut with = Batches::over(poller, &pairs, mode, 1)?;
    let with = time_of(&mut with)?;
    let mut without = Batches::<P>::new(&pairs, mode, 1)?;
    let without = time_of(&mut without)?;
    Ok(vec![("without a waker [ns]", without), ("with a waker [ns]", with)])
}

fn time_of<P: Peer>(batches: &mut Batches<P>) -> io::Result<f64> {
    batches.handle(EVENTS / 10)?;
    let start = Instant::now();
    batches.handle(EVENTS)?;
    Ok(ns_each(start.elapsed(), EVENTS))
}
