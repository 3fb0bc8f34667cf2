//! A server that closes a connection after a minute of silence, with the timeouts of the guide.

use std::io::{self, ErrorKind, Read};
use std::net::TcpListener;

use pollio::{EventKind, EventObject, OsPoller, Poller, Registered};

include!(concat!(env!("OUT_DIR"), "/timeouts.rs"));

const IDLE: Duration = Duration::from_secs(60);

fn serve(address: &str) -> io::Result<()> {
    let listener = TcpListener::bind(address)?;
    listener.set_nonblocking(true)?;
    let mut poller = OsPoller::new()?;
    let listener = Registered::new(poller.registry(), listener, EventObject::server)?;
    let mut clients = Connections::new(poller.registry());
    let mut timeouts = Timeouts::new();
    loop {
        for event in poller.wait_timeout(timeouts.time_left(Instant::now()))? {
            let deadline = Instant::now() + IDLE;
            if event.kind == EventKind::Server {
                let Ok((stream, _)) = listener.get_ref().accept() else { continue };
                stream.set_nonblocking(true)?;
                timeouts.set(clients.insert(stream, EventObject::client, ())?, deadline);
            } else if let Some((mut stream, ())) = clients.get_mut(event) {
                match stream.read(&mut [0; 100]) {
                    Ok(1..) => timeouts.set(event.into(), deadline),
                    Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                    _ => {
                        timeouts.remove(event.into());
                        clients.remove(event);
                    }
                }
            }
        }
        while let Some(key) = timeouts.next_expired(Instant::now()) {
            clients.remove(key);
        }
    }
}
