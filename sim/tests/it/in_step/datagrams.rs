//! Random scripts over simulated UDP sockets in step with real ones.

use std::net::Shutdown;
use std::thread;
use std::time::Duration;

use pollio::{Interest, Mode};
use pollio_sim::{Conditions, World};

use super::{INTERESTS, MODES, show};
use crate::random::Random;
use crate::script::expect_in_step;

const SOCKETS: usize = 3;

/// The destination of a datagram: one of the sockets, open or not, or, as the last number, an unused port.
type Target = usize;

/// An operation on one of the sockets.
#[derive(Debug, Clone, Copy)]
enum Step {
    Send(usize),
    SendTo(usize, Target),
    Receive(usize),
    ReceiveFrom(usize),
    Peek(usize),
    PeekFrom(usize),
    Connect(Target),
    ShutDown(Shutdown),
    TakeError,
    /// Closes it, or opens it again at its port.
    Toggle,
    Duplicate,
    Modify(Interest, Mode),
    Wait,
}

#[derive(Debug)]
struct Script {
    objects: [(Interest, Mode); SOCKETS],
    steps: Vec<(usize, Step)>,
}

impl Script {
    fn draw(mut random: Random) -> Self {
        let objects = [(); SOCKETS].map(|()| (random.pick(INTERESTS), random.pick(MODES)));
        let steps = (0..random.below(60)).map(|_| {
            let length = match random.below(30) {
                0 => random.pick([65_508, 65_535, 65_536, 100_000]),
                1..=5 => 0,
                _ => random.below(2_000),
            };
            let size = random.pick([0, 1, 100, 2_000]);
            let target = random.below(SOCKETS + 1);
            let how = random.pick([Shutdown::Read, Shutdown::Write, Shutdown::Both]);
            let step = match random.below(40) {
                0..=7 => Step::Send(length),
                8..=13 => Step::SendTo(length, target),
                14..=17 => Step::Receive(size),
                18..=21 => Step::ReceiveFrom(size),
                22..=23 => Step::Peek(size),
                24 => Step::PeekFrom(size),
                25..=29 => Step::Connect(target),
                30 => Step::ShutDown(how),
                31..=32 => Step::TakeError,
                33..=34 => Step::Toggle,
                35 => Step::Duplicate,
                36..=38 => Step::Modify(random.pick(INTERESTS), random.pick(MODES)),
                _ => Step::Wait,
            };
            (random.below(SOCKETS), step)
        });
        Self { objects, steps: steps.collect() }
    }
}

/// The script over the sockets that the module around it has imported.
macro_rules! runner {
    () => {
        use std::io;
        use std::os::fd::AsRawFd;

        use pollio::{EventObject, Poller};

        use super::{SOCKETS, Script, Step, show};

        /// No other test has UDP sockets at this address.
        const HOST: &str = "127.7.7.9";

        fn open(address: impl ToSocketAddrs) -> io::Result<UdpSocket> {
            let socket = UdpSocket::bind(address)?;
            socket.set_nonblocking(true)?;
            Ok(socket)
        }

        fn object(socket: &UdpSocket, token: usize, registered: (Interest, Mode)) -> EventObject {
            let object = EventObject::client(socket.as_raw_fd());
            let object = object.with_token(u32::try_from(token).unwrap());
            object.with_interest(registered.0).with_mode(registered.1)
        }

        /// Runs the script, and returns the results of each step and of the wait after it.
        pub(super) fn run(script: &Script, pause: impl Fn()) -> Vec<String> {
            let sockets = [(); SOCKETS].map(|()| open((HOST, 0)).unwrap());
            let nobody = open((HOST, 0)).unwrap().local_addr().unwrap();
            let addresses: Vec<_> = sockets.each_ref().map(|s| s.local_addr().unwrap()).into();
            let targets: Vec<_> = addresses.iter().copied().chain([nobody]).collect();
            let index = |address| targets.iter().position(|target| *target == address).unwrap();
            let mut sockets = sockets.map(Some);
            let mut objects = script.objects;
            let mut duplicates = Vec::new();
            let mut poller = AnyPoller::new().unwrap();
            for (token, socket) in sockets.iter().flatten().enumerate() {
                poller.add(object(socket, token, objects[token])).unwrap();
            }
            let mut log = Vec::new();
            for (number, &(side, step)) in script.steps.iter().enumerate() {
                let bytes = vec![u8::try_from(number).unwrap(); 100_000];
                let mut buffer = [255; 2_000];
                let Some(socket) = &sockets[side] else {
                    if matches!(step, Step::Toggle) {
                        let socket = open(addresses[side]).unwrap();
                        poller.add(object(&socket, side, objects[side])).unwrap();
                        sockets[side] = Some(socket);
                    }
                    continue;
                };
                let result = match step {
                    Step::Send(length) => show(socket.send(&bytes[..length])),
                    Step::SendTo(length, target) => {
                        show(socket.send_to(&bytes[..length], targets[target]))
                    }
                    Step::Receive(size) => show(socket.recv(&mut buffer[..size])),
                    Step::Peek(size) => show(socket.peek(&mut buffer[..size])),
                    Step::ReceiveFrom(size) => {
                        let received = socket.recv_from(&mut buffer[..size]);
                        show(received.map(|(count, source)| (count, index(source))))
                    }
                    Step::PeekFrom(size) => {
                        let received = socket.peek_from(&mut buffer[..size]);
                        show(received.map(|(count, source)| (count, index(source))))
                    }
                    Step::Connect(target) => {
                        let connected = socket.connect(targets[target]);
                        show(connected.and_then(|()| socket.peer_addr()).map(index))
                    }
                    Step::ShutDown(how) => show(SockRef::from(socket).shutdown(how)),
                    Step::TakeError => {
                        let error = socket.take_error().unwrap();
                        format!("{:?}", error.and_then(|error| error.raw_os_error()))
                    }
                    Step::Modify(interest, mode) => {
                        objects[side] = (interest, mode);
                        show(poller.modify(object(socket, side, objects[side])))
                    }
                    Step::Duplicate => {
                        duplicates.push(show(socket.try_clone().map(drop)));
                        String::new()
                    }
                    Step::Toggle => {
                        sockets[side] = None;
                        String::new()
                    }
                    Step::Wait => String::new(),
                };
                pause();
                let events = poller.wait(0).unwrap().iter();
                let mut events: Vec<_> =
                    events.map(|event| (event.token, event.readiness())).collect();
                events.sort_by_key(|(token, _)| *token);
                log.push(format!("{side} {step:?}: {result}, {}; {events:?}", buffer[0]));
            }
            log
        }
    };
}

mod real {
    use std::net::{ToSocketAddrs, UdpSocket};

    use pollio::{Interest, Mode, OsPoller as AnyPoller};
    use socket2::SockRef;

    runner!();
}

mod simulated {
    use pollio::{Interest, Mode};
    use pollio_sim::SimPoller as AnyPoller;
    use pollio_sim::net::{ToSocketAddrs, UdpSocket};
    use pollio_sim::socket2::SockRef;

    runner!();
}

/// In a network without latency, like the loopback, with the buffers of Linux.
fn simulate(script: &Script) -> Vec<String> {
    let mut log = Vec::new();
    let outcome = World::run(0, |world| {
        let latency = Duration::ZERO..=Duration::ZERO;
        let conditions = Conditions::calm().with_latency(latency).with_buffer(212_992..=212_992);
        world.set_conditions(conditions);
        world.set_batch(usize::MAX);
        log = simulated::run(script, || ());
        Ok(())
    });
    assert_eq!(outcome.failure, None, "{script:?}");
    log
}

#[test]
fn simulated_udp_sockets_are_in_step_with_real_ones() {
    expect_in_step(
        "udp",
        Script::draw,
        |script, pause| real::run(script, || thread::sleep(pause)),
        simulate,
        &[5, 20, 80],
    );
}
