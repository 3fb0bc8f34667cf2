//! One of the pollers: it lets clients in, tells their connections what is ready, and closes those
//! that are idle, with one timer for all of them.

use std::collections::{BTreeSet, HashMap};
use std::io::{self, ErrorKind};
use std::net::TcpListener;
use std::ops::ControlFlow;
use std::os::{fd::AsRawFd, fd::RawFd};
use std::time::{Duration, Instant};

use pollio::{EventKind, EventObject, Interest, Mode, OsPoller, Poller, Registry, Timer};

use crate::connection::Connection;

/// How soon to try again to let in a client when that failed.
const RETRY_AFTER: Duration = Duration::from_millis(100);

pub(crate) struct Worker {
    listener: TcpListener,
    registry: Registry,
    connections: HashMap<RawFd, (Connection, Instant)>,
    timer: Timer,
    /// When to look whether a connection is idle. Each has one entry, the time beside it above.
    timeouts: BTreeSet<(Instant, RawFd)>,
    idle: Duration,
}

impl Worker {
    pub(crate) fn new(
        poller: &OsPoller,
        listener: TcpListener,
        is_shared: bool,
        idle: Duration,
    ) -> io::Result<Self> {
        let server = EventObject::server(listener.as_raw_fd()).with_mode(Mode::Edge);
        poller.add(if is_shared { server.exclusive() } else { server })?;
        let timer = Timer::new()?;
        poller.add(EventObject::client(timer.as_raw_fd()))?;
        let (registry, connections) = (poller.registry().clone(), HashMap::new());
        Ok(Self { listener, registry, connections, timer, timeouts: BTreeSet::new(), idle })
    }

    /// Serves until something fails that is not the fault of a client.
    pub(crate) fn run(mut self, mut poller: OsPoller) -> io::Result<()> {
        loop {
            for event in poller.wait(-1)? {
                match event.kind {
                    EventKind::Server => self.accept()?,
                    EventKind::Client if event.fd == self.timer.as_raw_fd() => self.time_out()?,
                    EventKind::Client => self.serve(event.fd)?,
                }
            }
        }
    }

    fn accept(&mut self) -> io::Result<()> {
        loop {
            match self.accept_one().map_err(|error| error.kind()) {
                Ok(()) | Err(ErrorKind::ConnectionAborted) => {}
                Err(ErrorKind::WouldBlock) => return Ok(()),
                // Out of descriptors (EMFILE), as a rule. The client waits for one.
                Err(_) => return self.timer.set(RETRY_AFTER),
            }
        }
    }

    fn accept_one(&mut self) -> io::Result<()> {
        let (stream, _) = self.listener.accept()?;
        stream.set_nonblocking(true)?;
        // Where a client that has left again refuses this, so be it.
        let _ = stream.set_nodelay(true);
        let fd = stream.as_raw_fd();
        self.registry.add(both_ways(fd))?;
        let timeout = Instant::now() + self.idle;
        self.connections.insert(fd, (Connection::new(stream), timeout));
        if self.timeouts.is_empty() {
            self.timer.set(self.idle)?;
        }
        self.timeouts.insert((timeout, fd));
        Ok(())
    }

    /// A stale event may find another connection under the same number, with nothing to read or to
    /// write: no harm is done.
    fn serve(&mut self, fd: RawFd) -> io::Result<()> {
        let Some((connection, _)) = self.connections.get_mut(&fd) else { return Ok(()) };
        match connection.serve() {
            // A modify tells again of what is still there, after the others had their turn.
            Ok(ControlFlow::Continue(())) => self.registry.modify(both_ways(fd)),
            Err(error) if error.kind() == ErrorKind::WouldBlock => Ok(()),
            _ => self.close(fd),
        }
    }

    fn close(&mut self, fd: RawFd) -> io::Result<()> {
        self.registry.delete(fd)?;
        let Some((_, timeout)) = self.connections.remove(&fd) else { return Ok(()) };
        self.timeouts.remove(&(timeout, fd));
        Ok(())
    }

    /// Closes the connections that are idle, and tries again to let others in. A connection that
    /// was active is put off only here, so that a request costs nothing for it.
    fn time_out(&mut self) -> io::Result<()> {
        self.timer.clear()?;
        let now = Instant::now();
        while let Some(&(due, fd)) = self.timeouts.first() {
            if due > now {
                self.timer.set(due - now)?;
                break;
            }
            let Some((connection, timeout)) = self.connections.get_mut(&fd) else { break };
            if connection.last_active() + self.idle <= now {
                self.close(fd)?;
            } else {
                *timeout = connection.last_active() + self.idle;
                self.timeouts.remove(&(due, fd));
                self.timeouts.insert((*timeout, fd));
            }
        }
        self.accept()
    }
}

/// Asked for once and for all: whichever way a client is stuck, the end of it is told.
fn both_ways(fd: RawFd) -> EventObject {
    let both = Interest::READABLE | Interest::WRITABLE;
    EventObject::client(fd).with_interest(both).with_mode(Mode::Edge)
}
