//! A world: its descriptors, its network, its threads, its clock and its seed.

use std::collections::{HashMap, VecDeque};
use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsRawFd, RawFd};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use crate::agenda::{Action, Agenda};
use crate::conditions::{Conditions, Weather};
use crate::kernel::{FileId, Files, Kind};
use crate::network::Network;
use crate::pool::Pool;
use crate::random::Random;
use crate::thread::JoinHandle;
use crate::threads::Threads;
use crate::trace::Trace;
use pollio::Readiness;

/// A simulated machine and its network: what happens to its descriptors, its threads and its clock.
///
/// It is a handle: its clones are the same world. [`run`](Self::run) and [`check()`](super::check()) create
/// one for whole programs; [`SimPoller::with_seed`](super::SimPoller::with_seed) one for a single loop
/// over scripted descriptors. Everything here happens at once, or at the time that
/// [`schedule`](Self::schedule) sets.
#[derive(Clone)]
pub struct World(Arc<Shared>);

struct Shared {
    state: Mutex<State>,
    pool: Pool,
}

pub(super) type Guard<'a> = MutexGuard<'a, State>;

pub(super) struct State {
    pub(super) seed: u64,
    has_printed_seed: bool,
    pub(super) random: Random,
    start: Instant,
    /// The time that has passed.
    pub(super) now: Duration,
    pub(super) agenda: Agenda,
    pub(super) files: Files,
    pub(super) network: Network,
    pub(super) threads: Threads,
    pub(super) weather: Weather,
    pub(super) trace: Trace,
    /// How many events a wait returns; any number, if none.
    pub(super) batch: Option<usize>,
    pub(super) add_errors: VecDeque<io::Error>,
    pub(super) wait_errors: VecDeque<io::Error>,
    /// A connection was accepted: the program has started.
    pub(super) has_accepted: bool,
    /// How many calls were made since the clock moved.
    pub(super) calls: u32,
    /// A thread is preempted at one call in so many.
    preempted_one_in: u64,
    /// How long something may lie there that nobody takes.
    pub(super) patience: Option<Duration>,
    /// When something was last taken from a stream, or came to one that was empty.
    pub(super) progress: HashMap<FileId, Duration>,
    /// What a signal writes to.
    pub(super) signals: Vec<(i32, super::os::unix::net::UnixStream)>,
    is_ending: bool,
    failure: Option<String>,
}

/// What became of a [run](World::run).
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Outcome {
    /// What the world was made from.
    pub seed: u64,
    /// What failed, if anything did.
    pub failure: Option<String>,
    /// How much virtual time has passed.
    pub elapsed: Duration,
    /// A line for each call and event. The same seed gives the same lines.
    pub trace: Vec<String>,
}

/// Whole programs.
impl World {
    /// Runs `body` as the main thread of a new world, which ends when `body` returns: all other threads
    /// are ended then.
    ///
    /// A run fails if the body returns an error or panics, if another thread panics, and for what the
    /// [module](super#what-fails-a-run) lists. [`check()`](super::check()) runs many seeds.
    #[must_use = "a failure is returned"]
    pub fn run(seed: u64, body: impl FnOnce(&Self) -> io::Result<()>) -> Outcome {
        Self::run_with(&Pool::default(), seed, true, |_| (), body)
    }

    pub(super) fn run_with(
        pool: &Pool,
        seed: u64,
        is_traced: bool,
        watch: impl FnOnce(&Self),
        body: impl FnOnce(&Self) -> io::Result<()>,
    ) -> Outcome {
        let world = Self::new(seed, pool.clone(), is_traced);
        watch(&world);
        world.run_body(|| body(&world));
        let mut state = world.state();
        // What holds sockets is dropped without the lock; a plan that never came may hold the world itself.
        let (signals, agenda) =
            (std::mem::take(&mut state.signals), std::mem::take(&mut state.agenda));
        let (failure, trace) = (state.failure.take(), state.trace.take());
        let elapsed = state.now;
        drop(state);
        drop((signals, agenda));
        Outcome { seed, failure, elapsed, trace }
    }

    /// Runs `body` in a thread of this world, under this name in reports.
    ///
    /// One thread runs at a time; the seed chooses which. What it computes takes no time, but after a thousand
    /// calls at one time, each takes a millisecond: otherwise nothing would come to a loop that polls.
    pub fn spawn<T: Send + 'static>(
        &self,
        name: &str,
        body: impl FnOnce() -> T + Send + 'static,
    ) -> JoinHandle<T> {
        JoinHandle::new(self.clone(), self.start(name, body))
    }

    /// Sets what the network is like from here on, for connections that are made later.
    pub fn set_conditions(&self, conditions: Conditions) {
        let mut state = self.state();
        let state = &mut *state;
        state.weather = Weather::draw(conditions, &mut state.random);
    }

    /// Fails the run once a connection has waited in a listener's queue for so long, or bytes in a
    /// stream that is registered with a poller, while the threads that could take them wait for events.
    /// That is how an accept that was forgotten until the next client shows.
    ///
    /// Bytes may wait where the poller watches a stream that has no room to write, or is not connected
    /// yet: a program that holds a fast peer back does not read. Off at first; it looks at what comes
    /// after this call.
    pub fn set_patience(&self, patience: Duration) {
        self.state().patience = Some(patience);
    }

    /// Limits how many descriptors may be open, as `RLIMIT_NOFILE` does for a process: whatever opens one
    /// more fails with `EMFILE`, until one is closed or the limit is raised. The limit is that of the whole
    /// world: create the sockets of clients before.
    ///
    /// With [`schedule`](Self::schedule), there is no descriptor for a while:
    ///
    /// ```
    /// # use std::{io, time::Duration};
    /// # use pollio_sim::{World, net::TcpListener, thread};
    /// # let outcome = World::run(0, |world| {
    /// world.schedule(Duration::from_secs(5), |world| world.set_descriptor_limit(0));
    /// world.schedule(Duration::from_secs(9), |world| world.set_descriptor_limit(usize::MAX));
    /// # let works = || TcpListener::bind("10.0.0.1:0").is_ok();
    /// # assert!(works());
    /// # thread::sleep(Duration::from_secs(6));
    /// # assert!(!works());
    /// # thread::sleep(Duration::from_secs(6));
    /// # assert!(works());
    /// # Ok(())
    /// # });
    /// # assert_eq!(outcome.failure, None);
    /// ```
    pub fn set_descriptor_limit(&self, limit: usize) {
        let mut state = self.state();
        state.note(|| format!("up to {limit} descriptors may be open"));
        state.files.limit = Some(limit);
    }

    /// How many descriptors are open: sockets, wakers, timers and pollers.
    #[must_use]
    pub fn descriptors(&self) -> usize {
        self.state().files.open_count()
    }

    /// Refuses the next `count` connections to `address`, although somebody listens there.
    pub fn refuse(&self, address: SocketAddr, count: usize) {
        self.state().refuse(address, count);
    }

    /// Resets the connection of a stream, at both ends, once `count` more bytes that the stream writes have
    /// arrived: the peer can read these, and no more. At 0, with the next one.
    pub fn reset_after(&self, stream: &impl AsRawFd, count: usize) {
        let mut state = self.state();
        if let Some(end) = state.end_of(stream.as_raw_fd()) {
            state.reset_after(end, count);
        }
    }

    /// Resets the connection of a stream, at both ends, whatever is on its way.
    pub fn reset(&self, stream: &impl AsRawFd) {
        let mut state = self.state();
        if let Some(end) = state.end_of(stream.as_raw_fd()) {
            state.reset_now(end);
        }
    }

    /// Lets nothing arrive at either end of a stream's connection for so long: what is on its way arrives then.
    pub fn stall(&self, stream: &impl AsRawFd, length: Duration) {
        let mut state = self.state();
        if let Some(end) = state.end_of(stream.as_raw_fd()) {
            state.stall_now(end, length);
        }
    }
}

/// Scripted descriptors.
impl World {
    /// Opens the descriptor `fd`, which is ready for nothing.
    ///
    /// If it is open, it is closed first. A negative number stays a bad descriptor.
    pub fn open(&self, fd: RawFd) {
        if fd >= 0 {
            let mut state = self.state();
            state.close(fd);
            let file = state.files.add(Kind::Scripted(Readiness::NONE));
            state.files.open_as(fd, file);
        }
    }

    /// Closes the descriptor `fd`, which deletes its registration. Registering it is `EBADF` now.
    pub fn close(&self, fd: RawFd) {
        self.state().close(fd);
    }

    /// Makes `fd` ready for `readiness`, in addition to what it is ready for.
    ///
    /// Each call is an arrival, and so an edge (C3), even of what is there already. What implies
    /// more is reported with it: a `WRITE_CLOSED` is a full hang-up, hence `READ_CLOSED`; that is
    /// `READABLE`, and a full hang-up or an `ERROR` is `READABLE` and `WRITABLE`.
    ///
    /// It happens to a descriptor that is not registered, too, and is found by a later `add`. To
    /// one that is not open, nothing happens.
    pub fn set_ready(&self, fd: RawFd, readiness: Readiness) {
        let mut state = self.state();
        if let Some((file, ready)) = state.script(fd) {
            *ready |= readiness;
            state.notify(file, readiness);
        }
    }

    /// Ends the readiness of `fd` for `readiness`: `READABLE` when all was read, `WRITABLE` when
    /// there is no more room.
    pub fn clear_ready(&self, fd: RawFd, readiness: Readiness) {
        if let Some((_, ready)) = self.state().script(fd) {
            *ready -= readiness;
        }
    }

    /// Has one wait report `readiness` of `fd`, though it is not true: a read that follows would
    /// block, as when another process was quicker.
    ///
    /// What the registration does not ask for is not reported.
    pub fn spurious(&self, fd: RawFd, readiness: Readiness) {
        self.state().report_spuriously(fd, readiness);
    }
}

/// Failures.
impl World {
    /// Has the next `add` fail with `error`, and register nothing. After several calls, as many
    /// adds fail, in their order.
    pub fn fail_add(&self, error: io::Error) {
        self.state().add_errors.push_back(error);
    }

    /// Has the next wait fail with `error`, or the current one, by [`schedule`](Self::schedule). What is
    /// ready is reported by the wait after it. After several calls, as many waits fail, in their order.
    pub fn fail_wait(&self, error: io::Error) {
        self.state().wait_errors.push_back(error);
    }

    /// Has each wait report `size` descriptors, or all that are ready if they are fewer, instead
    /// of any number of them. 0 counts as 1.
    pub fn set_batch(&self, size: usize) {
        self.state().batch = Some(size.max(1));
    }
}

/// Time.
impl World {
    /// The virtual time, for a loop that takes the clock as an argument:
    /// `|| world.now()` where the program has [`Instant::now`].
    ///
    /// It begins at the real time, and goes on by waits and by [`advance`](Self::advance) only.
    #[must_use]
    pub fn now(&self) -> Instant {
        let state = self.state();
        state.start + state.now
    }

    /// How much virtual time has passed since the world began.
    #[must_use]
    pub fn elapsed(&self) -> Duration {
        self.state().now
    }

    /// Lets time pass outside of a wait, as a slow handler does. What was planned for that time happens
    /// when the next wait begins; in a thread of a [run](Self::run), the other threads go on. A time that
    /// no clock can reach is not reached.
    pub fn advance(&self, time: Duration) {
        if self.me().is_some() {
            return super::thread::sleep(time);
        }
        let mut state = self.state();
        state.now = state.now.checked_add(time).unwrap_or(state.now);
    }

    /// Plans that `action` happens once `delay` has passed from now, in a wait.
    ///
    /// What is planned for the same time happens in the order of the plans, and before a wait that
    /// ends at that time. A delay that no clock can reach is never.
    ///
    /// It happens to the file that has the number of the descriptor then. The plan is given the world; a
    /// clone in it would keep the world alive for as long as it has not happened, up to the end of a run. It is
    /// no thread: it can make every call that need not wait.
    pub fn schedule(&self, delay: Duration, action: impl FnOnce(&Self) + Send + 'static) {
        let mut state = self.state();
        let is_reachable =
            state.start.checked_add(state.now).and_then(|now| now.checked_add(delay));
        if is_reachable.is_some() {
            let time = state.now + delay;
            state.agenda.add(time, Action::Plan(Box::new(action)));
        }
    }

    /// What everything that is left to chance comes from.
    #[must_use]
    pub fn seed(&self) -> u64 {
        self.state().seed
    }
}

impl World {
    pub(super) fn new(seed: u64, pool: Pool, is_traced: bool) -> Self {
        let state = State::new(seed, Trace::new(is_traced));
        Self(Arc::new(Shared { state: Mutex::new(state), pool }))
    }

    pub(super) fn state(&self) -> Guard<'_> {
        // No code of a user runs while it is locked.
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn is_ending(&self) -> bool {
        self.state().is_ending()
    }

    pub(super) fn is(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }

    pub(super) fn pool(&self) -> &Pool {
        &self.0.pool
    }
}

impl State {
    fn new(seed: u64, trace: Trace) -> Self {
        let mut random = Random::new(seed);
        let weather = Weather::draw(Conditions::default(), &mut random);
        let preempted_one_in = random.magnitude(&(2..=256));
        Self {
            seed,
            has_printed_seed: false,
            random,
            start: Instant::now(),
            now: Duration::ZERO,
            agenda: Agenda::default(),
            files: Files::default(),
            network: Network::default(),
            threads: Threads::default(),
            weather,
            trace,
            batch: None,
            add_errors: VecDeque::new(),
            wait_errors: VecDeque::new(),
            has_accepted: false,
            calls: 0,
            preempted_one_in,
            patience: None,
            progress: HashMap::new(),
            signals: Vec::new(),
            is_ending: false,
            failure: None,
        }
    }

    /// Whether another thread runs first.
    pub(super) fn is_preempted(&mut self) -> bool {
        self.random.one_in(self.preempted_one_in)
    }

    pub(super) const fn is_ending(&self) -> bool {
        self.is_ending
    }

    pub(super) const fn end(&mut self) {
        self.is_ending = true;
    }

    /// Ends the world; what failed first is what failed.
    pub(super) fn fail(&mut self, why: String) {
        if !self.is_ending {
            self.note(|| why.clone());
            self.failure = Some(why);
            self.is_ending = true;
        }
    }

    fn end_of(&self, fd: RawFd) -> Option<super::network::EndId> {
        self.stream(self.files.of(fd).ok()?).ok()
    }
}

impl fmt::Debug for World {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = self.state();
        f.debug_struct("World")
            .field("seed", &state.seed)
            .field("elapsed", &state.now)
            .finish_non_exhaustive()
    }
}

impl Drop for World {
    fn drop(&mut self) {
        if thread::panicking() {
            let mut state = self.state();
            if !state.has_printed_seed && !state.has_threads() {
                state.has_printed_seed = true;
                eprintln!("pollio: SimPoller::with_seed({}) saw this", state.seed);
            }
        }
    }
}
