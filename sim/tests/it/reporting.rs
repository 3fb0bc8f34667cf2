//! The output for a failing seed.

use std::backtrace::Backtrace;
use std::env;
use std::io::{self, Read, Write};
use std::os::fd::AsRawFd;
use std::process::Command;
use std::time::Duration;

use pollio::{EventKind, EventObject, Mode, Poller};
use pollio_sim::net::{TcpListener, TcpStream};
use pollio_sim::sync::{Arc, Condvar, Mutex, mpsc};
use pollio_sim::{Conditions, SimPoller, World, thread};

use super::world::{failure, run};

const SECOND: Duration = Duration::from_secs(1);
const ADDRESS: &str = "10.0.0.1:7";

/// Runs a test of this file that fails, in a process of its own. Returns its standard error.
fn stderr_of(test: &str, variables: &[(&str, &str)]) -> String {
    let mut command = Command::new(env::current_exe().unwrap());
    command.args(["--nocapture", "--exact", &format!("reporting::{test}")]);
    let output = command.envs(variables.iter().copied()).env(FAILS, "1").output().unwrap();
    assert!(!output.status.success());
    String::from_utf8(output.stderr).unwrap()
}

const FAILS: &str = "POLLIO_TEST_FAILS";

fn a_thread_panics(_: &World) -> io::Result<()> {
    let queue = Arc::new(Mutex::new(vec![1_u8]));
    let taken = queue.clone();
    thread::spawn(move || {
        let value = taken.lock().unwrap().pop();
        assert_eq!(value, Some(2), "the wrong one");
    });
    thread::sleep(SECOND);
    Ok(())
}

/// The cause comes first, then the last lines of the trace, then the command that runs the seed alone, with no
/// backtrace before them.
#[test]
fn a_failure_begins_with_its_seed_and_its_cause() {
    if env::var_os(FAILS).is_some() {
        return pollio_sim::check(10, a_thread_panics);
    }
    let backtrace = ("RUST_BACKTRACE", "1");
    let stderr = stderr_of("a_failure_begins_with_its_seed_and_its_cause", &[backtrace]);
    let place = |text: &str| stderr.find(text).unwrap_or_else(|| panic!("no {text} in {stderr}"));
    let cause = place("seed 0 fails: thread `thread` panicked: assertion");
    assert!(stderr[..cause].lines().count() <= 3, "{stderr}");
    assert!(cause < place("the wrong one"));
    assert!(stderr[cause..].contains("reporting.rs:"), "{stderr}");
    let lines = place("lock Mutex<Vec<u8>>");
    assert!(cause < lines && lines < place("POLLIO_SEED=0 cargo test"), "{stderr}");
    assert!(!stderr.contains("a_thread_panics::"), "{stderr}");
    // A standard library that was built without backtraces says `Captured` all the same, but has no names.
    if !Backtrace::force_capture().to_string().contains("reporting::") {
        println!("NOT RUN: what concerns backtraces, which this standard library cannot make");
        return;
    }
    assert!(place("POLLIO_SEED=0 cargo test") < place("stack backtrace:"), "{stderr}");
    // There are no backtraces of three runs and of all threads.
    assert_eq!(stderr.matches("stack backtrace:").count(), 1);

    // Run alone, it has the backtrace of the thread that panicked, after its trace.
    let alone = [backtrace, ("POLLIO_SEED", "0")];
    let stderr = stderr_of("a_failure_begins_with_its_seed_and_its_cause", &alone);
    let place = |text: &str| stderr.find(text).unwrap_or_else(|| panic!("no {text} in {stderr}"));
    let cause = place("seed 0 fails: ");
    assert!(place("lock Mutex<Vec<u8>>") < cause && cause < place("a_thread_panics::"), "{stderr}");
}

/// A program that catches its own panic continues.
#[test]
fn a_panic_that_is_caught_fails_nothing() {
    run(0, |_| {
        assert!(std::panic::catch_unwind(|| panic!("of a handler")).is_err());
        Ok(())
    });
}

#[test]
fn the_trace_has_locks_queues_and_notifications() {
    let outcome = run(0, |world| {
        world.set_conditions(Conditions::calm());
        let shared = Arc::new((Mutex::new(Vec::<u8>::new()), Condvar::new()));
        let (sender, receiver) = mpsc::channel::<u32>();
        let other = shared.clone();
        let thread = world.spawn("other", move || {
            thread::sleep(SECOND);
            other.0.lock().unwrap().push(1);
            other.1.notify_one();
            sender.send(2).unwrap();
        });
        let guard = shared.0.lock().unwrap();
        drop(shared.1.wait_while(guard, |values| values.is_empty()).unwrap());
        assert_eq!(receiver.recv(), Ok(2));
        receiver.recv().unwrap_err();
        thread.join().unwrap();
        Ok(())
    });
    let position = |line: &str| {
        let position = outcome.trace.iter().position(|traced| traced.ends_with(line));
        position.unwrap_or_else(|| panic!("no {line} in {:#?}", outcome.trace))
    };
    let lines = [
        "main         lock Mutex<Vec<u8>>",
        "main         unlock Mutex<Vec<u8>> and wait to be notified",
        "other        lock Mutex<Vec<u8>>",
        "other        notify one",
        "other        send to a queue of u32",
    ];
    assert!(lines.iter().map(|line| position(line)).is_sorted(), "{:#?}", outcome.trace);
    assert!(position(lines[4]) < position("main         receive from a queue of u32"));
    position("main         find the senders gone of a queue of u32");
}

#[test]
fn the_trace_names_sockets_by_their_addresses() {
    let outcome = run(0, |world| {
        world.set_conditions(Conditions::calm());
        let listener = TcpListener::bind(ADDRESS)?;
        let mut poller = SimPoller::new()?;
        poller.add(EventObject::server(listener.as_raw_fd()))?;
        let mut client = TcpStream::connect(ADDRESS)?;
        poller.wait(-1)?;
        let (mut server, _) = listener.accept()?;
        client.write_all(b"hello")?;
        server.read_exact(&mut [0; 5])?;
        Ok(())
    });
    let text = outcome.trace.join("\n");
    for line in [
        "add listener 10.0.0.1:7 for Interest(READABLE)",
        "wait returns listener 10.0.0.1:7 Readiness(READABLE)",
        "accept listener 10.0.0.1:7 gives 10.0.0.1:7 to 10.0.0.1:49152",
        "write 10.0.0.1:49152 to 10.0.0.1:7 takes 5 of 5",
        "read 10.0.0.1:7 to 10.0.0.1:49152 gives 5",
        "close 10.0.0.1:49152 to 10.0.0.1:7",
    ] {
        assert!(text.contains(line), "no {line} in {text}");
    }
    assert!(!text.contains("10485"), "{text}");
}

/// Closes a client that is silent for a minute, and loses an edge: it reads once for each.
fn serve_with_an_idle_timeout() -> io::Result<()> {
    let listener = TcpListener::bind(ADDRESS)?;
    let mut poller = SimPoller::new()?;
    let registry = poller.registry().clone();
    registry.add(EventObject::server(listener.as_raw_fd()))?;
    let mut clients = Vec::new();
    loop {
        let events = poller.wait_timeout(Some(60 * SECOND))?;
        if events.is_empty() {
            clients.clear();
        }
        for event in events {
            if event.kind == EventKind::Server {
                let (stream, _) = listener.accept()?;
                stream.set_nonblocking(true)?;
                let object = EventObject::client(stream.as_raw_fd()).with_mode(Mode::Edge);
                registry.add(object)?;
                clients.push(stream);
            } else if let Some(stream) = clients.iter_mut().find(|s| s.as_raw_fd() == event.fd) {
                let mut buffer = [0; 4];
                let count = stream.read(&mut buffer)?;
                stream.write_all(&buffer[..count])?;
            }
        }
    }
}

/// A timeout of the program hides a hang, and fails later in another way; patience finds the hang itself.
#[test]
fn patience_finds_a_lost_edge_behind_an_idle_timeout() {
    let ask = |patience: Option<Duration>| {
        move |world: &World| {
            world.set_conditions(Conditions::calm());
            patience.into_iter().for_each(|patience| world.set_patience(patience));
            world.spawn("server", || serve_with_an_idle_timeout().unwrap());
            thread::sleep(SECOND);
            let mut client = TcpStream::connect(ADDRESS)?;
            client.write_all(b"asked")?;
            client.read_exact(&mut [0; 5])
        }
    };
    let without = World::run(0, ask(None));
    assert!(without.failure.unwrap().contains("returned an error"));
    assert!(without.elapsed > 60 * SECOND);

    let with = World::run(0, ask(Some(5 * SECOND)));
    let why = with.failure.unwrap();
    assert!(why.contains("1 bytes to read has waited for 5s"), "{why}");
    assert!(with.elapsed < 10 * SECOND);
}

/// A world without a run has no threads, and names the call that has.
#[test]
fn a_thread_in_a_world_without_threads_is_refused() {
    let spawn = || SimPoller::with_seed(0).world().spawn("never", || ());
    let why = std::panic::catch_unwind(|| drop(spawn())).unwrap_err();
    let why = *why.downcast::<&str>().unwrap();
    assert!(why.contains("no threads") && why.contains("World::run"), "{why}");
    // A world in a run has threads.
    assert_eq!(
        failure(0, |_| thread::spawn(|| Err(io::ErrorKind::Other.into())).join().unwrap()),
        "it returned an error: other error"
    );
}
