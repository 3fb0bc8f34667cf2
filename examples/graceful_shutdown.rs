//! A server that ends in good order. Whatever a client sends comes back in capitals.
//!
//! `cargo run --release -p pollio --example graceful_shutdown`, then, elsewhere,
//! `nc 127.0.0.1 7878`. `--help` says more.
//!
//! A signal handler may do hardly anything. These write a byte into a pipe, and the pipe is one
//! more descriptor to watch: what a signal does is done in the loop, like all else.

use std::collections::{BTreeSet, HashMap};
use std::io::{self, BufRead, BufReader, ErrorKind, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::{fd::AsRawFd, fd::RawFd, unix::net::UnixStream};
use std::{process::ExitCode, sync::Mutex, time::Duration};

use lexopt::{Arg, ValueExt};
use pollio::{EventKind, EventObject, Interest, Mode, OsPoller, Poller, Registry, Timer};
use signal_hook::{consts::SIGHUP, consts::SIGTERM, low_level::pipe};

const HELP: &str = "\
A TCP server that ends in good order. It sends back in capitals whatever a client sends.

Usage: graceful_shutdown [ADDRESS:PORT]

  ADDRESS:PORT  where it listens: a name or a number, and port 0 for any that is free
                [default: 127.0.0.1:7878]
  -h, --help    print this

Talk to it with: nc 127.0.0.1 7878
SIGTERM lets nobody else in, and lets go of each client that has been answered; three seconds later,
of everybody. SIGHUP makes it print how many clients there are.
";

fn main() -> ExitCode {
    let address = match arguments() {
        Ok(Some(address)) => address,
        Ok(None) => {
            let _ = io::stdout().write_all(HELP.as_bytes());
            return ExitCode::SUCCESS;
        }
        Err(error) => {
            let _ = writeln!(io::stderr(), "graceful_shutdown: {error}; try --help");
            return ExitCode::from(2);
        }
    };
    match serve(&address) {
        // A broken pipe is the standard output's: its reader has left, as after `| head`.
        Err(error) if error.kind() != ErrorKind::BrokenPipe => {
            let _ = writeln!(io::stderr(), "graceful_shutdown: cannot serve {address}: {error}");
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
    Ok(Some(address.unwrap_or_else(|| "127.0.0.1:7878".into())))
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
    let (terminate, terminate_writer) = UnixStream::pair()?;
    let (mut hang_up, hang_up_writer) = UnixStream::pair()?;
    pipe::register(SIGTERM, terminate_writer)?;
    pipe::register(SIGHUP, hang_up_writer)?;

    let (mut poller, grace) = (OsPoller::new()?, Timer::new()?);
    poller.add(EventObject::server(listener.as_raw_fd()).with_mode(Mode::Edge))?;
    poller.add(EventObject::client(terminate.as_raw_fd()).with_mode(Mode::Oneshot))?;
    poller.add(EventObject::client(hang_up.as_raw_fd()))?;
    poller.add(EventObject::client(grace.as_raw_fd()))?;
    writeln!(io::stdout(), "listening on {}", listener.local_addr()?)?;
    let registry = poller.registry().clone();
    let mut server =
        Server { registry, listener: Some(listener), clients: HashMap::new(), retry: None };
    while server.listener.is_some() || !server.clients.is_empty() {
        let events = poller.wait_timeout(server.retry)?;
        if server.retry.is_some() {
            server.accept();
        }
        for event in events {
            if event.kind == EventKind::Server {
                server.accept();
            } else if event.fd == terminate.as_raw_fd() {
                grace.set(Duration::from_secs(3))?;
                server.finish()?;
            } else if event.fd == grace.as_raw_fd() {
                return writeln!(io::stdout(), "{} clients broken off", server.clients.len());
            } else if event.fd == hang_up.as_raw_fd() {
                hang_up.read_exact(&mut [0])?;
                writeln!(io::stdout(), "{} clients", server.clients.len())?;
            } else {
                server.answer(event.fd)?;
            }
        }
    }
    Ok(())
}

struct Server {
    registry: Registry,
    /// None once the server is to end.
    listener: Option<TcpListener>,
    /// Each buffer holds what was not yet answered.
    clients: HashMap<RawFd, BufReader<TcpStream>>,
    /// Clients wait that could not be let in: an edge is not reported again for them, so look again
    /// after this long.
    retry: Option<Duration>,
}

impl Server {
    /// Lets in all who wait. Those for whom there is no descriptor left stay in the queue.
    fn accept(&mut self) {
        loop {
            match self.accept_one() {
                Ok(()) => {}
                Err(error) if error.kind() == ErrorKind::ConnectionAborted => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => break self.retry = None,
                Err(error) => {
                    not_served(&error);
                    break self.retry = Some(Duration::from_millis(100));
                }
            }
        }
    }

    fn accept_one(&mut self) -> io::Result<()> {
        let Some(listener) = &self.listener else { return Err(ErrorKind::WouldBlock.into()) };
        let (stream, _) = listener.accept()?;
        stream.set_nonblocking(true)?;
        self.registry.add(both_ways(stream.as_raw_fd()))?;
        self.clients.insert(stream.as_raw_fd(), BufReader::new(stream));
        Ok(())
    }

    /// Lets in those who have come so far, then nobody else, and has a look at everybody.
    fn finish(&mut self) -> io::Result<()> {
        self.accept();
        self.retry = None;
        if let Some(listener) = self.listener.take() {
            self.registry.delete(listener.as_raw_fd())?;
        }
        self.clients.keys().try_for_each(|fd| self.registry.modify(both_ways(*fd)))
    }

    /// A stale event may find another client under the same number: it is harmless.
    fn answer(&mut self, fd: RawFd) -> io::Result<()> {
        let Some(client) = self.clients.get_mut(&fd) else { return Ok(()) };
        match answer(client).map_err(|error| error.kind()) {
            // A modify reports again what is still there, after the others had their turn.
            Ok(()) => self.registry.modify(both_ways(fd)),
            // At the end, only who is owed an answer may stay.
            Err(ErrorKind::WouldBlock) if self.listener.is_some() => Ok(()),
            Err(ErrorKind::WouldBlock) if !client.buffer().is_empty() => Ok(()),
            Err(_) => {
                self.registry.delete(fd)?;
                self.clients.remove(&fd);
                self.accept();
                Ok(())
            }
        }
    }
}

/// Says why a client was not served: each reason once, however many clients it meets.
fn not_served(error: &io::Error) {
    static REASONS: Mutex<BTreeSet<String>> = Mutex::new(BTreeSet::new());
    let reason = format!("graceful_shutdown: a client was not served: {error}");
    if REASONS.lock().unwrap().insert(reason.clone()) {
        let _ = writeln!(io::stderr(), "{reason}");
    }
}

/// Registered once: whichever way a client is stuck, the end of it is reported.
fn both_ways(fd: RawFd) -> EventObject {
    EventObject::client(fd).with_interest(Interest::BOTH).with_mode(Mode::Edge)
}

/// Answers one buffer full. The next is read when all of it is answered, so that who sends and
/// never reads is soon held back.
fn answer(client: &mut BufReader<TcpStream>) -> io::Result<()> {
    let answer = client.fill_buf()?.to_ascii_uppercase();
    if answer.is_empty() {
        return Err(ErrorKind::UnexpectedEof.into());
    }
    let count = client.get_mut().write(&answer)?;
    client.consume(count);
    Ok(())
}
