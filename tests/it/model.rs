//! Random sequences of whatever a program does with its descriptors, over each backend, against a
//! model: poll(2) says what is ready, and the contract what may and what must be told of it.
//!
//! A sequence is the same whenever it has the same number, which a failure prints. The environment
//! says where to begin and how many to run.

mod operation;
mod oracle;
mod world;

use std::env;
use std::io;
use std::time::Instant;

use nix::unistd::alarm;
use pollio::{EpollPoller, Poller};
use proptest::test_runner::{Config, RngAlgorithm, RngSeed, TestCaseError, TestError, TestRunner};

use crate::alone::alone;
use crate::kqueue_model::backend::KqueuePoller;
use operation::{Operation, Sequence, sequences};
use oracle::Kernel;
use world::World;

/// C1, C2, C3, C4, C5, C6, C9, C10, C16
#[test]
fn epoll_tells_what_poll_says_and_the_modes_allow() {
    let path = concat!(module_path!(), "::epoll_tells_what_poll_says_and_the_modes_allow");
    alone(path, || run_all(Kernel::Epoll, EpollPoller::with_capacity));
}

/// C1, C2, C3, C4, C5, C6, C9, C10, C16
#[test]
fn kqueue_tells_what_poll_says_and_the_modes_allow() {
    let path = concat!(module_path!(), "::kqueue_tells_what_poll_says_and_the_modes_allow");
    alone(path, || run_all(Kernel::Kqueue, KqueuePoller::with_capacity));
}

/// The number of the first sequence.
const FIRST: &str = "POLLIO_MODEL_FIRST";

/// How many to run, without the limit of time that a test has otherwise.
const COUNT: &str = "POLLIO_MODEL_COUNT";

fn run_all<P: Poller>(kernel: Kernel, poller: fn(usize) -> io::Result<P>) {
    const PROGRESS: u64 = 10_000;
    let number = |name| env::var(name).ok().map(|value| value.parse::<u64>().expect(name));
    let (first, count) = (number(FIRST).unwrap_or(0), number(COUNT));
    if count.is_some() {
        alarm::cancel();
    }
    let count = count.unwrap_or(8_000);
    let start = Instant::now();
    for done in 0..count {
        run(first + done, kernel, poller);
        if (done + 1) % PROGRESS == 0 || done + 1 == count {
            eprintln!("{kernel:?}: {} of {count} after {:.0?}", done + 1, start.elapsed());
        }
    }
}

/// Runs the sequence with this number. If it fails, so does the test, with the shortest that does.
fn run<P: Poller>(number: u64, kernel: Kernel, poller: fn(usize) -> io::Result<P>) {
    const SIZES: [(usize, usize); 8] =
        [(1, 10), (1, 30), (2, 20), (2, 40), (4, 40), (4, 60), (8, 60), (64, 200)];
    const CAPACITIES: [usize; 4] = [1, 2, 8, 1024];
    let mut bits = number.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32;
    let mut choose = |count: usize| {
        let chosen = usize::try_from(bits).unwrap() % count;
        bits /= count as u64;
        chosen
    };
    let (slots, length) = SIZES[choose(SIZES.len())];
    let capacity = CAPACITIES[choose(CAPACITIES.len())];
    let config = Config {
        cases: 1,
        failure_persistence: None,
        max_shrink_iters: 10_000,
        rng_algorithm: RngAlgorithm::XorShift,
        rng_seed: RngSeed::Fixed(number),
        ..Config::default()
    };
    let outcome = TestRunner::new(config).run(&sequences(slots, length), |sequence| {
        let poller = poller(capacity).unwrap();
        replay(&sequence, kernel, poller, capacity).map_err(TestCaseError::fail)
    });
    match outcome {
        Ok(()) => {}
        Err(TestError::Fail(reason, sequence)) => {
            panic!("{kernel:?}, sequence {number}, capacity {capacity}: {reason}\n{sequence}")
        }
        Err(error) => panic!("{error}"),
    }
}

fn replay<P: Poller>(
    sequence: &Sequence,
    kernel: Kernel,
    mut poller: P,
    capacity: usize,
) -> Result<(), String> {
    let mut world = World::new(kernel, poller.registry().clone(), &sequence.slots, capacity);
    for (step, operation) in sequence.operations.iter().enumerate() {
        let done = match operation {
            Operation::Wait => world.wait(&mut poller, false).map(drop),
            Operation::WaitForAll => world.wait_for_all(&mut poller),
            operation => world.operate(*operation),
        };
        done.map_err(|error| format!("step {step}: {error}"))?;
    }
    world.wait_for_all(&mut poller).map_err(|error| format!("at the end: {error}"))
}
