//! An echo server over TLS: a library between the socket and the program, which reads ahead.
//!
//! `cargo run --release -p pollio-tls-server`, then, elsewhere,
//! `openssl s_client -connect 127.0.0.1:7443`. `--help` says more.
//!
//! No poller reports the bytes that rustls has taken from the kernel. So a client that has had its share is noted, and
//! gets its next turn without an event. (A `modify` reports only bytes that the *kernel* has left: here it would help
//! only because there is room to write as well.)

#[path = "../../shared/mod.rs"]
mod shared;

use std::collections::BTreeSet;
use std::io::{self, ErrorKind, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::fd::{AsRawFd, RawFd};
use std::path::PathBuf;
use std::sync::Arc;
use std::{fs, mem, process::ExitCode, time::Duration};

use lexopt::{Arg, ValueExt};
use pollio::{
    Connections, EventKind, EventObject, Interest, Key, Mode, OsPoller, Poller, Registered,
};
use rustls::pki_types::PrivatePkcs8KeyDer;
use rustls::{ServerConfig, ServerConnection};
use shared::{Listener, Log, address_and_port};
use signal_hook::consts::{SIGINT, SIGTERM};

/// How many buffers of a client are echoed before the others have their turn.
const FAIR_SHARE: usize = 4;

fn serve(arguments: &Arguments, log: &Log) -> io::Result<()> {
    let config = self_signed(arguments)?;
    let mut poller = OsPoller::new()?;
    let registry = poller.registry().clone();
    let signals = shared::signals(&[SIGINT, SIGTERM])?;
    let signals = Registered::new(&registry, signals, EventObject::new)?;
    let socket = TcpListener::bind(&arguments.address)?;
    let mut listener = Listener::new(&registry, socket, EventObject::server)?;
    log.listening(listener.local_addr()?)?;

    let mut clients = Connections::new(&registry);
    // The clients with a turn: those with an event, and those that the last turn left unfinished.
    let mut ready = BTreeSet::<Key>::new();
    loop {
        let timeout = if ready.is_empty() { listener.time_left() } else { Some(Duration::ZERO) };
        for event in poller.wait_timeout(timeout)? {
            if event.kind == EventKind::Server {
                let Some(stream) = listener.accept(log) else { continue };
                let client = Client::new(&config);
                let inserted = client.and_then(|client| clients.insert(stream, both_ways, client));
                inserted.err().iter().for_each(|error| log.not_served(error));
            } else if event.fd == signals.as_raw_fd() {
                return Ok(());
            } else {
                ready.insert(event.into());
            }
        }
        for key in mem::take(&mut ready) {
            let Some((stream, client)) = clients.get_mut(key) else { continue };
            match client.take_turn(stream) {
                Ok(()) => drop(ready.insert(key)),
                Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                Err(_) => drop(clients.remove(key)),
            }
        }
        listener.resume();
    }
}

/// Registered once, for both directions: whichever is stuck, its end is reported.
fn both_ways(fd: RawFd) -> EventObject {
    EventObject::client(fd).with_interest(Interest::BOTH).with_mode(Mode::Edge)
}

struct Client {
    tls: ServerConnection,
    /// Its stream has ended, and it has been sent the end of ours.
    is_closing: bool,
}

impl Client {
    fn new(config: &Arc<ServerConfig>) -> io::Result<Self> {
        let tls = ServerConnection::new(Arc::clone(config)).map_err(io::Error::other)?;
        Ok(Self { tls, is_closing: false })
    }

    /// Writes the bytes that are due, and only then takes more: a client that does not read is soon held back.
    /// `WouldBlock` means that an event will follow, since rustls has nothing left to read or the kernel no room; any
    /// other error means that the client is done.
    fn take_turn(&mut self, mut stream: &TcpStream) -> io::Result<()> {
        let (mut buffer, mut shares) = ([0; 4096], 0);
        while shares < FAIR_SHARE {
            while self.tls.wants_write() {
                self.tls.write_tls(&mut stream)?;
            }
            if self.is_closing {
                return Err(ErrorKind::UnexpectedEof.into());
            }
            match self.tls.reader().read(&mut buffer) {
                Ok(0) => {
                    self.tls.send_close_notify();
                    self.is_closing = true;
                }
                Ok(count) => {
                    self.tls.writer().write_all(&buffer[..count])?;
                    shares += 1;
                }
                // Only now is rustls empty, and the next bytes are the kernel's.
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    self.tls.read_tls(&mut stream)?;
                    if self.tls.process_new_packets().is_err() {
                        // The alert that says why is still due.
                        self.is_closing = true;
                    }
                }
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
}

/// A self-signed certificate for this run.
fn self_signed(arguments: &Arguments) -> io::Result<Arc<ServerConfig>> {
    let names = vec!["localhost".into(), "127.0.0.1".into()];
    let rcgen::CertifiedKey { cert, signing_key } =
        rcgen::generate_simple_self_signed(names).map_err(io::Error::other)?;
    if let Some(file) = &arguments.certificate {
        fs::write(file, cert.pem())?;
    }
    let key = PrivatePkcs8KeyDer::from(signing_key.serialize_der());
    let config = ServerConfig::builder().with_no_client_auth();
    let config = config.with_single_cert(vec![cert.der().clone()], key.into());
    Ok(Arc::new(config.map_err(io::Error::other)?))
}

const HELP: &str = "\
A TLS server that sends back whatever a client sends.

Usage: tls_server [--certificate FILE] [ADDRESS:PORT]

  ADDRESS:PORT        where it listens: a name or a number, and port 0 for any that is free
                      [default: 127.0.0.1:7443]
  --certificate FILE  writes its certificate there, in PEM: one for this run, for localhost and
                      127.0.0.1, which nobody but its clients can trust
  -h, --help          print this

Talk to it with: openssl s_client -connect 127.0.0.1:7443
Ctrl-C or SIGTERM ends it. A client that has vanished is let go after two minutes without a word
(keepalive).
";

struct Arguments {
    address: String,
    certificate: Option<PathBuf>,
}

fn parse(arguments: &mut shared::Arguments) -> Result<Arguments, lexopt::Error> {
    let (mut address, mut certificate) = (None, None);
    while let Some(argument) = arguments.next()? {
        match argument {
            Arg::Long("certificate") => certificate = Some(arguments.value()?.into()),
            Arg::Value(value) if address.is_none() => {
                address = Some(value.parse_with(address_and_port)?);
            }
            surplus => return Err(surplus.unexpected()),
        }
    }
    let address = address.unwrap_or_else(|| "127.0.0.1:7443".into());
    Ok(Arguments { address, certificate })
}

fn main() -> ExitCode {
    let task = |arguments: &Arguments| format!("serve {}", arguments.address);
    shared::run(HELP, parse, task, serve)
}
