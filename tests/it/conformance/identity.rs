//! The descriptor, kind and token of an event.

use std::io::Write;
use std::os::fd::{AsFd, AsRawFd};

use pollio::{EventKind, EventObject, Mode, Poller};

use super::mode::MODES;
use crate::support::descriptors::{drain, pair, udp_pair};
use crate::support::expect::Expect;

/// C1
pub(crate) fn fd_kind_and_token_come_back<P: Poller>() {
    let (near, mut far) = pair();
    let fd = near.as_raw_fd();
    let mut poller = P::new().unwrap();
    far.write_all(b"x").unwrap();
    for token in [0, 1, 0x8000_0000, u32::MAX] {
        for object in [EventObject::server(fd), EventObject::client(fd)] {
            poller.add(object.with_token(token)).unwrap();
            let event = poller.expect_one();
            assert_eq!((event.fd, event.kind, event.token), (fd, object.kind, token));
            poller.delete(fd).unwrap();
        }
    }
}

/// C1
pub(crate) fn modify_replaces_kind_and_token<P: Poller>() {
    let (near, mut far) = pair();
    let fd = near.as_raw_fd();
    let mut poller = P::new().unwrap();
    poller.add(EventObject::client(fd).with_token(u32::MAX)).unwrap();
    far.write_all(b"x").unwrap();
    assert_eq!(poller.expect_one().token, u32::MAX);

    poller.modify(EventObject::server(fd)).unwrap();
    let event = poller.expect_one();
    assert_eq!((event.fd, event.kind, event.token), (fd, EventKind::Server, 0));
}

/// C1
pub(crate) fn an_arrival_after_modify_is_reported_as_modified<P: Poller>() {
    for mode in MODES {
        let (near, mut far) = pair();
        let fd = near.as_raw_fd();
        let mut poller = P::new().unwrap();
        poller.add(EventObject::client(fd).with_mode(mode).with_token(1)).unwrap();
        assert!(poller.wait(0).unwrap().is_empty());
        poller.modify(EventObject::server(fd).with_mode(mode).with_token(2)).unwrap();
        assert!(poller.wait(0).unwrap().is_empty());
        far.write_all(b"x").unwrap();
        let event = poller.expect_one();
        assert_eq!((event.fd, event.kind, event.token), (fd, EventKind::Server, 2));
    }
}

/// C1
pub(crate) fn a_datagram_socket_that_connects_again_is_still_reported<P: Poller>() {
    let (near, far) = udp_pair();
    let (other, _) = udp_pair();
    let mut poller = P::new().unwrap();
    poller.add(EventObject::client(near.as_raw_fd()).with_mode(Mode::Edge).with_token(1)).unwrap();
    other.connect(near.local_addr().unwrap()).unwrap();
    for peer in [&far, &other, &far] {
        near.connect(peer.local_addr().unwrap()).unwrap();
        peer.send(b"x").unwrap();
        assert_eq!(poller.expect_one().token, 1);
        assert_eq!(near.recv(&mut [0; 2]).unwrap(), 1);
    }
}

/// C1
pub(crate) fn descriptors_are_distinguished<P: Poller>() {
    let mut pairs: Vec<_> = (0..100).map(|_| pair()).collect();
    let mut poller = P::new().unwrap();
    for (token, (near, _)) in (0..).zip(&pairs) {
        poller.add(EventObject::client(near.as_raw_fd()).with_token(token)).unwrap();
    }
    for (token, (near, far)) in (0..).zip(&mut pairs) {
        far.write_all(b"x").unwrap();
        let event = poller.expect_one();
        assert_eq!((event.fd, event.token), (near.as_raw_fd(), token));
        drain(near);
    }
}

/// C1: a poller is itself a descriptor.
pub(crate) fn a_poller_watches_another_poller<P: Poller + AsFd + AsRawFd>() {
    let (near, mut far) = pair();
    let (mut outer, mut inner) = (P::new().unwrap(), P::new().unwrap());
    inner.add(EventObject::client(near.as_raw_fd()).with_token(1)).unwrap();
    assert_eq!(inner.as_fd().as_raw_fd(), inner.as_raw_fd());
    outer.add(EventObject::new(inner.as_raw_fd()).with_token(2)).unwrap();
    outer.expect_none();
    far.write_all(b"x").unwrap();
    let event = outer.expect_one();
    assert!(event.token == 2 && event.is_readable());
    assert_eq!(inner.expect_one().token, 1);
    drain(&near);
    // On Apple systems, FreeBSD and NetBSD it is readable until the next wait on it: `filt_kqueue` counts queued
    // knotes.
    inner.expect_none();
    outer.expect_none();
}
