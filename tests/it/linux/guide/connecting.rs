//! The section "Connecting without blocking".

use std::io::ErrorKind;
use std::net::{Ipv4Addr, TcpListener};

use nix::errno::Errno;
use socket2::SockAddr;

use crate::support::expect::Expect;

// As it stands in the guide, with its imports: the build script takes it from there.
include!(concat!(env!("OUT_DIR"), "/connecting.rs"));

fn is_writable(socket: &Socket) -> EventObject {
    EventObject::client(socket.as_raw_fd()).with_interest(Interest::WRITABLE)
}

/// A TCP socket whose connect has begun.
fn connecting(address: SocketAddr) -> Socket {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    socket.set_nonblocking(true).unwrap();
    let error = socket.connect(&address.into()).unwrap_err();
    assert_eq!(error.raw_os_error(), Some(Errno::EINPROGRESS as i32));
    socket
}

#[test]
fn a_connection_in_progress_is_writable_once_it_is_made() {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let socket = connecting(listener.local_addr().unwrap());
    let mut poller = OsPoller::new().unwrap();
    poller.add(is_writable(&socket)).unwrap();
    let event = poller.expect_one();
    assert!(event.is_writable() && !event.is_error());
    assert!(socket.take_error().unwrap().is_none());
}

#[test]
fn the_error_of_a_refused_connection_is_taken_once() {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let address = listener.local_addr().unwrap();
    drop(listener);
    let socket = connecting(address);
    let mut poller = OsPoller::new().unwrap();
    poller.add(is_writable(&socket)).unwrap();
    let event = poller.expect_one();
    assert!(event.is_writable() && event.is_error());
    let error = socket.take_error().unwrap().unwrap();
    assert_eq!(error.kind(), ErrorKind::ConnectionRefused);
    assert!(socket.take_error().unwrap().is_none());
}

/// This happens by chance to a socket that connects to a free port of this machine. Here it takes the port first.
#[test]
fn a_socket_that_connects_to_itself_counts_as_refused() {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    socket.bind(&SocketAddr::from((Ipv4Addr::LOCALHOST, 0)).into()).unwrap();
    socket.set_nonblocking(true).unwrap();
    let error = socket.connect(&socket.local_addr().unwrap()).unwrap_err();
    assert_eq!(error.raw_os_error(), Some(Errno::EINPROGRESS as i32));
    let mut poller = OsPoller::new().unwrap();
    poller.add(is_writable(&socket)).unwrap();
    assert!(!poller.expect_one().is_error());
    let stream = socket.into();
    let error = is_connected(&stream, poller.registry(), 0).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::ConnectionRefused);
}

/// A listener whose queue is full drops the attempts of others.
#[test]
fn an_attempt_that_goes_on_is_not_connected() {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    socket.bind(&SocketAddr::from((Ipv4Addr::LOCALHOST, 0)).into()).unwrap();
    socket.listen(0).unwrap();
    let listener = TcpListener::from(socket);
    let address = listener.local_addr().unwrap();
    let _first = TcpStream::connect(address).unwrap();
    let mut poller = OsPoller::new().unwrap();
    let stream = connect(address, poller.registry(), 1).unwrap();
    poller.expect_none();
    let error = is_connected(&stream, poller.registry(), 1).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotConnected);

    listener.accept().unwrap();
    assert!(poller.expect_one().is_writable());
    is_connected(&stream, poller.registry(), 1).unwrap();
    poller.expect_none();
}

/// It is not in progress, so there is nothing to wait for.
#[test]
fn a_unix_connect_to_a_full_queue_would_block_and_does_not_begin() {
    let folder = std::env::temp_dir().join(format!("pollio-queue-{}", std::process::id()));
    let address = SockAddr::unix(&folder).unwrap();
    let listener = Socket::new(Domain::UNIX, Type::STREAM, None).unwrap();
    listener.bind(&address).unwrap();
    listener.listen(0).unwrap();
    let connect = || {
        let socket = Socket::new(Domain::UNIX, Type::STREAM, None).unwrap();
        socket.set_nonblocking(true).unwrap();
        let connected = socket.connect(&address);
        (socket, connected)
    };
    let mut queued = Vec::new();
    let refused = loop {
        let (socket, connected) = connect();
        match connected {
            Ok(()) => queued.push(socket),
            Err(error) => {
                assert_eq!(error.kind(), ErrorKind::WouldBlock);
                break socket;
            }
        }
    };
    let mut poller = OsPoller::new().unwrap();
    poller.add(is_writable(&refused)).unwrap();
    // The hang-up of a socket that never connected, not the end of a connect.
    assert!(poller.expect_one().is_write_closed());
    listener.accept().unwrap();
    assert!(refused.connect(&address).is_ok());
    std::fs::remove_file(folder).unwrap();
}
