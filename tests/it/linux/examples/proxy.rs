//! The example `proxy`: a process between real clients and a real upstream.

use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::process::{self, Command};
use std::time::{Duration, Instant};
use std::{env, fs, thread};

use nix::sys::signal::Signal;
use rustix::io::ioctl_fionread;
use socket2::SockRef;

use crate::linux::support::example::{
    LITTLE_ROOM, LONG, Running, connect_with_little_room, eventually, example, in_kernel,
    read_to_end, reset, with_descriptors, with_timeouts, write_until_stuck,
};
use crate::linux::support::random::Random;

#[test]
fn a_hundred_megabytes_go_through_both_ways_at_once() {
    const PIECES: usize = 100;
    let proxy = Proxy::start();
    let (client, upstream) = proxy.pair();
    thread::scope(|scope| {
        scope.spawn(|| send_pieces(&client, 1, PIECES));
        scope.spawn(|| send_pieces(&upstream, 2, PIECES));
        scope.spawn(|| expect_pieces(&client, 2, PIECES));
        expect_pieces(&upstream, 1, PIECES);
    });
    proxy.expect_forgotten();
}

#[test]
fn the_end_of_one_way_is_passed_on_and_leaves_the_other_open() {
    let proxy = Proxy::start();
    let data = Random::new(0).bytes(300_000);
    for length in [0, 1, data.len()] {
        for client_is_first in [true, false] {
            let (mut first, mut last) = in_order(proxy.pair(), client_is_first);
            // The proxy finds the beginning of the bytes and, if they are few, their end at once.
            proxy.running.signal(Signal::SIGSTOP);
            let sent = write_until_stuck(&first, &data[..length]);
            assert_eq!(sent, length);
            first.shutdown(Shutdown::Write).unwrap();
            proxy.running.signal(Signal::SIGCONT);
            assert!(read_to_end(&mut last) == data[..length], "of {length} bytes, others came");

            // The other direction stays open indefinitely.
            for _ in 0..3 {
                expect_passed(&last, &first);
            }
            last.write_all(&data).unwrap();
            last.shutdown(Shutdown::Write).unwrap();
            assert!(read_to_end(&mut first) == data, "other bytes came back than were sent");
        }
    }
    proxy.expect_forgotten();
}

#[test]
fn a_receiver_that_does_not_read_holds_back_its_sender_and_nobody_else() {
    let proxy = Proxy::start();
    let data = Random::new(1).bytes(64 << 20);
    let (other_client, other_upstream) = proxy.pair();
    expect_passed(&other_client, &other_upstream);
    for client_sends in [true, false] {
        let (sender, mut slow) = in_order(proxy.pair(), client_sends);
        let memory_before = proxy.running.memory_kb();
        let sent = write_until_stuck(&sender, &data);
        assert!(sent < data.len(), "{sent} bytes went to a receiver that does not read");
        assert!(sent > 1 << 20, "stuck after {sent} bytes: too few to be seen in memory");
        let grown = proxy.running.memory_kb().saturating_sub(memory_before);
        assert!(grown < 512, "the proxy grew by {grown} kB");

        // The direction that is not stuck, and all other clients.
        expect_passed(&slow, &sender);
        expect_passed(&other_client, &other_upstream);
        expect_passed(&other_upstream, &other_client);
        proxy.running.expect_idle();

        sender.shutdown(Shutdown::Write).unwrap();
        assert!(read_to_end(&mut slow) == data[..sent], "other bytes came than were sent");
    }
}

#[test]
fn more_than_a_buffer_at_once_arrives_though_nothing_follows() {
    let proxy = Proxy::start();
    let (client, mut upstream) = proxy.pair();
    let data = Random::new(2).bytes(8 << 20);
    // After some megabytes, the buffers of a connection have grown.
    thread::scope(|scope| {
        scope.spawn(|| (&client).write_all(&data).unwrap());
        upstream.read_exact(&mut vec![0; data.len()]).unwrap();
    });

    proxy.running.signal(Signal::SIGSTOP);
    let sent = write_until_stuck(&client, &data);
    assert!(sent > 1 << 20, "{sent} bytes are too few");
    proxy.running.signal(Signal::SIGCONT);
    expect_data(&mut upstream, &data[..sent]);
}

#[test]
fn buffers_to_the_byte_arrive_though_the_other_way_is_stuck() {
    /// The size of several whole buffers of the proxy: nothing follows the last.
    const BUFFERS: usize = 64 * 8 * 1024;
    let proxy = Proxy::start();
    let (client, mut upstream) = proxy.pair();
    let data = Random::new(4).bytes(64 << 20);
    // After some megabytes, the buffers of a connection have grown.
    thread::scope(|scope| {
        scope.spawn(|| (&client).write_all(&data[..8 << 20]).unwrap());
        upstream.read_exact(&mut vec![0; 8 << 20]).unwrap();
    });
    write_until_stuck(&upstream, &data);

    proxy.running.signal(Signal::SIGSTOP);
    assert_eq!(write_until_stuck(&client, &data[..BUFFERS]), BUFFERS);
    proxy.running.signal(Signal::SIGCONT);
    // The client is now neither readable nor writable, so the proxy gets no event for it.
    expect_data(&mut upstream, &data[..BUFFERS]);
}

#[test]
fn a_reset_of_either_side_reaches_the_other_as_a_reset() {
    let proxy = Proxy::start();
    for client_resets in [true, false] {
        for half_closed in [true, false] {
            let (one, mut other) = in_order(proxy.pair(), client_resets);
            expect_passed(&one, &other);
            if half_closed {
                one.shutdown(Shutdown::Write).unwrap();
                assert_eq!(other.read(&mut [0]).unwrap(), 0);
            }
            reset(one);
            if half_closed {
                eventually("the connection is broken", || (&other).write(b"?").is_err());
            } else {
                expect_reset(&other);
            }
        }
    }
    proxy.expect_forgotten();
}

/// A server that answers, and closes with unread input, sends a reset right behind its answer.
#[test]
fn bytes_from_before_a_reset_arrive() {
    let proxy = Proxy::start();
    for client_resets in [true, false] {
        for length in [10, 20_000] {
            let data = Random::new(length).bytes(length);
            for _ in 0..50 {
                let (mut one, mut other) = in_order(proxy.pair(), client_resets);
                // It stays unread.
                other.write_all(b"request").unwrap();
                one.read_exact(&mut [0]).unwrap();
                one.write_all(&data).unwrap();
                drop(one);
                expect_data(&mut other, &data);
                expect_reset(&other);
            }
        }
    }
    proxy.expect_forgotten();
}

/// A slow reader has taken little of it when the reset comes: the rest is still in the proxy's kernel.
#[test]
fn bytes_from_before_a_reset_arrive_at_a_slow_reader() {
    const LENGTH: usize = 8 * LITTLE_ROOM;
    let upstream = TcpListener::bind("127.0.0.1:0").unwrap();
    SockRef::from(&upstream).set_recv_buffer_size(LITTLE_ROOM).unwrap();
    let proxy = Proxy::with_upstream(upstream);
    let data = Random::new(LENGTH).bytes(LENGTH);
    for client_resets in [true, false] {
        for _ in 0..10 {
            let pair = (connect_with_little_room(&proxy.running), proxy.accept());
            let (mut one, mut other) = in_order(pair, client_resets);
            one.write_all(&data).unwrap();
            eventually("the proxy has it", || in_kernel(&one) == (0, Some(0)));
            assert!(ioctl_fionread(&other).unwrap() < LENGTH as u64, "all of it is here");
            reset(one);
            // The proxy may notice only later; then the test shows less.
            thread::sleep(Duration::from_millis(20));
            expect_data(&mut other, &data);
            expect_reset(&other);
        }
    }
    proxy.expect_forgotten();
}

/// An unreachable upstream causes one line and a reset for each client, at no cost to others.
#[test]
fn an_upstream_that_cannot_be_reached_resets_each_client() {
    let nobody = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string();
    // The kernel refuses to connect to the broadcast address at once.
    for (upstream, reason) in
        [("255.255.255.255:9", "Network is unreachable"), (&*nobody, "Connection refused")]
    {
        let mut command = Command::new(example("proxy"));
        let command = command.args(["127.0.0.1:0", upstream]);
        let (running, complaints) = Running::spawn_with_complaints(command);
        let running = running.listening();
        let descriptors = running.descriptors().len();
        // A pause of 100 ms for each would take a second. A busy machine may take that long too, once.
        eventually("ten clients in turn are refused without a pause", || {
            let start = Instant::now();
            (0..10).for_each(|_| expect_reset_at_once(&running));
            start.elapsed() < Duration::from_millis(500)
        });
        eventually("the clients are forgotten", || running.descriptors().len() == descriptors);
        let complaint = complaints.next_line();
        let expected = format!("proxy: a client was not served: {reason}");
        assert!(complaint.starts_with(&expected), "{complaint}");
        complaints.expect_no_more(running);
    }
}

/// An upstream that neither accepts nor refuses a connection, since others fill its queue.
#[test]
fn an_upstream_that_does_not_answer_resets_each_client_after_the_timeout() {
    let (upstream, _waiting) = full_listener();
    let upstream = upstream.local_addr().unwrap().to_string();
    let mut command = Command::new(example("proxy"));
    let command = command.args(["--timeout", "2", "127.0.0.1:0", &upstream]);
    let (running, complaints) = Running::spawn_with_complaints(command);
    let running = running.listening();
    let descriptors = running.descriptors().len();
    for _ in 0..2 {
        let start = Instant::now();
        let clients: Vec<_> = (0..20).map(|_| running.connect()).collect();
        // A client that leaves before is forgotten with the others.
        drop(running.connect());
        for client in &clients {
            expect_reset(client);
            assert!(start.elapsed() >= Duration::from_secs(2), "{:?}", start.elapsed());
        }
        eventually("the clients are forgotten", || running.descriptors().len() == descriptors);
        running.expect_idle();
    }
    let complaint = "proxy: a client was not served: \
        the upstream did not answer an attempt to connect in time";
    assert_eq!(complaints.next_line(), complaint);
    complaints.expect_no_more(running);
}

/// More clients than one wait reports: all connected in time, while the proxy was stopped for longer than the timeout.
#[test]
fn a_client_that_connected_while_it_was_stopped_is_served() {
    const CLIENTS: usize = 300;
    let (listener, waiting) = full_listener();
    let proxy = Proxy::with_timeout("8", listener);
    let clients: Vec<_> = (0..CLIENTS).map(|_| proxy.running.connect()).collect();
    eventually("it connects for all", || proxy.connections() == 2 * CLIENTS);
    let begin = Instant::now();
    proxy.running.signal(Signal::SIGSTOP);

    SockRef::from(&proxy.upstream).listen(4096).unwrap();
    drop((proxy.accept(), waiting));
    let upstreams: Vec<_> = (0..CLIENTS).map(|_| proxy.accept()).collect();
    thread::sleep(Duration::from_secs(9).saturating_sub(begin.elapsed()));
    proxy.running.signal(Signal::SIGCONT);
    let serving = thread::spawn(move || {
        for mut upstream in upstreams {
            let mut bytes = [0; 4];
            upstream.read_exact(&mut bytes)?;
            upstream.write_all(&bytes)?;
        }
        std::io::Result::Ok(())
    });
    for (number, mut client) in (0_u32..).zip(&clients) {
        client.write_all(&number.to_ne_bytes()).unwrap();
    }
    for (number, mut client) in (0_u32..).zip(&clients) {
        let mut bytes = [0; 4];
        client.read_exact(&mut bytes).unwrap_or_else(|error| panic!("client {number}: {error}"));
        assert_eq!(u32::from_ne_bytes(bytes), number);
    }
    serving.join().unwrap().unwrap();
}

/// The time for the last bytes of a broken side is over, because the proxy was stopped. Their receiver had room for
/// them all the time.
#[test]
fn bytes_from_before_a_reset_arrive_after_a_stop() {
    let upstream = TcpListener::bind("127.0.0.1:0").unwrap();
    let proxy = Proxy::with_timeout("2", upstream);
    let mut client = connect_with_little_room(&proxy.running);
    let upstream = proxy.accept();
    // An unread byte makes its close a reset.
    client.write_all(b"?").unwrap();
    eventually("it arrives", || ioctl_fionread(&upstream).unwrap() == 1);
    let sent = write_until_stuck(&upstream, &vec![7; 64 << 20]) as u64;
    proxy.running.expect_idle();
    let (to_send, unread) = in_kernel(&upstream);
    assert!(unread.unwrap() > 1 << 10, "all of it is passed on: {unread:?}");
    drop(upstream);
    // The proxy may notice only later; then the test shows less.
    thread::sleep(Duration::from_millis(20));
    proxy.running.signal(Signal::SIGSTOP);
    client.set_read_timeout(Some(Duration::from_millis(2_500))).unwrap();
    let (mut buffer, mut arrived) = (vec![0; 1 << 20], 0);
    let mut take = |client: &mut TcpStream| loop {
        match client.read(&mut buffer) {
            Ok(count) => arrived += count as u64,
            Err(error) => break (error.kind(), arrived),
        }
    };
    assert_eq!(take(&mut client).0, ErrorKind::WouldBlock);
    proxy.running.signal(Signal::SIGCONT);
    client.set_read_timeout(Some(LONG)).unwrap();
    assert_eq!(take(&mut client), (ErrorKind::ConnectionReset, sent - to_send));
}

/// The timeout is for the attempt to connect. It ends no established connection.
#[test]
fn a_silent_connection_outlives_the_timeout() {
    let upstream = TcpListener::bind("127.0.0.1:0").unwrap();
    let proxy = Proxy::with_timeout("1", upstream);
    let (client, upstream) = proxy.pair();
    thread::sleep(Duration::from_millis(1_500));
    proxy.running.expect_idle();
    expect_passed(&client, &upstream);
    expect_passed(&upstream, &client);
}

/// A name with several addresses, of which only one has a server.
#[test]
#[ignore = "it gives a name three addresses, in a mount namespace of its own: as root"]
fn where_an_address_of_the_upstream_refuses_the_next_is_tried() {
    let upstream = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = upstream.local_addr().unwrap().port();
    let hosts = env::temp_dir().join(format!("pollio-test-hosts-{}", process::id()));
    fs::write(&hosts, "127.0.0.2 many.test\n127.0.0.1 many.test\n127.0.0.3 many.test\n").unwrap();
    let shell = "mount --bind \"$1\" /etc/hosts && exec \"$0\" 127.0.0.1:0 many.test:$2";
    let mut command = Command::new("unshare");
    command.args(["--mount", "sh", "-c", shell]).arg(example("proxy")).arg(&hosts);
    let (running, complaints) = Running::spawn_with_complaints(command.arg(port.to_string()));
    let proxy = Proxy::around(running.listening(), upstream);
    for _ in 0..3 {
        let (client, upstream) = proxy.pair();
        expect_passed(&client, &upstream);
        expect_passed(&upstream, &client);
    }
    proxy.expect_forgotten();
    fs::remove_file(hosts).unwrap();
    // All clients were served.
    complaints.expect_no_more(proxy.running);
}

#[test]
fn a_reset_is_noticed_though_the_other_side_does_not_read() {
    let proxy = Proxy::start();
    let data = vec![7; 64 << 20];
    for client_resets in [true, false] {
        let (one, slow) = in_order(proxy.pair(), client_resets);
        write_until_stuck(&one, &data);
        reset(one);
        // Before the other side has read a byte.
        proxy.expect_forgotten();
        drop(slow);
    }
}

#[test]
fn bytes_from_before_the_upstreams_accept_arrive() {
    let (listener, waiting) = full_listener();
    let proxy = Proxy::with_timeout("600", listener);

    let mut early = proxy.running.connect();
    early.write_all(b"early").unwrap();
    early.shutdown(Shutdown::Write).unwrap();
    eventually("it is accepted", || proxy.connections() == 2);
    proxy.running.expect_idle();

    drop((proxy.accept(), waiting));
    let mut upstream = proxy.accept();
    assert_eq!(read_to_end(&mut upstream), b"early");
    upstream.write_all(b"late").unwrap();
    drop(upstream);
    assert_eq!(read_to_end(&mut early), b"late");
}

/// A listener with room for one client in its queue, and that client: the next connects when there is room again.
fn full_listener() -> (TcpListener, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    SockRef::from(&listener).listen(0).unwrap();
    let waiting = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    (listener, waiting)
}

#[test]
fn clients_that_come_and_go_are_not_mistaken_for_each_other() {
    let proxy = Proxy::start();
    let mut pairs: Vec<_> = (0..50).map(|_| proxy.pair()).collect();
    let mut random = Random::new(3);
    for n in 0..1_000_u32 {
        let which = random.below(pairs.len());
        // Both at once, so that their events come with one wait.
        let (client, upstream) = pairs.swap_remove(which);
        match n % 4 {
            0 => drop((client, upstream)),
            1 => [client, upstream].map(reset).into_iter().collect(),
            2 => reset(upstream),
            _ => {
                expect_passed(&client, &upstream);
                drop(client);
            }
        }
        let pair = proxy.pair();
        for number in [n, n + 1] {
            (&pair.0).write_all(&number.to_ne_bytes()).unwrap();
            let mut bytes = [0; 4];
            (&pair.1).read_exact(&mut bytes).unwrap();
            assert_eq!(u32::from_ne_bytes(bytes), number);
        }
        pairs.push(pair);
    }
    pairs.clear();
    proxy.expect_forgotten();
}

#[test]
fn out_of_descriptors_it_neither_ends_nor_spins() {
    // A pair takes two descriptors. There is no room now for the client, now for the connection to the upstream.
    for limit in [32, 33] {
        let upstream = TcpListener::bind("127.0.0.1:0").unwrap();
        let proxy = Proxy::run(&mut with_descriptors("proxy", limit), upstream);

        let first = proxy.pair();
        let clients: Vec<_> = (0..30).map(|_| proxy.running.connect()).collect();
        eventually("it is full", || {
            let descriptors = proxy.running.descriptors();
            descriptors.iter().filter(|fd| **fd < limit).count() >= limit - 1
        });
        proxy.running.expect_idle();
        expect_passed(&first.0, &first.1);

        clients.into_iter().for_each(reset);
        eventually("there is room again", || proxy.connections() == 2);
        let mut late = proxy.running.connect();
        late.write_all(b"late").unwrap();
        late.shutdown(Shutdown::Write).unwrap();
        // Clients that have left were before it in the queue.
        let mut received = Vec::new();
        eventually("the last one is served", || {
            received.clear();
            let _ = proxy.accept().read_to_end(&mut received);
            received == b"late"
        });
    }
}

/// With one free descriptor, the proxy accepts no client only to drop it.
#[test]
fn a_client_that_cannot_be_served_waits_in_the_queue() {
    for limit in [10, 11, 12, 13, 14] {
        let upstream = TcpListener::bind("127.0.0.1:0").unwrap();
        let proxy = Proxy::run(&mut with_descriptors("proxy", limit), upstream);

        let mut clients: Vec<_> = (0..8).map(|_| proxy.running.connect()).collect();
        proxy.running.expect_idle();
        // Each is served in turn, after those before it have left.
        while !clients.is_empty() {
            for client in &clients {
                client.set_nonblocking(true).unwrap();
                let end = client.peek(&mut [0]).map_err(|error| error.kind());
                assert_eq!(end, Err(ErrorKind::WouldBlock), "a client is dropped, limit {limit}");
                client.set_nonblocking(false).unwrap();
            }
            let client = clients.remove(0);
            expect_passed(&client, &proxy.accept());
        }
    }
}

/// The example, running, and its upstream.
struct Proxy {
    running: Running,
    upstream: TcpListener,
    /// The number of its open descriptors without any client.
    descriptors: usize,
}

impl Proxy {
    fn start() -> Self {
        Self::with_upstream(TcpListener::bind("127.0.0.1:0").unwrap())
    }

    fn with_upstream(upstream: TcpListener) -> Self {
        Self::run(&mut Command::new(example("proxy")), upstream)
    }

    /// A proxy with a timeout in seconds for an attempt to connect, and for the last bytes of a broken side.
    fn with_timeout(seconds: &str, upstream: TcpListener) -> Self {
        Self::run(Command::new(example("proxy")).args(["--timeout", seconds]), upstream)
    }

    /// Runs `command`, a proxy without its addresses.
    fn run(command: &mut Command, upstream: TcpListener) -> Self {
        let address = upstream.local_addr().unwrap().to_string();
        let running = Running::spawn(command.args(["127.0.0.1:0", &address]));
        Self::around(running.listening(), upstream)
    }

    fn around(running: Running, upstream: TcpListener) -> Self {
        upstream.set_nonblocking(true).unwrap();
        let descriptors = running.descriptors().len();
        Self { running, upstream, descriptors }
    }

    /// A client, and the other end of its connection.
    fn pair(&self) -> (TcpStream, TcpStream) {
        (self.running.connect(), self.accept())
    }

    fn accept(&self) -> TcpStream {
        let mut accepted = None;
        eventually("the proxy connects", || match self.upstream.accept() {
            Ok((stream, _)) => accepted.replace(stream).is_none(),
            Err(error) => {
                assert_eq!(error.kind(), ErrorKind::WouldBlock);
                false
            }
        });
        let stream = accepted.unwrap();
        stream.set_nonblocking(false).unwrap();
        with_timeouts(stream)
    }

    fn connections(&self) -> usize {
        self.running.descriptors().len() - self.descriptors
    }

    #[track_caller]
    fn expect_forgotten(&self) {
        eventually("all connections are closed", || self.connections() == 0);
    }
}

const PIECE: usize = 1_000_000;

/// Sends pieces that depend on the seed, and the end.
fn send_pieces(mut stream: &TcpStream, seed: usize, count: usize) {
    let mut random = Random::new(seed);
    for _ in 0..count {
        stream.write_all(&random.bytes(PIECE)).unwrap();
    }
    stream.shutdown(Shutdown::Write).unwrap();
}

fn expect_pieces(mut stream: &TcpStream, seed: usize, count: usize) {
    let (mut random, mut piece) = (Random::new(seed), vec![0; PIECE]);
    for n in 0..count {
        stream.read_exact(&mut piece).unwrap();
        assert!(piece == random.bytes(PIECE), "piece {n} of {count}: other bytes than were sent");
    }
    assert_eq!(stream.read(&mut piece).unwrap(), 0, "more bytes came than were sent");
}

/// A client and its upstream, or the reverse.
fn in_order(
    (client, upstream): (TcpStream, TcpStream),
    client_is_first: bool,
) -> (TcpStream, TcpStream) {
    if client_is_first { (client, upstream) } else { (upstream, client) }
}

#[track_caller]
fn expect_data(stream: &mut TcpStream, data: &[u8]) {
    let mut received = vec![0; data.len()];
    stream.read_exact(&mut received).unwrap();
    assert!(received == data, "other bytes came than were sent");
}

#[track_caller]
fn expect_passed(mut from: &TcpStream, mut to: &TcpStream) {
    from.write_all(b"a few words").unwrap();
    let mut words = [0; 11];
    to.read_exact(&mut words).unwrap();
    assert_eq!(&words, b"a few words");
}

#[track_caller]
fn expect_reset_at_once(running: &Running) {
    match TcpStream::connect(running.address()) {
        Ok(client) => {
            client.set_read_timeout(Some(LONG)).unwrap();
            expect_reset(&client);
        }
        // The reset came before the connect had returned.
        Err(error) => assert_eq!(error.kind(), ErrorKind::ConnectionReset),
    }
}

#[track_caller]
fn expect_reset(mut stream: &TcpStream) {
    let end = stream.read(&mut [0]).map_err(|error| error.kind());
    assert_eq!(end, Err(ErrorKind::ConnectionReset));
}
