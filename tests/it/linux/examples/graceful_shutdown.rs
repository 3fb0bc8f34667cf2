//! The example `graceful_shutdown`: signals to a process, and their effects on its clients.

use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;

use crate::linux::support::example::{
    Running, connect_with_little_room, eventually, in_kernel, read_to_end, reset, with_descriptors,
    write_until_stuck,
};

/// The time that the example gives its clients to finish.
const GRACE: Duration = Duration::from_secs(3);

#[test]
fn bytes_come_back_in_capitals() {
    let server = start();
    let mut client = server.connect();
    ask(&mut client, "one\n", "ONE\n");
    ask(&mut client, "two\nthree\n\n", "TWO\nTHREE\n\n");
    server.expect_idle();
    client.write_all(b"last").unwrap();
    client.shutdown(Shutdown::Write).unwrap();
    assert_eq!(read_to_end(&mut client), b"LAST");
}

#[test]
fn a_client_that_never_reads_stalls_nobody_and_is_broken_off_in_the_end() {
    let server = start();
    let (slow, mut other) = (server.connect(), server.connect());
    let data = "some words ".repeat(6 << 20);
    let sent = write_until_stuck(&slow, data.as_bytes());
    assert!(sent < data.len(), "the server took {sent} bytes from a client that reads nothing");
    ask(&mut other, "other", "OTHER");
    server.expect_idle();

    // Its answers are under way, and it does not read them.
    let begin = Instant::now();
    let (status, lines) = server.stop(Signal::SIGTERM);
    let took = begin.elapsed();
    assert!(took >= GRACE, "{took:?}");
    assert_eq!(status.code(), Some(0), "{status}");
    assert_eq!(lines, ["1 clients broken off"]);
}

#[test]
fn more_than_a_buffer_at_once_is_answered_too() {
    let server = start();
    let mut client = server.connect();
    // After some megabytes, the buffers of a connection have grown.
    let words = "some words ".repeat(200_000);
    thread::scope(|scope| {
        scope.spawn(|| (&client).write_all(words.as_bytes()).unwrap());
        (&client).read_exact(&mut vec![0; words.len()]).unwrap();
    });

    server.signal(Signal::SIGSTOP);
    let words = &words[..350_000];
    assert_eq!(write_until_stuck(&client, words.as_bytes()), words.len());
    client.shutdown(Shutdown::Write).unwrap();
    server.signal(Signal::SIGCONT);
    assert!(read_to_end(&mut client) == words.to_uppercase().as_bytes(), "other answers");
}

#[test]
fn sigterm_lets_go_of_idle_clients_at_once() {
    let server = start();
    let mut clients: Vec<_> = (0..100).map(|_| server.connect()).collect();
    for client in &mut clients[50..] {
        ask(client, "hello", "HELLO");
    }
    let (status, lines) = server.stop(Signal::SIGTERM);
    assert_eq!(status.code(), Some(0), "{status}");
    // After its time to finish, it would have closed them.
    assert_eq!(lines, [""; 0]);
    for client in &mut clients {
        assert_eq!(read_to_end(client), b"", "the client sees the end");
    }
}

#[test]
fn a_client_that_is_owed_an_answer_gets_it_and_no_other_is_accepted() {
    let server = start();
    let (mut slow, mut idle) = (connect_with_little_room(&server), server.connect());
    ask(&mut idle, "hello", "HELLO");
    let words = "some words ".repeat(6 << 20);
    let sent = write_until_unread(&slow, words.as_bytes());

    server.signal(Signal::SIGTERM);
    assert_eq!(read_to_end(&mut idle), b"");
    let refused = TcpStream::connect(server.address()).map_err(|error| error.kind());
    assert_eq!(refused.err(), Some(ErrorKind::ConnectionRefused));

    assert!(read_to_end(&mut slow) == words[..sent].to_uppercase().as_bytes(), "other answers");
    let (status, lines) = server.end();
    assert_eq!(status.code(), Some(0), "{status}");
    assert_eq!(lines, [""; 0]);
}

/// The server was stopped until the time to finish was over. It answers the input from before, as far as there is room.
#[test]
fn a_client_that_took_its_answers_in_time_gets_the_rest_after_a_stop() {
    let server = start();
    let mut client = connect_with_little_room(&server);
    let words = "some words ".repeat(6 << 20);
    let sent = write_until_unread(&client, words.as_bytes());
    server.signal(Signal::SIGTERM);
    eventually("it has heard", || TcpStream::connect(server.address()).is_err());
    server.signal(Signal::SIGSTOP);
    let mut taken = Vec::new();
    client.set_read_timeout(Some(GRACE + Duration::from_secs(1))).unwrap();
    let begin = Instant::now();
    while begin.elapsed() < GRACE {
        let mut some = vec![0; 1 << 16];
        match client.read(&mut some) {
            Ok(count) => taken.extend_from_slice(&some[..count]),
            Err(error) => assert_eq!(error.kind(), ErrorKind::WouldBlock),
        }
    }
    server.signal(Signal::SIGCONT);
    client.read_to_end(&mut taken).unwrap();
    assert!(taken == words[..sent].to_uppercase().as_bytes(), "{} of {sent}", taken.len());
    let (status, lines) = server.end();
    assert_eq!(status.code(), Some(0), "{status}");
    assert_eq!(lines, [""; 0]);
}

/// Writes until the server's kernel has all bytes and the server reads no more, and returns their number. A server that
/// ends cannot know of bytes that are still in the client's kernel.
fn write_until_unread(mut client: &TcpStream, data: &[u8]) -> usize {
    let mut sent = 0;
    // Smaller than any window, so that all of it arrives, though the server does not read.
    for part in data.chunks(32 << 10) {
        client.write_all(part).unwrap();
        sent += part.len();
        // Counts checks, not time: on a busy machine the server has few turns, and so has this test.
        const ENOUGH: u32 = 100;
        let mut looks = 0;
        eventually("it arrives", || match in_kernel(client) {
            (0, Some(0)) => true,
            (0, Some(_)) => {
                looks += 1;
                looks == ENOUGH
            }
            _ => false,
        });
        if looks == ENOUGH {
            return sent;
        }
    }
    panic!("the server took {sent} bytes from a client that reads nothing");
}

#[test]
fn requests_from_before_the_signal_are_answered() {
    let server = start();
    // The server finds the clients, their bytes and the signal at once.
    server.signal(Signal::SIGSTOP);
    let mut clients: Vec<_> = (0..20).map(|_| server.connect()).collect();
    for client in &mut clients {
        client.write_all(b"hello").unwrap();
    }
    server.signal(Signal::SIGTERM);
    server.signal(Signal::SIGCONT);
    for client in &mut clients {
        assert_eq!(read_to_end(client), b"HELLO");
    }
    let (status, lines) = server.end();
    assert_eq!(status.code(), Some(0), "{status}");
    assert_eq!(lines, [""; 0]);
}

#[test]
fn sighup_prints_how_many_clients_there_are() {
    let server = start();
    let mut clients = Vec::new();
    for count in 0..5 {
        server.signal(Signal::SIGHUP);
        assert_eq!(server.next_line(), format!("{count} clients"));
        let mut client = server.connect();
        ask(&mut client, "hello", "HELLO");
        clients.push(client);
    }
    // Clients that left or reset are no longer counted.
    reset(clients.pop().unwrap());
    drop(clients.pop());
    eventually("3 clients are left", || {
        server.signal(Signal::SIGHUP);
        server.next_line() == "3 clients"
    });

    // It still prints the number at the end, while a client has not taken its answers.
    write_until_stuck(&clients[0], &[b'x'; 64 << 20]);
    server.signal(Signal::SIGTERM);
    assert_eq!(read_to_end(&mut clients[1]), b"");
    assert_eq!(read_to_end(&mut clients[2]), b"");
    server.signal(Signal::SIGHUP);
    assert_eq!(server.next_line(), "1 clients");
}

#[test]
fn clients_beyond_the_last_descriptor_wait_without_using_the_processor() {
    let mut command = with_descriptors("graceful_shutdown", 32);
    let server = Running::spawn(command.arg("127.0.0.1:0")).listening();
    let clients: Vec<_> = (0..40).map(|_| server.connect()).collect();
    server.expect_idle();
    // The first clients are served, and leave, so that each has its turn.
    for mut client in clients {
        ask(&mut client, "hello\n", "HELLO\n");
    }
}

/// There is no client that could leave and so wake the server.
#[test]
fn a_client_that_queues_without_a_descriptor_is_served_once_there_is_one() {
    let server = start();
    let descriptors = server.descriptors();
    let next = (0..).find(|fd| !descriptors.contains(fd)).unwrap();
    server.limit_descriptors(next);
    let mut client = server.connect();
    client.write_all(b"hello").unwrap();
    server.expect_idle();
    server.limit_descriptors(64);
    ask(&mut client, "", "HELLO");
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
