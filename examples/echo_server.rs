//! An echo server: it sends each client's bytes back.
//!
//! `cargo run --release -p pollio --example echo_server`, then, elsewhere,
//! `nc 127.0.0.1 7777`. `--help` says more.
//!
//! Connections are edge-triggered here: readiness is reported when it arrives, and not again. So a handler goes on
//! until `WouldBlock`. If it stops earlier, it makes sure that it is called again.

mod shared;

use std::io::{self, ErrorKind, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::fd::{AsRawFd, RawFd};
use std::{ops::ControlFlow, ops::Range, process::ExitCode};

use pollio::{Connections, EventKind, EventObject, Interest, Mode, OsPoller, Poller, Registered};
use shared::{Listener, Log};
use signal_hook::consts::{SIGINT, SIGTERM};

/// All the memory of a client: one that sends and never reads can fill no more.
const BUFFER_SIZE: usize = 16 * 1024;
/// The number of times in a row that a client may fill its buffer before the others have their turn.
const FAIR_SHARE: usize = 16;

fn serve(address: &str, log: &Log) -> io::Result<()> {
    let mut poller = OsPoller::new()?;
    let registry = poller.registry().clone();
    let signals = shared::signals(&[SIGINT, SIGTERM])?;
    let signals = Registered::new(&registry, signals, EventObject::new)?;
    let mut listener = Listener::new(&registry, TcpListener::bind(address)?, EventObject::server)?;
    log.listening(listener.local_addr()?)?;

    let mut clients = Connections::new(&registry);
    let (mut count, mut most, mut broken, mut bytes) = (0, 0, 0, 0);
    'serving: loop {
        for event in poller.wait_timeout(listener.time_left())? {
            if event.kind == EventKind::Server {
                let Some(stream) = listener.accept(log) else { continue };
                match clients.insert(stream, both_ways, Buffer::new()) {
                    Ok(_) => (count, most) = (count + 1, most.max(clients.len())),
                    Err(error) => log.not_served(&error),
                }
            } else if event.fd == signals.as_raw_fd() {
                break 'serving;
            } else if let Some((stream, buffer)) = clients.get_mut(event) {
                match buffer.echo(stream, &mut bytes) {
                    // A modify reports the rest again, after the others had their turn.
                    Ok(ControlFlow::Continue(())) if clients.modify(event, both_ways).is_ok() => {}
                    Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                    end => {
                        broken += usize::from(!matches!(end, Ok(ControlFlow::Break(()))));
                        clients.remove(event);
                    }
                }
            }
        }
        listener.resume();
    }
    log.print(format!("{count} clients, {most} at once, {broken} broken off; {bytes} bytes"));
    Ok(())
}

/// Registered once, for both directions: when either one is no longer blocked, an event reports it.
fn both_ways(fd: RawFd) -> EventObject {
    EventObject::client(fd).with_interest(Interest::BOTH).with_mode(Mode::Edge)
}

struct Buffer {
    bytes: Box<[u8; BUFFER_SIZE]>,
    /// The part that is read but not yet written.
    unsent: Range<usize>,
}

impl Buffer {
    fn new() -> Self {
        Self { bytes: Box::new([0; BUFFER_SIZE]), unsent: 0..0 }
    }

    /// Writes the bytes that were read, and only then reads more: a client that does not read is soon unable to send,
    /// and delays no other. Breaks off after the last byte.
    fn echo(&mut self, mut stream: &TcpStream, sent: &mut usize) -> io::Result<ControlFlow<()>> {
        for _ in 0..FAIR_SHARE {
            while !self.unsent.is_empty() {
                let written = stream.write(&self.bytes[self.unsent.clone()])?;
                self.unsent.start += written;
                *sent += written;
            }
            self.unsent = 0..stream.read(&mut *self.bytes)?;
            if self.unsent.is_empty() {
                return Ok(ControlFlow::Break(()));
            }
        }
        Ok(ControlFlow::Continue(()))
    }
}

const HELP: &str = "\
A TCP server that sends back whatever a client sends.

Usage: echo_server [ADDRESS:PORT]

  ADDRESS:PORT  where it listens: a name or a number, and port 0 for any that is free
                [default: 127.0.0.1:7777]
  -h, --help    print this

Talk to it with: nc 127.0.0.1 7777
Ctrl-C or SIGTERM ends it, with a line of statistics. A client that has vanished is let go after two
minutes without a word (keepalive).
";

fn main() -> ExitCode {
    shared::run_on("127.0.0.1:7777", HELP, serve)
}
