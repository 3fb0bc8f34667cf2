//! A server that closes who is silent for a minute, with the timeouts of the guide.

use std::io::{self, ErrorKind, Read};
use std::net::{TcpListener, TcpStream};
use std::os::fd::AsRawFd;

use pollio::{EventKind, EventObject, OsPoller, Poller};

include!(concat!(env!("OUT_DIR"), "/timeouts.rs"));

const IDLE: Duration = Duration::from_secs(60);

fn serve(address: &str) -> io::Result<()> {
    let listener = TcpListener::bind(address)?;
    listener.set_nonblocking(true)?;
    let mut poller = OsPoller::new()?;
    let registry = poller.registry().clone();
    registry.add(EventObject::server(listener.as_raw_fd()))?;
    let (mut clients, mut timeouts) = (HashMap::<u32, TcpStream>::new(), Timeouts::default());
    let mut token = 0;
    loop {
        for event in poller.wait_timeout(timeouts.time_left(Instant::now()))? {
            let deadline = Instant::now() + IDLE;
            if event.kind == EventKind::Server {
                let Ok((stream, _)) = listener.accept() else { continue };
                stream.set_nonblocking(true)?;
                token += 1;
                registry.add(EventObject::client(stream.as_raw_fd()).with_token(token))?;
                timeouts.set(token, deadline);
                clients.insert(token, stream);
            } else if let Some(mut stream) = clients.get(&event.token) {
                match stream.read(&mut [0; 100]) {
                    Ok(1..) => timeouts.set(event.token, deadline),
                    Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                    _ => {
                        timeouts.remove(event.token);
                        clients.remove(&event.token);
                    }
                }
            }
        }
        while let Some(token) = timeouts.next_expired(Instant::now()) {
            clients.remove(&token);
        }
    }
}
