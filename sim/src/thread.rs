//! Simulated threads, under the names of `std::thread`.

mod scoped;

use std::fmt;
use std::io;
use std::num::NonZero;
use std::sync::{Arc, Mutex, PoisonError};
#[doc(no_inline)]
pub use std::thread::{Result, ThreadId, panicking};
use std::time::Duration;

use crate::kernel::Kernel;
use crate::machine::{Machine, Started};
use crate::schedule::{self, QueueId, Reason};

pub use scoped::{Scope, ScopedJoinHandle, scope};

/// Starts a thread in the world that runs here, under the name `thread` in reports.
///
/// [`Builder`] and [`World::spawn`](crate::World::spawn) give it another.
pub fn spawn<T: Send + 'static>(body: impl FnOnce() -> T + Send + 'static) -> JoinHandle<T> {
    spawn_in(&Machine::current(), None, body)
}

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
        Ok(spawn_in(&Machine::current(), self.name.as_deref(), body))
    }

    /// Starts the thread in a scope.
    ///
    /// # Errors
    ///
    /// It never fails: the signature is that of `std`.
    pub fn spawn_scoped<'scope, T: Send + 'scope>(
        self,
        scope: &'scope Scope<'scope, '_>,
        body: impl FnOnce() -> T + Send + 'scope,
    ) -> io::Result<ScopedJoinHandle<'scope, T>> {
        Ok(scope.spawn_named(self.name.as_deref(), body))
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

/// Blocks until another thread [unparks](Thread::unpark) this one; not if one has since this last parked.
///
/// As in `std`, it may end without that: where [`Conditions::with_spurious`](crate::Conditions::with_spurious) is set,
/// some do.
pub fn park() {
    park_for(None);
}

/// [`park`], for so long in virtual time.
pub fn park_timeout(timeout: Duration) {
    park_for(Some(timeout));
}

fn park_for(timeout: Option<Duration>) {
    let (machine, id) = Machine::current_with_thread();
    let mut kernel = machine.enter();
    let deadline = timeout.and_then(|timeout| kernel.now().checked_add(timeout));
    kernel.schedule_mut().note_call(|| "park".into());
    if kernel.schedule_mut().take_token(id) {
        return;
    }
    if kernel.draw_spurious() {
        kernel.schedule_mut().note(|| "fault: a thread that is parked goes on".into());
        return;
    }
    let take_token = |kernel: &mut Kernel| kernel.schedule_mut().take_token(id).then_some(());
    drop(machine.block(kernel, Reason::Parked, deadline, take_token));
}

/// The thread that calls this. Outside of a world, and in a plan, it is that of `std`.
#[must_use]
pub fn current() -> Thread {
    let thread =
        Machine::current_if_any().and_then(|machine| Some((machine.current_thread()?, machine)));
    match thread {
        Some((id, machine)) => Thread::new(&machine, id),
        None => {
            let thread = std::thread::current();
            Thread { name: thread.name().map(Into::into), id: thread.id(), of: Of::Std(thread) }
        }
    }
}

/// A thread, which can be unparked, in place of [`std::thread::Thread`].
#[derive(Clone)]
pub struct Thread {
    name: Option<Arc<str>>,
    id: ThreadId,
    of: Of,
}

#[derive(Clone)]
enum Of {
    Std(std::thread::Thread),
    World(Machine, schedule::ThreadId),
}

impl Thread {
    fn new(machine: &Machine, id: schedule::ThreadId) -> Self {
        let kernel = machine.kernel();
        let schedule = kernel.schedule();
        Self {
            name: schedule.own_name(id).map(Into::into),
            id: schedule.baton(id).thread().id(),
            of: Of::World(machine.clone(), id),
        }
    }

    /// Ends the [`park`] of this thread; if it is not parked, the next one.
    pub fn unpark(&self) {
        match &self.of {
            Of::Std(thread) => thread.unpark(),
            Of::World(machine, id) => {
                let mut kernel = machine.enter();
                let schedule = kernel.schedule_mut();
                schedule.note_call(|| format!("unpark {}", self.name().unwrap_or("a thread")));
                schedule.unpark(*id);
            }
        }
    }

    /// Unique among the threads of a world.
    #[must_use]
    pub const fn id(&self) -> ThreadId {
        self.id
    }

    /// None if it was given none.
    #[must_use]
    pub fn name(&self) -> Option<&str> {
        self.name.as_deref()
    }
}

impl fmt::Debug for Thread {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Thread")
            .field("id", &self.id())
            .field("name", &self.name())
            .finish_non_exhaustive()
    }
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
    thread: Thread,
    joiners: QueueId,
    result: Arc<Mutex<Option<T>>>,
}

pub(crate) fn spawn_in<T: Send + 'static>(
    machine: &Machine,
    name: Option<&str>,
    body: impl FnOnce() -> T + Send + 'static,
) -> JoinHandle<T> {
    JoinHandle::new(machine, machine.spawn(name, body))
}

impl<T> JoinHandle<T> {
    fn new(machine: &Machine, Started { id, joiners, result }: Started<T>) -> Self {
        Self { machine: machine.clone(), thread: Thread::new(machine, id), joiners, result }
    }

    /// The thread.
    #[must_use]
    pub const fn thread(&self) -> &Thread {
        &self.thread
    }

    /// Waits for the end of the thread, and returns what it returned.
    ///
    /// # Errors
    ///
    /// It never fails: a thread that panics fails the run, which ends the thread that joins as well.
    pub fn join(self) -> Result<T> {
        let kernel = self.machine.enter();
        let result = self.result;
        let take = |_: &mut _| result.lock().unwrap_or_else(PoisonError::into_inner).take();
        let reason = Reason::Thread("joins another thread", self.joiners);
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
