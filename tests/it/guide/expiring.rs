//! The section "When a deadline is over".

use std::io::Write;
use std::os::fd::AsRawFd;

use pollio::{EventObject, OsPoller, Poller};

use crate::descriptors::pair;
use crate::expect::Expect;

// As it stands in `src/guide.md`, with its imports: the build script takes it from there.
include!(concat!(env!("OUT_DIR"), "/expiring.rs"));

/// Both have sent in time, and the loop comes late. The first slice has room for one of them.
#[test]
fn a_client_that_was_in_time_is_served_by_a_loop_that_is_late() {
    let mut poller = OsPoller::with_capacity(1).unwrap();
    let (mut clients, mut peers) = (HashMap::new(), Vec::new());
    let deadline = Instant::now();
    for token in 0..2 {
        let (near, mut far) = pair();
        far.write_all(b"request").unwrap();
        let object = |fd| EventObject::client(fd).with_token(token);
        let stream = Registered::new(poller.registry(), near, object).unwrap();
        clients.insert(token, Client { stream, deadline });
        peers.push(far);
    }
    let event = poller.expect_one();
    clients.get_mut(&event.token).unwrap().serve().unwrap();

    expire(&mut clients, Instant::now());
    assert_eq!(clients.len(), 2);
    assert!(clients.values().all(|client| client.deadline >= deadline + TIMEOUT));
    poller.expect_none();
}

#[test]
fn a_client_that_sent_nothing_or_has_left_is_closed_in_the_end() {
    let poller = OsPoller::new().unwrap();
    let (silent, _peer) = pair();
    let (left, _) = pair();
    let mut clients = HashMap::new();
    let deadline = Instant::now();
    for (token, stream) in (0..).zip([silent, left]) {
        let stream = Registered::new(poller.registry(), stream, EventObject::client).unwrap();
        clients.insert(token, Client { stream, deadline });
    }
    let fds: Vec<_> = clients.values().map(|client| client.stream.as_raw_fd()).collect();
    assert_eq!(fds.len(), 2);
    expire(&mut clients, deadline - Duration::from_nanos(1));
    assert_eq!(clients.len(), 2);
    let error = clients.get_mut(&0).unwrap().serve().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::WouldBlock);
    expire(&mut clients, deadline);
    assert!(clients.is_empty());
}
