//! Which descriptors a poller closes, and which it leaves open.

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::AsRawFd;
use std::time::Duration;

use nix::errno::Errno;
use nix::unistd::close;
use pollio::{EventObject, Interest, Poller};

use crate::support::descriptors::{
    inherited, make_with_too_little_room_first, open, pair, tcp_pair,
};
use crate::support::expect::Expect;

/// C11
pub(crate) fn a_dropped_poller_leaves_registered_descriptors_open<P: Poller>() {
    let (near, mut far) = pair();
    let poller = P::new().unwrap();
    poller.add(EventObject::client(near.as_raw_fd())).unwrap();
    drop(poller);
    far.write_all(b"x").unwrap();
    assert_eq!((&near).read(&mut [0]).unwrap(), 1);
}

/// C11: a registration is no duplicate: it does not keep the connection alive.
pub(crate) fn a_close_ends_the_connection_though_it_is_registered<P: Poller>() {
    let (near, mut far) = tcp_pair();
    let mut poller = P::new().unwrap();
    poller.add(EventObject::client(near.as_raw_fd()).with_interest(Interest::WRITABLE)).unwrap();
    poller.expect_one();
    drop(near);
    far.set_nonblocking(false).unwrap();
    far.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    assert_eq!(far.read(&mut [0]).unwrap(), 0);
}

/// C11
pub(crate) fn a_dropped_poller_closes_its_own_descriptors<P: Poller>() {
    let before = open();
    let (poller, other) = (P::new().unwrap(), P::new().unwrap());
    assert!(open() > before);
    let registry = other.registry().clone();
    drop(poller);
    drop(other);
    // A registry keeps the kernel's object open.
    let ends = pair();
    registry.add(EventObject::client(ends.0.as_raw_fd())).unwrap();
    drop((registry, ends));
    assert_eq!(open(), before);
}

/// C11
pub(crate) fn an_exec_closes_a_pollers_descriptors<P: Poller>() {
    let before = inherited();
    let _poller = P::new().unwrap();
    assert_eq!(inherited(), before);
}

/// C11
pub(crate) fn without_room_for_its_descriptors_no_poller_is_half_made<P: Poller>() {
    let (near, mut far) = pair();
    let object = EventObject::client(near.as_raw_fd());
    let mut poller = make_with_too_little_room_first(|| {
        let poller = P::new()?;
        poller.add(object.with_interest(Interest::BOTH))?;
        Ok(poller)
    });
    assert!(poller.expect_one().is_writable());
    poller.modify(object).unwrap();
    poller.expect_none();
    far.write_all(b"x").unwrap();
    assert!(poller.expect_one().is_readable());
}

/// If other code closes the poller's descriptor, calls fail; they neither spin nor panic.
pub(crate) fn a_poller_closed_behind_its_back_is_bad<P: Poller + AsRawFd>() {
    let (near, _far) = pair();
    let object = EventObject::client(near.as_raw_fd());
    let mut poller = P::new().unwrap();
    poller.add(object).unwrap();
    let number = poller.as_raw_fd();
    close(number).unwrap();

    let bad = Some(Errno::EBADF as i32);
    for timeout in [None, Some(Duration::ZERO), Some(Duration::from_nanos(1)), Some(Duration::MAX)]
    {
        assert_eq!(poller.wait_timeout(timeout).unwrap_err().raw_os_error(), bad);
    }
    for _ in 0..2 {
        assert_eq!(poller.add(object).unwrap_err().raw_os_error(), bad);
        assert_eq!(poller.modify(object).unwrap_err().raw_os_error(), bad);
        assert_eq!(poller.delete(object.fd).unwrap_err().raw_os_error(), bad);
    }

    // The next file gets the number, and the drop of the poller closes it.
    let other = File::open("/dev/null").unwrap();
    assert_eq!(other.as_raw_fd(), number, "the lowest free number is used again");
    drop(poller);
    assert_eq!(other.metadata().unwrap_err().raw_os_error(), bad);
    std::mem::forget(other);
}
