//! A server that ends in good order. Whatever a client sends comes back in capitals.
//!
//! `cargo run --release --example graceful_shutdown`, then, elsewhere, `nc 127.0.0.1 7878`. After
//! SIGTERM nobody else is let in, and who has been answered is let go; three seconds later,
//! everybody. SIGHUP makes it say how many there are. An argument is another ADDRESS:PORT.
//!
//! A signal handler may do hardly anything. These write a byte into a pipe, and the pipe is one
//! more descriptor to watch: what a signal does is done in the loop, like all else.

use std::collections::HashMap;
use std::io::{self, BufRead, BufReader, ErrorKind, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::{fd::AsRawFd, fd::RawFd, unix::net::UnixStream};
use std::{env, process, time::Duration};

use pollio::{EventKind, EventObject, Interest, Mode, OsPoller, Poller, Registry, Timer};
use signal_hook::{consts::SIGHUP, consts::SIGTERM, low_level::pipe};

fn main() {
    let address = env::args().nth(1).unwrap_or_else(|| "127.0.0.1:7878".into());
    serve(&address).unwrap_or_else(|error| {
        eprintln!("graceful_shutdown: cannot serve {address}: {error}");
        process::exit(1)
    });
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
    let mut server = Server { registry, listener: Some(listener), clients: HashMap::new() };
    while server.listener.is_some() || !server.clients.is_empty() {
        for event in poller.wait(-1)? {
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
    /// None once the server was told to end.
    listener: Option<TcpListener>,
    /// Each buffer holds what was not yet answered.
    clients: HashMap<RawFd, BufReader<TcpStream>>,
}

impl Server {
    /// Lets in all who wait. Those for whom there is no descriptor left wait until a client leaves.
    fn accept(&mut self) {
        let goes_on = |error: io::Error| error.kind() == ErrorKind::ConnectionAborted;
        while self.accept_one().map_or_else(goes_on, |()| true) {}
    }

    fn accept_one(&mut self) -> io::Result<()> {
        let (stream, _) = self.listener.as_ref().ok_or(ErrorKind::NotConnected)?.accept()?;
        stream.set_nonblocking(true)?;
        self.registry.add(both_ways(stream.as_raw_fd()))?;
        self.clients.insert(stream.as_raw_fd(), BufReader::new(stream));
        Ok(())
    }

    /// Lets in those who have come so far, then nobody else, and has a look at everybody.
    fn finish(&mut self) -> io::Result<()> {
        self.accept();
        if let Some(listener) = self.listener.take() {
            self.registry.delete(listener.as_raw_fd())?;
        }
        self.clients.keys().try_for_each(|fd| self.registry.modify(both_ways(*fd)))
    }

    /// A stale event may find another client under the same number: it is harmless.
    fn answer(&mut self, fd: RawFd) -> io::Result<()> {
        let Some(client) = self.clients.get_mut(&fd) else { return Ok(()) };
        match answer(client).map_err(|error| error.kind()) {
            // A modify tells again of what is still there, after the others had their turn.
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

/// Asked for once and for all: whichever way a client is stuck, the end of it is told.
fn both_ways(fd: RawFd) -> EventObject {
    let both = Interest::READABLE | Interest::WRITABLE;
    EventObject::client(fd).with_interest(both).with_mode(Mode::Edge)
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
