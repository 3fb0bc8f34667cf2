//! A listener that pauses while there is no descriptor for the next client.

use std::io::{self, ErrorKind::ConnectionAborted, ErrorKind::WouldBlock};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::AsRawFd;
use std::time::{Duration, Instant};

use pollio::{EventObject, Interest, Registered, Registry};
use socket2::{SockRef, TcpKeepalive};

use super::Log;

/// The longest pause until the next attempt to accept.
const PAUSE: Duration = Duration::from_millis(100);

/// A listening socket, `Level`: accept one client for each event. After each wait, of at most
/// [`time_left`](Self::time_left), call [`resume`](Self::resume).
pub(crate) struct Listener {
    socket: Registered<TcpListener>,
    registry: Registry,
    object: EventObject,
    /// The end of the pause: until then nothing is reported, though clients may be in the queue.
    pause: Option<Instant>,
}

impl Listener {
    /// `object` is [`EventObject::server`], or that with more settings.
    pub(crate) fn new(
        registry: &Registry,
        socket: TcpListener,
        object: impl FnOnce(i32) -> EventObject,
    ) -> io::Result<Self> {
        socket.set_nonblocking(true)?;
        // The standard library's queue has room for 128; a client beyond that tries again only after a second.
        SockRef::from(&socket).listen(4096)?;
        let object = object(socket.as_raw_fd());
        let socket = Registered::new(registry, socket, |_| object)?;
        Ok(Self { socket, registry: registry.clone(), object, pause: None })
    }

    pub(crate) fn local_addr(&self) -> io::Result<SocketAddr> {
        self.socket.get_ref().local_addr()
    }

    /// The next client, if there is one.
    pub(crate) fn accept(&mut self, log: &Log) -> Option<TcpStream> {
        loop {
            match self.socket.get_ref().accept() {
                Ok((stream, _)) => match prepare(&stream) {
                    Ok(()) => return Some(stream),
                    Err(error) => log.not_served(&error),
                },
                Err(error) if error.kind() == ConnectionAborted => {}
                Err(error) if error.kind() == WouldBlock => return None,
                Err(error) => {
                    self.pause(&error, log);
                    return None;
                }
            }
        }
    }

    /// Out of descriptors (EMFILE), as a rule: the client stays in the queue until one is free. Reporting it until then
    /// would only keep the processor busy.
    pub(crate) fn pause(&mut self, error: &io::Error, log: &Log) {
        log.not_served(error);
        let paused = match self.object.is_exclusive() {
            // An exclusive one cannot be modified.
            true => self.registry.delete(self.object.fd),
            false => self.registry.modify(self.object.with_interest(Interest::NONE)),
        };
        if paused.is_ok() {
            self.pause = Some(Instant::now() + PAUSE);
        }
    }

    /// How long a wait may take.
    pub(crate) fn time_left(&self) -> Option<Duration> {
        self.pause.map(|end| end.saturating_duration_since(Instant::now()))
    }

    /// Ends the pause, if it is time.
    pub(crate) fn resume(&mut self) {
        if self.pause.is_some_and(|end| end <= Instant::now()) {
            let resumed = match self.object.is_exclusive() {
                true => self.registry.add(self.object),
                false => self.registry.modify(self.object),
            };
            self.pause = if resumed.is_ok() { None } else { Some(Instant::now() + PAUSE) };
        }
    }
}

/// Prepares a connection for a loop.
pub(crate) fn prepare(stream: &TcpStream) -> io::Result<()> {
    stream.set_nonblocking(true)?;
    // Sends short answers at once. It may fail if the peer has already left, which does not matter.
    let _ = stream.set_nodelay(true);
    // The kernel probes a peer that has been silent for a minute. A peer that vanished without closing is an error two
    // minutes after its last packet.
    let probes = TcpKeepalive::new().with_time(Duration::from_secs(60));
    // OpenBSD has one setting for the whole system.
    #[cfg(not(target_os = "openbsd"))]
    let probes = probes.with_interval(Duration::from_secs(10)).with_retries(6);
    let _ = SockRef::from(stream).set_tcp_keepalive(&probes);
    Ok(())
}
