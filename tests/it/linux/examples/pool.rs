//! The example `pool`: clients that are served while others keep threads busy, and clients that come and go.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;

use crate::linux::support::example::{
    Running, eventually, expect_usage_error, read_to_end, reset, with_descriptors, with_timeouts,
    write_until_stuck,
};
use crate::linux::support::random::Random;

const MODES: [&[&str]; 2] = [&[], &["--apart"]];

#[test]
fn clients_that_come_and_go_in_every_thread_are_answered() {
    for mode in MODES {
        let server = start(mode, 4);
        let descriptors = server.descriptors().len();
        thread::scope(|scope| {
            for seed in 0..4 {
                let address = server.address();
                scope.spawn(move || come_and_go(address, seed));
            }
        });
        eventually("all are forgotten", || server.descriptors().len() == descriptors);
        server.expect_idle();
    }
}

/// Some clients stay, some leave in one way or another, and each gets the answers to its requests.
fn come_and_go(server: SocketAddr, seed: usize) {
    let mut random = Random::new(seed);
    let connect = || with_timeouts(TcpStream::connect(server).unwrap());
    let mut clients: Vec<_> = (0..20).map(|_| connect()).collect();
    for n in 0..1_000_usize {
        let which = random.below(clients.len());
        match random.below(8) {
            0 => reset(clients.swap_remove(which)),
            1 => drop(clients.swap_remove(which)),
            2 => {
                let mut client = clients.swap_remove(which);
                client.write_all(b"last\n").unwrap();
                client.shutdown(Shutdown::Write).unwrap();
                assert_eq!(read_to_end(&mut client), b"last\n");
            }
            _ => ask(&mut clients[which], &format!("{n} of {seed}\n").repeat(1 + n % 5)),
        }
        if clients.len() < 20 {
            clients.push(connect());
        }
    }
}

#[test]
fn the_next_client_is_served_by_a_free_thread() {
    let server = start(&[], 3);
    let mut quick = server.connect();
    ask(&mut quick, "now\n");
    let mut slow: Vec<_> = (0..2).map(|_| server.connect()).collect();
    let begin = Instant::now();
    slow.iter_mut().for_each(|client| client.write_all(b"3000\n").unwrap());
    // The one free thread serves all the others.
    let mut others: Vec<_> = (0..20).map(|_| server.connect()).collect();
    for n in 0..10 {
        others.iter_mut().for_each(|client| ask(client, &format!("now {n}\n")));
        ask(&mut quick, "now\n");
    }
    // A busy machine may take as long.
    let is_late = begin.elapsed() > Duration::from_secs(3);
    for client in &slow {
        client.set_nonblocking(true).unwrap();
        let is_under_way = client.peek(&mut [0]).is_err();
        assert!(is_late || is_under_way, "the slow ones came first");
        client.set_nonblocking(false).unwrap();
    }
    for client in &mut slow {
        let mut answer = [0; 5];
        client.read_exact(&mut answer).unwrap();
        assert_eq!(&answer, b"3000\n");
    }
}

#[test]
fn a_client_that_never_reads_stalls_nobody() {
    let server = start(&[], 2);
    let slow = server.connect();
    let line = "some words that are no number\n";
    let lines = line.repeat((64 << 20) / line.len());
    let sent = write_until_stuck(&slow, lines.as_bytes());
    assert!(sent < lines.len(), "the server took {sent} bytes from a client that reads nothing");
    let mut other = server.connect();
    (0..100).for_each(|_| ask(&mut other, "0\n"));
    server.expect_idle();

    let mut slow = slow;
    slow.shutdown(Shutdown::Write).unwrap();
    let whole = sent - sent % line.len();
    assert!(read_to_end(&mut slow) == lines.as_bytes()[..whole], "other answers");
}

#[test]
fn a_request_that_is_too_long_is_the_end() {
    let server = start(&[], 2);
    let mut client = server.connect();
    ask(&mut client, &format!("{}\n", "x".repeat(4_095)));
    let mut endless = server.connect();
    endless.write_all(&[b'x'; 4_096]).unwrap();
    assert_eq!(read_to_end(&mut endless), b"");
    ask(&mut client, "0\n");
}

#[test]
fn clients_beyond_the_last_descriptor_wait_for_one_that_leaves() {
    for mode in MODES {
        let mut command = with_descriptors("pool", 40);
        let server = Running::spawn(command.args(mode).args(["127.0.0.1:0", "3"])).listening();
        let clients: Vec<_> = (0..60).map(|_| server.connect()).collect();
        server.expect_idle();
        // The first clients are served, and leave, so that each has its turn.
        for mut client in clients {
            ask(&mut client, "hello\n");
        }
    }
}

#[test]
fn a_signal_ends_every_thread() {
    for mode in MODES {
        let server = start(mode, 4);
        let mut client = server.connect();
        ask(&mut client, "hello\n");
        let (status, _) = server.stop(Signal::SIGTERM);
        assert_eq!(status.code(), Some(0), "{status}");
        assert_eq!(read_to_end(&mut client), b"");
    }
}

#[test]
fn threads_are_a_number() {
    for threads in ["0", "-1", "many", ""] {
        let why = "THREADS is a whole number above 0";
        let complaint = match threads {
            "-1" => "invalid option '-1'".into(),
            _ => format!("cannot parse argument {threads:?}: {why}"),
        };
        expect_usage_error("pool", &["127.0.0.1:0", threads], &complaint);
    }
}

fn start(mode: &[&str], threads: usize) -> Running {
    Running::start("pool", &[mode, &["127.0.0.1:0", &threads.to_string()]].concat()).listening()
}

#[track_caller]
fn ask(client: &mut TcpStream, lines: &str) {
    client.write_all(lines.as_bytes()).unwrap();
    let mut answer = vec![0; lines.len()];
    client.read_exact(&mut answer).unwrap();
    assert_eq!(String::from_utf8_lossy(&answer), lines);
}
