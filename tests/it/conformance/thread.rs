//! More than one thread.

use std::collections::BTreeSet;
use std::io::ErrorKind::NotFound;
use std::io::Write;
use std::os::fd::AsRawFd;
use std::sync::Barrier;
use std::thread;
use std::time::Duration;

use pollio::{Event, EventObject, Interest, Mode, Poller};

use crate::support::descriptors::{open, pair};
use crate::support::expect::{Expect, LONG_MS};

/// Long enough for the other thread to be blocked in its wait.
const BLOCKED: Duration = Duration::from_millis(50);

/// C12
pub(crate) fn a_registration_reaches_a_blocked_wait<P: Poller>() {
    let (near, mut far) = pair();
    far.write_all(b"x").unwrap();
    let mut poller = P::new().unwrap();
    let registry = poller.registry().clone();
    thread::scope(|scope| {
        scope.spawn(|| {
            thread::sleep(BLOCKED);
            registry.add(EventObject::client(near.as_raw_fd()).with_token(9)).unwrap();
        });
        assert_eq!(poller.expect_one().token, 9);
    });
}

/// C12
pub(crate) fn a_modification_reaches_a_blocked_wait<P: Poller>() {
    let (near, _far) = pair();
    let object = EventObject::client(near.as_raw_fd());
    let mut poller = P::new().unwrap();
    poller.add(object).unwrap();
    let registry = poller.registry().clone();
    thread::scope(|scope| {
        scope.spawn(|| {
            thread::sleep(BLOCKED);
            registry.modify(object.with_interest(Interest::WRITABLE)).unwrap();
        });
        assert!(poller.expect_one().is_writable());
    });
}

/// C12: `OsPoller` is `Send`. A generic poller need not be, so each thread creates its own.
pub(crate) fn a_poller_moves_to_another_thread<P: Poller>() {
    let (near, mut far) = pair();
    let (hand_over, taken) = std::sync::mpsc::channel();
    thread::scope(|scope| {
        scope.spawn(|| {
            let mut poller = P::new().unwrap();
            hand_over.send(poller.registry().clone()).unwrap();
            assert_eq!(poller.expect_one().token, 4);
        });
        let registry = taken.recv().unwrap();
        registry.add(EventObject::client(near.as_raw_fd()).with_token(4)).unwrap();
        far.write_all(b"x").unwrap();
    });
}

/// C12
pub(crate) fn registering_works_while_events_are_borrowed<P: Poller>() {
    let (near, mut far) = pair();
    let (other, mut other_far) = pair();
    let mut poller = P::new().unwrap();
    let registry = poller.registry().clone();
    let object = EventObject::client(near.as_raw_fd());
    poller.add(object).unwrap();
    far.write_all(b"x").unwrap();
    other_far.write_all(b"x").unwrap();
    for event in poller.wait(-1).unwrap() {
        registry.add(EventObject::client(other.as_raw_fd()).with_token(event.token + 1)).unwrap();
        registry.modify(object.with_interest(Interest::NONE)).unwrap();
        registry.delete(event.fd).unwrap();
    }
    assert_eq!(poller.expect_one().token, 1);
}

/// C12
pub(crate) fn many_threads_register_at_once<P: Poller>() {
    let mut poller = P::new().unwrap();
    let registry = poller.registry();
    thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                let (near, _far) = pair();
                let object = EventObject::client(near.as_raw_fd());
                for _ in 0..1_000 {
                    registry.add(object).unwrap();
                    registry.modify(object.with_interest(Interest::WRITABLE)).unwrap();
                    registry.delete(object.fd).unwrap();
                }
            });
        }
    });
    poller.expect_none();
}

/// C12
pub(crate) fn the_last_registration_of_each_thread_is_reported<P: Poller>() {
    let pairs: Vec<_> = (0..4).map(|_| pair()).collect();
    let mut poller = P::new().unwrap();
    let registry = poller.registry();
    thread::scope(|scope| {
        for (token, (near, _)) in (0..).zip(&pairs) {
            let object = EventObject::client(near.as_raw_fd());
            scope.spawn(move || {
                for _ in 0..100 {
                    registry.add(object.with_interest(Interest::WRITABLE)).unwrap();
                    registry.delete(object.fd).unwrap();
                }
                registry.add(object.with_token(9)).unwrap();
                registry
                    .modify(object.with_interest(Interest::WRITABLE).with_token(token))
                    .unwrap();
            });
        }
    });
    let mut reported = BTreeSet::new();
    while reported.len() < pairs.len() {
        let events = poller.wait(LONG_MS).unwrap();
        assert!(!events.is_empty() && events.iter().all(Event::is_writable));
        reported.extend(events.iter().map(|event| event.token));
    }
    assert!(reported.into_iter().eq(0..4));
}

/// C11
pub(crate) fn threads_register_on_while_their_poller_is_dropped<P: Poller>() {
    const THREADS: usize = 4;
    let before = open();
    let mut poller = P::new().unwrap();
    let begun = Barrier::new(THREADS + 1);
    thread::scope(|scope| {
        for _ in 0..THREADS {
            let registry = poller.registry().clone();
            let begun = &begun;
            scope.spawn(move || {
                let (near, mut far) = pair();
                far.write_all(b"x").unwrap();
                let object = EventObject::client(near.as_raw_fd());
                for round in 0..200 {
                    if round == 10 {
                        begun.wait();
                    }
                    registry.add(object).unwrap();
                    registry.modify(object.with_mode(Mode::Edge)).unwrap();
                    registry.delete(object.fd).unwrap();
                    assert_eq!(registry.delete(object.fd).unwrap_err().kind(), NotFound);
                }
            });
        }
        begun.wait();
        let events = poller.wait(0).unwrap();
        // On kqueue, a registration that is replaced during the wait can be reported twice.
        let reported: BTreeSet<_> = events.iter().map(|event| event.fd).collect();
        assert!(reported.len() <= THREADS);
        drop(poller);
    });
    // The model of kqueue keeps a descriptor of a closed kqueue until its number is taken again.
    drop(P::new().unwrap());
    assert_eq!(open(), before);
}
