//! A poller of a simulated world.

use std::fmt;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use crate::kernel::{FileId, Kind};
use crate::pool::Pool;
use crate::world::World;
use pollio::{Backend, Event, EventObject, Poller, Registry};

/// A poller of a simulated [`World`], in place of [`OsPoller`](pollio::OsPoller).
///
/// [`new`](Poller::new) creates one in the world that runs on this thread. Where none does, it has a world
/// of its own with seed 0, as [`with_seed`](Self::with_seed) explains.
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
    /// [scripted descriptors](super#one-loop-over-scripted-descriptors).
    ///
    /// A test that panics prints its seed; [`new`](Poller::new) has seed 0.
    #[must_use]
    pub fn with_seed(seed: u64) -> Self {
        Self::of(World::new(seed, Pool::default(), false))
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
        let file = world.state().files.add(Kind::InterestList(Default::default()));
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
        let world = &self.list.world;
        // What overflows the clock is without a timeout.
        let now = world.now();
        let deadline =
            timeout.and_then(|time| now.checked_add(time).map(|_| world.elapsed() + time));
        let mut happened = 0;
        loop {
            let (mut state, result) = world.let_happen(world.state());
            match result {
                Ok(count) => happened += count,
                Err(why) => return Err(deadlock(&why, state.seed)),
            }
            if let Some(error) = state.wait_errors.pop_front() {
                return Err(error);
            }
            state.collect(self.list.file, self.max_events, &mut self.events);
            if !self.events.is_empty() || deadline.is_some_and(|deadline| deadline <= state.now) {
                return Ok(&self.events);
            }
            let Some(next) = state.agenda.next_time().into_iter().chain(deadline).min() else {
                let why = "this wait has no timeout, and the world has no plan that could end it";
                return Err(deadlock(why, state.seed));
            };
            if deadline.is_none() && happened >= MAX_PLANS {
                let why = format!("this wait has no timeout, and {MAX_PLANS} plans did not end it");
                return Err(deadlock(&why, state.seed));
            }
            state.now = next;
        }
    }
}

/// As many plans may happen in a wait without a timeout.
const MAX_PLANS: usize = 1_000_000;

fn deadlock(why: &str, seed: u64) -> io::Error {
    io::Error::new(io::ErrorKind::Deadlock, format!("deadlock: {why} (seed {seed})"))
}

impl Poller for SimPoller {
    fn new() -> io::Result<Self> {
        let Some(world) = World::current_if_any() else { return Ok(Self::with_seed(0)) };
        world.state().files.check_limit(1)?;
        Ok(Self::of(world))
    }

    fn registry(&self) -> &Registry {
        &self.registry
    }

    fn wait_timeout(&mut self, timeout: Option<Duration>) -> io::Result<&[Event]> {
        self.events.clear();
        let world = &self.list.world;
        if world.me().is_none() {
            return self.wait_alone(timeout);
        }
        let mut state = world.enter();
        let deadline = timeout.and_then(|time| state.now.checked_add(time));
        {
            let state = &mut *state;
            if state.weather.fault(|kind| kind.spurious, &mut state.random) {
                state.report_any_spuriously(self.list.file);
            }
        }
        let events = &mut self.events;
        let file = Some(self.list.file);
        let (mut state, answer) =
            world.block(state, file, "waits for events of", deadline, |state| {
                if let Some(error) = state.wait_errors.pop_front() {
                    return Some(Err(error));
                }
                state.collect(self.list.file, self.max_events, events);
                (!events.is_empty()).then_some(Ok(()))
            });
        state.call(|| match &answer {
            Some(Err(error)) => format!("wait: {error}"),
            _ => format!("wait returns {}", show(&self.events)),
        });
        drop(state);
        answer.unwrap_or(Ok(()))?;
        Ok(&self.events)
    }
}

fn show(events: &[Event]) -> String {
    if events.is_empty() {
        return "no event".into();
    }
    let shown = events.iter().map(|event| format!("{} {:?}", event.fd, event.readiness()));
    shown.collect::<Vec<_>>().join(", ")
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

impl Backend for List {
    fn add(&self, object: EventObject) -> io::Result<()> {
        let mut state = self.world.enter();
        let result = state.add(self.file, object);
        state.call(|| show_call("add", object, &result));
        result
    }

    fn modify(&self, object: EventObject) -> io::Result<()> {
        let mut state = self.world.enter();
        let result = state.modify(self.file, object);
        state.call(|| show_call("modify", object, &result));
        result
    }

    fn delete(&self, fd: std::os::fd::RawFd) -> io::Result<()> {
        // A source that is dropped deletes, and nothing may block then.
        let mut state = self.world.state();
        state.delete(self.file, fd)
    }
}

fn show_call(verb: &str, object: EventObject, result: &io::Result<()>) -> String {
    let EventObject { fd, token, .. } = object;
    let (interest, mode) = (object.interest(), object.mode());
    let error = result.as_ref().err().map(|error| format!(": {error}")).unwrap_or_default();
    format!("{verb} {fd} for {interest:?}, {mode:?}, token {token}{error}")
}

impl Drop for List {
    fn drop(&mut self) {
        self.world.state().close_file(self.file);
    }
}
