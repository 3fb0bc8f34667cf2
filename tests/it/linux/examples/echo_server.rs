//! The example `echo_server` as a process, with well and badly behaved clients.

use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::thread;

use nix::sys::signal::Signal;
use pollio::{Interest, OsPoller, Poller};

use crate::linux::support::example::{
    LONG, Running, eventually, expect_failure, read_to_end, reset, with_descriptors,
    write_until_stuck,
};
use crate::linux::support::random::Random;
use crate::linux::support::talker::{Ending, Script, Talker};

#[test]
fn every_byte_of_500_connections_comes_back() {
    const CLIENTS: usize = 500;
    const THREADS: usize = 4;
    const BYTES_EACH: usize = 100_000;

    let server = start();
    let mut clients: Vec<_> = (0..CLIENTS).map(|_| server.connect()).collect();
    // The server accepts clients in order: when this one has its answer, all of them are connected.
    let mut last = server.connect();
    ping(&mut last);

    thread::scope(|scope| {
        for seed in 0..THREADS {
            let clients = clients.split_off(clients.len() - CLIENTS / THREADS);
            scope.spawn(move || talk(clients, BYTES_EACH, seed));
        }
    });

    let (status, lines) = server.stop(Signal::SIGINT);
    assert!(status.success(), "{status}");
    let bytes = CLIENTS * BYTES_EACH + PING.len();
    assert_eq!(lines, [format!("501 clients, 501 at once, 0 broken off; {bytes} bytes")]);
}

#[test]
fn a_client_that_never_reads_takes_one_buffer_and_stalls_nobody() {
    let server = start();
    let mut other = server.connect();
    ping(&mut other);
    let memory_before = server.memory_kb();

    let data = Random::new(1).bytes(64 << 20);
    let mut slow = server.connect();
    let sent = write_until_stuck(&slow, &data);
    assert!(sent < data.len(), "the server took {sent} bytes from a client that reads nothing");
    assert!(sent > 1 << 20, "a client was stuck after {sent} bytes: too few to be seen in memory");

    let grown = server.memory_kb().saturating_sub(memory_before);
    assert!(grown < 512, "the server grew by {grown} kB");
    for _ in 0..100 {
        ping(&mut other);
    }
    server.expect_idle();

    slow.shutdown(Shutdown::Write).unwrap();
    assert!(read_to_end(&mut slow) == data[..sent], "other bytes came back than were sent");
    ping(&mut other);
}

#[test]
fn clients_that_reset_harm_nobody_else() {
    let server = start();
    let mut other = server.connect();
    ping(&mut other);
    let descriptors = server.descriptors();

    let data = vec![7; 64 << 20];
    for n in 0..60 {
        let client = server.connect();
        match n % 3 {
            0 => {}
            1 => (&client).write_all(&data[..1_000]).unwrap(),
            // Now and then, a client to which the server still owes bytes.
            _ => (&client).write_all(&data[..200_000]).unwrap(),
        }
        reset(client);
        ping(&mut other);
    }
    let stuck = server.connect();
    write_until_stuck(&stuck, &data);
    reset(stuck);

    eventually("the clients that reset are forgotten", || server.descriptors() == descriptors);
    ping(&mut other);
    let (status, lines) = server.stop(Signal::SIGINT);
    assert!(status.success(), "{status}");
    let [statistics] = &lines[..] else { panic!("not one line: {lines:?}") };
    assert!(statistics.starts_with("62 clients, "), "{statistics}");
    assert!(statistics.contains(" 61 broken off; "), "{statistics}");
}

#[test]
fn a_half_close_is_answered_with_everything_and_then_the_end() {
    let server = start();
    let data = Random::new(2).bytes(50_000);
    for length in [0, 1, data.len()] {
        let mut client = server.connect();
        // The server finds the bytes and the end of them at once.
        server.signal(Signal::SIGSTOP);
        client.write_all(&data[..length]).unwrap();
        client.shutdown(Shutdown::Write).unwrap();
        server.signal(Signal::SIGCONT);
        assert!(read_to_end(&mut client) == data[..length], "of {length} bytes, others came back");
    }
}

#[test]
fn more_than_a_fair_share_at_once_comes_back_too() {
    let server = start();
    let data = Random::new(3).bytes(4 << 20);
    let mut client = server.connect();
    // After some megabytes, the buffers of a connection have grown.
    thread::scope(|scope| {
        scope.spawn(|| (&client).write_all(&data).unwrap());
        (&client).read_exact(&mut vec![0; data.len()]).unwrap();
    });

    server.signal(Signal::SIGSTOP);
    let sent = write_until_stuck(&client, &data[..1 << 20]);
    client.shutdown(Shutdown::Write).unwrap();
    server.signal(Signal::SIGCONT);
    assert!(read_to_end(&mut client) == data[..sent], "other bytes came back than were sent");
}

#[test]
fn clients_beyond_the_last_descriptor_wait_for_one_that_leaves() {
    let server = Running::spawn(with_descriptors("echo_server", 32).arg("127.0.0.1:0")).listening();
    let (mut served, mut waiting) = connect_more_than_fit(&server, 32);
    server.expect_idle();

    // The clients that are in are still served.
    served.iter_mut().for_each(ping);
    expect_nothing_yet(&waiting);
    served.truncate(served.len() - waiting.len());
    waiting.iter_mut().for_each(expect_pong);
    served.iter_mut().chain(&mut waiting).for_each(ping);
}

#[test]
fn clients_beyond_the_last_descriptor_are_served_though_nobody_leaves() {
    let server = start();
    server.limit_descriptors(32);
    let (mut served, mut waiting) = connect_more_than_fit(&server, 32);
    server.expect_idle();
    expect_nothing_yet(&waiting);

    server.limit_descriptors(64);
    waiting.iter_mut().for_each(expect_pong);
    served.iter_mut().for_each(ping);
}

#[test]
fn ctrl_c_ends_it_with_a_line_of_statistics() {
    for signal in [Signal::SIGINT, Signal::SIGTERM] {
        let (status, lines) = start().stop(signal);
        assert_eq!(status.code(), Some(0), "{signal}: {status}");
        assert_eq!(lines, ["0 clients, 0 at once, 0 broken off; 0 bytes"], "{signal}");
    }
}

#[test]
fn ctrl_c_ends_it_with_clients_connected_too() {
    let server = start();
    let mut idle = server.connect();
    ping(&mut idle);
    let stuck = server.connect();
    write_until_stuck(&stuck, &vec![7; 64 << 20]);

    let (status, lines) = server.stop(Signal::SIGINT);
    assert_eq!(status.code(), Some(0), "{status}");
    let [statistics] = &lines[..] else { panic!("not one line: {lines:?}") };
    assert!(statistics.starts_with("2 clients, 2 at once, 0 broken off; "), "{statistics}");
    assert_eq!(read_to_end(&mut idle), b"", "the server is gone, and its clients see the end");
}

#[test]
fn without_an_argument_it_listens_on_port_7777() {
    const DEFAULT: &str = "127.0.0.1:7777";
    // Another program may have the port at the moment. Then the server complains about that.
    let _taken = TcpListener::bind(DEFAULT);
    let complaint = format!("cannot serve {DEFAULT}: Address already in use");
    expect_failure("echo_server", &[], &complaint);
}

fn start() -> Running {
    Running::start("echo_server", &["127.0.0.1:0"]).listening()
}

/// Connects clients up to the limit and some more, and sends a ping from each. Returns the clients that were accepted,
/// with their answers, and the others.
fn connect_more_than_fit(server: &Running, limit: usize) -> (Vec<TcpStream>, Vec<TcpStream>) {
    // Inherited descriptors of the server may have numbers beyond the limit.
    let room = limit - server.descriptors().iter().filter(|fd| **fd < limit).count();
    let mut served: Vec<_> = (0..room + 10).map(|_| server.connect()).collect();
    for mut client in &served {
        client.write_all(PING).unwrap();
    }
    let waiting = served.split_off(room);
    served.iter_mut().for_each(expect_pong);
    (served, waiting)
}

const PING: &[u8] = b"ping";

#[track_caller]
fn ping(client: &mut TcpStream) {
    client.write_all(PING).unwrap();
    expect_pong(client);
}

#[track_caller]
fn expect_pong(client: &mut TcpStream) {
    let mut answer = [0; PING.len()];
    client.read_exact(&mut answer).unwrap();
    assert_eq!(answer, PING);
}

#[track_caller]
fn expect_nothing_yet(clients: &[TcpStream]) {
    for client in clients {
        client.set_nonblocking(true).unwrap();
        let read = client.peek(&mut [0]).map_err(|error| error.kind());
        assert_eq!(read, Err(ErrorKind::WouldBlock));
        client.set_nonblocking(false).unwrap();
    }
}

/// Lets all of `clients` talk at once, each until it sees the end.
fn talk(clients: Vec<TcpStream>, bytes_each: usize, seed: usize) {
    let mut script = Script::new(seed);
    let mut poller = OsPoller::new().unwrap();
    let registry = poller.registry().clone();
    let mut talkers = Vec::new();
    for (token, client) in (0..).zip(clients) {
        let mut talker = Talker::new(client, token, &mut script);
        talker.say(bytes_each, Some(Ending::HalfClose));
        registry.add(talker.object(Interest::BOTH)).unwrap();
        talkers.push(talker);
    }
    let mut talking = talkers.len();
    while talking > 0 {
        let events = poller.wait_timeout(Some(LONG)).unwrap();
        assert!(
            !events.is_empty(),
            "{talking} clients wait without an event, with the seed {seed}"
        );
        for event in events {
            let talker = &mut talkers[event.token as usize];
            if let Some(interest) = talker.talk(&mut script) {
                registry.modify(talker.object(interest)).unwrap();
            } else {
                registry.delete(event.fd).unwrap();
                talking -= 1;
            }
        }
    }
}
