//! An HTTP/1.1 server on all cores: the polling of it. The HTTP is in `connection`, a file apart.
//!
//! `cargo run --release -p pollio --example http_server`, then, elsewhere,
//! `curl -i http://127.0.0.1:8080/path`. `--help` says more.
//!
//! Each core has a thread, a poller, a listener and connections of its own. All listeners share one port by
//! `SO_REUSEPORT`, and the kernel spreads the clients over them (BSDs and macOS may not). With `--shared` there is one
//! listener, and a free poller takes the next client.

mod connection;
#[path = "../shared/mod.rs"]
mod shared;

use std::io::{self, ErrorKind};
use std::net::{TcpListener, TcpStream};
use std::os::{fd::AsRawFd, fd::RawFd, unix::net::UnixStream};
use std::{process::ExitCode, sync::mpsc, thread, time::Duration};

use connection::Connection;
use lexopt::{Arg, ValueExt};
use pollio::{
    Connections, EventKind, EventObject, Interest, Key, Mode, OsPoller, Poller, Registered, Timer,
};
use shared::{Listener, Log, address_and_port};
use signal_hook::consts::{SIGINT, SIGTERM};
use socket2::{Domain, SockRef, Socket, Type};

/// Serves on all cores until one of them fails, or a signal ends them.
fn serve(arguments: &Arguments, log: &Log) -> io::Result<()> {
    let (is_shared, idle) = (arguments.is_shared, arguments.idle);
    let signals = shared::signals(&[SIGINT, SIGTERM])?;
    let listeners = listen(&arguments.address, is_shared)?;
    let address = listeners[0].local_addr()?;
    // All are ready before the first begins: once there are clients, there may be no descriptor
    // left for another poller.
    let workers = listeners
        .into_iter()
        .map(|listener| Worker::new(listener, is_shared, signals.try_clone()?));
    let workers = workers.collect::<io::Result<Vec<_>>>()?;
    let (sender, ends) = mpsc::channel();
    for worker in workers {
        let (sender, log) = (sender.clone(), log.clone());
        shared::spawn(move || drop(sender.send(worker.run(idle, &log))))?;
    }
    log.listening(address)?;
    ends.recv().unwrap_or(Ok(()))
}

struct Worker {
    poller: OsPoller,
    listener: Listener,
    timer: Registered<Timer>,
    signals: Registered<UnixStream>,
}

impl Worker {
    fn new(listener: TcpListener, is_shared: bool, signals: UnixStream) -> io::Result<Self> {
        let poller = OsPoller::new()?;
        let listener = Listener::new(poller.registry(), listener, |fd| {
            let server = EventObject::server(fd);
            if is_shared { server.exclusive() } else { server }
        })?;
        let timer = Registered::new(poller.registry(), Timer::new()?, EventObject::new)?;
        timer.get_ref().set_interval(Duration::from_secs(1))?;
        // No thread reads the byte, so it ends all.
        let signals = Registered::new(poller.registry(), signals, EventObject::new)?;
        Ok(Self { poller, listener, timer, signals })
    }

    /// Serves until an error that is not the fault of a client.
    fn run(mut self, idle: Duration, log: &Log) -> io::Result<()> {
        let mut connections = Connections::new(self.poller.registry());
        loop {
            for event in self.poller.wait_timeout(self.listener.time_left())? {
                if event.kind == EventKind::Server {
                    let Some(stream) = self.listener.accept(log) else { continue };
                    let inserted = connections.insert(stream, both_ways, Connection::new());
                    inserted.err().iter().for_each(|error| log.not_served(error));
                } else if event.fd == self.signals.as_raw_fd() {
                    return Ok(());
                } else if event.fd == self.timer.as_raw_fd() {
                    self.timer.get_ref().clear()?;
                    close_idle(&mut connections, idle);
                } else {
                    serve_one(&mut connections, event.into());
                }
            }
            self.listener.resume();
        }
    }
}

type Clients = Connections<TcpStream, Connection>;

/// Serves a connection until that would block, or it had its share. A stale event finds no connection.
fn serve_one(connections: &mut Clients, key: Key) {
    let Some((stream, connection)) = connections.get_mut(key) else { return };
    let is_over = match connection.serve(stream) {
        // A modify reports the rest again, after the others had their turn.
        Ok(()) => connections.modify(key, both_ways).is_err(),
        Err(error) => error.kind() != ErrorKind::WouldBlock,
    };
    if is_over {
        connections.remove(key);
    }
}

fn close_idle(connections: &mut Clients, limit: Duration) {
    let all = connections.iter();
    let idle: Vec<_> = all.filter_map(|(key, _, it)| it.is_idle(limit).then_some(key)).collect();
    for key in idle {
        // A last look: if this process was stopped, or has too much to do, input that came in time may not be reported
        // yet.
        serve_one(connections, key);
        if connections.get(key).is_some_and(|(_, it)| it.is_idle(limit)) {
            connections.remove(key);
        }
    }
}

/// Registered once, for both directions: when either one is no longer blocked, an event reports it.
fn both_ways(fd: RawFd) -> EventObject {
    EventObject::client(fd).with_interest(Interest::BOTH).with_mode(Mode::Edge)
}

/// A listener for each core.
fn listen(address: &str, is_shared: bool) -> io::Result<Vec<TcpListener>> {
    // Without `SO_REUSEPORT`, which would share the port with another server of this user.
    let first = TcpListener::bind(address)?;
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
        listeners.push(socket.into());
    }
    Ok(listeners)
}

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
Ctrl-C or SIGTERM ends it.
";

struct Arguments {
    address: String,
    idle: Duration,
    is_shared: bool,
}

fn parse(arguments: &mut shared::Arguments) -> Result<Arguments, lexopt::Error> {
    let (mut address, mut idle, mut is_shared) = (None, None, false);
    while let Some(argument) = arguments.next()? {
        match argument {
            Arg::Long("shared") => is_shared = true,
            Arg::Value(value) if address.is_none() => {
                address = Some(value.parse_with(address_and_port)?);
            }
            Arg::Value(value) if idle.is_none() => idle = Some(value.parse_with(seconds)?),
            surplus => return Err(surplus.unexpected()),
        }
    }
    let address = address.unwrap_or_else(|| "127.0.0.1:8080".into());
    Ok(Arguments { address, idle: idle.unwrap_or(Duration::from_secs(10)), is_shared })
}

fn seconds(text: &str) -> Result<Duration, &'static str> {
    text.parse().map(Duration::from_secs).map_err(|_| "SECONDS is a whole number")
}

fn main() -> ExitCode {
    let task = |arguments: &Arguments| format!("serve {}", arguments.address);
    shared::run(HELP, parse, task, serve)
}
