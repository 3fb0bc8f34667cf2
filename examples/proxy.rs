//! A TCP proxy: it passes each client's bytes to one upstream address, and the answers back.
//!
//! `cargo run --release -p pollio --example proxy LISTEN UPSTREAM`, both of them `ADDRESS:PORT`.
//! `--help` says more.
//!
//! Each direction has one buffer, and no more is read until that is written: TCP itself soon holds back a sender that
//! is faster than the other end. The end of one side's stream is passed on while the other side goes on. A broken
//! connection reaches the other end as a broken one, but only after what it had delivered before: a server that answers
//! and resets has answered.

mod shared;

use std::collections::{HashMap, VecDeque};
use std::io::{self, BufRead, BufReader, ErrorKind, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream, ToSocketAddrs};
use std::os::fd::{AsRawFd, RawFd};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use lexopt::{Arg, ValueExt};
use pollio::{
    Event, EventKind, EventObject, Interest, Mode, OsPoller, Poller, Registered, Registry,
};
use shared::{Listener, Log, address_and_port};
use signal_hook::consts::{SIGINT, SIGTERM};
use socket2::{Domain, SockRef, Socket, Type};

fn serve(arguments: &Arguments, log: &Log) -> io::Result<()> {
    let upstream: Vec<_> = arguments.upstream.to_socket_addrs()?.collect();
    let spare = Some(socket_to(*upstream.first().ok_or(ErrorKind::NotFound)?)?);
    let mut poller = OsPoller::new()?;
    let registry = poller.registry().clone();
    let signals = shared::signals(&[SIGINT, SIGTERM])?;
    let signals = Registered::new(&registry, signals, EventObject::new)?;
    let socket = TcpListener::bind(&arguments.listen)?;
    let listener = Listener::new(&registry, socket, EventObject::server)?;
    log.listening(listener.local_addr()?)?;

    let (timeout, log) = (arguments.timeout, log.clone());
    let (pairs, deadlines) = (HashMap::new(), VecDeque::new());
    let mut proxy = Proxy {
        registry,
        listener,
        log,
        upstream,
        timeout,
        spare,
        pairs,
        next_token: 0,
        deadlines,
    };
    loop {
        let timeouts = [proxy.listener.time_left(), proxy.time_left()];
        for event in poller.wait_timeout(timeouts.into_iter().flatten().min())? {
            match event.kind {
                EventKind::Server => proxy.accept(),
                EventKind::Client if event.fd == signals.as_raw_fd() => return Ok(()),
                EventKind::Client => proxy.handle(event),
            }
        }
        while let Some((deadline, token)) = proxy.next_deadline() {
            if deadline > Instant::now() {
                break;
            }
            proxy.give_up(token);
        }
        proxy.listener.resume();
    }
}

struct Proxy {
    registry: Registry,
    listener: Listener,
    log: Log,
    /// All addresses of the upstream. If one cannot be reached, the next is tried.
    upstream: Vec<SocketAddr>,
    timeout: Duration,
    /// The socket for the next connection to the upstream. Without one, no client is accepted.
    spare: Option<Socket>,
    /// By token. `Connections` has one state for each source, and a pair is two sources with one.
    pairs: HashMap<u32, Pair>,
    next_token: u32,
    /// The deadlines of pairs, the earliest first.
    deadlines: VecDeque<(Instant, u32)>,
}

/// A client, and the connection to the upstream that was made for it. Both have the same token.
struct Pair {
    client: Side,
    upstream: Side,
    is_connected: bool,
    /// The number of addresses of the upstream that were tried.
    tried: usize,
    /// The time when it is given up. Set while it connects, and after one side is broken.
    deadline: Option<Instant>,
}

struct Side {
    /// The bytes that were read here and not yet written to the other side.
    stream: BufReader<Registered<TcpStream>>,
    token: u32,
    /// Its whole stream is passed on, or the other side takes no more.
    has_ended: bool,
    /// It was reset, or cannot be written to.
    is_broken: bool,
    /// It is to end, and becomes writable only once its kernel has sent everything.
    is_writable_once_sent: bool,
}

impl Proxy {
    /// Accepts one client, once there is a socket for its connection to the upstream.
    fn accept(&mut self) {
        let socket = match self.spare.take().map_or_else(|| socket_to(self.upstream[0]), Ok) {
            Ok(socket) => socket,
            Err(error) => return self.listener.pause(&error, &self.log),
        };
        let Some(client) = self.listener.accept(&self.log) else {
            self.spare = Some(socket);
            return;
        };
        self.spare = socket_to(self.upstream[0]).ok();
        // After 2^32 pairs, skips the tokens in use.
        while self.pairs.contains_key(&self.next_token) {
            self.next_token = self.next_token.wrapping_add(1);
        }
        let token = self.next_token;
        self.next_token = token.wrapping_add(1);
        match self.side(client, token) {
            Ok(client) => self.connect(client, token, Some(socket), 0, ErrorKind::NotFound.into()),
            Err(error) => self.log.not_served(&error),
        }
    }

    /// Begins to connect to the upstream, at the first address that does not refuse it at once. If all do, the client
    /// is reset, and the last refusal is the reason.
    fn connect(
        &mut self,
        client: Side,
        token: u32,
        mut socket: Option<Socket>,
        tried: usize,
        mut refusal: io::Error,
    ) {
        for (n, address) in self.upstream.iter().enumerate().skip(tried) {
            let socket = socket.take().map_or_else(|| socket_to(*address), Ok);
            let stream = socket.and_then(|socket| begin_to_connect(socket, *address));
            match stream.and_then(|stream| self.side(stream, token)) {
                Ok(upstream) => {
                    let (is_connected, tried) = (false, n + 1);
                    let pair = Pair { client, upstream, is_connected, tried, deadline: None };
                    self.pairs.insert(token, pair);
                    return self.set_deadline(token);
                }
                Err(error) => refusal = error,
            }
        }
        self.log.not_served(&refusal);
        reset(client.socket());
    }

    /// Gives up an attempt to connect, and tries the next address.
    fn connect_to_next(&mut self, token: u32, refusal: io::Error) {
        let Some(Pair { client, upstream, tried, .. }) = self.pairs.remove(&token) else { return };
        drop(upstream);
        self.connect(client, token, None, tried, refusal);
    }

    /// Registered once, for both directions: when either one is no longer blocked, an event reports it.
    fn side(&self, stream: TcpStream, token: u32) -> io::Result<Side> {
        let source = Registered::new(&self.registry, stream, both_ways(token))?;
        Ok(Side {
            stream: BufReader::new(source),
            token,
            has_ended: false,
            is_broken: false,
            is_writable_once_sent: false,
        })
    }

    fn handle(&mut self, event: &Event) {
        // An event for a pair that is gone finds none: its token is not used again so soon.
        let Some(pair) = self.pairs.get_mut(&event.token) else { return };
        if !pair.is_connected && event.fd == pair.upstream.fd() {
            match pair.connected() {
                Ok(is_connected) => pair.is_connected = is_connected,
                Err(error) => return self.connect_to_next(event.token, error),
            }
            if pair.is_connected && !pair.is_broken() {
                pair.deadline = None;
            }
        }
        let was_broken = pair.is_broken();
        // A direction that is stuck at its other end neither reads nor writes here, and would miss it.
        pair.side(event).is_broken |= event.is_error();
        let is_over = pair.pass().is_err() || pair.is_over();
        // A reset would discard the bytes that the kernel has not sent yet.
        if is_over && pair.has_sent(event).unwrap_or(true) {
            return self.end(event.token);
        }
        if pair.is_broken() && !was_broken {
            self.set_deadline(event.token);
        }
    }

    fn set_deadline(&mut self, token: u32) {
        let Some(pair) = self.pairs.get_mut(&token) else { return };
        let deadline = Instant::now() + self.timeout;
        pair.deadline = Some(deadline);
        self.deadlines.push_back((deadline, token));
    }

    /// The deadline that comes first, of a pair that still has it.
    fn next_deadline(&mut self) -> Option<(Instant, u32)> {
        while let Some((deadline, token)) = self.deadlines.front().copied() {
            let pair = self.pairs.get(&token);
            if pair.is_some_and(|pair| pair.deadline == Some(deadline)) {
                return Some((deadline, token));
            }
            self.deadlines.pop_front();
        }
        None
    }

    fn time_left(&mut self) -> Option<Duration> {
        let (deadline, _) = self.next_deadline()?;
        Some(deadline.saturating_duration_since(Instant::now()))
    }

    /// The deadline of a pair is over. Looks once more: after a stop of the process, more events came in time than one
    /// wait reports.
    fn give_up(&mut self, token: u32) {
        let Some(pair) = self.pairs.get_mut(&token) else { return };
        pair.deadline = None;
        if pair.is_connected || pair.is_broken() {
            match pair.pass() {
                Ok(true) => self.set_deadline(token),
                _ => self.end(token),
            }
            return;
        }
        match pair.connected() {
            // An event says so in one of the next waits.
            Ok(true) => {}
            Ok(false) => {
                let refusal = "the upstream did not answer an attempt to connect in time";
                self.connect_to_next(token, io::Error::new(ErrorKind::TimedOut, refusal));
            }
            Err(error) => self.connect_to_next(token, error),
        }
    }

    /// Closes both sides, such that the end of a broken one does not look like a proper end.
    fn end(&mut self, token: u32) {
        let Some(pair) = self.pairs.remove(&token) else { return };
        if pair.is_broken() {
            [&pair.client, &pair.upstream].iter().for_each(|side| reset(side.socket()));
        }
    }
}

fn socket_to(address: SocketAddr) -> io::Result<Socket> {
    Socket::new(Domain::for_address(address), Type::STREAM, None)
}

/// It is writable once it is connected, and reports an error if it cannot be.
fn begin_to_connect(socket: Socket, address: SocketAddr) -> io::Result<TcpStream> {
    socket.set_nonblocking(true)?;
    match socket.connect(&address.into()) {
        Err(error) if error.raw_os_error() != Some(libc::EINPROGRESS) => Err(error),
        _ => {
            let stream = socket.into();
            shared::prepare(&stream)?;
            Ok(stream)
        }
    }
}

/// Whether the other end broke the connection. One that refused it is another error.
fn is_reset(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::ConnectionReset | ErrorKind::BrokenPipe)
}

/// Lets the close of `stream` be a reset.
fn reset(stream: &TcpStream) {
    let _ = SockRef::from(stream).set_linger(Some(Duration::ZERO));
}

/// Lets `stream` be writable only when the kernel has sent all that was written to it. Returns whether this
/// system can do that: Linux calls it `TCP_NOTSENT_LOWAT`, tcp(7). Elsewhere a reset may overtake it.
fn be_writable_once_sent(stream: &TcpStream) -> io::Result<bool> {
    #[cfg(any(target_os = "linux", target_os = "android"))]
    SockRef::from(stream).set_tcp_notsent_lowat(1)?;
    let _ = stream;
    Ok(cfg!(any(target_os = "linux", target_os = "android")))
}

impl Pair {
    fn is_broken(&self) -> bool {
        self.client.is_broken || self.upstream.is_broken
    }

    fn side(&mut self, event: &Event) -> &mut Side {
        if event.fd == self.client.fd() { &mut self.client } else { &mut self.upstream }
    }

    /// Whether the connection to the upstream is established; an error if it cannot be.
    fn connected(&self) -> io::Result<bool> {
        let upstream = self.upstream.socket();
        match upstream.take_error()? {
            None => Ok(upstream.peer_addr().is_ok()),
            // It was connected, and may have delivered something.
            Some(error) if is_reset(&error) => Ok(true),
            Some(error) => Err(error),
        }
    }

    /// Tries both directions, since an event of either side can unblock either. Returns whether anything was passed on.
    fn pass(&mut self) -> io::Result<bool> {
        let (client, upstream) = (&mut self.client, &mut self.upstream);
        let has_passed = self.is_connected && client.pass_to(upstream) | upstream.pass_to(client);
        if has_passed {
            // A modify reports the rest again, after the others had their turn.
            client.look_again()?;
            upstream.look_again()?;
        }
        Ok(has_passed)
    }

    /// Both directions have ended, or one side is broken and all its data is passed on.
    fn is_over(&self) -> bool {
        let (client, upstream) = (&self.client, &self.upstream);
        let is_over = |side: &Side| side.is_broken && side.has_ended;
        client.has_ended && upstream.has_ended || is_over(client) || is_over(upstream)
    }

    /// Whether the kernel has sent all data of the remaining side, where the other is broken. If not, an event follows.
    fn has_sent(&mut self, event: &Event) -> io::Result<bool> {
        let side = match (self.client.is_broken, self.upstream.is_broken) {
            (true, false) => &mut self.upstream,
            (false, true) => &mut self.client,
            _ => return Ok(true),
        };
        if side.is_writable_once_sent {
            return Ok(event.fd == side.fd() && event.is_writable());
        }
        if !be_writable_once_sent(side.socket())? {
            return Ok(true);
        }
        side.is_writable_once_sent = true;
        side.look_again()?;
        Ok(false)
    }
}

fn both_ways(token: u32) -> impl FnOnce(RawFd) -> EventObject {
    move |fd| {
        let object = EventObject::client(fd).with_token(token);
        object.with_interest(Interest::BOTH).with_mode(Mode::Edge)
    }
}

impl Side {
    fn socket(&self) -> &TcpStream {
        self.stream.get_ref().get_ref()
    }

    fn fd(&self) -> RawFd {
        self.stream.get_ref().as_raw_fd()
    }

    /// Re-arms a side, so that its unread bytes are an edge again.
    fn look_again(&self) -> io::Result<()> {
        self.stream.get_ref().modify(both_ways(self.token))
    }

    /// Passes on one buffer; the next is read when all of it is written. Returns whether there may be more.
    fn pass_to(&mut self, other: &mut Self) -> bool {
        if self.has_ended {
            return false;
        }
        let bytes = match self.stream.fill_buf() {
            // A reset that was reported before is read as an end.
            Ok([]) if self.is_broken => {
                self.has_ended = true;
                return false;
            }
            Ok(bytes) => bytes,
            Err(error) if error.kind() == ErrorKind::WouldBlock => return false,
            Err(_) => {
                (self.is_broken, self.has_ended) = (true, true);
                return false;
            }
        };
        let mut to = other.socket();
        let passed = match bytes {
            [] => to.shutdown(Shutdown::Write).map(|()| 0),
            _ => to.write(bytes),
        };
        match passed {
            Ok(count) => {
                self.stream.consume(count);
                self.has_ended = count == 0;
                count > 0
            }
            Err(error) if error.kind() == ErrorKind::WouldBlock => false,
            // The other side takes no more. Its own data is still passed on.
            Err(_) => {
                (other.is_broken, self.has_ended) = (true, true);
                false
            }
        }
    }
}

const HELP: &str = "\
A TCP proxy: passes on what clients send to one upstream address, and what it answers to them.

Usage: proxy [--timeout SECONDS] LISTEN UPSTREAM

  LISTEN, UPSTREAM   both ADDRESS:PORT; an address is a name or a number, and port 0 of LISTEN any
                     that is free
  --timeout SECONDS  how long an attempt to connect to the upstream may take, and how long one side
                     may take for what the other has sent before its connection broke [default: 5]
  -h, --help         print this

A client whose upstream cannot be reached sees a reset.
For instance: proxy 127.0.0.1:7000 localhost:7777
Ctrl-C or SIGTERM ends it. A peer that has vanished is let go after two minutes without a word
(keepalive).
";

struct Arguments {
    listen: String,
    upstream: String,
    timeout: Duration,
}

fn parse(arguments: &mut shared::Arguments) -> Result<Arguments, lexopt::Error> {
    let (mut listen, mut upstream, mut timeout) = (None, None, Duration::from_secs(5));
    while let Some(argument) = arguments.next()? {
        match argument {
            Arg::Long("timeout") => timeout = arguments.value()?.parse_with(seconds)?,
            Arg::Value(value) if listen.is_none() => {
                listen = Some(value.parse_with(address_and_port)?);
            }
            Arg::Value(value) if upstream.is_none() => {
                upstream = Some(value.parse_with(address_and_port)?);
            }
            surplus => return Err(surplus.unexpected()),
        }
    }
    let (listen, upstream) =
        (listen.ok_or("LISTEN is missing")?, upstream.ok_or("UPSTREAM is missing")?);
    Ok(Arguments { listen, upstream, timeout })
}

fn seconds(text: &str) -> Result<Duration, &'static str> {
    match text.parse::<u32>() {
        Ok(seconds) if seconds > 0 => Ok(Duration::from_secs(seconds.into())),
        _ => Err("SECONDS is a whole number above 0"),
    }
}

fn main() -> ExitCode {
    let task =
        |arguments: &Arguments| format!("pass {} on to {}", arguments.listen, arguments.upstream);
    shared::run(HELP, parse, task, serve)
}
