//! kqueue's own behaviour, where the contract allows it.

use std::io::{ErrorKind, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use nix::errno::Errno;
use pollio::{EventObject, Interest, Mode, Poller, Readiness};
use socket2::SockRef;

use super::mode::MODES;
use crate::support::descriptors::{pair, pipe, tcp_pair};
use crate::support::expect::Expect;
use crate::support::kernel::{Kernel, On};

/// C10: with its interest, mode, kind and token.
pub(crate) fn adding_twice_replaces<P: Poller>() {
    let (near, mut far) = pair();
    let object = EventObject::client(near.as_raw_fd());
    let mut poller = P::new().unwrap();
    far.write_all(b"x").unwrap();
    poller.add(object.with_interest(Interest::WRITABLE).with_token(1)).unwrap();
    poller.expect_one();
    poller.add(object.with_mode(Mode::Oneshot).with_token(2)).unwrap();
    let event = poller.expect_one();
    assert!(event.token == 2 && event.is_readable() && !event.is_writable());
    poller.expect_none();
    poller.add(object.with_token(3)).unwrap();
    assert_eq!(poller.expect_one().token, 3);
    assert_eq!(poller.expect_one().token, 3);
}

/// C5: a disabled filter reports nothing.
pub(crate) fn hang_ups_are_not_reported_without_interest<P: Poller>() {
    let (near, far) = pair();
    let object = EventObject::client(near.as_raw_fd());
    let mut poller = P::new().unwrap();
    poller.add(object.with_interest(Interest::NONE)).unwrap();
    drop(far);
    poller.expect_none();
    poller.modify(object).unwrap();
    assert!(poller.expect_one().is_read_closed());
}

/// C16
pub(crate) fn a_closed_descriptor_is_silent_though_a_duplicate_lives<P: Poller>() {
    let (near, mut far) = pair();
    let mut poller = P::new().unwrap();
    poller.add(EventObject::client(near.as_raw_fd())).unwrap();
    let _duplicate = near.try_clone().unwrap();
    drop(near);
    far.write_all(b"x").unwrap();
    poller.expect_none();
}

/// C6: macOS lets a pipe without its other end be watched for writing, FreeBSD and NetBSD do not. One that is
/// watched for reading as well is reported everywhere.
pub(crate) fn a_broken_pipe_is_refused_or_reported<P: Poller + On>() {
    let (reader, writer) = pipe();
    let (lone_reader, other) = pipe();
    drop((reader, other));
    for end in [writer, lone_reader] {
        let object = EventObject::client(end.as_raw_fd()).with_interest(Interest::WRITABLE);
        let mut poller = P::new().unwrap();
        match poller.add(object) {
            Ok(()) => assert!(poller.expect_one().is_write_closed()),
            Err(error) => {
                let errno = if P::KERNEL == Kernel::NetBsd { Errno::EBADF } else { Errno::EPIPE };
                assert_eq!(error.raw_os_error(), Some(errno as i32));
                assert_eq!(poller.delete(object.fd).unwrap_err().kind(), ErrorKind::NotFound);
            }
        }
        for mode in MODES {
            let both = object.with_interest(Interest::BOTH).with_mode(mode);
            poller.add(both).unwrap();
            assert!(poller.expect_one().is_read_closed(), "{mode:?}");
            poller.modify(both).unwrap();
            assert!(poller.expect_one().is_read_closed(), "{mode:?}");
            poller.delete(object.fd).unwrap();
            poller.expect_none();
        }
    }
}

/// C10, C16: with its interest unchanged. Another file that has its number by now is not registered.
pub(crate) fn a_oneshot_whose_descriptor_is_gone_cannot_be_modified<P: Poller + On>() {
    /// The descriptors that are left open, and whether the number is one of them.
    type End = fn(UnixStream) -> (Vec<OwnedFd>, bool);
    let ends: [End; 4] = [
        |near| {
            drop(near);
            (Vec::new(), false)
        },
        |near| (vec![near.try_clone().unwrap().into()], false),
        |near| {
            drop(near);
            let (again, far) = pair();
            (vec![again.into(), far.into()], true)
        },
        |near| {
            let (other, far) = pair();
            let mut near = OwnedFd::from(near);
            rustix::io::dup2(&other, &mut near).unwrap();
            (vec![near, other.into(), far.into()], true)
        },
    ];
    for (end, interest) in ends.iter().flat_map(|end| INTERESTS.map(|interest| (end, interest))) {
        for is_reported in [false, true] {
            let (near, mut far) = pair();
            let object = EventObject::client(near.as_raw_fd())
                .with_interest(interest)
                .with_mode(Mode::Oneshot);
            let mut poller = P::new().unwrap();
            far.write_all(b"x").unwrap();
            poller.add(object).unwrap();
            if is_reported {
                poller.expect_one();
            }
            let (_open, is_open) = end(near);
            let error = poller.modify(object.with_token(2)).unwrap_err();
            if is_open || P::KERNEL == Kernel::Apple {
                assert_eq!(error.kind(), ErrorKind::NotFound, "{object:?}");
            } else {
                assert_eq!(error.raw_os_error(), Some(Errno::EBADF as i32), "{object:?}");
            }
            poller.expect_none();
        }
    }
}

const INTERESTS: [Interest; 3] = [Interest::READABLE, Interest::WRITABLE, Interest::BOTH];

/// C2, C3, C4: a oneshot becomes a level or an edge, or the reverse, under the same number.
pub(crate) fn a_oneshot_that_became_something_else_is_not_re_armed_as_one<P: Poller>() {
    let (near, mut far) = pair();
    far.write_all(b"x").unwrap();
    let level = EventObject::client(near.as_raw_fd()).with_interest(Interest::BOTH);
    let oneshot = level.with_mode(Mode::Oneshot);
    let mut poller = P::new().unwrap();
    let verbs: [fn(&P, EventObject); 2] = [
        |poller, object| poller.add(object).unwrap(),
        |poller, object| poller.modify(object).unwrap(),
    ];
    for verb in verbs {
        poller.add(oneshot).unwrap();
        verb(&poller, level);
        poller.expect_one();
        poller.expect_one();
        poller.modify(oneshot).unwrap();
        poller.expect_one();
        poller.expect_none();
        verb(&poller, oneshot.with_interest(Interest::WRITABLE));
        assert!(!poller.expect_one().is_readable());
        poller.modify(oneshot).unwrap();
        assert!(poller.expect_one().is_readable());
        poller.delete(oneshot.fd).unwrap();
        assert_eq!(poller.modify(oneshot).unwrap_err().kind(), ErrorKind::NotFound);
        poller.expect_none();
    }
}

/// C10: a kqueue can only be read, so only one half of this registration could succeed.
pub(crate) fn a_refused_add_leaves_nothing_registered<P: Poller + AsRawFd + On>() {
    let (near, mut far) = pair();
    let (mut outer, inner) = (P::new().unwrap(), P::new().unwrap());
    let object = EventObject::new(inner.as_raw_fd());
    let both = object.with_interest(Interest::BOTH);
    let errno = match P::KERNEL {
        Kernel::NetBsd => Errno::EPERM,
        Kernel::DragonFly => Errno::EOPNOTSUPP,
        _ => Errno::EINVAL,
    };
    assert_eq!(outer.add(both).unwrap_err().raw_os_error(), Some(errno as i32));
    assert_eq!(outer.delete(object.fd).unwrap_err().kind(), ErrorKind::NotFound);
    inner.add(EventObject::client(near.as_raw_fd())).unwrap();
    far.write_all(b"x").unwrap();
    outer.expect_none();
}

/// C6: the filter for out-of-band data also reports the end, which must not be lost, and must not end every wait.
pub(crate) fn the_end_is_reported_with_interest_in_priority<P: Poller + On>() {
    let (near, far) = tcp_pair();
    let object = EventObject::client(near.as_raw_fd()).with_interest(Interest::PRIORITY);
    let mut poller = P::new().unwrap();
    poller.add(object).unwrap();
    (&far).write_all(b"x").unwrap();
    poller.expect_none();
    far.shutdown(Shutdown::Write).unwrap();
    if P::KERNEL != Kernel::Apple {
        // FreeBSD and NetBSD have no such filter. Those of OpenBSD and DragonFly BSD do not report the end.
        return poller.expect_none();
    }
    let event = poller.expect_one();
    assert!(event.is_read_closed() && event.is_readable() && !event.is_priority());
}

/// C6: a full hang-up too.
pub(crate) fn a_hang_up_is_reported_in_the_directions_asked_for<P: Poller>() {
    for (interest, is_read, is_written) in [
        (Interest::READABLE, true, false),
        (Interest::WRITABLE, false, true),
        (Interest::BOTH, true, true),
    ] {
        let (near, far) = pair();
        let mut poller = P::new().unwrap();
        drop(far);
        poller.add(EventObject::client(near.as_raw_fd()).with_interest(interest)).unwrap();
        let event = poller.expect_one();
        assert_eq!((event.is_read_closed(), event.is_readable()), (is_read, is_read));
        assert_eq!((event.is_write_closed(), event.is_writable()), (is_written, is_written));
    }
}

/// C3: an arrival for one says nothing about the other.
pub(crate) fn each_interest_has_edges_of_its_own<P: Poller>() {
    let (near, mut far) = pair();
    let object = EventObject::client(near.as_raw_fd()).with_interest(Interest::BOTH);
    let mut poller = P::new().unwrap();
    poller.add(object.with_mode(Mode::Edge)).unwrap();
    assert_eq!(poller.expect_one().readiness(), Readiness::WRITABLE);
    far.write_all(b"x").unwrap();
    assert_eq!(poller.expect_one().readiness(), Readiness::READABLE);
    poller.expect_none();
}

/// C6: models have the sockets of Linux, where it also needs the peer's end.
pub(crate) fn ones_own_shutdown_of_writing_is_write_closed_at_once<P: Poller + On>() {
    let (near, _far) = pair();
    let object = EventObject::client(near.as_raw_fd()).with_interest(Interest::WRITABLE);
    let mut poller = P::new().unwrap();
    poller.add(object).unwrap();
    assert!(!poller.expect_one().is_write_closed());
    near.shutdown(Shutdown::Write).unwrap();
    assert_eq!(poller.expect_one().is_write_closed(), !P::IS_MODELLED);
}

/// C3: `kern_accept4` of FreeBSD ends in KNOTE, and so does NetBSD's.
pub(crate) fn an_accept_is_an_edge_while_clients_are_left<P: Poller + On>() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let mut poller = P::new().unwrap();
    poller.add(EventObject::server(listener.as_raw_fd()).with_mode(Mode::Edge)).unwrap();
    let _clients = [(); 3].map(|()| TcpStream::connect(address).unwrap());
    poller.expect_one();
    poller.await_silence();
    let is_edge = matches!(P::KERNEL, Kernel::FreeBsd | Kernel::NetBsd);
    for left in [2, 1, 0] {
        listener.accept().unwrap();
        let count = poller.wait(0).unwrap().len();
        assert_eq!(count, usize::from(is_edge && left > 0), "{left} left");
    }
}

/// C3, C6: `sorflush` of FreeBSD and NetBSD clears SB_KNOTE with the buffer.
pub(crate) fn a_socket_shut_down_for_reading_gets_no_edge_of_a_reset_on_some<P: Poller + On>() {
    for mode in [Mode::Level, Mode::Edge] {
        let (near, far) = tcp_pair();
        let mut poller = P::new().unwrap();
        poller.add(EventObject::client(near.as_raw_fd()).with_mode(mode)).unwrap();
        near.shutdown(Shutdown::Read).unwrap();
        assert!(poller.expect_one().is_read_closed());
        SockRef::from(&far).set_linger(Some(Duration::ZERO)).unwrap();
        drop(far);
        if mode == Mode::Edge && matches!(P::KERNEL, Kernel::FreeBsd | Kernel::NetBsd) {
            poller.expect_none();
        } else {
            while !poller.expect_one().is_error() {}
        }
    }
}

/// Each of several pollers reports it.
pub(crate) fn exclusive_has_no_effect<P: Poller>() {
    let (near, mut far) = pair();
    let object = EventObject::client(near.as_raw_fd()).exclusive();
    let mut pollers = [P::new().unwrap(), P::new().unwrap()];
    pollers.iter().for_each(|poller| poller.add(object.with_mode(Mode::Oneshot)).unwrap());
    far.write_all(b"x").unwrap();
    for poller in &mut pollers {
        poller.expect_one();
        poller.modify(object).unwrap();
        poller.expect_one();
    }
}
