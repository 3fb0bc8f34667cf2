//! A world: its descriptors, its network, its threads, its clock and its seed.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsRawFd, RawFd};
use std::thread;
use std::time::{Duration, Instant};

use pollio::Readiness;

use crate::conditions::Conditions;
use crate::machine::{Guard, Machine, Run};
use crate::schedule::{Action, Pool};
use crate::thread::{JoinHandle, spawn_in};

/// A simulated machine and its network: what happens to its descriptors, its threads and its clock.
///
/// It is a handle: its clones are the same world. [`run`](Self::run) and [`check()`](crate::check()) create
/// one for whole programs; [`SimPoller::with_seed`](crate::SimPoller::with_seed) one for a single loop
/// over scripted descriptors. Everything here happens at once, or at the time that
/// [`schedule`](Self::schedule) sets.
#[derive(Clone)]
pub struct World(Machine);

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
    /// [module](crate#what-fails-a-run) lists. [`check()`](crate::check()) runs many seeds.
    #[must_use = "a failure is returned"]
    pub fn run(seed: u64, body: impl FnOnce(&Self) -> io::Result<()>) -> Outcome {
        Self::run_with(&Pool::default(), seed, true, |_| (), body).0
    }

    /// Also returns the backtrace of the panic that failed the run, if `RUST_BACKTRACE` asks for one.
    pub(crate) fn run_with(
        pool: &Pool,
        seed: u64,
        is_traced: bool,
        watch: impl FnOnce(&Self),
        body: impl FnOnce(&Self) -> io::Result<()>,
    ) -> (Outcome, Option<String>) {
        let world = Self(Machine::new(seed, pool.clone(), is_traced));
        watch(&world);
        let Run { failure, elapsed, trace, backtrace } = world.0.run(|| body(&world));
        (Outcome { seed, failure, elapsed, trace }, backtrace)
    }

    /// Runs `body` in a thread of this world, under this name in reports.
    ///
    /// One thread runs at a time; the seed chooses which. What it computes takes no time, but after a thousand
    /// calls at one time, each takes a millisecond: otherwise nothing would come to a loop that polls.
    ///
    /// # Panics
    ///
    /// In the world of [`SimPoller::with_seed`](crate::SimPoller::with_seed), which has no threads.
    pub fn spawn<T: Send + 'static>(
        &self,
        name: &str,
        body: impl FnOnce() -> T + Send + 'static,
    ) -> JoinHandle<T> {
        assert!(
            self.kernel().schedule().has_threads(),
            "this world has no threads: run its body with `pollio_sim::check` or `World::run`"
        );
        spawn_in(&self.0, name, body)
    }

    /// Sets what the network is like from here on, for connections that are made later.
    pub fn set_conditions(&self, conditions: Conditions) {
        self.kernel().set_conditions(conditions);
    }

    /// Fails the run once a connection has waited in a listener's queue for so long, or bytes in a
    /// stream that is registered with a poller, while the threads that could take them wait for events.
    /// That is how an accept that was forgotten until the next client shows.
    ///
    /// Bytes may wait where the poller watches a stream that has no room to write, or is not connected
    /// yet: a program that holds a fast peer back does not read. Off at first; it looks at what comes
    /// after this call.
    pub fn set_patience(&self, patience: Duration) {
        self.kernel().set_patience(patience);
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
        self.kernel().set_descriptor_limit(limit);
    }

    /// How many descriptors are open: sockets, wakers, timers and pollers.
    #[must_use]
    pub fn descriptors(&self) -> usize {
        self.kernel().descriptor_count()
    }

    /// Refuses the next `count` connections to `address`, although somebody listens there.
    pub fn refuse(&self, address: SocketAddr, count: usize) {
        self.kernel().refuse(address, count);
    }

    /// Sends a signal to the program: a byte is written to each stream that was registered for it with
    /// [`pipe::register`](crate::signal_hook::low_level::pipe::register). Without one, it is ignored.
    pub fn raise(&self, signal: i32) {
        self.kernel().raise(signal);
    }

    /// Resets the connection of a stream, at both ends, once `count` more bytes that the stream writes have
    /// arrived: the peer can read these, and no more. At 0, with the next one.
    pub fn reset_after(&self, stream: &impl AsRawFd, count: usize) {
        self.kernel().reset_after(stream.as_raw_fd(), count);
    }

    /// Resets the connection of a stream, at both ends, whatever is on its way.
    pub fn reset(&self, stream: &impl AsRawFd) {
        self.kernel().reset(stream.as_raw_fd());
    }

    /// Lets nothing arrive at either end of a stream's connection for so long: what is on its way arrives then.
    pub fn stall(&self, stream: &impl AsRawFd, length: Duration) {
        self.kernel().stall(stream.as_raw_fd(), length);
    }
}

/// Scripted descriptors.
impl World {
    /// Opens the descriptor `fd`, which is ready for nothing.
    ///
    /// If it is open, it is closed first. A negative number stays a bad descriptor.
    pub fn open(&self, fd: RawFd) {
        if fd >= 0 {
            self.kernel().open_scripted(fd);
        }
    }

    /// Closes the descriptor `fd`, which deletes its registration. Registering it is `EBADF` now.
    pub fn close(&self, fd: RawFd) {
        self.kernel().close(fd);
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
        self.kernel().set_ready(fd, readiness);
    }

    /// Ends the readiness of `fd` for `readiness`: `READABLE` when all was read, `WRITABLE` when
    /// there is no more room.
    pub fn clear_ready(&self, fd: RawFd, readiness: Readiness) {
        self.kernel().clear_ready(fd, readiness);
    }

    /// Has one wait report `readiness` of `fd`, though it is not true: a read that follows would
    /// block, as when another process was quicker.
    ///
    /// What the registration does not ask for is not reported.
    pub fn spurious(&self, fd: RawFd, readiness: Readiness) {
        self.kernel().report_spuriously(fd, readiness);
    }
}

/// Failures.
impl World {
    /// Has the next `add` fail with `error`, and register nothing. After several calls, as many
    /// adds fail, in their order.
    pub fn fail_add(&self, error: io::Error) {
        self.kernel().fail_add(error);
    }

    /// Has the next wait fail with `error`, or the current one, by [`schedule`](Self::schedule). What is
    /// ready is reported by the wait after it. After several calls, as many waits fail, in their order.
    pub fn fail_wait(&self, error: io::Error) {
        self.kernel().fail_wait(error);
    }

    /// Has each wait report `size` descriptors, or all that are ready if they are fewer, instead
    /// of any number of them. 0 counts as 1.
    pub fn set_batch(&self, size: usize) {
        self.kernel().set_batch(size);
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
        self.0.start() + self.0.now()
    }

    /// How much virtual time has passed since the world began.
    #[must_use]
    pub fn elapsed(&self) -> Duration {
        self.0.now()
    }

    /// Lets time pass outside of a wait, as a slow handler does. What was planned for that time happens
    /// when the next wait begins; in a thread of a [run](Self::run), the other threads go on. A time that
    /// no clock can reach is not reached.
    pub fn advance(&self, time: Duration) {
        if self.0.current_thread().is_some() {
            return crate::thread::sleep(time);
        }
        let mut kernel = self.kernel();
        let now = kernel.now();
        kernel.schedule_mut().set_now(now.checked_add(time).unwrap_or(now));
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
        let mut kernel = self.kernel();
        let now = kernel.now();
        let is_reachable = self.0.start().checked_add(now).and_then(|now| now.checked_add(delay));
        if is_reachable.is_none() {
            return;
        }
        // It is in the world, which it must not keep alive.
        let machine = self.0.downgrade();
        let plan = Box::new(move || {
            if let Some(machine) = machine.upgrade() {
                action(&Self(machine));
            }
        });
        kernel.schedule_mut().add(now + delay, Action::Plan(plan));
    }

    /// What everything that is left to chance comes from.
    #[must_use]
    pub fn seed(&self) -> u64 {
        self.kernel().schedule().seed()
    }
}

impl World {
    pub(crate) const fn of(machine: Machine) -> Self {
        Self(machine)
    }

    pub(crate) const fn machine(&self) -> &Machine {
        &self.0
    }

    fn kernel(&self) -> Guard<'_> {
        self.0.kernel()
    }
}

impl fmt::Debug for World {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("World")
            .field("seed", &self.seed())
            .field("elapsed", &self.elapsed())
            .finish_non_exhaustive()
    }
}

impl Drop for World {
    fn drop(&mut self) {
        if thread::panicking() && self.0.is_first_to_report() {
            eprintln!("pollio: SimPoller::with_seed({}) saw this", self.seed());
        }
    }
}
