//! Many seeds, on all cores.

use std::env;
use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{self, RecvTimeoutError, Sender};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use crate::kernels::Kernel;
use crate::schedule::Pool;
use crate::world::{Outcome, World};

/// The environment variable that names the one seed to run.
const SEED: &str = "POLLIO_SEED";

/// The watchdog reports a thread that computes for longer.
const LONGEST_COMPUTATION: Duration = Duration::from_secs(10);

/// The interval at which a long run reports its progress.
const PROGRESS: Duration = Duration::from_secs(10);

/// The lines of its trace that a failure shows.
const LINES_SHOWN: usize = 40;

type Body = dyn Fn(&World) -> io::Result<()> + Send + Sync;

/// Runs `body` as the main thread of a [world](World) with Linux, once for each seed below `seeds`, on all cores.
///
/// With `POLLIO_SEED` in the environment, it runs that seed and no other, and prints its whole trace to
/// the standard error.
///
/// # Panics
///
/// If `POLLIO_SEED` is no number. With the first seed that fails, what failed, whether a second run of it was
/// the same, and the end of its trace. Also if a thread computes for ten seconds without a call into the
/// simulation: it loops, or waits for something that the simulation does not know, such as a lock.
#[track_caller]
pub fn check(seeds: u64, body: impl Fn(&World) -> io::Result<()> + Send + Sync + 'static) {
    check_on(&[Kernel::Linux], seeds, body);
}

/// As [`check()`], on several kernels: the seed says which.
///
/// Each is the kernel of as many worlds as the others, up to one. A failure names it, unless it is Linux, and the rules
/// that Linux does not have and that made a difference. The seed replays on it with the same `kernels`.
///
/// ```
/// use pollio_sim::Kernel;
///
/// pollio_sim::check_on(Kernel::ALL, 60, |world| {
///     println!("{}", world.kernel());
///     Ok(())
/// });
/// ```
///
/// # Panics
///
/// As [`check()`] does, and if there is no kernel.
#[track_caller]
pub fn check_on(
    kernels: &[Kernel],
    seeds: u64,
    body: impl Fn(&World) -> io::Result<()> + Send + Sync + 'static,
) {
    assert!(!kernels.is_empty(), "no kernel to run on");
    let body: Arc<Body> = Arc::new(body);
    if let Ok(seed) = env::var(SEED) {
        let seed = seed.parse().unwrap_or_else(|_| panic!("{SEED}={seed} is no number"));
        let kernel = Kernel::of_seed(kernels, seed);
        let run = |world: &World| body(world);
        let (outcome, backtrace) =
            World::run_with(&Pool::default(), kernel, seed, true, |_| (), run);
        outcome.trace.iter().for_each(|line| eprintln!("{line}"));
        if outcome.failure.is_some() {
            let backtrace = backtrace.map(|trace| format!("\n{trace}")).unwrap_or_default();
            panic!("{}{backtrace}", cause(&outcome).trim_end());
        }
        return;
    }
    if let Some(first) = first_failure(kernels, seeds, &body, LONGEST_COMPUTATION) {
        let again = [(); 2].map(|()| World::run_on(first.kernel, first.seed, |world| body(world)));
        panic!("{}", report(&first, &again));
    }
}

/// The lowest seed that fails. Panics if a thread computes for longer than `longest`.
fn first_failure(
    kernels: &[Kernel],
    seeds: u64,
    body: &Arc<Body>,
    longest: Duration,
) -> Option<Outcome> {
    let threads = thread::available_parallelism().map_or(1, usize::from);
    let threads = threads.min(usize::try_from(seeds).unwrap_or(usize::MAX));
    let (sender, reports) = mpsc::channel();
    let (next, end) = (AtomicU64::new(0), AtomicU64::new(seeds));
    let common = Arc::new(Common { kernels: kernels.to_vec(), next, end });
    // Not scoped: a stuck thread must not keep the others from reporting.
    let runners: Vec<_> = (0..threads)
        .map(|_| {
            let runner = Arc::new(Runner::default());
            let (common, body, sender) = (common.clone(), body.clone(), sender.clone());
            let this = runner.clone();
            thread::spawn(move || this.run(&common, &*body, &sender));
            runner
        })
        .collect();
    drop(sender);
    let (mut failures, start, mut last_progress) = (Vec::new(), Instant::now(), Instant::now());
    loop {
        match reports.recv_timeout(longest / 10) {
            Ok(failure) => failures.push(failure),
            Err(RecvTimeoutError::Disconnected) => break,
            Err(RecvTimeoutError::Timeout) => {
                runners.iter().for_each(|runner| runner.watch(longest));
                if last_progress.elapsed() > PROGRESS {
                    last_progress = Instant::now();
                    let done = common.next.load(Ordering::Relaxed).min(seeds);
                    let seconds = start.elapsed().as_secs().max(1);
                    eprintln!("pollio: {done} of {seeds} seeds, {} a second", done / seconds);
                }
            }
        }
    }
    failures.into_iter().min_by_key(|failure: &Outcome| failure.seed)
}

struct Common {
    kernels: Vec<Kernel>,
    next: AtomicU64,
    /// No seed from here on matters.
    end: AtomicU64,
}

/// A thread that runs one seed after another.
#[derive(Default)]
struct Runner(Mutex<Option<Watched>>);

struct Watched {
    world: World,
    /// The step count that the watchdog saw last, and the time when it first saw it.
    steps: u64,
    since: Instant,
}

impl Runner {
    fn run(&self, common: &Common, body: &Body, failures: &Sender<Outcome>) {
        let pool = Pool::default();
        loop {
            let seed = common.next.fetch_add(1, Ordering::Relaxed);
            if seed >= common.end.load(Ordering::Relaxed) {
                break;
            }
            let watch = |world: &World| {
                let watched = Watched { world: world.clone(), steps: 0, since: Instant::now() };
                *self.watched() = Some(watched);
            };
            let kernel = Kernel::of_seed(&common.kernels, seed);
            let (outcome, _) = World::run_with(&pool, kernel, seed, false, watch, body);
            if outcome.failure.is_some() {
                common.end.fetch_min(seed, Ordering::Relaxed);
                if failures.send(outcome).is_err() {
                    break;
                }
            }
        }
        *self.watched() = None;
    }

    fn watched(&self) -> std::sync::MutexGuard<'_, Option<Watched>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Panics if nothing has happened in its world for `longest`.
    fn watch(&self, longest: Duration) {
        let mut watched = self.watched();
        let Some(Watched { world, steps, since }) = &mut *watched else { return };
        let (now, thread) = world.machine().progress();
        if now != *steps {
            (*steps, *since) = (now, Instant::now());
        } else if since.elapsed() > longest {
            panic!(
                "{} hangs: thread `{thread}` has made no call into the simulation for \
                 {longest:?}: it loops, or waits for something that is not simulated, such as a lock that \
                 one of these holds:{}",
                name(world.kernel(), world.seed()),
                world.machine().describe_waits(),
            );
        }
    }
}

fn name(kernel: Kernel, seed: u64) -> String {
    match kernel {
        Kernel::Linux => format!("seed {seed}"),
        _ => format!("seed {seed} on {kernel}"),
    }
}

/// The reason of a failure, and the rules that made a difference.
fn cause(Outcome { seed, kernel, failure, rules, .. }: &Outcome) -> String {
    let why = failure.as_deref().unwrap_or_default();
    let mut text = format!("{} fails: {why}\n", name(*kernel, *seed));
    if !rules.is_empty() {
        text += &format!("  unlike Linux: {}\n", rules.join("; "));
    }
    text
}

fn report(first: &Outcome, [again, and_again]: &[Outcome; 2]) -> String {
    let mut text = cause(first);
    let difference = again.trace.iter().zip(&and_again.trace).find(|(one, other)| one != other);
    if again.failure != first.failure {
        let why = again.failure.as_deref().unwrap_or("it passes");
        text += &format!("  it does not replay: in a second run, {why}\n");
    } else if let Some((one, other)) = difference {
        text +=
            &format!("  it does not replay exactly; two runs differ first in\n{one}\n{other}\n");
    } else {
        text +=
            &format!("  it replays exactly: {} lines, of which the last are\n", again.trace.len());
    }
    if again.failure != first.failure || difference.is_some() {
        text +=
            "  what differs from run to run: the order of a HashMap, the real clock, addresses\n";
    }
    let skipped = again.trace.len().saturating_sub(LINES_SHOWN);
    for line in &again.trace[skipped..] {
        text += &format!("{line}\n");
    }
    let name = thread::current().name().unwrap_or("the test").to_owned();
    text + &format!("  to run it alone: {SEED}={} cargo test {name}", first.seed)
}

#[cfg(test)]
mod tests {
    use std::panic::{self, AssertUnwindSafe};

    use super::*;
    use crate::thread::sleep;

    const SECOND: Duration = Duration::from_secs(1);

    /// Both threads are named: the one that hangs, and the one that holds the lock over a wait.
    #[test]
    fn a_real_lock_that_is_held_over_a_wait_is_reported() {
        let body: Arc<Body> = Arc::new(|world| {
            let lock = Arc::new(Mutex::new(()));
            let held = lock.clone();
            world.spawn("holder", move || {
                let _guard = held.lock();
                sleep(2 * SECOND);
            });
            sleep(SECOND);
            drop(lock.lock());
            Ok(())
        });
        let longest = Duration::from_millis(300);
        let check = AssertUnwindSafe(|| first_failure(&[Kernel::Linux], 1, &body, longest));
        let why = *panic::catch_unwind(check).unwrap_err().downcast::<String>().unwrap();
        assert!(why.starts_with("seed 0 hangs: thread `main` has made no call"), "{why}");
        assert!(why.contains("one of these holds:\n  holder: sleeps"), "{why}");
    }
}
