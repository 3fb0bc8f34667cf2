//! Simulated threads: ordinary ones, of which exactly one runs at a time.
//!
//! A thread that has to wait decides who is next: what is due happens, then a thread that can run is drawn by
//! the seed, else the clock moves on to what happens next. If nothing ever will, that is a deadlock.
#![allow(
    clippy::missing_const_for_thread_local,
    reason = "they are, and where the system has none of its own, clippy does not see it"
)]

use std::any::Any;
use std::cell::RefCell;
use std::panic::{self, AssertUnwindSafe};
use std::process;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use crate::agenda::{Action, When};
use crate::kernel::{ALL, FileId, Kind};
use crate::pool::{Baton, Job, Worker};
use crate::world::{Guard, State, World};

#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(super) struct ThreadId(usize);

/// The one in which the body of the world runs.
pub(super) const MAIN: ThreadId = ThreadId(0);

#[derive(Default)]
pub(super) struct Threads {
    list: Vec<Thread>,
    /// Those that could run and do not.
    runnable: Vec<ThreadId>,
    workers: Vec<Arc<Worker>>,
    running: ThreadId,
    /// How often a thread was chosen or made a call: the watchdog looks at it.
    steps: u64,
}

struct Thread {
    name: String,
    /// Who has started it; the main one itself.
    parent: ThreadId,
    baton: Arc<Baton>,
    is_done: bool,
    /// How many it has made since it was last blocked.
    calls: u32,
    /// How many it has made since its world has ended.
    late_calls: u32,
    /// It waits while it unwinds: others end first.
    gives_way: bool,
    /// What it waits for, and until when.
    wait: Option<Wait>,
    /// Blocks the thread that joins it.
    exit: FileId,
}

impl Thread {
    const fn new(name: String, parent: ThreadId, baton: Arc<Baton>, exit: FileId) -> Self {
        let (is_done, gives_way) = (false, false);
        Self { name, parent, baton, is_done, calls: 0, late_calls: 0, gives_way, wait: None, exit }
    }
}

struct Wait {
    file: Option<FileId>,
    what: &'static str,
    timeout: Option<When>,
}

/// As many calls may a thread make without being blocked in one: more are a loop that never waits.
const MOST_CALLS: u32 = 100_000;

/// After so many calls at one time, each takes a while: otherwise nothing would ever come to a loop that
/// polls.
const CALLS_AT_ONE_TIME: u32 = 1_000;

/// How long a thread is kept from going on between two calls.
const LONGEST_PAUSE: Duration = Duration::from_millis(10);

/// As many calls may a thread make after the end of its world, if it never has to wait.
const MOST_LATE_CALLS: u32 = 100;

/// As many actions, each caused by the one before it, may happen at the same time.
const LONGEST_CHAIN: usize = 10_000;

/// What a thread does in a pause.
const COMPUTES: &str = "computes";

thread_local! {
    /// The world that runs here, and as which of its threads; as none in a plan.
    static CURRENT: RefCell<Option<(World, Option<ThreadId>)>> = const { RefCell::new(None) };
}

/// What a thread unwinds with when its world has ended.
struct Ended;

impl World {
    /// The world that runs on this thread.
    pub(super) fn current() -> Self {
        Self::current_if_any().expect("no world runs here: see pollio_sim::check and World::run")
    }

    pub(super) fn current_if_any() -> Option<Self> {
        CURRENT.with_borrow(|current| current.as_ref().map(|(world, _)| world.clone()))
    }

    /// Which of the world's threads this is.
    pub(super) fn me(&self) -> Option<ThreadId> {
        CURRENT.with_borrow(|current| {
            current.as_ref().filter(|(world, _)| world.is(self)).and_then(|(_, id)| *id)
        })
    }

    /// Begins a call of the program: others may run before it.
    pub(super) fn enter(&self) -> Guard<'_> {
        let mut state = self.state();
        let Some(me) = self.me() else { return state };
        if state.is_ending() {
            return self.enter_late(state, me);
        }
        state.threads.steps += 1;
        state.calls += 1;
        let thread = &mut state.threads.list[me.0];
        thread.calls += 1;
        if thread.calls > MOST_CALLS {
            let why = format!("thread `{}` spins: {MOST_CALLS} calls without a wait", thread.name);
            state.fail(why);
            return self.end_here(state);
        }
        if state.calls > CALLS_AT_ONE_TIME {
            // It has taken its time by now, in which something else may have happened.
            let time = state.now + Duration::from_millis(1);
            let next = state.agenda.next_time().map_or(time, |next| next.min(time));
            state.move_clock(next);
            return self.let_others_run(state, me);
        }
        if state.weather.limits.pauses && state.is_preempted() {
            let pause = state.random.duration(&(Duration::ZERO..=LONGEST_PAUSE));
            let end = state.now + pause;
            return self.block::<()>(state, None, COMPUTES, Some(end), |_| None).0;
        }
        self.may_let_others_run(state, me)
    }

    /// Lets others run, if the seed will have it, where a thread makes what is no call: it takes a lock.
    pub(super) fn preempt(&self) {
        if let Some(me) = self.me() {
            let state = self.state();
            if !state.is_ending() {
                drop(self.may_let_others_run(state, me));
            }
        }
    }

    fn may_let_others_run<'a>(&'a self, mut state: Guard<'a>, me: ThreadId) -> Guard<'a> {
        if !state.threads.runnable.is_empty() && state.is_preempted() {
            return self.let_others_run(state, me);
        }
        state
    }

    /// Begins a call after the end of the world: a thread goes on until it has to wait, so that others which
    /// wait for its end see an orderly one.
    fn enter_late<'a>(&'a self, mut state: Guard<'a>, me: ThreadId) -> Guard<'a> {
        let seed = state.seed;
        let thread = &mut state.threads.list[me.0];
        thread.late_calls += 1;
        if thread.late_calls > MOST_CALLS {
            // It is in a destructor, or catches what it is ended with.
            let why = "makes calls without an end, although its world has ended";
            eprintln!("pollio: seed {seed}: thread `{}` {why}", thread.name);
            process::abort();
        }
        if thread.late_calls > MOST_LATE_CALLS && !thread::panicking() {
            return self.end_here(state);
        }
        state
    }

    fn let_others_run<'a>(&'a self, mut state: Guard<'a>, me: ThreadId) -> Guard<'a> {
        state.threads.runnable.push(me);
        self.switch(state, me)
    }

    /// Ends the thread that calls this. It goes on if it is unwinding already: then nothing may block.
    fn end_here<'a>(&'a self, state: Guard<'a>) -> Guard<'a> {
        drop(state);
        if !thread::panicking() {
            panic::resume_unwind(Box::new(Ended));
        }
        self.state()
    }

    /// Blocks the thread that calls this until `attempt` succeeds, or `deadline` is over: then none.
    ///
    /// Each time that something happens to `file`, it is tried again.
    pub(super) fn block<'a, T>(
        &'a self,
        mut state: Guard<'a>,
        file: Option<FileId>,
        what: &'static str,
        deadline: Option<Duration>,
        mut attempt: impl FnMut(&mut State) -> Option<T>,
    ) -> (Guard<'a>, Option<T>) {
        let mut is_in_vain = false;
        loop {
            let success = attempt(&mut state);
            if success.is_some() || deadline.is_some_and(|deadline| deadline <= state.now) {
                return (state, success);
            }
            let Some(me) = self.me() else {
                drop(state);
                panic!(
                    "only a thread of this world can wait here: no plan, and nothing in a `static`"
                );
            };
            let is_ending = state.is_ending();
            if is_ending && what == COMPUTES {
                return (state, None);
            }
            if is_ending && is_in_vain {
                return (self.end_here(state), None);
            }
            state.begin_wait(me, file, what, deadline.filter(|_| !is_ending));
            state.threads.list[me.0].gives_way = is_ending && thread::panicking();
            state = self.switch(state, me);
            state.threads.list[me.0].gives_way = false;
            // The end of the world has reached it: nothing has happened to what it waits for.
            is_in_vain = state.end_wait(me);
        }
    }

    /// Lets others run, until it is this thread's turn again.
    fn switch<'a>(&'a self, state: Guard<'a>, me: ThreadId) -> Guard<'a> {
        let (mut state, next) = self.next_thread(state);
        state.threads.running = next;
        state.threads.steps += 1;
        if next == me {
            return state;
        }
        let theirs = state.threads.list[next.0].baton.clone();
        let mine = state.threads.list[me.0].baton.clone();
        drop(state);
        theirs.pass();
        mine.take();
        let mut state = self.state();
        if state.trace.is_kept() {
            state.trace.thread = state.threads.list[me.0].name.clone();
        }
        state
    }

    /// Who runs next; the clock moves if nobody can now.
    fn next_thread<'a>(&'a self, mut state: Guard<'a>) -> (Guard<'a>, ThreadId) {
        loop {
            if state.is_ending() {
                let next = state.threads.runnable.pop();
                let next = next.unwrap_or_else(|| state.threads.next_to_end());
                return (state, next);
            }
            let result;
            (state, result) = self.let_happen(state);
            if let Err(why) = result {
                state.fail(why);
            }
            if state.is_ending() {
                continue;
            }
            let State { threads, random, .. } = &mut *state;
            match threads.runnable.len() {
                0 => {}
                count => {
                    let index = if count == 1 { 0 } else { random.index(count) };
                    let next = threads.runnable.swap_remove(index);
                    return (state, next);
                }
            }
            match state.agenda.next_time() {
                Some(time) => state.move_clock(time),
                None => {
                    let why = state.deadlock();
                    state.fail(why);
                }
            }
        }
    }

    /// Has everything happen whose time has come, and returns how much that was.
    pub(super) fn let_happen<'a>(
        &'a self,
        mut state: Guard<'a>,
    ) -> (Guard<'a>, Result<usize, String>) {
        let (mut happened, mut chain, mut newest) = (0, 0, state.agenda.made());
        loop {
            let now = state.now;
            let Some((number, action)) = state.agenda.take_due(now) else {
                return (state, Ok(happened));
            };
            if number > newest {
                chain += 1;
                newest = state.agenda.made();
            }
            happened += 1;
            match action {
                Action::Plan(plan) => {
                    // A plan scripts, which locks.
                    drop(state);
                    self.run_plan(plan);
                    state = self.state();
                }
                Action::Wake(thread) => state.make_runnable(thread),
                Action::Timer(file) => state.timer_expires(file),
                Action::Delivery(delivery) => state.deliver(delivery),
                Action::Patience(file, since) => {
                    if let Some(why) = state.forgotten(file, since) {
                        state.fail(why);
                        return (state, Ok(happened));
                    }
                }
            }
            if chain > LONGEST_CHAIN {
                let why = format!("{chain} plans made each other after no time");
                return (state, Err(why));
            }
        }
    }

    /// How many steps were made, and by whom the last one.
    pub(super) fn progress(&self) -> (u64, String) {
        let state = self.state();
        let running = state.threads.list.get(state.threads.running.0);
        let name = running.map(|thread| thread.name.clone()).unwrap_or_default();
        (state.threads.steps, name)
    }

    /// Who waits for what: a line for each thread.
    pub(super) fn waits(&self) -> String {
        self.state().waits()
    }

    fn run_plan(&self, plan: Box<dyn FnOnce(&Self) + Send>) {
        if self.me().is_none() && !self.state().has_threads() {
            return plan(self);
        }
        // It happens while a thread waits, and is no call of that thread.
        let before = CURRENT.replace(Some((self.clone(), None)));
        let outcome = panic::catch_unwind(AssertUnwindSafe(|| plan(self)));
        CURRENT.set(before);
        if let Err(payload) = outcome {
            self.state().fail(format!("a plan panicked: {}", message(&*payload)));
        }
    }

    /// Starts a thread: see [`spawn`](Self::spawn).
    pub(super) fn start<T: Send + 'static>(
        &self,
        name: &str,
        body: impl FnOnce() -> T + Send + 'static,
    ) -> (FileId, Arc<Mutex<Option<T>>>) {
        let mut state = self.state();
        let exit = state.files.add(Kind::Gate);
        let result = Arc::new(Mutex::new(None));
        let id = ThreadId(state.threads.list.len());
        let (world, place) = (self.clone(), result.clone());
        let job: Job = Box::new(move || {
            CURRENT.set(Some((world.clone(), Some(id))));
            let outcome = panic::catch_unwind(AssertUnwindSafe(|| {
                let mut state = world.state();
                let is_ending = state.is_ending();
                if state.trace.is_kept() {
                    state.trace.thread = state.threads.list[id.0].name.clone();
                }
                drop(state);
                // Dropped inside as well: they may hold sockets.
                if is_ending {
                    drop(body)
                } else {
                    keep(&place, body())
                }
                drop(place);
            }));
            CURRENT.set(None);
            world.end_of_thread(id, outcome);
        });
        let worker = self.pool().employ(job);
        let name = name.to_owned();
        let baton = worker.baton.clone();
        let parent = state.threads.running;
        state.threads.list.push(Thread::new(name, parent, baton, exit));
        state.threads.workers.push(worker);
        state.threads.runnable.push(id);
        (exit, result)
    }

    fn end_of_thread(&self, id: ThreadId, outcome: thread::Result<()>) {
        let mut state = self.state();
        state.threads.list[id.0].is_done = true;
        let exit = state.threads.list[id.0].exit;
        if let Err(payload) = outcome {
            if !payload.is::<Ended>() {
                let name = &state.threads.list[id.0].name;
                let why = format!("thread `{name}` panicked: {}", message(&*payload));
                state.fail(why);
            }
        }
        state.notify(exit, ALL);
        let (mut state, next) = self.next_thread(state);
        state.threads.running = next;
        let theirs = state.threads.list[next.0].baton.clone();
        drop(state);
        theirs.pass();
    }

    /// Runs `body` as the main thread of this world, and then ends all others.
    pub(super) fn run_body<E: std::fmt::Display>(&self, body: impl FnOnce() -> Result<(), E>) {
        let before = CURRENT.replace(Some((self.clone(), Some(MAIN))));
        {
            let mut state = self.state();
            let exit = state.files.add(Kind::Gate);
            let (name, baton) = ("main".to_owned(), Baton::of_this_thread());
            state.trace.thread.clone_from(&name);
            state.threads.list.push(Thread::new(name, MAIN, baton, exit));
        }
        let outcome = panic::catch_unwind(AssertUnwindSafe(body));
        let mut state = self.state();
        match outcome {
            Ok(Ok(())) => {}
            Ok(Err(error)) => state.fail(format!("it returned an error: {error}")),
            Err(payload) if payload.is::<Ended>() => {}
            Err(payload) => state.fail(format!("it panicked: {}", message(&*payload))),
        }
        state.end();
        state.threads.list[MAIN.0].is_done = true;
        let mut state = self.switch(state, MAIN);
        let workers = std::mem::take(&mut state.threads.workers);
        drop(state);
        workers.into_iter().for_each(|worker| self.pool().release(worker));
        CURRENT.set(before);
    }
}

fn keep<T>(place: &Mutex<Option<T>>, value: T) {
    *place.lock().unwrap_or_else(PoisonError::into_inner) = Some(value);
}

/// What a panic said.
pub(super) fn message(payload: &(dyn Any + Send)) -> String {
    let text = payload.downcast_ref::<&str>().copied();
    let text = text.or_else(|| payload.downcast_ref::<String>().map(String::as_str));
    text.unwrap_or("with something that is no text").to_owned()
}

impl Threads {
    /// The last one first, since it may need those from before; but a thread before those that it has
    /// started, as it may wait for their end. Those that give way come last, and then the main one goes on.
    /// Who only computes goes on before anybody ends.
    fn next_to_end(&self) -> ThreadId {
        let computes = |thread: &Thread| thread.wait.as_ref().is_some_and(|w| w.what == COMPUTES);
        if let Some(index) = self.list.iter().position(computes) {
            return ThreadId(index);
        }
        let has_ended = |id: ThreadId| self.list[id.0].is_done || self.list[id.0].gives_way;
        let is_next = |id: &ThreadId| {
            let parent = self.list[id.0].parent;
            !has_ended(*id) && (parent == MAIN || has_ended(parent))
        };
        let others = || (1..self.list.len()).rev().map(ThreadId);
        let next = others().find(is_next).or_else(|| Some(MAIN).filter(|main| !has_ended(*main)));
        next.or_else(|| others().find(|id| !self.list[id.0].is_done)).unwrap_or(MAIN)
    }
}

impl State {
    pub(super) fn has_threads(&self) -> bool {
        !self.threads.list.is_empty()
    }

    /// Lets the thread go on that a file has blocked for longest. Returns whether there is one.
    pub(super) fn wake_one(&mut self, file: FileId) -> bool {
        let file = self.files.get(file);
        let Some(&first) = file.and_then(|file| file.waiters.first()) else { return false };
        self.make_runnable(first);
        true
    }

    /// Lets a thread go on that waits.
    pub(super) fn make_runnable(&mut self, id: ThreadId) {
        if self.end_wait(id) {
            self.threads.runnable.push(id);
        }
    }

    /// Forgets what a thread waits for. Returns whether there was anything.
    fn end_wait(&mut self, id: ThreadId) -> bool {
        let Some(wait) = self.threads.list[id.0].wait.take() else { return false };
        if let Some(when) = wait.timeout {
            self.agenda.remove(when);
        }
        if let Some(file) = wait.file.and_then(|file| self.files.get_mut(file)) {
            file.waiters.retain(|waiter| *waiter != id);
        }
        true
    }

    fn begin_wait(
        &mut self,
        me: ThreadId,
        file: Option<FileId>,
        what: &'static str,
        deadline: Option<Duration>,
    ) {
        let timeout = deadline.map(|time| self.agenda.add(time, Action::Wake(me)));
        let thread = &mut self.threads.list[me.0];
        thread.wait = Some(Wait { file, what, timeout });
        if what != COMPUTES {
            thread.calls = 0;
        }
        if let Some(file) = file.and_then(|file| self.files.get_mut(file)) {
            file.waiters.push(me);
        }
    }

    fn move_clock(&mut self, time: Duration) {
        self.now = self.now.max(time);
        self.calls = 0;
    }

    /// Who waits for what.
    fn deadlock(&self) -> String {
        let waits = self.waits();
        format!("deadlock: every thread waits, and nothing will ever happen{waits}")
    }

    fn waits(&self) -> String {
        let mut text = String::new();
        for thread in self.threads.list.iter().filter(|thread| !thread.is_done) {
            let Some(wait) = &thread.wait else { continue };
            let file = wait.file.map(|file| self.describe(file)).unwrap_or_default();
            text += &format!("\n  {}: {} {file}", thread.name, wait.what);
        }
        text
    }
}
