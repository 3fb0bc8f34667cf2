//! A store of keys and values that speaks the protocol of Redis, RESP2: the polling of it, and the protocol.
//!
//! `cargo run --release -p pollio --example resp_server`, then, elsewhere, `redis-cli`, or `nc 127.0.0.1 6379`.
//! `--help` says more.
//!
//! Connections are level-triggered here, so an event is one read, one write, and then the others' turn: the rest is
//! reported again. A client that does not read its answers is held back by its interest: only in room to write, until
//! it has read them.

mod shared;

use std::collections::HashMap;
use std::io::{self, ErrorKind, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::{os::fd::AsRawFd, process::ExitCode, str};

use pollio::{Connections, EventKind, EventObject, Interest, OsPoller, Poller, Registered};
use shared::{Listener, Log};
use signal_hook::consts::{SIGINT, SIGTERM};

/// The longest command, in bytes, and the most input that is kept of a client.
const LONGEST: usize = 64 * 1024;
/// The most words of a command.
const MOST_WORDS: usize = 1024;
/// With this many bytes of answers to write, none is added.
const MUCH_OUTPUT: usize = 64 * 1024;
/// The size of one read.
const PIECE: usize = 16 * 1024;
/// The memory for all keys and values, in bytes, and the overhead of each pair.
const ROOM: usize = 256 << 20;
const OF_A_PAIR: usize = 128;

fn serve(address: &str, log: &Log) -> io::Result<()> {
    let mut poller = OsPoller::new()?;
    let registry = poller.registry().clone();
    let signals = shared::signals(&[SIGINT, SIGTERM])?;
    let signals = Registered::new(&registry, signals, EventObject::new)?;
    let mut listener = Listener::new(&registry, TcpListener::bind(address)?, EventObject::server)?;
    log.listening(listener.local_addr()?)?;

    let mut clients = Connections::new(&registry);
    let (mut store, mut piece) = (Store::default(), [0; PIECE]);
    loop {
        for event in poller.wait_timeout(listener.time_left())? {
            if event.kind == EventKind::Server {
                let Some(stream) = listener.accept(log) else { continue };
                let inserted = clients.insert(stream, EventObject::client, Client::default());
                inserted.err().iter().for_each(|error| log.not_served(error));
            } else if event.fd == signals.as_raw_fd() {
                return Ok(());
            } else if let Some((stream, client)) = clients.get_mut(event) {
                let was_behind = client.is_behind;
                let served = client.serve(stream, &mut store, &mut piece);
                let is_behind = client.is_behind;
                let interest = if is_behind { Interest::WRITABLE } else { Interest::READABLE };
                let object = |fd| EventObject::client(fd).with_interest(interest);
                let is_same = is_behind == was_behind;
                if served.is_err() || !is_same && clients.modify(event, object).is_err() {
                    clients.remove(event);
                }
            }
        }
        listener.resume();
    }
}

#[derive(Default)]
struct Client {
    /// Input that is not yet answered.
    input: Vec<u8>,
    /// Answers that are not yet sent.
    output: Vec<u8>,
    /// There are answers to send, or commands to answer, and nothing more is read before.
    is_behind: bool,
    /// Nothing is answered any more.
    is_closing: bool,
}

impl Client {
    /// An error is the end, and so is the end of the client's stream. An earlier close would be a reset, which could
    /// take the last answer away from the client.
    fn serve(
        &mut self,
        mut stream: &TcpStream,
        store: &mut Store,
        piece: &mut [u8; PIECE],
    ) -> io::Result<()> {
        if !self.is_behind {
            let room = PIECE.min(LONGEST - self.input.len());
            match stream.read(&mut piece[..room]) {
                Ok(0) => return Err(ErrorKind::UnexpectedEof.into()),
                Ok(_) if self.is_closing => return Ok(()),
                Ok(count) => self.input.extend(&piece[..count]),
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
                Err(error) => return Err(error),
            }
        }
        self.is_behind = self.answer(store);
        if !self.output.is_empty() {
            match stream.write(&self.output) {
                Ok(count) => drop(self.output.drain(..count)),
                Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                Err(error) => return Err(error),
            }
        }
        self.is_behind |= !self.output.is_empty();
        if self.is_closing && !self.is_behind {
            stream.shutdown(Shutdown::Write)?;
        }
        Ok(())
    }

    /// Answers the commands that are whole. Returns whether some are left, because there is much to write.
    fn answer(&mut self, store: &mut Store) -> bool {
        // A write to a vector does not fail.
        let (input, output) = (&self.input[..], &mut self.output);
        let mut taken = 0;
        let is_left = loop {
            if output.len() >= MUCH_OUTPUT {
                break true;
            }
            let mut rest = &input[taken..];
            let result = match parse(&mut rest) {
                Ok(words) => store.execute(&words, output),
                Err(Fault::Partial) if input.len() - taken < LONGEST => break false,
                Err(fault) => {
                    (self.is_closing, rest) = (true, &[]);
                    let why = match fault {
                        Fault::Partial => "too big request".into(),
                        Fault::Refused(why) => why,
                    };
                    Err(format!("ERR Protocol error: {why}"))
                }
            };
            if let Err(why) = result {
                let _ = write!(output, "-{why}\r\n");
            }
            taken = input.len() - rest.len();
        };
        self.input.drain(..taken);
        is_left
    }
}

/// Takes the first command, in words.
fn parse<'a>(rest: &mut &'a [u8]) -> Result<Vec<&'a [u8]>, Fault> {
    let refused = |why: &str| Fault::Refused(why.into());
    let line = take_line(rest)?;
    let Some(count) = line.strip_prefix(b"*") else {
        // As a person types it.
        let words = line.split(u8::is_ascii_whitespace).filter(|word| !word.is_empty());
        return Ok(words.collect());
    };
    // A negative number counts as none.
    let count = integer(count).map(|count| usize::try_from(count).unwrap_or(0));
    let count = count.filter(|count| *count <= MOST_WORDS);
    let count = count.ok_or_else(|| refused("invalid multibulk length"))?;
    let mut words = Vec::with_capacity(count);
    for _ in 0..count {
        let line = take_line(rest)?;
        let Some(length) = line.strip_prefix(b"$") else {
            let got = line.get(..1).unwrap_or(b" ").escape_ascii();
            return Err(Fault::Refused(format!("expected '$', got '{got}'")));
        };
        let length = integer(length).and_then(|length| usize::try_from(length).ok());
        let length = length.filter(|length| *length <= LONGEST);
        let length = length.ok_or_else(|| refused("invalid bulk length"))?;
        // With two bytes for the end of the line, which Redis does not look at either.
        let (word, after) = rest.split_at_checked(length + 2).ok_or(Fault::Partial)?;
        words.push(&word[..length]);
        *rest = after;
    }
    Ok(words)
}

/// Why there is no command.
enum Fault {
    Partial,
    Refused(String),
}

fn take_line<'a>(rest: &mut &'a [u8]) -> Result<&'a [u8], Fault> {
    let end = rest.iter().position(|byte| *byte == b'\n').ok_or(Fault::Partial)?;
    let line = &rest[..end];
    *rest = &rest[end + 1..];
    Ok(line.strip_suffix(b"\r").unwrap_or(line))
}

/// Written as Redis writes it: without a plus, and without zeros in front.
fn integer(text: &[u8]) -> Option<i64> {
    let is_plain = matches!(text, b"0" | [b'1'..=b'9', ..] | [b'-', b'1'..=b'9', ..]);
    is_plain.then(|| str::from_utf8(text).ok()?.parse().ok())?
}

#[derive(Default)]
struct Store {
    values: HashMap<Vec<u8>, Vec<u8>>,
    /// The part of the room that is in use.
    size: usize,
}

impl Store {
    /// Writes the answer to a command. An error is one, too.
    fn execute(&mut self, words: &[&[u8]], output: &mut Vec<u8>) -> Result<(), String> {
        // An empty line is no command.
        let Some((name, arguments)) = words.split_first() else { return Ok(()) };
        let known = name.to_ascii_uppercase();
        match (&known[..], arguments) {
            (b"PING", []) => output.extend(b"+PONG\r\n"),
            (b"PING" | b"ECHO", [message]) => bulk(message, output),
            (b"GET", [key]) => match self.values.get(*key) {
                Some(value) => bulk(value, output),
                None => output.extend(b"$-1\r\n"),
            },
            (b"SET", [key, value]) => {
                self.set(key, value.to_vec())?;
                output.extend(b"+OK\r\n");
            }
            (b"SET", [_, _, ..]) => return Err("ERR syntax error".into()),
            (b"INCR", [key]) => {
                let number = integer(self.values.get(*key).map_or(b"0", |value| value));
                let number = number.ok_or("ERR value is not an integer or out of range")?;
                let next = number.checked_add(1);
                let next = next.ok_or("ERR increment or decrement would overflow")?;
                self.set(key, next.to_string().into())?;
                let _ = write!(output, ":{next}\r\n");
            }
            (b"DEL" | b"EXISTS", [_, ..]) => {
                let is_such = |key: &&&[u8]| match known[0] {
                    b'D' => self.delete(key),
                    _ => self.values.contains_key(**key),
                };
                let count = arguments.iter().filter(is_such).count();
                let _ = write!(output, ":{count}\r\n");
            }
            // The first commands of redis-cli and redis-benchmark.
            (b"COMMAND", _) => output.extend(b"*0\r\n"),
            (b"CONFIG", [get, name]) if get.eq_ignore_ascii_case(b"GET") => {
                output.extend(match &name.to_ascii_lowercase()[..] {
                    b"save" => &b"*2\r\n$4\r\nsave\r\n$0\r\n\r\n"[..],
                    b"appendonly" => b"*2\r\n$10\r\nappendonly\r\n$2\r\nno\r\n",
                    _ => b"*0\r\n",
                });
            }
            (b"PING" | b"ECHO" | b"GET" | b"SET" | b"INCR" | b"DEL" | b"EXISTS" | b"CONFIG", _) => {
                let name = known.to_ascii_lowercase();
                let name = name.escape_ascii();
                return Err(format!("ERR wrong number of arguments for '{name}' command"));
            }
            _ => {
                let name = name[..name.len().min(128)].escape_ascii();
                return Err(format!("ERR unknown command '{name}'"));
            }
        }
        Ok(())
    }

    fn set(&mut self, key: &[u8], value: Vec<u8>) -> Result<(), &'static str> {
        let size = self.size - self.size_of(key) + OF_A_PAIR + key.len() + value.len();
        if size > ROOM {
            return Err("OOM command not allowed when used memory > 'maxmemory'.");
        }
        self.size = size;
        match self.values.get_mut(key) {
            Some(old) => *old = value,
            None => drop(self.values.insert(key.to_vec(), value)),
        }
        Ok(())
    }

    fn delete(&mut self, key: &[u8]) -> bool {
        self.size -= self.size_of(key);
        self.values.remove(key).is_some()
    }

    fn size_of(&self, key: &[u8]) -> usize {
        self.values.get(key).map_or(0, |value| OF_A_PAIR + key.len() + value.len())
    }
}

fn bulk(bytes: &[u8], output: &mut Vec<u8>) {
    let _ = write!(output, "${}\r\n", bytes.len());
    output.extend(bytes);
    output.extend(b"\r\n");
}

const HELP: &str = "\
A store of keys and values in memory that speaks the protocol of Redis, RESP2. It knows PING, ECHO,
SET, GET, DEL, EXISTS and INCR.

Usage: resp_server [ADDRESS:PORT]

  ADDRESS:PORT  where it listens: a name or a number, and port 0 for any that is free
                [default: 127.0.0.1:6379]
  -h, --help    print this

Talk to it with: redis-cli, or nc 127.0.0.1 6379
A command has at most 64 KiB and 1,024 words, and all keys and values 256 MiB.
Ctrl-C or SIGTERM ends it, and everything is forgotten. A client that has vanished is let go after
two minutes without a word (keepalive).
";

fn main() -> ExitCode {
    shared::run_on("127.0.0.1:6379", HELP, serve)
}
