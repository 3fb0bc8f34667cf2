//! The reports for each interest.

use std::io::Write;
use std::net::{Shutdown, SocketAddr, TcpListener};
use std::os::fd::AsRawFd;
use std::{env, fs, process};

use pollio::{EventKind, EventObject, Interest, Mode, Poller, Readiness};
use socket2::{Domain, SockAddr, SockRef, Socket, Type};

use super::mode::MODES;
use crate::support::descriptors::{drain, fill, pair, tcp_pair};
use crate::support::expect::Expect;
use crate::support::kernel::{Kernel, On};

/// C2
pub(crate) fn readable_is_reported_only_with_its_interest<P: Poller>() {
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
pub(crate) fn writable_is_reported_only_with_its_interest<P: Poller>() {
    let (near, _far) = pair();
    let object = EventObject::client(near.as_raw_fd());
    let mut poller = P::new().unwrap();
    poller.add(object).unwrap();
    poller.expect_none();
    poller.modify(object.with_interest(Interest::WRITABLE)).unwrap();
    assert_eq!(poller.expect_one().readiness(), Readiness::WRITABLE);
}

/// C2
pub(crate) fn both_directions_are_reported_together<P: Poller>() {
    let (near, mut far) = pair();
    let mut poller = P::new().unwrap();
    far.write_all(b"x").unwrap();
    poller.add(EventObject::client(near.as_raw_fd()).with_interest(Interest::BOTH)).unwrap();
    assert_eq!(poller.expect_one().readiness(), Readiness::READABLE | Readiness::WRITABLE);
}

/// C1, C2, C3: an edge is reported for each client, even if the program has not accepted those before it.
pub(crate) fn a_listening_socket_is_readable_when_a_client_connects<P: Poller + On>() {
    for_each_listener(|listener| {
        for mode in [Mode::Level, Mode::Edge] {
            let mut poller = P::new().unwrap();
            poller.add(EventObject::server(listener.as_raw_fd()).with_mode(mode)).unwrap();
            poller.expect_none();
            let clients = [0; 2].map(|_| {
                let client = client_of(listener);
                let event = poller.expect_one();
                assert_eq!((event.fd, event.kind), (listener.as_raw_fd(), EventKind::Server));
                assert!(event.is_readable());
                client
            });
            // On these kernels an accept is an edge while others wait: `kern_accept4` ends in KNOTE.
            let accept_is_edge = matches!(P::KERNEL, Kernel::FreeBsd | Kernel::NetBsd);
            for accepted in 0..clients.len() {
                if mode == Mode::Level {
                    // The client can be connected a moment before it is in the listener's queue.
                    poller.expect_one();
                } else {
                    let count = poller.wait(0).unwrap().len();
                    assert!(count == 0 || accept_is_edge && accepted > 0, "{mode:?}: {count}");
                }
                listener.accept().unwrap();
            }
            poller.expect_none();
        }
    });
}

/// C2
pub(crate) fn a_listening_socket_is_never_writable<P: Poller>() {
    for_each_listener(|listener| {
        let object = EventObject::server(listener.as_raw_fd());
        let mut poller = P::new().unwrap();
        poller.add(object.with_interest(Interest::WRITABLE)).unwrap();
        poller.expect_none();
        let _client = client_of(listener);
        poller.expect_none();
        poller.modify(object.with_interest(Interest::BOTH)).unwrap();
        assert_eq!(poller.expect_one().readiness(), Readiness::READABLE);
    });
}

/// Listens over TCP, and at a path of its own.
fn for_each_listener(body: impl Fn(&Socket)) {
    let listen = |domain, address: &SockAddr| {
        let socket = Socket::new(domain, Type::STREAM, None).unwrap();
        socket.bind(address).unwrap();
        socket.listen(8).unwrap();
        socket
    };
    body(&listen(Domain::IPV4, &SocketAddr::from(([127, 0, 0, 1], 0)).into()));
    let path = env::temp_dir().join(format!("pollio-{}", process::id()));
    body(&listen(Domain::UNIX, &SockAddr::unix(&path).unwrap()));
    fs::remove_file(path).unwrap();
}

fn client_of(listener: &Socket) -> Socket {
    let address = listener.local_addr().unwrap();
    let client = Socket::new(address.domain(), Type::STREAM, None).unwrap();
    client.connect(&address).unwrap();
    client
}

/// C2
pub(crate) fn a_connection_is_writable_once_it_is_made<P: Poller>() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let client = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    client.set_nonblocking(true).unwrap();
    // EINPROGRESS, or the connection is already made.
    let _ = client.connect(&listener.local_addr().unwrap().into());
    let mut poller = P::new().unwrap();
    poller.add(EventObject::client(client.as_raw_fd()).with_interest(Interest::WRITABLE)).unwrap();
    let event = poller.expect_one();
    assert!(event.is_writable() && !event.is_error());
    assert!(client.take_error().unwrap().is_none());
}

/// C6
pub(crate) fn out_of_band_data_is_priority<P: Poller + On>() {
    let (near, far) = tcp_pair();
    let object = EventObject::client(near.as_raw_fd()).with_interest(Interest::PRIORITY);
    let mut poller = P::new().unwrap();
    poller.add(object.with_mode(Mode::Edge)).unwrap();
    (&far).write_all(b"in band").unwrap();
    poller.expect_none();
    SockRef::from(&far).send_out_of_band(b"!").unwrap();
    if !P::KERNEL.has_priority() {
        // The kqueue of these systems has no filter for it.
        return poller.expect_none();
    }
    let event = poller.expect_one();
    assert!(event.is_priority() && !event.is_readable());
}

/// C6
pub(crate) fn out_of_band_data_is_reported_next_to_data<P: Poller + On>() {
    let (near, far) = tcp_pair();
    let both = Interest::READABLE | Interest::PRIORITY;
    let mut poller = P::new().unwrap();
    (&far).write_all(b"in band").unwrap();
    SockRef::from(&far).send_out_of_band(b"!").unwrap();
    poller.add(EventObject::client(near.as_raw_fd()).with_interest(both)).unwrap();
    if !P::KERNEL.has_priority() {
        // The kqueue of these systems has no filter for it.
        return assert_eq!(poller.expect_one().readiness(), Readiness::READABLE);
    }
    let event = loop {
        let event = poller.expect_one();
        assert!(event.is_readable());
        if event.is_priority() {
            break event;
        }
    };
    assert_eq!(event.readiness(), Readiness::READABLE | Readiness::PRIORITY);
}

/// C5
pub(crate) fn none_is_silent_about_data<P: Poller>() {
    let (near, mut far) = pair();
    let mut poller = P::new().unwrap();
    poller.add(EventObject::client(near.as_raw_fd()).with_interest(Interest::NONE)).unwrap();
    far.write_all(b"x").unwrap();
    poller.expect_none();
}

/// C5: a program that does not read must not get the same end at every wait.
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
        (Interest::BOTH, Some(Readiness::READABLE | Readiness::WRITABLE)),
    ];
    let (near, mut far) = pair();
    let object = EventObject::client(near.as_raw_fd());
    let mut poller = P::new().unwrap();
    poller.add(object).unwrap();
    far.write_all(b"x").unwrap();
    for (from, _) in all {
        for (to, reported) in all {
            poller.modify(object.with_interest(from)).unwrap();
            poller.modify(object.with_interest(to)).unwrap();
            let event = poller.wait(0).unwrap().first().copied();
            assert_eq!(event.map(|event| event.readiness()), reported, "{from:?} to {to:?}");
        }
    }
    drain(&near);
}

/// C1, C2
pub(crate) fn modify_takes_back_pending_readiness<P: Poller>() {
    for mode in MODES {
        let (near, mut far) = pair();
        let object = EventObject::client(near.as_raw_fd()).with_mode(mode);
        let mut poller = P::new().unwrap();
        fill(&near);
        poller.add(object.with_token(1)).unwrap();
        far.write_all(b"x").unwrap();
        poller.modify(object.with_interest(Interest::WRITABLE).with_token(2)).unwrap();
        poller.expect_none();
        drain(&far);
        let event = poller.expect_one();
        assert_eq!((event.token, event.readiness()), (2, Readiness::WRITABLE), "{mode:?}");
    }
}
