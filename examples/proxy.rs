//! A TCP proxy: whatever a client sends goes to one upstream address, and what comes back, back.
//!
//! `cargo run --release --example proxy LISTEN UPSTREAM`, both of them `ADDRESS:PORT`. Ctrl-C ends
//! it, with a line of statistics.
//!
//! Either way has one buffer, and nothing more is read until that is written: who sends faster than
//! the other end takes is soon held back by TCP itself. The end of what one side sends is passed on
//! while the other goes on sending, and a broken connection reaches the other end as a broken one.

use std::collections::HashMap;
use std::io::{self, ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream, ToSocketAddrs};
use std::os::{fd::AsRawFd, fd::RawFd, unix::net::UnixStream};
use std::{env, ops::Range, process::ExitCode, time::Duration};

use pollio::{EventKind, EventObject, Interest, Mode, OsPoller, Poller, Registry};
use signal_hook::{consts::SIGINT, consts::SIGTERM, low_level::pipe};
use socket2::{Domain, SockRef, Socket, Type};

/// What is under way at most, each way of each connection.
const BUFFER_SIZE: usize = 64 * 1024;
/// How many buffers in a row go one way before the other connections have their turn.
const FAIR_SHARE: usize = 8;
/// How long a client that could not be let in waits at most for the next attempt.
const RETRY_AFTER: Duration = Duration::from_millis(100);

fn main() -> ExitCode {
    let arguments: Vec<_> = env::args_os().skip(1).collect();
    let [listen, upstream] = &arguments[..] else {
        eprintln!("proxy: usage: proxy LISTEN UPSTREAM, both of them ADDRESS:PORT");
        return ExitCode::FAILURE;
    };
    let (listen, upstream) = (listen.to_string_lossy(), upstream.to_string_lossy());
    if let Err(error) = serve(&listen, &upstream) {
        eprintln!("proxy: cannot pass {listen} on to {upstream}: {error}");
        return ExitCode::FAILURE;
    }
    ExitCode::SUCCESS
}

fn serve(listen: &str, upstream: &str) -> io::Result<()> {
    let upstream = upstream.to_socket_addrs()?.next().ok_or(ErrorKind::NotFound)?;
    let listener = TcpListener::bind(listen)?;
    listener.set_nonblocking(true)?;
    // Beyond the 128 that std lets wait to be accepted, a client only knocks again after a second.
    SockRef::from(&listener).listen(4096)?;
    let (signals, signal_writer) = UnixStream::pair()?;
    pipe::register(SIGINT, signal_writer.try_clone()?)?;
    pipe::register(SIGTERM, signal_writer)?;

    let mut poller = OsPoller::new()?;
    poller.add(EventObject::server(listener.as_raw_fd()).with_mode(Mode::Edge))?;
    poller.add(EventObject::client(signals.as_raw_fd()))?;
    writeln!(io::stdout(), "listening on {}", listener.local_addr()?)?;

    let (registry, pairs) = (poller.registry().clone(), HashMap::new());
    let mut proxy =
        Proxy { listener, upstream, registry, pairs, clients: 0, broken: 0, retry: None };
    proxy.run(&mut poller, signals.as_raw_fd())?;
    writeln!(io::stdout(), "{} clients, {} broken off", proxy.clients, proxy.broken)
}

struct Proxy {
    listener: TcpListener,
    upstream: SocketAddr,
    registry: Registry,
    /// By token.
    pairs: HashMap<u32, Pair>,
    /// How many there were, and so the token of the next one: an event for a pair that is gone
    /// finds nobody.
    clients: u32,
    broken: u32,
    /// More clients may wait to be accepted, untold: look again, after so long at the latest.
    retry: Option<Duration>,
}

/// A client, and the connection that was made for it. Both are registered under one token.
struct Pair {
    client: TcpStream,
    upstream: TcpStream,
    is_connected: bool,
    there: Way,
    back: Way,
}

/// One of the two ways through a pair.
struct Way {
    buffer: Box<[u8]>,
    /// The part of the buffer that was read and not yet written.
    unsent: Range<usize>,
    has_ended: bool,
}

/// What is next for a way, or for a pair: the greater of both its ways.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
enum Next {
    /// Nothing: the end was read, and passed on.
    End,
    /// To wait until there is something to read, or room to write.
    Wait,
    /// To go on, after the others had their turn: it had its share.
    GoOn,
}

impl Proxy {
    /// Serves until `signals` is readable.
    fn run(&mut self, poller: &mut OsPoller, signals: RawFd) -> io::Result<()> {
        loop {
            for event in poller.wait_timeout(self.retry)? {
                match event.kind {
                    EventKind::Server => self.accept(),
                    EventKind::Client if event.fd == signals => return Ok(()),
                    EventKind::Client => self.pass(event)?,
                }
            }
            if self.retry.is_some() {
                self.accept();
            }
        }
    }

    fn accept(&mut self) {
        self.retry = match self.listener.accept() {
            Err(error) if error.kind() == ErrorKind::WouldBlock => None,
            // Out of descriptors, as a rule. The client stays in the queue until one is free.
            Err(error) if error.kind() != ErrorKind::ConnectionAborted => Some(RETRY_AFTER),
            Err(_) => Some(Duration::ZERO),
            Ok((client, _)) => {
                let token = self.clients;
                self.clients = token.wrapping_add(1);
                // A client for whom no upstream can be had is let go.
                self.broken += u32::from(self.pair(client, token).is_err());
                Some(Duration::ZERO)
            }
        };
    }

    fn pair(&mut self, client: TcpStream, token: u32) -> io::Result<()> {
        client.set_nonblocking(true)?;
        let _ = client.set_nodelay(true);
        let upstream = begin_to_connect(self.upstream)?;
        let pair =
            Pair { client, upstream, is_connected: false, there: Way::new(), back: Way::new() };
        pair.fds().into_iter().try_for_each(|fd| self.registry.add(both_ways(fd, token)))?;
        self.pairs.insert(token, pair);
        Ok(())
    }

    fn pass(&mut self, event: &EventObject) -> io::Result<()> {
        let token = event.token;
        let Some(pair) = self.pairs.get_mut(&token) else { return Ok(()) };
        let mut fds = pair.fds().into_iter();
        match pair.pass(event) {
            Ok(Next::Wait) => return Ok(()),
            // A modify tells again of what is still there.
            Ok(Next::GoOn) => {
                return fds.try_for_each(|fd| self.registry.modify(both_ways(fd, token)));
            }
            Ok(Next::End) => {}
            Err(_) => {
                self.broken += 1;
                pair.reset();
            }
        }
        fds.try_for_each(|fd| self.registry.delete(fd))?;
        self.pairs.remove(&token);
        Ok(())
    }
}

/// The socket is writable once it is connected, and tells of an error if that was in vain.
fn begin_to_connect(address: SocketAddr) -> io::Result<TcpStream> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, None)?;
    socket.set_nonblocking(true)?;
    socket.set_tcp_nodelay(true)?;
    match socket.connect(&address.into()) {
        Err(error) if error.raw_os_error() != Some(libc::EINPROGRESS) => Err(error),
        _ => Ok(socket.into()),
    }
}

/// Asked for once and for all: whichever way a pair is stuck, the end of it is told.
fn both_ways(fd: RawFd, token: u32) -> EventObject {
    let interest = Interest::READABLE | Interest::WRITABLE;
    EventObject::client(fd).with_interest(interest).with_mode(Mode::Edge).with_token(token)
}

impl Pair {
    fn fds(&self) -> [RawFd; 2] {
        [self.client.as_raw_fd(), self.upstream.as_raw_fd()]
    }

    /// An event of either side may set either way going, so both are tried.
    fn pass(&mut self, event: &EventObject) -> io::Result<Next> {
        // A way that is stuck at its other end neither reads nor writes here, and would miss it.
        if event.is_error() {
            return Err(ErrorKind::ConnectionReset.into());
        }
        self.is_connected |= event.fd == self.upstream.as_raw_fd() && event.is_writable();
        if !self.is_connected {
            return Ok(Next::Wait);
        }
        let there = self.there.pass(&self.client, &self.upstream)?;
        let back = self.back.pass(&self.upstream, &self.client)?;
        Ok(there.max(back))
    }

    /// Ends both connections so that it does not look like the proper end of what was sent.
    fn reset(&self) {
        for stream in [&self.client, &self.upstream] {
            let _ = SockRef::from(stream).set_linger(Some(Duration::ZERO));
        }
    }
}

impl Way {
    fn new() -> Self {
        Self { buffer: vec![0; BUFFER_SIZE].into(), unsent: 0..0, has_ended: false }
    }

    fn pass(&mut self, from: &TcpStream, to: &TcpStream) -> io::Result<Next> {
        match self.pass_share(from, to) {
            Err(error) if error.kind() == ErrorKind::WouldBlock => Ok(Next::Wait),
            next => next,
        }
    }

    /// Writes what was read, and only then reads more.
    fn pass_share(&mut self, mut from: &TcpStream, mut to: &TcpStream) -> io::Result<Next> {
        for _ in 0..FAIR_SHARE {
            while !self.unsent.is_empty() {
                self.unsent.start += to.write(&self.buffer[self.unsent.clone()])?;
            }
            if self.has_ended {
                return Ok(Next::End);
            }
            self.unsent = 0..from.read(&mut self.buffer)?;
            if self.unsent.is_empty() {
                to.shutdown(Shutdown::Write)?;
                self.has_ended = true;
            }
        }
        Ok(Next::GoOn)
    }
}
