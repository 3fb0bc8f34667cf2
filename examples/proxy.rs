//! A TCP proxy: whatever a client sends goes to one upstream address, and what comes back, back.
//!
//! `cargo run --release --example proxy LISTEN UPSTREAM`, both of them `ADDRESS:PORT`.
//!
//! Either way has one buffer, and nothing more is read until that is written: who sends faster than
//! the other end takes is soon held back by TCP itself. The end of what one side sends is passed on
//! while the other goes on. A broken connection reaches the other end as a broken one, but only after
//! what it had delivered before: a server that answers and resets has answered.

use std::collections::{HashMap, VecDeque};
use std::io::{self, BufRead, BufReader, ErrorKind, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream, ToSocketAddrs};
use std::os::fd::AsRawFd;
use std::time::{Duration, Instant};
use std::{env, process};

use pollio::{Event, EventKind, EventObject, Interest, Mode, OsPoller, Poller, Registry};
use socket2::{Domain, SockRef, Socket, Type};

/// How long the other side may take for what a broken connection has delivered.
const LEFTOVERS: Duration = Duration::from_secs(5);

fn main() {
    let arguments: Vec<_> = env::args().skip(1).collect();
    let [listen, upstream] = &arguments[..] else {
        eprintln!("proxy: usage: proxy LISTEN UPSTREAM, both of them ADDRESS:PORT");
        process::exit(1)
    };
    serve(listen, upstream).unwrap_or_else(|error| {
        eprintln!("proxy: cannot pass {listen} on to {upstream}: {error}");
        process::exit(1)
    });
}

fn serve(listen: &str, upstream: &str) -> io::Result<()> {
    let upstream = upstream.to_socket_addrs()?.next().ok_or(ErrorKind::NotFound)?;
    let listener = TcpListener::bind(listen)?;
    listener.set_nonblocking(true)?;
    let mut poller = OsPoller::new()?;
    let registry = poller.registry().clone();
    // The socket of the next connection to the upstream: without one nobody is accepted.
    let mut spare = Some(socket_to(upstream)?);
    registry.add(EventObject::server(listener.as_raw_fd()).with_mode(Mode::Edge))?;
    writeln!(io::stdout(), "listening on {}", listener.local_addr()?)?;

    let mut pairs = HashMap::new();
    // A new one each time, so that an event for a pair that is gone finds nobody.
    let mut token = 0_u32;
    // More clients may wait to be accepted, unreported: look again, after so long at the latest.
    let mut retry = None;
    // The pairs with a broken side, and until when the other side may take what is left.
    let mut broken = VecDeque::<(Instant, u32)>::new();
    let mut reported = String::new();
    loop {
        let next = broken.front().map(|(end, _)| end.saturating_duration_since(Instant::now()));
        for event in poller.wait_timeout(retry.into_iter().chain(next).min())? {
            if event.kind == EventKind::Server {
                retry = Some(Duration::ZERO);
            } else if let Some(pair) = pairs.get_mut(&event.token) {
                let was_broken = is_broken(pair);
                if pass(pair, event, &registry).unwrap_or(true) {
                    end(pair, &registry)?;
                    pairs.remove(&event.token);
                } else if !was_broken && is_broken(pair) {
                    broken.push_back((Instant::now() + LEFTOVERS, event.token));
                }
            }
        }
        while let Some(&(_, token)) = broken.front().filter(|(end, _)| *end <= Instant::now()) {
            broken.pop_front();
            if let Some(pair) = pairs.remove(&token) {
                end(&pair, &registry)?;
            }
        }
        if retry.is_some() {
            token = token.wrapping_add(1);
            let accepted = accept(&listener, &mut spare, upstream);
            retry = match accepted
                .and_then(|(client, socket)| pair(client, socket, upstream, token))
            {
                Ok(pair) if pair.iter().all(|side| registry.add(side.object).is_ok()) => {
                    pairs.insert(token, pair);
                    Some(Duration::ZERO)
                }
                Ok(pair) => {
                    pair.iter().for_each(|side| reset(side.stream.get_ref()));
                    Some(Duration::ZERO)
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => None,
                Err(error) => {
                    let reason = error.to_string();
                    if reason != reported {
                        eprintln!("proxy: a client was not served: {reason}");
                        reported = reason;
                    }
                    // Without a descriptor the next client waits in the queue until one is free.
                    let is_full = matches!(error.raw_os_error(), Some(libc::EMFILE | libc::ENFILE));
                    Some(if is_full { Duration::from_millis(100) } else { Duration::ZERO })
                }
            };
        }
    }
}

fn socket_to(address: SocketAddr) -> io::Result<Socket> {
    Socket::new(Domain::for_address(address), Type::STREAM, None)
}

/// Accepts a client once there is a socket for its connection to the upstream.
fn accept(
    listener: &TcpListener,
    spare: &mut Option<Socket>,
    upstream: SocketAddr,
) -> io::Result<(TcpStream, Socket)> {
    let socket = match spare.take() {
        Some(socket) => socket,
        None => socket_to(upstream)?,
    };
    match listener.accept() {
        Ok((client, _)) => Ok((client, socket)),
        Err(error) => {
            *spare = Some(socket);
            Err(error)
        }
    }
}

/// A client, or the connection to the upstream that was made for it. Both have the same token.
struct Side {
    /// Its buffer holds what was read here, and not yet written to the other side.
    stream: BufReader<TcpStream>,
    object: EventObject,
    is_connected: bool,
    /// All that it sends is passed on, or nobody takes it.
    has_ended: bool,
    /// It was reset, or never connected.
    is_broken: bool,
}

fn pair(
    client: TcpStream,
    upstream: Socket,
    address: SocketAddr,
    token: u32,
) -> io::Result<[Side; 2]> {
    client.set_nonblocking(true)?;
    upstream.set_nonblocking(true)?;
    // It is writable once it is connected, and reports an error if it cannot be.
    match upstream.connect(&address.into()) {
        Err(error) if error.raw_os_error() != Some(libc::EINPROGRESS) => {
            reset(&client);
            return Err(error);
        }
        _ => {}
    }
    Ok([client, upstream.into()].map(|stream: TcpStream| {
        let _ = stream.set_nodelay(true);
        // Asked for once and for all: whichever way it is stuck, the end of it is told.
        let both = Interest::READABLE | Interest::WRITABLE;
        let object = EventObject::client(stream.as_raw_fd()).with_interest(both);
        let object = object.with_mode(Mode::Edge).with_token(token);
        let stream = BufReader::new(stream);
        Side { stream, object, is_connected: false, has_ended: false, is_broken: false }
    }))
}

/// An event of either side may set either way going, so both are tried. Returns whether the pair has
/// come to its end: both ways have, or one side is broken and all that it sent is passed on.
fn pass(pair: &mut [Side; 2], event: &Event, registry: &Registry) -> io::Result<bool> {
    let [client, upstream] = pair;
    let side = if event.fd == client.object.fd { &mut *client } else { &mut *upstream };
    // A way that is stuck at its other end neither reads nor writes here, and would miss it.
    side.is_broken |= event.is_error();
    side.is_connected |= event.is_writable();
    if upstream.is_connected && client.pass_to(upstream) | upstream.pass_to(client) {
        // A modify reports again what is still there, after the others had their turn.
        pair.iter().try_for_each(|side| registry.modify(side.object))?;
    }
    let is_over = |side: &Side| side.is_broken && side.has_ended;
    Ok(pair.iter().all(|side| side.has_ended) || pair.iter().any(is_over))
}

fn is_broken(pair: &[Side; 2]) -> bool {
    pair.iter().any(|side| side.is_broken)
}

/// Deletes both sides, and lets a broken one not look like the proper end of what was sent.
fn end(pair: &[Side; 2], registry: &Registry) -> io::Result<()> {
    if is_broken(pair) {
        pair.iter().for_each(|side| reset(side.stream.get_ref()));
    }
    pair.iter().try_for_each(|side| registry.delete(side.object.fd))
}

/// Lets the close of `stream` be a reset.
fn reset(stream: &TcpStream) {
    let _ = SockRef::from(stream).set_linger(Some(Duration::ZERO));
}

impl Side {
    /// Passes on one buffer full; the next is read when all of it is written. Returns whether there
    /// may be more to pass on.
    fn pass_to(&mut self, other: &mut Self) -> bool {
        if self.has_ended {
            return false;
        }
        let bytes = match self.stream.fill_buf() {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == ErrorKind::WouldBlock => return false,
            Err(_) => {
                (self.is_broken, self.has_ended) = (true, true);
                return false;
            }
        };
        let mut to = other.stream.get_ref();
        let passed = match bytes {
            [] => to.shutdown(Shutdown::Write).map(|()| 0),
            _ => to.write(bytes),
        };
        match passed {
            Ok(count) => {
                self.stream.consume(count);
                self.has_ended = count == 0;
                count > 0
            }
            Err(error) if error.kind() == ErrorKind::WouldBlock => false,
            // Nobody takes it. What the other side had sent before is still passed on.
            Err(_) => {
                (other.is_broken, self.has_ended) = (true, true);
                false
            }
        }
    }
}
