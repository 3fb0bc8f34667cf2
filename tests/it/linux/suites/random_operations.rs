//! Random sequences of operations on descriptors, over each backend, checked by a model: poll(2) says what is ready,
//! and the contract says which events may and which must be reported.
//!
//! A failure prints the number of its sequence, which repeats it. The environment has the first number and the count.

mod fixture;
mod ledger;
mod operation;
mod oracle;
mod watched;

use std::env;
use std::fmt;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::Instant;

use nix::unistd::alarm;
use pollio::{OsPoller, Poller, Waker};
use proptest::strategy::Strategy;
use proptest::test_runner::{Config, RngAlgorithm, RngSeed, TestCaseError, TestError, TestRunner};

use crate::linux::support::random::Random;
use crate::support::kernel::Kernel;
use crate::support::subprocess::in_subprocess;
use fixture::Fixture;
use ledger::Ledger;
use operation::{INTERESTS, MODES, Operation, Sequence, Shape, sequences};

/// Makes a poller whose first wait has room for so many events.
type WithCapacity<P> = fn(usize) -> io::Result<P>;

const EPOLL: WithCapacity<OsPoller> = OsPoller::with_capacity;
/// C1, C2, C3, C4, C5, C6, C9, C10, C16
#[test]
fn epoll_reports_what_poll_says_and_the_modes_allow() {
    in_subprocess!(|| run_all(1, |number| run(number, Kernel::Epoll, EPOLL)));
}

/// C1, C2, C3, C4, C9, C12
#[test]
fn epoll_reports_the_changes_of_other_threads() {
    in_subprocess!(|| run_all(16, |number| run_threads(number, Kernel::Epoll, EPOLL)));
}

/// Makes the two tests over each system's kqueue, which share the sequences.
macro_rules! systems {
    ($($module:ident)*) => {
        mod kqueue_model {$(
            mod $module {
                use super::super::*;
                use crate::support::kernel::On;
                use crate::conformance::sharing::Share;
                use crate::linux::kqueue_model::$module::Poller as KqueuePoller;

                const KERNEL: Kernel = KqueuePoller::KERNEL;
                const KQUEUE: WithCapacity<KqueuePoller> = <KqueuePoller as Share>::with_capacity;

                /// C1, C2, C3, C4, C5, C6, C9, C10, C16
                #[test]
                fn it_reports_what_poll_says_and_the_modes_allow() {
                    in_subprocess!(|| run_all(5, |number| run(number, KERNEL, KQUEUE)));
                }

                /// C1, C2, C3, C4, C9, C12
                #[test]
                fn it_reports_the_changes_of_other_threads() {
                    in_subprocess!(|| run_all(5 * 16, |number| run_threads(number, KERNEL, KQUEUE)));
                }
            }
        )*}
    };
}

systems! { apple freebsd netbsd openbsd dragonfly }

/// The number of the first sequence.
const FIRST: &str = "POLLIO_FIRST_SEQUENCE";

/// The number of sequences over each backend. Then a test has no time limit.
const COUNT: &str = "POLLIO_SEQUENCES";

/// Runs one part, of `part`, of the sequences that a test or the environment asks for.
fn run_all(part: u64, run: impl Fn(u64)) {
    const USUAL: u64 = 6_000;
    const PROGRESS: u64 = 10_000;
    let number = |name| env::var(name).ok().map(|value| value.parse::<u64>().expect(name));
    let (first, asked) = (number(FIRST).unwrap_or(0), number(COUNT));
    // They take longer than other tests, and a busy machine longer still.
    match asked {
        None => alarm::set(300),
        Some(_) => alarm::cancel(),
    };
    let count = asked.unwrap_or(USUAL).div_ceil(part);
    let start = Instant::now();
    for done in 1..=count {
        run(first + done - 1);
        if done % PROGRESS == 0 || done == count {
            let test = thread::current();
            let name = test.name().unwrap_or_default();
            eprintln!("{name}: {done} of {count} after {:.0?}", start.elapsed());
        }
    }
}

/// Runs the sequence with this number in one thread.
fn run<P: Poller>(number: u64, kernel: Kernel, with_capacity: WithCapacity<P>) {
    let mut random = Random::new(usize::try_from(number).unwrap());
    let (slots, length, waits, adds) = random.choose(&[
        (1, 10, 20, 20),
        (1, 20, 20, 20),
        (1, 30, 20, 20),
        (1, 40, 20, 20),
        (2, 20, 20, 20),
        (2, 30, 20, 20),
        (2, 40, 20, 20),
        (2, 60, 20, 20),
        (4, 40, 20, 20),
        (4, 60, 20, 20),
        (8, 60, 20, 20),
        // So many at once that no buffer on the way holds them.
        (64, 500, 1, 160),
    ]);
    let (modes, interests) = (random.choose(&MODES), random.choose(&INTERESTS));
    let shape = Shape { slots, length, waits, adds, modes, interests };
    let capacity = random.choose(&CAPACITIES);
    hold(number, &sequences(shape), |sequence: &Sequence| {
        let mut poller = with_capacity(capacity).unwrap();
        let registry = poller.registry().clone();
        let mut fixture = Fixture::of_one_thread(kernel, registry, &sequence.slots, capacity);
        for (step, operation) in sequence.operations.iter().enumerate() {
            let done = match operation {
                Operation::Wait => fixture.wait(&mut poller, false).map(drop),
                Operation::WaitForAll => fixture.wait_for_all(&mut poller),
                operation => fixture.operate(*operation),
            };
            done.map_err(|error| format!("step {step}: {error}"))?;
        }
        let mut wait = |fixture: &mut Fixture| fixture.wait_for_all(&mut poller);
        wait(&mut fixture).map_err(|error| format!("at the end: {error}"))?;
        // Both reported and silent registrations have something new.
        fixture.write_to_all().map_err(|error| format!("when all is written to: {error}"))?;
        wait(&mut fixture).map_err(|error| format!("after all was written to: {error}"))
    });
}

/// Runs the sequences with this number in two threads, while a third one waits.
fn run_threads<P: Poller>(number: u64, kernel: Kernel, with_capacity: WithCapacity<P>) {
    let mut random = Random::new(usize::try_from(number).unwrap());
    let (slots, length) = random.choose(&[(1, 20), (2, 40), (4, 80), (16, 160)]);
    let (modes, interests) = (random.choose(&MODES), random.choose(&INTERESTS));
    let shape = Shape { slots, length, waits: 20, adds: 20, modes, interests };
    let capacity = random.choose(&CAPACITIES);
    let threads = (sequences(shape), sequences(shape));
    hold(number, &threads.prop_map(|(one, other)| Threads(one, other)), |Threads(one, other)| {
        let mut poller = with_capacity(capacity).unwrap();
        let ledger = Arc::new(Ledger::new(poller.registry().clone()));
        let running = AtomicUsize::new(2);
        let the_end = Waker::new(poller.registry(), 0).unwrap();
        // They last as long as the threads: a number that a thread closes without a delete goes to others.
        let fixture = |sequence: &Sequence, token| {
            Fixture::beside_others(kernel, ledger.clone(), &sequence.slots, token)
        };
        let mut worlds = [fixture(one, 1 << 30), fixture(other, 1 << 31)];
        thread::scope(|scope| {
            for (fixture, sequence) in worlds.iter_mut().zip([one, other]) {
                let (ledger, running, the_end) = (&ledger, &running, &the_end);
                scope.spawn(move || {
                    if let Err(error) = operate(fixture, sequence) {
                        ledger.fail(error);
                    }
                    if running.fetch_sub(1, Ordering::Relaxed) == 1 {
                        the_end.wake().unwrap();
                    }
                });
            }
            while running.load(Ordering::Relaxed) > 0 {
                let now = ledger.now();
                let events = poller.wait(LONG_MS).unwrap();
                if events.is_empty() {
                    ledger.fail("nothing is reported any more, not even the end".to_owned());
                }
                for event in events.iter().filter(|event| !event.is_wake()) {
                    if let Err(error) = ledger.report(now, event) {
                        ledger.fail(error);
                    }
                }
            }
        });
        ledger.failure().map_or(Ok(()), Err)
    });
}

fn operate(fixture: &mut Fixture, sequence: &Sequence) -> Result<(), String> {
    for (step, operation) in sequence.operations.iter().enumerate() {
        let done = match operation {
            Operation::Wait | Operation::WaitForAll => fixture.await_reported(),
            operation => fixture.operate(*operation),
        };
        done.map_err(|error| format!("step {step}: {error}"))?;
    }
    fixture.await_reported().map_err(|error| format!("at the end: {error}"))
}

/// The sequences of two threads.
#[derive(Clone, Debug)]
struct Threads(Sequence, Sequence);

impl fmt::Display for Threads {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "one thread:\n{}another:\n{}", self.0, self.1)
    }
}

/// Longer than any pause of a thread here.
const LONG_MS: i32 = 30_000;

const CAPACITIES: [usize; 4] = [1, 2, 8, 1024];

/// Checks that `holds` is true for the sequence that `strategy` makes from this number. Otherwise the test fails with
/// the shortest sequence for which it is not.
fn hold<S: Strategy>(number: u64, strategy: &S, holds: impl Fn(&S::Value) -> Result<(), String>)
where
    S::Value: fmt::Display,
{
    let config = Config {
        cases: 1,
        failure_persistence: None,
        max_shrink_iters: 10_000,
        // So that shrinking of a chance failure ends before its process does.
        max_shrink_time: 20_000,
        // The other one takes most of the time in a debug build.
        rng_algorithm: RngAlgorithm::XorShift,
        rng_seed: RngSeed::Fixed(number),
        ..Config::default()
    };
    let outcome = TestRunner::new(config)
        .run(strategy, |sequence| holds(&sequence).map_err(TestCaseError::fail));
    match outcome {
        Ok(()) => {}
        Err(TestError::Fail(reason, sequence)) => {
            panic!("sequence {number}: {reason}\n{sequence}")
        }
        Err(error) => panic!("{error}"),
    }
}
