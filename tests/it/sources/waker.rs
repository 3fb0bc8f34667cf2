//! `Waker`, over a poller, and over poll(2), which knows nothing of pollio.

use std::mem;
use std::os::fd::{AsFd, AsRawFd};
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::unistd::close;
use pollio::{EventObject, Mode, Poller};

use super::{AnyPoller, Waker};
use crate::descriptors::{inherited, make_with_too_little_room_first, open};
use crate::expect::Expect;
use crate::subprocess::in_subprocess;

/// C15
#[test]
fn a_wake_before_the_wait_is_reported() {
    let waker = Waker::new().unwrap();
    let mut poller = AnyPoller::new().unwrap();
    waker.wake().unwrap();
    poller.add(EventObject::client(waker.as_raw_fd()).with_token(1)).unwrap();
    let event = poller.expect_one();
    assert!(event.token == 1 && event.is_readable());
}

/// C15, C12
#[test]
fn a_wake_ends_a_blocked_wait() {
    let waker = Waker::new().unwrap();
    let mut poller = AnyPoller::new().unwrap();
    poller.add(EventObject::client(waker.as_raw_fd())).unwrap();
    thread::scope(|scope| {
        scope.spawn(|| {
            thread::sleep(Duration::from_millis(30));
            waker.wake().unwrap();
        });
        poller.expect_one();
    });
}

/// C15
#[test]
fn many_wakes_are_one_event_until_cleared() {
    for mode in [Mode::Level, Mode::Edge] {
        let waker = Waker::new().unwrap();
        let mut poller = AnyPoller::new().unwrap();
        poller.add(EventObject::client(waker.as_raw_fd()).with_mode(mode)).unwrap();
        for _ in 0..3 {
            poller.expect_none();
            for _ in 0..1_000 {
                waker.wake().unwrap();
            }
            poller.expect_one();
            waker.clear().unwrap();
        }
        poller.expect_none();
    }
}

/// C15
#[test]
fn clearing_without_a_wake_does_nothing() {
    let waker = Waker::new().unwrap();
    let mut poller = AnyPoller::new().unwrap();
    poller.add(EventObject::client(waker.as_raw_fd())).unwrap();
    waker.clear().unwrap();
    waker.clear().unwrap();
    poller.expect_none();
    waker.wake().unwrap();
    poller.expect_one();
}

/// C15: more than a pair of sockets holds.
#[test]
fn a_wake_never_blocks() {
    let waker = Waker::new().unwrap();
    let mut poller = AnyPoller::new().unwrap();
    poller.add(EventObject::client(waker.as_raw_fd())).unwrap();
    for _ in 0..300_000 {
        waker.wake().unwrap();
    }
    poller.expect_one();
    waker.clear().unwrap();
    poller.expect_none();
    waker.wake().unwrap();
    poller.expect_one();
}

/// C15: an edge-triggered registration needs no read, not even to make room.
#[test]
fn a_rearmed_waker_is_reported_by_each_edge() {
    let waker = Waker::new().unwrap();
    let mut poller = AnyPoller::new().unwrap();
    poller.add(EventObject::client(waker.as_raw_fd()).with_mode(Mode::Edge)).unwrap();
    // More than a pair of sockets holds.
    for _ in 0..3_000 {
        for _ in 0..2 {
            waker.wake().unwrap();
        }
        poller.expect_one();
        assert_eq!(poller.wait(0).unwrap(), []);
        waker.rearm();
    }
}

/// C15: each thread counts its work before it wakes, so a cleared waker with uncounted work would
/// be a lost wake.
#[test]
fn no_wake_of_many_threads_is_lost() {
    const THREADS: u64 = 4;
    const WAKES: u64 = 5_000;
    for (mode, rearms) in [(Mode::Level, false), (Mode::Edge, false), (Mode::Edge, true)] {
        let waker = Waker::new().unwrap();
        let work = AtomicU64::new(0);
        let mut poller = AnyPoller::new().unwrap();
        poller.add(EventObject::client(waker.as_raw_fd()).with_mode(mode)).unwrap();
        thread::scope(|scope| {
            for _ in 0..THREADS {
                scope.spawn(|| {
                    for _ in 0..WAKES {
                        work.fetch_add(1, Ordering::SeqCst);
                        waker.wake().unwrap();
                    }
                });
            }
            let mut done = 0;
            while done < THREADS * WAKES {
                poller.expect_one();
                if rearms {
                    waker.rearm();
                } else {
                    waker.clear().unwrap();
                }
                done += work.swap(0, Ordering::SeqCst);
            }
        });
    }
}

/// C15, C1
#[test]
fn several_wakers_are_distinguished() {
    let wakers = [0; 3].map(|_| Waker::new().unwrap());
    let mut poller = AnyPoller::new().unwrap();
    for (token, waker) in (0..).zip(&wakers) {
        poller.add(EventObject::client(waker.as_raw_fd()).with_token(token)).unwrap();
    }
    for (token, waker) in (0..).zip(&wakers) {
        waker.wake().unwrap();
        assert_eq!(poller.expect_one().token, token);
        waker.clear().unwrap();
        poller.expect_none();
    }
}

/// C15
#[test]
fn a_waker_serves_any_poller() {
    let waker = Waker::new().unwrap();
    let is_readable = || {
        let mut watched = [PollFd::new(waker.as_fd(), PollFlags::POLLIN)];
        poll(&mut watched, PollTimeout::ZERO).unwrap() == 1
    };
    assert!(!is_readable());
    waker.wake().unwrap();
    assert!(is_readable());
    waker.clear().unwrap();
    assert!(!is_readable());
}

/// C11
#[test]
fn a_dropped_waker_closes_its_descriptors() {
    in_subprocess!(|| {
        let before = open();
        let waker = Waker::new().unwrap();
        assert!(open() > before);
        drop(waker);
        assert_eq!(open(), before);
    });
}

/// C11
#[test]
fn an_exec_closes_a_wakers_descriptors() {
    in_subprocess!(|| {
        let before = inherited();
        let _waker = Waker::new().unwrap();
        assert_eq!(inherited(), before);
    });
}

/// C11
#[test]
fn without_room_for_its_descriptors_no_waker_is_half_made() {
    in_subprocess!(|| {
        let waker = make_with_too_little_room_first(Waker::new);
        let mut poller = AnyPoller::new().unwrap();
        poller.add(EventObject::client(waker.as_raw_fd())).unwrap();
        waker.wake().unwrap();
        poller.expect_one();
    });
}

/// What closes its descriptor behind its back makes an error of it. The second wake does not count
/// on the first, which came to nothing.
#[test]
fn a_closed_waker_is_an_error() {
    in_subprocess!(|| {
        let waker = Waker::new().unwrap();
        close(waker.as_raw_fd()).unwrap();
        for _ in 0..2 {
            waker.wake().unwrap_err();
        }
        assert_eq!(waker.clear().unwrap_err().raw_os_error(), Some(Errno::EBADF as i32));
        // It would close the number once more.
        mem::forget(waker);
    });
}

#[test]
fn a_waker_is_send_and_sync() {
    fn is_send_and_sync<T: Send + Sync>() {}
    is_send_and_sync::<Waker>();
}
