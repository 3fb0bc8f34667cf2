//! The section "A poller inside another loop".

use std::io::{Read, Write};
use std::os::fd::{AsFd, AsRawFd};
use std::thread;
use std::time::Duration;

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use pollio::{EventObject, Mode, OsPoller, Poller};
use tokio::io::unix::AsyncFd;

use crate::support::descriptors::{drain, pair};
use crate::support::expect::Expect;

/// Readiness by poll(2), which GLib and many other loops use.
fn is_readable(poller: &OsPoller, timeout: PollTimeout) -> bool {
    let mut fds = [PollFd::new(poller.as_fd(), PollFlags::POLLIN)];
    poll(&mut fds, timeout).unwrap();
    fds[0].revents().unwrap().contains(PollFlags::POLLIN)
}

#[test]
fn a_poller_is_readable_to_poll_while_one_of_its_own_is_ready() {
    let (near, mut far) = pair();
    let mut poller = OsPoller::new().unwrap();
    poller.add(EventObject::client(near.as_raw_fd())).unwrap();
    assert!(!is_readable(&poller, PollTimeout::ZERO));
    far.write_all(b"x").unwrap();
    for _ in 0..2 {
        assert!(is_readable(&poller, PollTimeout::NONE));
        assert_eq!(poller.wait(0).unwrap().len(), 1);
    }
    drain(&near);
    assert!(!is_readable(&poller, PollTimeout::ZERO));

    poller.modify(EventObject::client(near.as_raw_fd()).with_mode(Mode::Edge)).unwrap();
    far.write_all(b"x").unwrap();
    assert!(is_readable(&poller, PollTimeout::NONE));
    assert_eq!(poller.wait(0).unwrap().len(), 1);
    // The event was returned: nothing is left to wait for.
    assert!(!is_readable(&poller, PollTimeout::ZERO));
}

/// Most runtimes watch in edge-triggered mode.
#[test]
fn an_edge_triggered_loop_must_wait_until_nothing_is_returned() {
    let pairs: Vec<_> = (0..3).map(|_| pair()).collect();
    let mut inner = OsPoller::with_capacity(1).unwrap();
    for (near, _) in &pairs {
        inner.add(EventObject::client(near.as_raw_fd()).with_mode(Mode::Edge)).unwrap();
    }
    let mut outer = OsPoller::new().unwrap();
    outer.add(EventObject::new(inner.as_raw_fd()).with_mode(Mode::Edge)).unwrap();
    for (_, far) in &pairs {
        (&*far).write_all(b"x").unwrap();
    }
    outer.expect_one();
    // One wait has room for one event. The outer loop does not report the others.
    assert_eq!(inner.wait(0).unwrap().len(), 1);
    outer.expect_none();
    let mut left = 0;
    while let events @ [_, ..] = inner.wait(0).unwrap() {
        left += events.len();
    }
    assert_eq!(left, 2);
    (&pairs[0].1).write_all(b"x").unwrap();
    outer.expect_one();
}

/// Another runtime, on the thread that also uses the poller.
#[test]
fn tokio_watches_a_poller() {
    const MESSAGES: usize = 20;
    let (near, mut far) = pair();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build().unwrap();
    let received = runtime.block_on(async {
        let poller = OsPoller::new().unwrap();
        poller.add(EventObject::client(near.as_raw_fd())).unwrap();
        #[allow(
            deprecated,
            reason = "its successor is unsafe, which it has no need to be for an owner"
        )]
        let mut watched = AsyncFd::new(poller).unwrap();
        let elsewhere = thread::spawn(move || {
            for _ in 0..MESSAGES {
                far.write_all(b"x").unwrap();
                thread::sleep(Duration::from_millis(1));
            }
            far
        });
        let mut received = 0;
        while received < MESSAGES {
            let mut guard = watched.readable_mut().await.unwrap();
            while let [_event] = guard.get_inner_mut().wait(0).unwrap() {
                while (&near).read(&mut [0]).is_ok() {
                    received += 1;
                }
            }
            guard.clear_ready();
        }
        elsewhere.join().unwrap();
        received
    });
    assert_eq!(received, MESSAGES);
}
