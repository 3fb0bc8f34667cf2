//! Calls and their results, once over real sockets and once over simulated ones.

use std::io::{ErrorKind, Read, Write};
use std::os::fd::AsRawFd;
use std::time::Duration;

use pollio::{EventObject, Interest, Mode, Poller, Readiness, Waker};

use super::super::Log;
use super::{
    Domain, Shutdown, SockRef, Socket, SocketAddr, TcpListener, TcpStream, Timer, Type, UnixStream,
    Watcher, thread,
};

const READ: Interest = Interest::READABLE;
const WRITE: Interest = Interest::WRITABLE;
const BOTH: Interest = READ.union(WRITE);

pub(crate) type Case = (&'static str, fn(&mut Log));

pub(crate) const CASES: &[Case] = &[
    ("an interval is an edge once", an_interval_is_an_edge_once),
    ("wakes are one event", wakes_are_one_event),
    ("addresses conflict", addresses_conflict),
    ("a socket is bound once", a_socket_is_bound_once),
    ("all interfaces", all_interfaces),
    ("a short queue", a_short_queue),
    ("several addresses are tried", several_addresses_are_tried),
    ("connecting again", connecting_again),
    ("a listener is shut down", a_listener_is_shut_down),
    ("lingering is inherited", lingering_is_inherited),
    ("exclusive registrations", exclusive_registrations),
    ("a blocked write is told of a reset", a_blocked_write_is_told_of_a_reset),
    ("a shutdown ends the connecting", a_shutdown_ends_the_connecting),
    ("a shutdown of an unconnected socket", a_shutdown_of_an_unconnected_socket),
];

/// Until all has arrived.
fn pause() {
    thread::sleep(Duration::from_millis(15));
}

fn socket() -> Socket {
    Socket::new(Domain::IPV4, Type::STREAM, None).unwrap()
}

fn nonblocking() -> Socket {
    let socket = socket();
    socket.set_nonblocking(true).unwrap();
    socket
}

/// No other test has sockets at this address, so no other test takes a port that is free again.
const HOST: &str = "127.7.7.7";

fn listener() -> (TcpListener, SocketAddr) {
    let listener = TcpListener::bind((HOST, 0)).unwrap();
    listener.set_nonblocking(true).unwrap();
    let address = listener.local_addr().unwrap();
    (listener, address)
}

/// An address without a listener.
fn nobody() -> SocketAddr {
    listener().1
}

fn object(source: &impl AsRawFd, interest: Interest, mode: Mode) -> EventObject {
    EventObject::client(source.as_raw_fd()).with_interest(interest).with_mode(mode)
}

fn watching(source: &impl AsRawFd, interest: Interest, mode: Mode) -> Watcher {
    let poller = Watcher::new().unwrap();
    poller.add(object(source, interest, mode)).unwrap();
    poller
}

fn events(poller: &mut Watcher) -> Vec<Readiness> {
    pause();
    poller.wait(0).unwrap().iter().map(|event| event.readiness()).collect()
}

fn an_interval_is_an_edge_once(log: &mut Log) {
    let every = Duration::from_millis(200);
    let timer = Timer::new().unwrap();
    let mut poller = watching(&timer, READ, Mode::Edge);
    timer.set_interval(every).unwrap();
    log.value("first", poller.wait(-1).unwrap().len());
    log.value("second", poller.wait(500).unwrap().len());
    log.result("went off again", timer.clear().map(|times| times > 1));
    log.value("after it", poller.wait(-1).unwrap().len());
}

fn wakes_are_one_event(log: &mut Log) {
    let (stream, _peer) = UnixStream::pair().unwrap();
    let mut poller = watching(&stream, WRITE, Mode::Edge);
    let wakers = [3, 3, 7].map(|token| Waker::new(poller.registry(), token).unwrap());
    log.value("created", events(&mut poller));
    for round in 0..2 {
        wakers.iter().chain(&wakers).for_each(|waker| waker.wake().unwrap());
        let woken = poller.wait(0).unwrap().iter().map(|event| (event.token, event.is_wake()));
        let mut woken: Vec<_> = woken.collect();
        woken.sort_unstable();
        log.value("woken", (round, woken));
        log.value("taken", (round, events(&mut poller)));
    }
    wakers[0].wake().unwrap();
    drop(wakers);
    log.value("dropped", poller.wait(-1).unwrap().len());
    log.value("after it", events(&mut poller));
}

fn addresses_conflict(log: &mut Log) {
    let (listener, address) = listener();
    let port = address.port();
    for ip in [HOST, "0.0.0.0", "127.7.7.8"] {
        let other: SocketAddr = format!("{ip}:{port}").parse().unwrap();
        log.result(ip, TcpListener::bind(other).map(drop));
        log.result(ip, socket().bind(&other.into()));
    }
    drop(listener);
    let bound = socket();
    bound.bind(&address.into()).unwrap();
    log.result("bound", TcpListener::bind(address).map(drop));
    drop(bound);
    let shares: [fn(&Socket, bool) -> _; 2] = [Socket::set_reuse_port, Socket::set_reuse_address];
    for share in shares {
        let (first, second) = (socket(), socket());
        share(&first, true).unwrap();
        first.bind(&address.into()).unwrap();
        log.result("shared by one", second.bind(&address.into()));
        share(&second, true).unwrap();
        log.result("shared by both", second.bind(&address.into()));
        log.result("one listens", first.listen(1));
        log.result("both listen", second.listen(1));
    }

    let all = TcpListener::bind("0.0.0.0:0").unwrap();
    let inner = (HOST, all.local_addr().unwrap().port());
    log.result("part of all", TcpListener::bind(inner).map(drop));

    let (_listener, address) = self::listener();
    let client = TcpStream::connect(address).unwrap();
    log.result("a client's", TcpListener::bind(client.local_addr().unwrap()).map(drop));
}

fn a_socket_is_bound_once(log: &mut Log) {
    let address = nobody();
    let socket = socket();
    log.result("bind", socket.bind(&address.into()));
    log.result("again", socket.bind(&address.into()));
    let any: SocketAddr = "127.0.0.1:0".parse().unwrap();
    log.result("to any port", socket.bind(&any.into()));
    let port = |socket: &Socket| socket.local_addr().unwrap().as_socket().unwrap().port();
    log.value("has its port", port(&socket) == address.port());

    let (_listener, server) = listener();
    socket.connect(&server.into()).unwrap();
    log.value("connects from it", port(&socket) == address.port());
    log.result("is connected", socket.bind(&any.into()));

    let other = self::socket();
    other.bind(&any.into()).unwrap();
    log.value("any port is one", port(&other) != 0);
    log.result("listen", other.listen(1));
    let unbound = self::socket();
    log.result("listen without", unbound.listen(1));
    log.value("it has one", port(&unbound) != 0);
    log.result("connect from it", unbound.connect(&server.into()));
}

fn all_interfaces(log: &mut Log) {
    let listener = TcpListener::bind("[::]:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    log.result("IPv4", TcpStream::connect(("127.0.0.1", port)).map(drop));
    log.result("IPv6", TcpStream::connect(("::1", port)).map(drop));
    log.result("all of IPv4", TcpListener::bind(("0.0.0.0", port)).map(drop));
    log.result("one of IPv6", TcpListener::bind(("::1", port)).map(drop));
    let listener = TcpListener::bind("0.0.0.0:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    log.result("IPv4", TcpStream::connect(("127.0.0.1", port)).map(drop));
    log.result("IPv6", TcpStream::connect(("::1", port)).map(drop));
    log.result("one of IPv6", TcpListener::bind(("::1", port)).map(drop));
}

fn a_short_queue(log: &mut Log) {
    let (listener, address) = listener();
    SockRef::from(&listener).listen(1).unwrap();
    let clients: Vec<_> = (0..6).map(|_| nonblocking()).collect();
    for client in &clients {
        log.result("connect", client.connect(&address.into()));
    }
    pause();
    let connected = clients.iter().filter(|client| client.connect(&address.into()).is_ok());
    log.value("connected", connected.count());
    // The other clients try again after a second.
    drop(clients);
    for _ in 0..2 {
        log.result("accept", listener.accept().map(drop));
    }
    thread::sleep(Duration::from_millis(1_500));
    log.result("accept", listener.accept().map(drop));
}

fn several_addresses_are_tried(log: &mut Log) {
    let (_listener, address) = listener();
    let dead = nobody();
    let peer = |stream: TcpStream| stream.peer_addr().unwrap() == address;
    log.result("connect", TcpStream::connect(&[dead, address][..]).map(peer));
    log.result("to nobody", TcpStream::connect(&[dead, dead][..]).map(peer));
    log.result("to nothing", TcpStream::connect(&[][..]).map(peer));
    let free = SocketAddr::from(([127, 0, 0, 1], 0));
    log.result("bind", TcpListener::bind(&[address, free][..]).map(drop));
    log.result("to what is taken", TcpListener::bind(&[address][..]).map(drop));
}

fn connecting_again(log: &mut Log) {
    let (_listener, address) = listener();
    let client = nonblocking();
    log.result("connect", client.connect(&address.into()));
    pause();
    for _ in 0..3 {
        log.result("again", client.connect(&address.into()));
    }
    for takes_error in [false, true] {
        let client = nonblocking();
        log.result("connect to nobody", client.connect(&nobody().into()));
        pause();
        if takes_error {
            let error = client.take_error().map(|error| error.map(|error| error.kind()));
            log.result("its error", error);
        }
        log.result("again", client.connect(&address.into()));
        log.result("anew", client.connect(&address.into()));
        pause();
        log.result("connected", client.connect(&address.into()));
    }
    let client = socket();
    log.result("blocks, to nobody", client.connect(&nobody().into()));
    log.result("blocks, anew", client.connect(&address.into()));
    log.result("blocks, again", client.connect(&address.into()));
    let listening = socket();
    listening.listen(1).unwrap();
    log.result("a listener", listening.connect(&address.into()));
}

fn a_listener_is_shut_down(log: &mut Log) {
    for how in [Shutdown::Write, Shutdown::Read, Shutdown::Both] {
        let (listener, address) = listener();
        let mut client = TcpStream::connect(address).unwrap();
        let mut poller = watching(&listener, BOTH, Mode::Edge);
        log.value("a client", events(&mut poller));
        log.result("shutdown", SockRef::from(&listener).shutdown(how));
        log.value("events", events(&mut poller));
        log.result("connect", TcpStream::connect(address).map(drop));
        log.result("accept", listener.accept().map(drop));
        log.result("bind", TcpListener::bind(address).map(drop));
        if how != Shutdown::Write {
            log.result("the client", client.read(&mut [0]));
        }
    }
    let (listener, _) = listener();
    listener.set_nonblocking(false).unwrap();
    let blocked = listener.try_clone().unwrap();
    let accepting = thread::spawn(move || blocked.accept().map(drop));
    pause();
    SockRef::from(&listener).shutdown(Shutdown::Read).unwrap();
    log.result("a blocked accept", accepting.join().unwrap());
}

fn lingering_is_inherited(log: &mut Log) {
    let (listener, address) = listener();
    listener.set_nonblocking(false).unwrap();
    let zero = Some(Duration::ZERO);
    log.result("a listener's", SockRef::from(&listener).set_linger(zero));
    let mut client = TcpStream::connect(address).unwrap();
    drop(listener.accept().unwrap());
    log.result("read", client.read(&mut [0]));
    SockRef::from(&listener).set_linger(None).unwrap();
    let socket = socket();
    log.result("a socket's", SockRef::from(&socket).set_linger(zero));
    socket.connect(&address.into()).unwrap();
    let (mut stream, _) = listener.accept().unwrap();
    drop(socket);
    log.result("read", stream.read(&mut [0]));
}

fn exclusive_registrations(log: &mut Log) {
    let (near, far) = UnixStream::pair().unwrap();
    let poller = Watcher::new().unwrap();
    let exclusive = |interest, mode| object(&near, interest, mode).exclusive();
    log.result("once", poller.add(exclusive(READ, Mode::Oneshot)));
    log.result("priority", poller.add(exclusive(READ | Interest::PRIORITY, Mode::Level)));
    log.result("modify nothing", poller.modify(exclusive(READ, Mode::Level)));
    log.result("modify nothing", poller.modify(object(&near, READ, Mode::Level)));
    for mode in [Mode::Level, Mode::Edge] {
        let mut poller = Watcher::new().unwrap();
        log.result("add", poller.add(exclusive(BOTH, mode)));
        log.result("twice", poller.add(exclusive(BOTH, mode)));
        log.result("modify", poller.modify(object(&near, READ, Mode::Level)));
        log.value("events", events(&mut poller));
        far.shutdown(Shutdown::Write).unwrap();
        log.value("half-closed", events(&mut poller));
    }
    drop(far);
    let mut poller = Watcher::new().unwrap();
    poller.add(exclusive(READ, Mode::Level)).unwrap();
    log.value("closed", events(&mut poller));
}

fn a_blocked_write_is_told_of_a_reset(log: &mut Log) {
    let (mut near, far) = UnixStream::pair().unwrap();
    near.set_nonblocking(true).unwrap();
    (&far).write_all(b"unread").unwrap();
    while near.write(&[0; 4096]).is_ok() {}
    near.set_nonblocking(false).unwrap();
    (&near).read_exact(&mut [0; 6]).unwrap();
    let closing = thread::spawn(move || {
        // By now it blocks.
        thread::sleep(Duration::from_millis(200));
        drop(far);
    });
    for _ in 0..3 {
        let written = near.write(&[0; 4096]).map_err(|error| match error.kind() {
            ErrorKind::ConnectionReset => "reset",
            ErrorKind::BrokenPipe => "broken pipe",
            _ => "another",
        });
        log.value("write", written);
    }
    closing.join().unwrap();
}

fn a_shutdown_ends_the_connecting(log: &mut Log) {
    let (listener, address) = listener();
    SockRef::from(&listener).listen(0).unwrap();
    let _first = TcpStream::connect(address).unwrap();
    pause();
    for how in [Shutdown::Read, Shutdown::Write, Shutdown::Both] {
        let client = nonblocking();
        log.result("connect", client.connect(&address.into()));
        let mut poller = watching(&client, BOTH, Mode::Edge);
        log.value("before", events(&mut poller));
        log.result("shutdown", SockRef::from(&client).shutdown(how));
        log.value("after", events(&mut poller));
        let mut stream = TcpStream::from(client);
        log.result("read", stream.read(&mut [0]));
        log.result("read again", stream.read(&mut [0]));
        log.result("write", stream.write(&[0]));
    }
}

fn a_shutdown_of_an_unconnected_socket(log: &mut Log) {
    let socket = nonblocking();
    let mut poller = watching(&socket, BOTH, Mode::Edge);
    log.value("new", events(&mut poller));
    log.value("silent", events(&mut poller));
    log.result("shutdown", SockRef::from(&socket).shutdown(Shutdown::Write));
    log.value("after", events(&mut poller));
}
