//! Simulated threads, under the names of `std::thread`.

use std::fmt;
use std::io;
use std::num::NonZero;
use std::sync::{Arc, Mutex, PoisonError};
#[doc(no_inline)]
pub use std::thread::{Result, ThreadId, current, panicking};
use std::time::Duration;

use crate::machine::Machine;
use crate::schedule::{QueueId, Reason};

/// Starts a thread in the world that runs here, under the name `thread` in reports.
///
/// [`Builder`] and [`World::spawn`](crate::World::spawn) give it another.
pub fn spawn<T: Send + 'static>(body: impl FnOnce() -> T + Send + 'static) -> JoinHandle<T> {
    spawn_in(&Machine::current(), NAME, body)
}

/// The name of a thread that has none.
const NAME: &str = "thread";

/// Starts a thread with a name, in place of [`std::thread::Builder`].
#[derive(Debug, Default)]
#[must_use = "it starts nothing by itself"]
pub struct Builder {
    name: Option<String>,
}

impl Builder {
    /// A thread without a name.
    pub fn new() -> Self {
        Self::default()
    }

    /// Sets the name under which reports have it.
    pub fn name(mut self, name: String) -> Self {
        self.name = Some(name);
        self
    }

    /// Has no effect: the thread has the default size of the system.
    pub fn stack_size(self, _size: usize) -> Self {
        self
    }

    /// Starts the thread in the world that runs here.
    ///
    /// # Errors
    ///
    /// It never fails: the signature is that of `std`.
    pub fn spawn<T: Send + 'static>(
        self,
        body: impl FnOnce() -> T + Send + 'static,
    ) -> io::Result<JoinHandle<T>> {
        Ok(spawn_in(&Machine::current(), self.name.as_deref().unwrap_or(NAME), body))
    }
}

/// Lets virtual time pass: it takes no real time.
pub fn sleep(time: Duration) {
    let machine = Machine::current();
    let mut kernel = machine.enter();
    kernel.schedule_mut().note_call(|| format!("sleep for {time:?}"));
    let end = kernel.now().checked_add(time);
    drop(machine.block_until(kernel, Reason::Sleeps, end));
}

/// The scheduler may run other threads first.
pub fn yield_now() {
    drop(Machine::current().enter());
}

/// How many cores there are: two, on every machine.
///
/// # Errors
///
/// It never fails: the signature is that of `std`.
pub fn available_parallelism() -> io::Result<NonZero<usize>> {
    Ok(NonZero::<usize>::MIN.saturating_add(1))
}

/// Waits for the end of a thread, in place of [`std::thread::JoinHandle`].
pub struct JoinHandle<T> {
    machine: Machine,
    end: QueueId,
    result: Arc<Mutex<Option<T>>>,
}

pub(crate) fn spawn_in<T: Send + 'static>(
    machine: &Machine,
    name: &str,
    body: impl FnOnce() -> T + Send + 'static,
) -> JoinHandle<T> {
    let (end, result) = machine.spawn(name, body);
    JoinHandle { machine: machine.clone(), end, result }
}

impl<T> JoinHandle<T> {
    /// Waits for the end of the thread, and returns what it returned.
    ///
    /// # Errors
    ///
    /// It never fails: a thread that panics fails the run, which ends the thread that joins as well.
    pub fn join(self) -> Result<T> {
        let kernel = self.machine.enter();
        let result = self.result;
        let take = |_: &mut _| result.lock().unwrap_or_else(PoisonError::into_inner).take();
        let reason = Reason::Thread("joins another thread", self.end);
        let (kernel, value) = self.machine.block(kernel, reason, None, take);
        drop(kernel);
        value.ok_or_else(|| Box::new("the world has ended") as _)
    }

    /// Whether the thread has returned, or would be found to.
    #[must_use]
    pub fn is_finished(&self) -> bool {
        self.result.lock().unwrap_or_else(PoisonError::into_inner).is_some()
    }
}

impl<T> fmt::Debug for JoinHandle<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("JoinHandle").finish_non_exhaustive()
    }
}
