//! `Connections`, over any poller.

use std::cell::Cell;
use std::io::{ErrorKind, Read, Write};
use std::os::fd::{AsFd, AsRawFd, RawFd};
use std::os::unix::net::UnixStream;
use std::rc::Rc;

use pollio::{
    Connections, EventKind, EventObject, ForeignSource, Key, Mode, Poller, Registry, Waker,
};

use crate::support::descriptors::pair;
use crate::support::expect::Expect;

/// C1: with any token in its object.
pub(crate) fn a_connection_is_found_by_its_event_and_by_its_key<P: Poller>() {
    let (near, mut far) = pair();
    let (other, _other_far) = pair();
    let mut poller = P::new().unwrap();
    let mut table = Connections::new(poller.registry());
    assert!(table.is_empty());
    let fd = near.as_raw_fd();
    let key = table.insert(near, |fd| EventObject::server(fd).with_token(77), 1).unwrap();
    let other_key = table.insert(other, EventObject::client, 2).unwrap();
    assert_eq!(table.len(), 2);
    poller.expect_none();

    far.write_all(b"x").unwrap();
    let event = poller.expect_one();
    assert_eq!((event.fd, event.kind, Key::from(&event)), (fd, EventKind::Server, key));
    let (mut stream, data) = table.get_mut(&event).unwrap();
    assert_eq!(stream.read(&mut [0; 2]).unwrap(), 1);
    *data += 10;
    assert_eq!(table.get(key).map(|(stream, data)| (stream.as_raw_fd(), *data)), Some((fd, 11)));
    assert_eq!(table.get(other_key).map(|(_, data)| *data), Some(2));
    poller.expect_none();

    let (elsewhere, mut elsewhere_far) = pair();
    poller.add(EventObject::client(elsewhere.as_raw_fd()).with_token(event.token)).unwrap();
    elsewhere_far.write_all(b"x").unwrap();
    assert!(table.get_mut(&poller.expect_one()).is_none());
}

/// C16: its number is in use again.
pub(crate) fn a_stale_event_finds_no_connection<P: Poller>() {
    let (near, mut far) = pair();
    let mut poller = P::new().unwrap();
    let mut table = Connections::new(poller.registry());
    table.insert(near, EventObject::client, 1).unwrap();
    far.write_all(b"x").unwrap();
    let stale = poller.expect_one();
    drop(table.remove(&stale).unwrap());
    assert!(table.get(&stale).is_none() && table.is_empty());

    let (near, mut far) = pair();
    assert_eq!(near.as_raw_fd(), stale.fd, "the lowest number is used again");
    let key = table.insert(near, EventObject::client, 2).unwrap();
    assert_ne!(key, Key::from(&stale));
    assert!(table.get(&stale).is_none() && table.get_mut(&stale).is_none());
    let error = table.modify(&stale, EventObject::server).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotFound);
    assert!(table.remove(&stale).is_none());
    far.write_all(b"x").unwrap();
    let event = poller.expect_one();
    assert_eq!((event.kind, Key::from(&event)), (EventKind::Client, key));
    assert_eq!(table.get(&event).map(|(_, data)| *data), Some(2));
}

/// C16: two tables of one poller.
pub(crate) fn a_stale_event_finds_no_connection_of_another_table<P: Poller>() {
    let (near, mut far) = pair();
    let mut poller = P::new().unwrap();
    let mut one = Connections::new(poller.registry());
    let mut two = Connections::new(&poller.registry().clone());
    one.insert(near, EventObject::client, 1).unwrap();
    far.write_all(b"x").unwrap();
    let stale = poller.expect_one();
    assert!(two.get(&stale).is_none());
    drop(one.remove(&stale).unwrap());

    let (near, _far) = pair();
    assert_eq!(near.as_raw_fd(), stale.fd, "the lowest number is used again");
    two.insert(near, EventObject::client, 2).unwrap();
    assert!(one.get(&stale).is_none() && two.get(&stale).is_none());
}

/// C10, C11, C16
pub(crate) fn a_connection_that_is_refused_is_closed<P: Poller>() {
    /// A source with a number that is not open.
    struct Unopened;
    impl ForeignSource for Unopened {
        fn foreign_fd(&self) -> RawFd {
            1 << 29
        }
    }
    let data = Rc::new(());
    let (near, mut far) = pair();
    let (other, mut other_far) = pair();
    let fd = near.as_raw_fd();
    let mut poller = P::new().unwrap();
    let mut table = Connections::new(poller.registry());
    let object_of_other = |_| EventObject::client(other.as_raw_fd());
    let error = table.insert(near, object_of_other, Rc::clone(&data)).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidInput);
    assert_eq!(far.read(&mut [0]).unwrap(), 0, "its other end is closed");
    other_far.write_all(b"x").unwrap();
    poller.expect_none();

    let mut unopened = Connections::new(poller.registry());
    unopened.insert(Unopened, EventObject::client, Rc::clone(&data)).unwrap_err();
    unopened.insert(Unopened, EventObject::client, Rc::clone(&data)).unwrap_err();
    assert!(unopened.is_empty() && table.is_empty());
    assert_eq!(Rc::strong_count(&data), 1, "its data is dropped");

    let (near, mut far) = pair();
    assert_eq!(near.as_raw_fd(), fd, "the lowest number is used again");
    let key = table.insert(near, EventObject::client, data).unwrap();
    far.write_all(b"x").unwrap();
    assert_eq!(Key::from(&poller.expect_one()), key);
}

/// C10: also where the kernel would replace the registration.
pub(crate) fn a_second_reference_to_a_connection_is_refused<P: Poller>() {
    let (near, mut far) = pair();
    let mut poller = P::new().unwrap();
    let mut table = Connections::new(poller.registry());
    let key = table.insert(&near, EventObject::client, 1).unwrap();
    let error = table.insert(&near, EventObject::server, 2).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::AlreadyExists);
    far.write_all(b"x").unwrap();
    let event = poller.expect_one();
    assert_eq!(
        (event.kind, table.get(&event).map(|(_, data)| *data)),
        (EventKind::Client, Some(1))
    );
    assert_eq!(table.len(), 1);
    table.remove(key).unwrap();
    let again = table.insert(&near, EventObject::server, 3).unwrap();
    assert_eq!(Key::from(&poller.expect_one()), again);
}

/// C16: a table that owns its sources prevents this.
pub(crate) fn a_connection_that_was_closed_elsewhere_stays_until_it_is_removed<P: Poller>() {
    struct Lent(RawFd);
    impl ForeignSource for Lent {
        fn foreign_fd(&self) -> RawFd {
            self.0
        }
    }
    let (near, _far) = pair();
    let fd = near.as_raw_fd();
    let mut poller = P::new().unwrap();
    let mut table = Connections::new(poller.registry());
    let closed = table.insert(Lent(fd), EventObject::client, 1).unwrap();
    drop(near);

    let (near, mut far) = pair();
    assert_eq!(near.as_raw_fd(), fd, "the lowest number is used again");
    let error = table.insert(Lent(fd), EventObject::client, 2).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::AlreadyExists);
    assert_eq!(table.remove(closed).map(|(_, data)| data), Some(1));
    let key = table.insert(Lent(fd), EventObject::client, 2).unwrap();
    far.write_all(b"x").unwrap();
    assert_eq!(Key::from(&poller.expect_one()), key);
}

/// C4, C10
pub(crate) fn a_modified_connection_keeps_its_key<P: Poller>() {
    let (near, mut far) = pair();
    let (other, _other_far) = pair();
    let mut poller = P::new().unwrap();
    let mut table = Connections::new(poller.registry());
    let oneshot = |fd| EventObject::client(fd).with_mode(Mode::Oneshot);
    let key = table.insert(near, oneshot, ()).unwrap();
    far.write_all(b"x").unwrap();
    let event = poller.expect_one();
    poller.expect_none();
    table.modify(&event, |fd| oneshot(fd).with_token(event.token + 1)).unwrap();
    assert_eq!(Key::from(&poller.expect_one()), key);
    poller.expect_none();

    table.modify(key, EventObject::server).unwrap();
    let error = table.modify(key, |_| EventObject::client(other.as_raw_fd())).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidInput);
    let event = poller.expect_one();
    assert_eq!((event.kind, Key::from(&event)), (EventKind::Server, key));

    poller.delete(event.fd).unwrap();
    assert_eq!(table.modify(key, oneshot).unwrap_err().kind(), ErrorKind::NotFound);
    assert!(table.remove(key).is_some(), "its entry was still there, without a registration");
    assert_eq!(table.modify(key, oneshot).unwrap_err().kind(), ErrorKind::NotFound);
}

/// C16: in any order of removal.
pub(crate) fn the_connections_that_stay_are_found_after_a_removal<P: Poller>() {
    let poller = P::new().unwrap();
    let mut table = Connections::new(poller.registry());
    let (mut keys, mut fds, mut fars) = (Vec::new(), Vec::new(), Vec::new());
    for number in 0..10 {
        let (near, far) = pair();
        fds.push(near.as_raw_fd());
        fars.push(far);
        keys.push(table.insert(near, EventObject::client, number).unwrap());
    }
    for gone in [3, 9, 0] {
        let (near, number) = table.remove(keys[gone]).unwrap();
        assert_eq!(number, gone);
        assert_eq!(poller.delete(near.as_raw_fd()).unwrap_err().kind(), ErrorKind::NotFound);
        assert!(table.remove(keys[gone]).is_none() && table.get(keys[gone]).is_none());
    }
    let stay = [1, 2, 4, 5, 6, 7, 8];
    for number in stay {
        assert_eq!(table.get(keys[number]).map(|(_, number)| *number), Some(number));
    }
    let mut all: Vec<_> = table.iter().map(|(key, _, number)| (*number, key)).collect();
    all.sort_unstable();
    assert_eq!(all, stay.map(|number| (number, keys[number])));
    assert_eq!(table.len(), stay.len());

    for (key, near, number) in table.iter_mut() {
        assert_eq!((key, near.as_raw_fd()), (keys[*number], fds[*number]));
        *number += 100;
    }
    let mut seen = Vec::new();
    table.retain(|key, near, number| {
        *number -= 100;
        assert_eq!((key, near.as_raw_fd()), (keys[*number], fds[*number]));
        seen.push(*number);
        *number % 4 != 0
    });
    seen.sort_unstable();
    assert_eq!(seen, stay);
    let stay = [1, 2, 5, 6, 7];
    assert_eq!(table.len(), stay.len());
    for number in stay {
        assert_eq!(table.remove(keys[number]).map(|(_, number)| number), Some(number));
    }
    assert!(table.is_empty() && table.iter().next().is_none());
}

/// C16: on epoll, a close alone would not silence them.
pub(crate) fn connections_are_silent_after_a_drop_though_duplicates_live<P: Poller>() {
    let mut poller = P::new().unwrap();
    let mut table = Connections::new(poller.registry());
    let mut duplicates = Vec::new();
    let mut fars = Vec::new();
    let mut keys = Vec::new();
    for mode in [Mode::Level, Mode::Edge, Mode::Oneshot] {
        let (near, mut far) = pair();
        duplicates.push(near.try_clone().unwrap());
        keys.push(table.insert(near, |fd| EventObject::client(fd).with_mode(mode), ()).unwrap());
        far.write_all(b"x").unwrap();
        fars.push(far);
    }
    drop(table.remove(keys[0]).unwrap());
    drop(table);
    poller.expect_none();
    for (near, mut far) in duplicates.iter().zip(&fars) {
        far.write_all(b"x").unwrap();
        assert_eq!({ near }.read(&mut [0; 3]).unwrap(), 2);
    }
    poller.expect_none();
}

/// C16
pub(crate) fn a_connection_is_deleted_before_it_is_closed<P: Poller>() {
    /// Finds out in its own drop whether it is still registered.
    struct Witness {
        stream: UnixStream,
        registry: Registry,
        deleted: Rc<Cell<usize>>,
    }
    impl ForeignSource for Witness {
        fn foreign_fd(&self) -> RawFd {
            self.stream.as_raw_fd()
        }
    }
    impl Drop for Witness {
        fn drop(&mut self) {
            let error = self.registry.delete(self.stream.as_raw_fd()).unwrap_err();
            self.deleted.set(self.deleted.get() + usize::from(error.kind() == ErrorKind::NotFound));
        }
    }
    let poller = P::new().unwrap();
    let mut table = Connections::new(poller.registry());
    let deleted = Rc::new(Cell::new(0));
    let mut keys = Vec::new();
    for _ in 0..5 {
        let registry = poller.registry().clone();
        let witness = Witness { stream: pair().0, registry, deleted: Rc::clone(&deleted) };
        keys.push(table.insert(witness, EventObject::client, ()).unwrap());
    }
    drop(table.remove(keys[1]));
    assert_eq!(deleted.get(), 1);
    drop(table);
    assert_eq!(deleted.get(), 5);
}

/// A wake has the number of its poller, which is in the table of another poller.
pub(crate) fn a_wake_finds_no_connection<P: Poller + AsFd>() {
    let (mut outer, mut inner) = (P::new().unwrap(), P::new().unwrap());
    let wakers = Vec::from_iter((0..8).map(|token| Waker::new(inner.registry(), token).unwrap()));
    wakers.iter().for_each(|waker| waker.wake().unwrap());
    let wakes = inner.wait(0).unwrap().to_vec();
    let mut pollers = Connections::new(outer.registry());
    pollers.insert(&inner, EventObject::new, ()).unwrap();
    wakers[0].wake().unwrap();
    let event = outer.expect_one();
    assert!(pollers.get(&event).is_some());
    assert!(wakes.iter().any(|wake| (wake.fd, wake.token) == (event.fd, event.token)));
    assert!(wakes.iter().all(|wake| pollers.get(wake).is_none()));
}
