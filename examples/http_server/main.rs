//! An HTTP/1.1 server on all cores: the polling of it. The HTTP is in `connection`, a file apart.
//!
//! `cargo run --release --example http_server -- [--shared] [ADDRESS:PORT [SECONDS]]` listens on
//! 127.0.0.1:8080 unless told otherwise; try `curl -i http://127.0.0.1:8080/path`.
//!
//! Each core has a thread, a poller, and connections of its own. The kernel spreads the clients over
//! as many listeners on one port, by `SO_REUSEPORT` (BSDs and macOS may not spread them). With
//! `--shared` there is one listener, and a poller that is free takes the next client. A connection
//! that completes no request and takes no answer for so many seconds, 10 by default, is closed.

mod connection;

use std::collections::HashMap;
use std::io::{self, ErrorKind, Write};
use std::net::{SocketAddr, TcpListener};
use std::os::{fd::AsRawFd, fd::RawFd};
use std::{env, process, sync::mpsc, thread, time::Duration};

use connection::Connection;
use pollio::{EventKind, EventObject, Interest, Mode, OsPoller, Poller, Registry, Timer};
use socket2::{Domain, Socket, Type};

fn main() {
    let mut arguments = env::args().skip(1).peekable();
    let is_shared = arguments.next_if_eq("--shared").is_some();
    let address = arguments.next().unwrap_or_else(|| "127.0.0.1:8080".into());
    let seconds = arguments.next().unwrap_or_else(|| "10".into());
    serve(is_shared, &address, &seconds).unwrap_or_else(|error| {
        eprintln!("http_server: cannot serve {address}: {error}");
        process::exit(1)
    });
}

/// Serves on all cores until one of them fails.
fn serve(is_shared: bool, address: &str, seconds: &str) -> io::Result<()> {
    let address = address.parse().map_err(io::Error::other)?;
    let idle = Duration::from_secs(seconds.parse().map_err(io::Error::other)?);
    let mut listeners = vec![listen(address, is_shared)?];
    let address = listeners[0].local_addr()?;
    for _ in 1..thread::available_parallelism()?.get() {
        let shared = is_shared.then(|| listeners[0].try_clone());
        listeners.push(shared.unwrap_or_else(|| listen(address, false))?);
    }
    // All are ready before the first begins: once there are clients, there may be no descriptor
    // left for another poller.
    let workers = listeners.into_iter().map(|listener| Worker::new(listener, is_shared));
    let workers = workers.collect::<io::Result<Vec<_>>>()?;
    writeln!(io::stdout(), "listening on {address}")?;
    let (sender, ends) = mpsc::channel();
    for worker in workers {
        let sender = sender.clone();
        thread::spawn(move || sender.send(worker.run(idle)));
    }
    ends.recv().unwrap_or(Ok(()))
}

fn listen(address: SocketAddr, is_shared: bool) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, None)?;
    socket.set_reuse_address(true)?;
    socket.set_reuse_port(!is_shared)?;
    socket.bind(&address.into())?;
    socket.listen(4096)?;
    socket.set_nonblocking(true)?;
    Ok(socket.into())
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
        poller.add(EventObject::client(timer.as_raw_fd()))?;
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
                        // A modify tells again of what is still there, after the others' turn.
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
                    Err(error) => has_clients = error.kind() == ErrorKind::ConnectionAborted,
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

/// Asked for once and for all: whichever way a client is stuck, the end of it is told.
fn both_ways(fd: RawFd) -> EventObject {
    let both = Interest::READABLE | Interest::WRITABLE;
    EventObject::client(fd).with_interest(both).with_mode(Mode::Edge)
}
