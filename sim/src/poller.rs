//! A poller of a simulated world.

use std::fmt;
use std::io;
use std::os::fd::RawFd;
use std::sync::Arc;
use std::time::Duration;

use pollio::{Backend, Event, EventObject, Poller, Registry};

use crate::kernel::{FileId, Kernel};
use crate::machine::Machine;
use crate::schedule::{Pool, Reason};
use crate::world::World;

/// A poller of a simulated [`World`], in place of [`OsPoller`](pollio::OsPoller).
///
/// [`new`](Poller::new) creates one in the world that runs on this thread. Where none does, it has a world
/// of its own with seed 0, as [`with_seed`](Self::with_seed) explains.
///
/// # One loop over scripted descriptors
///
/// Write the event loop over `P: Poller`, and let it ask for the time through an argument. The
/// program passes [`OsPoller`](pollio::OsPoller) and [`Instant::now`](std::time::Instant::now); a test passes a
/// [`SimPoller`] and the clock of its [`World`]. An hour then takes no time:
///
/// ```
/// use std::collections::HashMap;
/// use std::os::fd::RawFd;
/// use std::time::{Duration, Instant};
///
/// use pollio_sim::SimPoller;
/// use pollio::{EventObject, Mode, Poller, Readiness};
///
/// const LIMIT: Duration = Duration::from_secs(60);
///
/// /// Serves these connections, and closes each once it has been silent for a minute.
/// fn serve<P: Poller>(
///     poller: &mut P,
///     now: impl Fn() -> Instant,
///     connections: &[RawFd],
///     mut close: impl FnMut(RawFd),
/// ) -> std::io::Result<()> {
///     let mut deadlines = HashMap::new();
///     for &fd in connections {
///         poller.add(EventObject::client(fd).with_mode(Mode::Edge))?;
///         deadlines.insert(fd, now() + LIMIT);
///     }
///     while let Some(first) = deadlines.values().min() {
///         let time_left = first.saturating_duration_since(now());
///         for event in poller.wait_timeout(Some(time_left))? {
///             // … and here it reads, until `WouldBlock`.
///             deadlines.insert(event.fd, now() + LIMIT);
///         }
///         deadlines.retain(|&fd, deadline| {
///             let lives = *deadline > now();
///             if !lives {
///                 close(fd);
///             }
///             lives
///         });
///     }
///     Ok(())
/// }
///
/// for seed in 0..10 {
///     let mut poller = SimPoller::with_seed(seed);
///     let world = poller.world().clone();
///     let (talker, silent) = (5, 6);
///     world.open(talker);
///     world.open(silent);
///     for minute in 1..=60 {
///         let speaks = LIMIT * minute - Duration::from_nanos(1);
///         world.schedule(speaks, move |world| world.set_ready(talker, Readiness::READABLE));
///     }
///
///     let mut closed = Vec::new();
///     serve(&mut poller, || world.now(), &[talker, silent], |fd| {
///         world.close(fd);
///         closed.push((fd, world.elapsed()));
///     })?;
///     let hour = LIMIT * 60 - Duration::from_nanos(1);
///     assert_eq!(closed, [(silent, LIMIT), (talker, hour + LIMIT)]);
/// }
/// # Ok::<(), std::io::Error>(())
/// ```
///
/// ## What scripted descriptors promise
///
/// [The contract](Poller#the-contract) as epoll keeps it, C1 to C6, C8 to C10 and C16, for
/// descriptors that are numbers. Cases of the contract run over both. In addition:
///
/// - Descriptors that became ready between the same two waits are reported in any order, and a wait
///   reports any number of them, at least one, as the seed has it. Those that a wait leaves out
///   come before all that are ready later. The same seed and the same calls give the same events.
/// - A timeout ends exactly when it is over, and the clock stands still between the waits. A wait
///   without a timeout that nothing can end is an error, of kind
///   [`Deadlock`](std::io::ErrorKind::Deadlock), as it does not wait for other threads. So is one that
///   plans keep from its end: one that plans itself again after no time, or a million that end no wait.
/// - A test that panics prints the seed to the standard error, as it drops the [`SimPoller`] or a
///   [`World`]. One that fails by returning an error has to print its [`seed`](World::seed) itself.
///
/// ## What they do not
///
/// There are no bytes: the test says what a read or a write of the program leaves behind, by
/// [`clear_ready`](World::clear_ready). A [`Waker`](crate::Waker) is a number like all others. A wait
/// may allocate.
pub struct SimPoller {
    list: Arc<List>,
    registry: Registry,
    /// What the last wait returned.
    events: Vec<Event>,
    /// How many events a wait may return.
    max_events: usize,
}

impl SimPoller {
    /// Creates a poller in a world of its own, which is shuffled by `seed`, for a loop over
    /// [scripted descriptors](#one-loop-over-scripted-descriptors).
    ///
    /// A test that panics prints its seed; [`new`](Poller::new) has seed 0.
    #[must_use]
    pub fn with_seed(seed: u64) -> Self {
        Self::of(World::of(Machine::new(seed, Pool::default(), false)))
    }

    /// As [`new`](Poller::new): a buffer needs no capacity here.
    ///
    /// # Errors
    ///
    /// `EMFILE` at the limit of descriptors.
    pub fn with_capacity(_capacity: usize) -> io::Result<Self> {
        Self::new()
    }

    fn of(world: World) -> Self {
        let file = world.machine().kernel().add_poller();
        Self::on(Arc::new(List { world, file }))
    }

    fn on(list: Arc<List>) -> Self {
        let registry = Registry::new(list.clone());
        Self { registry, list, events: Vec::new(), max_events: usize::MAX }
    }

    /// Another handle on the same registrations, for another thread: clause
    /// [C18](Poller#the-contract).
    ///
    /// # Errors
    ///
    /// It never fails: the signature is that of the real one.
    pub fn try_clone(&self) -> io::Result<Self> {
        Ok(Self { max_events: self.max_events, ..Self::on(self.list.clone()) })
    }

    /// Bounds how many events each later wait returns. `usize::MAX` removes the bound, and is the default; 0
    /// counts as 1.
    pub fn set_max_events(&mut self, n: usize) {
        self.max_events = n.max(1);
    }

    /// The slice that the last wait returned. It is empty before the first wait, and after one that failed.
    #[must_use]
    pub fn events(&self) -> &[Event] {
        &self.events
    }

    /// Has no effect: polling takes no time here.
    pub fn set_spin(&mut self, _limit: Duration) {}

    /// What happens to its descriptors, and its clock. Clone it to script while the poller is
    /// borrowed.
    #[must_use]
    pub fn world(&self) -> &World {
        &self.list.world
    }

    /// A wait in a world without threads: nobody else is there to wait for.
    fn wait_alone(&mut self, timeout: Option<Duration>) -> io::Result<&[Event]> {
        let machine = self.list.machine();
        // What overflows the clock is without a timeout.
        let now = machine.now();
        let is_reachable = |time: &Duration| self.list.world.now().checked_add(*time).is_some();
        let deadline = timeout.filter(is_reachable).map(|time| now + time);
        let mut happened = 0;
        loop {
            let (mut kernel, result) = machine.run_due(machine.kernel());
            let seed = kernel.schedule().seed();
            happened += result.map_err(|why| deadlock(&why, seed))?;
            kernel.collect(self.list.file, self.max_events, &mut self.events)?;
            if !self.events.is_empty() || deadline.is_some_and(|time| time <= kernel.now()) {
                return Ok(&self.events);
            }
            let schedule = kernel.schedule_mut();
            let Some(next) = schedule.next_time().into_iter().chain(deadline).min() else {
                let why = "this wait has no timeout, and the world has no plan that could end it";
                return Err(deadlock(why, seed));
            };
            if deadline.is_none() && happened >= MAX_PLANS {
                let why = format!("this wait has no timeout, and {MAX_PLANS} plans did not end it");
                return Err(deadlock(&why, seed));
            }
            schedule.set_now(next);
        }
    }
}

/// At most this many plans may happen in a wait without a timeout.
const MAX_PLANS: usize = 1_000_000;

fn deadlock(why: &str, seed: u64) -> io::Error {
    io::Error::new(io::ErrorKind::Deadlock, format!("deadlock: {why} (seed {seed})"))
}

impl Poller for SimPoller {
    fn new() -> io::Result<Self> {
        let Some(machine) = Machine::current_if_any() else { return Ok(Self::with_seed(0)) };
        machine.kernel().check_limit(1)?;
        Ok(Self::of(World::of(machine)))
    }

    fn registry(&self) -> &Registry {
        &self.registry
    }

    fn wait_timeout(&mut self, timeout: Option<Duration>) -> io::Result<&[Event]> {
        self.events.clear();
        let machine = self.list.machine();
        if machine.current_thread().is_none() {
            return self.wait_alone(timeout);
        }
        let mut kernel = machine.enter();
        let deadline = timeout.and_then(|time| kernel.now().checked_add(time));
        let file = self.list.file;
        kernel.draw_spurious_event(file);
        let (max_events, events) = (self.max_events, &mut self.events);
        let collect = |kernel: &mut Kernel| match kernel.collect(file, max_events, events) {
            Ok(()) => (!events.is_empty()).then_some(Ok(())),
            Err(error) => Some(Err(error)),
        };
        let reason = Reason::File("waits for events of", kernel.queue_of(file)?);
        let (mut kernel, answer) = machine.block(kernel, reason, deadline, collect);
        if kernel.schedule().is_traced() {
            let text = match &answer {
                Some(Err(error)) => format!("wait: {error}"),
                _ => format!("wait returns {}", show(&self.events, &kernel)),
            };
            kernel.schedule_mut().note_call(|| text);
        }
        drop(kernel);
        answer.unwrap_or(Ok(()))?;
        Ok(&self.events)
    }
}

fn show(events: &[Event], kernel: &Kernel) -> String {
    if events.is_empty() {
        return "no event".into();
    }
    let show = |event: &Event| format!("{} {:?}", kernel.label(event.fd), event.readiness());
    events.iter().map(show).collect::<Vec<_>>().join(", ")
}

impl fmt::Debug for SimPoller {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SimPoller").field("world", &self.list.world).finish_non_exhaustive()
    }
}

/// The interest list of a poller, its clones and their registries.
struct List {
    world: World,
    file: FileId,
}

impl List {
    const fn machine(&self) -> &Machine {
        self.world.machine()
    }

    /// Makes a call that registers.
    fn register(
        &self,
        verb: &str,
        object: EventObject,
        call: impl FnOnce(&mut Kernel) -> io::Result<()>,
    ) -> io::Result<()> {
        let mut kernel = self.machine().enter();
        let result = call(&mut kernel);
        if kernel.schedule().is_traced() {
            let (interest, mode, token) = (object.interest(), object.mode(), object.token);
            let error = result.as_ref().err().map(|error| format!(": {error}")).unwrap_or_default();
            let label = kernel.label(object.fd);
            let text = format!("{verb} {label} for {interest:?}, {mode:?}, token {token}{error}");
            kernel.schedule_mut().note_call(|| text);
        }
        result
    }
}

impl Backend for List {
    fn add(&self, object: EventObject) -> io::Result<()> {
        self.register("add", object, |kernel| kernel.add(self.file, object))
    }

    fn modify(&self, object: EventObject) -> io::Result<()> {
        self.register("modify", object, |kernel| kernel.modify(self.file, object))
    }

    fn delete(&self, fd: RawFd) -> io::Result<()> {
        // A source that is dropped deletes, and nothing may block then.
        self.machine().kernel().delete(self.file, fd)
    }
}

impl Drop for List {
    fn drop(&mut self) {
        self.machine().kernel().close_poller(self.file);
    }
}
