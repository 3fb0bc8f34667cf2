//! Real descriptors in the states that the tests need.

use std::fs::File;
use std::io::{self, ErrorKind, Read, Write};
use std::net::{TcpListener, TcpStream, UdpSocket};
use std::os::unix::net::UnixStream;

use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::sys::resource::{Resource, getrlimit, rlim_t, setrlimit};

/// Two ends of a connection, neither of which blocks.
pub(crate) fn pair() -> (UnixStream, UnixStream) {
    let (near, far) = UnixStream::pair().unwrap();
    near.set_nonblocking(true).unwrap();
    far.set_nonblocking(true).unwrap();
    (near, far)
}

/// Two ends of a TCP connection, neither of which blocks.
pub(crate) fn tcp_pair() -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let far = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    let (near, _) = listener.accept().unwrap();
    near.set_nonblocking(true).unwrap();
    far.set_nonblocking(true).unwrap();
    (near, far)
}

/// Two UDP sockets that are connected to each other, neither of which blocks.
pub(crate) fn udp_pair() -> (UdpSocket, UdpSocket) {
    let near = UdpSocket::bind("127.0.0.1:0").unwrap();
    let far = UdpSocket::bind("127.0.0.1:0").unwrap();
    near.connect(far.local_addr().unwrap()).unwrap();
    far.connect(near.local_addr().unwrap()).unwrap();
    near.set_nonblocking(true).unwrap();
    far.set_nonblocking(true).unwrap();
    (near, far)
}

/// The reading and the writing end of a pipe, neither of which blocks.
pub(crate) fn pipe() -> (File, File) {
    let (reader, writer) = nix::unistd::pipe().unwrap();
    for end in [&reader, &writer] {
        fcntl(end, FcntlArg::F_SETFL(OFlag::O_NONBLOCK)).unwrap();
    }
    (File::from(reader), File::from(writer))
}

/// Writes until there is no more room.
pub(crate) fn fill(mut writer: impl Write) {
    until_it_would_block(|| writer.write(&[0; 4096]));
}

/// Reads until there is nothing left.
pub(crate) fn drain(mut reader: impl Read) {
    until_it_would_block(|| reader.read(&mut [0; 4096]));
}

fn until_it_would_block(mut transfer: impl FnMut() -> io::Result<usize>) {
    loop {
        match transfer() {
            Ok(0) => return,
            Ok(_) => {}
            Err(error) if error.kind() == ErrorKind::WouldBlock => return,
            Err(error) => panic!("{error}"),
        }
    }
}

/// Makes room for `count` descriptors in this process.
pub(crate) fn allow_descriptors(count: rlim_t) {
    let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
    assert!(
        hard >= count,
        "this test needs {count} descriptors and the hard limit is {hard}: raise it, or leave the \
         test out by name, with --skip"
    );
    setrlimit(Resource::RLIMIT_NOFILE, count, hard).unwrap();
}
