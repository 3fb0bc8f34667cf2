//! A world: its descriptors, its network, its threads, its clock and its seed.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsRawFd, RawFd};
use std::thread;
use std::time::{Duration, Instant};

use pollio::Readiness;

use crate::conditions::Conditions;
use crate::kernels::Kernel;
use crate::machine::{Guard, Machine, Run};
use crate::schedule::{Action, Pool};
use crate::thread::{JoinHandle, spawn_in};

/// A simulated machine and its network.
///
/// [`check()`](crate::check()) and [`run`](Self::run) create one for whole programs;
/// [`SimPoller::with_seed`](crate::SimPoller::with_seed) creates one for a single loop over scripted descriptors.
/// It is a handle: its clones are the same world. What you do with it happens at once, or at the time that you
/// [`schedule`](Self::schedule) it for.
///
/// | to | use |
/// |---|---|
/// | run a program | [`run`](Self::run), [`spawn`](Self::spawn) |
/// | follow and pass time | [`elapsed`](Self::elapsed), [`now`](Self::now), [`advance`](Self::advance), [`schedule`](Self::schedule) |
/// | choose what may go wrong | [`set_conditions`](Self::set_conditions) |
/// | break a connection | [`stall`](Self::stall), [`reset`](Self::reset), [`reset_after`](Self::reset_after), [`refuse`](Self::refuse) |
/// | run out of descriptors | [`set_descriptor_limit`](Self::set_descriptor_limit), [`descriptors`](Self::descriptors) |
/// | send a signal | [`raise`](Self::raise) |
/// | find what the program forgot | [`set_patience`](Self::set_patience) |
/// | script a descriptor | [`open`](Self::open), [`close`](Self::close), [`set_ready`](Self::set_ready), [`clear_ready`](Self::clear_ready), [`spurious`](Self::spurious) |
/// | script a poller | [`set_batch`](Self::set_batch), [`fail_add`](Self::fail_add), [`fail_wait`](Self::fail_wait) |
#[derive(Clone)]
pub struct World(Machine);

/// What became of a [run](World::run).
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Outcome {
    /// The seed of the world.
    pub seed: u64,
    /// The kernel of the world.
    pub kernel: Kernel,
    /// What failed, if anything did.
    pub failure: Option<String>,
    /// How much virtual time has passed.
    pub elapsed: Duration,
    /// A line for each call and event. The same seed gives the same lines.
    pub trace: Vec<String>,
    /// The rules that Linux does not have, and that made a difference in this run. Empty on Linux.
    pub rules: Vec<&'static str>,
}

/// Running programs.
impl World {
    /// Runs `body` as the main thread of a new world, whose kernel is Linux. The world ends when `body` returns, and
    /// ends all other threads.
    ///
    /// A run fails if the body returns an error, if a thread panics, and [in a few other
    /// cases](crate#what-fails-a-run). [`check()`](crate::check()) runs many seeds.
    #[must_use = "a failure is returned"]
    pub fn run(seed: u64, body: impl FnOnce(&Self) -> io::Result<()>) -> Outcome {
        Self::run_on(Kernel::Linux, seed, body)
    }

    /// As [`run`](Self::run), with another kernel.
    #[must_use = "a failure is returned"]
    pub fn run_on(
        kernel: Kernel,
        seed: u64,
        body: impl FnOnce(&Self) -> io::Result<()>,
    ) -> Outcome {
        Self::run_with(&Pool::default(), kernel, seed, true, |_| (), body).0
    }

    /// Also returns the backtrace of the panic that failed the run, if `RUST_BACKTRACE` asks for one.
    pub(crate) fn run_with(
        pool: &Pool,
        kernel: Kernel,
        seed: u64,
        is_traced: bool,
        watch: impl FnOnce(&Self),
        body: impl FnOnce(&Self) -> io::Result<()>,
    ) -> (Outcome, Option<String>) {
        let world = Self(Machine::new(kernel, seed, pool.clone(), is_traced));
        watch(&world);
        let Run { failure, elapsed, trace, rules, backtrace } = world.0.run(|| body(&world));
        (Outcome { seed, kernel, failure, elapsed, trace, rules }, backtrace)
    }

    /// Starts a thread of this world, with a name for reports.
    ///
    /// One thread runs at a time, and the seed chooses which. Computing takes no time, and a call takes none
    /// either, up to a thousand: after that each takes a millisecond, so that a loop that polls makes progress.
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
            self.lock().schedule().has_threads(),
            "this world has no threads: run its body with `pollio_sim::check` or `World::run`"
        );
        spawn_in(&self.0, Some(name), body)
    }

    /// The seed of this world.
    #[must_use]
    pub fn seed(&self) -> u64 {
        self.lock().schedule().seed()
    }

    /// The kernel of this world.
    #[must_use]
    pub fn kernel(&self) -> Kernel {
        self.lock().kernel()
    }
}

/// Time.
impl World {
    /// The virtual time, for a loop that takes the clock as an argument:
    /// `|| world.now()` where the program has [`Instant::now`].
    ///
    /// It begins at the real time. Only waits and [`advance`](Self::advance) move it.
    #[must_use]
    pub fn now(&self) -> Instant {
        self.0.start() + self.0.now()
    }

    /// How much virtual time has passed since the world began.
    #[must_use]
    pub fn elapsed(&self) -> Duration {
        self.0.now()
    }

    /// Lets time pass outside of a wait, as a slow handler does.
    ///
    /// In a thread of a [run](Self::run), the other threads go on. Elsewhere, what was scheduled for that time
    /// happens when the next wait begins. A time that no clock can reach changes nothing.
    pub fn advance(&self, time: Duration) {
        if self.0.current_thread().is_some() {
            return crate::thread::sleep(time);
        }
        let mut kernel = self.lock();
        let now = kernel.now();
        kernel.schedule_mut().set_now(now.checked_add(time).unwrap_or(now));
    }

    /// Schedules `action`, a plan, for `delay` from now. It happens in a wait.
    ///
    /// Plans for the same time happen in the order in which you schedule them, and before a wait that ends at that
    /// time. A plan with a delay that no clock can reach never happens.
    ///
    /// A descriptor number means the file that has it when the plan happens. The plan gets the world as its
    /// argument: a clone that it owns would keep the world alive. A plan is no thread: it can make every call that
    /// does not wait.
    pub fn schedule(&self, delay: Duration, action: impl FnOnce(&Self) + Send + 'static) {
        let mut kernel = self.lock();
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
}

/// The network, and what happens to connections.
impl World {
    /// Sets what the network is like, for connections that are made from now on, and what may go wrong.
    pub fn set_conditions(&self, conditions: Conditions) {
        self.lock().set_conditions(conditions);
    }

    /// Stalls the TCP connection of a stream: nothing arrives at either end for this long. Bytes that are on their
    /// way arrive afterwards.
    pub fn stall(&self, stream: &impl AsRawFd, length: Duration) {
        self.lock().stall(stream.as_raw_fd(), length);
    }

    /// Resets the TCP connection of a stream at both ends. Bytes that are on their way are lost.
    pub fn reset(&self, stream: &impl AsRawFd) {
        self.lock().reset(stream.as_raw_fd());
    }

    /// Resets the TCP connection of a stream at both ends once `count` more bytes of what the stream writes have
    /// arrived. The peer can read these bytes. At 0, the next byte resets it.
    pub fn reset_after(&self, stream: &impl AsRawFd, count: usize) {
        self.lock().reset_after(stream.as_raw_fd(), count);
    }

    /// Refuses the next `count` connections to `address`, although a listener is there.
    pub fn refuse(&self, address: SocketAddr, count: usize) {
        self.lock().refuse(address, count);
    }
}

/// The machine of the program.
impl World {
    /// Limits how many descriptors may be open, as `RLIMIT_NOFILE` does. At the limit, every call that opens one
    /// fails with `EMFILE`. The limit holds for the whole world, so create the sockets of clients before.
    ///
    /// With [`schedule`](Self::schedule), descriptors run out for a while:
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
        self.lock().set_descriptor_limit(limit);
    }

    /// How many descriptors are open: sockets, timers and pollers, and one for the wakers of each poller.
    #[must_use]
    pub fn descriptors(&self) -> usize {
        self.lock().descriptor_count()
    }

    /// Sends a signal to the program: writes a byte to each stream that was registered for it with
    /// [`pipe::register`](crate::signal_hook::low_level::pipe::register). Without one, the signal is ignored.
    pub fn raise(&self, signal: i32) {
        self.lock().raise(signal);
    }
}

/// What fails a run.
impl World {
    /// Fails the run if a connection stays in a listener's queue, or bytes in a registered stream, or a datagram in a
    /// socket, for `patience` while every thread that could take them waits for events.
    ///
    /// It finds a client that is forgotten until the next one comes, and a lost edge behind an idle timeout: the
    /// timeout turns a hang into a close that comes later, and looks like another fault.
    ///
    /// Bytes may stay while the poller also watches a stream that has no room to write, or is not connected yet: a
    /// program that holds a fast peer back does not read. A world has no patience set at first. It counts for what
    /// arrives after this call.
    pub fn set_patience(&self, patience: Duration) {
        self.lock().set_patience(patience);
    }
}

/// For tests of this crate.
impl World {
    /// Gives its sockets the rules of Linux, under the pollers of its kernel: as a model of kqueue has them.
    #[doc(hidden)]
    pub fn set_linux_sockets(&self) {
        self.lock().set_linux_sockets();
    }
}

/// Scripted descriptors: see [`SimPoller`](crate::SimPoller#one-loop-over-scripted-descriptors).
impl World {
    /// Opens the scripted descriptor `fd`, which is ready for nothing.
    ///
    /// A descriptor with this number is closed first. A negative number stays a bad descriptor.
    pub fn open(&self, fd: RawFd) {
        if fd >= 0 {
            self.lock().open_scripted(fd);
        }
    }

    /// Closes the descriptor `fd`, which deletes its registration. Registering it then fails with `EBADF`.
    pub fn close(&self, fd: RawFd) {
        self.lock().close(fd);
    }

    /// Makes `fd` ready for `readiness`, in addition to what it is ready for.
    ///
    /// Each call is an arrival, and so an edge (C3), even if `fd` was ready for it before. A wait reports what is
    /// implied as well: `WRITE_CLOSED` is a full hang-up, hence `READ_CLOSED`; `READ_CLOSED` is `READABLE`; a full
    /// hang-up or an `ERROR` is `READABLE` and `WRITABLE`.
    ///
    /// A later `add` finds the readiness of a descriptor that is not registered yet. A descriptor that is not open
    /// stays as it is.
    pub fn set_ready(&self, fd: RawFd, readiness: Readiness) {
        self.lock().set_ready(fd, readiness);
    }

    /// Ends the readiness of `fd` for `readiness`: `READABLE` once everything is read, `WRITABLE` once there is no
    /// more room.
    pub fn clear_ready(&self, fd: RawFd, readiness: Readiness) {
        self.lock().clear_ready(fd, readiness);
    }

    /// Makes one wait report `readiness` of `fd`, although a read would block: as if another process was quicker.
    ///
    /// It is reported as far as the registration asks for it.
    pub fn spurious(&self, fd: RawFd, readiness: Readiness) {
        self.lock().report_spuriously(fd, readiness);
    }

    /// Makes each wait report `size` descriptors, or all that are ready if they are fewer, instead of a number that
    /// the seed draws. 0 counts as 1.
    pub fn set_batch(&self, size: usize) {
        self.lock().set_batch(size);
    }

    /// Makes the next `add` fail with `error`, and register nothing. After several calls, as many adds fail, in this
    /// order.
    pub fn fail_add(&self, error: io::Error) {
        self.lock().fail_add(error);
    }

    /// Makes the next wait fail with `error`; in a plan, the current one. The wait after it reports what is ready.
    /// After several calls, as many waits fail, in this order.
    pub fn fail_wait(&self, error: io::Error) {
        self.lock().fail_wait(error);
    }
}

impl World {
    pub(crate) const fn of(machine: Machine) -> Self {
        Self(machine)
    }

    pub(crate) const fn machine(&self) -> &Machine {
        &self.0
    }

    fn lock(&self) -> Guard<'_> {
        self.0.kernel()
    }
}

impl fmt::Debug for World {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("World")
            .field("kernel", &self.kernel())
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
