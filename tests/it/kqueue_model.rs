//! The contract over a model of kqueue: the selector's own file, with `crate::sys::kevent` of these
//! tests below it instead of the kernel's.
//!
//! It proves the selector's logic on Linux, and nothing about a BSD.

use std::io::Write;
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use nix::errno::Errno;
use nix::time::{ClockId, clock_gettime};
use pollio::{EventObject, Interest, Mode, Poller};

use crate::conformance::conformance;
use crate::descriptors::pair;
use crate::expect::Expect;
pub(crate) use crate::os_poller::OsPoller as KqueuePoller;
use crate::sys::kevent;

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

/// C4, C9: where the kernel has no memory to silence the siblings of a oneshot, the next wait starts from
/// nothing all the same: no event is merged into that of another descriptor.
#[test]
fn a_failed_silencing_loses_no_oneshot_of_the_next_wait() {
    const READY: usize = 40;
    let pairs: Vec<_> = (0..2 * READY).map(|_| pair()).collect();
    let mut poller = KqueuePoller::with_capacity(READY).unwrap();
    let both = Interest::READABLE | Interest::PRIORITY;
    let object = |token: usize| {
        EventObject::client(pairs[token].0.as_raw_fd())
            .with_interest(both)
            .with_mode(Mode::Oneshot)
            .with_token(u32::try_from(token).unwrap())
    };
    for (token, (_, far)) in pairs.iter().enumerate() {
        if token < READY {
            (&*far).write_all(b"x").unwrap();
        }
        poller.add(object(token)).unwrap();
    }
    kevent::fail_next(poller.as_fd(), kevent::EV_DISABLE, Errno::ENOMEM);
    let registry = poller.registry().clone();
    let events = poller.wait(0).unwrap();
    // These become readable first, and so come first in the next wait.
    pairs[READY..].iter().for_each(|(_, far)| (&*far).write_all(b"x").unwrap());
    for event in events {
        registry.modify(object(event.token as usize)).unwrap();
    }
    let mut seen = vec![0; pairs.len()];
    while let events @ [_, ..] = poller.wait(0).unwrap() {
        for event in events {
            assert_eq!(event.fd, pairs[event.token as usize].0.as_raw_fd());
            seen[event.token as usize] += 1;
        }
    }
    assert!(seen.iter().all(|times| *times > 0), "a oneshot is lost: {seen:?}");
}

/// C13: in a table that entries leave one by one, those that left take room until it grows.
#[test]
fn the_table_of_a_wait_never_grows() {
    let pairs: Vec<_> = (0..223).map(|_| pair()).collect();
    let mut poller = KqueuePoller::with_capacity(224).unwrap();
    let both = Interest::READABLE | Interest::WRITABLE;
    let object = |(near, _): &(UnixStream, UnixStream)| {
        EventObject::client(near.as_raw_fd()).with_interest(both)
    };
    pairs.iter().for_each(|pair| poller.add(object(pair)).unwrap());
    for pair in pairs.iter().step_by(7).cycle().take(500) {
        // So that they come in another order.
        poller.modify(object(pair)).unwrap();
        // The wait itself asserts that its table is as large as before.
        assert_eq!(poller.wait(0).unwrap().len(), pairs.len());
    }
}
