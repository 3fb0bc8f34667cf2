//! The contract over epoll, and epoll's own behaviour.

use std::fs::{self, File};
use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::os::fd::AsRawFd;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use pollio::{EventObject, Interest, Mode, OsPoller, Poller, Registered, Timer};
use socket2::{Domain, SockRef, Socket, Type};

use crate::conformance::conformance;
use crate::support::descriptors::{pair, tcp_pair};
use crate::support::expect::Expect;
use crate::support::subprocess::{Closing, in_subprocess};

conformance!(OsPoller);
conformance!(shared: OsPoller);

/// C10
#[test]
fn a_second_add_already_exists() {
    let (near, mut far) = pair();
    let mut poller = OsPoller::new().unwrap();
    poller.add(EventObject::client(near.as_raw_fd()).with_token(1)).unwrap();
    let error = poller.add(EventObject::client(near.as_raw_fd()).with_token(2)).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::AlreadyExists);
    far.write_all(b"x").unwrap();
    assert_eq!(poller.expect_one().token, 1);
}

/// C10: a refused add does not delete the existing registration.
#[test]
fn a_second_registration_leaves_the_first() {
    let (near, mut far) = pair();
    let mut poller = OsPoller::new().unwrap();
    poller.add(EventObject::client(near.as_raw_fd()).with_token(1)).unwrap();
    let error = Registered::new(poller.registry(), &near, EventObject::client).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::AlreadyExists);
    far.write_all(b"x").unwrap();
    assert_eq!(poller.expect_one().token, 1);

    let file = File::open("/dev/null").unwrap();
    let error = Registered::new(poller.registry(), &file, EventObject::client).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::PermissionDenied);
}

/// C4, C10
#[test]
fn a_oneshot_that_was_reported_still_exists() {
    let (near, mut far) = pair();
    let object = EventObject::client(near.as_raw_fd()).with_mode(Mode::Oneshot);
    let mut poller = OsPoller::new().unwrap();
    poller.add(object).unwrap();
    far.write_all(b"x").unwrap();
    poller.expect_one();
    assert_eq!(poller.add(object).unwrap_err().kind(), ErrorKind::AlreadyExists);
}

/// C10
#[test]
fn files_cannot_be_watched() {
    let poller = OsPoller::new().unwrap();
    for path in [concat!(env!("CARGO_MANIFEST_DIR"), "/Cargo.toml"), "/", "/dev/null"] {
        let file = File::open(path).unwrap();
        let error = poller.add(EventObject::client(file.as_raw_fd())).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::PermissionDenied, "{path}");
    }
}

/// C10
#[test]
fn pollers_cannot_watch_each_other_in_a_circle() {
    let (outer, inner) = (OsPoller::new().unwrap(), OsPoller::new().unwrap());
    let itself = outer.add(EventObject::new(outer.as_raw_fd())).unwrap_err();
    assert_eq!(itself.kind(), ErrorKind::InvalidInput);
    outer.add(EventObject::new(inner.as_raw_fd())).unwrap();
    let circle = inner.add(EventObject::new(outer.as_raw_fd())).unwrap_err();
    assert_eq!(circle.raw_os_error(), Some(Errno::ELOOP as i32));
}

/// C5, C6
#[test]
fn hang_ups_and_errors_need_no_interest() {
    let _closing = Closing::new();
    let (near, far) = pair();
    let mut poller = OsPoller::new().unwrap();
    poller.add(EventObject::client(near.as_raw_fd()).with_interest(Interest::NONE)).unwrap();
    poller.expect_none();
    drop(far);
    let event = poller.expect_one();
    assert!(event.is_read_closed() && event.is_write_closed());

    let (near, far) = tcp_pair();
    let mut poller = OsPoller::new().unwrap();
    poller.add(EventObject::client(near.as_raw_fd()).with_interest(Interest::NONE)).unwrap();
    SockRef::from(&far).set_linger(Some(Duration::ZERO)).unwrap();
    drop(far);
    assert!(poller.expect_one().is_error());
}

/// C6: this is why a program connects first, then adds.
#[test]
fn a_socket_that_was_never_connected_looks_hung_up() {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    let mut poller = OsPoller::new().unwrap();
    poller.add(EventObject::client(socket.as_raw_fd())).unwrap();
    let event = poller.expect_one();
    assert!(event.is_read_closed() && event.is_write_closed() && !event.is_error());
}

/// C6
#[test]
fn a_half_close_is_reported_only_to_readers() {
    let (near, far) = tcp_pair();
    let object = EventObject::client(near.as_raw_fd());
    let mut poller = OsPoller::new().unwrap();
    far.shutdown(Shutdown::Write).unwrap();
    poller.add(object.with_interest(Interest::WRITABLE)).unwrap();
    assert!(!poller.expect_one().is_read_closed());
    poller.modify(object).unwrap();
    assert!(poller.expect_one().is_read_closed());
}

/// C16
#[test]
fn a_closed_descriptor_is_reported_while_a_duplicate_lives() {
    let _closing = Closing::new();
    let (near, mut far) = pair();
    let fd = near.as_raw_fd();
    let mut poller = OsPoller::new().unwrap();
    poller.add(EventObject::client(fd).with_token(1)).unwrap();
    let duplicate = near.try_clone().unwrap();
    drop(near);
    far.write_all(b"x").unwrap();
    let event = poller.expect_one();
    assert_eq!((event.fd, event.token), (fd, 1));
    drop(duplicate);
    poller.expect_none();
}

/// C16
#[test]
fn a_closed_number_cannot_be_deleted() {
    in_subprocess!(|| {
        let (near, _far) = pair();
        let fd = near.as_raw_fd();
        let poller = OsPoller::new().unwrap();
        poller.add(EventObject::client(fd)).unwrap();
        let _duplicate = near.try_clone().unwrap();
        drop(near);
        assert_eq!(poller.delete(fd).unwrap_err().raw_os_error(), Some(Errno::EBADF as i32));
    });
}

/// The number of pollers, of four that wait for one listener, that wake for a client in its queue.
pub(crate) fn woken(object: impl Fn(EventObject) -> EventObject + Sync) -> usize {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let woken = AtomicUsize::new(0);
    thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                let mut poller = OsPoller::new().unwrap();
                poller.add(object(EventObject::server(listener.as_raw_fd()))).unwrap();
                let events = poller.wait(1_000).unwrap().len();
                woken.fetch_add(events, Ordering::Relaxed);
            });
        }
        thread::sleep(Duration::from_millis(300));
        TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    });
    woken.into_inner()
}

/// Of four pollers that wait for one listening socket, the kernel wakes fewer.
#[test]
fn exclusive_wakes_fewer_than_all() {
    let edge = |object: EventObject| object.with_mode(Mode::Edge);
    assert_eq!(woken(edge), 4);
    assert!((1..4).contains(&woken(|object| edge(object).exclusive())));
}

#[test]
fn exclusive_refuses_what_the_kernel_does() {
    let (near, _far) = pair();
    let exclusive = EventObject::client(near.as_raw_fd()).exclusive();
    let poller = OsPoller::new().unwrap();
    for refused in [exclusive.with_interest(Interest::PRIORITY), exclusive.with_mode(Mode::Oneshot)]
    {
        assert_eq!(poller.add(refused).unwrap_err().kind(), ErrorKind::InvalidInput);
    }
    poller.add(exclusive.with_interest(Interest::BOTH)).unwrap();
    assert_eq!(poller.modify(exclusive).unwrap_err().kind(), ErrorKind::InvalidInput);
    let plain = EventObject::client(near.as_raw_fd());
    assert_eq!(poller.modify(plain).unwrap_err().kind(), ErrorKind::InvalidInput);
    poller.delete(exclusive.fd).unwrap();
    poller.add(plain).unwrap();
    assert_eq!(poller.modify(exclusive).unwrap_err().kind(), ErrorKind::InvalidInput);
}

#[test]
fn exclusive_reports_a_half_close_as_readable() {
    let (near, far) = tcp_pair();
    let mut poller = OsPoller::new().unwrap();
    poller.add(EventObject::client(near.as_raw_fd()).exclusive()).unwrap();
    far.shutdown(Shutdown::Write).unwrap();
    let event = poller.expect_one();
    assert!(event.is_readable() && !event.is_read_closed());
    assert_eq!((&near).read(&mut [0]).unwrap(), 0);
}

/// C9
#[test]
fn any_capacity_is_enough_to_begin_with() {
    let pairs: Vec<_> = (0..200).map(|_| pair()).collect();
    for capacity in [0, 1, 2, 199, 200, 100_000] {
        let mut poller = OsPoller::with_capacity(capacity).unwrap();
        for (near, _) in &pairs {
            let object = EventObject::client(near.as_raw_fd());
            poller.add(object.with_interest(Interest::WRITABLE).with_mode(Mode::Edge)).unwrap();
        }
        let first = poller.wait(0).unwrap().len();
        assert_eq!(first, capacity.clamp(1, pairs.len()));
        let mut reported = first;
        while let events @ [_, ..] = poller.wait(0).unwrap() {
            reported += events.len();
        }
        assert_eq!(reported, pairs.len());
    }
}

#[test]
fn a_poller_shows_what_the_last_wait_returned() {
    let (near, mut far) = pair();
    let mut poller = OsPoller::new().unwrap();
    assert_eq!(poller.events(), []);
    poller.add(EventObject::client(near.as_raw_fd())).unwrap();
    far.write_all(b"x").unwrap();
    let event = poller.expect_one();
    assert_eq!(poller.events(), [event]);
    let (fd, shown) = (poller.as_raw_fd(), format!("{poller:?}"));
    assert_eq!(shown, format!("OsPoller {{ fd: {fd}, events: [{event:?}], .. }}"));
    poller.delete(near.as_raw_fd()).unwrap();
    assert_eq!(poller.events(), [event], "a slice stays as it is until the next wait");
    poller.expect_none();
    assert_eq!(poller.events(), []);
}

/// C9
#[test]
fn an_absurd_capacity_is_no_panic() {
    let (near, mut far) = pair();
    let mut poller = OsPoller::with_capacity(usize::MAX).unwrap();
    poller.add(EventObject::client(near.as_raw_fd())).unwrap();
    far.write_all(b"x").unwrap();
    poller.expect_one();
}

/// C8: of many waits, at least one ends earlier than a timeout in whole milliseconds could.
#[test]
fn nanoseconds_are_honoured() {
    let mut poller = OsPoller::new().unwrap();
    let shortest = shortest_wait(&mut poller, Duration::from_micros(3_100));
    assert!(shortest < Duration::from_millis(4), "3.1 ms took {shortest:?}");
    let shortest = shortest_wait(&mut poller, SHORT);
    assert!(
        shortest < Duration::from_millis(1),
        "{SHORT:?} took {shortest:?}. On a kernel without epoll_pwait2 (before 5.11), leave this test \
         out by name, with --skip"
    );
}

/// C8: of ten waits for 20 ms, at least one is late by no more than a quarter.
#[test]
fn a_timeout_is_hardly_late() {
    let mut poller = OsPoller::new().unwrap();
    let wait = || {
        let start = Instant::now();
        assert!(poller.wait(20).unwrap().is_empty());
        start.elapsed()
    };
    let shortest = std::iter::repeat_with(wait).take(10).min().unwrap();
    assert!(shortest < Duration::from_millis(25), "20 ms took {shortest:?}");
}

/// Less than a millisecond.
pub(crate) const SHORT: Duration = Duration::from_micros(100);

pub(crate) fn shortest_wait(poller: &mut OsPoller, timeout: Duration) -> Duration {
    let wait = || {
        let start = Instant::now();
        assert!(poller.wait_timeout(Some(timeout)).unwrap().is_empty());
        start.elapsed()
    };
    std::iter::repeat_with(wait).take(50).min().unwrap()
}

/// By the number of the clock in proc_pid_fdinfo(5): 1 is CLOCK_MONOTONIC, 7 CLOCK_BOOTTIME.
#[test]
fn each_timer_has_its_clock() {
    for (timer, clock) in [(Timer::new(), "clockid: 1"), (Timer::new_boottime(), "clockid: 7")] {
        let timer = timer.unwrap();
        timer.set(Duration::from_secs(3_600)).unwrap();
        let info = fs::read_to_string(format!("/proc/self/fdinfo/{}", timer.as_raw_fd())).unwrap();
        assert!(info.lines().any(|line| line == clock), "{info}");
    }
}
