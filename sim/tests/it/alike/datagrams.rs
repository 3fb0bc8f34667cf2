//! Calls on UDP sockets and their results.

use std::io::ErrorKind;
use std::os::fd::AsRawFd;
use std::time::Duration;

use pollio::{EventObject, Interest, Mode, Poller, Readiness};

use super::super::Log;
use super::{
    Domain, Shutdown, SockRef, Socket, SocketAddr, ToSocketAddrs, Type, UdpSocket, Watcher, thread,
};

pub(crate) const CASES: &[super::cases::Case] = &[
    ("datagrams have bounds", datagrams_have_bounds),
    ("each datagram is an edge", each_datagram_is_an_edge),
    ("an error is for a connected socket", an_error_is_for_a_connected_socket),
    ("connected again", connected_again),
    ("an unconnected socket", an_unconnected_socket),
    ("a full buffer drops", a_full_buffer_drops),
    ("a blocked read ends", a_blocked_read_ends),
    ("addresses of UDP conflict", addresses_conflict),
    ("the receiver of a datagram", the_receiver_of_a_datagram),
    ("both families", both_families),
    ("no connections", no_connections),
];

/// Until all has arrived.
fn pause() {
    thread::sleep(Duration::from_millis(15));
}

/// No other test has UDP sockets at this address.
const HOST: &str = "127.7.7.8";

fn at(address: impl ToSocketAddrs) -> UdpSocket {
    let socket = UdpSocket::bind(address).unwrap();
    socket.set_nonblocking(true).unwrap();
    socket
}

fn socket() -> UdpSocket {
    at((HOST, 0))
}

fn address(socket: &UdpSocket) -> SocketAddr {
    socket.local_addr().unwrap()
}

/// An address of no socket.
fn nobody() -> SocketAddr {
    address(&socket())
}

fn connected(peer: SocketAddr) -> UdpSocket {
    let socket = socket();
    socket.connect(peer).unwrap();
    socket
}

/// Logs the received datagrams, after all have arrived.
fn receive(log: &mut Log, what: &str, socket: &UdpSocket) {
    pause();
    let mut buffer = [0; 100];
    log.result(what, socket.recv(&mut buffer).map(|count| buffer[..count].to_vec()));
}

fn events(poller: &mut Watcher) -> Vec<Readiness> {
    pause();
    poller.wait(0).unwrap().iter().map(|event| event.readiness()).collect()
}

fn watching(socket: &impl AsRawFd, mode: Mode) -> Watcher {
    let poller = Watcher::new().unwrap();
    let object = EventObject::client(socket.as_raw_fd()).with_interest(Interest::BOTH);
    poller.add(object.with_mode(mode)).unwrap();
    poller
}

fn datagrams_have_bounds(log: &mut Log) {
    let (near, far) = (socket(), socket());
    for bytes in [&b"abc"[..], b"", b"abcdefgh"] {
        log.result("send", near.send_to(bytes, address(&far)));
    }
    pause();
    let mut buffer = [0; 5];
    let own = address(&near);
    for _ in 0..2 {
        let peeked = far.peek_from(&mut buffer[..2]).map(|(count, from)| (count, from == own));
        log.result("peek from", peeked);
        log.result("peek", far.peek(&mut buffer).map(|count| buffer[..count].to_vec()));
    }
    for _ in 0..4 {
        let received = far.recv_from(&mut buffer);
        log.result(
            "receive",
            received.map(|(count, from)| (buffer[..count].to_vec(), from == own)),
        );
    }
    near.send_to(b"lost", address(&far)).unwrap();
    receive(log, "what was lost", &far);
    near.send_to(b"lost", address(&far)).unwrap();
    pause();
    log.result("without a buffer", far.recv(&mut []));
    receive(log, "after it", &far);
    for length in [65_507, 65_508, 65_535, 65_536] {
        let mut buffer = vec![0; 65_536];
        log.result("long", near.send_to(&buffer[..length], address(&far)));
        pause();
        log.result("long", far.recv(&mut buffer));
    }
}

fn each_datagram_is_an_edge(log: &mut Log) {
    for mode in [Mode::Level, Mode::Edge, Mode::Oneshot] {
        let (near, far) = (socket(), socket());
        let mut poller = watching(&far, mode);
        log.value("new", events(&mut poller));
        for _ in 0..2 {
            for _ in 0..2 {
                near.send_to(b"x", address(&far)).unwrap();
            }
            log.value("two", events(&mut poller));
            log.value("again", events(&mut poller));
            log.result("one", far.recv(&mut [0; 9]));
            log.value("one is left", events(&mut poller));
        }
        far.send_to(b"x", address(&near)).unwrap();
        log.value("sent", events(&mut poller));
        log.value("silent", events(&mut poller));
    }
}

fn an_error_is_for_a_connected_socket(log: &mut Log) {
    let dead = nobody();
    let friend = socket();
    let stranger = socket();
    log.result("send", stranger.send_to(b"x", dead));
    receive(log, "a stranger", &stranger);

    let near = connected(dead);
    let mut poller = watching(&near, Mode::Edge);
    log.value("new", events(&mut poller));
    for what in ["send", "receive", "peek", "take", "send elsewhere", "connect", "shut down"] {
        log.result("send", near.send(b"x"));
        log.value("events", events(&mut poller));
        log.value("more events", events(&mut poller));
        match what {
            "send" => log.result(what, near.send(b"x")),
            "receive" => log.result(what, near.recv(&mut [0])),
            "peek" => log.result(what, near.peek(&mut [0])),
            "take" => {
                let kind = near.take_error().map(|error| error.map(|error| error.kind()));
                log.result(what, kind);
            }
            "send elsewhere" => log.result(what, near.send_to(b"x", address(&friend))),
            "connect" => log.result(what, near.connect(dead)),
            _ => log.result(what, SockRef::from(&near).shutdown(Shutdown::Write)),
        }
        receive(log, "then", &near);
        log.result("no more", near.take_error().map(|error| error.is_none()));
    }
    log.result("shut down", near.send(b"x"));

    let near = connected(dead);
    log.result("send elsewhere", near.send_to(b"x", nobody()));
    receive(log, "of no interest", &near);
    friend.send_to(b"before", address(&near)).unwrap();
    receive(log, "from a stranger", &near);
    let near = socket();
    friend.send_to(b"before", address(&near)).unwrap();
    pause();
    near.connect(dead).unwrap();
    near.send(b"x").unwrap();
    receive(log, "the error first", &near);
    receive(log, "then what came before", &near);
    near.send(b"x").unwrap();
    pause();
    log.result("too long", near.send(&[0; 65_508]));
    receive(log, "still there", &near);
}

fn connected_again(log: &mut Log) {
    let (one, other, near) = (socket(), socket(), socket());
    for peer in [&one, &other, &one] {
        log.result("connect", near.connect(address(peer)));
        log.value("peer", near.peer_addr().unwrap() == address(peer));
        for sender in [&one, &other] {
            sender.send_to(b"heard", address(&near)).unwrap();
            receive(log, "heard", &near);
        }
        log.result("send", near.send(b"sent"));
        receive(log, "one", &one);
        receive(log, "other", &other);
        log.result("send", near.send_to(b"past the peer", address(&other)));
        receive(log, "other", &other);
    }
    // A datagram that a connected socket does not accept has no receiver.
    other.connect(address(&near)).unwrap();
    log.result("send", other.send(b"x"));
    receive(log, "refused", &other);
    let own = near.try_clone().unwrap();
    log.result("itself", near.connect(address(&own)));
    log.result("send", own.send(b"to myself"));
    receive(log, "from itself", &near);
    log.result("nowhere", near.connect((HOST, 0)));
    log.result("its peer", near.peer_addr());
    log.result("send", near.send(b"x"));
    receive(log, "refused", &near);
    let none: [SocketAddr; 0] = [];
    log.value("to no address", near.send_to(b"x", &none[..]).map_err(|error| error.kind()));
    log.value("to no address", near.connect(&none[..]).map_err(|error| error.kind()));
}

fn an_unconnected_socket(log: &mut Log) {
    let near = UdpSocket::from(Socket::new(Domain::IPV4, Type::DGRAM, None).unwrap());
    near.set_nonblocking(true).unwrap();
    let mut poller = watching(&near, Mode::Edge);
    log.value("new", events(&mut poller));
    log.value("no port", address(&near).port() == 0);
    log.result("send", near.send(b"x"));
    log.value("a port", address(&near).port() != 0);
    log.value("an address", address(&near).ip());
    log.result("peer", near.peer_addr());
    log.result("receive", near.recv(&mut [0]));
    log.result("to port 0", near.send_to(b"x", (HOST, 0)));
    let far = socket();
    log.result("connect", near.connect(address(&far)));
    log.value("an interface", address(&near).ip().is_unspecified());
    log.result(
        "a port of its own",
        UdpSocket::bind(("127.7.7.10", address(&near).port())).map(drop),
    );
    for how in [Shutdown::Read, Shutdown::Write, Shutdown::Both] {
        let near = socket();
        let mut poller = watching(&near, Mode::Edge);
        log.value("new", events(&mut poller));
        log.result("shut down", SockRef::from(&near).shutdown(how));
        log.value("events", events(&mut poller));
        log.result("send", near.send_to(b"x", address(&far)));
        far.send_to(b"all the same", address(&near)).unwrap();
        receive(log, "receive", &near);
        receive(log, "nothing", &near);
    }
}

fn a_full_buffer_drops(log: &mut Log) {
    let (near, far) = (socket(), socket());
    for _ in 0..2 {
        for _ in 0..1_000 {
            near.send_to(&[0; 100], address(&far)).unwrap();
        }
        pause();
        let received = (0..1_000).filter(|_| far.recv(&mut [0; 100]).is_ok()).count();
        log.value("some came", received > 10);
        log.value("some did not", received < 500);
        receive(log, "no more", &far);
    }
}

fn a_blocked_read_ends(log: &mut Log) {
    let blocked = |socket: &UdpSocket| {
        socket.set_nonblocking(false).unwrap();
        let socket = socket.try_clone().unwrap();
        let reading = thread::spawn(move || {
            let received = socket.recv(&mut [0; 9]);
            received.map_err(|error| error.raw_os_error())
        });
        pause();
        reading
    };
    for how in [Shutdown::Read, Shutdown::Both] {
        let near = socket();
        let reading = blocked(&near);
        log.result("shut down", SockRef::from(&near).shutdown(how));
        log.value("read", reading.join().unwrap());
        log.result("again", near.recv(&mut [0]));
        let from = near.recv_from(&mut [0]).map_err(|error| error.kind());
        log.value("from nobody", from);
        socket().send_to(b"x", address(&near)).unwrap();
        pause();
        log.result("a datagram", near.recv(&mut [0]));
    }
    let near = connected(nobody());
    let reading = blocked(&near);
    log.result("send", near.send(b"x"));
    log.value("refused", reading.join().unwrap());
    let near = socket();
    let reading = blocked(&near);
    socket().send_to(b"x", address(&near)).unwrap();
    log.value("a datagram", reading.join().unwrap());
    near.set_read_timeout(Some(Duration::from_millis(20))).unwrap();
    log.value("in time", near.recv(&mut [0]).map_err(|error| error.kind()));
    let zero = near.set_read_timeout(Some(Duration::ZERO)).map_err(|error| error.kind());
    log.value("no time", (zero, ErrorKind::InvalidInput));
}

fn unbound() -> Socket {
    Socket::new(Domain::IPV4, Type::DGRAM, None).unwrap()
}

fn addresses_conflict(log: &mut Log) {
    let first = socket();
    let port = address(&first).port();
    for ip in [HOST, "0.0.0.0", "127.7.7.10", "::", "::1"] {
        log.result(ip, UdpSocket::bind((ip, port)).map(drop));
    }
    log.result("twice", Socket::from(first).bind(&SocketAddr::from(([127, 0, 0, 1], 0)).into()));
    let shares: [fn(&Socket, bool) -> _; 2] = [Socket::set_reuse_port, Socket::set_reuse_address];
    for share in shares {
        let (first, second) = (unbound(), unbound());
        share(&first, true).unwrap();
        first.bind(&nobody().into()).unwrap();
        let address = first.local_addr().unwrap();
        log.result("shared by one", second.bind(&address));
        share(&second, true).unwrap();
        log.result("shared by both", second.bind(&address));
    }
}

fn the_receiver_of_a_datagram(log: &mut Log) {
    let sharing = |address: SocketAddr| {
        let socket = unbound();
        socket.set_reuse_address(true).unwrap();
        socket.bind(&address.into()).unwrap();
        socket.set_nonblocking(true).unwrap();
        UdpSocket::from(socket)
    };
    let here = nobody();
    let everywhere = SocketAddr::from(([0, 0, 0, 0], here.port()));
    let sender = socket();
    let mut send = |what: &str, sockets: &[&UdpSocket]| {
        sender.send_to(b"x", here).unwrap();
        pause();
        let heard = sockets.iter().map(|socket| socket.recv(&mut [0]).is_ok());
        log.value(what, heard.collect::<Vec<_>>());
    };
    let (first, second, all) = (sharing(here), sharing(here), sharing(everywhere));
    send("the last one", &[&first, &second, &all]);
    first.connect(nobody()).unwrap();
    send("the one that hears", &[&first, &second, &all]);
    first.connect(address(&sender)).unwrap();
    send("the one that is connected", &[&first, &second, &all]);
    drop(first);
    send("the other one", &[&second, &all]);
    drop(second);
    send("who hears everywhere", &[&all]);

    let here = nobody();
    let sharing = [(); 3].map(|()| {
        let socket = unbound();
        socket.set_reuse_port(true).unwrap();
        socket.bind(&here.into()).unwrap();
        socket.set_nonblocking(true).unwrap();
        UdpSocket::from(socket)
    });
    let mut all = true;
    for _ in 0..20 {
        let sender = socket();
        (0..5).for_each(|_| assert_eq!(sender.send_to(b"x", here).unwrap(), 1));
        pause();
        let counts = sharing
            .each_ref()
            .map(|socket| (0..6).filter(|_| socket.recv(&mut [0]).is_ok()).count());
        all &= counts.contains(&5);
    }
    log.value("always the same one", all);
}

fn both_families(log: &mut Log) {
    let all = at("[::]:0");
    let port = address(&all).port();
    let four = socket();
    let six = at("[::1]:0");
    let mut buffer = [0; 9];
    four.send_to(b"four", (HOST, port)).unwrap();
    pause();
    let (_, from) = all.recv_from(&mut buffer).unwrap();
    log.value("its address", from.ip());
    log.result("answer", all.send_to(b"answer", from));
    receive(log, "four", &four);
    log.result("plain", all.send_to(b"plain", address(&four)));
    receive(log, "four", &four);
    six.send_to(b"six", ("::1", port)).unwrap();
    pause();
    let (_, from) = all.recv_from(&mut buffer).unwrap();
    log.value("its address", from.ip());
    log.result("answer", all.send_to(b"answer", from));
    receive(log, "six", &six);
    log.result("six to four", six.send_to(b"x", address(&four)));
    log.result("four to six", four.send_to(b"x", address(&six)));
    log.result("connect six to four", six.connect(address(&four)));
    log.result("connect four to six", four.connect(address(&six)));
    log.result("connect", all.connect(address(&four)));
    log.value("its address", (address(&all).ip().is_ipv6(), all.peer_addr().unwrap().ip()));
    log.result("send", all.send(b"connected"));
    receive(log, "four", &four);
    for length in [65_527, 65_528, 65_535, 65_536] {
        let mut buffer = vec![0; 65_536];
        log.result("long", six.send_to(&buffer[..length], address(&six)));
        pause();
        log.result("long", six.recv(&mut buffer));
    }
}

fn no_connections(log: &mut Log) {
    let socket = unbound();
    log.result("listen", socket.listen(1));
    log.result("accept", socket.accept().map(drop));
    let far = self::socket();
    log.result("connect", socket.connect(&address(&far).into()));
    log.result("again", socket.connect(&nobody().into()));
    log.result("back", socket.connect(&address(&far).into()));
    log.result("send", SockRef::from(&socket).send(b"x"));
    receive(log, "it", &far);
}
