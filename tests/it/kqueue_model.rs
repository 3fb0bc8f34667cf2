//! The contract over a model of kqueue: the backend's own file, with `crate::sys::kevent` of these
//! tests below it instead of the kernel's.
//!
//! It proves the backend's logic on Linux, and nothing about a BSD.

#[path = "../../src/backend/kqueue.rs"]
#[allow(unreachable_pub, reason = "public in its crate, not in these tests")]
pub(crate) mod backend;

use std::io::Write;
use std::os::fd::AsRawFd;
use std::time::Duration;

use backend::KqueuePoller;
use nix::time::{ClockId, clock_gettime};
use pollio::{EventObject, Interest, Mode, Poller};

use crate::conformance::conformance;
use crate::descriptors::pair;
use crate::expect::Expect;

conformance!(KqueuePoller);
conformance!(kqueue: KqueuePoller);

/// C4, C9: the two filters of a descriptor come in different batches, if at all.
#[test]
fn a_oneshot_is_told_once_by_a_buffer_of_one() {
    for capacity in [0, 1] {
        let pairs: Vec<_> = (0..10).map(|_| pair()).collect();
        let both = Interest::READABLE | Interest::WRITABLE;
        let mut poller = KqueuePoller::with_capacity(capacity).unwrap();
        for (token, (near, far)) in (0..).zip(&pairs) {
            (&*far).write_all(b"x").unwrap();
            let object = EventObject::client(near.as_raw_fd()).with_interest(both);
            poller.add(object.with_mode(Mode::Oneshot).with_token(token)).unwrap();
        }
        let mut told = Vec::new();
        while let events @ [_, ..] = poller.wait(0).unwrap() {
            told.extend(events.iter().map(|event| event.token));
        }
        told.sort_unstable();
        assert_eq!(told, Vec::from_iter(0..10));
        poller.expect_none();
    }
}

/// C17: it asks for as long as it waits; else it sleeps.
#[test]
fn a_poller_that_is_told_to_spin_uses_the_processor() {
    let processor_time = |spin| {
        let mut poller = KqueuePoller::new().unwrap();
        poller.set_spin(spin);
        let now = || clock_gettime(ClockId::CLOCK_THREAD_CPUTIME_ID).unwrap();
        let start = now();
        assert!(poller.wait(100).unwrap().is_empty());
        Duration::from(now() - start)
    };
    let (spun, slept) = (processor_time(Duration::MAX), processor_time(Duration::ZERO));
    // The other tests leave it a share of a core.
    assert!(spun > 2 * slept && spun > Duration::from_millis(4), "{spun:?}, not {slept:?}");
}

/// C10, C12: registrations of one descriptor take turns.
#[test]
fn a_failed_modify_is_never_told_and_undoes_nothing() {
    let (near, mut far) = pair();
    far.write_all(b"x").unwrap();
    let object = EventObject::client(near.as_raw_fd());
    let mut poller = KqueuePoller::new().unwrap();
    let registry = poller.registry().clone();
    std::thread::scope(|scope| {
        let modifying = scope.spawn(|| {
            for _ in 0..1_000 {
                let _ = registry.modify(object.with_token(2));
            }
        });
        while !modifying.is_finished() {
            assert_eq!(poller.wait(0).unwrap(), [], "nothing is registered");
            poller.add(object.with_token(1)).unwrap();
            poller.delete(object.fd).expect("it was added");
        }
    });
}
