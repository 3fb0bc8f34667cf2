//! A TCP proxy: the bytes of a client go to one upstream address, and the answers back.
//!
//! `cargo run --release --example proxy LISTEN UPSTREAM`, both of them `ADDRESS:PORT`.
//!
//! Either way has one buffer, and nothing more is read until that is written: TCP itself soon holds back a sender
//! that is faster than the other end. The end of what one side sends is passed on
//! while the other goes on, and a broken connection reaches the other end as a broken one.

use std::collections::HashMap;
use std::io::{self, BufRead, BufReader, ErrorKind, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream, ToSocketAddrs};
use std::{env, os::fd::AsRawFd, process, time::Duration};

use pollio::{Event, EventKind, EventObject, Interest, Mode, OsPoller, Poller, Registry};
use socket2::{Domain, SockRef, Socket, Type};

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
    registry.add(EventObject::server(listener.as_raw_fd()).with_mode(Mode::Edge))?;
    writeln!(io::stdout(), "listening on {}", listener.local_addr()?)?;

    let mut pairs = HashMap::new();
    // A new one each time, so that an event for a pair that is gone finds none.
    let mut token = 0_u32;
    // More clients may wait to be accepted, untold: look again, after so long at the latest.
    let mut retry = None;
    loop {
        for event in poller.wait_timeout(retry)? {
            if event.kind == EventKind::Server {
                retry = Some(Duration::ZERO);
            } else if let Some(pair) = pairs.get_mut(&event.token) {
                if pass(pair, event, &registry).unwrap_or_else(|_| break_off(pair)) {
                    pair.iter().try_for_each(|side| registry.delete(side.object.fd))?;
                    pairs.remove(&event.token);
                }
            }
        }
        if retry.is_some() {
            token = token.wrapping_add(1);
            let pair = listener.accept().and_then(|(client, _)| pair(client, upstream, token));
            retry = match pair {
                Ok(pair) if pair.iter().all(|side| registry.add(side.object).is_ok()) => {
                    pairs.insert(token, pair);
                    Some(Duration::ZERO)
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => None,
                // Out of descriptors, as a rule: a client in the queue waits until one is free.
                _ => Some(Duration::from_millis(100)),
            };
        }
    }
}

/// A client, or the connection to the upstream that was made for it. Both have the same token.
struct Side {
    /// Its buffer holds the bytes that were read here and not yet written to the other side.
    stream: BufReader<TcpStream>,
    object: EventObject,
    is_connected: bool,
    has_ended: bool,
}

fn pair(client: TcpStream, address: SocketAddr, token: u32) -> io::Result<[Side; 2]> {
    let upstream = Socket::new(Domain::for_address(address), Type::STREAM, None)?;
    client.set_nonblocking(true)?;
    upstream.set_nonblocking(true)?;
    // It is writable once it is connected, and has an error if that failed.
    match upstream.connect(&address.into()) {
        Err(error) if error.raw_os_error() != Some(libc::EINPROGRESS) => return Err(error),
        _ => {}
    }
    Ok([client, upstream.into()].map(|stream: TcpStream| {
        let _ = stream.set_nodelay(true);
        // Asked for once and for all: whichever way it is stuck, the end of it is reported.
        let object = EventObject::client(stream.as_raw_fd()).with_interest(Interest::BOTH);
        let object = object.with_mode(Mode::Edge).with_token(token);
        Side { stream: BufReader::new(stream), object, is_connected: false, has_ended: false }
    }))
}

/// An event of either side may set either way going, so both are tried. Returns whether both have
/// come to their end.
fn pass(pair: &mut [Side; 2], event: &Event, registry: &Registry) -> io::Result<bool> {
    // A way that is stuck at its other end neither reads nor writes here, and would miss it.
    if event.is_error() {
        return Err(ErrorKind::ConnectionReset.into());
    }
    let [client, upstream] = pair;
    upstream.is_connected |= event.fd == upstream.object.fd && event.is_writable();
    if upstream.is_connected && client.pass_to(upstream)? | upstream.pass_to(client)? {
        // A modify reports the rest again, after the others had their turn.
        pair.iter().try_for_each(|side| registry.modify(side.object))?;
    }
    Ok(pair.iter().all(|side| side.has_ended))
}

/// Ends both connections so that it does not look like the proper end of a stream.
fn break_off(pair: &[Side; 2]) -> bool {
    for side in pair {
        let _ = SockRef::from(side.stream.get_ref()).set_linger(Some(Duration::ZERO));
    }
    true
}

impl Side {
    /// Passes on one buffer full; the next is read when all of it is written. Returns whether there
    /// may be more to pass on.
    fn pass_to(&mut self, other: &Self) -> io::Result<bool> {
        let mut to = other.stream.get_ref();
        let passed = self.stream.fill_buf().and_then(|bytes| match bytes {
            [] if self.has_ended => Ok(0),
            [] => to.shutdown(Shutdown::Write).map(|()| 0),
            _ => to.write(bytes),
        });
        let count = match passed {
            Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(false),
            passed => passed?,
        };
        self.has_ended = count == 0;
        self.stream.consume(count);
        Ok(count > 0)
    }
}
