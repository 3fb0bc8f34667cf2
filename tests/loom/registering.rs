//! `Registry` over kqueue. A registration is several knotes there, and the kernel takes them one by one.

use std::io::ErrorKind;

use loom::thread;
use pollio::{EventObject, Interest, Poller, Registry};

use crate::os_poller::OsPoller as KqueuePoller;
use crate::sys::kevent::{self, Filter, knotes};

const FD: i32 = 3;

fn readable() -> EventObject {
    EventObject::client(FD).with_token(1)
}

fn writable_and_priority() -> EventObject {
    let interest = Interest::WRITABLE | Interest::PRIORITY;
    EventObject::client(FD).with_interest(interest).with_token(2)
}

/// The current registration, by its filters and tokens.
fn registered() -> Vec<(Filter, u64)> {
    knotes().into_iter().map(|(filter, udata)| (filter, udata & 0xffff_ffff)).collect()
}

/// Runs `one` in parallel with `other`, in every order.
fn in_parallel(
    is_registered: bool,
    one: fn(&Registry),
    other: fn(&Registry),
    then: fn(Vec<(Filter, u64)>),
) {
    loom::model(move || {
        let poller = KqueuePoller::new().unwrap();
        let registry = poller.registry().clone();
        if is_registered {
            poller
                .add(EventObject::client(FD).with_interest(Interest::BOTH | Interest::PRIORITY))
                .unwrap();
        }
        let thread = thread::spawn(move || one(&registry));
        other(poller.registry());
        thread.join().unwrap();
        then(registered());
    });
}

fn expect_either(registered: Vec<(Filter, u64)>) {
    let readable = [(kevent::EVFILT_READ, 1)];
    let other = [(kevent::EVFILT_WRITE, 2), (kevent::EVFILT_EXCEPT.unwrap(), 2)];
    assert!(registered == readable || registered == other, "a mixture: {registered:?}");
}

/// C12
#[test]
fn of_two_modifications_one_is_left() {
    in_parallel(
        true,
        |registry| registry.modify(readable()).unwrap(),
        |registry| registry.modify(writable_and_priority()).unwrap(),
        expect_either,
    );
}

/// C12
#[test]
fn of_two_additions_one_is_left() {
    in_parallel(
        false,
        |registry| registry.add(readable()).unwrap(),
        |registry| registry.add(writable_and_priority()).unwrap(),
        expect_either,
    );
}

/// C10, C12
#[test]
fn a_modification_beside_a_deletion_leaves_nothing() {
    in_parallel(
        true,
        |registry| {
            if let Err(error) = registry.modify(readable()) {
                assert_eq!(error.kind(), ErrorKind::NotFound);
            }
        },
        |registry| registry.delete(FD).unwrap(),
        |registered| assert_eq!(registered, []),
    );
}
