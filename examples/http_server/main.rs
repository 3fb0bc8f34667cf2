//! An HTTP/1.1 server on all cores: the polling of it. The HTTP is in `connection`, a file apart.
//!
//! `cargo run --release -p pollio --example http_server`, then, elsewhere,
//! `curl -i http://127.0.0.1:8080/path`. `--help` says more.
//!
//! Each core has a thread, a poller, and connections of its own. The kernel spreads the clients over
//! as many listeners on one port, by `SO_REUSEPORT` (BSDs and macOS may not spread them). With
//! `--shared` there is one listener, and a poller that is free takes the next client.

mod connection;

use std::collections::{BTreeSet, HashMap};
use std::io::{self, ErrorKind, Write};
use std::net::TcpListener;
use std::os::{fd::AsRawFd, fd::RawFd};
use std::{process::ExitCode, sync::Mutex, sync::mpsc, thread, time::Duration};

use connection::Connection;
use lexopt::{Arg, ValueExt};
use pollio::{EventKind, EventObject, Interest, Mode, OsPoller, Poller, Registry, Timer};
use socket2::{Domain, SockRef, Socket, Type};

const HELP: &str = "\
An HTTP/1.1 server on all cores, which answers GET and HEAD with what was asked for.

Usage: http_server [--shared] [ADDRESS:PORT [SECONDS]]

  ADDRESS:PORT  where it listens: a name or a number, and port 0 for any that is free
                [default: 127.0.0.1:8080]
  SECONDS       closes a connection that has completed no request and taken no answer for so long
                [default: 10]
  --shared      one listener for all cores, in the place of one for each
  -h, --help    print this

Try it with: curl -i http://127.0.0.1:8080/path
";

fn main() -> ExitCode {
    let arguments = match Arguments::parse() {
        Ok(Some(arguments)) => arguments,
        Ok(None) => {
            let _ = io::stdout().write_all(HELP.as_bytes());
            return ExitCode::SUCCESS;
        }
        Err(error) => {
            let _ = writeln!(io::stderr(), "http_server: {error}; try --help");
            return ExitCode::from(2);
        }
    };
    match serve(&arguments) {
        // A broken pipe is the standard output's: its reader has left, as after `| head`.
        Err(error) if error.kind() != ErrorKind::BrokenPipe => {
            let address = arguments.address;
            let _ = writeln!(io::stderr(), "http_server: cannot serve {address}: {error}");
            ExitCode::FAILURE
        }
        _ => ExitCode::SUCCESS,
    }
}

struct Arguments {
    address: String,
    idle: Duration,
    is_shared: bool,
}

impl Arguments {
    /// `None` for the help.
    fn parse() -> Result<Option<Self>, lexopt::Error> {
        let mut parser = lexopt::Parser::from_env();
        let (mut address, mut idle, mut is_shared) = (None, None, false);
        while let Some(argument) = parser.next()? {
            match argument {
                Arg::Short('h') | Arg::Long("help") => return Ok(None),
                Arg::Long("shared") => is_shared = true,
                Arg::Value(value) if address.is_none() => {
                    address = Some(value.parse_with(address_and_port)?);
                }
                Arg::Value(value) if idle.is_none() => idle = Some(value.parse_with(seconds)?),
                surplus => return Err(surplus.unexpected()),
            }
        }
        let address = address.unwrap_or_else(|| "127.0.0.1:8080".into());
        let idle = idle.unwrap_or(Duration::from_secs(10));
        Ok(Some(Self { address, idle, is_shared }))
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
    text.parse().map(Duration::from_secs).map_err(|_| "SECONDS is a whole number")
}

/// Serves on all cores until one of them fails.
fn serve(arguments: &Arguments) -> io::Result<()> {
    let is_shared = arguments.is_shared;
    let listeners = listen(&arguments.address, is_shared)?;
    let address = listeners[0].local_addr()?;
    // All are ready before the first begins: once there are clients, there may be no descriptor
    // left for another poller.
    let workers = listeners.into_iter().map(|listener| Worker::new(listener, is_shared));
    let workers = workers.collect::<io::Result<Vec<_>>>()?;
    writeln!(io::stdout(), "listening on {address}")?;
    let (sender, ends) = mpsc::channel();
    for worker in workers {
        let (sender, idle) = (sender.clone(), arguments.idle);
        thread::spawn(move || sender.send(worker.run(idle)));
    }
    ends.recv().unwrap_or(Ok(()))
}

/// A listener for each core.
fn listen(address: &str, is_shared: bool) -> io::Result<Vec<TcpListener>> {
    // Without `SO_REUSEPORT`, with which it would share the port with another server of this user.
    let first = TcpListener::bind(address)?;
    first.set_nonblocking(true)?;
    SockRef::from(&first).listen(4096)?;
    SockRef::from(&first).set_reuse_port(!is_shared)?;
    let address = first.local_addr()?;
    let mut listeners = vec![first];
    for _ in 1..thread::available_parallelism()?.get() {
        if is_shared {
            listeners.push(listeners[0].try_clone()?);
            continue;
        }
        let socket = Socket::new(Domain::for_address(address), Type::STREAM, None)?;
        socket.set_reuse_address(true)?;
        socket.set_reuse_port(true)?;
        socket.bind(&address.into())?;
        socket.listen(4096)?;
        socket.set_nonblocking(true)?;
        listeners.push(socket.into());
    }
    Ok(listeners)
}

/// Says why a client was not served: each reason once, however many clients it meets.
fn not_served(error: &io::Error) {
    static REASONS: Mutex<BTreeSet<String>> = Mutex::new(BTreeSet::new());
    let reason = format!("http_server: a client was not served: {error}");
    if REASONS.lock().unwrap().insert(reason.clone()) {
        let _ = writeln!(io::stderr(), "{reason}");
    }
}

struct Worker {
    poller: OsPoller,
    listener: TcpListener,
    timer: Timer,
}

impl Worker {
    fn new(listener: TcpListener, is_shared: bool) -> io::Result<Self> {
        let (poller, timer) = (OsPoller::new()?, Timer::new()?);
        let server = EventObject::server(listener.as_raw_fd()).with_mode(Mode::Edge);
        poller.add(if is_shared { server.exclusive() } else { server })?;
        poller.add(EventObject::new(timer.as_raw_fd()))?;
        timer.set_interval(Duration::from_secs(1))?;
        Ok(Self { poller, listener, timer })
    }

    /// Serves until something fails that is not the fault of a client.
    fn run(mut self, idle: Duration) -> io::Result<()> {
        let registry = self.poller.registry().clone();
        let mut connections = HashMap::<RawFd, Connection>::new();
        loop {
            let mut has_clients = false;
            for event in self.poller.wait(-1)? {
                if event.kind == EventKind::Server {
                    has_clients = true;
                } else if event.fd == self.timer.as_raw_fd() {
                    self.timer.clear()?;
                    // Those for whom there was no descriptor, as a rule.
                    has_clients = true;
                    connections.retain(|fd, connection| {
                        let is_active = connection.last_active.elapsed() < idle;
                        is_active || registry.delete(*fd).is_err()
                    });
                } else if let Some(connection) = connections.get_mut(&event.fd) {
                    match connection.serve().map_err(|error| error.kind()) {
                        // A modify reports again what is still there, after the others' turn.
                        Ok(()) => registry.modify(both_ways(event.fd))?,
                        Err(ErrorKind::WouldBlock) => {}
                        Err(_) => {
                            registry.delete(event.fd)?;
                            connections.remove(&event.fd);
                        }
                    }
                }
            }
            // Only now, so that no stale event finds a new connection under an old number.
            while has_clients {
                match accept(&self.listener, &registry) {
                    Ok((fd, connection)) => drop(connections.insert(fd, connection)),
                    Err(error) if error.kind() == ErrorKind::WouldBlock => has_clients = false,
                    Err(error) if error.kind() == ErrorKind::ConnectionAborted => {}
                    // Out of descriptors, as a rule: the timer looks again.
                    Err(error) => {
                        not_served(&error);
                        has_clients = false;
                    }
                }
            }
        }
    }
}

fn accept(listener: &TcpListener, registry: &Registry) -> io::Result<(RawFd, Connection)> {
    let (stream, _) = listener.accept()?;
    stream.set_nonblocking(true)?;
    let _ = stream.set_nodelay(true);
    let fd = stream.as_raw_fd();
    registry.add(both_ways(fd))?;
    Ok((fd, Connection::new(stream)))
}

/// Registered once: whichever way a client is stuck, the end of it is reported.
fn both_ways(fd: RawFd) -> EventObject {
    EventObject::client(fd).with_interest(Interest::BOTH).with_mode(Mode::Edge)
}
