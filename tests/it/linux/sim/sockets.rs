//! The contract over simulated sockets: the same cases as over real ones.

use std::time::Duration;

use pollio_sim::{Conditions, World};

#[allow(clippy::all, reason = "the cases as they are")]
mod cases {
    use std::cell::Cell;
    use std::io::{self, ErrorKind, Read, Write};
    use std::os::fd::RawFd;
    use std::rc::Rc;
    use std::time::Duration;

    use pollio::{
        Connections, Event, EventKind, EventObject, ForeignSource, Interest, Key, Mode, Poller,
        Readiness, Registry,
    };
    use pollio_sim::net::{Shutdown, TcpListener, TcpStream};
    use pollio_sim::os::fd::AsRawFd;
    use pollio_sim::os::unix::net::UnixStream;
    use pollio_sim::socket2::{Domain, SockRef, Socket, Type};

    use crate::support::descriptors::{drain, fill};
    use crate::support::expect::Expect;

    const MODES: [Mode; 3] = [Mode::Level, Mode::Edge, Mode::Oneshot];

    fn pair() -> (UnixStream, UnixStream) {
        let (near, far) = UnixStream::pair().unwrap();
        near.set_nonblocking(true).unwrap();
        far.set_nonblocking(true).unwrap();
        (near, far)
    }

    fn tcp_pair() -> (TcpStream, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let far = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (near, _) = listener.accept().unwrap();
        near.set_nonblocking(true).unwrap();
        far.set_nonblocking(true).unwrap();
        (near, far)
    }

    include!(concat!(env!("OUT_DIR"), "/cases.rs"));
}

#[test]
fn simulated_sockets_keep_the_contract() {
    for (name, case) in cases::CASES {
        for seed in 0..20 {
            let outcome = World::run(seed, |world| {
                // A case that expects silence waits for 20 ms.
                let latency = Duration::ZERO..=Duration::from_millis(4);
                world.set_conditions(Conditions::calm().with_latency(latency));
                world.set_batch(usize::MAX);
                case();
                Ok(())
            });
            assert_eq!(outcome.failure, None, "{name}, seed {seed}: {:#?}", outcome.trace);
        }
    }
}
