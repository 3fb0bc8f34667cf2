//! The contract over a simulated poller, and the examples over simulated sockets. `sim/tests/` has the tests of the
//! simulation itself.

mod following;
mod in_step;
pub(crate) mod programs;
mod sockets;

use std::hash::{DefaultHasher, Hash, Hasher};
use std::io::{Read, Write};
use std::net::Shutdown;
use std::os::fd::AsRawFd;

use pollio::{Event, EventObject, Interest, Mode, OsPoller, Poller};

use crate::conformance::{conformance, load};
use crate::support::descriptors::{drain, fill, pair};
use crate::support::kernel::{Kernel, On};
use crate::support::subprocess::Closing;
use following::Following;

conformance!(simulated: Following<{ usize::MAX }>);

impl<const BATCH: usize> On for Following<BATCH> {
    const KERNEL: Kernel = Kernel::Epoll;
}

/// C2, C3, C4, C5, C6: random operations on connections, with random interests and modes.
#[test]
fn the_simulation_reports_what_the_kernel_reports() {
    let _closing = Closing::new();
    const MODES: [Mode; 3] = [Mode::Level, Mode::Edge, Mode::Oneshot];
    // Without PRIORITY: on Linux, data is an arrival for it too, and reports a standing WRITABLE again.
    const INTERESTS: [Interest; 4] =
        [Interest::NONE, Interest::READABLE, Interest::WRITABLE, Interest::BOTH];
    for seed in 0..100 {
        let mut pairs: Vec<_> =
            (0..3).map(|_| pair()).map(|(near, far)| (near, Some(far))).collect();
        let mut real = OsPoller::new().unwrap();
        let mut sim = Following::<{ usize::MAX }>::new().unwrap();
        for (near, _) in &pairs {
            real.add(EventObject::client(near.as_raw_fd())).unwrap();
            sim.add(EventObject::client(near.as_raw_fd())).unwrap();
        }
        for step in 0..100 {
            let mut dice = dice(seed, step);
            let (near, far) = &mut pairs[dice(3)];
            match (dice(20), &mut *far) {
                (0..=3, Some(far)) => drop(far.write(b"x")),
                (4..=6, _) => while matches!((&*near).read(&mut [0; 4096]), Ok(1..)) {},
                (7..=8, Some(_)) => fill(&*near),
                (9..=11, Some(far)) => drain(&*far),
                (12, Some(far)) => far.shutdown(Shutdown::Write).unwrap(),
                (13, _) if dice(4) == 0 => *far = None,
                _ => {
                    let object = EventObject::client(near.as_raw_fd())
                        .with_interest(INTERESTS[dice(4)])
                        .with_mode(MODES[dice(MODES.len())])
                        .with_token(step);
                    real.modify(object).unwrap();
                    sim.modify(object).unwrap();
                }
            }
            let sorted = |events: &[Event]| {
                let mut events = events.to_vec();
                events.sort_by_key(|event| event.fd);
                events
            };
            let (reported, expected) =
                (sorted(sim.wait(0).unwrap()), sorted(real.wait(0).unwrap()));
            assert_eq!(reported, expected, "seed {seed}, step {step}");
        }
    }
}

/// A source of random numbers, each below its argument.
fn dice(seed: u32, step: u32) -> impl FnMut(usize) -> usize {
    let mut hasher = DefaultHasher::new();
    (seed, step).hash(&mut hasher);
    move |sides| {
        sides.hash(&mut hasher);
        usize::try_from(hasher.finish() % sides as u64).unwrap()
    }
}

/// C9, C3
#[test]
fn every_edge_is_reported_once_in_batches_of_one() {
    load::every_edge_is_reported_once_beyond_the_first_buffer::<Following<1>>();
}

/// C4, C9
#[test]
fn every_oneshot_is_silenced_in_batches_of_one() {
    load::every_oneshot_is_silenced_in_both_directions::<Following<1>>();
}
