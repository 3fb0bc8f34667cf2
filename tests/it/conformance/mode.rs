//! How often readiness is reported.

use std::io::{self, ErrorKind, Read, Write};
use std::os::fd::AsRawFd;
use std::thread;

use pollio::{Event, EventObject, Interest, Mode, Poller};

use crate::support::descriptors::{drain, fill, pair, tcp_pair, udp_pair};
use crate::support::expect::{Expect, LONG_MS};

pub(crate) const MODES: [Mode; 3] = [Mode::Level, Mode::Edge, Mode::Oneshot];

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
pub(crate) fn level_reports_room_until_it_is_filled<P: Poller>() {
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
pub(crate) fn edge_is_reported_once_for_each_arrival<P: Poller>() {
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
pub(crate) fn edge_reports_new_data_behind_unread_data<P: Poller>() {
    let (near, mut far) = pair();
    let mut poller = P::new().unwrap();
    poller.add(EventObject::client(near.as_raw_fd()).with_mode(Mode::Edge)).unwrap();
    for _ in 0..3 {
        far.write_all(b"xy").unwrap();
        assert!(poller.expect_one().is_readable());
        (&near).read_exact(&mut [0]).unwrap();
        poller.expect_none();
    }
}

/// C3: also for an empty datagram.
pub(crate) fn edge_is_reported_once_for_each_datagram<P: Poller>() {
    let (near, far) = udp_pair();
    let mut poller = P::new().unwrap();
    poller.add(EventObject::client(near.as_raw_fd()).with_mode(Mode::Edge)).unwrap();
    let datagrams: [&[u8]; 3] = [b"x", b"", b"xyz"];
    for datagram in datagrams {
        poller.expect_none();
        far.send(datagram).unwrap();
        assert!(poller.expect_one().is_readable());
        poller.expect_none();
        assert_eq!(near.recv(&mut [0; 9]).unwrap(), datagram.len());
        assert_eq!(near.recv(&mut [0; 9]).unwrap_err().kind(), ErrorKind::WouldBlock);
    }
}

/// C2, C3: a peek leaves the data in the buffer.
pub(crate) fn a_peek_takes_no_readiness_away<P: Poller>() {
    for (mode, is_reported_again) in [(Mode::Level, true), (Mode::Edge, false)] {
        let (near, mut far) = tcp_pair();
        let mut poller = P::new().unwrap();
        poller.add(EventObject::client(near.as_raw_fd()).with_mode(mode)).unwrap();
        for _ in 0..2 {
            far.write_all(b"x").unwrap();
            poller.expect_one();
            assert_eq!(near.peek(&mut [0]).unwrap(), 1);
            assert_eq!(poller.wait(0).unwrap().len(), usize::from(is_reported_again), "{mode:?}");
            drain(&near);
            assert_eq!(near.peek(&mut [0]).unwrap_err().kind(), ErrorKind::WouldBlock);
            poller.expect_none();
        }
    }
}

/// C3, C4: both ends work as fast as they can, so that data and room arrive during waits and calls of `modify`.
pub(crate) fn no_arrival_of_a_stream_is_lost<P: Poller>() {
    const LENGTH: usize = 4 << 20;

    /// Transfers until it would block, waits, and so on.
    fn transfer<P: Poller>(object: EventObject, mut some: impl FnMut() -> io::Result<usize>) {
        let mut poller = P::new().unwrap();
        poller.add(object).unwrap();
        let mut done = 0;
        while done < LENGTH {
            match some() {
                Ok(0) => panic!("it ended after {done} bytes"),
                Ok(count) => done += count,
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    assert_eq!(poller.wait(LONG_MS).unwrap().len(), 1, "lost after {done} bytes");
                    if object.mode() == Mode::Oneshot {
                        poller.modify(object).unwrap();
                    }
                }
                Err(error) => panic!("{error}"),
            }
        }
    }

    for mode in [Mode::Edge, Mode::Oneshot] {
        let (near, far) = tcp_pair();
        let reading = EventObject::client(near.as_raw_fd()).with_mode(mode);
        let writing = EventObject::client(far.as_raw_fd()).with_mode(mode);
        thread::scope(|scope| {
            scope.spawn(|| transfer::<P>(reading, || (&near).read(&mut [0; 3_000])));
            let writing = writing.with_interest(Interest::WRITABLE);
            transfer::<P>(writing, || (&far).write(&[0; 5_000]));
        });
    }
}

/// C2, C3, C4
pub(crate) fn each_of_two_pollers_reports_in_its_own_mode<P: Poller>() {
    for mode in MODES {
        let (near, mut far) = pair();
        let object = EventObject::client(near.as_raw_fd());
        let (mut level, mut other) = (P::new().unwrap(), P::new().unwrap());
        level.add(object.with_token(1)).unwrap();
        other.add(object.with_token(2).with_mode(mode)).unwrap();
        level.expect_none();
        other.expect_none();

        far.write_all(b"x").unwrap();
        assert_eq!(level.expect_one().token, 1);
        assert_eq!(other.expect_one().token, 2);
        assert_eq!(level.expect_one().token, 1);
        assert_eq!(other.wait(0).unwrap().len(), usize::from(mode == Mode::Level), "{mode:?}");

        far.write_all(b"x").unwrap();
        assert_eq!(level.expect_one().token, 1);
        let is_reported_again = mode != Mode::Oneshot;
        assert_eq!(other.wait(0).unwrap().len(), usize::from(is_reported_again), "{mode:?}");

        other.delete(object.fd).unwrap();
        other.expect_none();
        assert_eq!(level.expect_one().token, 1);
        drain(&near);
        level.expect_none();
    }
}

/// C3
pub(crate) fn edge_reports_room_once_it_comes_back<P: Poller>() {
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
    assert!(poller.wait(1_000).unwrap().iter().any(Event::is_writable));
    // Many reads have drained the far end, and each may be an arrival of room.
    while !poller.wait(0).unwrap().is_empty() {}
    poller.expect_none();
}

/// C3
pub(crate) fn edge_reports_readiness_that_add_and_modify_find<P: Poller>() {
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
pub(crate) fn oneshot_is_reported_once<P: Poller>() {
    let (near, mut far) = pair();
    let mut poller = P::new().unwrap();
    poller.add(EventObject::client(near.as_raw_fd()).with_mode(Mode::Oneshot)).unwrap();
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

/// C4
pub(crate) fn oneshot_silences_all_its_interests_together<P: Poller>() {
    let (near, mut far) = pair();
    let object = EventObject::client(near.as_raw_fd())
        .with_interest(Interest::BOTH)
        .with_mode(Mode::Oneshot);
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

/// C4
pub(crate) fn oneshot_stays_registered<P: Poller>() {
    let (near, mut far) = pair();
    let object = EventObject::client(near.as_raw_fd()).with_mode(Mode::Oneshot);
    let mut poller = P::new().unwrap();
    poller.add(object).unwrap();
    far.write_all(b"x").unwrap();
    poller.expect_one();
    poller.modify(object).expect("it is still registered");
    poller.expect_one();
    poller.delete(object.fd).expect("it is still registered");
}

/// C4
pub(crate) fn oneshot_reports_both_directions_in_one_event<P: Poller>() {
    let (near, mut far) = pair();
    let mut poller = P::new().unwrap();
    far.write_all(b"x").unwrap();
    poller
        .add(
            EventObject::client(near.as_raw_fd())
                .with_interest(Interest::BOTH)
                .with_mode(Mode::Oneshot),
        )
        .unwrap();
    let event = poller.expect_one();
    assert!(event.is_readable() && event.is_writable());
    poller.expect_none();
}

/// C3, C4
pub(crate) fn oneshot_reports_readiness_that_modify_finds<P: Poller>() {
    let (near, mut far) = pair();
    let object = EventObject::client(near.as_raw_fd()).with_mode(Mode::Oneshot);
    let mut poller = P::new().unwrap();
    poller.add(object).unwrap();
    far.write_all(b"x").unwrap();
    for _ in 0..3 {
        assert!(poller.expect_one().is_readable());
        poller.expect_none();
        poller.modify(object).unwrap();
    }
}

/// C2, C3, C4
pub(crate) fn every_mode_can_become_every_other<P: Poller>() {
    let (near, mut far) = pair();
    let object = EventObject::client(near.as_raw_fd());
    let mut poller = P::new().unwrap();
    poller.add(object).unwrap();
    far.write_all(b"x").unwrap();
    for from in MODES {
        for to in MODES {
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
