//! How often readiness is told.

use std::io::{Read, Write};
use std::os::fd::AsRawFd;

use pollio::{EventObject, Interest, Mode, Poller};

use crate::descriptors::{drain, fill, pair};
use crate::expect::Expect;

const BOTH: Interest = Interest::READABLE.union(Interest::WRITABLE);
const ONESHOTS: [Mode; 2] = [Mode::Oneshot, Mode::EdgeOneshot];

/// C2
pub(crate) fn level_repeats_until_drained<P: Poller>() {
    let (near, mut far) = pair();
    let mut poller = P::new().unwrap();
    poller.add(EventObject::client(near.as_raw_fd())).unwrap();
    poller.expect_none();
    far.write_all(b"xy").unwrap();
    for _ in 0..3 {
        assert!(poller.expect_one().is_readable());
    }
    (&near).read_exact(&mut [0]).unwrap();
    assert!(poller.expect_one().is_readable());
    drain(&near);
    poller.expect_none();
}

/// C2
pub(crate) fn level_tells_of_room_until_it_is_filled<P: Poller>() {
    let (near, far) = pair();
    let mut poller = P::new().unwrap();
    poller.add(EventObject::client(near.as_raw_fd()).with_interest(Interest::WRITABLE)).unwrap();
    for _ in 0..3 {
        assert!(poller.expect_one().is_writable());
    }
    fill(&near);
    poller.expect_none();
    drain(&far);
    assert!(poller.expect_one().is_writable());
}

/// C3
pub(crate) fn edge_is_told_once_for_each_arrival<P: Poller>() {
    let (near, mut far) = pair();
    let mut poller = P::new().unwrap();
    poller.add(EventObject::client(near.as_raw_fd()).with_mode(Mode::Edge)).unwrap();
    for _ in 0..3 {
        poller.expect_none();
        far.write_all(b"x").unwrap();
        assert!(poller.expect_one().is_readable());
        poller.expect_none();
        drain(&near);
    }
}

/// C3
pub(crate) fn edge_tells_of_new_data_behind_unread_data<P: Poller>() {
    let (near, mut far) = pair();
    let mut poller = P::new().unwrap();
    poller.add(EventObject::client(near.as_raw_fd()).with_mode(Mode::Edge)).unwrap();
    for _ in 0..3 {
        far.write_all(b"x").unwrap();
        assert!(poller.expect_one().is_readable());
        poller.expect_none();
    }
}

/// C3
pub(crate) fn edge_tells_of_room_once_it_comes_back<P: Poller>() {
    let (near, far) = pair();
    let object = EventObject::client(near.as_raw_fd())
        .with_interest(Interest::WRITABLE)
        .with_mode(Mode::Edge);
    let mut poller = P::new().unwrap();
    poller.add(object).unwrap();
    assert!(poller.expect_one().is_writable());
    poller.expect_none();
    fill(&near);
    poller.expect_none();
    drain(&far);
    assert!(poller.wait(1_000).unwrap().iter().any(EventObject::is_writable));
    // The far end was drained in many reads, each of which may be an arrival of room.
    while !poller.wait(0).unwrap().is_empty() {}
    poller.expect_none();
}

/// C3
pub(crate) fn edge_tells_what_add_and_modify_find<P: Poller>() {
    let (near, mut far) = pair();
    let object = EventObject::client(near.as_raw_fd()).with_mode(Mode::Edge);
    let mut poller = P::new().unwrap();
    far.write_all(b"x").unwrap();
    poller.add(object).unwrap();
    assert!(poller.expect_one().is_readable());
    for _ in 0..3 {
        poller.expect_none();
        poller.modify(object).unwrap();
        assert!(poller.expect_one().is_readable());
    }
}

/// C4
pub(crate) fn oneshot_is_told_once<P: Poller>() {
    for mode in ONESHOTS {
        let (near, mut far) = pair();
        let mut poller = P::new().unwrap();
        poller.add(EventObject::client(near.as_raw_fd()).with_mode(mode)).unwrap();
        poller.expect_none();
        far.write_all(b"x").unwrap();
        assert!(poller.expect_one().is_readable());
        poller.expect_none();
        far.write_all(b"more").unwrap();
        poller.expect_none();
        drain(&near);
        far.write_all(b"again").unwrap();
        poller.expect_none();
    }
}

/// C4
pub(crate) fn oneshot_silences_all_its_interests_together<P: Poller>() {
    for mode in ONESHOTS {
        let (near, mut far) = pair();
        let object = EventObject::client(near.as_raw_fd()).with_interest(BOTH).with_mode(mode);
        let mut poller = P::new().unwrap();

        poller.add(object).unwrap();
        let event = poller.expect_one();
        assert!(event.is_writable() && !event.is_readable());
        far.write_all(b"x").unwrap();
        poller.expect_none();

        fill(&near);
        poller.modify(object).unwrap();
        let event = poller.expect_one();
        assert!(event.is_readable() && !event.is_writable());
        drain(&far);
        poller.expect_none();
    }
}

/// C4
pub(crate) fn oneshot_stays_registered<P: Poller>() {
    for mode in ONESHOTS {
        let (near, mut far) = pair();
        let object = EventObject::client(near.as_raw_fd()).with_mode(mode);
        let mut poller = P::new().unwrap();
        poller.add(object).unwrap();
        far.write_all(b"x").unwrap();
        poller.expect_one();
        poller.modify(object).expect("it is still registered");
        poller.expect_one();
        poller.delete(object.fd).expect("it is still registered");
    }
}

/// C4
pub(crate) fn oneshot_tells_of_both_directions_in_one_event<P: Poller>() {
    for mode in ONESHOTS {
        let (near, mut far) = pair();
        let mut poller = P::new().unwrap();
        far.write_all(b"x").unwrap();
        poller
            .add(EventObject::client(near.as_raw_fd()).with_interest(BOTH).with_mode(mode))
            .unwrap();
        let event = poller.expect_one();
        assert!(event.is_readable() && event.is_writable());
        poller.expect_none();
    }
}

/// C3, C4
pub(crate) fn oneshot_tells_what_modify_finds<P: Poller>() {
    for mode in ONESHOTS {
        let (near, mut far) = pair();
        let object = EventObject::client(near.as_raw_fd()).with_mode(mode);
        let mut poller = P::new().unwrap();
        poller.add(object).unwrap();
        far.write_all(b"x").unwrap();
        for _ in 0..3 {
            assert!(poller.expect_one().is_readable());
            poller.expect_none();
            poller.modify(object).unwrap();
        }
    }
}

/// C2, C3, C4
pub(crate) fn every_mode_can_become_every_other<P: Poller>() {
    let all = [Mode::Level, Mode::Edge, Mode::Oneshot, Mode::EdgeOneshot];
    let (near, mut far) = pair();
    let object = EventObject::client(near.as_raw_fd());
    let mut poller = P::new().unwrap();
    poller.add(object).unwrap();
    far.write_all(b"x").unwrap();
    for from in all {
        for to in all {
            poller.modify(object.with_mode(from)).unwrap();
            assert!(poller.expect_one().is_readable(), "{from:?}");
            poller.modify(object.with_mode(to)).unwrap();
            assert!(poller.expect_one().is_readable(), "{from:?} to {to:?}");
            if to == Mode::Level {
                assert!(poller.expect_one().is_readable(), "{from:?} to {to:?}");
            } else {
                assert!(poller.wait(0).unwrap().is_empty(), "{from:?} to {to:?}");
            }
        }
    }
}
