//! A poller of a simulated world.

use std::fmt;
use std::io;
use std::os::fd::RawFd;
use std::sync::Arc;
use std::time::Duration;

use pollio::{Backend, Event, EventObject, Poller, Registry, Wakeups};

use crate::kernel::{FileId, Kernel};
use crate::kernels;
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
/// [`clear_ready`](World::clear_ready). A plan or the loop itself can wake a [`Waker`](pollio::Waker), and
/// send through a [`channel`](pollio::channel()): here those of `pollio` itself. A wait may allocate.
pub struct SimPoller {
    list: Arc<List>,
    registry: Registry,
    wakeups: Wakeups,
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
        Self::of(World::of(Machine::new(kernels::Kernel::Linux, seed, Pool::default(), false)))
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
        let list = Arc::new(List { world, file });
        let registry = Registry::new(list.clone());
        let poller = Self::on(list, registry, usize::MAX);
        // Each wake that marks a waker is then a call, after which other threads may run first.
        poller.wakeups.watch();
        poller
    }

    fn on(list: Arc<List>, registry: Registry, max_events: usize) -> Self {
        let wakeups = registry.wakeups();
        Self { list, registry, wakeups, events: Vec::new(), max_events }
    }

    /// Another handle on the same registrations, for another thread: clause
    /// [C18](Poller#the-contract).
    ///
    /// # Errors
    ///
    /// It never fails: the signature is that of the real one.
    pub fn try_clone(&self) -> io::Result<Self> {
        self.wakeups.share();
        Ok(Self::on(self.list.clone(), self.registry.clone(), self.max_events))
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
        let Self { list, wakeups, events, .. } = self;
        let (machine, max_events) = (list.machine(), self.max_events);
        events.clear();
        let is_thread = machine.current_thread().is_some();
        let deadline = if is_thread { list.enter(timeout) } else { list.deadline(timeout) };
        let wait = |deadline, room, events: &mut Vec<Event>| {
            if is_thread {
                list.wait(deadline, room, events)
            } else {
                list.wait_alone(deadline, room, events)
            }
        };
        let answer = loop {
            if !wakeups.is_used() {
                let answer = wait(deadline, max_events, events);
                // Else the first waker was created during the wait, and ended it.
                if !matches!(answer, Some(Ok(()))) || !events.is_empty() {
                    break answer;
                }
                continue;
            }
            // Under a bound, the seed may have a wake come first: neither starves the other.
            let is_first = wakeups.is_woken() && machine.kernel().schedule_mut().random().one_in(2);
            let room = max_events - usize::from(is_first);
            let answer = wakeups.block(timeout, |timeout| {
                // A deadline of zero is over: it polls.
                let deadline = if timeout == Some(Duration::ZERO) { timeout } else { deadline };
                wait(deadline, room, events)
            });
            if let Some(Err(_)) = answer {
                break answer;
            }
            wakeups.take(max_events - events.len(), |token| {
                let place = machine.kernel().schedule_mut().random().index(events.len() + 1);
                events.insert(place, Event::wake(NO_DESCRIPTOR, token));
            });
            // Else it was woken up for nothing.
            if answer.is_none() || !events.is_empty() {
                break answer;
            }
        };
        if is_thread && machine.is_traced() {
            let mut kernel = machine.kernel();
            let text = match &answer {
                Some(Err(error)) => format!("wait: {error}"),
                _ => format!("wait returns {}", show(events, &kernel)),
            };
            kernel.schedule_mut().note_call(|| text);
        }
        answer.unwrap_or(Ok(()))?;
        Ok(events)
    }
}

/// The event of a waker has it, as this poller has no number.
const NO_DESCRIPTOR: RawFd = -1;

fn show(events: &[Event], kernel: &Kernel) -> String {
    if events.is_empty() {
        return "no event".into();
    }
    let show = |event: &Event| match event {
        Event { token, .. } if event.is_wake() => format!("a wake, token {token}"),
        Event { fd, .. } => format!("{} {:?}", kernel.label(*fd), event.readiness()),
    };
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

    /// Begins a wait of a thread, and returns when it ends.
    fn enter(&self, timeout: Option<Duration>) -> Option<Duration> {
        let mut kernel = self.machine().enter();
        kernel.draw_spurious_event(self.file);
        timeout.and_then(|time| kernel.now().checked_add(time))
    }

    /// Waits once, in a thread. Returns `None` at the deadline, and collects no events if it was woken up.
    fn wait(
        &self,
        deadline: Option<Duration>,
        max_events: usize,
        events: &mut Vec<Event>,
    ) -> Option<io::Result<()>> {
        let kernel = self.machine().kernel();
        let queue = match kernel.queue_of(self.file) {
            Ok(queue) => queue,
            Err(error) => return Some(Err(error)),
        };
        let reason = Reason::File("waits for events of", queue);
        let poll = |kernel: &mut Kernel| kernel.poll(self.file, max_events, events);
        self.machine().block(kernel, reason, deadline, poll).1
    }

    /// When a wait ends that begins now. What overflows the clock is without a timeout.
    fn deadline(&self, timeout: Option<Duration>) -> Option<Duration> {
        let is_reachable = |time: &Duration| self.world.now().checked_add(*time).is_some();
        timeout.filter(is_reachable).map(|time| self.machine().now() + time)
    }

    /// As [`wait`](Self::wait), in a world without threads: nobody else is there to wait for.
    fn wait_alone(
        &self,
        deadline: Option<Duration>,
        max_events: usize,
        events: &mut Vec<Event>,
    ) -> Option<io::Result<()>> {
        let (machine, mut happened) = (self.machine(), 0);
        loop {
            let (mut kernel, result) = machine.run_due(machine.kernel());
            let seed = kernel.schedule().seed();
            match result {
                Ok(count) => happened += count,
                Err(why) => return Some(Err(deadlock(&why, seed))),
            }
            let answer = kernel.poll(self.file, max_events, events);
            if answer.is_some() || deadline.is_some_and(|time| time <= kernel.now()) {
                return answer;
            }
            let schedule = kernel.schedule_mut();
            let Some(next) = schedule.next_time().into_iter().chain(deadline).min() else {
                let why = "this wait has no timeout, and the world has no plan that could end it";
                return Some(Err(deadlock(why, seed)));
            };
            if deadline.is_none() && happened >= MAX_PLANS {
                let why = format!("this wait has no timeout, and {MAX_PLANS} plans did not end it");
                return Some(Err(deadlock(&why, seed)));
            }
            schedule.set_now(next);
        }
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

    fn wake(&self) -> io::Result<()> {
        let mut kernel = self.machine().kernel();
        let had_wakers = kernel.wake(self.file)?;
        let text = || if had_wakers { "wake" } else { "first waker" }.into();
        if self.machine().current_thread().is_some() {
            kernel.schedule_mut().note_call(text);
        } else {
            kernel.schedule_mut().note(text);
        }
        drop(kernel);
        // The first time, a waker is being created, under a lock that another thread could ask for.
        if had_wakers {
            drop(self.machine().enter());
        }
        Ok(())
    }
}

impl Drop for List {
    fn drop(&mut self) {
        self.machine().kernel().close_poller(self.file);
    }
}
