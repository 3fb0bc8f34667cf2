//! The section "How not to lose edges".

use std::io::{BufRead, BufReader, ErrorKind, IoSlice, Read, Write};
use std::net::Shutdown;
use std::os::fd::AsRawFd;
use std::thread;
use std::time::Duration;

use nix::sys::socket::{ControlMessage, MsgFlags, UnixAddr, sendmsg};
use pollio::{EventObject, Mode, OsPoller, Poller};
use socket2::SockRef;

use crate::support::descriptors::{pair, tcp_pair};
use crate::support::expect::Expect;

#[test]
fn data_that_a_library_has_read_ahead_is_not_reported_again() {
    let (near, mut far) = pair();
    let object = EventObject::client(near.as_raw_fd());
    let mut reader = BufReader::new(near);
    let mut poller = OsPoller::new().unwrap();
    poller.add(object.with_mode(Mode::Edge)).unwrap();
    far.write_all(&b"request\n".repeat(10)).unwrap();
    poller.expect_one();
    for _ in 0..3 {
        reader.read_line(&mut String::new()).unwrap();
    }
    for mode in [Mode::Edge, Mode::Oneshot, Mode::Level] {
        poller.modify(object.with_mode(mode)).unwrap();
        poller.expect_none();
    }
    assert_eq!(reader.lines().map_while(Result::ok).count(), 7);
}

/// Stops at each short read, without the read that would find `WouldBlock`, until the end is reported.
#[test]
fn a_short_read_of_tcp_takes_all_that_is_there() {
    const SIZE: usize = 1 << 20;
    let (mut near, mut far) = tcp_pair();
    let mut poller = OsPoller::new().unwrap();
    poller.add(EventObject::client(near.as_raw_fd()).with_mode(Mode::Edge)).unwrap();
    far.set_nonblocking(false).unwrap();
    let sender = thread::spawn(move || {
        let (bytes, mut sent) = ([0; 5_000], 0);
        while sent < SIZE {
            let count = (1 + sent * 31 % bytes.len()).min(SIZE - sent);
            far.write_all(&bytes[..count]).unwrap();
            sent += count;
            if sent % 3 == 0 {
                thread::sleep(Duration::from_micros(100));
            }
        }
    });
    let (mut received, mut will_end, mut has_ended) = (0, false, false);
    while !has_ended {
        will_end |= poller.expect_one().is_read_closed();
        loop {
            let mut buffer = [0; 4_096];
            match near.read(&mut buffer) {
                Ok(0) => has_ended = true,
                Ok(count) => {
                    received += count;
                    if count == buffer.len() || will_end {
                        continue;
                    }
                }
                Err(error) => assert_eq!(error.kind(), ErrorKind::WouldBlock),
            }
            break;
        }
    }
    assert_eq!(received, SIZE);
    sender.join().unwrap();
}

#[test]
fn a_short_read_leaves_the_end_that_came_with_the_data() {
    let (mut near, mut far) = tcp_pair();
    far.write_all(b"last words").unwrap();
    far.shutdown(Shutdown::Write).unwrap();
    thread::sleep(Duration::from_millis(20));
    let mut poller = OsPoller::new().unwrap();
    poller.add(EventObject::client(near.as_raw_fd()).with_mode(Mode::Edge)).unwrap();
    assert!(poller.expect_one().is_read_closed());
    let mut buffer = [0; 64];
    assert_eq!(near.read(&mut buffer).unwrap(), 10);
    poller.expect_none();
    assert_eq!(near.read(&mut buffer).unwrap(), 0);
}

#[test]
fn out_of_band_data_cuts_a_read_short() {
    let (mut near, far) = tcp_pair();
    let far = SockRef::from(&far);
    far.send(b"before").unwrap();
    far.send_out_of_band(b"!").unwrap();
    far.send(b"after").unwrap();
    thread::sleep(Duration::from_millis(20));
    let mut poller = OsPoller::new().unwrap();
    poller.add(EventObject::client(near.as_raw_fd()).with_mode(Mode::Edge)).unwrap();
    poller.expect_one();
    let mut buffer = [0; 64];
    assert_eq!(near.read(&mut buffer).unwrap(), 6);
    poller.expect_none();
    assert_eq!(near.read(&mut buffer).unwrap(), 5);
}

/// For example, because of a message with a descriptor.
#[test]
fn a_short_read_of_a_unix_socket_can_leave_data() {
    let (mut near, mut far) = pair();
    let descriptors = [far.as_raw_fd()];
    let message = [ControlMessage::ScmRights(&descriptors)];
    let (payload, flags) = ([IoSlice::new(b"with")], MsgFlags::empty());
    sendmsg::<UnixAddr>(far.as_raw_fd(), &payload, &message, flags, None).unwrap();
    far.write_all(b"without").unwrap();
    let mut poller = OsPoller::new().unwrap();
    poller.add(EventObject::client(near.as_raw_fd()).with_mode(Mode::Edge)).unwrap();
    poller.expect_one();
    let mut buffer = [0; 64];
    assert_eq!(near.read(&mut buffer).unwrap(), 4);
    poller.expect_none();
    assert_eq!(near.read(&mut buffer).unwrap(), 7);
}
