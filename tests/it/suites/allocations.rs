//! Counts the allocations of a poller.

use std::io::Write;
use std::os::fd::AsRawFd;
use std::time::Duration;

use allocation_counter::measure;
use pollio::{Connections, EventObject, Interest, Mode, OsPoller, Poller, Waker};

use crate::support::descriptors::pair;

#[test]
fn an_idle_poller_holds_little_heap() {
    let mut poller = None;
    let held = measure(|| poller = Some(OsPoller::new().unwrap()));
    assert!(held.bytes_current > 0, "the allocator is not counted");
    assert!(held.bytes_max <= 8 * 1024, "it holds {} bytes", held.bytes_max);
}

#[test]
fn a_dropped_poller_leaves_no_heap() {
    let left = measure(|| drop(OsPoller::with_capacity(1_000).unwrap()));
    assert_eq!((left.count_current, left.bytes_current), (0, 0));
}

/// By the docs of `with_capacity`.
#[test]
fn a_grown_buffer_takes_the_promised_memory() {
    let pairs: Vec<_> = (0..300).map(|_| pair()).collect();
    let mut poller = OsPoller::with_capacity(1).unwrap();
    for (near, far) in &pairs {
        poller.add(EventObject::client(near.as_raw_fd())).unwrap();
        (&*far).write_all(b"x").unwrap();
    }
    let growth = measure(|| while poller.wait(0).unwrap().len() < pairs.len() {});
    let for_each = if cfg!(any(target_os = "linux", target_os = "android")) { 32 } else { 108 };
    let size = i64::try_from(pairs.len().next_power_of_two()).unwrap();
    assert!(growth.bytes_current <= size * for_each, "it took {} bytes", growth.bytes_current);
}

/// C9, C13
#[test]
fn a_bounded_buffer_grows_to_its_bound_and_no_further() {
    let pairs: Vec<_> = (0..100).map(|_| pair()).collect();
    let mut poller = OsPoller::with_capacity(3).unwrap();
    poller.set_max_events(8);
    for (near, far) in &pairs {
        poller.add(EventObject::client(near.as_raw_fd())).unwrap();
        (&*far).write_all(b"x").unwrap();
    }
    let ten_waits = |poller: &mut OsPoller| {
        measure(|| (0..10).for_each(|_| assert!(!poller.wait(0).unwrap().is_empty())))
    };
    let growth = ten_waits(&mut poller);
    let for_each = if cfg!(any(target_os = "linux", target_os = "android")) { 32 } else { 108 };
    let added = 8 - 3;
    assert!(growth.bytes_current <= added * for_each, "it took {} bytes", growth.bytes_current);
    assert_eq!(poller.events().len(), 8);
    assert_eq!(ten_waits(&mut poller).count_total, 0);
    poller.set_max_events(5);
    assert_eq!(ten_waits(&mut poller).count_total, 0);
}

/// C13
#[test]
fn nothing_is_allocated_once_the_buffer_has_its_size() {
    let pairs: Vec<_> = (0..200).map(|_| pair()).collect();
    let mut poller = OsPoller::new().unwrap();
    for (near, far) in &pairs {
        poller.add(EventObject::client(near.as_raw_fd())).unwrap();
        (&*far).write_all(b"x").unwrap();
    }
    while poller.wait(0).unwrap().len() < pairs.len() {}

    let waits = measure(|| {
        for _ in 0..100 {
            assert_eq!(poller.wait(-1).unwrap().len(), pairs.len());
        }
        for (near, _) in &pairs {
            poller.delete(near.as_raw_fd()).unwrap();
        }
        assert!(poller.wait(0).unwrap().is_empty());
        assert!(poller.wait(1).unwrap().is_empty());
        assert!(poller.wait_timeout(Some(Duration::from_nanos(1))).unwrap().is_empty());
    });
    assert_eq!(waits.count_total, 0);
}

/// C13
#[test]
fn registering_allocates_nothing() {
    let (near, _far) = pair();
    let poller = OsPoller::new().unwrap();
    let object = EventObject::client(near.as_raw_fd());
    // On kqueue the first oneshot makes a table.
    poller.add(object.with_mode(Mode::Oneshot)).unwrap();
    poller.delete(object.fd).unwrap();
    let verbs = measure(|| {
        for mode in [Mode::Level, Mode::Edge, Mode::Oneshot] {
            poller.add(object.with_mode(mode)).unwrap();
            poller.modify(object.with_interest(Interest::WRITABLE)).unwrap();
            // An error on epoll; kqueue replaces.
            let _ = poller.add(object);
            poller.delete(object.fd).unwrap();
            poller.delete(object.fd).unwrap_err();
        }
    });
    assert_eq!(verbs.count_total, 0);
}

/// By the docs of `Connections`, only its growth allocates.
#[test]
fn connections_that_come_and_go_allocate_nothing() {
    let pairs: Vec<_> = (0..100).map(|_| pair()).collect();
    let poller = OsPoller::new().unwrap();
    let mut table = Connections::new(poller.registry());
    let mut keys: Vec<_> = pairs.iter().map(|_| None).collect();
    let mut once = || {
        for ((near, _), key) in pairs.iter().zip(&mut keys) {
            *key = Some(table.insert(near, EventObject::client, 0_u64).unwrap());
        }
        for key in keys.iter().flatten() {
            *table.get_mut(*key).unwrap().1 += 1;
            table.modify(*key, EventObject::server).unwrap();
        }
        assert!(table.iter().all(|(_, _, count)| *count == 1));
        for key in keys.iter().flatten() {
            table.remove(*key).unwrap();
        }
    };
    assert!(measure(&mut once).count_total > 0, "it grows");
    assert_eq!(measure(once).count_total, 0);
}

/// C13, C15
#[test]
fn waking_allocates_nothing() {
    let mut poller = OsPoller::new().unwrap();
    let wakers = [1, 2, 3].map(|token| Waker::new(poller.registry(), token).unwrap());
    assert_eq!(poller.wait(1).unwrap(), []);
    let wakes = measure(|| {
        for _ in 0..10 {
            wakers.iter().for_each(|waker| waker.wake().unwrap());
            wakers.clone().iter().for_each(|waker| waker.wake().unwrap());
            assert_eq!(poller.wait(-1).unwrap().len(), 3);
        }
    });
    assert_eq!(wakes.count_total, 0);
    // Reuses a place.
    let comes_and_goes = measure(|| {
        for token in 0..100 {
            drop(Waker::new(poller.registry(), token).unwrap());
        }
    });
    assert_eq!(comes_and_goes.count_total, 100, "each waker's own");
}
