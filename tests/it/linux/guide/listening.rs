//! The section "Listening sockets".

use std::fs::File;
use std::io::ErrorKind;
use std::net::{Ipv4Addr, SocketAddr};
use std::os::fd::AsRawFd;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use nix::errno::Errno;
use nix::sys::resource::{Resource, getrlimit, rlim_t, setrlimit};
use pollio::{OsPoller, Poller};
use socket2::{Domain, Socket, Type};

use crate::linux::suites::epoll::woken;
use crate::support::expect::Expect;
use crate::support::subprocess::in_subprocess;

// As it stands in the guide, with its imports: the build script takes it from there.
include!(concat!(env!("OUT_DIR"), "/listener.rs"));

/// Each wait of these returns at once.
const WAITS: usize = 1_000;

#[test]
#[allow(clippy::useless_conversion, reason = "an rlim_t has 64 bits, on 32-bit systems 32")]
fn a_listener_without_room_for_a_descriptor_is_reported_at_every_wait() {
    in_subprocess!(|| {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let object = EventObject::server(listener.as_raw_fd());
        let mut poller = OsPoller::new().unwrap();
        poller.add(object).unwrap();
        let _client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();

        let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
        let lowest = File::open("/dev/null").unwrap().as_raw_fd().unsigned_abs();
        setrlimit(Resource::RLIMIT_NOFILE, rlim_t::from(lowest), hard).unwrap();
        for _ in 0..WAITS {
            assert_eq!(poller.wait(0).unwrap().len(), 1);
            let error = listener.accept().unwrap_err();
            assert_eq!(error.raw_os_error(), Some(Errno::EMFILE as i32));
        }
        poller.modify(object.with_interest(Interest::NONE)).unwrap();
        poller.expect_none();

        setrlimit(Resource::RLIMIT_NOFILE, hard, hard).unwrap();
        poller.modify(object).unwrap();
        poller.expect_one();
        listener.accept().unwrap();
    });
}

/// Two clients, and a descriptor for one of them.
#[test]
#[allow(clippy::useless_conversion, reason = "an rlim_t has 64 bits, on 32-bit systems 32")]
fn a_listener_pauses_while_no_descriptor_is_left() {
    in_subprocess!(|| {
        let mut poller = OsPoller::new().unwrap();
        let socket = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = socket.local_addr().unwrap();
        let _clients = [(); 2].map(|()| TcpStream::connect(address).unwrap());
        let mut listener = Listener::new(socket, poller.registry()).unwrap();

        let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
        let lowest = File::open("/dev/null").unwrap().as_raw_fd().unsigned_abs();
        setrlimit(Resource::RLIMIT_NOFILE, rlim_t::from(lowest + 1), hard).unwrap();
        poller.expect_one();
        let first = listener.accept().unwrap().unwrap();
        poller.expect_one();
        assert!(listener.accept().unwrap().is_none());
        assert!(listener.resume_at.unwrap() > Instant::now());
        poller.expect_none();

        listener.resume().unwrap();
        poller.expect_one();
        assert!(listener.accept().unwrap().is_none());
        drop(first);
        listener.resume().unwrap();
        poller.expect_one();
        assert!(listener.accept().unwrap().is_some());
        assert!(listener.resume_at.is_none());
        poller.expect_none();
    });
}

/// `modify` cannot remove `exclusive`.
#[test]
fn an_exclusive_listener_pauses_by_delete() {
    let socket = TcpListener::bind("127.0.0.1:0").unwrap();
    let object = EventObject::server(socket.as_raw_fd()).exclusive();
    let poller = OsPoller::new().unwrap();
    poller.add(object).unwrap();
    for object in [object, EventObject::server(object.fd).with_interest(Interest::NONE)] {
        let error = poller.modify(object).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidInput);
    }
    poller.delete(object.fd).unwrap();
    poller.add(object).unwrap();
}

#[test]
fn a_socket_that_is_bound_but_does_not_listen_is_reported_at_every_wait() {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    socket.bind(&SocketAddr::from((Ipv4Addr::LOCALHOST, 0)).into()).unwrap();
    let mut poller = OsPoller::new().unwrap();
    poller.add(EventObject::server(socket.as_raw_fd())).unwrap();
    for _ in 0..WAITS {
        assert_eq!(poller.wait(0).unwrap().len(), 1);
    }
    socket.listen(1).unwrap();
    poller.expect_none();
}

/// The client still waits in the queue, and the listener is level-triggered.
#[test]
fn an_exclusive_poller_that_does_not_accept_leaves_the_others_asleep() {
    assert_eq!(woken(|object| object), 4);
    assert!((1..4).contains(&woken(EventObject::exclusive)));
}

/// The number of clients that each of four threads accepts from its listener, out of 200 that come one after the other.
fn shares(listeners: [&TcpListener; 4], refine: fn(EventObject) -> EventObject) -> Vec<usize> {
    let address = listeners[0].local_addr().unwrap();
    let done = AtomicBool::new(false);
    thread::scope(|scope| {
        let threads: Vec<_> = listeners
            .iter()
            .map(|listener| {
                let done = &done;
                scope.spawn(move || {
                    listener.set_nonblocking(true).unwrap();
                    let mut poller = OsPoller::new().unwrap();
                    poller.add(refine(EventObject::server(listener.as_raw_fd()))).unwrap();
                    let mut accepted = 0;
                    while !done.load(Ordering::Relaxed) {
                        if !poller.wait(20).unwrap().is_empty() {
                            accepted += usize::from(listener.accept().is_ok());
                        }
                    }
                    accepted
                })
            })
            .collect();
        thread::sleep(Duration::from_millis(100));
        for _ in 0..200 {
            let _client = TcpStream::connect(address).unwrap();
            thread::sleep(Duration::from_millis(1));
        }
        thread::sleep(Duration::from_millis(100));
        done.store(true, Ordering::Relaxed);
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    })
}

#[test]
fn exclusive_balances_nothing_and_reuseport_does() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let exclusive = shares([&listener; 4], EventObject::exclusive);
    assert_eq!(exclusive.iter().sum::<usize>(), 200);
    let busiest = exclusive.iter().max().unwrap();
    assert!(*busiest > 100, "{exclusive:?}");

    let mut address = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
    let listeners: Vec<TcpListener> = (0..4)
        .map(|_| {
            let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
            socket.set_reuse_port(true).unwrap();
            socket.bind(&address.into()).unwrap();
            socket.listen(256).unwrap();
            address = socket.local_addr().unwrap().as_socket().unwrap();
            socket.into()
        })
        .collect();
    let reuseport = shares(std::array::from_fn(|at| &listeners[at]), |object| object);
    assert_eq!(reuseport.iter().sum::<usize>(), 200);
    let (least, most) = (reuseport.iter().min().unwrap(), reuseport.iter().max().unwrap());
    assert!(*least > 0 && *most < 150, "{reuseport:?}");
}
