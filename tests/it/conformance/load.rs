//! More ready descriptors than a buffer holds.

use std::collections::HashSet;
use std::io::Write;
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixDatagram;

use pollio::{EventObject, Interest, Mode, Poller};

use crate::descriptors::{allow_descriptors, pair};
use crate::expect::Expect;

/// C9, C1: an unbound datagram socket has room to send, so it is writable from the start.
///
/// In addition to the 19,000 there are those of the test itself, within a limit of 20,000 that many
/// systems have.
pub(crate) fn thousands_ready_at_once_are_all_reported<P: Poller>() {
    const COUNT: usize = 19_000;
    allow_descriptors(19_500);
    let sockets: Vec<_> = (0..COUNT).map(|_| UnixDatagram::unbound().unwrap()).collect();
    assert!(sockets.iter().any(|socket| socket.as_raw_fd() > 16_384));
    let mut poller = P::new().unwrap();
    for (token, socket) in (0..).zip(&sockets) {
        let object = EventObject::client(socket.as_raw_fd());
        poller.add(object.with_interest(Interest::WRITABLE).with_token(token)).unwrap();
    }

    let mut reported = HashSet::new();
    let mut waits = 0;
    while reported.len() < COUNT {
        for event in poller.wait(0).unwrap() {
            assert_eq!(event.fd, sockets[event.token as usize].as_raw_fd());
            reported.insert(event.token);
        }
        waits += 1;
        assert!(waits < 100, "only {} were reported in {waits} waits", reported.len());
    }
    while poller.wait(0).unwrap().len() < COUNT {
        waits += 1;
        assert!(waits < 100, "the buffer does not grow to {COUNT} events");
    }
}

/// C9, C3: nothing is reported twice, and nothing is lost between two waits.
pub(crate) fn every_edge_is_reported_once_beyond_the_first_buffer<P: Poller>() {
    const COUNT: u32 = 300;
    for mode in [Mode::Edge, Mode::Oneshot] {
        let pairs: Vec<_> = (0..COUNT).map(|_| pair()).collect();
        let mut poller = P::new().unwrap();
        for (token, (near, far)) in (0..).zip(&pairs) {
            let object = EventObject::client(near.as_raw_fd());
            poller.add(object.with_mode(mode).with_token(token)).unwrap();
            (&*far).write_all(b"x").unwrap();
        }
        let mut reported = Vec::new();
        while let events @ [_, ..] = poller.wait(100).unwrap() {
            reported.extend(events.iter().map(|event| event.token));
        }
        reported.sort_unstable();
        assert_eq!(reported, Vec::from_iter(0..COUNT));
    }
}

/// C1, C2: both directions of a descriptor are one event, however many others are ready.
pub(crate) fn every_descriptor_is_one_event<P: Poller>() {
    const COUNT: u32 = 100;
    let pairs: Vec<_> = (0..COUNT).map(|_| pair()).collect();
    let mut poller = P::new().unwrap();
    for (token, (near, far)) in (0..).zip(&pairs) {
        let object = EventObject::client(near.as_raw_fd()).with_interest(Interest::BOTH);
        poller.add(object.with_token(token)).unwrap();
        (&*far).write_all(b"x").unwrap();
    }
    // By now the buffer has grown to hold them all.
    for _ in 0..10 {
        poller.wait(0).unwrap();
    }
    let events = poller.wait(0).unwrap();
    assert!(events.iter().all(|event| event.is_readable() && event.is_writable()));
    let mut reported: Vec<_> = events.iter().map(|event| event.token).collect();
    reported.sort_unstable();
    assert_eq!(reported, Vec::from_iter(0..COUNT));
}

/// C4: many at once, each of which is ready in one direction, and then in the other.
pub(crate) fn every_oneshot_is_silenced_in_both_directions<P: Poller>() {
    let pairs: Vec<_> = (0..100).map(|_| pair()).collect();
    let mut poller = P::new().unwrap();
    for (near, _) in &pairs {
        let object = EventObject::client(near.as_raw_fd()).with_interest(Interest::BOTH);
        poller.add(object.with_mode(Mode::Oneshot)).unwrap();
    }
    let mut reported = 0;
    while let events @ [_, ..] = poller.wait(20).unwrap() {
        reported += events.len();
    }
    assert_eq!(reported, pairs.len());
    for (_, far) in &pairs {
        (&*far).write_all(b"x").unwrap();
    }
    poller.expect_none();
}
