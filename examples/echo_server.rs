//! An echo server: whatever a client sends comes back to it.
//!
//! `cargo run --release -p pollio --example echo_server`, then, elsewhere,
//! `nc 127.0.0.1 7777`. `--help` says more.
//!
//! Sockets are edge-triggered here: readiness is reported when it arrives, and not again. So a handler
//! goes on until `WouldBlock`, and one that stops earlier sees to it that it is called again.

use std::collections::{BTreeSet, HashMap};
use std::io::{self, ErrorKind, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::{fd::AsRawFd, fd::RawFd, unix::net::UnixStream};
use std::{ops::ControlFlow, ops::Range, process::ExitCode, sync::Mutex, time::Duration};

use lexopt::{Arg, ValueExt};
use pollio::{Event, EventKind, EventObject, Interest, Mode, OsPoller, Poller, Registry};
use signal_hook::{consts::SIGINT, consts::SIGTERM, low_level::pipe};
use socket2::SockRef;

/// All the memory that a client gets: one that sends and never reads can fill no more.
const BUFFER_SIZE: usize = 16 * 1024;
/// How many times in a row a client may fill its buffer before the others have their turn.
const FAIR_SHARE: usize = 16;
/// How long a client that could not be let in waits at most for the next attempt.
const RETRY_AFTER: Duration = Duration::from_millis(100);

const HELP: &str = "\
A TCP server that sends back whatever a client sends.

Usage: echo_server [ADDRESS:PORT]

  ADDRESS:PORT  where it listens: a name or a number, and port 0 for any that is free
                [default: 127.0.0.1:7777]
  -h, --help    print this

Talk to it with: nc 127.0.0.1 7777
Ctrl-C or SIGTERM ends it, with a line of statistics.
";

fn main() -> ExitCode {
    let address = match arguments() {
        Ok(Some(address)) => address,
        Ok(None) => {
            let _ = io::stdout().write_all(HELP.as_bytes());
            return ExitCode::SUCCESS;
        }
        Err(error) => {
            let _ = writeln!(io::stderr(), "echo_server: {error}; try --help");
            return ExitCode::from(2);
        }
    };
    match serve(&address) {
        // A broken pipe is the standard output's: its reader has left, as after `| head`.
        Err(error) if error.kind() != ErrorKind::BrokenPipe => {
            let _ = writeln!(io::stderr(), "echo_server: cannot serve {address}: {error}");
            ExitCode::FAILURE
        }
        _ => ExitCode::SUCCESS,
    }
}

/// Where to listen, or `None` for the help.
fn arguments() -> Result<Option<String>, lexopt::Error> {
    let (mut parser, mut address) = (lexopt::Parser::from_env(), None);
    while let Some(argument) = parser.next()? {
        match argument {
            Arg::Short('h') | Arg::Long("help") => return Ok(None),
            Arg::Value(value) if address.is_none() => {
                address = Some(value.parse_with(address_and_port)?);
            }
            surplus => return Err(surplus.unexpected()),
        }
    }
    Ok(Some(address.unwrap_or_else(|| "127.0.0.1:7777".into())))
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

fn serve(address: &str) -> io::Result<()> {
    let listener = TcpListener::bind(address)?;
    listener.set_nonblocking(true)?;
    // Beyond the 128 that std lets wait to be accepted, a client only knocks again after a second.
    SockRef::from(&listener).listen(4096)?;
    let (signals, signal_writer) = UnixStream::pair()?;
    pipe::register(SIGINT, signal_writer.try_clone()?)?;
    pipe::register(SIGTERM, signal_writer)?;

    let mut poller = OsPoller::new()?;
    poller.add(EventObject::server(listener.as_raw_fd()).with_mode(Mode::Edge))?;
    poller.add(EventObject::new(signals.as_raw_fd()))?;
    writeln!(io::stdout(), "listening on {}", listener.local_addr()?)?;

    let registry = poller.registry().clone();
    let (clients, counts) = (HashMap::new(), Counts::default());
    let mut server = Server { listener, registry, clients, next_token: 0, retry: None, counts };
    server.run(&mut poller, signals.as_raw_fd())?;
    let Counts { clients, most, broken, bytes } = server.counts;
    writeln!(io::stdout(), "{clients} clients, {most} at once, {broken} broken off; {bytes} bytes")
}

struct Server {
    listener: TcpListener,
    registry: Registry,
    /// By descriptor and token. A closed descriptor's number is soon given to another client, its
    /// token is not, so that an event for a client that is gone finds nobody.
    clients: HashMap<(RawFd, u32), Client>,
    next_token: u32,
    /// More clients may wait to be accepted, unreported: look again, after so long at the latest.
    retry: Option<Duration>,
    counts: Counts,
}

#[derive(Default)]
struct Counts {
    clients: usize,
    most: usize,
    broken: usize,
    bytes: usize,
}

struct Client {
    stream: TcpStream,
    buffer: Box<[u8; BUFFER_SIZE]>,
    /// The part of the buffer that was read and not yet written.
    unsent: Range<usize>,
}

impl Server {
    /// Serves until `signals` is readable.
    fn run(&mut self, poller: &mut OsPoller, signals: RawFd) -> io::Result<()> {
        loop {
            for event in poller.wait_timeout(self.retry)? {
                match event.kind {
                    EventKind::Server => self.accept(),
                    EventKind::Client if event.fd == signals => return Ok(()),
                    EventKind::Client => self.echo(*event),
                }
            }
            if self.retry.is_some() {
                self.accept();
            }
        }
    }

    fn accept(&mut self) {
        self.retry = match self.accept_one() {
            Err(error) if error.kind() == ErrorKind::WouldBlock => None,
            // Out of descriptors (EMFILE), as a rule: the client stays in the queue until one is
            // free, and to ask again without a pause would only keep the processor busy.
            Err(error) if error.kind() != ErrorKind::ConnectionAborted => {
                not_served(&error);
                Some(RETRY_AFTER)
            }
            _ => Some(Duration::ZERO),
        };
    }

    fn accept_one(&mut self) -> io::Result<()> {
        let (stream, _) = self.listener.accept()?;
        stream.set_nonblocking(true)?;
        // Short answers go out at once. Where a client that has left again refuses this, so be it.
        let _ = stream.set_nodelay(true);

        let (fd, token) = (stream.as_raw_fd(), self.next_token);
        self.registry.add(both_ways(EventObject::client(fd).with_token(token)))?;
        let client = Client { stream, buffer: Box::new([0; BUFFER_SIZE]), unsent: 0..0 };
        self.clients.insert((fd, token), client);
        self.next_token = token.wrapping_add(1);
        self.counts.clients += 1;
        self.counts.most = self.counts.most.max(self.clients.len());
        Ok(())
    }

    fn echo(&mut self, event: Event) {
        let key = (event.fd, event.token);
        let Some(client) = self.clients.get_mut(&key) else { return };
        // Built again: an event has neither interest nor mode.
        let object = EventObject::client(event.fd).with_token(event.token);
        match client.echo(&mut self.counts.bytes) {
            // A modify reports again what is still there, after the others had their turn.
            Ok(ControlFlow::Continue(())) if self.registry.modify(both_ways(object)).is_ok() => {
                return;
            }
            Ok(ControlFlow::Break(())) => {}
            Err(error) if error.kind() == ErrorKind::WouldBlock => return,
            _ => self.counts.broken += 1,
        }
        let _ = self.registry.delete(event.fd);
        self.clients.remove(&key);
    }
}

/// Says why a client was not served: each reason once, however many clients it meets.
fn not_served(error: &io::Error) {
    static REASONS: Mutex<BTreeSet<String>> = Mutex::new(BTreeSet::new());
    let reason = format!("echo_server: a client was not served: {error}");
    if REASONS.lock().unwrap().insert(reason.clone()) {
        let _ = writeln!(io::stderr(), "{reason}");
    }
}

/// Registered once: whichever way a client is stuck, the end of it is reported.
fn both_ways(object: EventObject) -> EventObject {
    object.with_interest(Interest::BOTH).with_mode(Mode::Edge)
}

impl Client {
    /// Writes what was read, and only then reads more: who does not take what it is owed soon
    /// finds that it cannot send, and nobody else is held up. Breaks off after the last byte.
    fn echo(&mut self, bytes: &mut usize) -> io::Result<ControlFlow<()>> {
        for _ in 0..FAIR_SHARE {
            while !self.unsent.is_empty() {
                let written = self.stream.write(&self.buffer[self.unsent.clone()])?;
                self.unsent.start += written;
                *bytes += written;
            }
            self.unsent = 0..self.stream.read(&mut *self.buffer)?;
            if self.unsent.is_empty() {
                return Ok(ControlFlow::Break(()));
            }
        }
        Ok(ControlFlow::Continue(()))
    }
}
