//! A simulated machine: its kernel behind one lock, and its threads, which take turns.
//!
//! Threads are ordinary ones. [`Schedule`](crate::schedule::Schedule) decides which of them runs. Here they pass the
//! right to run to each other, and due events happen while all of them wait.
#![allow(
    clippy::missing_const_for_thread_local,
    reason = "they are, and where the system has none of its own, clippy does not see it"
)]

use std::cell::RefCell;
use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::thread;
use std::time::{Duration, Instant};

use crate::kernel::{FileId, Kernel, errno};
use crate::kernels;
use crate::panics::{self, Caught, Panic};
use crate::schedule::{Action, Baton, Job, MAIN, Pool, QueueId, Reason, ThreadId, Turn, Worker};

/// A handle: its clones are the same machine.
#[derive(Clone)]
pub(crate) struct Machine(Arc<Shared>);

struct Shared {
    kernel: Mutex<Kernel>,
    /// The actions of threads are traced until the world ends.
    is_traced: bool,
    /// The time at which it began, for [`Instant`]s of the standard library.
    start: Instant,
    pool: Pool,
    workers: Mutex<Vec<Arc<Worker>>>,
    /// Of the panic that failed the run.
    backtrace: Mutex<Option<String>>,
    /// A test that panics prints the seed once.
    has_reported: AtomicBool,
}

pub(crate) type Guard<'a> = MutexGuard<'a, Kernel>;

/// A machine that may be gone.
pub(crate) struct WeakMachine(Weak<Shared>);

/// A thread that was started.
pub(crate) struct Started<T> {
    pub(crate) id: ThreadId,
    /// The queue of the threads that join it.
    pub(crate) joiners: QueueId,
    /// Where it puts what it returns.
    pub(crate) result: Arc<Mutex<Option<T>>>,
}

/// The result of a run.
pub(crate) struct Run {
    pub(crate) failure: Option<String>,
    pub(crate) elapsed: Duration,
    pub(crate) trace: Vec<String>,
    /// The rules of its kernel that made a difference.
    pub(crate) rules: Vec<&'static str>,
    /// Of the panic that failed it, if `RUST_BACKTRACE` asks for one.
    pub(crate) backtrace: Option<String>,
}

/// At most this many actions, each caused by the one before it, may happen at the same time.
const MAX_CHAIN: usize = 10_000;

const NO_THREAD: &str =
    "only a thread of this world can wait here: no plan, and nothing in a `static`";

thread_local! {
    /// The machine that runs here, and as which of its threads; as none in a plan.
    static CURRENT: RefCell<Option<(Machine, Option<ThreadId>)>> = const { RefCell::new(None) };
}

impl Machine {
    pub(crate) fn new(kernel: kernels::Kernel, seed: u64, pool: Pool, is_traced: bool) -> Self {
        let kernel = Mutex::new(Kernel::new(kernel, seed, is_traced));
        Self(Arc::new(Shared {
            kernel,
            is_traced,
            backtrace: Mutex::default(),
            start: Instant::now(),
            pool,
            workers: Mutex::default(),
            has_reported: AtomicBool::new(false),
        }))
    }

    /// The machine that runs on this thread.
    pub(crate) fn current() -> Self {
        Self::current_if_any().expect("no world runs here: see pollio_sim::check and World::run")
    }

    pub(crate) fn current_if_any() -> Option<Self> {
        CURRENT.with_borrow(|current| current.as_ref().map(|(machine, _)| machine.clone()))
    }

    /// The machine that runs on this thread, and which of its threads this is. Panics in a plan, which cannot wait.
    pub(crate) fn current_with_thread() -> (Self, ThreadId) {
        let machine = Self::current();
        let id = machine.current_thread().unwrap_or_else(|| panic!("{NO_THREAD}"));
        (machine, id)
    }

    /// Which of the machine's threads this is.
    pub(crate) fn current_thread(&self) -> Option<ThreadId> {
        CURRENT.with_borrow(|current| {
            let (machine, id) = current.as_ref()?;
            id.filter(|_| Arc::ptr_eq(&self.0, &machine.0))
        })
    }

    pub(crate) fn downgrade(&self) -> WeakMachine {
        WeakMachine(Arc::downgrade(&self.0))
    }

    /// When it began, by the real clock.
    pub(crate) fn start(&self) -> Instant {
        self.0.start
    }

    pub(crate) fn kernel(&self) -> Guard<'_> {
        // No code of a user runs while it is locked.
        self.0.kernel.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn now(&self) -> Duration {
        self.kernel().now()
    }

    /// Whether the actions of threads are traced until the world ends. Takes no lock.
    pub(crate) fn is_traced(&self) -> bool {
        self.0.is_traced
    }

    /// Whether a test that panics has not yet printed the seed of this machine, and no run will: it has no threads.
    pub(crate) fn is_first_to_report(&self) -> bool {
        !self.kernel().schedule().has_threads()
            && !self.0.has_reported.swap(true, Ordering::Relaxed)
    }

    pub(crate) fn is_ending(&self) -> bool {
        self.kernel().schedule().is_ending()
    }
}

impl WeakMachine {
    pub(crate) fn upgrade(&self) -> Option<Machine> {
        self.0.upgrade().map(Machine)
    }
}

/// Calls.
impl Machine {
    /// Begins a call of the program: others may run before it.
    pub(crate) fn enter(&self) -> Guard<'_> {
        let mut kernel = self.kernel();
        let Some(id) = self.current_thread() else { return kernel };
        let schedule = kernel.schedule_mut();
        let turn = if schedule.is_ending() {
            schedule.begin_late_call(id)
        } else {
            schedule.begin_call(id)
        };
        self.take_turn(kernel, id, turn)
    }

    /// The scheduler may run other threads first, before the thread takes a lock, which is no call.
    pub(crate) fn preempt(&self) {
        let Some(id) = self.current_thread() else { return };
        let mut kernel = self.kernel();
        if !kernel.schedule().is_ending() {
            let turn = kernel.schedule_mut().preempt();
            drop(self.take_turn(kernel, id, turn));
        }
    }

    fn take_turn<'a>(&'a self, mut kernel: Guard<'a>, id: ThreadId, turn: Turn) -> Guard<'a> {
        match turn {
            Turn::GoesOn => kernel,
            Turn::Yields => {
                kernel.schedule_mut().add_runnable(id);
                self.switch(kernel, id)
            }
            Turn::Pauses(end) => self.block_until(kernel, Reason::Computes, Some(end)),
            Turn::Ends => self.end_here(kernel),
        }
    }

    /// Ends the thread that calls this. It goes on if it is unwinding already: then nothing may block.
    fn end_here<'a>(&'a self, kernel: Guard<'a>) -> Guard<'a> {
        drop(kernel);
        panics::end_unless_unwinding();
        self.kernel()
    }

    /// Blocks the thread that calls this until `deadline`, if there is one.
    pub(crate) fn block_until<'a>(
        &'a self,
        kernel: Guard<'a>,
        reason: Reason,
        deadline: Option<Duration>,
    ) -> Guard<'a> {
        self.block::<()>(kernel, reason, deadline, |_| None).0
    }

    /// Blocks the thread that calls this in a call on a file until `attempt` does not fail with `WouldBlock`.
    /// If the file does not block, or `deadline` is over, it does.
    pub(crate) fn block_on_file<'a, T>(
        &'a self,
        kernel: Guard<'a>,
        file: FileId,
        what: &'static str,
        deadline: Option<Duration>,
        mut attempt: impl FnMut(&mut Kernel) -> io::Result<T>,
    ) -> (Guard<'a>, io::Result<T>) {
        let (queue, is_nonblocking) = match (kernel.queue_of(file), kernel.settings(file)) {
            (Ok(queue), Ok(settings)) => (queue, settings.is_nonblocking),
            (Err(error), _) | (_, Err(error)) => return (kernel, Err(error)),
        };
        let reason = Reason::File(what, queue);
        let (kernel, result) =
            self.block(kernel, reason, deadline, |kernel| match attempt(kernel) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock && !is_nonblocking => None,
                result => Some(result),
            });
        (kernel, result.unwrap_or_else(|| Err(errno(libc::EAGAIN))))
    }

    /// Blocks the thread that calls this until `attempt` succeeds, or `deadline` is over: then none.
    ///
    /// Each time that the queue of `reason` is woken, it is tried again.
    pub(crate) fn block<'a, T>(
        &'a self,
        mut kernel: Guard<'a>,
        reason: Reason,
        deadline: Option<Duration>,
        mut attempt: impl FnMut(&mut Kernel) -> Option<T>,
    ) -> (Guard<'a>, Option<T>) {
        let mut is_ended = false;
        loop {
            let success = attempt(&mut kernel);
            if success.is_some() || deadline.is_some_and(|deadline| deadline <= kernel.now()) {
                return (kernel, success);
            }
            let Some(id) = self.current_thread() else {
                drop(kernel);
                panic!("{NO_THREAD}");
            };
            let is_ending = kernel.schedule().is_ending();
            if is_ending && matches!(reason, Reason::Computes) {
                return (kernel, None);
            }
            if is_ended && is_ending {
                return (self.end_here(kernel), None);
            }
            let schedule = kernel.schedule_mut();
            schedule.begin_wait(id, reason, deadline.filter(|_| !is_ending));
            schedule.set_gives_way(id, is_ending && thread::panicking());
            kernel = self.switch(kernel, id);
            let schedule = kernel.schedule_mut();
            schedule.set_gives_way(id, false);
            // Nothing has happened to what it waits for: the end of the world has reached it.
            is_ended = schedule.end_wait(id);
        }
    }
}

/// Turns.
impl Machine {
    /// Runs other threads until it is the turn of this one again.
    fn switch<'a>(&'a self, kernel: Guard<'a>, id: ThreadId) -> Guard<'a> {
        let (mut kernel, next) = self.next_thread(kernel);
        let schedule = kernel.schedule_mut();
        schedule.set_running(next);
        if next == id {
            return kernel;
        }
        let (theirs, mine) = (schedule.baton(next), schedule.baton(id));
        drop(kernel);
        theirs.pass();
        mine.take();
        self.kernel()
    }

    /// The thread that runs next. The clock moves if none can now.
    fn next_thread<'a>(&'a self, mut kernel: Guard<'a>) -> (Guard<'a>, ThreadId) {
        loop {
            if kernel.schedule().is_ending() {
                let next = kernel.schedule_mut().choose_late();
                return (kernel, next);
            }
            let result;
            (kernel, result) = self.run_due(kernel);
            let schedule = kernel.schedule_mut();
            if let Err(why) = result {
                schedule.fail(why);
            }
            if schedule.is_ending() {
                continue;
            }
            if let Some(next) = schedule.choose() {
                return (kernel, next);
            }
            match schedule.next_time() {
                Some(time) => schedule.set_now(time),
                None => {
                    let waits = kernel.describe_waits();
                    let why = "deadlock: every thread waits, and nothing will ever happen";
                    kernel.schedule_mut().fail(format!("{why}{waits}"));
                }
            }
        }
    }

    /// Runs all due events. Returns their number.
    pub(crate) fn run_due<'a>(
        &'a self,
        mut kernel: Guard<'a>,
    ) -> (Guard<'a>, Result<usize, String>) {
        let (mut count, mut chain) = (0, 0);
        let mut newest = kernel.schedule().last_added();
        while let Some(((due, number), action)) = kernel.schedule_mut().take_due() {
            if number > newest {
                chain += 1;
                newest = kernel.schedule().last_added();
            }
            count += 1;
            match action {
                Action::Plan(plan) => {
                    // It scripts, which locks.
                    drop(kernel);
                    self.run_plan(plan);
                    kernel = self.kernel();
                }
                Action::Timeout(thread) => kernel.schedule_mut().wake(thread),
                Action::Event(event) => {
                    kernel.happen(event, due);
                    if kernel.schedule().is_ending() {
                        break;
                    }
                }
            }
            if chain > MAX_CHAIN {
                let why = format!("{chain} plans made each other after no time");
                return (kernel, Err(why));
            }
        }
        (kernel, Ok(count))
    }

    /// The number of steps so far, and the name of the thread that made the last one.
    pub(crate) fn progress(&self) -> (u64, String) {
        let kernel = self.kernel();
        let (steps, name) = kernel.schedule().progress();
        (steps, name.to_owned())
    }

    /// The reason of each waiting thread, a line each.
    pub(crate) fn describe_waits(&self) -> String {
        self.kernel().describe_waits()
    }

    fn run_plan(&self, plan: Box<dyn FnOnce() + Send>) {
        if self.current_thread().is_none() && !self.kernel().schedule().has_threads() {
            return plan();
        }
        // It happens while a thread waits, and is no call of that thread.
        let before = CURRENT.replace(Some((self.clone(), None)));
        let outcome = panics::catch(plan);
        CURRENT.set(before);
        if let Err(caught) = outcome {
            self.fail_with(&mut self.kernel(), "a plan", caught);
        }
    }
}

/// Threads.
impl Machine {
    /// Starts a thread.
    pub(crate) fn spawn<T: Send + 'static>(
        &self,
        name: Option<&str>,
        body: impl FnOnce() -> T + Send + 'static,
    ) -> Started<T> {
        self.spawn_on(name, body, |job| {
            let worker = self.0.pool.assign(job);
            let baton = worker.baton();
            self.workers().push(worker);
            baton
        })
    }

    /// As [`spawn`](Self::spawn), for a body that borrows. Its thread of the system is not of the pool but of `scope`,
    /// which must not end before it: see [`wait_for_scope`](Self::wait_for_scope).
    pub(crate) fn spawn_scoped<'scope, T: Send + 'scope>(
        &self,
        scope: &'scope thread::Scope<'scope, '_>,
        name: Option<&str>,
        body: impl FnOnce() -> T + Send + 'scope,
    ) -> Started<T> {
        self.spawn_on(name, body, |job| {
            let (sender, receiver) = std::sync::mpsc::sync_channel(1);
            scope.spawn(move || {
                let baton = Baton::of_this_thread();
                if sender.send(baton.clone()).is_ok() {
                    baton.take();
                    job();
                }
            });
            receiver.recv().expect("the thread sends its baton first")
        })
    }

    fn spawn_on<'a, T: Send + 'a>(
        &self,
        name: Option<&str>,
        body: impl FnOnce() -> T + Send + 'a,
        assign: impl FnOnce(Job<'a>) -> Arc<Baton>,
    ) -> Started<T> {
        let mut kernel = self.kernel();
        let schedule = kernel.schedule_mut();
        let id = schedule.next_thread_id();
        let result = Arc::new(Mutex::new(None));
        let (machine, place) = (self.clone(), result.clone());
        let job: Job<'a> = Box::new(move || {
            CURRENT.set(Some((machine.clone(), Some(id))));
            let outcome = panics::catch(|| {
                // Dropped inside as well: they may hold sockets.
                if machine.is_ending() {
                    drop(body)
                } else {
                    keep(&place, body())
                }
                drop(place);
            });
            CURRENT.set(None);
            machine.end_of_thread(id, outcome);
        });
        let joiners = schedule.add_thread(name.map(str::to_owned), assign(job));
        schedule.add_runnable(id);
        Started { id, joiners, result }
    }

    /// Blocks the thread that calls this, which is `id`, until the threads of its scope have ended: `take` returns one
    /// after another, also those that they have added. It never unwinds: as the world ends, they end first.
    pub(crate) fn wait_for_scope(&self, id: ThreadId, take: impl Fn() -> Option<ThreadId>) {
        let mut kernel = self.kernel();
        while let Some(thread) = take() {
            while let Some(joiners) = kernel.schedule().joiners(thread) {
                kernel.schedule_mut().begin_wait(id, Reason::Scope(joiners), None);
                kernel = self.switch(kernel, id);
                kernel.schedule_mut().end_wait(id);
            }
        }
    }

    fn workers(&self) -> MutexGuard<'_, Vec<Arc<Worker>>> {
        self.0.workers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn end_of_thread(&self, id: ThreadId, outcome: Result<(), Caught>) {
        let mut kernel = self.kernel();
        if let Err(caught) = outcome {
            let who = format!("thread `{}`", kernel.schedule().progress().1);
            self.fail_with(&mut kernel, &who, caught);
        }
        kernel.schedule_mut().end_thread(id);
        let (mut kernel, next) = self.next_thread(kernel);
        let schedule = kernel.schedule_mut();
        schedule.set_running(next);
        let theirs = schedule.baton(next);
        drop(kernel);
        theirs.pass();
    }

    /// Runs `body` as the main thread, and then ends all others.
    pub(crate) fn run<E: std::fmt::Display>(&self, body: impl FnOnce() -> Result<(), E>) -> Run {
        let before = CURRENT.replace(Some((self.clone(), Some(MAIN))));
        let baton = Baton::of_this_thread();
        self.kernel().schedule_mut().add_thread(Some("main".to_owned()), baton);
        // The error is shown before the lock is taken: that may be code of a user.
        let outcome = panics::catch(|| body().map_err(|error| error.to_string()));
        let mut kernel = self.kernel();
        match outcome {
            Ok(Ok(())) => {}
            Ok(Err(error)) => kernel.schedule_mut().fail(format!("it returned an error: {error}")),
            Err(caught) => self.fail_with(&mut kernel, "it", caught),
        }
        let schedule = kernel.schedule_mut();
        schedule.end();
        schedule.end_thread(MAIN);
        drop(self.switch(kernel, MAIN));
        let workers = std::mem::take(&mut *self.workers());
        workers.into_iter().for_each(|worker| self.0.pool.release(worker));
        CURRENT.set(before);
        let mut kernel = self.kernel();
        let elapsed = kernel.now();
        let (failure, trace) = kernel.schedule_mut().take_outcome();
        let rules = kernel.rules_applied();
        // A plan that never came may hold the world itself.
        let agenda = kernel.schedule_mut().take_agenda();
        drop(kernel);
        drop(agenda);
        let backtrace = self.backtrace().take();
        Run { failure, elapsed, trace, rules, backtrace }
    }

    /// Fails the run, unless a thread was ended by the end of the world.
    fn fail_with(&self, kernel: &mut Kernel, who: &str, caught: Caught) {
        if let Caught::Panicked(Panic { message, backtrace }) = caught {
            if !kernel.schedule().is_ending() {
                *self.backtrace() = backtrace;
            }
            kernel.schedule_mut().fail(format!("{who} panicked: {message}"));
        }
    }

    fn backtrace(&self) -> MutexGuard<'_, Option<String>> {
        self.0.backtrace.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn keep<T>(place: &Mutex<Option<T>>, value: T) {
    *place.lock().unwrap_or_else(PoisonError::into_inner) = Some(value);
}
