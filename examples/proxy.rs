//! A TCP proxy: whatever a client sends goes to one upstream address, and what comes back, back.
//!
//! `cargo run --release -p pollio --example proxy LISTEN UPSTREAM`, both of them `ADDRESS:PORT`.
//! `--help` says more.
//!
//! Either way has one buffer, and nothing more is read until that is written: who sends faster than
//! the other end takes is soon held back by TCP itself. The end of what one side sends is passed on
//! while the other goes on. A broken connection reaches the other end as a broken one, but only after
//! what it had delivered before: a server that answers and resets has answered.

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::io::{self, BufRead, BufReader, ErrorKind, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream, ToSocketAddrs};
use std::os::fd::AsRawFd;
use std::time::{Duration, Instant};
use std::{process::ExitCode, sync::Mutex};

use lexopt::{Arg, ValueExt};
use pollio::{Event, EventKind, EventObject, Interest, Mode, OsPoller, Poller, Registry};
use socket2::{Domain, SockRef, Socket, Type};

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
";

fn main() -> ExitCode {
    let arguments = match Arguments::parse() {
        Ok(Some(arguments)) => arguments,
        Ok(None) => {
            let _ = io::stdout().write_all(HELP.as_bytes());
            return ExitCode::SUCCESS;
        }
        Err(error) => {
            let _ = writeln!(io::stderr(), "proxy: {error}; try --help");
            return ExitCode::from(2);
        }
    };
    match serve(&arguments) {
        // A broken pipe is the standard output's: its reader has left, as after `| head`.
        Err(error) if error.kind() != ErrorKind::BrokenPipe => {
            let Arguments { listen, upstream, .. } = arguments;
            let complaint = format!("cannot pass {listen} on to {upstream}: {error}");
            let _ = writeln!(io::stderr(), "proxy: {complaint}");
            ExitCode::FAILURE
        }
        _ => ExitCode::SUCCESS,
    }
}

struct Arguments {
    listen: String,
    upstream: String,
    timeout: Duration,
}

impl Arguments {
    /// `None` for the help.
    fn parse() -> Result<Option<Self>, lexopt::Error> {
        let mut parser = lexopt::Parser::from_env();
        let (mut listen, mut upstream, mut timeout) = (None, None, Duration::from_secs(5));
        while let Some(argument) = parser.next()? {
            match argument {
                Arg::Short('h') | Arg::Long("help") => return Ok(None),
                Arg::Long("timeout") => {
                    timeout = parser.value()?.parse_with(seconds)?;
                }
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
        Ok(Some(Self { listen, upstream, timeout }))
    }
}

/// Checks the form. A name is looked up when it is used.
fn address_and_port(text: &str) -> Result<String, &'static str> {
    match text.rsplit_once(':') {
        Some((address, port)) if !address.is_empty() && port.parse::<u16>().is_ok() => {
            Ok(text.into())
        }
        _ => Err("not ADDRESS:PORT with a port of 0 to 65535"),
    }
}

fn seconds(text: &str) -> Result<Duration, &'static str> {
    match text.parse::<u32>() {
        Ok(seconds) if seconds > 0 => Ok(Duration::from_secs(seconds.into())),
        _ => Err("SECONDS is a whole number above 0"),
    }
}

fn serve(arguments: &Arguments) -> io::Result<()> {
    let upstream: Vec<_> = arguments.upstream.to_socket_addrs()?.collect();
    let spare = Some(socket_to(*upstream.first().ok_or(ErrorKind::NotFound)?)?);
    let listener = TcpListener::bind(&arguments.listen)?;
    listener.set_nonblocking(true)?;
    let mut poller = OsPoller::new()?;
    let registry = poller.registry().clone();
    registry.add(EventObject::server(listener.as_raw_fd()).with_mode(Mode::Edge))?;
    writeln!(io::stdout(), "listening on {}", listener.local_addr()?)?;
    let mut proxy = Proxy {
        registry,
        listener,
        upstream,
        timeout: arguments.timeout,
        spare,
        pairs: HashMap::new(),
        next_token: 0,
        deadlines: VecDeque::new(),
        retry: None,
    };
    proxy.run(&mut poller)
}

struct Proxy {
    registry: Registry,
    listener: TcpListener,
    /// All addresses of the upstream: where one cannot be reached, the next is tried.
    upstream: Vec<SocketAddr>,
    timeout: Duration,
    /// The socket of the next connection to the upstream: without one nobody is accepted.
    spare: Option<Socket>,
    pairs: HashMap<u32, Pair>,
    next_token: u32,
    /// When pairs have waited for long enough, the first to come first.
    deadlines: VecDeque<(Instant, u32)>,
    /// More clients may wait to be accepted, unreported: look again, after so long at the latest.
    retry: Option<Duration>,
}

/// A client, and the connection to the upstream that was made for it. Both have the same token.
struct Pair {
    client: Side,
    upstream: Side,
    is_connected: bool,
    /// How many addresses of the upstream were tried.
    tried: usize,
    /// When it is given up: while it connects, and once one side is broken.
    deadline: Option<Instant>,
}

struct Side {
    /// Its buffer holds what was read here, and not yet written to the other side.
    stream: BufReader<TcpStream>,
    object: EventObject,
    /// All that it sends is passed on, or nobody takes it.
    has_ended: bool,
    /// It was reset, or cannot be written to.
    is_broken: bool,
    /// It is to end, and is not writable before its kernel has sent everything.
    is_writable_once_sent: bool,
}

impl Proxy {
    fn run(&mut self, poller: &mut OsPoller) -> io::Result<()> {
        loop {
            let next = self.next_deadline().map(|(deadline, _)| deadline);
            let next = next.map(|deadline| deadline.saturating_duration_since(Instant::now()));
            for event in poller.wait_timeout(self.retry.into_iter().chain(next).min())? {
                match event.kind {
                    EventKind::Server => self.retry = Some(Duration::ZERO),
                    EventKind::Client => self.handle(event)?,
                }
            }
            while let Some((_, token)) =
                self.next_deadline().filter(|(at, _)| *at <= Instant::now())
            {
                self.give_up(token)?;
            }
            if self.retry.is_some() {
                self.retry = self.accept();
            }
        }
    }

    /// Accepts one client. Returns when to look for the next.
    fn accept(&mut self) -> Option<Duration> {
        let accepted = self.accept_with_socket().and_then(|(client, socket)| {
            // Once all tokens were given, those of pairs that live are left out.
            while self.pairs.contains_key(&self.next_token) {
                self.next_token = self.next_token.wrapping_add(1);
            }
            let token = self.next_token;
            self.next_token = token.wrapping_add(1);
            let client = self.side(client, token)?;
            self.connect(client, token, Some(socket), 0, ErrorKind::NotFound.into())
        });
        match accepted {
            Ok(()) => Some(Duration::ZERO),
            Err(error) if error.kind() == ErrorKind::WouldBlock => None,
            Err(error) if error.kind() == ErrorKind::ConnectionAborted => Some(Duration::ZERO),
            // Out of descriptors, as a rule: the next client waits in the queue until one is free.
            Err(error) => {
                not_served(&error);
                Some(Duration::from_millis(100))
            }
        }
    }

    /// Accepts a client once there is a socket for its connection to the upstream.
    fn accept_with_socket(&mut self) -> io::Result<(TcpStream, Socket)> {
        let socket = match self.spare.take() {
            Some(socket) => socket,
            None => socket_to(self.upstream[0])?,
        };
        match self.listener.accept() {
            Ok((client, _)) => Ok((client, socket)),
            Err(error) => {
                self.spare = Some(socket);
                Err(error)
            }
        }
    }

    /// Begins to connect to the upstream, at the first address that does not refuse it at once. If
    /// there is none, the client is reset, and the last refusal the reason.
    fn connect(
        &mut self,
        client: Side,
        token: u32,
        mut socket: Option<Socket>,
        tried: usize,
        mut refusal: io::Error,
    ) -> io::Result<()> {
        for (n, address) in self.upstream.iter().enumerate().skip(tried) {
            let socket = socket.take().map_or_else(|| socket_to(*address), Ok);
            let stream = socket.and_then(|socket| begin_to_connect(socket, *address));
            match stream.and_then(|stream| self.side(stream, token)) {
                Ok(upstream) => {
                    let deadline = Instant::now() + self.timeout;
                    self.deadlines.push_back((deadline, token));
                    let (deadline, tried) = (Some(deadline), n + 1);
                    let pair = Pair { client, upstream, is_connected: false, tried, deadline };
                    self.pairs.insert(token, pair);
                    return Ok(());
                }
                Err(error) => refusal = error,
            }
        }
        not_served(&refusal);
        reset(client.stream.get_ref());
        self.registry.delete(client.object.fd)
    }

    /// Gives up an attempt to connect, and tries the next address.
    fn connect_to_next(&mut self, token: u32, refusal: io::Error) -> io::Result<()> {
        let Some(Pair { client, upstream, tried, .. }) = self.pairs.remove(&token) else {
            return Ok(());
        };
        self.registry.delete(upstream.object.fd)?;
        drop(upstream);
        self.connect(client, token, None, tried, refusal)
    }

    /// Registered once: whichever way a side is stuck, the end of it is reported.
    fn side(&self, stream: TcpStream, token: u32) -> io::Result<Side> {
        stream.set_nonblocking(true)?;
        let _ = stream.set_nodelay(true);
        let object = EventObject::client(stream.as_raw_fd()).with_interest(Interest::BOTH);
        let object = object.with_mode(Mode::Edge).with_token(token);
        if let Err(error) = self.registry.add(object) {
            reset(&stream);
            return Err(error);
        }
        Ok(Side {
            stream: BufReader::new(stream),
            object,
            has_ended: false,
            is_broken: false,
            is_writable_once_sent: false,
        })
    }

    fn handle(&mut self, event: &Event) -> io::Result<()> {
        // An event for a pair that is gone finds nobody: its token is not given again so soon.
        let Some(pair) = self.pairs.get_mut(&event.token) else { return Ok(()) };
        if !pair.is_connected && event.fd == pair.upstream.object.fd {
            match pair.upstream.stream.get_ref().take_error()? {
                None => pair.is_connected = event.is_writable(),
                // It was connected, and may have delivered something.
                Some(error) if is_reset(&error) => pair.is_connected = true,
                Some(error) => return self.connect_to_next(event.token, error),
            }
            if pair.is_connected && !pair.is_broken() {
                pair.deadline = None;
            }
        }
        let was_broken = pair.is_broken();
        let is_over = pair.pass(event, &self.registry).unwrap_or(true);
        // What the kernel has not sent yet, the reset would discard.
        if is_over && pair.has_sent(event, &self.registry).unwrap_or(true) {
            return self.end(event.token);
        }
        if pair.is_broken() && !was_broken {
            let deadline = Instant::now() + self.timeout;
            pair.deadline = Some(deadline);
            self.deadlines.push_back((deadline, event.token));
        }
        Ok(())
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

    fn give_up(&mut self, token: u32) -> io::Result<()> {
        if self.pairs.get(&token).is_some_and(|pair| pair.is_connected || pair.is_broken()) {
            return self.end(token);
        }
        let refusal = "the upstream did not answer an attempt to connect in time";
        self.connect_to_next(token, io::Error::new(ErrorKind::TimedOut, refusal))
    }

    /// Deletes both sides, and lets a broken one not look like the proper end of what was sent.
    fn end(&mut self, token: u32) -> io::Result<()> {
        let Some(pair) = self.pairs.remove(&token) else { return Ok(()) };
        let sides = [&pair.client, &pair.upstream];
        if pair.is_broken() {
            sides.iter().for_each(|side| reset(side.stream.get_ref()));
        }
        sides.iter().try_for_each(|side| self.registry.delete(side.object.fd))
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
        _ => Ok(socket.into()),
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

/// Says why a client was not served: each reason once, however many clients it meets.
fn not_served(error: &io::Error) {
    static REASONS: Mutex<BTreeSet<String>> = Mutex::new(BTreeSet::new());
    let reason = format!("proxy: a client was not served: {error}");
    if REASONS.lock().unwrap().insert(reason.clone()) {
        let _ = writeln!(io::stderr(), "{reason}");
    }
}

impl Pair {
    fn is_broken(&self) -> bool {
        self.client.is_broken || self.upstream.is_broken
    }

    /// An event of either side may set either way going, so both are tried. Returns whether the pair
    /// has come to its end: both ways have, or one side is broken and all that it sent is passed on.
    fn pass(&mut self, event: &Event, registry: &Registry) -> io::Result<bool> {
        let (client, upstream) = (&mut self.client, &mut self.upstream);
        let side = if event.fd == client.object.fd { &mut *client } else { &mut *upstream };
        // A way that is stuck at its other end neither reads nor writes here, and would miss it.
        side.is_broken |= event.is_error();
        if self.is_connected && client.pass_to(upstream) | upstream.pass_to(client) {
            // A modify reports again what is still there, after the others had their turn.
            registry.modify(client.object)?;
            registry.modify(upstream.object)?;
        }
        let is_over = |side: &Side| side.is_broken && side.has_ended;
        Ok(client.has_ended && upstream.has_ended || is_over(client) || is_over(upstream))
    }

    /// Whether the kernel has sent all that was written to the side that is left, where one is broken. If
    /// not, an event will come of it.
    fn has_sent(&mut self, event: &Event, registry: &Registry) -> io::Result<bool> {
        let side = match (self.client.is_broken, self.upstream.is_broken) {
            (true, false) => &mut self.upstream,
            (false, true) => &mut self.client,
            _ => return Ok(true),
        };
        if side.is_writable_once_sent {
            return Ok(event.fd == side.object.fd && event.is_writable());
        }
        if !be_writable_once_sent(side.stream.get_ref())? {
            return Ok(true);
        }
        side.is_writable_once_sent = true;
        registry.modify(side.object)?;
        Ok(false)
    }
}

impl Side {
    /// Passes on one buffer full; the next is read when all of it is written. Returns whether there
    /// may be more to pass on.
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
        let mut to = other.stream.get_ref();
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
            // Nobody takes it. What the other side had sent before is still passed on.
            Err(_) => {
                (other.is_broken, self.has_ended) = (true, true);
                false
            }
        }
    }
}
