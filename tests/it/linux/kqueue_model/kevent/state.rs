//! The state of a descriptor on Linux, for filters of a kqueue that need more than epoll reports.

use std::fs::{self, File, Metadata};
use std::io;
use std::mem::ManuallyDrop;
use std::os::fd::{AsFd, BorrowedFd, FromRawFd, RawFd};
use std::os::unix::fs::{FileTypeExt, MetadataExt};

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use rustix::io::ioctl_fionread;
use socket2::{Domain, SockRef, Type};

use crate::linux::kqueue_model::sys::epoll;

/// The model's size of a receive buffer.
const BUFFER: u64 = 64 * 1024;

fn borrow(ident: usize) -> Option<BorrowedFd<'static>> {
    let fd = RawFd::try_from(ident).ok()?;
    // SAFETY: a knote names it, so it was open just now; if it is closed, a call fails.
    Some(unsafe { BorrowedFd::borrow_raw(fd) })
}

/// The metadata of a descriptor, if it is open.
pub(crate) fn named(ident: usize) -> Option<Metadata> {
    let fd = RawFd::try_from(ident).ok()?;
    // SAFETY: nothing but fstat(2) is called on it, which takes any number, and it is not closed here.
    ManuallyDrop::new(unsafe { File::from_raw_fd(fd) }).metadata().ok()
}

/// The number of bytes to read.
pub(crate) fn unread(ident: usize) -> Option<u64> {
    ioctl_fionread(borrow(ident)?).ok()
}

/// Whether the unread bytes fill a receive buffer.
pub(crate) fn is_full(ident: usize) -> bool {
    unread(ident).is_some_and(|bytes| bytes >= BUFFER)
}

/// Whether it was opened only for reading, or only for writing.
pub(crate) fn is_only(ident: usize, mode: OFlag) -> bool {
    let flags = borrow(ident).and_then(|fd| fcntl(fd, FcntlArg::F_GETFL).ok());
    flags.is_some_and(|flags| OFlag::from_bits_retain(flags) & OFlag::O_ACCMODE == mode)
}

/// Whether a write would not block.
pub(crate) fn has_room(ident: usize) -> bool {
    borrow(ident).is_some_and(|fd| {
        poll(&mut [PollFd::new(fd, PollFlags::POLLOUT)], PollTimeout::ZERO) == Ok(1)
    })
}

/// Whether nothing of a file is left to read: fdinfo(5) has its position.
pub(crate) fn is_at_its_end(ident: usize, file: Option<&Metadata>) -> bool {
    let info = fs::read_to_string(format!("/proc/self/fdinfo/{ident}")).unwrap_or_default();
    let position = info.lines().find_map(|line| line.strip_prefix("pos:"));
    let position = position.and_then(|position| position.trim().parse::<u64>().ok());
    position.zip(file).is_some_and(|(position, file)| position >= file.len())
}

/// Whether it is a socket that listens.
pub(crate) fn is_listener(ident: usize) -> bool {
    borrow(ident).is_some_and(|fd| SockRef::from(&fd).is_listener().unwrap_or(false))
}

/// Whether it is a datagram socket with a path for an address, or none.
pub(crate) fn is_unix_datagram(ident: usize) -> bool {
    borrow(ident).is_some_and(|fd| {
        let socket = SockRef::from(&fd);
        let is_unix = socket.domain().is_ok_and(|domain| domain == Domain::UNIX);
        is_unix && socket.r#type().is_ok_and(|kind| kind == Type::DGRAM)
    })
}

/// The number of connections in the queue of a listening TCP socket.
pub(crate) fn to_accept(socket: Option<&Metadata>) -> Option<u64> {
    let line = tcp_line(socket)?;
    let (_, queue) = line[4].split_once(':')?;
    u64::from_str_radix(queue, 16).ok()
}

/// Whether a TCP socket is connected, and neither side has ended its half.
pub(crate) fn is_established(socket: Option<&Metadata>) -> bool {
    const ESTABLISHED: &str = "01";
    tcp_line(socket).is_some_and(|line| line[3] == ESTABLISHED)
}

/// The line of /proc/net/tcp about a socket, in its columns.
fn tcp_line(socket: Option<&Metadata>) -> Option<Vec<String>> {
    let socket = socket.filter(|socket| socket.file_type().is_socket())?;
    let inode = socket.ino().to_string();
    let table = fs::read_to_string("/proc/net/tcp").ok()?;
    let lines = table.lines().map(|line| line.split_whitespace().collect::<Vec<_>>());
    let line = lines.into_iter().find(|line| line.get(9) == Some(&&*inode))?;
    Some(line.into_iter().map(str::to_owned).collect())
}

pub(crate) fn is_same(one: Option<&Metadata>, other: Option<&Metadata>) -> bool {
    let identity = |file: &Metadata| (file.dev(), file.ino());
    one.map(identity) == other.map(identity)
}

pub(crate) fn is_socket(file: &Metadata) -> bool {
    file.file_type().is_socket()
}

pub(crate) fn is_fifo(file: &Metadata) -> bool {
    file.file_type().is_fifo()
}

pub(crate) fn is_pipe_without_its_other_end(
    ident: usize,
    named: Option<&Metadata>,
) -> io::Result<bool> {
    if !named.is_some_and(is_fifo) {
        return Ok(false);
    }
    let (queue, mut events) = (epoll::create()?, [epoll::NO_EVENT]);
    let fd = RawFd::try_from(ident).map_err(|_| Errno::EBADF)?;
    epoll::add(queue.as_fd(), fd, 0, 0)?;
    let count = epoll::wait(queue.as_fd(), &mut events, 0)?;
    // The writing end then has an error, the reading end a hang-up.
    Ok(count > 0)
}

pub(crate) fn named_by(fd: RawFd) -> Option<Metadata> {
    named(usize::try_from(fd).ok()?)
}
