//! A pool: several threads on one poller, and clients that come and go.
//!
//! `cargo run --release -p pollio --example pool`, then, elsewhere, `nc 127.0.0.1 7979`, and type `500`.
//! `--help` says more.
//!
//! Where some requests take long, a free thread serves the next client, so no client waits behind a busy thread. Each
//! registration is a oneshot: one thread gets its event, and no other has the client until that one calls `modify`. The
//! price is that call, and a lock for each event: with `--apart`, each thread has a poller and clients of its own, to
//! compare.

mod shared;

use std::collections::HashMap;
use std::io::{self, ErrorKind, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::{fd::AsRawFd, fd::RawFd, unix::net::UnixStream};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, mpsc};
use std::{process::ExitCode, str, thread, time::Duration};

use lexopt::{Arg, ValueExt};
use pollio::{
    Event, EventKind, EventObject, Interest, Mode, OsPoller, Poller, Registered, Registry, Timer,
};
use shared::{Log, address_and_port};
use signal_hook::consts::{SIGINT, SIGTERM};
use socket2::SockRef;

/// The longest request, and the most that is read before it is answered.
const LONGEST: usize = 4 * 1024;

/// Serves until a signal ends all threads.
fn serve(arguments: &Arguments, log: &Log) -> io::Result<()> {
    let signals = shared::signals(&[SIGINT, SIGTERM])?;
    let listener = TcpListener::bind(&arguments.address)?;
    listener.set_nonblocking(true)?;
    SockRef::from(&listener).listen(4096)?;
    let address = listener.local_addr()?;
    // Everything that takes a descriptor comes before the first client.
    let mut workers = Vec::new();
    for _ in 0..arguments.threads {
        let worker = match workers.first() {
            Some(Worker { poller, pool }) if !arguments.is_apart => {
                Worker { poller: poller.try_clone()?, pool: Arc::clone(pool) }
            }
            _ => Worker::new(listener.try_clone()?, signals.try_clone()?, log)?,
        };
        workers.push(worker);
    }
    let (sender, ends) = mpsc::channel();
    for worker in workers {
        let sender = sender.clone();
        shared::spawn(move || drop(sender.send(worker.run())))?;
    }
    log.listening(address)?;
    ends.recv().unwrap_or(Ok(()))
}

/// A thread, and its handle on a poller.
struct Worker {
    poller: OsPoller,
    pool: Arc<Pool>,
}

impl Worker {
    /// The first thread of a pool.
    fn new(listener: TcpListener, signals: UnixStream, log: &Log) -> io::Result<Self> {
        let mut poller = OsPoller::new()?;
        // One event at a time: no other thread can serve the events that this one has taken.
        poller.set_max_events(1);
        let registry = poller.registry();
        let pool = Pool {
            registry: registry.clone(),
            // With `Level`, each client would wake every thread.
            listener: Registered::new(registry, listener, server)?,
            retry: Registered::new(registry, Timer::new()?, EventObject::new)?,
            // `Level`, and no thread reads the byte, so it ends all threads.
            signals: Registered::new(registry, signals, EventObject::new)?,
            clients: Mutex::default(),
            log: log.clone(),
        };
        Ok(Self { poller, pool: Arc::new(pool) })
    }

    fn run(mut self) -> io::Result<()> {
        let pool = self.pool;
        loop {
            for event in self.poller.wait(-1)? {
                if event.kind == EventKind::Server {
                    pool.accept()?;
                } else if event.fd == pool.signals.as_raw_fd() {
                    return Ok(());
                } else if event.fd == pool.retry.as_raw_fd() {
                    // Several threads get this event; one of them clears it.
                    if pool.retry.get_ref().clear()? > 0 {
                        pool.listener.modify(server)?;
                    }
                } else {
                    pool.serve(event);
                }
            }
        }
    }
}

/// What the threads share.
struct Pool {
    registry: Registry,
    listener: Registered<TcpListener>,
    /// Goes off when the listener's pause is over.
    retry: Registered<Timer>,
    signals: Registered<UnixStream>,
    clients: Mutex<Clients>,
    log: Log,
}

/// By token: `None` while a thread serves it. (`Connections` lends what it owns, and to one thread.)
#[derive(Default)]
struct Clients {
    by_token: HashMap<u32, Option<Client>>,
    next_token: u32,
}

impl Pool {
    /// Locked for as long as a look-up takes, never during a system call.
    fn clients(&self) -> MutexGuard<'_, Clients> {
        self.clients.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Accepts one client. Only then may another thread have the next.
    fn accept(&self) -> io::Result<()> {
        match self.listener.get_ref().accept() {
            Ok((stream, _)) => {
                let prepared = shared::prepare(&stream).and_then(|()| self.insert(stream));
                prepared.err().iter().for_each(|error| self.log.not_served(error));
            }
            Err(error) if error.kind() == ErrorKind::WouldBlock => {}
            Err(error) if error.kind() == ErrorKind::ConnectionAborted => {}
            // Out of descriptors, as a rule: the client stays in the queue, and the listener stays silent.
            Err(error) => {
                self.log.not_served(&error);
                return self.retry.get_ref().set(Duration::from_millis(100));
            }
        }
        self.listener.modify(server)
    }

    fn insert(&self, stream: TcpStream) -> io::Result<()> {
        let fd = stream.as_raw_fd();
        let mut clients = self.clients();
        // After 2^32 clients, skips the tokens in use.
        while clients.by_token.contains_key(&clients.next_token) {
            clients.next_token = clients.next_token.wrapping_add(1);
        }
        let token = clients.next_token;
        clients.next_token = token.wrapping_add(1);
        // Before `add`: another thread may get its first event at once.
        let client = Client { stream, input: Vec::new(), output: Vec::new() };
        clients.by_token.insert(token, Some(client));
        drop(clients);
        let added = self.registry.add(oneshot(fd, token, Interest::READABLE));
        if added.is_err() {
            self.clients().by_token.remove(&token);
        }
        added
    }

    /// Takes a client from the others, and gives it back before it can have another event.
    fn serve(&self, event: &Event) {
        let (fd, token) = (event.fd, event.token);
        let taken = self.clients().by_token.get_mut(&token).and_then(Option::take);
        let Some(mut client) = taken else { return };
        let served = client.serve();
        if served.is_ok() {
            self.clients().by_token.insert(token, Some(client));
        }
        let goes_on =
            served.and_then(|interest| self.registry.modify(oneshot(fd, token, interest)));
        if goes_on.is_err() {
            // Deleted, then closed: only then is its number free for others.
            let _ = self.registry.delete(fd);
            self.clients().by_token.remove(&token);
        }
    }
}

fn server(fd: RawFd) -> EventObject {
    EventObject::server(fd).with_mode(Mode::Oneshot)
}

fn oneshot(fd: RawFd, token: u32, interest: Interest) -> EventObject {
    EventObject::client(fd).with_token(token).with_interest(interest).with_mode(Mode::Oneshot)
}

struct Client {
    stream: TcpStream,
    /// The part of a request that has come so far.
    input: Vec<u8>,
    /// Answers that are still to be sent.
    output: Vec<u8>,
}

impl Client {
    /// Sends the answers that are due, then answers the requests of one read. Returns the interest to wait for.
    fn serve(&mut self) -> io::Result<Interest> {
        if self.output.is_empty() {
            let mut bytes = [0; LONGEST];
            let room = &mut bytes[self.input.len()..];
            match self.stream.read(room) {
                Ok(0) => return Err(ErrorKind::UnexpectedEof.into()),
                Ok(count) => self.input.extend(&room[..count]),
                Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                Err(error) => return Err(error),
            }
            while let Some(end) = self.input.iter().position(|byte| *byte == b'\n') {
                let request = self.input.drain(..=end);
                self.output.extend(request.as_slice());
                work(request.as_slice());
            }
            if self.input.len() == LONGEST {
                return Err(ErrorKind::InvalidData.into());
            }
        }
        if self.output.is_empty() {
            return Ok(Interest::READABLE);
        }
        match self.stream.write(&self.output) {
            Ok(count) => drop(self.output.drain(..count)),
            Err(error) if error.kind() == ErrorKind::WouldBlock => {}
            Err(error) => return Err(error),
        }
        Ok(if self.output.is_empty() { Interest::READABLE } else { Interest::WRITABLE })
    }
}

/// Stands for work that takes as many milliseconds as the request says.
fn work(request: &[u8]) {
    let time = str::from_utf8(request).ok().and_then(|text| text.trim().parse().ok());
    let time = Duration::from_millis(time.unwrap_or(0));
    if !time.is_zero() {
        thread::sleep(time.min(Duration::from_secs(10)));
    }
}

const HELP: &str = "\
A TCP server whose requests take long: each line is one, and how many milliseconds it takes. The
answer is the same line.

Usage: pool [--apart] [ADDRESS:PORT [THREADS]]

  ADDRESS:PORT  where it listens: a name or a number, and port 0 for any that is free
                [default: 127.0.0.1:7979]
  THREADS       how many serve [default: 4]
  --apart       a poller and clients for each thread, in the place of one poller for all
  -h, --help    print this

Talk to it with: nc 127.0.0.1 7979
Ctrl-C or SIGTERM ends it. A client that has vanished is let go after two minutes without a word
(keepalive).
";

struct Arguments {
    address: String,
    threads: usize,
    is_apart: bool,
}

fn parse(arguments: &mut shared::Arguments) -> Result<Arguments, lexopt::Error> {
    let (mut address, mut threads, mut is_apart) = (None, None, false);
    while let Some(argument) = arguments.next()? {
        match argument {
            Arg::Long("apart") => is_apart = true,
            Arg::Value(value) if address.is_none() => {
                address = Some(value.parse_with(address_and_port)?);
            }
            Arg::Value(value) if threads.is_none() => threads = Some(value.parse_with(number)?),
            surplus => return Err(surplus.unexpected()),
        }
    }
    let address = address.unwrap_or_else(|| "127.0.0.1:7979".into());
    Ok(Arguments { address, threads: threads.unwrap_or(4), is_apart })
}

fn number(text: &str) -> Result<usize, &'static str> {
    match text.parse() {
        Ok(number @ 1..) => Ok(number),
        _ => Err("THREADS is a whole number above 0"),
    }
}

fn main() -> ExitCode {
    let task = |arguments: &Arguments| format!("serve {}", arguments.address);
    shared::run(HELP, parse, task, serve)
}
