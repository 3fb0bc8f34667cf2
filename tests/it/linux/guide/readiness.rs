//! The section "What readiness does not mean", and the guide's statements about closing and timers.

use std::fs::{File, OpenOptions};
use std::io::{ErrorKind, IoSlice, IoSliceMut, Read, Write};
use std::net::{TcpStream, UdpSocket};
use std::os::fd::{AsRawFd, RawFd};
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::net::{UnixDatagram, UnixStream};
use std::time::Duration;

use nix::errno::Errno;
use nix::libc::O_NONBLOCK;
use nix::pty::openpty;
use nix::sys::socket::sockopt::{Ipv4RecvErr, Timestamping};
use nix::sys::socket::{
    ControlMessage, MsgFlags, SockaddrIn, TimestampingFlag, UnixAddr, recvmsg, sendmsg, setsockopt,
};
use nix::sys::stat::Mode as FileMode;
use nix::unistd::{mkfifo, ttyname};
use pollio::{EventObject, Interest, Mode, OsPoller, Poller, Timer};
use socket2::SockRef;

use crate::support::descriptors::{pair, tcp_pair};
use crate::support::expect::Expect;
use crate::support::subprocess::in_subprocess;

/// Each wait of these returns at once.
const WAITS: usize = 1_000;

/// The end of a connection that its peer has reset.
fn reset() -> TcpStream {
    let (near, far) = tcp_pair();
    reset_by(far);
    near
}

fn reset_by(stream: TcpStream) {
    SockRef::from(&stream).set_linger(Some(Duration::ZERO)).unwrap();
}

#[test]
fn no_interest_reports_a_reset_at_every_wait_in_level() {
    let near = reset();
    let object = EventObject::client(near.as_raw_fd()).with_interest(Interest::NONE);
    let mut poller = OsPoller::new().unwrap();
    poller.add(object).unwrap();
    for _ in 0..WAITS {
        assert!(poller.expect_one().is_error());
    }
    for mode in [Mode::Edge, Mode::Oneshot] {
        poller.modify(object.with_mode(mode)).unwrap();
        assert!(poller.expect_one().is_error(), "{mode:?}");
        poller.expect_none();
    }
}

#[test]
fn data_before_a_reset_is_read_first() {
    let (mut near, mut far) = tcp_pair();
    far.write_all(b"last words").unwrap();
    reset_by(far);
    let mut poller = OsPoller::new().unwrap();
    poller.add(EventObject::client(near.as_raw_fd())).unwrap();
    while !poller.expect_one().is_error() {}
    let mut buffer = [0; 64];
    let count = near.read(&mut buffer).unwrap();
    assert_eq!(&buffer[..count], b"last words");
    let error = near.read(&mut buffer).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::ConnectionReset);
}

/// Takes one message from the error queue.
fn take_from_error_queue(fd: RawFd) {
    let mut space = vec![0; 512];
    let mut payload = [0; 64];
    let mut buffers = [IoSliceMut::new(&mut payload)];
    let flags = MsgFlags::MSG_ERRQUEUE | MsgFlags::MSG_DONTWAIT;
    recvmsg::<SockaddrIn>(fd, &mut buffers, Some(&mut space), flags).unwrap();
}

/// Checks that `socket` is reported until the queue is empty: at every wait in `Level`, once in `Edge`.
fn expect_an_error_without_data(socket: &UdpSocket) {
    let object = EventObject::client(socket.as_raw_fd());
    let mut poller = OsPoller::new().unwrap();
    poller.add(object).unwrap();
    for _ in 0..WAITS {
        assert!(poller.expect_one().is_error());
        assert_eq!(socket.recv(&mut [0; 64]).unwrap_err().kind(), ErrorKind::WouldBlock);
        assert!(socket.take_error().unwrap().is_none());
    }
    poller.modify(object.with_mode(Mode::Edge)).unwrap();
    assert!(poller.expect_one().is_error());
    poller.expect_none();
    poller.modify(object).unwrap();
    take_from_error_queue(socket.as_raw_fd());
    poller.expect_none();
}

#[test]
fn a_message_in_the_error_queue_is_an_error_with_nothing_to_read() {
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    socket.set_nonblocking(true).unwrap();
    setsockopt(&socket, Ipv4RecvErr, &true).unwrap();
    let nobody = UdpSocket::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    socket.connect(nobody).unwrap();
    socket.send(b"x").unwrap();
    // The next call takes the error itself, but not the message about it.
    let error = socket.recv(&mut [0; 64]).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::ConnectionRefused);
    expect_an_error_without_data(&socket);
}

#[test]
fn a_time_stamp_of_sent_data_is_an_error_with_nothing_to_read() {
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    socket.set_nonblocking(true).unwrap();
    let flags = TimestampingFlag::SOF_TIMESTAMPING_TX_SOFTWARE
        | TimestampingFlag::SOF_TIMESTAMPING_SOFTWARE;
    setsockopt(&socket, Timestamping, &flags).unwrap();
    let somebody = UdpSocket::bind("127.0.0.1:0").unwrap();
    socket.connect(somebody.local_addr().unwrap()).unwrap();
    socket.send(b"x").unwrap();
    expect_an_error_without_data(&socket);
}

#[test]
fn a_fifo_without_a_writer_may_get_another() {
    let path = std::env::temp_dir().join(format!("pollio-fifo-{}", std::process::id()));
    mkfifo(&path, FileMode::S_IRWXU).unwrap();
    let mut reader = OpenOptions::new().read(true).custom_flags(O_NONBLOCK).open(&path).unwrap();
    let write = || OpenOptions::new().write(true).open(&path).unwrap();
    let mut poller = OsPoller::new().unwrap();
    poller.add(EventObject::new(reader.as_raw_fd())).unwrap();
    drop(write());
    assert!(poller.expect_one().is_read_closed());
    assert_eq!(reader.read(&mut [0]).unwrap(), 0);

    write().write_all(b"x").unwrap();
    poller.expect_one();
    assert_eq!(reader.read(&mut [0]).unwrap(), 1);
    let _writer = write();
    poller.expect_none();
    std::fs::remove_file(path).unwrap();
}

#[test]
fn a_terminal_that_nobody_has_open_may_be_opened_again() {
    in_subprocess!(|| {
        let pty = openpty(None, None).unwrap();
        let path = ttyname(&pty.slave).unwrap();
        let mut user = File::from(pty.master);
        drop(pty.slave);
        let mut poller = OsPoller::new().unwrap();
        poller.add(EventObject::client(user.as_raw_fd())).unwrap();
        assert!(poller.expect_one().is_read_closed());
        let error = user.read(&mut [0]).unwrap_err();
        assert_eq!(error.raw_os_error(), Some(Errno::EIO as i32));

        let mut again = OpenOptions::new().write(true).open(path).unwrap();
        poller.expect_none();
        again.write_all(b"x").unwrap();
        assert!(!poller.expect_one().is_read_closed());
        assert_eq!(user.read(&mut [0]).unwrap(), 1);
    });
}

#[test]
fn a_datagram_socket_that_is_not_connected_gets_no_event_of_room() {
    let path = std::env::temp_dir().join(format!("pollio-datagrams-{}", std::process::id()));
    let receiver = UnixDatagram::bind(&path).unwrap();
    receiver.set_nonblocking(true).unwrap();
    let sender = UnixDatagram::unbound().unwrap();
    sender.set_nonblocking(true).unwrap();
    let object = EventObject::client(sender.as_raw_fd())
        .with_interest(Interest::WRITABLE)
        .with_mode(Mode::Edge);
    let mut poller = OsPoller::new().unwrap();

    let other = UnixDatagram::unbound().unwrap();
    other.set_nonblocking(true).unwrap();
    while other.send_to(b"x", &path).is_ok() {}
    assert_eq!(sender.send_to(b"x", &path).unwrap_err().kind(), ErrorKind::WouldBlock);
    poller.add(object).unwrap();
    poller.expect_one(); // by add: the socket's own buffer has room
    receiver.recv(&mut [0]).unwrap();
    poller.expect_none();

    sender.send_to(b"x", &path).unwrap();
    sender.connect(&path).unwrap();
    assert_eq!(sender.send(b"x").unwrap_err().kind(), ErrorKind::WouldBlock);
    poller.modify(object).unwrap();
    poller.expect_none();
    while receiver.recv(&mut [0]).is_ok() {}
    poller.expect_one();
    std::fs::remove_file(path).unwrap();
}

#[test]
fn a_descriptor_that_was_sent_away_is_still_reported() {
    in_subprocess!(|| {
        let (near, mut far) = pair();
        let (sender, receiver) = UnixStream::pair().unwrap();
        let fd = near.as_raw_fd();
        let mut poller = OsPoller::new().unwrap();
        poller.add(EventObject::client(fd)).unwrap();
        let fds = [fd];
        let message = [ControlMessage::ScmRights(&fds)];
        let (payload, flags) = ([IoSlice::new(b"x")], MsgFlags::empty());
        sendmsg::<UnixAddr>(sender.as_raw_fd(), &payload, &message, flags, None).unwrap();
        drop(near);
        far.write_all(b"x").unwrap();
        // Nobody has received it yet.
        assert_eq!(poller.expect_one().fd, fd);
        assert_eq!(poller.delete(fd).unwrap_err().raw_os_error(), Some(Errno::EBADF as i32));
        // It is closed with the last socket that could receive it.
        drop((sender, receiver));
        poller.expect_none();
    });
}

#[test]
fn an_edge_of_an_interval_needs_a_clear() {
    let timer = Timer::new().unwrap();
    timer.set_interval(Duration::from_millis(2)).unwrap();
    let mut poller = OsPoller::new().unwrap();
    poller.add(EventObject::new(timer.as_raw_fd()).with_mode(Mode::Edge)).unwrap();
    for _ in 0..3 {
        poller.expect_one();
        poller.expect_none();
        assert!(timer.clear().unwrap() > 1);
    }
}
