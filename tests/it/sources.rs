//! Sources over the poller of this system, and over poll(2), which knows nothing of pollio.

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::{AsFd, AsRawFd};
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use pollio::{EventObject, Mode, OsPoller, Poller, Waker};

use crate::expect::Expect;

/// C15
#[test]
fn a_wake_before_the_wait_is_told() {
    let waker = Waker::new().unwrap();
    let mut poller = OsPoller::new().unwrap();
    waker.wake().unwrap();
    poller.add(EventObject::client(waker.as_raw_fd()).with_token(1)).unwrap();
    let event = poller.expect_one();
    assert!(event.token == 1 && event.is_readable());
}

/// C15, C12
#[test]
fn a_wake_ends_a_blocked_wait() {
    let waker = Waker::new().unwrap();
    let mut poller = OsPoller::new().unwrap();
    poller.add(EventObject::client(waker.as_raw_fd())).unwrap();
    thread::scope(|scope| {
        scope.spawn(|| {
            thread::sleep(std::time::Duration::from_millis(30));
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
        let mut poller = OsPoller::new().unwrap();
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
    let mut poller = OsPoller::new().unwrap();
    poller.add(EventObject::client(waker.as_raw_fd())).unwrap();
    waker.clear().unwrap();
    waker.clear().unwrap();
    poller.expect_none();
    waker.wake().unwrap();
    poller.expect_one();
}

/// C15: the counter below is full, so that one more would block.
#[test]
fn a_wake_never_blocks() {
    let waker = Waker::new().unwrap();
    let mut counter = File::from(waker.as_fd().try_clone_to_owned().unwrap());
    counter.write_all(&(u64::MAX - 1).to_ne_bytes()).unwrap();
    waker.wake().unwrap();
    let mut poller = OsPoller::new().unwrap();
    poller.add(EventObject::client(waker.as_raw_fd())).unwrap();
    poller.expect_one();
    waker.clear().unwrap();
    poller.expect_none();
}

/// C15: each thread counts its work before it wakes, so a cleared waker with uncounted work would
/// be a lost wake.
#[test]
fn no_wake_of_many_threads_is_lost() {
    const THREADS: u64 = 4;
    const WAKES: u64 = 5_000;
    for mode in [Mode::Level, Mode::Edge] {
        let waker = Waker::new().unwrap();
        let work = AtomicU64::new(0);
        let mut poller = OsPoller::new().unwrap();
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
                waker.clear().unwrap();
                done += work.swap(0, Ordering::SeqCst);
            }
        });
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
fn a_dropped_waker_closes_its_descriptor() {
    let (mut reader, writer) = crate::descriptors::pipe();
    let waker = Waker::new().unwrap();
    let fd = waker.as_fd().try_clone_to_owned().unwrap();
    drop(waker);
    // The duplicate is another descriptor: it lives on.
    assert_eq!(File::from(fd).write(&1_u64.to_ne_bytes()).unwrap(), 8);
    drop(writer);
    assert_eq!(reader.read(&mut [0]).unwrap(), 0);
}

#[test]
fn a_waker_is_send_and_sync() {
    fn is_send_and_sync<T: Send + Sync>() {}
    is_send_and_sync::<Waker>();
}
