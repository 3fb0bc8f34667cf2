//! A poller for tests: its readiness is scripted, its clock is virtual, and it never sleeps.
//!
//! It is behind the cargo feature `sim`: `pollio = { version = "0.2", features = ["sim"] }` under
//! `[dev-dependencies]`.
//!
//! Write the event loop over `P: Poller`, and let it ask for the time through an argument. The
//! program passes [`OsPoller`](crate::OsPoller) and [`Instant::now`]; a test passes a
//! [`SimPoller`] and the clock of its [`World`]. An hour then takes no time:
//!
//! ```
//! use std::collections::HashMap;
//! use std::os::fd::RawFd;
//! use std::time::{Duration, Instant};
//!
//! use pollio::sim::SimPoller;
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
//!         world.after(speaks, move |world| world.ready(talker, Readiness::READABLE));
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
//! # What it promises
//!
//! [The contract](Poller#the-contract) as epoll keeps it, C1 to C6, C8 to C10 and C16, for
//! descriptors that are numbers. Cases of the contract run over both. Beyond it:
//!
//! - Descriptors that became ready between the same two waits are told in any order, and a wait
//!   tells of any number of them, at least one, as the seed has it. Those that a wait leaves out
//!   come before all that are ready later. The same seed and the same calls give the same events.
//! - A timeout ends exactly when it is over, and the clock stands still between the waits. A wait
//!   without a timeout that nothing can end is an error, of kind
//!   [`Deadlock`](io::ErrorKind::Deadlock), as it does not wait for other threads. So is one that
//!   plans keep from its end: one that plans itself again after no time, or a million that end no wait.
//! - A test that panics prints the seed to the standard error, as it drops the [`SimPoller`] or a
//!   [`World`]. One that fails by returning an error has to tell its [`seed`](World::seed) itself.
//!
//! # What it does not
//!
//! There are no bytes: the test tells what a read or a write of the program leaves behind, by
//! [`unready`](World::unready). There are no duplicates of a descriptor, no pollers that watch
//! pollers, no signals; a [`Waker`](crate::Waker) is a number like all others.
//! [`exclusive`](EventObject::exclusive) has no effect. A wait may allocate.

use std::collections::{BTreeMap, VecDeque};
use std::fmt;
use std::io;
use std::os::fd::RawFd;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use crate::{Event, EventObject, Interest, Mode, Poller, Readiness, Register, Registry};

/// A poller of a simulated [`World`]; the [module](self) shows how.
#[derive(Debug)]
pub struct SimPoller {
    world: World,
    registry: Registry,
    /// What the last wait told.
    events: Vec<Event>,
}

impl SimPoller {
    /// Makes a poller, in a world of its own, that shuffles by `seed`.
    ///
    /// A test that fails prints its seed; [`new`](Poller::new) has seed 0.
    #[must_use]
    pub fn with_seed(seed: u64) -> Self {
        let kernel = Arc::new(Kernel(Mutex::new(State::new(seed))));
        let registry = Registry::new(kernel.clone());
        Self { world: World(kernel), registry, events: Vec::new() }
    }

    /// What happens to its descriptors, and its clock. Clone it to script while the poller is
    /// borrowed.
    #[must_use]
    pub fn world(&self) -> &World {
        &self.world
    }
}

impl Poller for SimPoller {
    fn new() -> io::Result<Self> {
        Ok(Self::with_seed(0))
    }

    fn registry(&self) -> &Registry {
        &self.registry
    }

    fn wait_timeout(&mut self, timeout: Option<Duration>) -> io::Result<&[Event]> {
        self.events.clear();
        // What overflows the clock is for ever.
        let deadline = timeout.and_then(|time| self.world.now().checked_add(time));
        let mut happened = 0;
        loop {
            happened += self.world.let_happen()?;
            let mut state = self.world.state();
            if let Some(error) = state.wait_errors.pop_front() {
                return Err(error);
            }
            state.tell(&mut self.events);
            if !self.events.is_empty() || deadline.is_some_and(|deadline| deadline <= state.now) {
                return Ok(&self.events);
            }
            let Some(next) = state.next_plan().into_iter().chain(deadline).min() else {
                let why = "this wait has no timeout, and the world has no plan that could end it";
                return Err(deadlock(why, state.seed));
            };
            if deadline.is_none() && happened >= MOST_PLANS {
                let why =
                    format!("this wait has no timeout, and {MOST_PLANS} plans did not end it");
                return Err(deadlock(&why, state.seed));
            }
            state.now = next;
        }
    }
}

/// As many plans may happen in a wait without a timeout.
const MOST_PLANS: usize = 1_000_000;

/// As many plans, each made by the one before it, may happen at the same time.
const LONGEST_CHAIN: usize = 10_000;

fn deadlock(why: &str, seed: u64) -> io::Error {
    io::Error::new(io::ErrorKind::Deadlock, format!("deadlock: {why} (seed {seed})"))
}

/// What happens around a [`SimPoller`]: the script of its descriptors and errors, and its clock.
///
/// It is a handle: its clones are the same world. It goes to other threads, but a test in which
/// several threads script is as little repeatable as they are.
///
/// Everything here happens at once; [`after`](Self::after) has it happen at a later time.
#[derive(Clone)]
pub struct World(Arc<Kernel>);

/// Descriptors.
impl World {
    /// Opens the descriptor `fd`, which is ready for nothing.
    ///
    /// If it is open, it is closed first. A negative number stays a bad descriptor.
    pub fn open(&self, fd: RawFd) {
        if fd >= 0 {
            let descriptor = Descriptor { readiness: Readiness::empty(), registration: None };
            self.state().descriptors.insert(fd, descriptor);
        }
    }

    /// Closes the descriptor `fd`, which deletes its registration. Registering it is `EBADF` now.
    pub fn close(&self, fd: RawFd) {
        self.state().descriptors.remove(&fd);
    }

    /// Makes `fd` ready for `readiness`, beside what it is ready for.
    ///
    /// Each call is an arrival, and so an edge (C3), even of what is there already. What implies
    /// more is told with it: a `WRITE_CLOSED` is a full hang-up, hence `READ_CLOSED`; that is
    /// `READABLE`, and a full hang-up or an `ERROR` is `READABLE` and `WRITABLE`.
    ///
    /// It happens to a descriptor that is not registered, too, and is found by a later `add`. To
    /// one that is not open, nothing happens.
    pub fn ready(&self, fd: RawFd, readiness: Readiness) {
        let mut state = self.state();
        let round = state.round;
        if let Some(descriptor) = state.descriptors.get_mut(&fd) {
            descriptor.readiness |= readiness;
            descriptor.queue_if_told(readiness, round);
        }
    }

    /// Ends the readiness of `fd` for `readiness`: `READABLE` when all was read, `WRITABLE` when
    /// there is no more room.
    pub fn unready(&self, fd: RawFd, readiness: Readiness) {
        if let Some(descriptor) = self.state().descriptors.get_mut(&fd) {
            descriptor.readiness -= readiness;
        }
    }

    /// Has one wait tell `readiness` of `fd`, though it is not true: a read that follows would
    /// block, as when another process was quicker.
    ///
    /// What the registration does not ask for is not told.
    pub fn spurious(&self, fd: RawFd, readiness: Readiness) {
        let mut state = self.state();
        let round = state.round;
        if let Some(descriptor) = state.descriptors.get_mut(&fd) {
            descriptor.queue_if_told(readiness, round);
            if let Some(registration) = &mut descriptor.registration {
                registration.spurious |= readiness;
            }
        }
    }
}

/// Failures.
impl World {
    /// Has the next `add` fail with `error`, and register nothing. After several calls, as many
    /// adds fail, in their order.
    pub fn fail_add(&self, error: io::Error) {
        self.state().add_errors.push_back(error);
    }

    /// Has the next wait fail with `error`, or the current one, by [`after`](Self::after). What is
    /// ready is told by the wait after it. After several calls, as many waits fail, in their order.
    pub fn fail_wait(&self, error: io::Error) {
        self.state().wait_errors.push_back(error);
    }

    /// Has each wait tell of `size` descriptors, or of all that are ready if they are fewer, instead
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
    /// It begins at the real time, and goes on by waits and by [`advance`](Self::advance) alone.
    #[must_use]
    pub fn now(&self) -> Instant {
        self.state().now
    }

    /// How much virtual time has passed since the poller was made.
    #[must_use]
    pub fn elapsed(&self) -> Duration {
        self.state().elapsed()
    }

    /// Lets time pass outside of a wait, as a slow handler does. What was planned meanwhile happens
    /// when the next wait begins. A time that no clock can reach is not reached.
    pub fn advance(&self, time: Duration) {
        let mut state = self.state();
        state.now = state.now.checked_add(time).unwrap_or(state.now);
    }

    /// Plans that `happening` happens once `delay` has passed from now, in a wait.
    ///
    /// What is planned for the same time happens in the order of the plans, and before a wait that
    /// ends at that time. A delay that no clock can reach is never.
    ///
    /// It happens to whoever has the number of the descriptor then. The plan is given the world; a
    /// clone in it would keep the world alive for as long as it has not happened.
    pub fn after(&self, delay: Duration, happening: impl FnOnce(&Self) + Send + 'static) {
        let mut state = self.state();
        if let Some(time) = state.now.checked_add(delay) {
            state.plans_made += 1;
            let key = (time, state.plans_made);
            state.plans.insert(key, Box::new(happening));
        }
    }

    /// What the order of events and the sizes of batches come from.
    #[must_use]
    pub fn seed(&self) -> u64 {
        self.state().seed
    }

    /// Has every plan happen whose time has come, and returns how many did.
    fn let_happen(&self) -> io::Result<usize> {
        let (mut happened, mut chain, mut newest) = (0, 0, self.state().plans_made);
        // Taken out first: a plan may script, which locks.
        while let Some((number, plan)) = self.take_due_plan() {
            if number > newest {
                chain += 1;
                newest = self.state().plans_made;
            }
            happened += 1;
            plan(self);
            if chain > LONGEST_CHAIN {
                let why = format!("{chain} plans made each other after no time");
                return Err(deadlock(&why, self.seed()));
            }
        }
        Ok(happened)
    }

    fn take_due_plan(&self) -> Option<(u64, Plan)> {
        let mut state = self.state();
        let now = state.now;
        let due = state.plans.first_entry().filter(|plan| plan.key().0 <= now);
        due.map(|plan| (plan.key().1, plan.remove()))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.state()
    }
}

impl fmt::Debug for World {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = self.state();
        f.debug_struct("World")
            .field("seed", &state.seed)
            .field("elapsed", &state.elapsed())
            .finish_non_exhaustive()
    }
}

impl Drop for World {
    fn drop(&mut self) {
        if thread::panicking() {
            let mut state = self.state();
            if !state.has_printed_seed {
                state.has_printed_seed = true;
                eprintln!("pollio: SimPoller::with_seed({}) saw this", state.seed);
            }
        }
    }
}

/// What a registry and the world share.
struct Kernel(Mutex<State>);

impl Kernel {
    fn state(&self) -> MutexGuard<'_, State> {
        // No code of a user runs while it is locked.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Register for Kernel {
    fn add(&self, object: EventObject) -> io::Result<()> {
        let mut state = self.state();
        if let Some(error) = state.add_errors.pop_front() {
            return Err(error);
        }
        if state.open(object.fd)?.registration.is_some() {
            return Err(io::Error::from_raw_os_error(libc::EEXIST));
        }
        state.register(object)
    }

    fn modify(&self, object: EventObject) -> io::Result<()> {
        let mut state = self.state();
        if state.open(object.fd)?.registration.is_none() {
            return Err(io::Error::from_raw_os_error(libc::ENOENT));
        }
        state.register(object)
    }

    fn delete(&self, fd: RawFd) -> io::Result<()> {
        let mut state = self.state();
        let registration = state.open(fd)?.registration.take();
        registration.map(drop).ok_or_else(|| io::Error::from_raw_os_error(libc::ENOENT))
    }
}

struct State {
    seed: u64,
    has_printed_seed: bool,
    random: Random,
    start: Instant,
    now: Instant,
    descriptors: BTreeMap<RawFd, Descriptor>,
    /// How many waits have told of something.
    round: u64,
    /// How many events a wait tells; any number, if none.
    batch: Option<usize>,
    add_errors: VecDeque<io::Error>,
    wait_errors: VecDeque<io::Error>,
    /// What will happen, by its time and then by the number of the plan.
    plans: BTreeMap<(Instant, u64), Plan>,
    plans_made: u64,
}

type Plan = Box<dyn FnOnce(&World) + Send>;

impl State {
    fn new(seed: u64) -> Self {
        let start = Instant::now();
        Self {
            seed,
            has_printed_seed: false,
            random: Random(seed),
            start,
            now: start,
            descriptors: BTreeMap::new(),
            round: 0,
            batch: None,
            add_errors: VecDeque::new(),
            wait_errors: VecDeque::new(),
            plans: BTreeMap::new(),
            plans_made: 0,
        }
    }

    fn open(&mut self, fd: RawFd) -> io::Result<&mut Descriptor> {
        self.descriptors.get_mut(&fd).ok_or_else(|| io::Error::from_raw_os_error(libc::EBADF))
    }

    fn register(&mut self, object: EventObject) -> io::Result<()> {
        let round = self.round;
        let descriptor = self.open(object.fd)?;
        descriptor.registration = Some(Registration {
            object,
            is_armed: true,
            queued_in: None,
            spurious: Readiness::empty(),
        });
        descriptor.queue_if_told(descriptor.readiness, round);
        Ok(())
    }

    /// Makes the events of a wait: of those that have waited longest, and else in any order.
    fn tell(&mut self, events: &mut Vec<Event>) {
        let Self { descriptors, random, round, .. } = self;
        let mut ready: Vec<_> = descriptors.values_mut().filter_map(Descriptor::queued).collect();
        if ready.is_empty() {
            return;
        }
        ready.sort_by_cached_key(|(round, ..)| (*round, random.next()));
        let any_size = (1..=ready.len()).max_by_key(|_| random.next());
        let size = self.batch.or(any_size).unwrap_or(1);
        *round += 1;
        for (_, readiness, registration) in ready.into_iter().take(size) {
            events.push(registration.tell(readiness, *round));
        }
    }

    fn next_plan(&self) -> Option<Instant> {
        self.plans.keys().next().map(|(time, _)| *time)
    }

    fn elapsed(&self) -> Duration {
        self.now - self.start
    }
}

/// An open descriptor.
struct Descriptor {
    readiness: Readiness,
    registration: Option<Registration>,
}

struct Registration {
    object: EventObject,
    /// Not a oneshot that was told.
    is_armed: bool,
    /// The round in which it came to be looked at by the next wait, as on epoll's ready list.
    queued_in: Option<u64>,
    /// What is to be told once, though it is not true.
    spurious: Readiness,
}

impl Descriptor {
    /// Has the next wait look at it, if its registration would be told of `arrival`.
    fn queue_if_told(&mut self, arrival: Readiness, round: u64) {
        if let Some(registration) = &mut self.registration {
            if registration.is_armed && !told(arrival, registration.object.interest()).is_empty() {
                registration.queued_in.get_or_insert(round);
            }
        }
    }

    /// What a wait could tell of it now, and since which round.
    fn queued(&mut self) -> Option<(u64, Readiness, &mut Registration)> {
        let registration = self.registration.as_mut()?;
        let round = registration.queued_in?;
        let readiness =
            told(self.readiness | registration.spurious, registration.object.interest());
        if readiness.is_empty() {
            // It came and went before anyone looked.
            registration.queued_in = None;
            return None;
        }
        Some((round, readiness, registration))
    }
}

impl Registration {
    /// Makes the event, and decides by the mode whether the next wait looks again.
    fn tell(&mut self, readiness: Readiness, round: u64) -> Event {
        self.spurious = Readiness::empty();
        self.queued_in = match self.object.mode() {
            Mode::Level => Some(round),
            Mode::Edge | Mode::Oneshot | Mode::EdgeOneshot => None,
        };
        self.is_armed = matches!(self.object.mode(), Mode::Level | Mode::Edge);
        let EventObject { fd, kind, token, .. } = self.object;
        Event::new(fd, kind, token, readiness)
    }
}

/// What epoll tells of a descriptor that is ready for `readiness`, to those who asked for
/// `interest`.
fn told(readiness: Readiness, interest: Interest) -> Readiness {
    const BOTH: Readiness = Readiness::READABLE.union(Readiness::WRITABLE);
    let mut asked = Readiness::empty();
    let mut implied = Readiness::empty();
    if interest.contains(Interest::READABLE) {
        asked |= Readiness::READABLE | Readiness::READ_CLOSED;
    }
    if interest.contains(Interest::WRITABLE) {
        asked |= Readiness::WRITABLE;
    }
    if interest.contains(Interest::PRIORITY) {
        asked |= Readiness::PRIORITY;
    }
    if readiness.contains(Readiness::READ_CLOSED) {
        implied |= Readiness::READABLE;
    }
    // These need no interest, and let no call block.
    if readiness.contains(Readiness::WRITE_CLOSED) {
        let hang_up = Readiness::READ_CLOSED | Readiness::WRITE_CLOSED | BOTH;
        asked |= hang_up;
        implied |= hang_up;
    }
    if readiness.contains(Readiness::ERROR) {
        asked |= Readiness::ERROR | BOTH;
        implied |= BOTH;
    }
    (readiness | implied) & asked
}

/// [SplitMix64](https://prng.di.unimi.it/splitmix64.c), by Steele, Lea and Flood: every seed is as
/// good as any other.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut bits = self.0;
        bits = (bits ^ bits >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        bits = (bits ^ bits >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        bits ^ bits >> 31
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn random_numbers_are_those_of_splitmix64() {
        let mut random = Random(1_234_567);
        let numbers = [(); 3].map(|()| random.next());
        assert_eq!(numbers, [6457827717110365317, 3203168211198807973, 9817491932198370423]);
    }

    #[test]
    fn what_is_told_is_what_was_asked_for() {
        let both = Readiness::READABLE | Readiness::WRITABLE;
        assert_eq!(told(both, Interest::READABLE), Readiness::READABLE);
        assert_eq!(told(both, Interest::WRITABLE), Readiness::WRITABLE);
        assert_eq!(told(both, Interest::PRIORITY), Readiness::empty());
        assert_eq!(told(Readiness::PRIORITY, Interest::PRIORITY), Readiness::PRIORITY);
        assert_eq!(told(Readiness::PRIORITY, Interest::READABLE), Readiness::empty());
        assert_eq!(told(Readiness::all(), Interest::all()), Readiness::all());
    }

    #[test]
    fn hang_ups_and_errors_are_told_as_epoll_tells_them() {
        let both = Readiness::READABLE | Readiness::WRITABLE;
        let closed = Readiness::READ_CLOSED | Readiness::WRITE_CLOSED;
        let half = Readiness::READ_CLOSED;
        assert_eq!(told(half, Interest::READABLE), half | Readiness::READABLE);
        assert_eq!(told(half, Interest::WRITABLE), Readiness::empty());
        assert_eq!(told(half, Interest::NONE), Readiness::empty());
        assert_eq!(told(Readiness::WRITE_CLOSED, Interest::NONE), both | closed);
        assert_eq!(told(Readiness::ERROR, Interest::NONE), both | Readiness::ERROR);
    }
}
