//! The environment of the examples: a stdout without a reader, a careless parent, limits.

use std::fs::{self, File};
use std::io::{ErrorKind, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::os::unix::{net::UnixStream, process::CommandExt};
use std::process::{Command, Stdio};
use std::{env, process, thread, time::Duration};

use nix::fcntl::{FcntlArg, fcntl};
use nix::pty::openpty;
use nix::sys::signal::{Signal, kill};
use nix::sys::termios::{LocalFlags, SetArg, tcgetattr, tcsetattr};
use nix::unistd::{Pid, Uid, pipe};

use crate::linux::examples::supervise::{children_of, is_gone};
use crate::linux::support::example::{
    Running, eventually, example, with_descriptors, with_timeouts,
};
use crate::support::subprocess::{Closing, output};

/// The servers, each with its arguments after the address where it listens.
const SERVERS: [(&str, &[&str]); 7] = [
    ("async_runtime", &[]),
    ("echo_server", &[]),
    ("graceful_shutdown", &[]),
    ("http_server", &[]),
    ("pool", &[]),
    ("proxy", &["127.0.0.1:1"]),
    ("resp_server", &[]),
];

/// An address of no other test, and of no other run of this one: a program cannot always print where it listens.
fn own_address(test: u8) -> String {
    let [low, high, ..] = process::id().to_le_bytes();
    format!("127.{}.{low}.{test}:7777", 64 + high % 64)
}

/// All programs, with their arguments for an address.
fn programs(address: &str) -> Vec<(&'static str, Vec<&str>)> {
    let servers = SERVERS.iter().map(|(name, args)| (*name, [&[address], *args].concat()));
    // The last one lives for long enough to be seen.
    servers.chain([("supervise", vec!["0.01", "exec sleep 60", "sleep 0.02"])]).collect()
}

/// A pipe with room for 4 KiB, either full or empty.
fn little_pipe(is_full: bool) -> (OwnedFd, OwnedFd) {
    let (reader, writer) = pipe().unwrap();
    fcntl(&writer, FcntlArg::F_SETPIPE_SZ(4_096)).unwrap();
    if is_full {
        File::from(writer.try_clone().unwrap()).write_all(&[b'.'; 4_096]).unwrap();
    }
    (reader, writer)
}

/// Serves a client, or, for `supervise`, has its commands started repeatedly.
#[track_caller]
fn expect_at_work(name: &str, id: u32, address: &str) {
    if name == "supervise" {
        return expect_restarts(id);
    }
    eventually("it listens", || TcpStream::connect(address).is_ok());
    let mut client = with_timeouts(TcpStream::connect(address).unwrap());
    let answer = match name {
        // It has no upstream.
        "proxy" => {
            let error = client.read(&mut [0]).expect_err("it has accepted a client");
            return assert_eq!(error.kind(), ErrorKind::ConnectionReset, "{name}");
        }
        "graceful_shutdown" => &b"GET / HTTP/1.0\r\n\r\n".to_ascii_uppercase()[..],
        "http_server" => b"HTTP/1.1 200 OK",
        "resp_server" => b"-ERR wrong number of arguments for 'get' command\r\n",
        _ => b"GET / HTTP/1.0\r\n\r\n",
    };
    client.write_all(b"GET / HTTP/1.0\r\n\r\n").unwrap();
    let mut bytes = vec![0; answer.len()];
    client.read_exact(&mut bytes).unwrap_or_else(|error| panic!("{name}: {error}"));
    assert_eq!(bytes, answer, "{name}");
}

/// Children come and go: the process starts them repeatedly.
#[track_caller]
fn expect_restarts(id: u32) {
    for _ in 0..3 {
        let mut last = None;
        eventually("a command is started again", || {
            let newest = children_of(id).into_iter().max();
            newest.is_some() && last.replace(newest).is_some_and(|last| last != newest)
        });
    }
}

/// Sends the signal, and expects the program to end successfully.
#[track_caller]
fn expect_end(name: &str, program: Running, signal: Signal) {
    let (status, _) = program.stop(signal);
    assert_eq!(status.code(), Some(0), "{name} after {signal}: {status}");
}

/// Makes the program write this many lines, if it writes at all, and expects it to work after each, then to end.
#[track_caller]
fn expect_to_write_and_work(
    name: &str,
    program: Running,
    mut typing: UnixStream,
    address: &str,
    lines: usize,
) {
    for _ in 0..lines {
        if name == "graceful_shutdown" {
            program.signal(Signal::SIGHUP);
        }
        let _ = typing.write_all(b"0 tea\n");
        expect_at_work(name, program.id(), address);
    }
    expect_end(name, program, Signal::SIGTERM);
}

/// Starts the program with this stdout and stderr, and without input so far.
fn start(name: &str, args: &[&str], stdout: OwnedFd) -> (Running, UnixStream) {
    let (typing, input) = UnixStream::pair().unwrap();
    let mut command = Command::new(example(name));
    command.args(args).stdin(OwnedFd::from(input)).stderr(stdout.try_clone().unwrap());
    (Running::spawn_to(&mut command, stdout), typing)
}

#[test]
fn a_full_pipe_that_nobody_reads_stops_no_program() {
    // Side by side: each waits twice for two seconds, for its first line and its last.
    thread::scope(|scope| {
        for number in 0..=SERVERS.len() {
            scope.spawn(move || {
                let address = &own_address(10 + u8::try_from(number).unwrap());
                let (name, args) = programs(address).swap_remove(number);
                expect_to_work_over_a_pipe(name, &args, address, true);
                expect_to_work_over_a_pipe(name, &args, address, false);
            });
        }
    });
}

/// The pipe is full from the start, or the program has to fill it.
#[track_caller]
fn expect_to_work_over_a_pipe(name: &str, args: &[&str], address: &str, is_full: bool) {
    let (_reader, writer) = little_pipe(is_full);
    let (program, mut typing) = start(name, args, writer);
    expect_at_work(name, program.id(), address);
    // More than the pipe holds.
    if name == "graceful_shutdown" {
        for _ in 0..1_000 {
            program.signal(Signal::SIGHUP);
            thread::sleep(Duration::from_micros(200));
        }
    }
    if name == "async_runtime" {
        typing.write_all("0 some words for the pipe\n".repeat(1_000).as_bytes()).unwrap();
    }
    expect_at_work(name, program.id(), address);
    if name != "supervise" {
        program.expect_idle();
    }
    expect_end(name, program, Signal::SIGTERM);
}

/// As with `| head`.
#[test]
fn a_reader_that_leaves_ends_no_program() {
    let address = &own_address(2);
    for (name, args) in programs(address) {
        let (reader, writer) = pipe().unwrap();
        let (program, typing) = start(name, &args, writer);
        expect_at_work(name, program.id(), address);
        let closing = Closing::new();
        drop(reader);
        drop(closing);
        expect_to_write_and_work(name, program, typing, address, 3);
    }
}

/// A limit of the file's size, with its signal, stands in for a full disk.
#[test]
fn a_log_that_cannot_grow_ends_no_program() {
    let address = &own_address(3);
    let path = env::temp_dir().join(format!("pollio-test-log-{}", process::id()));
    for (name, args) in programs(address) {
        let log = File::create(&path).unwrap();
        let (typing, input) = UnixStream::pair().unwrap();
        let mut command = Command::new("prlimit");
        command.arg("--fsize=60").arg(example(name)).args(&args).stdin(OwnedFd::from(input));
        let program = Running::spawn_to(&mut command, log);
        expect_at_work(name, program.id(), address);
        expect_to_write_and_work(name, program, typing, address, 20);
        assert!(fs::read(&path).unwrap().len() <= 60);
    }
    fs::remove_file(&path).unwrap();
}

#[test]
fn signals_that_the_starter_has_blocked_end_it() {
    let address = &own_address(4);
    for (name, args) in programs(address) {
        for signal in [Signal::SIGINT, Signal::SIGTERM] {
            let (_typing, input) = UnixStream::pair().unwrap();
            let mut command = Command::new("env");
            command.arg("--block-signal=INT,TERM,HUP,CHLD").arg(example(name)).args(&args);
            let program = Running::spawn(command.stdin(OwnedFd::from(input)));
            expect_at_work(name, program.id(), address);
            expect_end(name, program, signal);
        }
    }
}

/// The kernel gives a process with the number 1 no signal that it has no handler for.
#[test]
#[ignore = "it makes a program process 1 of a namespace: as root"]
fn process_1_ends_when_it_is_asked_to() {
    let address = &own_address(5);
    for (name, args) in programs(address) {
        let (_typing, input) = UnixStream::pair().unwrap();
        let mut command = Command::new("unshare");
        command.args(["--pid", "--fork", "--kill-child"]).arg(example(name)).args(&args);
        let mut program = Running::spawn(command.stdin(OwnedFd::from(input)));
        let mut first = None;
        eventually("it runs", || {
            first = children_of(program.id()).pop();
            first.is_some()
        });
        let first = first.unwrap();
        expect_at_work(name, first, address);
        kill(Pid::from_raw(first.try_into().unwrap()), Signal::SIGTERM).unwrap();
        eventually(&format!("{name} ends"), || !program.is_running());
        assert_eq!(program.end().0.code(), Some(0), "{name}");
    }
}

/// A background job of a shell. It is killed when the test is done with it, or panics.
struct Job(u32);

impl Job {
    fn signal(&self, signal: Signal) {
        let _ = kill(Pid::from_raw(self.0.try_into().unwrap()), signal);
    }
}

impl Drop for Job {
    fn drop(&mut self) {
        self.signal(Signal::SIGKILL);
    }
}

/// A shell without job control gives its background processes no input, and makes them ignore Ctrl-C.
#[test]
fn a_program_works_in_the_background_of_a_script() {
    let address = &own_address(6);
    for (name, args) in programs(address) {
        let mut command = Command::new("sh");
        let job = "\"$0\" \"$@\" & echo $! >&2; wait";
        command.args(["-c", job]).arg(example(name)).args(&args);
        let (shell, id) = Running::spawn_with_complaints(&mut command);
        let job = Job(id.next_line().parse().unwrap());
        expect_at_work(name, job.0, address);
        thread::sleep(Duration::from_millis(100));
        expect_at_work(name, job.0, address);
        job.signal(Signal::SIGTERM);
        let (status, _) = shell.end();
        assert_eq!(status.code(), Some(0), "{name}: {status}");
    }
}

/// A program in the background is stopped when it reads from its terminal, and, if the terminal is set so, when it
/// writes to it.
#[test]
fn a_program_works_in_the_background_of_its_terminal() {
    let address = &own_address(7);
    for (name, args) in programs(address) {
        let terminal = openpty(None, None).unwrap();
        let mut settings = tcgetattr(&terminal.slave).unwrap();
        settings.local_flags |= LocalFlags::TOSTOP;
        tcsetattr(&terminal.slave, SetArg::TCSANOW, &settings).unwrap();
        let slave = || terminal.slave.try_clone().unwrap();
        // With job control, the input of a background process is the terminal.
        let job = "set -m; \"$0\" \"$@\" 2>&1 & echo $! >&2; wait";
        let mut command = Command::new("setsid");
        command.args(["--ctty", "sh", "-c", job]).arg(example(name)).args(&args).stdin(slave());
        let mut shell = Running::spawn_to(command.stderr(Stdio::piped()), slave());
        let job = Job(shell.complaints().next_line().parse().unwrap());
        expect_at_work(name, job.0, address);
        File::from(terminal.master.try_clone().unwrap()).write_all(b"0 tea\n").unwrap();
        thread::sleep(Duration::from_millis(100));
        expect_at_work(name, job.0, address);
        job.signal(Signal::SIGTERM);
        eventually("it is gone", || is_gone(job.0));
    }
}

/// The input ends at once.
#[test]
fn a_program_works_without_an_input() {
    let address = &own_address(8);
    for (name, args) in programs(address) {
        for input in ["</dev/null", "<&-"] {
            let mut command = Command::new("sh");
            let line = format!("exec \"$0\" \"$@\" {input}");
            let program =
                Running::spawn(command.args(["-c", &line]).arg(example(name)).args(&args));
            expect_at_work(name, program.id(), address);
            thread::sleep(Duration::from_millis(100));
            expect_at_work(name, program.id(), address);
            expect_end(name, program, Signal::SIGTERM);
        }
    }
}

/// The limit does not hold for root, so this runs as a user without other processes.
#[test]
fn a_program_that_can_have_no_thread_is_refused_before_it_listens() {
    for (name, args) in programs("127.0.0.1:0") {
        let (_typing, input) = UnixStream::pair().unwrap();
        let mut command = Command::new("prlimit");
        command.arg("--nproc=1").arg(example(name)).args(&args);
        command.stdin(OwnedFd::from(input)).stderr(Stdio::piped());
        if Uid::effective().is_root() {
            command.uid(2_718_281_828);
        }
        let output = output(&mut command);
        let (stdout, stderr) = (text(output.stdout), text(output.stderr));
        assert_eq!(output.status.code(), Some(1), "{name}: {stdout}{stderr}");
        assert_eq!(stdout, "", "{name}");
        assert!(stderr.starts_with(&format!("{name}: cannot ")), "{name}: {stderr}");
        let reason = "no thread can be had: Resource temporarily unavailable";
        assert!(stderr.contains(reason), "{name}: {stderr}");
        assert_eq!(stderr.lines().count(), 1, "{name}: {stderr}");
    }
}

/// From the lowest limit up, it is refused with the reason, or it serves.
#[test]
fn with_few_descriptors_a_program_is_refused_or_serves() {
    for (name, args) in programs("127.0.0.1:0").into_iter().take(SERVERS.len()) {
        let mut has_served = false;
        for limit in 3..24 {
            let (_typing, input) = UnixStream::pair().unwrap();
            let mut command = with_descriptors(name, limit);
            let (mut server, complaints) =
                Running::spawn_with_complaints(command.args(&args).stdin(OwnedFd::from(input)));
            let Some(line) = server.line_or_end() else {
                assert!(!has_served, "{name} is refused with {limit} descriptors");
                let line = complaints.next_line();
                let is_reason = line.starts_with(&format!("{name}: cannot "))
                    && line.contains("Too many open files")
                    || line.contains("cannot open shared object file");
                assert!(is_reason, "{name} with {limit} descriptors: {line}");
                continue;
            };
            expect_at_work(name, server.id(), line.strip_prefix("listening on ").expect(&line));
            has_served = true;
            assert!(server.is_running(), "{name} with {limit} descriptors");
        }
        assert!(has_served, "{name}");
    }
}

/// The kernel's probes find a peer that vanished.
#[test]
fn every_connection_that_stays_is_kept_alive_or_has_a_limit() {
    let upstream = TcpListener::bind("127.0.0.1:0").unwrap();
    let to_upstream = upstream.local_addr().unwrap().to_string();
    for name in
        ["async_runtime", "echo_server", "graceful_shutdown", "pool", "proxy", "resp_server"]
    {
        let args =
            if name == "proxy" { &["127.0.0.1:0", &*to_upstream][..] } else { &["127.0.0.1:0"] };
        let (_typing, input) = UnixStream::pair().unwrap();
        let mut command = Command::new(example(name));
        let server = Running::spawn(command.args(args).stdin(OwnedFd::from(input))).listening();
        let client = server.connect();
        eventually("the kernel is to probe the client", || {
            is_probed(server.address().port(), client.local_addr().unwrap().port())
        });
        if name == "proxy" {
            let (_, theirs) = upstream.accept().unwrap();
            let upstream = upstream.local_addr().unwrap().port();
            eventually("the kernel is to probe the upstream", || {
                is_probed(theirs.port(), upstream)
            });
        }
        assert!(text(output(Command::new(example(name)).arg("--help")).stdout).contains("vanish"));
    }
}

/// Whether a keepalive timer runs for the connection from one port to the other: see `proc_net_tcp`.
fn is_probed(from: u16, to: u16) -> bool {
    let (from, to) = (format!(":{from:04X}"), format!(":{to:04X}"));
    let table = fs::read_to_string("/proc/net/tcp").unwrap();
    table.lines().any(|line| {
        let fields: Vec<_> = line.split_whitespace().collect();
        let is_it = fields[1].ends_with(&from) && fields[2].ends_with(&to);
        // The kind of timer, and hundredths of a second until it goes off.
        is_it
            && fields[5].split_once(':').is_some_and(|(kind, left)| {
                kind == "02" && u64::from_str_radix(left, 16).unwrap() <= 60 * 100
            })
    })
}

fn text(bytes: Vec<u8>) -> String {
    String::from_utf8(bytes).unwrap()
}
