//! The contract over a model of kqueue: the selector's own file, with `crate::sys::kevent` of these
//! tests below it instead of the kernel's.
//!
//! It proves the selector's logic on Linux, and nothing about a BSD.

use std::io::{self, ErrorKind, Write};
use std::os::fd::{AsFd, AsRawFd};
use std::time::Duration;

use allocation_counter::measure;
use nix::errno::Errno;
use nix::time::{ClockId, clock_gettime};
use pollio::{EventObject, Interest, Mode, Poller};

use crate::conformance::conformance;
use crate::conformance::sharing::share;
use crate::descriptors::pair;
use crate::expect::Expect;
pub(crate) use crate::os_poller::OsPoller as KqueuePoller;
use crate::sys::kevent;

conformance!(KqueuePoller);
conformance!(kqueue: KqueuePoller);
conformance!(shared: KqueuePoller);
share!(KqueuePoller, 20_000);

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

/// C10: the kernel has no memory for the new knotes, and what they were to replace is no longer
/// reported.
#[test]
fn an_add_that_fails_leaves_nothing_registered() {
    let (near, mut far) = pair();
    far.write_all(b"x").unwrap();
    let object = EventObject::client(near.as_raw_fd())
        .with_interest(Interest::READABLE | Interest::WRITABLE)
        .with_mode(Mode::Oneshot);
    let mut poller = KqueuePoller::new().unwrap();
    type Verb = fn(&KqueuePoller, EventObject) -> io::Result<()>;
    for verb in [Poller::add as Verb, Poller::modify as Verb] {
        poller.add(object).unwrap();
        kevent::fail_next(poller.as_fd(), kevent::EV_ADD, Errno::ENOMEM);
        let error = verb(&poller, object).unwrap_err();
        assert_eq!(error.raw_os_error(), Some(Errno::ENOMEM as i32));
        poller.expect_none();
        assert_eq!(poller.delete(object.fd).unwrap_err().kind(), ErrorKind::NotFound);
    }
}

/// A number that is not open makes no table of all numbers up to it.
#[test]
fn a_number_that_is_not_open_takes_no_memory() {
    let both = Interest::READABLE | Interest::WRITABLE;
    let poller = KqueuePoller::new().unwrap();
    for fd in [-1, 1 << 29, i32::MAX] {
        let object = EventObject::client(fd).with_interest(both).with_mode(Mode::Oneshot);
        let taken = measure(|| {
            for _ in 0..10 {
                let error = poller.add(object).unwrap_err();
                assert_eq!(error.raw_os_error(), Some(Errno::EBADF as i32));
                poller.modify(object).unwrap_err();
            }
        });
        assert!(taken.bytes_max < 100_000, "{fd}: {} bytes", taken.bytes_max);
    }
}
