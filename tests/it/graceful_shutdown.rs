//! The example `graceful_shutdown`: signals to a process, and what its clients see of them.

use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;

use crate::example::{
    Running, eventually, example, expect_refusal, read_to_end, reset, write_until_stuck,
};

/// How long the example lets its clients finish.
const GRACE: Duration = Duration::from_secs(3);

#[test]
fn lines_are_answered_in_capitals() {
    let server = start();
    let mut client = server.connect();
    ask(&mut client, "one\n", "ONE\n");
    ask(&mut client, "two\nthree\n\n", "TWO\nTHREE\n\n");
    client.write_all(b"fo").unwrap();
    server.expect_idle();
    ask(&mut client, "ur\n", "FOUR\n");
    client.write_all(b"last\nno line").unwrap();
    client.shutdown(Shutdown::Write).unwrap();
    assert_eq!(read_to_end(&mut client), b"LAST\n");
}

#[test]
fn a_line_that_is_too_long_ends_the_connection() {
    let server = start();
    let (mut client, mut other) = (server.connect(), server.connect());
    ask(&mut client, &("x".repeat(4095) + "\n"), &("X".repeat(4095) + "\n"));
    client.write_all(&[b'x'; 4096]).unwrap();
    assert_eq!(read_to_end(&mut client), b"");
    ask(&mut other, "other\n", "OTHER\n");
}

#[test]
fn a_client_that_never_reads_stalls_nobody() {
    let server = start();
    let (slow, mut other) = (server.connect(), server.connect());
    let lines = "a line\n".repeat(8 << 20);
    let sent = write_until_stuck(&slow, lines.as_bytes());
    assert!(sent < lines.len(), "the server took {sent} bytes from a client that reads nothing");
    ask(&mut other, "other\n", "OTHER\n");
    server.expect_idle();

    // What it is owed is under way, and it does not take it.
    let begin = Instant::now();
    let (status, lines) = server.stop(Signal::SIGTERM);
    assert!(begin.elapsed() >= GRACE, "{:?}", begin.elapsed());
    assert_eq!(status.code(), Some(0), "{status}");
    assert_eq!(lines, ["1 clients have to finish", "1 clients broken off"]);
}

#[test]
fn more_than_a_fair_share_at_once_is_answered_too() {
    let server = start();
    let mut client = server.connect();
    // A connection that has carried some megabytes has room for much at once.
    let lines = "a line\n".repeat(300_000);
    thread::scope(|scope| {
        scope.spawn(|| (&client).write_all(lines.as_bytes()).unwrap());
        (&client).read_exact(&mut vec![0; lines.len()]).unwrap();
    });

    server.signal(Signal::SIGSTOP);
    let lines = &lines[..7 * 50_000];
    assert_eq!(write_until_stuck(&client, lines.as_bytes()), lines.len());
    client.shutdown(Shutdown::Write).unwrap();
    server.signal(Signal::SIGCONT);
    assert!(read_to_end(&mut client) == lines.to_uppercase().as_bytes(), "other answers");
}

#[test]
fn the_signals_to_end_let_go_of_idle_clients() {
    for signal in [Signal::SIGTERM, Signal::SIGINT] {
        let server = start();
        let mut clients: Vec<_> = (0..100).map(|_| server.connect()).collect();
        for client in &mut clients[50..] {
            ask(client, "hello\n", "HELLO\n");
        }
        let begin = Instant::now();
        let (status, lines) = server.stop(signal);
        assert!(begin.elapsed() < GRACE, "{signal}: {:?}", begin.elapsed());
        assert_eq!(status.code(), Some(0), "{signal}: {status}");
        assert_eq!(lines, ["0 clients have to finish", "0 clients broken off"], "{signal}");
        for client in &mut clients {
            assert_eq!(read_to_end(client), b"", "{signal}: the client is told of the end");
        }
    }
}

#[test]
fn who_is_in_a_line_finishes_it() {
    let server = start();
    let (mut halfway, mut another, mut idle) =
        (server.connect(), server.connect(), server.connect());
    for client in [&mut halfway, &mut another] {
        ask(client, "hello\nhalf a li", "HELLO\n");
    }
    ask(&mut idle, "hello\n", "HELLO\n");

    server.signal(Signal::SIGTERM);
    assert_eq!(server.next_line(), "2 clients have to finish");
    assert_eq!(read_to_end(&mut idle), b"");
    let refused = TcpStream::connect(server.address()).map_err(|error| error.kind());
    assert_eq!(refused.err(), Some(ErrorKind::ConnectionRefused), "nobody else is let in");

    for client in [&mut halfway, &mut another] {
        client.write_all(b"ne\n").unwrap();
        assert_eq!(read_to_end(client), b"HALF A LINE\n");
    }
    let (status, lines) = server.end();
    assert_eq!(status.code(), Some(0), "{status}");
    assert_eq!(lines, ["0 clients broken off"]);
}

#[test]
fn what_was_sent_before_the_signal_is_answered() {
    let server = start();
    // The server finds the clients, their lines and the signal at once.
    server.signal(Signal::SIGSTOP);
    let mut clients: Vec<_> = (0..20).map(|_| server.connect()).collect();
    for client in &mut clients {
        client.write_all(b"hello\n").unwrap();
    }
    server.signal(Signal::SIGTERM);
    server.signal(Signal::SIGCONT);
    for client in &mut clients {
        assert_eq!(read_to_end(client), b"HELLO\n");
    }
    let (status, lines) = server.end();
    assert_eq!(status.code(), Some(0), "{status}");
    assert_eq!(lines.last().unwrap(), "0 clients broken off");
}

#[test]
fn who_does_not_finish_in_time_is_broken_off() {
    let server = start();
    let mut client = server.connect();
    ask(&mut client, "hello\nhalf a li", "HELLO\n");

    let begin = Instant::now();
    let (status, lines) = server.stop(Signal::SIGTERM);
    let took = begin.elapsed();
    assert!(took >= GRACE && took < 5 * GRACE, "{took:?}");
    assert_eq!(status.code(), Some(0), "{status}");
    assert_eq!(lines, ["1 clients have to finish", "1 clients broken off"]);
}

#[test]
fn a_second_signal_ends_it_at_once() {
    let server = start();
    let mut client = server.connect();
    ask(&mut client, "hello\nhalf a li", "HELLO\n");

    let begin = Instant::now();
    server.signal(Signal::SIGTERM);
    assert_eq!(server.next_line(), "1 clients have to finish");
    let (status, lines) = server.stop(Signal::SIGTERM);
    assert!(begin.elapsed() < GRACE, "{:?}", begin.elapsed());
    assert_eq!(status.code(), Some(0), "{status}");
    assert_eq!(lines, ["1 clients broken off"]);
}

#[test]
fn sighup_tells_how_many_clients_there_are() {
    let server = start();
    let mut clients = Vec::new();
    for count in 0..5 {
        server.signal(Signal::SIGHUP);
        assert_eq!(server.next_line(), format!("{count} clients"));
        let mut client = server.connect();
        ask(&mut client, "hello\n", "HELLO\n");
        clients.push(client);
    }
    // One that leaves and one that resets are no longer counted.
    reset(clients.pop().unwrap());
    drop(clients.pop());
    eventually("3 clients are left", || {
        server.signal(Signal::SIGHUP);
        server.next_line() == "3 clients"
    });

    // It still does so at the end, for the one who has to finish.
    clients[0].write_all(b"half a li").unwrap();
    server.signal(Signal::SIGTERM);
    assert_eq!(server.next_line(), "1 clients have to finish");
    server.signal(Signal::SIGHUP);
    assert_eq!(server.next_line(), "1 clients");
}

#[test]
fn clients_beyond_the_last_descriptor_wait_without_using_the_processor() {
    let mut shell = Command::new("sh");
    let limited = "ulimit -S -n 32; exec \"$0\" 127.0.0.1:0";
    let server =
        Running::spawn(shell.arg("-c").arg(limited).arg(example("graceful_shutdown"))).listening();
    let clients: Vec<_> = (0..40).map(|_| server.connect()).collect();
    server.expect_idle();
    // Those who came first are in, and leave. So all of them have their turn.
    for mut client in clients {
        ask(&mut client, "hello\n", "HELLO\n");
    }
}

#[test]
fn an_address_that_is_none_is_an_error_in_one_line() {
    for address in ["here", "127.0.0.1", "127.0.0.1:66666", ""] {
        expect_refusal("graceful_shutdown", &[address], &format!("cannot serve {address}: "));
    }
}

fn start() -> Running {
    Running::start("graceful_shutdown", &["127.0.0.1:0"]).listening()
}

#[track_caller]
fn ask(client: &mut TcpStream, lines: &str, answers: &str) {
    client.write_all(lines.as_bytes()).unwrap();
    let mut bytes = vec![0; answers.len()];
    client.read_exact(&mut bytes).unwrap();
    assert_eq!(String::from_utf8_lossy(&bytes), answers);
}
