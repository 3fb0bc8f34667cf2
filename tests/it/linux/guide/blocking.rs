//! The sections "Blocking descriptors" and "Terminals, stdin and pipes".

use std::fs::File;
use std::io::{self, ErrorKind, Read, Write};
use std::mem::MaybeUninit;
use std::net::TcpListener;
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::libc::MSG_DONTWAIT;
use nix::pty::openpty;
use nix::unistd::dup2_stdin;
use pollio::{EventObject, Interest, Mode, OsPoller, Poller};
use socket2::SockRef;

use crate::support::descriptors::{fill, pipe};
use crate::support::expect::Expect;
use crate::support::subprocess::in_subprocess;

const SHORT: Duration = Duration::from_millis(50);

/// A write that lasts until the socket's timeout counts as blocked.
#[test]
fn a_write_of_more_than_there_is_room_for_blocks() {
    let (mut near, _far) = UnixStream::pair().unwrap();
    near.set_write_timeout(Some(SHORT)).unwrap();
    let mut poller = OsPoller::new().unwrap();
    let object = EventObject::client(near.as_raw_fd()).with_interest(Interest::WRITABLE);
    poller.add(object).unwrap();
    assert!(poller.expect_one().is_writable());
    let start = Instant::now();
    let written = near.write(&vec![0; 16 << 20]).unwrap();
    assert!(written < 16 << 20 && start.elapsed() >= SHORT);
}

#[test]
fn an_accept_blocks_if_another_was_faster() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    SockRef::from(&listener).set_read_timeout(Some(SHORT)).unwrap();
    let _client = std::net::TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    let mut pollers = [OsPoller::new().unwrap(), OsPoller::new().unwrap()];
    for poller in &mut pollers {
        poller.add(EventObject::server(listener.as_raw_fd())).unwrap();
        assert!(poller.expect_one().is_readable());
    }
    listener.accept().unwrap();
    let start = Instant::now();
    assert_eq!(listener.accept().unwrap_err().kind(), ErrorKind::WouldBlock);
    assert!(start.elapsed() >= SHORT);
}

#[test]
fn a_duplicate_shares_o_nonblock() {
    let (near, _far) = UnixStream::pair().unwrap();
    let mut duplicate = near.try_clone().unwrap();
    near.set_nonblocking(true).unwrap();
    assert_eq!(duplicate.read(&mut [0]).unwrap_err().kind(), ErrorKind::WouldBlock);
}

#[test]
fn a_call_with_msg_dontwait_does_not_block() {
    let (near, _far) = UnixStream::pair().unwrap();
    let mut buffer = [MaybeUninit::uninit(); 1];
    let received = SockRef::from(&near).recv_with_flags(&mut buffer, MSG_DONTWAIT);
    assert_eq!(received.unwrap_err().kind(), ErrorKind::WouldBlock);
    let flags = fcntl(&near, FcntlArg::F_GETFL).unwrap();
    assert!(!OFlag::from_bits_retain(flags).contains(OFlag::O_NONBLOCK));
}

/// On Linux. The writer does not block here, so a partial write would show.
#[test]
fn a_pipe_that_is_writable_takes_4096_bytes() {
    let (mut reader, mut writer) = pipe();
    let mut poller = OsPoller::new().unwrap();
    let object = EventObject::client(writer.as_raw_fd()).with_interest(Interest::WRITABLE);
    poller.add(object).unwrap();
    fill(&writer);
    let mut events = 0;
    for _ in 0..64 {
        while poller.wait(0).unwrap().is_empty() {
            assert_ne!(reader.read(&mut [0; 100]).unwrap(), 0);
        }
        assert_eq!(writer.write(&[0; 4096]).unwrap(), 4096);
        events += 1;
    }
    assert_eq!(events, 64);
}

#[test]
fn a_line_in_the_buffer_of_stdin_is_not_reported() {
    in_subprocess!(|| {
        let (reader, mut writer) = pipe();
        dup2_stdin(reader).unwrap();
        let mut poller = OsPoller::new().unwrap();
        poller.add(EventObject::client(io::stdin().as_raw_fd())).unwrap();
        writer.write_all(b"one\ntwo\n").unwrap();
        poller.expect_one();
        let mut line = String::new();
        io::stdin().read_line(&mut line).unwrap();
        poller.expect_none();
        io::stdin().read_line(&mut line).unwrap();
        assert_eq!(line, "one\ntwo\n");
    });
}

/// A descriptor of one's own has no such buffer.
#[test]
fn a_duplicate_of_stdin_has_no_buffer() {
    in_subprocess!(|| {
        let (reader, mut writer) = pipe();
        dup2_stdin(reader).unwrap();
        let mut stdin = File::from(io::stdin().as_fd().try_clone_to_owned().unwrap());
        let mut poller = OsPoller::new().unwrap();
        poller.add(EventObject::client(stdin.as_raw_fd())).unwrap();
        writer.write_all(b"one\ntwo\n").unwrap();
        stdin.read_exact(&mut [0; 4]).unwrap();
        poller.expect_one();
    });
}

#[test]
fn a_terminal_is_readable_by_the_line() {
    let pty = openpty(None, None).unwrap();
    let (mut user, mut terminal) = (File::from(pty.master), File::from(pty.slave));
    let mut poller = OsPoller::new().unwrap();
    poller.add(EventObject::new(terminal.as_raw_fd())).unwrap();
    user.write_all(b"half").unwrap();
    poller.expect_none();
    user.write_all(b" a line\n").unwrap();
    poller.expect_one();
    let mut buffer = [0; 64];
    let count = terminal.read(&mut buffer).unwrap();
    assert_eq!(&buffer[..count], b"half a line\n");

    // Ctrl-D: an end after which input goes on.
    user.write_all(&[4]).unwrap();
    assert!(!poller.expect_one().is_read_closed());
    assert_eq!(terminal.read(&mut buffer).unwrap(), 0);
    poller.expect_none();
    user.write_all(b"more\n").unwrap();
    poller.expect_one();
    assert_eq!(terminal.read(&mut buffer).unwrap(), 5);
}

/// A socket pair in place of a pipe: only the parent's end is non-blocking.
#[test]
fn a_child_can_have_a_socket_for_its_output() {
    let (mut near, far) = UnixStream::pair().unwrap();
    near.set_nonblocking(true).unwrap();
    let mut poller = OsPoller::new().unwrap();
    poller.add(EventObject::client(near.as_raw_fd()).with_mode(Mode::Edge)).unwrap();
    let mut command = std::process::Command::new("sh");
    command.args(["-c", "printf hello"]).stdout(std::os::fd::OwnedFd::from(far));
    let mut child = crate::support::subprocess::spawn(&mut command);
    drop(command); // it has the other end
    let mut output = Vec::new();
    loop {
        poller.wait(-1).unwrap();
        match near.read_to_end(&mut output) {
            Ok(_) => break,
            Err(error) => assert_eq!(error.kind(), ErrorKind::WouldBlock),
        }
    }
    assert_eq!(output, b"hello");
    assert!(child.wait().unwrap().success());
}
