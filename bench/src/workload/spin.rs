//! Spinning with several limits: the time that it saves, the time that it costs, and how soon two threads are in step
//! again.

use std::io;
use std::thread;
use std::time::{Duration, Instant};

use indicatif::ProgressBar;

use super::Plan;
use crate::machine::{cores, pin};
use crate::method::{Case, Figures, Row, Turn, compare_with, ns_each};
use crate::peer::{Peer, Wakes, all};
use crate::stats::Latencies;

pub(crate) const COUNTS: &str = "Two threads wake each other, as in wake, with several limits of \
    spinning and with none, and over bare calls that block or poll. With a core for each: how long \
    it takes from a wake to the wake back, compared with bare calls that poll. With one core for \
    both: the mean, compared with pollio that does not spin. And recovery: how many rounds it takes \
    until the two are in step, when one starts 10 ms late, when one pauses for 10 ms, and when one \
    moves to a core of its own after they shared one for 1,000 rounds. They are in step once 15 of \
    16 rounds take less than twice what bare calls that poll need.";

/// The number of rounds in a turn. For latencies, a tenth of them warms up.
const ROUNDS: usize = 20_000;

const PAUSE: Duration = Duration::from_millis(10);

type Polling = all::Bare<true>;

pub(crate) fn run(plan: Plan, progress: &ProgressBar) -> io::Result<Vec<Row>> {
    let [one, other] = cores()?;
    let case = |name: &str| {
        let rounds = plan.of([3, 11]);
        Case { workload: "spin", name: name.to_owned(), rounds }
    };
    let two_cores =
        peers().map(|(peer, course)| turn(peer, move || latencies(course, [one, other])));
    let mut rows = compare_with(Polling::NAME, case("two cores"), two_cores.into(), progress);
    let one_core = peers().into_iter().filter(|(peer, _)| *peer != Polling::NAME);
    let one_core = one_core.map(|(peer, course)| turn(peer, move || mean(course, one)));
    rows.extend(compare_with(OFF, case("one core"), one_core.collect(), progress));
    let spinning = peers().into_iter().filter(|(peer, _)| peer.ends_with("µs"));
    let recovery =
        spinning.map(|(peer, course)| turn(peer, move || recovery(course, [one, other])));
    rows.extend(compare_with(OFF, case("recovery"), recovery.collect(), progress));
    Ok(rows)
}

fn turn(peer: &'static str, run: impl Fn() -> io::Result<Figures> + 'static) -> Turn<'static> {
    Turn { peer, run: Ok(Box::new(run)) }
}

const OFF: &str = all::Pollio::<0>::NAME;

/// The duration of each round.
type Run = fn(Course) -> io::Result<Vec<Duration>>;

fn peers() -> [(&'static str, Run); 7] {
    [
        (Polling::NAME, exchange::<Polling>),
        (all::Bare::<false>::NAME, exchange::<all::Bare>),
        (OFF, exchange::<all::Pollio<0>>),
        ("20 µs", exchange::<all::Pollio<20>>),
        ("50 µs", exchange::<all::Pollio<50>>),
        ("100 µs", exchange::<all::Pollio<100>>),
        ("1,000 µs", exchange::<all::Pollio<1_000>>),
    ]
}

/// The course of an exchange of wakes.
#[derive(Clone, Copy)]
struct Course {
    rounds: usize,
    /// The cores of the two threads.
    cores: [usize; 2],
    /// The delay of the second thread's start after the first's.
    late: Duration,
    /// Before this round, the second thread pauses.
    pause: Option<usize>,
    /// Before this round, the second thread moves to this core.
    move_to: Option<(usize, usize)>,
}

impl Course {
    fn steady(rounds: usize, cores: [usize; 2]) -> Self {
        Self { rounds, cores, late: Duration::ZERO, pause: None, move_to: None }
    }
}

fn latencies(run: Run, cores: [usize; 2]) -> io::Result<Figures> {
    let mut latencies = Latencies::new();
    let times = run(Course::steady(ROUNDS, cores))?;
    times[ROUNDS / 10..].iter().for_each(|time| latencies.record(*time));
    Ok(latencies.figures().collect())
}

fn mean(run: Run, core: usize) -> io::Result<Figures> {
    let times = run(Course::steady(ROUNDS, [core, core]))?;
    Ok(vec![("mean [µs]", ns_each(times.iter().sum(), ROUNDS) / 1e3)])
}

fn recovery(run: Run, [one, other]: [usize; 2]) -> io::Result<Figures> {
    const DISTURBED: usize = 1_000;
    let own = Course::steady(4 * DISTURBED, [one, other]);
    let mut polling = exchange::<Polling>(own)?;
    polling.sort_unstable();
    let in_step = 2 * polling[polling.len() / 2];
    let rounds_from = |first: usize, course| {
        let times = run(course)?;
        let after = times[first..].windows(16).position(|times| {
            times[0] <= in_step && times.iter().filter(|time| **time > in_step).count() <= 1
        });
        let rounds = u32::try_from(after.unwrap_or(times.len() - first)).unwrap_or(u32::MAX);
        Ok::<_, io::Error>(f64::from(rounds))
    };
    let late = Course { late: PAUSE, ..own };
    let pause = Course { pause: Some(DISTURBED), ..own };
    let shared = Course { cores: [one, one], move_to: Some((DISTURBED, other)), ..own };
    Ok(vec![
        // Only the first round waits.
        ("after a late start [rounds]", rounds_from(1, late)?),
        ("after a pause [rounds]", rounds_from(DISTURBED + 1, pause)?),
        ("after sharing a core [rounds]", rounds_from(DISTURBED, shared)?),
    ])
}

fn exchange<P: Wakes>(course: Course) -> io::Result<Vec<Duration>> {
    let (mut pong, pong_waker) = P::with_waker()?;
    let (mut ping, ping_waker) = P::with_waker()?;
    thread::scope(|scope| {
        let other = scope.spawn(|| {
            pin(course.cores[1])?;
            thread::sleep(course.late);
            for round in 0..course.rounds {
                pong.wait_for_wake()?;
                if course.pause == Some(round) {
                    thread::sleep(PAUSE);
                }
                if let Some((_, core)) = course.move_to.filter(|(when, _)| *when == round) {
                    pin(core)?;
                }
                P::wake(&ping_waker)?;
            }
            Ok::<_, io::Error>(())
        });
        let one = scope.spawn(|| {
            pin(course.cores[0])?;
            let round = |_| {
                let start = Instant::now();
                P::wake(&pong_waker)?;
                ping.wait_for_wake()?;
                Ok(start.elapsed())
            };
            (0..course.rounds).map(round).collect()
        });
        let times = one.join().expect("it does not panic");
        other.join().expect("it does not panic")?;
        times
    })
}
