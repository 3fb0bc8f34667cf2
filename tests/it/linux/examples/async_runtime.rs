//! The example `async_runtime`: its clients, and a user who types.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use crate::linux::support::example::{
    LONG, Running, eventually, example, read_to_end, reset, with_descriptors, write_until_stuck,
};
use crate::linux::support::random::Random;
use crate::support::subprocess::spawn;

// Includes the example for its unit tests: `cargo test` builds examples, but does not run their tests.
#[path = "../../../../examples/async_runtime/runtime.rs"]
mod runtime;

#[test]
fn every_byte_of_300_clients_at_once_comes_back() {
    const CLIENTS: usize = 300;
    const BYTES_EACH: usize = 50_000;
    let (server, _input) = start();
    let data = Random::new(0).bytes(CLIENTS + BYTES_EACH);
    let clients: Vec<_> = (0..CLIENTS).map(|_| server.connect()).collect();
    for size in [1, 1_000, BYTES_EACH - 1_001] {
        for (n, mut client) in clients.iter().enumerate() {
            client.write_all(&data[n..n + size]).unwrap();
        }
        for (n, mut client) in clients.iter().enumerate() {
            let mut received = vec![0; size];
            client.read_exact(&mut received).unwrap();
            assert!(received == data[n..n + size], "client {n} got other bytes than it sent");
        }
    }
    for mut client in clients {
        client.shutdown(Shutdown::Write).unwrap();
        assert_eq!(read_to_end(&mut client), b"");
    }
}

#[test]
fn a_client_that_never_reads_stalls_nobody() {
    let (server, _input) = start();
    let mut other = server.connect();
    expect_echo(&mut other);
    let memory_before = server.memory_kb();
    let data = Random::new(1).bytes(64 << 20);
    let mut slow = server.connect();
    let sent = write_until_stuck(&slow, &data);
    assert!(sent < data.len(), "the server took {sent} bytes from a client that reads nothing");
    let grown = server.memory_kb().saturating_sub(memory_before);
    assert!(grown < 512, "the server grew by {grown} kB");
    expect_echo(&mut other);
    server.expect_idle();

    slow.shutdown(Shutdown::Write).unwrap();
    assert!(read_to_end(&mut slow) == data[..sent], "other bytes came back than were sent");
}

#[test]
fn a_client_that_is_always_ready_leaves_the_others_their_turn() {
    let (server, mut input) = start();
    let mut other = server.connect();
    let (flooding, data) = (&server.connect(), &vec![7; 1 << 20]);
    thread::scope(|scope| {
        // Both ends of the connection see its shutdown below.
        scope.spawn(move || {
            let mut flooding = flooding;
            while flooding.write_all(data).is_ok() {}
        });
        scope.spawn(move || {
            let (mut flooding, mut buffer) = (flooding, vec![0; 1 << 20]);
            while flooding.read(&mut buffer).is_ok_and(|count| count > 0) {}
        });
        for _ in 0..100 {
            expect_echo(&mut other);
        }
        input.write_line("20 ms");
        assert_eq!(server.next_line(), "20 ms");
        flooding.shutdown(Shutdown::Both).unwrap();
    });
}

#[test]
fn clients_that_leave_in_any_way_are_forgotten() {
    let (server, _input) = start();
    let mut other = server.connect();
    expect_echo(&mut other);
    let descriptors = server.descriptors();
    for n in 0..60 {
        let mut client = server.connect();
        match n % 4 {
            0 => reset(client),
            1 => drop(client),
            2 => {
                client.write_all(&[7; 200_000]).unwrap();
                reset(client);
            }
            _ => expect_echo(&mut client),
        }
        expect_echo(&mut other);
    }
    let stuck = server.connect();
    write_until_stuck(&stuck, &vec![7; 64 << 20]);
    reset(stuck);
    eventually("those that left are forgotten", || server.descriptors() == descriptors);
    expect_echo(&mut other);
}

#[test]
fn a_line_from_the_thread_that_reads_wakes_a_runtime_that_sleeps() {
    let (server, mut input) = start();
    // Asleep, with nothing else that could end its wait.
    server.expect_idle();
    for n in 0..200 {
        let line = format!("now {n}");
        input.write_line(&line);
        assert_eq!(server.next_line(), line);
    }
    server.expect_idle();
}

#[test]
fn lines_are_not_lost_however_many_come_at_once() {
    let (server, mut input) = start();
    let lines: Vec<_> = (0..10_000).map(|n| format!("0 {n}")).collect();
    input.write_line(&lines.join("\n"));
    for line in lines {
        assert_eq!(server.next_line(), line);
    }
}

#[test]
fn a_line_is_any_bytes() {
    let mut command = Command::new(example("async_runtime"));
    let (mut typing, input) = UnixStream::pair().unwrap();
    command.arg("127.0.0.1:0").stdin(OwnedFd::from(input)).stdout(Stdio::piped());
    let mut server = spawn(&mut command);
    // It holds the other end of the input too.
    drop(command);
    let mut stdout = BufReader::new(server.stdout.take().unwrap());
    stdout.read_line(&mut String::new()).unwrap();
    let lines = [&b"0 caf\xe9\n"[..], b"\xff\xfe\n", b"\n", b"\0\n", b"0 tea\r\n", b"1 last"];
    typing.write_all(&lines.concat()).unwrap();
    for line in &lines[..5] {
        let mut answer = Vec::new();
        stdout.read_until(b'\n', &mut answer).unwrap();
        assert_eq!(answer, *line);
    }
    // It still runs: the last line has no end yet.
    assert!(server.try_wait().unwrap().is_none());
    drop(typing);
    assert_eq!(io::read_to_string(stdout).unwrap(), "1 last\n");
    assert!(server.wait().unwrap().success());
}

/// An input that is no readable file is not an end of input.
#[test]
fn an_input_that_cannot_be_read_is_an_error() {
    let mut command = Command::new(example("async_runtime"));
    command.arg("127.0.0.1:0").stdin(File::open("/").unwrap());
    let command = command.stdout(Stdio::piped()).stderr(Stdio::piped());
    let output = spawn(command).wait_with_output().unwrap();
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1), "{}: {stderr}", output.status);
    assert!(stderr.contains("cannot read the input: Is a directory"), "{stderr}");
}

#[test]
fn sleeps_end_in_their_order_and_never_early() {
    // On a busy machine, the sleep of one line may begin that much later than that of the line before.
    const STEP: Duration = Duration::from_millis(200);
    let (server, mut input) = start();
    let start = Instant::now();
    let line = |n| format!("{} {n}", (STEP * n).as_millis());
    input.write_line(&[5, 1, 8, 3, 7, 2, 10, 4, 9, 6].map(line).join("\n"));
    for n in 1..=10 {
        assert_eq!(server.next_line(), line(n));
        let elapsed = start.elapsed();
        assert!(elapsed >= STEP * n, "{n} came after {elapsed:?}");
        // Allows for the lateness of a busy machine.
        assert!(elapsed < STEP * n + LONG / 10, "{n} came after {elapsed:?}");
    }
    server.expect_idle();
}

#[test]
fn a_sleep_goes_on_while_clients_come() {
    let (server, mut input) = start();
    let start = Instant::now();
    input.write_line("300 over");
    let mut client = server.connect();
    while start.elapsed() < Duration::from_millis(200) {
        expect_echo(&mut client);
    }
    assert_eq!(server.next_line(), "300 over");
    assert!(start.elapsed() >= Duration::from_millis(300));
}

#[test]
fn the_end_of_the_input_ends_it_after_the_last_reminder() {
    let (server, mut input) = start();
    let mut client = server.connect();
    expect_echo(&mut client);
    let start = Instant::now();
    input.write_line("2000 last\n1000 first\nat once\n99999999999999999999 too large a number");
    drop(input);
    let (status, lines) = server.end();
    assert!(start.elapsed() >= Duration::from_millis(2_000));
    assert!(status.success(), "{status}");
    assert_eq!(
        lines,
        ["at once", "99999999999999999999 too large a number", "1000 first", "2000 last"]
    );
    assert_eq!(read_to_end(&mut client), b"", "the server is gone, and its clients see the end");
}

#[test]
fn clients_beyond_the_last_descriptor_wait_for_one_that_leaves() {
    let mut command = with_descriptors("async_runtime", 32);
    let (server, _input) = with_input(command.arg("127.0.0.1:0"));
    let mut clients: Vec<_> = (0..40).map(|_| server.connect()).collect();
    expect_echo(&mut clients[0]);
    eventually("it is full", || server.descriptors().iter().filter(|fd| **fd < 32).count() == 32);
    server.expect_idle();
    let mut last = clients.pop().unwrap();
    clients.truncate(1);
    expect_echo(&mut last);
    expect_echo(&mut clients[0]);
}

fn start() -> (Running, Input) {
    with_input(Command::new(example("async_runtime")).arg("127.0.0.1:0"))
}

fn with_input(command: &mut Command) -> (Running, Input) {
    let (ours, theirs) = UnixStream::pair().unwrap();
    let server = Running::spawn(command.stdin(OwnedFd::from(theirs))).listening();
    (server, Input(ours))
}

/// The example's input, which ends when this is dropped.
struct Input(UnixStream);

impl Input {
    fn write_line(&mut self, line: &str) {
        self.0.write_all(format!("{line}\n").as_bytes()).unwrap();
    }
}

#[track_caller]
fn expect_echo(client: &mut TcpStream) {
    client.write_all(b"hello").unwrap();
    let mut answer = [0; 5];
    client.read_exact(&mut answer).unwrap();
    assert_eq!(&answer, b"hello");
}
