//! More ready descriptors than a buffer holds.

use std::collections::HashSet;
use std::io::Write;
use std::os::fd::AsRawFd;
use std::os::unix::net::{UnixDatagram, UnixStream};

use pollio::{EventObject, Interest, Mode, Poller};

use super::sharing::Share;
use crate::support::descriptors::{allow_descriptors, pair};
use crate::support::expect::Expect;

/// C9, C1: an unbound datagram socket has room to send, so it is writable at once.
///
/// With the descriptors of the test itself, 19,000 stay below the limit of 20,000 that many systems have.
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

/// C4: many at once, each ready in one direction, and then in the other.
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

/// A hundred sockets that are readable, each registered in `mode` and for `interest`.
fn hundred_ready(
    poller: &impl Poller,
    interest: Interest,
    mode: Mode,
) -> Vec<(UnixStream, UnixStream)> {
    let ready = |token| {
        let (near, mut far) = pair();
        far.write_all(b"x").unwrap();
        let object = EventObject::client(near.as_raw_fd()).with_token(token);
        poller.add(object.with_interest(interest).with_mode(mode)).unwrap();
        (near, far)
    };
    (0..100).map(ready).collect()
}

/// The number of events of each wait, up to the first one without.
fn sizes<P: Poller>(poller: &mut P) -> Vec<usize> {
    let wait = || Some(poller.wait(0).unwrap().len()).filter(|count| *count > 0);
    std::iter::from_fn(wait).collect()
}

/// C9: a buffer that is smaller than the bound grows up to it.
pub(crate) fn a_bound_holds_for_each_wait_whatever_the_capacity<P: Share>() {
    for mode in [Mode::Edge, Mode::Oneshot] {
        for (capacity, first, last) in [
            (1, &[1, 2, 4][..], 5),
            (3, &[3, 6], 3),
            // Thirteen waits.
            (8, &[8], 4),
            (9, &[8], 4),
            (16, &[8], 4),
            (100, &[8], 4),
            (1_000, &[8], 4),
        ] {
            let mut poller = P::with_capacity(capacity).unwrap();
            poller.set_max_events(8);
            let _sockets = hundred_ready(&poller, Interest::READABLE, mode);
            let expected = [first, &[8; 11], &[last]].concat();
            assert_eq!(sizes(&mut poller), expected, "{mode:?}, room for {capacity}");
        }
    }
}

/// C2, C9: on kqueue, the two filters of a descriptor may come with different waits.
pub(crate) fn a_bound_holds_where_two_filters_are_one_event<P: Share>() {
    for bound in [1, 2, 3, 8] {
        let mut poller = P::new().unwrap();
        poller.set_max_events(bound);
        let sockets = hundred_ready(&poller, Interest::BOTH, Mode::Oneshot);
        let sizes = sizes(&mut poller);
        assert!(sizes.iter().all(|count| *count <= bound), "{bound}: {sizes:?}");
        assert_eq!(sizes.iter().sum::<usize>(), sockets.len(), "{bound}: {sizes:?}");
    }
}

/// C9
pub(crate) fn a_bound_can_change_and_be_removed<P: Share>() {
    let mut poller = P::with_capacity(1).unwrap();
    let sockets = hundred_ready(&poller, Interest::READABLE, Mode::Level);
    while poller.wait(0).unwrap().len() < sockets.len() {}
    for (bound, count) in [(8, 8), (1, 1), (0, 1), (99, 99), (usize::MAX, 100), (100, 100)] {
        poller.set_max_events(bound);
        assert_eq!(poller.wait(0).unwrap().len(), count, "{bound}");
        assert_eq!(poller.wait(0).unwrap().len(), count, "{bound}, again");
    }
}

/// C9, C18
pub(crate) fn a_new_handle_has_the_bound_of_its_origin<P: Share>() {
    let mut poller = P::new().unwrap();
    poller.set_max_events(8);
    let _sockets = hundred_ready(&poller, Interest::READABLE, Mode::Level);
    let mut other = poller.share();
    assert_eq!(other.wait(0).unwrap().len(), 8);
    poller.set_max_events(5);
    assert_eq!((poller.wait(0).unwrap().len(), other.wait(0).unwrap().len()), (5, 8));
}
