//! Arguments and output, which all examples treat alike.

use std::fs::File;
use std::io::{self, ErrorKind};
use std::net::{TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::Duration;

use nix::unistd::pipe;

use crate::linux::examples::supervise::children_of;
use crate::linux::support::example::{
    Running, eventually, example, expect_failure, expect_usage_error, with_descriptors,
};
use crate::support::subprocess::{self, Closing, output};

/// Each example, with arguments for a run without input and clients.
const PROGRAMS: [(&str, &[&str]); 8] = [
    ("async_runtime", &["127.0.0.1:0"]),
    ("echo_server", &["127.0.0.1:0"]),
    ("graceful_shutdown", &["127.0.0.1:0"]),
    ("http_server", &["127.0.0.1:0"]),
    ("pool", &["127.0.0.1:0"]),
    ("proxy", &["127.0.0.1:0", "127.0.0.1:1"]),
    ("resp_server", &["127.0.0.1:0"]),
    ("supervise", &["100000", "exec sleep 60"]),
];

/// The examples whose first argument is the address where they listen.
const SERVERS: [&str; 7] = [
    "async_runtime",
    "echo_server",
    "graceful_shutdown",
    "http_server",
    "pool",
    "proxy",
    "resp_server",
];

#[test]
fn help_says_what_a_program_does_and_how_to_use_it() {
    for (name, args) in PROGRAMS {
        let with_all = [args, &["--help"]].concat();
        for args in [&["--help"][..], &["-h"], &with_all] {
            let output = output(Command::new(example(name)).args(args));
            let (stdout, stderr) = (text(output.stdout), text(output.stderr));
            assert_eq!(output.status.code(), Some(0), "{name} {args:?}: {stderr}");
            assert_eq!(stderr, "", "{name} {args:?}");
            assert!(stdout.contains(&format!("\nUsage: {name} ")), "{name} {args:?}: {stdout}");
            assert!(stdout.contains("--help"), "{name} {args:?}: {stdout}");
            assert!(stdout.lines().all(|line| line.len() <= 100), "{name} {args:?}: {stdout}");
        }
    }
}

#[test]
fn an_argument_that_is_wrong_is_named() {
    for name in SERVERS {
        for address in ["here", "127.0.0.1", "127.0.0.1:66666", "127.0.0.1:", ":80", "", "80"] {
            let why = "not ADDRESS:PORT with a port of 0 to 65535";
            let complaint = format!("cannot parse argument {address:?}: {why}");
            expect_usage_error(name, &[address], &complaint);
        }
        expect_usage_error(name, &["--nonsense"], "invalid option '--nonsense'");
        expect_usage_error(name, &["-x", "127.0.0.1:0"], "invalid option '-x'");
    }
    expect_usage_error(
        "proxy",
        &["127.0.0.1:0", "there"],
        "cannot parse argument \"there\": not ADDRESS:PORT with a port of 0 to 65535",
    );
    for seconds in ["soon", "0", "-1", "1.5", ""] {
        let complaint =
            format!("cannot parse argument {seconds:?}: SECONDS is a whole number above 0");
        expect_usage_error("proxy", &["--timeout", seconds], &complaint);
    }
    for seconds in ["soon", "1.5", ""] {
        let complaint = format!("cannot parse argument {seconds:?}: SECONDS is a whole number");
        expect_usage_error("http_server", &["127.0.0.1:0", seconds], &complaint);
    }
    for seconds in ["", "soon", "NaN", "inf", "1e400", "sleep 3"] {
        let complaint =
            format!("cannot parse argument {seconds:?}: SECONDS is a number such as 0.5");
        expect_usage_error("supervise", &[seconds, "true"], &complaint);
    }
    expect_usage_error("supervise", &["-1", "true"], "invalid option '-1'");
    expect_usage_error("supervise", &["--nonsense"], "invalid option '--nonsense'");
}

#[test]
fn an_argument_that_is_missing_or_surplus_is_named() {
    expect_usage_error("proxy", &[], "LISTEN is missing");
    expect_usage_error("proxy", &["127.0.0.1:0"], "UPSTREAM is missing");
    expect_usage_error("proxy", &["--timeout"], "missing argument for option '--timeout'");
    expect_usage_error("supervise", &[], "SECONDS is missing");
    expect_usage_error("supervise", &["1"], "COMMAND is missing");
    for (name, args) in &PROGRAMS[..7] {
        // The last argument that the server accepts, and one more.
        let optional = if ["http_server", "pool"].contains(name) { &["10"][..] } else { &[] };
        let args = [args, optional, &["more"]].concat();
        expect_usage_error(name, &args, "unexpected argument \"more\"");
    }
    let complaint = "unexpected argument for option '--shared': \"yes\"";
    expect_usage_error("http_server", &["--shared=yes"], complaint);
}

#[test]
fn options_may_come_in_any_place() {
    for args in [&["127.0.0.1:0", "--shared"][..], &["127.0.0.1:0", "5", "--shared"]] {
        Running::start("http_server", args).listening();
    }
    Running::start("proxy", &["127.0.0.1:0", "--timeout", "7", "127.0.0.1:1"]).listening();
}

#[test]
fn a_server_listens_on_a_name() {
    for (name, args) in &PROGRAMS[..7] {
        let (_typing, input) = UnixStream::pair().unwrap();
        let mut command = Command::new(example(name));
        command.arg("localhost:0").args(&args[1..]).stdin(OwnedFd::from(input));
        let server = Running::spawn(&mut command).listening();
        assert!(server.address().ip().is_loopback(), "{name}: {}", server.address());
        if let Err(error) = TcpStream::connect(server.address()) {
            // The proxy has no upstream: the reset may come before the connect has returned.
            assert_eq!((*name, error.kind()), ("proxy", ErrorKind::ConnectionReset));
        }
    }
}

#[test]
fn an_address_that_cannot_be_served_is_an_error_in_one_line() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let taken = &*taken.local_addr().unwrap().to_string();
    let nobody = "no-such-name.invalid:80";
    for (name, args) in &PROGRAMS[..7] {
        for (address, reason) in [(taken, "Address already in use"), (nobody, "failed to lookup")] {
            let complaint = match *name {
                "proxy" => format!("cannot pass {address} on to 127.0.0.1:1: {reason}"),
                _ => format!("cannot serve {address}: {reason}"),
            };
            expect_failure(name, &[&[address], &args[1..]].concat(), &complaint);
        }
    }
    let complaint = format!("cannot pass 127.0.0.1:0 on to {nobody}: failed to lookup");
    expect_failure("proxy", &["127.0.0.1:0", nobody], &complaint);
}

/// As with `| head`. A reader that leaves later ends no program.
#[test]
fn a_program_whose_first_line_nobody_reads_ends_quietly() {
    for (name, args) in PROGRAMS {
        for args in [&["--help"][..], args] {
            let program = spawn(Command::new(example(name)).args(args).stdout(unread_pipe()));
            expect_quiet_end(name, program);
        }
        // It does not panic either if standard error has no reader.
        let mut command = Command::new(example(name));
        let status =
            subprocess::spawn(command.arg("--nonsense").stderr(unread_pipe()).stdin(Stdio::null()))
                .wait();
        assert_eq!(status.unwrap().code(), Some(2), "{name}");
    }
}

#[test]
fn a_program_runs_without_a_standard_output() {
    for (name, args) in PROGRAMS {
        let without = |args: &[&str]| {
            let mut shell = Command::new("sh");
            shell.args(["-c", "exec \"$0\" \"$@\" >&-"]).arg(example(name)).args(args);
            shell
        };
        assert_eq!(output(&mut without(&["--help"])).status.code(), Some(0), "{name}");

        // It listens, though it cannot say where: no other test uses this address.
        let address = "127.77.0.1:7777";
        let (_typing, input) = UnixStream::pair().unwrap();
        let is_server = SERVERS.contains(&name);
        let args = if is_server { &[&[address], &args[1..]].concat() } else { args };
        let mut program = Running::spawn(without(args).stdin(OwnedFd::from(input)));
        if is_server {
            eventually("it listens", || TcpStream::connect(address).is_ok());
        } else {
            eventually("the command runs", || !children_of(program.id()).is_empty());
        }
        assert!(program.is_running(), "{name}");
    }
}

/// An error of the first line that is not a closed pipe.
#[test]
fn an_output_that_is_full_at_the_start_is_an_error() {
    for (name, args) in PROGRAMS {
        let full = File::options().write(true).open("/dev/full").unwrap();
        let mut command = Command::new(example(name));
        let output = subprocess::spawn(
            command.args(args).stdin(Stdio::null()).stdout(full).stderr(Stdio::piped()),
        )
        .wait_with_output()
        .unwrap();
        let stderr = text(output.stderr);
        assert_eq!(output.status.code(), Some(1), "{name}: {stderr}");
        assert!(stderr.contains("No space left on device"), "{name}: {stderr}");
    }
}

/// Clients wait for a descriptor several times.
#[test]
fn the_reason_why_a_client_is_not_served_is_printed_once() {
    for (name, args) in &PROGRAMS[..7] {
        let upstream = TcpListener::bind("127.0.0.1:0").unwrap();
        let upstream = upstream.local_addr().unwrap().to_string();
        let args = if *name == "proxy" { &["127.0.0.1:0", &*upstream][..] } else { args };
        let (_typing, input) = UnixStream::pair().unwrap();
        let mut command = with_descriptors(name, 40);
        let (server, complaints) =
            Running::spawn_with_complaints(command.args(args).stdin(OwnedFd::from(input)));
        let server = server.listening();

        let clients: Vec<_> = (0..80).map(|_| server.connect()).collect();
        let complaint = format!("{name}: a client was not served: Too many open files");
        assert!(complaints.next_line().starts_with(&complaint), "{name}");
        for client in clients {
            drop(client);
            // Lets the next client in, so that those after it are refused again.
            thread::sleep(Duration::from_millis(2));
        }
        complaints.expect_no_more(server);
    }
}

/// A child that is killed when it is dropped.
struct Program(Child);

impl Drop for Program {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn spawn(command: &mut Command) -> Program {
    // A user may type indefinitely.
    Program(subprocess::spawn(command.stderr(Stdio::piped())))
}

/// The writing end of a pipe without a reader.
fn unread_pipe() -> OwnedFd {
    let _closing = Closing::new();
    pipe().unwrap().1
}

#[track_caller]
fn expect_quiet_end(name: &str, mut program: Program) {
    eventually(&format!("{name} ends"), || program.0.try_wait().unwrap().is_some());
    let stderr = io::read_to_string(program.0.stderr.take().unwrap()).unwrap();
    assert_eq!(stderr, "", "{name}");
    assert_eq!(program.0.wait().unwrap().code(), Some(0), "{name}");
}

fn text(bytes: Vec<u8>) -> String {
    String::from_utf8(bytes).unwrap()
}
