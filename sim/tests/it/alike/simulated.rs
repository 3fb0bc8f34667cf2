//! The cases over simulated sockets.

use pollio_sim::fs::remove_file;
use pollio_sim::net::{Shutdown, SocketAddr, TcpListener, TcpStream, ToSocketAddrs, UdpSocket};
use pollio_sim::os::unix::net::{UnixListener, UnixStream};
use pollio_sim::socket2::{Domain, SockRef, Socket, Type};
use pollio_sim::thread;
use pollio_sim::{SimPoller as Watcher, Timer};

#[path = "cases.rs"]
#[allow(clippy::duplicate_mod, reason = "what it calls differs")]
pub(super) mod cases;
#[path = "datagrams.rs"]
#[allow(clippy::duplicate_mod, reason = "what it calls differs")]
pub(super) mod datagrams;
#[path = "unix.rs"]
#[allow(clippy::duplicate_mod, reason = "what it calls differs")]
pub(super) mod unix;
