//! Random scripts over simulated sockets in step with real ones: the same readiness through a poller, the same results
//! and the same errors. `pollio-tests`, which has the models of kqueue, includes this file.

use std::fmt;
use std::net::Shutdown;
use std::thread;
use std::time::Duration;

use pollio::{Interest, Mode, Poller};
use pollio_sim::{Conditions, Kernel, SimPoller, World};

use super::random::Random;

pub(crate) const MODES: [Mode; 3] = [Mode::Level, Mode::Edge, Mode::Oneshot];
/// Without PRIORITY: on Linux, data is an arrival for it too, and reports a standing WRITABLE again.
pub(crate) const INTERESTS: [Interest; 4] =
    [Interest::NONE, Interest::READABLE, Interest::WRITABLE, Interest::BOTH];

/// An operation on one of two ends of a connection.
#[derive(Debug, Clone, Copy)]
enum Step {
    Write(usize),
    /// Writes until there is no more room. Only for Unix sockets: TCP goes on sending from its buffer while the peer
    /// reads.
    Fill,
    Read(usize),
    Peek,
    Drain,
    ShutDown(Shutdown),
    TakeError,
    Close,
    Reset,
    Duplicate,
    Modify(Interest, Mode),
    Wait,
}

#[derive(Debug)]
struct Script {
    is_unix: bool,
    objects: [(Interest, Mode); 2],
    steps: Vec<(usize, Step)>,
}

impl Script {
    fn draw(mut random: Random, interests: &[Interest]) -> Self {
        let is_unix = random.below(2) == 0;
        let objects =
            [(); 2].map(|()| (interests[random.below(interests.len())], random.pick(MODES)));
        let steps = (0..random.below(40)).map(|_| {
            let step = match random.below(26) {
                0..=5 => Step::Write(random.below(10)),
                6..=7 if is_unix => Step::Fill,
                6..=10 => Step::Read(random.below(20)),
                11 if !is_unix => Step::Peek,
                11..=14 => Step::Drain,
                15..=17 => {
                    let how = [Shutdown::Read, Shutdown::Write, Shutdown::Write, Shutdown::Both];
                    Step::ShutDown(random.pick(how))
                }
                18 => Step::TakeError,
                19 => Step::Close,
                20 if !is_unix => Step::Reset,
                21 => Step::Duplicate,
                22..=24 => {
                    Step::Modify(interests[random.below(interests.len())], random.pick(MODES))
                }
                _ => Step::Wait,
            };
            (random.below(2), step)
        });
        Self { is_unix, objects, steps: steps.collect() }
    }
}

/// The result of a step: a number, or the number of an error.
pub(crate) fn show(result: std::io::Result<impl fmt::Debug>) -> String {
    match result {
        Ok(value) => format!("{value:?}"),
        Err(error) => format!("error {:?}", error.raw_os_error()),
    }
}

/// The script over the sockets that the module around it has imported.
macro_rules! runner {
    () => {
        use std::io::{Read, Write};
        use std::os::fd::AsRawFd;

        use pollio::{EventObject, Poller};

        use super::{Script, Step, show};

        enum Stream {
            Tcp(TcpStream),
            Unix(UnixStream),
        }

        /// The same for both kinds.
        macro_rules! with {
            ($end:expr, $stream:ident => $body:expr) => {
                match $end {
                    Stream::Tcp($stream) => $body,
                    Stream::Unix($stream) => $body,
                }
            };
        }

        fn ends(is_unix: bool) -> [Stream; 2] {
            if is_unix {
                let (near, far) = UnixStream::pair().unwrap();
                return [Stream::Unix(near), Stream::Unix(far)];
            }
            let listener = TcpListener::bind("127.0.0.1:0").unwrap();
            let client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
            // Otherwise a second write waits for the first one's acknowledgement.
            [client, listener.accept().unwrap().0].map(|stream| {
                stream.set_nodelay(true).unwrap();
                Stream::Tcp(stream)
            })
        }

        fn object(end: &Stream, token: usize, (interest, mode): (Interest, Mode)) -> EventObject {
            let object = EventObject::client(with!(end, stream => stream.as_raw_fd()));
            let object = object.with_token(u32::try_from(token).unwrap());
            object.with_interest(interest).with_mode(mode)
        }

        /// Runs the script, and returns the results of each step and of the wait after it.
        pub(super) fn run<P: Poller>(script: &Script, pause: impl Fn()) -> Vec<String> {
            let mut ends = ends(script.is_unix).map(Some);
            let mut duplicates = Vec::new();
            let mut poller = P::new().unwrap();
            for (token, end) in ends.iter().flatten().enumerate() {
                with!(end, stream => stream.set_nonblocking(true).unwrap());
                poller.add(object(end, token, script.objects[token])).unwrap();
            }
            let mut log = Vec::new();
            for (side, step) in &script.steps {
                let Some(end) = &ends[*side] else { continue };
                let mut buffer = [0; 4096];
                let result = match *step {
                    Step::Write(count) => show(with!(end, stream => (&*stream).write(&buffer[..count]))),
                    Step::Fill => loop {
                        match with!(end, stream => (&*stream).write(&buffer)) {
                            Ok(_) => {}
                            Err(error) => break show(Err::<(), _>(error)),
                        }
                    },
                    Step::Read(count) => {
                        show(with!(end, stream => (&*stream).read(&mut buffer[..count])))
                    }
                    Step::Peek => match end {
                        Stream::Tcp(stream) => show(stream.peek(&mut buffer)),
                        Stream::Unix(_) => String::new(),
                    },
                    Step::Drain => loop {
                        match with!(end, stream => (&*stream).read(&mut buffer)) {
                            Ok(0) => break "the end".into(),
                            Ok(_) => {}
                            Err(error) => break show(Err::<(), _>(error)),
                        }
                    },
                    Step::ShutDown(how) => show(with!(end, stream => stream.shutdown(how))),
                    Step::TakeError => {
                        let error = with!(end, stream => stream.take_error()).unwrap();
                        format!("{:?}", error.and_then(|error| error.raw_os_error()))
                    }
                    Step::Modify(interest, mode) => {
                        show(poller.modify(object(end, *side, (interest, mode))))
                    }
                    Step::Duplicate => {
                        duplicates.push(with!(end, stream => show(stream.try_clone().map(|duplicate| {
                            drop(duplicate);
                        }))));
                        String::new()
                    }
                    Step::Reset => {
                        with!(end, stream => SockRef::from(stream).set_linger(Some(Duration::ZERO)).unwrap());
                        ends[*side] = None;
                        String::new()
                    }
                    Step::Close => {
                        ends[*side] = None;
                        String::new()
                    }
                    Step::Wait => String::new(),
                };
                pause();
                let mut events: Vec<_> = poller
                    .wait(0)
                    .unwrap()
                    .iter()
                    .map(|event| (event.token, event.readiness()))
                    .collect();
                events.sort_by_key(|(token, _)| *token);
                log.push(format!("{side} {step:?}: {result}; {events:?}"));
            }
            log
        }
    };
}

mod real {
    use std::net::{TcpListener, TcpStream};
    use std::os::unix::net::UnixStream;
    use std::time::Duration;

    use pollio::{Interest, Mode};
    use socket2::SockRef;

    runner!();
}

mod simulated {
    use std::time::Duration;

    use pollio::{Interest, Mode};
    use pollio_sim::net::{TcpListener, TcpStream};
    use pollio_sim::os::unix::net::UnixStream;
    use pollio_sim::socket2::SockRef;

    runner!();
}

/// In a network without latency, like the loopback.
fn simulate(kernel: Kernel, script: &Script) -> Vec<String> {
    let mut log = Vec::new();
    let outcome = World::run_on(kernel, 0, |world| {
        world.set_linux_sockets();
        let latency = Duration::ZERO..=Duration::ZERO;
        world.set_conditions(Conditions::calm().with_latency(latency));
        world.set_batch(usize::MAX);
        log = simulated::run::<SimPoller>(script, || ());
        Ok(())
    });
    assert_eq!(outcome.failure, None, "{script:?}");
    log
}

/// Runs scripts with these interests over `P` and real sockets, and over simulated ones in a world with a kernel.
pub(crate) fn compare<P: Poller>(kernel: Kernel, interests: &[Interest]) {
    expect_in_step(
        &kernel.to_string(),
        |random| Script::draw(random, interests),
        |script, pause| real::run::<P>(script, || thread::sleep(pause)),
        |script| simulate(kernel, script),
        &[5, 20, 80, 320],
    );
}

/// Runs scripts over real sockets and over simulated ones, and compares the results. If they differ, the real ones try
/// again with each of `pauses`, in milliseconds, after each step.
pub(crate) fn expect_in_step<S: fmt::Debug>(
    name: &str,
    draw: impl Fn(Random) -> S,
    real: impl Fn(&S, Duration) -> Vec<String>,
    simulate: impl Fn(&S) -> Vec<String>,
    pauses: &[u64],
) {
    let scripts = std::env::var("POLLIO_SCRIPTS").map_or(2_000, |count| count.parse().unwrap());
    for seed in 0..scripts {
        let script = draw(Random::new(seed));
        let expected = real(&script, Duration::ZERO);
        let log = simulate(&script);
        if log == expected {
            continue;
        }
        // The loopback may be late on a busy machine, since the kernel leaves it to a thread.
        let again = |pause: &u64| real(&script, Duration::from_millis(*pause));
        let expected = pauses.iter().map(again).find(|again| *again == log).unwrap_or(expected);
        for (line, expected) in log.iter().zip(&expected) {
            assert_eq!(line, expected, "{name}, script {seed}: {script:#?}\n{log:#?}");
        }
    }
}
