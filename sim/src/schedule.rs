//! The order of threads, the clock, and due events. It knows nothing of files and sockets.
//!
//! Of the threads of a world exactly one runs at a time. Before each of its calls, the seed decides whether it goes on.
//! When it has to wait, due events happen, and then the seed chooses a thread among those that can run. If there is
//! none, the clock moves on to the next event; without one, that is a deadlock.

mod agenda;
mod baton;
mod pool;
mod random;
mod threads;
mod trace;

use std::mem;
use std::process;
use std::sync::Arc;
use std::time::Duration;

use agenda::Agenda;
use threads::{MAX_PAUSE, Threads};
use trace::Trace;

pub(crate) use agenda::When;
pub(crate) use baton::Baton;
pub(crate) use pool::{Job, Pool, Worker};
pub(crate) use random::Random;
pub(crate) use threads::{MAIN, QueueId, Reason, ThreadId};

/// A thread may make at most this many calls without being blocked in one: more are a loop that never waits.
const MAX_CALLS: u32 = 100_000;

/// After so many calls at one time, each takes [`CALL_TIME`]: otherwise nothing would ever come to a loop that
/// polls.
const MAX_CALLS_AT_ONE_TIME: u32 = 1_000;

const CALL_TIME: Duration = Duration::from_millis(1);

/// A thread may make at most this many calls after the end of its world, if it never has to wait.
const MAX_LATE_CALLS: u32 = 100;

/// Something that happens at a time.
pub(crate) enum Action<E> {
    /// A plan of a test.
    Plan(Box<dyn FnOnce() + Send>),
    /// The timeout of a waiting thread.
    Timeout(ThreadId),
    /// An event of the kernel.
    Event(E),
}

/// Threads, clock, agenda, trace and seed of a world whose kernel has events `E`.
pub(crate) struct Schedule<E> {
    seed: u64,
    random: Random,
    now: Duration,
    agenda: Agenda<Action<E>>,
    threads: Threads,
    trace: Trace,
    /// The number of calls since the clock moved.
    calls: u32,
    /// A thread is preempted at one call in so many.
    preempted_one_in: u64,
    /// A preempted thread is kept from going on for some time.
    has_pauses: bool,
    is_ending: bool,
    failure: Option<String>,
}

/// The action of a thread that begins a call.
pub(crate) enum Turn {
    GoesOn,
    /// It lets the others run first.
    Yields,
    /// It goes on at this time.
    Pauses(Duration),
    /// It ends, as its world has, or as it never waits.
    Ends,
}

impl<E> Schedule<E> {
    /// `random` has made the earlier draws.
    pub(crate) fn new(seed: u64, mut random: Random, is_traced: bool) -> Self {
        let preempted_one_in = random.magnitude(&(2..=256));
        Self {
            seed,
            random,
            now: Duration::ZERO,
            agenda: Agenda::new(),
            threads: Threads::default(),
            trace: Trace::new(is_traced),
            calls: 0,
            preempted_one_in,
            has_pauses: false,
            is_ending: false,
            failure: None,
        }
    }

    pub(crate) const fn seed(&self) -> u64 {
        self.seed
    }

    pub(crate) const fn random(&mut self) -> &mut Random {
        &mut self.random
    }

    pub(crate) const fn set_pauses(&mut self, has_pauses: bool) {
        self.has_pauses = has_pauses;
    }
}

/// The clock and the agenda.
impl<E> Schedule<E> {
    /// The time that has passed.
    pub(crate) const fn now(&self) -> Duration {
        self.now
    }

    pub(crate) fn set_now(&mut self, time: Duration) {
        self.now = self.now.max(time);
        self.calls = 0;
    }

    pub(crate) fn add(&mut self, time: Duration, action: Action<E>) -> When {
        self.agenda.add(time, action)
    }

    /// Adds an event that only checks something, so that it keeps no wait from being a deadlock.
    pub(crate) fn add_check(&mut self, time: Duration, event: E) {
        self.agenda.add_check(time, Action::Event(event));
    }

    pub(crate) fn cancel(&mut self, when: When) {
        self.agenda.cancel(when);
    }

    pub(crate) const fn last_added(&self) -> u64 {
        self.agenda.added()
    }

    /// The due event, with its time and its number.
    pub(crate) fn take_due(&mut self) -> Option<(When, Action<E>)> {
        self.agenda.take_due(self.now)
    }

    /// When something happens next, if anything ever will.
    pub(crate) fn next_time(&self) -> Option<Duration> {
        self.agenda.next_time()
    }

    /// Takes the events that will not happen any more.
    pub(crate) fn take_agenda(&mut self) -> impl Sized + use<E> {
        mem::replace(&mut self.agenda, Agenda::new())
    }
}

/// The running thread.
impl<E> Schedule<E> {
    /// The thread that the next [`add_thread`](Self::add_thread) adds.
    pub(crate) fn next_thread_id(&self) -> ThreadId {
        self.threads.next_id()
    }

    /// Adds a thread that the running one starts. Returns the queue of those that join it.
    pub(crate) fn add_thread(&mut self, name: Option<String>, baton: Arc<Baton>) -> QueueId {
        self.threads.add(name, baton)
    }

    /// Lets a thread be chosen.
    pub(crate) fn add_runnable(&mut self, id: ThreadId) {
        self.threads.add_runnable(id);
    }

    pub(crate) fn has_threads(&self) -> bool {
        !self.threads.is_empty()
    }

    pub(crate) fn baton(&self, id: ThreadId) -> Arc<Baton> {
        self.threads.baton(id)
    }

    pub(crate) fn set_running(&mut self, id: ThreadId) {
        self.threads.set_running(id);
    }

    /// The number of steps so far, and the name of the thread that made the last one.
    pub(crate) fn progress(&self) -> (u64, &str) {
        (self.threads.steps(), self.threads.name_of_running())
    }

    /// Decides whether a thread goes on with its next call.
    pub(crate) fn begin_call(&mut self, id: ThreadId) -> Turn {
        self.calls += 1;
        if self.threads.count_call(id) > MAX_CALLS {
            let name = self.threads.name(id);
            self.fail(format!("thread `{name}` spins: {MAX_CALLS} calls without a wait"));
            return Turn::Ends;
        }
        if self.calls > MAX_CALLS_AT_ONE_TIME {
            // It has taken its time by now, in which something else may have happened.
            let time = self.now + CALL_TIME;
            self.set_now(self.next_time().map_or(time, |next| next.min(time)));
            return Turn::Yields;
        }
        if self.has_pauses && self.random.one_in(self.preempted_one_in) {
            let pause = self.random.duration(&(Duration::ZERO..=MAX_PAUSE));
            return Turn::Pauses(self.now + pause);
        }
        self.preempt()
    }

    /// Decides whether other threads run before a thread takes a lock, which is no call.
    pub(crate) fn preempt(&mut self) -> Turn {
        if self.threads.runnable_count() > 0 && self.random.one_in(self.preempted_one_in) {
            Turn::Yields
        } else {
            Turn::GoesOn
        }
    }

    /// Decides whether a thread goes on with a call after the end of the world: until it has to wait, so that
    /// others that wait for its end see an orderly one.
    pub(crate) fn begin_late_call(&mut self, id: ThreadId) -> Turn {
        let calls = self.threads.count_late_call(id);
        if calls > MAX_CALLS {
            // It is in a destructor, or catches the panic that ends it.
            let (seed, name) = (self.seed, self.threads.name(id));
            let why = "makes calls without an end, although its world has ended";
            eprintln!("pollio: seed {seed}: thread `{name}` {why}");
            process::abort();
        }
        if calls > MAX_LATE_CALLS { Turn::Ends } else { Turn::GoesOn }
    }

    /// Chooses the thread that runs next, if any can.
    pub(crate) fn choose(&mut self) -> Option<ThreadId> {
        let index = match self.threads.runnable_count() {
            0 => return None,
            1 => 0,
            count => self.random.index(count),
        };
        Some(self.threads.take_runnable(index))
    }

    /// Chooses the thread that runs next after the end of the world.
    pub(crate) fn choose_late(&mut self) -> ThreadId {
        self.threads.next_to_end()
    }

    /// Notes that a thread gives way to others as its world ends, or does so no more.
    pub(crate) fn set_gives_way(&mut self, id: ThreadId, gives_way: bool) {
        self.threads.set_gives_way(id, gives_way);
    }

    pub(crate) fn own_name(&self, id: ThreadId) -> Option<&str> {
        self.threads.own_name(id)
    }

    /// Ends the wait of a thread that is parked, or keeps the next from blocking.
    pub(crate) fn unpark(&mut self, id: ThreadId) {
        if self.threads.add_token(id) {
            self.wake(id);
        }
    }

    /// Whether a thread was unparked since it last parked.
    pub(crate) fn take_token(&mut self, id: ThreadId) -> bool {
        self.threads.take_token(id)
    }

    /// The queue of those that join a thread. None if it has ended.
    pub(crate) fn joiners(&self, id: ThreadId) -> Option<QueueId> {
        self.threads.joiners(id)
    }

    /// Notes the end of a thread, and lets those go on that join it.
    pub(crate) fn end_thread(&mut self, id: ThreadId) {
        let joiners = self.threads.set_done(id);
        self.wake_all(joiners);
    }
}

/// Waiting threads.
impl<E> Schedule<E> {
    pub(crate) fn add_queue(&mut self) -> QueueId {
        self.threads.add_queue()
    }

    pub(crate) fn has_waiters(&self, queue: QueueId) -> bool {
        self.threads.first(queue).is_some()
    }

    pub(crate) fn begin_wait(&mut self, id: ThreadId, reason: Reason, deadline: Option<Duration>) {
        let timeout = deadline.map(|time| self.agenda.add(time, Action::Timeout(id)));
        self.threads.begin_wait(id, reason, timeout);
    }

    /// Ends the wait of a thread. Returns whether it waited.
    pub(crate) fn end_wait(&mut self, id: ThreadId) -> bool {
        let Some(timeout) = self.threads.end_wait(id) else { return false };
        timeout.into_iter().for_each(|when| self.agenda.cancel(when));
        true
    }

    /// Wakes a thread.
    pub(crate) fn wake(&mut self, id: ThreadId) {
        if self.end_wait(id) {
            self.threads.add_runnable(id);
        }
    }

    /// Wakes the thread that has waited longest. Returns whether there is one.
    pub(crate) fn wake_one(&mut self, queue: QueueId) -> bool {
        let first = self.threads.first(queue);
        first.into_iter().for_each(|id| self.wake(id));
        first.is_some()
    }

    pub(crate) fn wake_all(&mut self, queue: QueueId) {
        while self.wake_one(queue) {}
    }

    /// The waiting threads, with their reasons.
    pub(crate) fn waits(&self) -> impl Iterator<Item = (&str, Reason)> {
        self.threads.waits()
    }
}

/// What happened, and how it ended.
impl<E> Schedule<E> {
    pub(crate) const fn is_traced(&self) -> bool {
        self.trace.is_kept() && !self.is_ending
    }

    /// Notes an event of the world in the trace.
    #[inline]
    pub(crate) fn note(&mut self, text: impl FnOnce() -> String) {
        if self.is_traced() {
            self.trace.push(self.now, "-", &text());
        }
    }

    /// Notes an action of the running thread in the trace.
    #[inline]
    pub(crate) fn note_call(&mut self, text: impl FnOnce() -> String) {
        if self.is_traced() {
            self.trace.push(self.now, self.threads.name_of_running(), &text());
        }
    }

    pub(crate) const fn is_ending(&self) -> bool {
        self.is_ending
    }

    pub(crate) const fn end(&mut self) {
        self.is_ending = true;
    }

    /// Ends the world. The first failure counts.
    pub(crate) fn fail(&mut self, why: String) {
        if !self.is_ending {
            self.note(|| "the run fails".into());
            self.failure = Some(why);
            self.is_ending = true;
        }
    }

    pub(crate) fn take_outcome(&mut self) -> (Option<String>, Vec<String>) {
        (self.failure.take(), self.trace.take())
    }
}
