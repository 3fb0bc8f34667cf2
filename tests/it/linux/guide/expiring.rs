//! The section "When a deadline is over".

use std::io::Write;

use pollio::{EventObject, OsPoller, Poller};

use crate::support::descriptors::pair;
use crate::support::expect::Expect;

// As it stands in the guide, with its imports: the build script takes it from there.
include!(concat!(env!("OUT_DIR"), "/expiring.rs"));

/// Both have sent in time, and the loop comes late. The first slice has room for one of them.
#[test]
fn a_client_that_was_in_time_is_served_by_a_loop_that_is_late() {
    let mut poller = OsPoller::with_capacity(1).unwrap();
    let (mut clients, mut peers) = (Connections::new(poller.registry()), Vec::new());
    let deadline = Instant::now();
    for _ in 0..2 {
        let (near, mut far) = pair();
        far.write_all(b"request").unwrap();
        clients.insert(near, EventObject::client, Client { deadline }).unwrap();
        peers.push(far);
    }
    let (stream, client) = clients.get_mut(&poller.expect_one()).unwrap();
    serve(stream, client).unwrap();

    expire(&mut clients, Instant::now());
    assert_eq!(clients.len(), 2);
    assert!(clients.iter().all(|(_, _, client)| client.deadline >= deadline + TIMEOUT));
    poller.expect_none();
}

#[test]
fn a_client_that_sent_nothing_or_has_left_is_closed_in_the_end() {
    let poller = OsPoller::new().unwrap();
    let (silent, _peer) = pair();
    let (left, _) = pair();
    let mut clients = Connections::new(poller.registry());
    let deadline = Instant::now();
    let silent = clients.insert(silent, EventObject::client, Client { deadline }).unwrap();
    clients.insert(left, EventObject::client, Client { deadline }).unwrap();
    expire(&mut clients, deadline - Duration::from_nanos(1));
    assert_eq!(clients.len(), 2);
    let (stream, client) = clients.get_mut(silent).unwrap();
    assert_eq!(serve(stream, client).unwrap_err().kind(), ErrorKind::WouldBlock);
    expire(&mut clients, deadline);
    assert!(clients.is_empty());
}
