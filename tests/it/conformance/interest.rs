//! What is told to whom.

use std::io::Write;
use std::net::{Shutdown, TcpListener, TcpStream};
use std::os::fd::AsRawFd;

use pollio::{EventKind, EventObject, Interest, Mode, Poller, Readiness};
use socket2::{Domain, SockRef, Socket, Type};

use crate::descriptors::{drain, fill, pair, tcp_pair};
use crate::expect::Expect;

/// C2
pub(crate) fn readable_is_told_to_those_who_asked<P: Poller>() {
    let (near, mut far) = pair();
    let object = EventObject::client(near.as_raw_fd());
    let mut poller = P::new().unwrap();
    fill(&near);
    far.write_all(b"x").unwrap();
    poller.add(object.with_interest(Interest::WRITABLE)).unwrap();
    poller.expect_none();
    poller.modify(object.with_interest(Interest::READABLE)).unwrap();
    assert_eq!(poller.expect_one().readiness(), Readiness::READABLE);
}

/// C2
pub(crate) fn writable_is_told_to_those_who_asked<P: Poller>() {
    let (near, _far) = pair();
    let object = EventObject::client(near.as_raw_fd());
    let mut poller = P::new().unwrap();
    poller.add(object).unwrap();
    poller.expect_none();
    poller.modify(object.with_interest(Interest::WRITABLE)).unwrap();
    assert_eq!(poller.expect_one().readiness(), Readiness::WRITABLE);
}

/// C2
pub(crate) fn both_directions_are_told_together<P: Poller>() {
    let (near, mut far) = pair();
    let both = Interest::READABLE | Interest::WRITABLE;
    let mut poller = P::new().unwrap();
    far.write_all(b"x").unwrap();
    poller.add(EventObject::client(near.as_raw_fd()).with_interest(both)).unwrap();
    assert_eq!(poller.expect_one().readiness(), Readiness::READABLE | Readiness::WRITABLE);
}

/// C1, C2
pub(crate) fn a_listening_socket_is_readable_when_a_client_connects<P: Poller>() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let mut poller = P::new().unwrap();
    poller.add(EventObject::server(listener.as_raw_fd())).unwrap();
    poller.expect_none();
    let _client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    let event = poller.expect_one();
    assert_eq!((event.fd, event.kind), (listener.as_raw_fd(), EventKind::Server));
    assert!(event.is_readable());
    listener.accept().unwrap();
    poller.expect_none();
}

/// C2
pub(crate) fn a_connection_is_writable_once_it_is_made<P: Poller>() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let client = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    client.set_nonblocking(true).unwrap();
    // EINPROGRESS, or already made.
    let _ = client.connect(&listener.local_addr().unwrap().into());
    let mut poller = P::new().unwrap();
    poller.add(EventObject::client(client.as_raw_fd()).with_interest(Interest::WRITABLE)).unwrap();
    let event = poller.expect_one();
    assert!(event.is_writable() && !event.is_error());
    assert!(client.take_error().unwrap().is_none());
}

/// C6
pub(crate) fn out_of_band_data_is_priority<P: Poller>() {
    let (near, far) = tcp_pair();
    let object = EventObject::client(near.as_raw_fd()).with_interest(Interest::PRIORITY);
    let mut poller = P::new().unwrap();
    poller.add(object.with_mode(Mode::Edge)).unwrap();
    (&far).write_all(b"in band").unwrap();
    poller.expect_none();
    SockRef::from(&far).send_out_of_band(b"!").unwrap();
    if cfg!(any(target_os = "freebsd", target_os = "netbsd")) {
        // Their kqueue has no filter for it.
        return poller.expect_none();
    }
    let event = poller.expect_one();
    assert!(event.is_priority() && !event.is_readable());
}

/// C5
pub(crate) fn none_is_silent_about_data<P: Poller>() {
    let (near, mut far) = pair();
    let mut poller = P::new().unwrap();
    poller.add(EventObject::client(near.as_raw_fd()).with_interest(Interest::NONE)).unwrap();
    far.write_all(b"x").unwrap();
    poller.expect_none();
}

/// C5: a program that does not read must not be told, again and again, of an end that it would
/// have to read.
pub(crate) fn none_is_silent_about_a_half_close<P: Poller>() {
    let (near, far) = tcp_pair();
    let mut poller = P::new().unwrap();
    poller.add(EventObject::client(near.as_raw_fd()).with_interest(Interest::NONE)).unwrap();
    far.shutdown(Shutdown::Write).unwrap();
    poller.expect_none();
}

/// C5
pub(crate) fn none_keeps_the_registration<P: Poller>() {
    let (near, mut far) = pair();
    let object = EventObject::client(near.as_raw_fd()).with_token(3);
    let mut poller = P::new().unwrap();
    poller.add(object).unwrap();
    far.write_all(b"x").unwrap();
    poller.expect_one();
    poller.modify(object.with_interest(Interest::NONE)).unwrap();
    poller.expect_none();
    poller.modify(object).expect("it is still registered");
    assert_eq!(poller.expect_one().token, 3);
    poller.modify(object.with_interest(Interest::NONE)).unwrap();
    poller.delete(object.fd).expect("it is still registered");
}

/// C2, C5
pub(crate) fn every_interest_can_become_every_other<P: Poller>() {
    let all = [
        (Interest::NONE, None),
        (Interest::READABLE, Some(Readiness::READABLE)),
        (Interest::WRITABLE, Some(Readiness::WRITABLE)),
        (Interest::READABLE | Interest::WRITABLE, Some(Readiness::READABLE | Readiness::WRITABLE)),
    ];
    let (near, mut far) = pair();
    let object = EventObject::client(near.as_raw_fd());
    let mut poller = P::new().unwrap();
    poller.add(object).unwrap();
    far.write_all(b"x").unwrap();
    for (from, _) in all {
        for (to, told) in all {
            poller.modify(object.with_interest(from)).unwrap();
            poller.modify(object.with_interest(to)).unwrap();
            let event = poller.wait(0).unwrap().first().copied();
            assert_eq!(event.map(|event| event.readiness()), told, "{from:?} to {to:?}");
        }
    }
    drain(&near);
}
