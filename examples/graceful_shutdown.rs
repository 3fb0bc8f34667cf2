//! A server that ends in good order. It sends each client's bytes back in capitals.
//!
//! `cargo run --release -p pollio --example graceful_shutdown`, then, elsewhere,
//! `nc 127.0.0.1 7878`. `--help` says more.
//!
//! A signal handler may do hardly anything. These write a byte into a pipe, and the loop watches the pipe like any
//! other descriptor. So the loop does the work of a signal.

mod shared;

use std::io::{self, ErrorKind, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::fd::{AsRawFd, RawFd};
use std::{ops::Range, process::ExitCode, time::Duration};

use pollio::{
    Connections, EventKind, EventObject, Interest, Mode, OsPoller, Poller, Registered, Timer,
};
use shared::{Listener, Log};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};

/// The time that clients have to finish.
const GRACE: Duration = Duration::from_secs(3);

fn serve(address: &str, log: &Log) -> io::Result<()> {
    let mut poller = OsPoller::new()?;
    let registry = poller.registry().clone();
    let terminate = Registered::new(&registry, shared::signals(&[SIGINT, SIGTERM])?, |fd| {
        EventObject::new(fd).with_mode(Mode::Oneshot)
    })?;
    let hang_up = Registered::new(&registry, shared::signals(&[SIGHUP])?, EventObject::new)?;
    let grace = Registered::new(&registry, Timer::new()?, EventObject::new)?;
    let listener = Listener::new(&registry, TcpListener::bind(address)?, EventObject::server)?;
    log.listening(listener.local_addr()?)?;

    // `None` when the server is ending.
    let mut listener = Some(listener);
    let mut clients = Connections::new(&registry);
    while listener.is_some() || !clients.is_empty() {
        for event in poller.wait_timeout(listener.as_ref().and_then(Listener::time_left))? {
            if event.kind == EventKind::Server {
                accept(&mut listener, &mut clients, log);
            } else if event.fd == terminate.as_raw_fd() {
                grace.get_ref().set(GRACE)?;
                // Accepts the clients that have come so far, and no others, then checks every client.
                while accept(&mut listener, &mut clients, log) {}
                listener = None;
                clients.iter().for_each(|(key, ..)| drop(clients.modify(key, both_ways)));
            } else if event.fd == grace.as_raw_fd() {
                let count = answer_all(&mut clients);
                if count > 0 {
                    log.print(format!("{count} clients broken off"));
                }
                return Ok(());
            } else if event.fd == hang_up.as_raw_fd() {
                hang_up.get_ref().read_exact(&mut [0])?;
                log.print(format!("{} clients", clients.len()));
            } else if let Some((stream, answers)) = clients.get_mut(event) {
                let end = answers.answer(stream).map_err(|error| error.kind());
                let is_owed = !answers.unsent.is_empty();
                let stays = match end {
                    // A modify reports the rest again, after the others had their turn.
                    Ok(()) => clients.modify(event, both_ways).is_ok(),
                    // At the end, only clients with an unsent answer may stay.
                    Err(ErrorKind::WouldBlock) => is_owed || listener.is_some(),
                    Err(_) => false,
                };
                if !stays {
                    clients.remove(event);
                }
            }
        }
        listener.iter_mut().for_each(Listener::resume);
    }
    Ok(())
}

type Clients = Connections<TcpStream, Answers>;

/// Lets in the next client. Returns whether there was one.
fn accept(listener: &mut Option<Listener>, clients: &mut Clients, log: &Log) -> bool {
    let stream = listener.as_mut().and_then(|listener| listener.accept(log));
    let inserted = stream.map(|stream| clients.insert(stream, both_ways, Answers::new()));
    if let Some(Err(error)) = &inserted {
        log.not_served(error);
    }
    inserted.is_some()
}

/// Answers the input that came in time, when the time is over: a process that was stopped for a while notices the time
/// first. Returns the number of clients with answers that their kernel has no room for.
fn answer_all(clients: &mut Clients) -> usize {
    /// A client that sends all the time gets at most this many buffers.
    const LAST_ANSWERS: usize = 1_000;
    let mut owed = 0;
    for (_, stream, answers) in clients.iter_mut() {
        let end = (0..LAST_ANSWERS).try_for_each(|_| answers.answer(stream));
        let is_open = end.err().is_none_or(|error| error.kind() == ErrorKind::WouldBlock);
        owed += usize::from(is_open && !answers.unsent.is_empty());
    }
    owed
}

/// Registered once, for both directions: when either one is no longer blocked, an event reports it.
fn both_ways(fd: RawFd) -> EventObject {
    EventObject::client(fd).with_interest(Interest::BOTH).with_mode(Mode::Edge)
}

struct Answers {
    bytes: Box<[u8; 8 * 1024]>,
    /// The part that is not yet sent.
    unsent: Range<usize>,
}

impl Answers {
    fn new() -> Self {
        Self { bytes: Box::new([0; 8 * 1024]), unsent: 0..0 }
    }

    /// Answers one full buffer. The next is read when all of it is answered, so that a client that sends and never
    /// reads is soon held back.
    fn answer(&mut self, mut stream: &TcpStream) -> io::Result<()> {
        if self.unsent.is_empty() {
            self.unsent = 0..stream.read(&mut *self.bytes)?;
            if self.unsent.is_empty() {
                return Err(ErrorKind::UnexpectedEof.into());
            }
            self.bytes.make_ascii_uppercase();
        }
        self.unsent.start += stream.write(&self.bytes[self.unsent.clone()])?;
        Ok(())
    }
}

const HELP: &str = "\
A TCP server that ends in good order. It sends back in capitals whatever a client sends.

Usage: graceful_shutdown [ADDRESS:PORT]

  ADDRESS:PORT  where it listens: a name or a number, and port 0 for any that is free
                [default: 127.0.0.1:7878]
  -h, --help    print this

Talk to it with: nc 127.0.0.1 7878
Ctrl-C or SIGTERM lets nobody else in, and lets go of each client that has been answered; three
seconds later, of everybody. SIGHUP makes it print how many clients there are. A client that has
vanished is let go after two minutes without a word (keepalive).
";

fn main() -> ExitCode {
    shared::run_on("127.0.0.1:7878", HELP, serve)
}
