//! Real descriptors in the states that the tests need.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::{self, ErrorKind, Read, Write};
use std::net::{TcpListener, TcpStream, UdpSocket};
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixStream;
use std::process::Command;

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::sys::resource::{Resource, getrlimit, rlim_t, setrlimit};

/// The descriptors that a program inherits from this process.
pub(crate) fn inherited() -> BTreeSet<String> {
    let listing = Command::new("ls").arg("/dev/fd").output().unwrap().stdout;
    let listing = String::from_utf8(listing).unwrap();
    let inherited: BTreeSet<_> = listing.lines().map(str::to_owned).collect();
    assert!(inherited.contains("0"), "ls shows no descriptors: {inherited:?}");
    inherited
}

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

/// The number of this process's open descriptors.
pub(crate) fn open() -> usize {
    fs::read_dir("/dev/fd").unwrap().count()
}

/// Calls `make` without room for a descriptor, then with room for one more each time, and returns its first result. A
/// call that fails has to return EMFILE, and to leave none open.
///
/// The limit holds for the whole process, so the test must be [alone](crate::support::subprocess::in_subprocess).
pub(crate) fn make_with_too_little_room_first<T>(mut make: impl FnMut() -> io::Result<T>) -> T {
    let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
    let before = open();
    // All lower numbers are taken, so this limit leaves no room at all.
    let lowest = rlim_t::from(File::open("/dev/null").unwrap().as_raw_fd().unsigned_abs());
    let mut room = 0;
    loop {
        setrlimit(Resource::RLIMIT_NOFILE, lowest + room, hard).unwrap();
        let made = make();
        setrlimit(Resource::RLIMIT_NOFILE, soft, hard).unwrap();
        match made {
            Ok(made) => {
                assert_ne!(room, 0, "it needs no descriptor");
                return made;
            }
            Err(error) => {
                assert_eq!(error.raw_os_error(), Some(Errno::EMFILE as i32), "{error}");
                assert_eq!(open(), before, "with room for {room} descriptors");
                room += 1;
            }
        }
    }
}

/// Makes room for `count` descriptors in this process.
pub(crate) fn allow_descriptors(count: u32) {
    let count = rlim_t::from(count);
    let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
    assert!(
        hard >= count,
        "this test needs {count} descriptors and the hard limit is {hard}: raise it, or leave the \
         test out by name, with --skip"
    );
    setrlimit(Resource::RLIMIT_NOFILE, count, hard).unwrap();
}
