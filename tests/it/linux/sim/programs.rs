//! The examples over simulated sockets, in thousands of worlds, and their mutants, each with the number of seeds that
//! find it.

#[allow(clippy::all, reason = "written by build.rs")]
mod written {
    include!(concat!(env!("OUT_DIR"), "/programs.rs"));

    pub(super) fn programs() -> [(&'static str, super::Start); 11] {
        [
            ("echo_server", echo_server::start),
            ("proxy", proxy::start),
            ("http_server", http_server::start),
            ("http_server_shared", http_server_shared::start),
            ("async_runtime", async_runtime::start),
            ("graceful_shutdown", graceful_shutdown::start),
            ("resp_server", resp_server::start),
            ("idle_server", idle_server::start),
            ("idle_server_before", idle_server_before::start),
            ("proxy_before", proxy_before::start),
            ("resolver", resolver::start),
        ]
    }
}

use std::env;
use std::io::{self, ErrorKind, Read, Write};
use std::panic;
use std::sync::atomic::AtomicU32;
use std::sync::atomic::Ordering::SeqCst;
use std::time::{Duration, Instant};

use nix::sys::resource::{UsageWho, getrusage};
use pollio_sim::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use pollio_sim::signal_hook::consts::SIGTERM;
use pollio_sim::socket2::{Domain, SockRef, Socket, Type};
use pollio_sim::{self as sim, Conditions, Kernel, World, thread};

use crate::linux::support::random::Random;

type Start = fn() -> io::Result<()>;

const ADDRESS: &str = "10.0.0.1:7";
const UPSTREAM: &str = "10.0.0.2:7";
const SECOND: Duration = Duration::from_secs(1);

/// Longer than every stall and every wait of a program taken together.
const LONG: Duration = Duration::from_secs(1_000);

/// The longest wait of a client that could be served.
const PATIENCE: Duration = Duration::from_secs(5);

/// How many seeds each program has in `cargo test`: a thousand on each kernel.
fn seeds() -> u64 {
    env::var("POLLIO_SEEDS").map_or(6_000, |seeds| seeds.parse().unwrap())
}

/// In place of the standard input, for `async_runtime`.
pub(crate) fn stdin() -> Stdin {
    Stdin
}

pub(crate) struct Stdin;

impl Stdin {
    pub(crate) fn lock(self) -> Self {
        self
    }

    pub(crate) fn split(self, _separator: u8) -> impl Iterator<Item = io::Result<Vec<u8>>> {
        ["1500 tea", "250 milk", "end"].into_iter().filter_map(|line| {
            thread::sleep(if line == "end" { 2 * LONG } else { SECOND });
            (line != "end").then(|| Ok(line.into()))
        })
    }
}

/// In place of a set of signals. Setting the mask has no effect.
pub(crate) struct SigSet;

impl SigSet {
    pub(crate) fn all() -> Self {
        Self
    }

    pub(crate) fn empty() -> Self {
        Self
    }

    pub(crate) fn thread_block(&self) -> io::Result<()> {
        Ok(())
    }

    pub(crate) fn thread_set_mask(&self) -> io::Result<()> {
        Ok(())
    }
}

fn random(world: &World) -> Random {
    Random::new(usize::try_from(world.seed()).unwrap())
}

fn connect() -> io::Result<TcpStream> {
    let stream = TcpStream::connect(ADDRESS)?;
    stream.set_read_timeout(Some(LONG))?;
    Ok(stream)
}

/// Sends and receives at once, and compares.
fn echo(data: Vec<u8>) -> io::Result<()> {
    let mut stream = connect()?;
    let (mut writer, sent) = (stream.try_clone()?, data.clone());
    let writing = thread::spawn(move || {
        writer.write_all(&sent)?;
        writer.shutdown(Shutdown::Write)
    });
    let mut back = Vec::new();
    let end = stream.read_to_end(&mut back);
    writing.join().unwrap()?;
    end?;
    assert!(back == data, "{} bytes came back of {}", back.len(), data.len());
    Ok(())
}

/// Some clients of an echo server, each in a thread.
fn echo_clients(world: &World) {
    let mut random = random(world);
    let clients: Vec<_> = (0..1 + random.below(3))
        .map(|number| {
            let size = random.size().min(20_000);
            let data = random.bytes(size);
            world.spawn(&format!("client {number}"), move || echo(data).unwrap())
        })
        .collect();
    clients.into_iter().for_each(|client| client.join().unwrap());
}

fn echo_server(start: Start, world: &World) -> io::Result<()> {
    match random(world).below(16) {
        0 => return bulk(start, world),
        1..4 => return resets(start, world),
        _ => {}
    }
    world.set_patience(PATIENCE);
    let server = world.spawn("server", start);
    thread::sleep(SECOND);
    // A client that begins and breaks off.
    let mut guest = connect()?;
    guest.write_all(b"hello")?;
    SockRef::from(&guest).set_linger(Some(Duration::ZERO))?;
    drop(guest);
    echo_clients(world);
    world.raise(SIGTERM);
    server.join().unwrap()
}

/// A client sends more at once than its fair share.
fn bulk(start: Start, world: &World) -> io::Result<()> {
    world.set_conditions(Conditions::calm().with_buffer(1 << 20..=1 << 20));
    world.set_patience(PATIENCE);
    let server = world.spawn("server", start);
    thread::sleep(SECOND);
    echo(vec![7; 600_000])?;
    world.raise(SIGTERM);
    server.join().unwrap()
}

/// Connections break, and clients try again.
fn resets(start: Start, world: &World) -> io::Result<()> {
    world.set_conditions(Conditions::default().with_resets(true).with_stalls(false));
    world.set_patience(PATIENCE);
    let server = world.spawn("server", start);
    thread::sleep(SECOND);
    let mut random = random(world);
    let clients: Vec<_> = (0..3)
        .map(|number| {
            let size = random.below(2_000);
            let data = random.bytes(size);
            world.spawn(&format!("client {number}"), move || {
                // No more faults than that.
                assert!((0..20).any(|_| echo(data.clone()).is_ok()), "every try was broken off");
            })
        })
        .collect();
    clients.into_iter().for_each(|client| client.join().unwrap());
    world.raise(SIGTERM);
    server.join().unwrap()
}

fn async_runtime(start: Start, world: &World) -> io::Result<()> {
    world.set_patience(PATIENCE);
    let server = world.spawn("server", start);
    thread::sleep(SECOND);
    echo_clients(world);
    server.join().unwrap()?;
    assert!(world.elapsed() < 3 * LONG, "it ended after {:?}", world.elapsed());
    Ok(())
}

/// Answers with the request, and half-closes.
fn upstream(mut stream: TcpStream) -> io::Result<()> {
    let mut buffer = [0; 3_000];
    while let count @ 1.. = stream.read(&mut buffer)? {
        stream.write_all(&buffer[..count])?;
    }
    stream.shutdown(Shutdown::Write)
}

/// Answers, and resets the connection.
fn rude_upstream(mut stream: TcpStream, answer: &[u8]) -> io::Result<()> {
    stream.read_exact(&mut [0; 4])?;
    stream.write_all(answer)?;
    // By now the proxy has all of it.
    thread::sleep(SECOND / 2);
    SockRef::from(&stream).set_linger(Some(Duration::ZERO))
}

fn proxy(start: Start, world: &World) -> io::Result<()> {
    match random(world).below(4) {
        0 => stopped_proxy(start, world),
        1 => rude_proxy(start, world),
        _ => polite_proxy(start, world),
    }
}

/// Everything stops for a while, as on a suspended machine: the arrivals and deadlines of that time come at once, and a
/// wait reports only a few of them.
fn stop(world: &World, after: Duration, length: Duration) {
    let batch = 1 + random(world).below(4);
    world.schedule(after, move |world| {
        world.set_batch(batch);
        world.advance(length);
    });
}

/// It stops while the answers of upstreams are under way to it.
fn stopped_proxy(start: Start, world: &World) -> io::Result<()> {
    let latency = Duration::from_millis(50);
    world.set_conditions(Conditions::calm().with_latency(latency..=latency));
    world.spawn("upstream", || {
        let listener = TcpListener::bind(UPSTREAM).unwrap();
        for stream in listener.incoming() {
            let stream = stream.unwrap();
            thread::spawn(move || upstream(stream).unwrap());
        }
    });
    world.spawn("proxy", move || start().unwrap());
    thread::sleep(SECOND);
    // The proxy accepts a client after three of them, and connects to the upstream after one more.
    stop(world, 4 * latency + random_time(world, 50), 10 * SECOND);
    let clients: Vec<_> = (0..5)
        .map(|number| world.spawn(&format!("client {number}"), || echo(vec![7; 1_000]).unwrap()))
        .collect();
    clients.into_iter().for_each(|client| client.join().unwrap());
    Ok(())
}

/// Up to so many milliseconds, and at least a microsecond.
fn random_time(world: &World, most_ms: usize) -> Duration {
    Duration::from_micros(1 + random(world).below(1_000 * most_ms - 1) as u64)
}

fn polite_proxy(start: Start, world: &World) -> io::Result<()> {
    world.set_patience(PATIENCE);
    world.spawn("upstream", || {
        let listener = TcpListener::bind(UPSTREAM).unwrap();
        for stream in listener.incoming() {
            // As a fault, the last accept may have found no descriptor.
            let Ok(stream) = stream else { continue };
            thread::spawn(move || upstream(stream).unwrap());
        }
    });
    world.spawn("proxy", move || start().unwrap());
    thread::sleep(SECOND);
    echo_clients(world);
    Ok(())
}

fn rude_proxy(start: Start, world: &World) -> io::Result<()> {
    let latency = Duration::from_micros(1)..=Duration::from_millis(10);
    let buffer = 512..=1 << 16;
    let bandwidth = 1 << 20..=1 << 30;
    world.set_conditions(
        Conditions::calm().with_latency(latency).with_buffer(buffer).with_bandwidth(bandwidth),
    );
    let answer = random(world).bytes(5_000);
    let expected = answer.clone();
    world.spawn("upstream", move || {
        let listener = TcpListener::bind(UPSTREAM).unwrap();
        for stream in listener.incoming() {
            rude_upstream(stream.unwrap(), &answer).unwrap();
        }
    });
    world.spawn("proxy", move || start().unwrap());
    thread::sleep(SECOND);
    let mut client = connect()?;
    client.write_all(b"ask!")?;
    // It may be slow, within the time that the proxy allows.
    thread::sleep(SECOND);
    let mut taken = Vec::new();
    let end = client.read_to_end(&mut taken);
    assert!(taken == expected, "{} bytes of {}, then {end:?}", taken.len(), expected.len());
    Ok(())
}

fn http_server(start: Start, world: &World) -> io::Result<()> {
    if random(world).below(4) == 0 {
        return stopped_http_server(start, world);
    }
    // It closes a client after ten seconds of silence, and a stall counts as silence.
    world.set_conditions(Conditions::default().with_stalls(false));
    world.set_patience(PATIENCE);
    world.spawn("server", move || start().unwrap());
    thread::sleep(SECOND);
    let silent = world.spawn("silent client", || {
        let mut silent = connect()?;
        let begin = sim::time::Instant::now();
        let count = silent.read(&mut [0])?;
        assert!(count == 0 && begin.elapsed() > 9 * SECOND, "closed after {:?}", begin.elapsed());
        assert!(begin.elapsed() < 40 * SECOND, "closed after {:?}", begin.elapsed());
        io::Result::Ok(())
    });
    let mut random = random(world);
    let clients: Vec<_> = (0..1 + random.below(3))
        .map(|number| {
            let count = 1 + random.below(20);
            world.spawn(&format!("client {number}"), move || ask(count).unwrap())
        })
        .collect();
    clients.into_iter().for_each(|client| client.join().unwrap());
    silent.join().unwrap()
}

const HTTP_ANSWER: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 16\r\n\
    Connection: keep-alive\r\n\r\nYou asked for /\n";

/// It stops for longer than the time that its clients may be silent, while their requests are under way.
fn stopped_http_server(start: Start, world: &World) -> io::Result<()> {
    let latency = Duration::from_millis(10)..=Duration::from_millis(100);
    world.set_conditions(Conditions::calm().with_latency(latency));
    world.spawn("server", move || start().unwrap());
    thread::sleep(SECOND);
    let begin = sim::time::Instant::now();
    let clients: Vec<_> = (0..5)
        .map(|number| {
            world.spawn(&format!("client {number}"), move || {
                let mut stream = connect()?;
                for at in [SECOND, 4 * SECOND] {
                    thread::sleep(at.saturating_sub(begin.elapsed()));
                    stream.write_all(b"GET / HTTP/1.1\r\nHost: sim\r\n\r\n")?;
                    let mut answer = [0; HTTP_ANSWER.len()];
                    stream.read_exact(&mut answer)?;
                    assert_eq!(
                        answer.escape_ascii().to_string(),
                        HTTP_ANSWER.escape_ascii().to_string()
                    );
                }
                io::Result::Ok(())
            })
        })
        .collect();
    // By then, their second requests are written.
    stop(world, 4 * SECOND + random_time(world, 50), 15 * SECOND);
    clients.into_iter().try_for_each(|client| client.join().unwrap())
}

/// Sends `count` requests, and closes with the last answer.
fn ask(count: usize) -> io::Result<()> {
    let mut stream = connect()?;
    let mut writer = stream.try_clone()?;
    let writing = thread::spawn(move || {
        for number in 0..count {
            let end = if number + 1 == count { "Connection: close\r\n" } else { "" };
            write!(writer, "GET /{number} HTTP/1.1\r\nHost: sim\r\n{end}\r\n")?;
        }
        io::Result::Ok(())
    });
    let mut text = String::new();
    stream.read_to_string(&mut text)?;
    for number in 0..count {
        let answer = format!("/{number}\n");
        assert!(text.contains(&answer), "no answer {number} of {count} in {text:?}");
    }
    assert_eq!(text.matches("200 OK").count(), count);
    writing.join().unwrap()
}

fn graceful_shutdown(start: Start, world: &World) -> io::Result<()> {
    if random(world).below(4) == 0 {
        return stopped_graceful_shutdown(start, world);
    }
    let latency = Duration::from_micros(1)..=Duration::from_millis(1);
    let bandwidth = 1 << 20..=1 << 30;
    world.set_conditions(
        Conditions::default().with_latency(latency).with_bandwidth(bandwidth).with_stalls(false),
    );
    world.set_patience(PATIENCE);
    let server = world.spawn("server", start);
    thread::sleep(SECOND);
    let clients: Vec<_> = (0..1 + random(world).below(4))
        .map(|number| {
            world.spawn(&format!("client {number}"), || write_then_read(1_000, || 5 * SECOND))
        })
        .collect();
    thread::sleep(4 * SECOND);
    world.raise(SIGTERM);
    let begin = sim::time::Instant::now();
    server.join().unwrap()?;
    assert!(begin.elapsed() < 4 * SECOND, "it ended after {:?}", begin.elapsed());
    clients.into_iter().try_for_each(|client| client.join().unwrap())?;
    let error = TcpStream::connect(ADDRESS).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::ConnectionRefused);
    Ok(())
}

/// A client that writes `count` bytes and reads their answer to its end, with a pause in between.
fn write_then_read(count: usize, pause: impl FnOnce() -> Duration) -> io::Result<()> {
    let mut stream = connect()?;
    stream.write_all(&vec![b'a'; count])?;
    thread::sleep(pause());
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer)?;
    assert!(answer == vec![b'A'; count], "an answer of {} bytes", answer.len());
    Ok(())
}

/// It stops until the time to finish is over, while its clients receive until their buffers are full.
fn stopped_graceful_shutdown(start: Start, world: &World) -> io::Result<()> {
    let latency = Duration::from_millis(10)..=Duration::from_millis(100);
    world.set_conditions(Conditions::calm().with_latency(latency).with_buffer(2_048..=2_048));
    let server = world.spawn("server", start);
    thread::sleep(SECOND);
    let begin = sim::time::Instant::now();
    let clients: Vec<_> = (0..5)
        .map(|number| {
            world.spawn(&format!("client {number}"), move || {
                write_then_read(3_000, || (3 * SECOND).saturating_sub(begin.elapsed()))
            })
        })
        .collect();
    thread::sleep(2 * SECOND);
    world.raise(SIGTERM);
    // By then, they have read.
    stop(world, SECOND + random_time(world, 10), 5 * SECOND);
    server.join().unwrap()?;
    clients.into_iter().try_for_each(|client| client.join().unwrap())
}

fn resp_server(start: Start, world: &World) -> io::Result<()> {
    world.set_patience(PATIENCE);
    let server = world.spawn("server", start);
    thread::sleep(SECOND);
    // A client that breaks off within a command.
    let mut guest = connect()?;
    guest.write_all(b"*2\r\n$3\r\nGET\r\n$1")?;
    SockRef::from(&guest).set_linger(Some(Duration::ZERO))?;
    drop(guest);
    let mut random = random(world);
    let clients: Vec<_> = (0..1 + random.below(3))
        .map(|number| {
            let (commands, answers) = conversation(&mut random, number);
            world.spawn(&format!("client {number}"), move || converse(commands, &answers).unwrap())
        })
        .collect();
    clients.into_iter().for_each(|client| client.join().unwrap());
    world.raise(SIGTERM);
    server.join().unwrap()
}

/// Commands of a client with keys of its own, and their answers, which are longer.
fn conversation(random: &mut Random, client: usize) -> (Vec<u8>, Vec<u8>) {
    let (mut commands, mut answers) = (String::new(), String::new());
    let (mut value, mut count) = (String::from("$-1\r\n"), 0);
    for _ in 0..1 + random.below(20) {
        match random.below(3) {
            0 => {
                let size = random.size().min(10_000);
                let text = "v".repeat(size);
                value = format!("${size}\r\n{text}\r\n");
                commands += &format!("*3\r\n$3\r\nSET\r\n$1\r\n{client}\r\n{value}");
                answers += "+OK\r\n";
            }
            1 => {
                count += 1;
                commands += &format!("INCR n{client}\r\n");
                answers += &format!(":{count}\r\n");
            }
            _ => {
                let often = random.below(20);
                commands += &format!("GET {client}\r\n").repeat(often);
                answers += &value.repeat(often);
            }
        }
    }
    (commands.into(), answers.into())
}

/// Sends and receives at once.
fn converse(commands: Vec<u8>, answers: &[u8]) -> io::Result<()> {
    let mut stream = connect()?;
    let mut writer = stream.try_clone()?;
    let writing = thread::spawn(move || {
        writer.write_all(&commands)?;
        writer.shutdown(Shutdown::Write)
    });
    let mut received = Vec::new();
    let end = stream.read_to_end(&mut received);
    writing.join().unwrap()?;
    end?;
    assert!(received == answers, "{} bytes of answers, not {}", received.len(), answers.len());
    Ok(())
}

fn idle_server(start: Start, world: &World) -> io::Result<()> {
    world.set_conditions(Conditions::calm());
    world.spawn("server", move || start().unwrap());
    thread::sleep(SECOND);
    let mut random = random(world);
    let clients: Vec<_> = (0..3)
        .map(|number| {
            let pauses: Vec<_> = (0..random.below(6)).map(|_| random.below(50) as u64).collect();
            world.spawn(&format!("client {number}"), move || {
                let mut stream = connect()?;
                for pause in pauses {
                    thread::sleep(Duration::from_secs(pause));
                    stream.write_all(b"I am here")?;
                }
                let last = sim::time::Instant::now();
                stream.read_to_end(&mut Vec::new())?;
                let silence = last.elapsed();
                assert!(silence > 59 * SECOND && silence < 61 * SECOND, "closed after {silence:?}");
                io::Result::Ok(())
            })
        })
        .collect();
    clients.into_iter().try_for_each(|client| client.join().unwrap())
}

/// It has its own server and its own checks.
fn resolver(start: Start, _: &World) -> io::Result<()> {
    start()
}

/// The clients of a program, by its name.
fn scenario(program: &str) -> fn(Start, &World) -> io::Result<()> {
    match program.trim_end_matches("_before") {
        "echo_server" => echo_server,
        "proxy" => proxy,
        "http_server" | "http_server_shared" => http_server,
        "async_runtime" => async_runtime,
        "graceful_shutdown" => graceful_shutdown,
        "resp_server" => resp_server,
        "idle_server" => idle_server,
        "resolver" => resolver,
        _ => panic!("{program} has no clients"),
    }
}

/// The function that starts a program, by its name.
fn start_of(name: &str) -> Start {
    written::programs().into_iter().find(|program| program.0 == name).unwrap().1
}

fn check_stopped(name: &str, scenario: fn(Start, &World) -> io::Result<()>) {
    let start = start_of(name);
    sim::check_on(Kernel::ALL, seeds(), move |world| scenario(start, world));
}

#[test]
fn clients_of_a_proxy_that_stops_are_served_in_every_world() {
    check_stopped("proxy", stopped_proxy);
}

#[test]
fn requests_to_an_http_server_that_stops_are_answered_in_every_world() {
    check_stopped("http_server", stopped_http_server);
    check_stopped("http_server_shared", stopped_http_server);
}

#[test]
fn answers_owed_by_a_server_that_stops_are_sent_in_every_world() {
    check_stopped("graceful_shutdown", stopped_graceful_shutdown);
}

fn check(name: &str) {
    let (start, scenario) = (start_of(name), scenario(name));
    sim::check_on(Kernel::ALL, seeds(), move |world| scenario(start, world));
}

#[test]
fn the_echo_server_serves_in_every_world() {
    check("echo_server");
}

#[test]
fn the_proxy_serves_in_every_world() {
    check("proxy");
}

#[test]
fn the_http_server_serves_in_every_world() {
    check("http_server");
}

#[test]
fn the_http_server_with_a_shared_listener_serves_in_every_world() {
    check("http_server_shared");
}

#[test]
fn the_resp_server_serves_in_every_world() {
    check("resp_server");
}

#[test]
fn the_async_runtime_serves_in_every_world() {
    check("async_runtime");
}

#[test]
fn the_guides_timeouts_close_silent_clients_in_every_world() {
    check("idle_server");
}

#[test]
fn the_resolver_takes_no_wrong_answer_in_any_world() {
    check("resolver");
}

#[test]
fn graceful_shutdown_ends_well_in_every_world() {
    check("graceful_shutdown");
}

/// `tests/it/linux/examples/graceful_shutdown.rs` does the same with a process and its `RLIMIT_NOFILE`.
#[test]
fn graceful_shutdown_serves_a_client_queued_without_a_descriptor_in_every_world() {
    let start = start_of("graceful_shutdown");
    // Apple's kernel closes a queued client if there is no descriptor for it.
    let kernels: Vec<_> =
        Kernel::ALL.iter().copied().filter(|kernel| *kernel != Kernel::Apple).collect();
    sim::check_on(&kernels, seeds(), move |world| {
        world.set_conditions(Conditions::default().with_stalls(false));
        let server = world.spawn("server", start);
        thread::sleep(SECOND);
        let client = Socket::new(Domain::IPV4, Type::STREAM, None)?;
        world.set_descriptor_limit(world.descriptors());
        world.schedule(5 * SECOND, |world| world.set_descriptor_limit(usize::MAX));
        let begin = sim::time::Instant::now();
        client.connect(&ADDRESS.parse::<SocketAddr>().unwrap().into())?;
        let mut client = TcpStream::from(client);
        client.write_all(b"who comes late")?;
        let mut answer = [0; 14];
        client.read_exact(&mut answer)?;
        assert_eq!(&answer, b"WHO COMES LATE");
        let elapsed = begin.elapsed();
        assert!(elapsed > 4 * SECOND && elapsed < 8 * SECOND, "served after {elapsed:?}");
        drop(client);
        world.raise(SIGTERM);
        server.join().unwrap()
    });
}

/// The first seed that finds a fault, and why.
fn first_failure(program: &str, start: Start) -> Option<(String, String)> {
    let scenario = scenario(program);
    let check = move || sim::check(10_000, move |world| scenario(start, world));
    let report = *panic::catch_unwind(check).err()?.downcast::<String>().ok()?;
    let (seed, why) = report.strip_prefix("seed ")?.split_once(" fails: ")?;
    Some((seed.to_owned(), why.lines().next()?.to_owned()))
}

/// Prints the table of sim/FINDS.md with `--nocapture`.
#[test]
fn every_mutant_is_found() {
    let fixes = written::programs().into_iter().filter(|(name, _)| name.ends_with("_before"));
    let fixes = fixes.map(|(name, start)| (name, "before its fix", start));
    let mut missed = Vec::new();
    for (program, what, start) in fixes.chain(written::MUTANTS.iter().copied()) {
        match first_failure(program, start) {
            Some((seed, why)) => println!("| `{program}` | {what} | {seed} | {why} |"),
            None => missed.push(format!("{program}: {what}")),
        }
    }
    assert!(missed.is_empty(), "not found: {missed:#?}");
}

/// Prints how many worlds with an echo of ten messages run in a second, and how many would run if only the switches
/// from thread to thread took time.
#[test]
#[ignore = "a measurement: .ci/seeds"]
fn seeds_a_second() {
    const SEEDS: u32 = 30_000;
    let start = start_of("echo_server");
    let (begin, switches_before) = (Instant::now(), switches());
    sim::check(SEEDS.into(), move |world| {
        world.set_conditions(Conditions::calm());
        let server = world.spawn("server", start);
        thread::sleep(SECOND);
        let mut client = connect()?;
        for number in 0..10 {
            client.write_all(&[number; 100])?;
            let mut answer = [0; 100];
            client.read_exact(&mut answer)?;
            assert_eq!(answer, [number; 100]);
        }
        drop(client);
        world.raise(SIGTERM);
        server.join().unwrap()
    });
    let a_seed = begin.elapsed() / SEEDS;
    let switches = (switches() - switches_before) / u64::from(SEEDS);
    let switching = switch() * u32::try_from(switches).unwrap();
    let a_second = |time: Duration| 1.0 / time.as_secs_f64();
    println!("{:.0} seeds a second: {a_seed:?} each", a_second(a_seed));
    println!(
        "of which {switches} switches take {switching:?}: {:.0} a second if there were nothing else",
        a_second(switching)
    );
}

/// How often a thread of this process has given up its core, or had to.
fn switches() -> u64 {
    let usage = getrusage(UsageWho::RUSAGE_SELF).unwrap();
    let switches = usage.voluntary_context_switches() + usage.involuntary_context_switches();
    u64::try_from(switches).unwrap()
}

/// The average time of a switch to another thread.
fn switch() -> Duration {
    const TURNS: u32 = 200_000;
    let turn = AtomicU32::new(0);
    let take_turns = |first: u32| {
        for mine in (first..TURNS).step_by(2) {
            while turn.load(SeqCst) != mine {
                std::thread::yield_now();
            }
            turn.store(mine + 1, SeqCst);
        }
    };
    let begin = Instant::now();
    std::thread::scope(|scope| {
        scope.spawn(|| take_turns(1));
        take_turns(0);
    });
    begin.elapsed() / TURNS
}
