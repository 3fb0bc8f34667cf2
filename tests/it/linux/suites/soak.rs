//! Thousands of clients that come and go: every byte is compared, and nothing is left behind.
//!
//! Among the other tests it is short, with few connections. `.ci/soak` runs it for long.

use std::array;
use std::env;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::iter;
use std::mem;
use std::net::SocketAddr;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::process::{Child, Stdio};
use std::thread;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use nix::errno::Errno;
use nix::sys::signal::Signal;
use pollio::{Event, EventObject, Interest, OsPoller, Poller, Registry};
use socket2::{Domain, Socket, Type};

use crate::linux::support::example::{LONG, Running, eventually, processor_time, with_descriptors};
use crate::linux::support::talker::{Ending, Script, Talker};
use crate::support::descriptors::allow_descriptors;
use crate::support::subprocess::{spawn, this_program_again, this_test};

/// The total time in which clients come and go. Without it, this is a short test.
const SECONDS: &str = "POLLIO_SOAK_SECONDS";

/// The seed of the clients. Without it, each run has another.
const SEED: &str = "POLLIO_SOAK_SEED";

/// Marks a process of clients, with its server, the number of clients, and their seed.
const CLIENTS: &str = "POLLIO_TEST_CLIENTS";

/// Enough processes for each to have descriptors for its part of the connections.
const PROCESSES: usize = 3;

/// How many clients of a process talk at once, while the others are silent.
///
/// Each has at most two connections that wait to be accepted, and the server's queue has room for all of them. From a
/// client beyond the queue, the kernel would lose data and even the close.
const TALKERS: usize = 100;

/// The bytes that each connection may leave behind: half of glibc's smallest allocation.
const LEFT_BYTES: u64 = 16;

/// The bytes by which the server may still grow for each concurrent connection: its tables double now and then.
const GROWTH_BYTES: u64 = 128;

/// The part of its time for which an idle process may use the processor: 20 ms of 10 s.
const IDLE_PART: u32 = 500;

#[test]
fn clients_come_and_go_and_the_server_stays_as_it_was() {
    if let Ok(orders) = env::var(CLIENTS) {
        return Clients::run(&orders);
    }
    let path = this_test!();
    let (time, connections) = match env::var(SECONDS) {
        Ok(seconds) => (Duration::from_secs(seconds.parse().expect(SECONDS)), 9_000),
        Err(_) => (Duration::from_secs(3), 600),
    };
    let seed = env::var(SEED).map_or_else(|_| any_seed(), |seed| seed.parse().expect(SEED));
    println!("{SEED}={seed}");

    let mut command = with_descriptors("echo_server", 2 * connections);
    // Each buffer is a mapping of its own, written to at once, and the heap has no free room. So the server's memory is
    // the sum of its allocations, to the page.
    let exact = "glibc.malloc.mmap_threshold=4096:glibc.malloc.perturb=1:glibc.malloc.top_pad=0";
    command.env("GLIBC_TUNABLES", exact);
    let server = Running::spawn(command.arg("127.0.0.1:0")).listening();
    let own_descriptors = server.descriptors().len();
    let mut crowd = Crowd::new(path, server.address(), connections / PROCESSES, seed);
    let memory_with_all = || {
        eventually("each connection has a descriptor, and nothing else", || {
            server.descriptors().len() == own_descriptors + connections
        });
        server.memory_kb()
    };

    crowd.come_and_go(time / 3);
    let [made_early, ..] = crowd.settle();
    let memory_early = memory_with_all();
    crowd.come_and_go(time * 2 / 3);
    let figures @ [made, _, _, _, reset, vanished] = crowd.settle();
    let memory = memory_with_all();
    println!("{connections} at once: {memory_early} kB after {made_early}, {memory} kB after all");
    println!("connections, bytes back, closed, half-closed, reset, vanished: {figures:?}");
    let grown = memory.saturating_sub(memory_early);
    let tolerance = (connections as u64 * GROWTH_BYTES + (made - made_early) * LEFT_BYTES) / 1024;
    assert!(grown < tolerance, "the server grew by {grown} kB; {tolerance} are tolerated");

    let silence = (time / 3).min(Duration::from_secs(10));
    let processes = iter::once(server.id()).chain(crowd.ids());
    let before: Vec<_> = processes.map(|id| (id, processor_time(id))).collect();
    thread::sleep(silence);
    for (id, before) in before {
        let used = processor_time(id) - before;
        let who = if id == server.id() { "the server" } else { "clients" };
        println!("in {silence:?} of silence, {who} used {used:?} of processor time");
        assert!(used < silence / IDLE_PART);
    }

    crowd.leave();
    eventually("all are forgotten", || server.descriptors().len() == own_descriptors);
    println!("none: {own_descriptors} descriptors, {} kB", server.memory_kb());
    let (status, lines) = server.stop(Signal::SIGINT);
    assert!(status.success(), "{status}");
    let [statistics] = &lines[..] else { panic!("not one line: {lines:?}") };
    println!("{statistics}");
    assert!(statistics.starts_with(&format!("{made} clients, ")));
    let (_, broken) = statistics.split_once(" at once, ").unwrap();
    let broken: u64 = broken.split(' ').next().unwrap().parse().unwrap();
    assert!((reset..=reset + vanished).contains(&broken));
}

fn any_seed() -> usize {
    let time = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    usize::try_from(time.as_millis() % 1_000_000).unwrap()
}

/// The number of connections, the bytes that came back, and the number of connections with each [`Ending`], in their
/// order.
type Figures = [u64; 6];

/// All the clients, in processes that take their orders from stdin.
struct Crowd {
    processes: [(Child, BufReader<UnixStream>); PROCESSES],
    poller: OsPoller,
}

const COME_AND_GO: u8 = b'c';
const SETTLE: u8 = b's';

impl Crowd {
    fn new(path: &str, server: SocketAddr, clients_each: usize, seed: usize) -> Self {
        let poller = OsPoller::new().unwrap();
        let processes = array::from_fn(|n| {
            let (near, far) = UnixStream::pair().unwrap();
            let mut command = this_program_again(path);
            command.env(CLIENTS, format!("{server} {clients_each} {}", seed + n));
            command.stdin(OwnedFd::from(far)).stdout(Stdio::null());
            near.set_read_timeout(Some(LONG)).unwrap();
            poller.add(EventObject::client(near.as_raw_fd())).unwrap();
            (spawn(&mut command), BufReader::new(near))
        });
        Self { processes, poller }
    }

    fn come_and_go(&mut self, time: Duration) {
        self.order(COME_AND_GO);
        let events = self.poller.wait_timeout(Some(time)).unwrap();
        assert!(events.is_empty(), "a process of clients has failed");
    }

    /// Waits until all are connected and silent, and returns the figures so far.
    fn settle(&mut self) -> Figures {
        self.order(SETTLE);
        let mut sum = Figures::default();
        for (_, socket) in &mut self.processes {
            let mut line = String::new();
            socket.read_line(&mut line).expect("clients do not settle");
            let figures = line.split_whitespace().map(|figure| figure.parse::<u64>().unwrap());
            assert_eq!(figures.clone().count(), sum.len(), "a process of clients has failed");
            sum.iter_mut().zip(figures).for_each(|(sum, figure)| *sum += figure);
        }
        sum
    }

    fn order(&mut self, order: u8) {
        for (_, socket) in &mut self.processes {
            socket.get_mut().write_all(&[order]).expect("a process of clients has failed");
        }
    }

    fn ids(&self) -> impl Iterator<Item = u32> {
        self.processes.iter().map(|(child, _)| child.id())
    }

    fn leave(self) {
        for (mut child, socket) in self.processes {
            drop(socket);
            let status = child.wait().unwrap();
            assert!(status.success(), "a process of clients: {status}");
        }
    }
}

/// The clients of one process.
struct Clients {
    server: SocketAddr,
    script: Script,
    registry: Registry,
    talkers: Vec<Talker>,
    /// The number of clients that talk.
    talking: usize,
    figures: Figures,
}

/// The token of the parent's orders. That of a client is its place among the talkers.
const ORDERS: u32 = u32::MAX;

impl Clients {
    /// Connects all clients, and follows the parent's orders to their end.
    fn run(parameters: &str) {
        let [server, count, seed] = parameters.split(' ').collect::<Vec<_>>()[..] else { panic!() };
        let count = count.parse().unwrap();
        allow_descriptors(u32::try_from(count + 100).unwrap());
        let mut poller = OsPoller::new().unwrap();
        let mut clients = Self {
            server: server.parse().unwrap(),
            script: Script::new(seed.parse().unwrap()),
            registry: poller.registry().clone(),
            talkers: Vec::new(),
            talking: 0,
            figures: Figures::default(),
        };

        let mut parent = UnixStream::from(io::stdin().as_fd().try_clone_to_owned().unwrap());
        poller.add(EventObject::client(parent.as_raw_fd()).with_token(ORDERS)).unwrap();
        let mut order = [0];
        loop {
            if clients.talkers.len() < count {
                clients.arrive(count);
            } else if order == [COME_AND_GO] {
                clients.speak_up();
            } else if order == [SETTLE] && clients.talking == 0 {
                let figures = clients.figures.map(|figure| figure.to_string());
                writeln!(parent, "{}", figures.join(" ")).unwrap();
                order = [0];
            }
            let events = poller.wait_timeout((clients.talking > 0).then_some(LONG)).unwrap();
            assert!(!events.is_empty(), "{} clients wait without an event", clients.talking);
            for event in events {
                if event.token != ORDERS {
                    clients.talk(*event);
                } else if !matches!(parent.read(&mut order), Ok(1)) {
                    return;
                }
            }
        }
    }

    /// Connects further clients, as many as may talk at once.
    fn arrive(&mut self, count: usize) {
        while self.talking < TALKERS && self.talkers.len() < count {
            let token = self.talkers.len().try_into().unwrap();
            let talker = self.connect(token, false);
            self.talkers.push(talker);
            self.talking += 1;
        }
    }

    /// Chooses among the silent clients, until as many talk as may at once.
    fn speak_up(&mut self) {
        while self.talking < TALKERS {
            let random = &mut self.script.random;
            let place = random.below(self.talkers.len());
            let talker = &mut self.talkers[place];
            if talker.is_silent() {
                // Now and then, so much that the server stops reading until the client reads.
                let times = if random.below(64) == 0 { 64 } else { 1 };
                let ending = random.pick([
                    None,
                    Some(Ending::Close),
                    Some(Ending::HalfClose),
                    Some(Ending::Reset),
                    Some(Ending::Vanish),
                ]);
                talker.say(times * random.size(), ending);
                self.registry.modify(talker.object(Interest::BOTH)).unwrap();
                self.talking += 1;
            }
        }
    }

    /// Lets a client do what it can at the moment. One that leaves comes again.
    fn talk(&mut self, event: Event) {
        let place = event.token as usize;
        let talker = &mut self.talkers[place];
        assert!(!talker.is_silent(), "something is said to one that is silent: {event:?}");
        let received_before = talker.received();
        let next = talker.talk(&mut self.script);
        self.figures[1] += (talker.received() - received_before) as u64;
        if let Some(interest) = next {
            self.registry.modify(talker.object(interest)).unwrap();
            self.talking -= usize::from(talker.is_silent());
        } else {
            let was_accepted = talker.received() > 0;
            self.registry.delete(event.fd).unwrap();
            let next = self.connect(event.token, was_accepted);
            let ending = mem::replace(&mut self.talkers[place], next).end();
            self.figures[2 + ending as usize] += 1;
        }
    }

    /// Connects a client, which waits for an answer to be sure that it was accepted. If the last one was, this one need
    /// not wait.
    fn connect(&mut self, token: u32, last_was_accepted: bool) -> Talker {
        let random = &mut self.script.random;
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
        socket.set_nonblocking(true).unwrap();
        socket.set_tcp_nodelay(true).unwrap();
        // A port is taken for a minute after its connection is closed, and an address has 28,000.
        let last = u8::try_from(2 + random.below(250)).unwrap();
        socket.bind(&SocketAddr::from(([127, 0, 0, last], 0)).into()).unwrap();
        let error = socket.connect(&self.server.into()).unwrap_err();
        assert_eq!(error.raw_os_error(), Some(Errno::EINPROGRESS as i32), "{error}");

        let is_brief = last_was_accepted && random.below(8) == 0;
        let ending = is_brief.then(|| random.pick([Ending::Reset, Ending::Vanish]));
        let length = random.size();
        let mut talker = Talker::new(socket.into(), token, &mut self.script);
        talker.say(length, ending);
        self.registry.add(talker.object(Interest::BOTH)).unwrap();
        self.figures[0] += 1;
        talker
    }
}
