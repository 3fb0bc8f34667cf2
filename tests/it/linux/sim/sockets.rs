//! The contract over simulated sockets, on each kernel: the same cases as over real ones.

use std::io;
use std::marker::PhantomData;
use std::time::Duration;

use pollio::{Event, OsPoller, Poller, Registry};
use pollio_sim::{Conditions, Kernel, SimPoller, World};

use crate::linux::kqueue_model::{apple, dragonfly, freebsd, netbsd, openbsd};
use crate::support::kernel::{self, On};

/// A simulated poller in a world with the kernel of `S`.
struct Simulated<S>(SimPoller, PhantomData<S>);

impl<S> Poller for Simulated<S> {
    fn new() -> io::Result<Self> {
        Ok(Self(SimPoller::new()?, PhantomData))
    }

    fn registry(&self) -> &Registry {
        self.0.registry()
    }

    fn wait_timeout(&mut self, timeout: Option<Duration>) -> io::Result<&[Event]> {
        self.0.wait_timeout(timeout)
    }
}

impl<S: On> On for Simulated<S> {
    const KERNEL: kernel::Kernel = S::KERNEL;
}

#[allow(clippy::all, reason = "the cases as they are")]
mod cases {
    use std::cell::Cell;
    use std::io::{self, ErrorKind, Read, Write};
    use std::os::fd::RawFd;
    use std::rc::Rc;
    use std::time::Duration;

    use nix::errno::Errno;
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
    use crate::support::kernel::{Kernel, On};

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

fn run_all<S: On>(kernel: Kernel) {
    let mut cases = cases::of_all::<Simulated<S>>();
    if kernel != Kernel::Linux {
        cases.extend(cases::of_kqueue::<Simulated<S>>());
    }
    for (name, case) in cases {
        for seed in 0..20 {
            let outcome = World::run_on(kernel, seed, |world| {
                // A case that expects no event waits for 20 ms.
                let latency = Duration::ZERO..=Duration::from_millis(4);
                world.set_conditions(Conditions::calm().with_latency(latency));
                world.set_batch(usize::MAX);
                case();
                Ok(())
            });
            let trace = &outcome.trace;
            assert_eq!(outcome.failure, None, "{name} on {kernel}, seed {seed}: {trace:#?}");
        }
    }
}

#[test]
fn simulated_sockets_keep_the_contract() {
    run_all::<OsPoller>(Kernel::Linux);
}

#[test]
fn simulated_sockets_keep_the_contract_on_apple() {
    run_all::<apple::System>(Kernel::Apple);
}

#[test]
fn simulated_sockets_keep_the_contract_on_freebsd() {
    run_all::<freebsd::System>(Kernel::FreeBsd);
}

#[test]
fn simulated_sockets_keep_the_contract_on_netbsd() {
    run_all::<netbsd::System>(Kernel::NetBsd);
}

#[test]
fn simulated_sockets_keep_the_contract_on_openbsd() {
    run_all::<openbsd::System>(Kernel::OpenBsd);
}

#[test]
fn simulated_sockets_keep_the_contract_on_dragonfly() {
    run_all::<dragonfly::System>(Kernel::DragonFly);
}
