//! A whole echo server for each peer, under one and the same load.

use std::collections::{HashMap, VecDeque};
use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::os::fd::{AsRawFd, RawFd};
use std::thread;
use std::time::{Duration, Instant};

use indicatif::ProgressBar;

use super::Plan;
use crate::machine::{Busy, cores, pin, time_of};
use crate::method::{Case, Figures, Row, Turn, compare};
use crate::peer::{Asked, BASE, Peer, US, US_SPINNING, all::Bare};
use crate::server::{self, Server};
use crate::sockets::{prepare, read, write};
use crate::stats::Latencies;

pub(crate) const COUNTS: &str = "An echo server on one core, in a process of its own, and clients \
    on another, each of which sends 64 bytes over TCP, waits for the answer, and sends again, at once \
    or some time later; a single one with blocking calls, more of them over bare epoll, and those that \
    send later over bare epoll that polls. Counted: messages a second, how long an answer took, and \
    the time on a core that the server needed for a message.";

const MESSAGE: [u8; 64] = [b'x'; 64];

/// The duration of a turn, after a third of it to warm up.
#[derive(Clone, Copy)]
struct Load {
    connections: usize,
    /// The pause from an answer to the next message.
    pause: Duration,
    time: Duration,
    cores: [usize; 2],
}

pub(crate) fn run(plan: Plan, progress: &ProgressBar) -> io::Result<Vec<Row>> {
    let cores = cores()?;
    let time = Duration::from_millis(plan.of([100, 300]));
    let one = Load { connections: 1, pause: Duration::ZERO, time, cores };
    let rounds = plan.of([1, 5]);
    let mut rows = Vec::new();
    for connections in plan.some(&[1, 256], &[1, 16, 256, 1_000, 8_000]) {
        let case = Case { workload: "echo", name: connections.to_string(), rounds };
        rows.extend(compare(case, turns(Load { connections, ..one }), progress));
    }
    // Cases in which spinning may matter: few connections, with pauses.
    for connections in plan.some(&[1], &[1, 4, 16]) {
        for us in plan.some(&[20], &[0, 20, 100]) {
            let pause = Duration::from_micros(us);
            if pause.is_zero() && connections != 4 {
                continue;
            }
            let name = format!("{connections}, {us} µs between");
            let mut turns = turns(Load { connections, pause, ..one });
            turns.retain(|turn| [BASE, US, US_SPINNING].contains(&turn.peer));
            rows.extend(compare(Case { workload: "echo", name, rounds }, turns, progress));
        }
    }
    let _busy = Busy::new()?;
    let case = Case { workload: "echo", name: "1, two busy cores".to_owned(), rounds };
    rows.extend(compare(case, turns(one), progress));
    Ok(rows)
}

fn turns(load: Load) -> Vec<Turn<'static>> {
    let turn = |(peer, _)| Turn { peer, run: Ok(Box::new(move || load.on(peer))) };
    server::all().into_iter().map(turn).collect()
}

impl Load {
    fn on(self, peer: &str) -> io::Result<Figures> {
        let [here, there] = self.cores;
        let server = Server::start(peer, there)?;
        let clients = || {
            pin(here)?;
            let streams: Vec<_> = (0..self.connections)
                .map(|_| TcpStream::connect(server.address))
                .collect::<io::Result<_>>()?;
            if let ([stream], true) = (&streams[..], self.pause.is_zero()) {
                stream.set_nodelay(true)?;
                self.measure(&server, |until, latencies| ask_one(stream, until, latencies))
            } else {
                streams.iter().try_for_each(prepare)?;
                let mut clients = Clients::new(&streams, self.pause)?;
                self.measure(&server, |until, latencies| clients.ask(until, latencies))
            }
        };
        // A thread of its own, since it stays on its core.
        thread::scope(|scope| scope.spawn(clients).join().expect("it does not panic"))
    }

    #[expect(clippy::cast_precision_loss, reason = "figures of a bench have few digits")]
    fn measure(
        self,
        server: &Server,
        mut ask: impl FnMut(Instant, &mut Latencies) -> io::Result<u64>,
    ) -> io::Result<Figures> {
        ask(Instant::now() + self.time / 3, &mut Latencies::new())?;
        let mut latencies = Latencies::new();
        let (start, busy) = (Instant::now(), time_of(server.id())?);
        let messages = ask(start + self.time, &mut latencies)? as f64;
        let (time, busy) = (start.elapsed(), time_of(server.id())? - busy);
        let mut figures = vec![
            ("messages/s", messages / time.as_secs_f64()),
            ("core of the server [µs]", busy.as_secs_f64() * 1e6 / messages),
        ];
        figures.extend(latencies.figures());
        Ok(figures)
    }
}

fn ask_one(mut stream: &TcpStream, until: Instant, latencies: &mut Latencies) -> io::Result<u64> {
    let mut answer = MESSAGE;
    let mut messages = 0;
    loop {
        let start = Instant::now();
        stream.write_all(&MESSAGE)?;
        stream.read_exact(&mut answer)?;
        let now = Instant::now();
        latencies.record(now - start);
        messages += 1;
        if now > until {
            return Ok(messages);
        }
    }
}

/// Many clients that ask at once.
struct Clients {
    poller: Bare,
    asked: HashMap<RawFd, Asking>,
    pause: Duration,
    /// The clients that will send again, and their times.
    later: VecDeque<(Instant, RawFd)>,
}

/// A client, and the answer that it waits for.
struct Asking {
    since: Instant,
    bytes: usize,
}

impl Clients {
    fn new(streams: &[TcpStream], pause: Duration) -> io::Result<Self> {
        let mut poller = Bare::new()?;
        let mut asked = HashMap::new();
        for stream in streams {
            let fd = stream.as_raw_fd();
            poller.add(fd, Asked::LEVEL)?;
            write(fd, &MESSAGE)?;
            asked.insert(fd, Asking { since: Instant::now(), bytes: MESSAGE.len() });
        }
        Ok(Self { poller, asked, pause, later: VecDeque::new() })
    }

    fn ask(&mut self, until: Instant, latencies: &mut Latencies) -> io::Result<u64> {
        let (mut messages, mut outcome) = (0, Ok(()));
        let mut now = Instant::now();
        while now < until {
            while let Some((_, fd)) = self.later.front().filter(|(when, _)| *when <= now) {
                write(*fd, &MESSAGE)?;
                self.asked.insert(*fd, Asking { since: now, bytes: MESSAGE.len() });
                self.later.pop_front();
            }
            let timeout_ms = if self.later.is_empty() { -1 } else { 0 };
            self.poller.poll(timeout_ms, |fd| {
                let Some(asking) = self.asked.get_mut(&fd) else { return };
                match is_answered(fd, asking) {
                    Ok(false) => {}
                    Ok(true) => {
                        now = Instant::now();
                        latencies.record(now - asking.since);
                        messages += 1;
                        if self.pause.is_zero() {
                            *asking = Asking { since: now, bytes: MESSAGE.len() };
                            outcome = write(fd, &MESSAGE);
                        } else {
                            self.later.push_back((now + self.pause, fd));
                        }
                    }
                    Err(error) => outcome = Err(error),
                }
            })?;
            outcome?;
            outcome = Ok(());
            if !self.later.is_empty() {
                now = Instant::now();
            }
        }
        Ok(messages)
    }
}

/// Whether the answer is complete.
fn is_answered(fd: RawFd, asking: &mut Asking) -> io::Result<bool> {
    let mut answer = MESSAGE;
    let count = read(fd, &mut answer)?;
    if count == 0 {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    asking.bytes -= count;
    Ok(asking.bytes == 0)
}
