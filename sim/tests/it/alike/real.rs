//! The cases over real sockets.

use std::fs::remove_file;
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream, ToSocketAddrs, UdpSocket};
use std::os::unix::net::{UnixListener, UnixStream};
use std::thread;

use pollio::{OsPoller as Watcher, Timer};
use socket2::{Domain, SockRef, Socket, Type};

#[path = "cases.rs"]
pub(super) mod cases;
#[path = "datagrams.rs"]
pub(super) mod datagrams;
#[path = "unix.rs"]
pub(super) mod unix;
