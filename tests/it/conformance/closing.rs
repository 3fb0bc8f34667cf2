//! What is told when a connection ends, and after a descriptor is closed.

use std::io::{self, Read, Write};
use std::net::{Shutdown, TcpListener};
use std::os::fd::AsRawFd;
use std::time::Duration;

use nix::pty::openpty;
use pollio::{EventObject, Interest, Mode, Poller};
use socket2::{Domain, SockRef, Socket, Type};

use crate::descriptors::{fill, pair, pipe, tcp_pair};
use crate::expect::Expect;

const BOTH: Interest = Interest::READABLE.union(Interest::WRITABLE);

/// C6
pub(crate) fn a_half_close_is_read_closed_and_readable<P: Poller>() {
    let (mut near, far) = tcp_pair();
    let mut poller = P::new().unwrap();
    poller.add(EventObject::client(near.as_raw_fd())).unwrap();
    (&far).write_all(b"last words").unwrap();
    let event = poller.expect_one();
    assert!(event.is_readable() && !event.is_read_closed());

    far.shutdown(Shutdown::Write).unwrap();
    let event = loop {
        let event = poller.expect_one();
        if event.is_read_closed() {
            break event;
        }
    };
    assert!(event.is_readable() && !event.is_write_closed() && !event.is_error());
    let mut words = Vec::new();
    near.read_to_end(&mut words).unwrap();
    assert_eq!(words, b"last words");
    near.write_all(b"it still goes this way").unwrap();
}

/// C6
pub(crate) fn a_full_hang_up_closes_both_ways<P: Poller>() {
    for mode in [Mode::Level, Mode::Edge, Mode::Oneshot] {
        let (near, far) = pair();
        let mut poller = P::new().unwrap();
        drop(far);
        poller
            .add(EventObject::client(near.as_raw_fd()).with_interest(BOTH).with_mode(mode))
            .unwrap();
        let event = poller.expect_one();
        assert!(event.is_read_closed() && event.is_write_closed(), "{event:?}");
        assert!(event.is_readable());
    }
}

/// C6
pub(crate) fn a_hang_up_of_both_sides_over_tcp_closes_both_ways<P: Poller>() {
    let (near, far) = tcp_pair();
    let mut poller = P::new().unwrap();
    near.shutdown(Shutdown::Write).unwrap();
    far.shutdown(Shutdown::Write).unwrap();
    poller.add(EventObject::client(near.as_raw_fd()).with_interest(BOTH)).unwrap();
    let event = loop {
        let event = poller.expect_one();
        if event.is_write_closed() {
            break event;
        }
    };
    assert!(event.is_read_closed() && event.is_readable(), "{event:?}");
}

/// C6
pub(crate) fn a_refused_connection_is_an_error<P: Poller>() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let nobody = listener.local_addr().unwrap();
    drop(listener);
    let client = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    client.set_nonblocking(true).unwrap();
    let mut poller = P::new().unwrap();
    client.connect(&nobody.into()).unwrap_err();
    poller.add(EventObject::client(client.as_raw_fd()).with_interest(Interest::WRITABLE)).unwrap();
    let event = poller.expect_one();
    assert!(event.is_error() && event.is_writable(), "{event:?}");
}

/// C6
pub(crate) fn a_reset_connection_is_an_error<P: Poller>() {
    let (mut near, far) = tcp_pair();
    let mut poller = P::new().unwrap();
    poller.add(EventObject::client(near.as_raw_fd())).unwrap();
    SockRef::from(&far).set_linger(Some(Duration::ZERO)).unwrap();
    drop(far);
    let event = poller.expect_one();
    assert!(event.is_error() && event.is_readable() && event.is_read_closed(), "{event:?}");
    let error = near.read(&mut [0]).unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::ConnectionReset);
}

/// C6
pub(crate) fn a_pipe_without_a_writer_is_read_closed<P: Poller>() {
    let (mut reader, mut writer) = pipe();
    let mut poller = P::new().unwrap();
    poller.add(EventObject::client(reader.as_raw_fd())).unwrap();
    writer.write_all(b"x").unwrap();
    let event = poller.expect_one();
    assert!(event.is_readable() && !event.is_read_closed());
    drop(writer);
    let event = poller.expect_one();
    assert!(event.is_readable() && event.is_read_closed());
    assert_eq!(reader.read(&mut [0; 2]).unwrap(), 1);
    let event = poller.expect_one();
    assert!(event.is_readable() && event.is_read_closed());
    assert_eq!(reader.read(&mut [0; 2]).unwrap(), 0);
}

/// C6: which of the two predicates says it differs with the kernel.
pub(crate) fn a_pipe_without_a_reader_lets_no_write_block<P: Poller>() {
    let (reader, mut writer) = pipe();
    let mut poller = P::new().unwrap();
    fill(&writer);
    poller.add(EventObject::client(writer.as_raw_fd()).with_interest(Interest::WRITABLE)).unwrap();
    poller.expect_none();
    drop(reader);
    let event = poller.expect_one();
    assert!(event.is_writable() && (event.is_error() || event.is_write_closed()), "{event:?}");
    assert_eq!(writer.write(b"x").unwrap_err().kind(), io::ErrorKind::BrokenPipe);
}

/// C6
pub(crate) fn a_pty_that_hung_up_is_read_closed<P: Poller>() {
    let pty = openpty(None, None).unwrap();
    let mut poller = P::new().unwrap();
    poller.add(EventObject::client(pty.master.as_raw_fd())).unwrap();
    poller.expect_none();
    nix::unistd::write(&pty.slave, b"prompt").unwrap();
    let event = poller.expect_one();
    assert!(event.is_readable() && !event.is_read_closed());
    drop(pty.slave);
    let event = poller.expect_one();
    assert!(event.is_readable() && event.is_read_closed(), "{event:?}");
}

/// C16
pub(crate) fn a_deleted_descriptor_is_silent_after_its_number_is_used_again<P: Poller>() {
    let (near, mut far) = pair();
    let fd = near.as_raw_fd();
    let mut poller = P::new().unwrap();
    poller.add(EventObject::client(fd).with_token(1)).unwrap();
    far.write_all(b"x").unwrap();
    poller.expect_one();
    let duplicate = near.try_clone().unwrap();
    poller.delete(fd).unwrap();
    drop(near);
    poller.expect_none();

    // The number goes on in the duplicate's life, registered anew.
    poller.add(EventObject::client(duplicate.as_raw_fd()).with_token(2)).unwrap();
    let event = poller.expect_one();
    assert_eq!((event.fd, event.token), (duplicate.as_raw_fd(), 2));
}

/// C16
pub(crate) fn a_closed_descriptor_is_silent<P: Poller>() {
    let (near, mut far) = pair();
    let mut poller = P::new().unwrap();
    poller.add(EventObject::client(near.as_raw_fd())).unwrap();
    far.write_all(b"x").unwrap();
    poller.expect_one();
    drop(near);
    poller.expect_none();
}

/// C16: the handler of one event closes the descriptor of another one in the same slice, and is
/// given its number for a new connection.
pub(crate) fn a_token_tells_a_stale_event_from_a_fresh_one<P: Poller>() {
    let mut poller = P::new().unwrap();
    let registry = poller.registry().clone();
    let mut connections: Vec<_> = (0..2).map(|_| Some(pair())).collect();
    for (token, connection) in (0..).zip(&connections) {
        let (near, far) = connection.as_ref().unwrap();
        registry.add(EventObject::client(near.as_raw_fd()).with_token(token)).unwrap();
        (&*far).write_all(b"x").unwrap();
    }

    let events = poller.wait(1_000).unwrap();
    assert_eq!(events.len(), 2);
    let stale = events[1];
    let (near, _far) = connections[stale.token as usize].take().unwrap();
    registry.delete(near.as_raw_fd()).unwrap();
    drop(near);
    let (fresh, mut far) = pair();
    assert_eq!(fresh.as_raw_fd(), stale.fd, "the lowest free number is used again");
    registry.add(EventObject::client(fresh.as_raw_fd()).with_token(2)).unwrap();

    far.write_all(b"x").unwrap();
    let told: Vec<_> = poller.wait(1_000).unwrap().iter().map(|event| event.token).collect();
    assert!(told.contains(&2) && !told.contains(&stale.token), "{told:?}");
}
