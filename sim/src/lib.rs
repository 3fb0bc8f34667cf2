//! Programs under simulation: their sockets, their threads and their clock, each run given by a seed.
//!
//! Put `pollio-sim = "0.2"` under `[dev-dependencies]`.
//!
//! # Whole programs
//!
//! A program that polls runs here with nothing changed but its `use` lines. It is an ordinary program with
//! ordinary threads; its sockets are those of a [`World`], where an hour takes no time, and in which a seed
//! chooses how long a packet takes, how much a buffer holds, what goes wrong, and which thread runs next.
//! The same seed is the same run, on any machine. [`check()`] tries thousands of them.
//!
//! ## From nothing to the first failing seed
//!
//! This server answers each client with what it sends. In a program, the module that holds it begins with
//!
//! ```ignore
//! #[cfg(not(test))]
//! use {pollio::OsPoller, std::net::{TcpListener, TcpStream}};
//! #[cfg(test)]
//! use pollio_sim::{SimPoller as OsPoller, net::{TcpListener, TcpStream}};
//! ```
//!
//! Its test starts it in a thread, and is the client. Both run in virtual time: the sleep takes none.
//!
//! ```should_panic
//! use std::collections::HashMap;
//! use std::io::{self, ErrorKind, Read, Write};
//! use std::os::fd::AsRawFd;
//! use std::time::Duration;
//!
//! use pollio_sim::net::{TcpListener, TcpStream};
//! use pollio_sim::{self as sim, SimPoller as OsPoller, thread};
//! use pollio::{EventKind, EventObject, Interest, Mode, Poller};
//!
//! fn serve(address: &str) -> io::Result<()> {
//!     let listener = TcpListener::bind(address)?;
//!     listener.set_nonblocking(true)?;
//!     let mut poller = OsPoller::new()?;
//!     let registry = poller.registry().clone();
//!     registry.add(EventObject::server(listener.as_raw_fd()).with_mode(Mode::Edge))?;
//!     let mut clients = HashMap::new();
//!     loop {
//!         for event in poller.wait(-1)? {
//!             if event.kind == EventKind::Server {
//!                 while let Ok((stream, _)) = listener.accept() {
//!                     stream.set_nonblocking(true)?;
//!                     let object = EventObject::client(stream.as_raw_fd())
//!                         .with_interest(Interest::BOTH);
//!                     registry.add(object.with_mode(Mode::Edge))?;
//!                     clients.insert(stream.as_raw_fd(), stream);
//!                 }
//!             } else if let Some(stream) = clients.get_mut(&event.fd) {
//!                 echo(stream)?;
//!             }
//!         }
//!     }
//! }
//!
//! fn echo(stream: &mut TcpStream) -> io::Result<()> {
//!     let mut buffer = [0; 4096];
//!     loop {
//!         match stream.read(&mut buffer) {
//!             Ok(count) => stream.write_all(&buffer[..count])?,
//!             Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
//!             Err(error) => return Err(error),
//!         }
//!     }
//! }
//!
//! sim::check(10_000, |world| {
//!     world.spawn("server", || serve("10.0.0.1:7").unwrap());
//!     thread::sleep(Duration::from_secs(1));
//!     let mut client = TcpStream::connect("10.0.0.1:7")?;
//!     for _ in 0..10 {
//!         client.write_all(&[7; 100])?;
//!         client.read_exact(&mut [0; 100])?;
//!     }
//!     Ok(())
//! });
//! ```
//!
//! It fails at one of its first seeds (shortened):
//!
//! ```text
//! seed 1 fails: thread `server` panicked: … `Err` value: WouldBlock
//!  it replays exactly: 29 lines, of which the last are
//!    …
//!  25.72392 server  wait returns 1048578 Readiness(READABLE | …)
//!  25.72392 server  read 1048578 gives 100
//!  25.72392 -       fault: room for 11 bytes only
//!  25.72392 server  write 1048578 takes 11 of 100
//!  25.72392 server  write 1048578: … unavailable (os error 11)
//!    …
//!  to run it alone: POLLIO_SEED=1 cargo test …
//! ```
//!
//! `write_all` on a socket that does not block loses what found no room. With a loop in its place, the first
//! seed that fails is another one:
//!
//! ```text
//! seed 9 fails: deadlock: every thread waits, and …
//!  main: read 10.0.0.1:49152 to 10.0.0.1:7
//!  server: waits for events of a poller of
//!    1048576 (listener 10.0.0.1:7, 1 in its queue)
//!    …
//!  1.00383 server  accept 1048576: Too many open files …
//! ```
//!
//! After `EMFILE`, no edge is reported for the client that still waits. `examples/echo_server.rs` has an
//! answer to both, and to what the seeds find next.
//!
//! ## What fails a run
//!
//! - The body returns an error or panics, or another thread panics.
//! - Every thread waits, and nothing will ever happen: a deadlock. It is reported with what each waits for.
//! - A thread makes 100,000 calls and is blocked in none: it spins.
//! - With [`World::set_patience`], something lies there that a waiting thread could take.
//! - In [`check()`], a thread computes for ten seconds of real time without a call.
//! - A plan panics: one for a late time is a limit for the whole run, where something periodic keeps a deadlock
//!   from being one.
//!
//! A run ends with its body. Threads that still run go on until they have to wait, and are ended then by
//! unwinding. A destructor that waits lets the other threads end first.
//!
//! ## What is there
//!
//! | in place of | is |
//! |---|---|
//! | `pollio::OsPoller` | [`SimPoller`] |
//! | `pollio::{Timer, Waker}` | [`Timer`], [`Waker`] |
//! | `pollio::{channel, sync_channel}` | [`channel()`], [`sync_channel`] |
//! | `std::net` | [`net`] |
//! | `UnixStream::pair` of `std` | [`UnixStream`](os::unix::net) |
//! | `std::os::fd::AsFd` | [`os::fd::AsFd`] |
//! | `std::thread` | [`thread`] |
//! | `std::time::Instant` | [`time::Instant`] |
//! | `std::sync::{mpsc, Condvar, Mutex}` | [`sync`] |
//! | the crate `socket2` | [`socket2`] |
//! | the `pipe` of `signal_hook` | [`signal_hook`], [`World::raise`] |
//!
//! What the network is like and what goes wrong in it is up to [`Conditions`]. A test can also script it, at
//! a time with [`World::schedule`]: [`stall`](World::stall), [`reset`](World::reset),
//! [`reset_after`](World::reset_after) a number of bytes, [`refuse`](World::refuse), or `EMFILE` by
//! [`set_descriptor_limit`](World::set_descriptor_limit).
//!
//! ## What is not simulated
//!
//! Names of hosts, UDP, out-of-band data, files, pipes, child processes; `thread::scope` and `thread::park`;
//! pollers that watch pollers; kqueue: the rules are those of epoll. A write that blocks goes on until some
//! bytes are taken, and not until all are: `write_all` makes no difference. What threads do to memory between
//! two calls: `loom` has that. A program that reads the real clock, or depends on the order of a `HashMap`,
//! on addresses or on what a `static` holds, which all worlds share, does not replay; a failure is run twice
//! more, and says so. A `thread_local!` outlives its thread: the next world has it.
//!
//! # One loop over scripted descriptors
//!
//! Write the event loop over `P: Poller`, and let it ask for the time through an argument. The
//! program passes [`OsPoller`](pollio::OsPoller) and [`Instant::now`](std::time::Instant::now); a test passes a
//! [`SimPoller`] and the clock of its [`World`]. An hour then takes no time:
//!
//! ```
//! use std::collections::HashMap;
//! use std::os::fd::RawFd;
//! use std::time::{Duration, Instant};
//!
//! use pollio_sim::SimPoller;
//! use pollio::{EventObject, Mode, Poller, Readiness};
//!
//! const LIMIT: Duration = Duration::from_secs(60);
//!
//! /// Serves these connections, and closes each once it has been silent for a minute.
//! fn serve<P: Poller>(
//!     poller: &mut P,
//!     now: impl Fn() -> Instant,
//!     connections: &[RawFd],
//!     mut close: impl FnMut(RawFd),
//! ) -> std::io::Result<()> {
//!     let mut deadlines = HashMap::new();
//!     for &fd in connections {
//!         poller.add(EventObject::client(fd).with_mode(Mode::Edge))?;
//!         deadlines.insert(fd, now() + LIMIT);
//!     }
//!     while let Some(first) = deadlines.values().min() {
//!         let time_left = first.saturating_duration_since(now());
//!         for event in poller.wait_timeout(Some(time_left))? {
//!             // … and here it reads, until `WouldBlock`.
//!             deadlines.insert(event.fd, now() + LIMIT);
//!         }
//!         deadlines.retain(|&fd, deadline| {
//!             let lives = *deadline > now();
//!             if !lives {
//!                 close(fd);
//!             }
//!             lives
//!         });
//!     }
//!     Ok(())
//! }
//!
//! for seed in 0..10 {
//!     let mut poller = SimPoller::with_seed(seed);
//!     let world = poller.world().clone();
//!     let (talker, silent) = (5, 6);
//!     world.open(talker);
//!     world.open(silent);
//!     for minute in 1..=60 {
//!         let speaks = LIMIT * minute - Duration::from_nanos(1);
//!         world.schedule(speaks, move |world| world.set_ready(talker, Readiness::READABLE));
//!     }
//!
//!     let mut closed = Vec::new();
//!     serve(&mut poller, || world.now(), &[talker, silent], |fd| {
//!         world.close(fd);
//!         closed.push((fd, world.elapsed()));
//!     })?;
//!     let hour = LIMIT * 60 - Duration::from_nanos(1);
//!     assert_eq!(closed, [(silent, LIMIT), (talker, hour + LIMIT)]);
//! }
//! # Ok::<(), std::io::Error>(())
//! ```
//!
//! ## What it promises
//!
//! [The contract](Poller#the-contract) as epoll keeps it, C1 to C6, C8 to C10 and C16, for
//! descriptors that are numbers. Cases of the contract run over both. In addition:
//!
//! - Descriptors that became ready between the same two waits are reported in any order, and a wait
//!   reports any number of them, at least one, as the seed has it. Those that a wait leaves out
//!   come before all that are ready later. The same seed and the same calls give the same events.
//! - A timeout ends exactly when it is over, and the clock stands still between the waits. A wait
//!   without a timeout that nothing can end is an error, of kind
//!   [`Deadlock`](std::io::ErrorKind::Deadlock), as it does not wait for other threads. So is one that
//!   plans keep from its end: one that plans itself again after no time, or a million that end no wait.
//! - A test that panics prints the seed to the standard error, as it drops the [`SimPoller`] or a
//!   [`World`]. One that fails by returning an error has to print its [`seed`](World::seed) itself.
//!
//! ## What it does not
//!
//! There are no bytes: the test says what a read or a write of the program leaves behind, by
//! [`clear_ready`](World::clear_ready). A [`Waker`](crate::Waker) is a number like all others. A wait
//! may allocate.

mod channel;
mod check;
mod conditions;
mod descriptor;
mod kernel;
mod machine;
pub mod net;
pub mod os;
mod panics;
mod poller;
mod schedule;
pub mod signal_hook;
pub mod socket2;
mod stream;
pub mod sync;
pub mod thread;
pub mod time;
mod timer;
mod waker;
mod world;

#[cfg(doc)]
use pollio::Poller;

pub use channel::{Receiver, Sender, SyncSender, TryIter, channel, sync_channel};
pub use check::check;
pub use conditions::Conditions;
pub use poller::SimPoller;
pub use timer::Timer;
pub use waker::Waker;
pub use world::{Outcome, World};
