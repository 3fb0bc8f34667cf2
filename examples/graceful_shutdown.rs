//! A server that ends in good order. It answers each line that a client sends in capitals.
//!
//! `cargo run --release --example graceful_shutdown [ADDRESS:PORT]` listens on 127.0.0.1:7878 unless
//! told otherwise; talk to it with `nc 127.0.0.1 7878`. SIGTERM, or Ctrl-C, lets in nobody else: who
//! is in the middle of a line has three seconds to finish it, then the server ends. A second one
//! ends it at once. SIGHUP makes it write how many clients there are.
//!
//! A signal handler may do hardly anything. These write a byte into a pipe, and the pipe is one
//! more descriptor to watch: what a signal does is done in the loop, like all else.

use std::collections::HashMap;
use std::io::{self, ErrorKind, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::{fd::AsRawFd, fd::RawFd, unix::net::UnixStream};
use std::time::{Duration, Instant};
use std::{env, ops::ControlFlow, process::ExitCode};

use pollio::{EventKind, EventObject, Interest, Mode, OsPoller, Poller, Registry};
use signal_hook::{consts::SIGHUP, consts::SIGINT, consts::SIGTERM, low_level::pipe};

/// How long the clients have to finish.
const GRACE: Duration = Duration::from_secs(3);
/// The longest line, and all the memory that a client gets.
const LINE_SIZE: usize = 4096;
/// How many times in a row a client may fill its buffer before the others have their turn.
const FAIR_SHARE: usize = 16;

fn main() -> ExitCode {
    let argument = env::args_os().nth(1).unwrap_or_else(|| "127.0.0.1:7878".into());
    let address = argument.to_string_lossy();
    if let Err(error) = serve(&address) {
        eprintln!("graceful_shutdown: cannot serve {address}: {error}");
        return ExitCode::FAILURE;
    }
    ExitCode::SUCCESS
}

fn serve(address: &str) -> io::Result<()> {
    let listener = TcpListener::bind(address)?;
    listener.set_nonblocking(true)?;
    let (ends, hangups) = (signal_pipe(&[SIGTERM, SIGINT])?, signal_pipe(&[SIGHUP])?);

    let mut poller = OsPoller::new()?;
    poller.add(EventObject::server(listener.as_raw_fd()).with_mode(Mode::Edge))?;
    poller.add(EventObject::client(ends.as_raw_fd()))?;
    poller.add(EventObject::client(hangups.as_raw_fd()))?;
    writeln!(io::stdout(), "listening on {}", listener.local_addr()?)?;

    let (registry, listener) = (poller.registry().clone(), Some(listener));
    let mut server = Server { registry, listener, ends, hangups, clients: HashMap::new() };
    server.run(&mut poller)?;
    writeln!(io::stdout(), "{} clients broken off", server.clients.len())
}

/// A stream that has a byte for each of these signals that arrived.
fn signal_pipe(signals: &[i32]) -> io::Result<UnixStream> {
    let (reader, writer) = UnixStream::pair()?;
    for &signal in signals {
        pipe::register(signal, writer.try_clone()?)?;
    }
    Ok(reader)
}

struct Server {
    registry: Registry,
    /// None once the server was told to end.
    listener: Option<TcpListener>,
    ends: UnixStream,
    hangups: UnixStream,
    clients: HashMap<RawFd, Client>,
}

struct Client {
    stream: TcpStream,
    /// Answers that were not yet written, then a line that has not yet come to its end.
    buffer: Vec<u8>,
    answers: usize,
}

impl Server {
    fn run(&mut self, poller: &mut OsPoller) -> io::Result<()> {
        let mut deadline = None;
        while deadline.is_none() || !self.clients.is_empty() {
            let timeout =
                deadline.map(|end: Instant| end.saturating_duration_since(Instant::now()));
            if timeout == Some(Duration::ZERO) {
                break;
            }
            for event in poller.wait_timeout(timeout)? {
                if event.kind == EventKind::Server {
                    self.accept();
                } else if event.fd == self.hangups.as_raw_fd() {
                    self.hangups.read_exact(&mut [0])?;
                    writeln!(io::stdout(), "{} clients", self.clients.len())?;
                } else if event.fd == self.ends.as_raw_fd() {
                    self.ends.read_exact(&mut [0])?;
                    if deadline.is_some() {
                        return Ok(());
                    }
                    deadline = Some(Instant::now() + GRACE);
                    self.finish()?;
                } else {
                    self.talk(event.fd)?;
                }
            }
        }
        Ok(())
    }

    /// Lets in those who have come so far, then nobody else, and lets go of who is in no line.
    fn finish(&mut self) -> io::Result<()> {
        self.accept();
        if let Some(listener) = self.listener.take() {
            self.registry.delete(listener.as_raw_fd())?;
        }
        let clients: Vec<_> = self.clients.keys().copied().collect();
        clients.into_iter().try_for_each(|fd| self.talk(fd))?;
        writeln!(io::stdout(), "{} clients have to finish", self.clients.len())
    }

    /// Lets in all who wait. Those for whom there is no descriptor left wait until a client leaves.
    fn accept(&mut self) {
        let goes_on = |error: io::Error| error.kind() == ErrorKind::ConnectionAborted;
        while self.accept_one().map_or_else(goes_on, |()| true) {}
    }

    fn accept_one(&mut self) -> io::Result<()> {
        let Some(listener) = &self.listener else { return Err(ErrorKind::WouldBlock.into()) };
        let (stream, _) = listener.accept()?;
        stream.set_nonblocking(true)?;
        let fd = stream.as_raw_fd();
        self.registry.add(both_ways(fd))?;
        self.clients.insert(fd, Client { stream, buffer: Vec::new(), answers: 0 });
        Ok(())
    }

    /// A stale event may find another client under the same number, who then has nothing to say:
    /// no harm is done.
    fn talk(&mut self, fd: RawFd) -> io::Result<()> {
        let Some(client) = self.clients.get_mut(&fd) else { return Ok(()) };
        let is_ending = self.listener.is_none();
        match client.talk() {
            // A modify tells again of what is still there, after the others had their turn.
            Ok(ControlFlow::Continue(())) => return self.registry.modify(both_ways(fd)),
            // With nothing in its buffer and nothing to read, it is not in the middle of anything.
            Err(error)
                if error.kind() == ErrorKind::WouldBlock
                    && !(is_ending && client.buffer.is_empty()) =>
            {
                return Ok(());
            }
            _ => {}
        }
        self.registry.delete(fd)?;
        self.clients.remove(&fd);
        self.accept();
        Ok(())
    }
}

/// Asked for once and for all: whichever way a client is stuck, the end of it is told.
fn both_ways(fd: RawFd) -> EventObject {
    let both = Interest::READABLE | Interest::WRITABLE;
    EventObject::client(fd).with_interest(both).with_mode(Mode::Edge)
}

impl Client {
    /// Writes the answers, and only then reads more. Breaks off after the last line.
    fn talk(&mut self) -> io::Result<ControlFlow<()>> {
        for _ in 0..FAIR_SHARE {
            while self.answers > 0 {
                let written = self.stream.write(&self.buffer[..self.answers])?;
                self.buffer.drain(..written);
                self.answers -= written;
            }
            let mut bytes = [0; LINE_SIZE];
            let count = self.stream.read(&mut bytes[self.buffer.len()..])?;
            if count == 0 {
                return Ok(ControlFlow::Break(()));
            }
            self.buffer.extend_from_slice(&bytes[self.buffer.len()..][..count]);
            let end = self.buffer.iter().rposition(|byte| *byte == b'\n');
            self.answers = end.map_or(0, |end| end + 1);
            self.buffer[..self.answers].make_ascii_uppercase();
            if self.answers == 0 && self.buffer.len() == LINE_SIZE {
                return Err(ErrorKind::InvalidData.into());
            }
        }
        Ok(ControlFlow::Continue(()))
    }
}
