//! Reports of the end of a connection, and after a descriptor is closed.

use std::io::{self, Read, Write};
use std::net::{Shutdown, TcpListener};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::net::UnixDatagram;
use std::process::{Command, Stdio};
use std::time::Duration;

use nix::pty::openpty;
use pollio::{EventObject, Interest, Mode, Poller};
use socket2::{Domain, SockRef, Socket, Type};

use super::mode::MODES;
use crate::support::descriptors::{drain, fill, pair, pipe, tcp_pair};
use crate::support::expect::Expect;
use crate::support::kernel::{Kernel, On};

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

/// C3, C6
pub(crate) fn edge_reports_the_end_as_an_arrival<P: Poller>() {
    fn is_reported<P: Poller>(near: impl AsRawFd, interest: Interest, end: impl FnOnce()) {
        let object = EventObject::client(near.as_raw_fd()).with_interest(interest);
        let mut poller = P::new().unwrap();
        poller.add(object.with_mode(Mode::Edge)).unwrap();
        if interest.contains(Interest::WRITABLE) {
            assert!(poller.expect_one().is_writable());
        }
        poller.await_silence();
        end();
        let event = poller.expect_one();
        assert!(event.is_readable() && event.is_read_closed(), "{event:?}");
    }

    let (near, far) = tcp_pair();
    is_reported::<P>(near, Interest::BOTH, || far.shutdown(Shutdown::Write).unwrap());
    let (near, far) = pair();
    is_reported::<P>(near, Interest::BOTH, || far.shutdown(Shutdown::Write).unwrap());
    let (near, far) = pair();
    is_reported::<P>(near, Interest::BOTH, || drop(far));
    let (reader, writer) = pipe();
    is_reported::<P>(reader, Interest::READABLE, || drop(writer));
}

/// C6
pub(crate) fn a_full_hang_up_closes_both_ways<P: Poller>() {
    for mode in [Mode::Level, Mode::Edge, Mode::Oneshot] {
        let (near, far) = pair();
        let mut poller = P::new().unwrap();
        drop(far);
        poller
            .add(
                EventObject::client(near.as_raw_fd()).with_interest(Interest::BOTH).with_mode(mode),
            )
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
    poller.add(EventObject::client(near.as_raw_fd()).with_interest(Interest::BOTH)).unwrap();
    let event = loop {
        let event = poller.expect_one();
        // On kqueue its own shutdown may be reported before the peer's.
        if event.is_read_closed() && event.is_write_closed() {
            break event;
        }
    };
    assert!(event.is_readable(), "{event:?}");
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
    assert!(event.is_error() && event.is_writable() && event.is_write_closed(), "{event:?}");
    assert_eq!(client.take_error().unwrap().unwrap().kind(), io::ErrorKind::ConnectionRefused);
}

/// C6: added before the reset, or after it.
pub(crate) fn a_reset_connection_is_an_error<P: Poller>() {
    let is_reported = |poller: &mut P| {
        let event = poller.expect_one();
        assert!(event.is_error() && event.is_readable() && event.is_read_closed(), "{event:?}");
    };
    let (mut near, far) = tcp_pair();
    let mut poller = P::new().unwrap();
    poller.add(EventObject::client(near.as_raw_fd())).unwrap();
    SockRef::from(&far).set_linger(Some(Duration::ZERO)).unwrap();
    drop(far);
    is_reported(&mut poller);
    for mode in MODES {
        let mut poller = P::new().unwrap();
        poller.add(EventObject::client(near.as_raw_fd()).with_mode(mode)).unwrap();
        is_reported(&mut poller);
    }

    poller.modify(EventObject::client(near.as_raw_fd()).with_interest(Interest::BOTH)).unwrap();
    let event = poller.expect_one();
    assert!(event.is_error() && event.is_readable() && event.is_writable(), "{event:?}");
    let error = near.read(&mut [0]).unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::ConnectionReset);
}

/// C6
pub(crate) fn a_connection_that_was_reset_lets_no_write_block<P: Poller>() {
    for mode in [Mode::Level, Mode::Edge] {
        let (mut near, far) = tcp_pair();
        let object = EventObject::client(near.as_raw_fd()).with_interest(Interest::WRITABLE);
        let mut poller = P::new().unwrap();
        fill(&near);
        poller.add(object.with_mode(mode)).unwrap();
        SockRef::from(&far).set_linger(Some(Duration::ZERO)).unwrap();
        drop(far);
        // A few of the bytes before it may have left room since.
        while !poller.expect_one().is_error() {}
        let error = near.write(b"x").unwrap_err();
        assert_ne!(error.kind(), io::ErrorKind::WouldBlock, "{mode:?}");
    }
}

/// C6
pub(crate) fn ones_own_shutdown_of_reading_is_read_closed<P: Poller>() {
    for (near, _far) in sockets() {
        let poller = &mut shut_down::<P>(&near, Shutdown::Read);
        let event = poller.expect_one();
        assert!(event.is_read_closed() && event.is_readable(), "{event:?}");
    }
}

/// C6: on some kernels it is also a hang-up.
pub(crate) fn ones_own_shutdown_of_writing_lets_no_write_block<P: Poller + On>() {
    for (near, _far) in sockets() {
        let poller = &mut shut_down::<P>(&near, Shutdown::Write);
        let event = poller.expect_one();
        assert!(event.is_writable() && !event.is_read_closed(), "{event:?}");
        // The model has the sockets of Linux.
        let is_closed = P::KERNEL.is_kqueue() && !P::IS_MODELLED;
        assert_eq!(event.is_write_closed(), is_closed, "{event:?}");
        let error = SockRef::from(&near).send(b"x").unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::BrokenPipe);
    }
}

/// C6
pub(crate) fn ones_own_shutdown_of_both_ways_closes_both_ways<P: Poller>() {
    for (near, _far) in sockets() {
        let poller = &mut shut_down::<P>(&near, Shutdown::Both);
        let event = poller.expect_one();
        assert!(event.is_read_closed() && event.is_write_closed(), "{event:?}");
    }
}

/// Ends of connections of each kind.
fn sockets() -> [(OwnedFd, OwnedFd); 3] {
    let (streams, datagrams) = (pair(), UnixDatagram::pair().unwrap());
    let tcp = tcp_pair();
    [
        (tcp.0.into(), tcp.1.into()),
        (streams.0.into(), streams.1.into()),
        (datagrams.0.into(), datagrams.1.into()),
    ]
}

/// Shuts a socket down after a poller, edge-triggered, has reported its room.
fn shut_down<P: Poller>(near: &OwnedFd, how: Shutdown) -> P {
    let object = EventObject::client(near.as_raw_fd()).with_interest(Interest::BOTH);
    let mut poller = P::new().unwrap();
    poller.add(object.with_mode(Mode::Edge)).unwrap();
    assert!(poller.expect_one().is_writable());
    poller.await_silence();
    SockRef::from(near).shutdown(how).unwrap();
    poller
}

/// C6
pub(crate) fn a_pipe_without_a_writer_is_read_closed<P: Poller>() {
    let (mut reader, mut writer) = pipe();
    let mut poller = P::new().unwrap();
    poller.add(EventObject::new(reader.as_raw_fd())).unwrap();
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

/// C6, C9: also by a loop with both interests in everything.
pub(crate) fn the_last_output_of_a_child_is_read_by_a_loop_that_watches_for_both<P: Poller>() {
    let cases = MODES
        .into_iter()
        .flat_map(|mode| [None, Some(Mode::Level), Some(Mode::Oneshot)].map(|first| (mode, first)));
    for (mode, first) in cases {
        let mut child = Command::new("sh")
            .args(["-c", "read line; echo $line"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut output = child.stdout.take().unwrap();
        let object = EventObject::client(output.as_raw_fd()).with_interest(Interest::BOTH);
        let mut poller = P::new().unwrap();
        if let Some(first) = first {
            poller.add(object.with_mode(first)).unwrap();
        }
        child.stdin.take().unwrap().write_all(b"last words\n").unwrap();
        child.wait().unwrap();
        let object = object.with_mode(mode);
        match first {
            Some(_) => poller.modify(object).unwrap(),
            None => poller.add(object).unwrap(),
        }
        assert!(poller.expect_one().is_readable(), "{first:?}, {mode:?}");
        let mut words = String::new();
        output.read_to_string(&mut words).unwrap();
        assert_eq!(words, "last words\n");
    }
}

/// C6: the kernel decides which of the two predicates reports it.
pub(crate) fn a_pipe_without_a_reader_lets_no_write_block<P: Poller + On>() {
    let (reader, mut writer) = pipe();
    let mut poller = P::new().unwrap();
    fill(&writer);
    poller.add(EventObject::client(writer.as_raw_fd()).with_interest(Interest::WRITABLE)).unwrap();
    poller.expect_none();
    drop(reader);
    if P::KERNEL == Kernel::NetBsd {
        // `pipeclose` wakes no knote for room.
        return poller.expect_none();
    }
    let event = poller.expect_one();
    assert!(event.is_writable() && (event.is_error() || event.is_write_closed()), "{event:?}");
    assert_eq!(writer.write(b"x").unwrap_err().kind(), io::ErrorKind::BrokenPipe);
}

/// C6
pub(crate) fn a_pty_that_hung_up_is_read_closed<P: Poller + On>() {
    let pty = openpty(None, None).unwrap();
    let mut poller = P::new().unwrap();
    poller.add(EventObject::client(pty.master.as_raw_fd())).unwrap();
    poller.expect_none();
    nix::unistd::write(&pty.slave, b"prompt").unwrap();
    let event = poller.expect_one();
    assert!(event.is_readable() && !event.is_read_closed());
    if P::KERNEL == Kernel::NetBsd {
        // The master gets no event.
        return;
    }
    drop(pty.slave);
    let event = poller.expect_one();
    assert!(event.is_readable() && event.is_read_closed(), "{event:?}");
}

/// C16: the descriptor itself, and all others, stay as they were.
pub(crate) fn delete_takes_back_pending_readiness<P: Poller>() {
    for mode in MODES {
        let (near, mut far) = pair();
        let (other, mut other_far) = pair();
        let mut poller = P::new().unwrap();
        for (token, fd) in [(1, near.as_raw_fd()), (2, other.as_raw_fd())] {
            poller.add(EventObject::client(fd).with_mode(mode).with_token(token)).unwrap();
        }
        far.write_all(b"x").unwrap();
        other_far.write_all(b"x").unwrap();
        poller.delete(near.as_raw_fd()).unwrap();
        assert_eq!(poller.expect_one().token, 2);
        drain(&other);
        poller.expect_none();
        assert_eq!((&near).read(&mut [0; 2]).unwrap(), 1);
    }
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

    // The duplicate gets the number, and is registered.
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
pub(crate) fn a_token_distinguishes_a_stale_event_from_a_fresh_one<P: Poller>() {
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
    let reported: Vec<_> = poller.wait(1_000).unwrap().iter().map(|event| event.token).collect();
    assert!(reported.contains(&2) && !reported.contains(&stale.token), "{reported:?}");
}
