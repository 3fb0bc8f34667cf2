//! An echo server: whatever a client sends comes back to it.
//!
//! `cargo run --release --example echo_server [ADDRESS:PORT]` listens on 127.0.0.1:7777 unless told
//! otherwise; talk to it with `nc 127.0.0.1 7777`. Ctrl-C ends it, with a line of statistics.
//!
//! Sockets are edge-triggered here: readiness is told when it arrives, and not again. So a handler
//! goes on until `WouldBlock`, and one that stops earlier sees to it that it is called again.

use std::collections::HashMap;
use std::io::{self, ErrorKind, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::{fd::AsRawFd, fd::RawFd, unix::net::UnixStream};
use std::{env, ops::ControlFlow, ops::Range, process::ExitCode, time::Duration};

use pollio::{Event, EventKind, EventObject, Interest, Mode, OsPoller, Poller, Registry};
use signal_hook::{consts::SIGINT, consts::SIGTERM, low_level::pipe};
use socket2::SockRef;

/// All the memory that a client gets: one that sends and never reads can fill no more.
const BUFFER_SIZE: usize = 16 * 1024;
/// How many times in a row a client may fill its buffer before the others have their turn.
const FAIR_SHARE: usize = 16;
/// How long a client that could not be let in waits at most for the next attempt.
const RETRY_AFTER: Duration = Duration::from_millis(100);

fn main() -> ExitCode {
    let argument = env::args_os().nth(1).unwrap_or_else(|| "127.0.0.1:7777".into());
    let address = argument.to_string_lossy();
    if let Err(error) = serve(&address) {
        eprintln!("echo_server: cannot serve {address}: {error}");
        return ExitCode::FAILURE;
    }
    ExitCode::SUCCESS
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
    poller.add(EventObject::client(signals.as_raw_fd()))?;
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
    /// More clients may wait to be accepted, untold: look again, after so long at the latest.
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
            Err(error) if error.kind() != ErrorKind::ConnectionAborted => Some(RETRY_AFTER),
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

/// Asked for once and for all: whichever way a client is stuck, the end of it is told.
fn both_ways(object: EventObject) -> EventObject {
    object.with_interest(Interest::READABLE | Interest::WRITABLE).with_mode(Mode::Edge)
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
