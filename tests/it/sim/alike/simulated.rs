//! The cases over simulated sockets.

use pollio::sim::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use pollio::sim::os::unix::net::UnixStream;
use pollio::sim::socket2::{Domain, SockRef, Socket, Type};
use pollio::sim::thread;
use pollio::sim::{SimPoller as Watcher, Timer, Waker};

#[path = "cases.rs"]
#[allow(clippy::duplicate_mod, reason = "what it calls differs")]
pub(super) mod cases;
