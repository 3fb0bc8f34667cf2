//! The threads of a world: those that could run, and those that wait, with their reasons.

use std::mem;
use std::sync::Arc;
use std::time::Duration;

use super::agenda::When;
use super::baton::Baton;

#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(crate) struct ThreadId(usize);

/// The one in which the body of the world runs.
pub(crate) const MAIN: ThreadId = ThreadId(0);

/// Threads that wait for the same thing, the longest first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct QueueId(usize);

/// The reason why a thread waits.
#[derive(Clone, Copy)]
pub(crate) enum Reason {
    /// Nothing: it computes, or another process has its core.
    Computes,
    /// Its timeout only.
    Sleeps,
    /// The token of this thread.
    Parked,
    /// A file, in this call.
    File(&'static str, QueueId),
    /// An action of another thread, in words.
    Thread(&'static str, QueueId),
    /// The end of a thread of a scope, which it outlives in any case: also after the end of the world.
    Scope(QueueId),
}

impl Reason {
    const fn queue(self) -> Option<QueueId> {
        match self {
            Self::Computes | Self::Sleeps | Self::Parked => None,
            Self::File(_, queue) | Self::Thread(_, queue) | Self::Scope(queue) => Some(queue),
        }
    }
}

struct Wait {
    reason: Reason,
    timeout: Option<When>,
}

/// The name of a thread that has none, in reports.
const NAME: &str = "thread";

struct Thread {
    name: Option<String>,
    /// The thread that started it; the main one itself.
    parent: ThreadId,
    baton: Arc<Baton>,
    is_done: bool,
    /// The number of its calls since it was last blocked.
    calls: u32,
    /// The number of its calls since its world has ended.
    late_calls: u32,
    /// It was unparked, and has not parked since.
    has_token: bool,
    /// It waits while it unwinds: others end first.
    gives_way: bool,
    wait: Option<Wait>,
    /// The threads that join it.
    joiners: QueueId,
}

impl Thread {
    fn name(&self) -> &str {
        self.name.as_deref().unwrap_or(NAME)
    }

    fn is_in_scope(&self) -> bool {
        matches!(self.wait, Some(Wait { reason: Reason::Scope(_), .. }))
    }

    /// As the world ends, others need not wait for it.
    fn has_ended(&self) -> bool {
        self.is_done || self.gives_way || self.is_in_scope()
    }
}

#[derive(Default)]
pub(super) struct Threads {
    list: Vec<Thread>,
    /// The threads that could run and do not.
    runnable: Vec<ThreadId>,
    queues: Vec<Vec<ThreadId>>,
    running: ThreadId,
    /// The number of times that a thread was chosen or made a call, for the watchdog.
    steps: u64,
}

impl Threads {
    pub(super) fn next_id(&self) -> ThreadId {
        ThreadId(self.list.len())
    }

    pub(super) fn add(&mut self, name: Option<String>, baton: Arc<Baton>) -> QueueId {
        let joiners = self.add_queue();
        self.list.push(Thread {
            name,
            parent: self.running,
            baton,
            is_done: false,
            calls: 0,
            late_calls: 0,
            has_token: false,
            gives_way: false,
            wait: None,
            joiners,
        });
        joiners
    }

    pub(super) fn add_queue(&mut self) -> QueueId {
        self.queues.push(Vec::new());
        QueueId(self.queues.len() - 1)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.list.is_empty()
    }

    pub(super) fn set_running(&mut self, id: ThreadId) {
        self.running = id;
        self.steps += 1;
    }

    pub(super) const fn steps(&self) -> u64 {
        self.steps
    }

    /// Empty where none runs.
    pub(super) fn name_of_running(&self) -> &str {
        self.list.get(self.running.0).map_or("", Thread::name)
    }

    pub(super) fn name(&self, id: ThreadId) -> &str {
        self.list[id.0].name()
    }

    /// None if the program has given it none.
    pub(super) fn own_name(&self, id: ThreadId) -> Option<&str> {
        self.list[id.0].name.as_deref()
    }

    pub(super) fn baton(&self, id: ThreadId) -> Arc<Baton> {
        self.list[id.0].baton.clone()
    }

    /// Counts a call of a thread. Returns how many it has made since it was last blocked.
    pub(super) fn count_call(&mut self, id: ThreadId) -> u32 {
        self.steps += 1;
        let thread = &mut self.list[id.0];
        thread.calls += 1;
        thread.calls
    }

    /// Counts a call after the end of the world. Returns how many the thread has made since then.
    pub(super) fn count_late_call(&mut self, id: ThreadId) -> u32 {
        let thread = &mut self.list[id.0];
        thread.late_calls += 1;
        thread.late_calls
    }

    pub(super) fn runnable_count(&self) -> usize {
        self.runnable.len()
    }

    pub(super) fn add_runnable(&mut self, id: ThreadId) {
        self.runnable.push(id);
    }

    pub(super) fn take_runnable(&mut self, index: usize) -> ThreadId {
        self.runnable.swap_remove(index)
    }

    pub(super) fn begin_wait(&mut self, id: ThreadId, reason: Reason, timeout: Option<When>) {
        let thread = &mut self.list[id.0];
        thread.wait = Some(Wait { reason, timeout });
        if !matches!(reason, Reason::Computes) {
            thread.calls = 0;
        }
        if let Some(queue) = reason.queue() {
            self.queues[queue.0].push(id);
        }
    }

    /// Ends the wait of a thread. Returns whether it waited, and its timeout.
    pub(super) fn end_wait(&mut self, id: ThreadId) -> Option<Option<When>> {
        let Wait { reason, timeout } = self.list[id.0].wait.take()?;
        if let Some(queue) = reason.queue() {
            self.queues[queue.0].retain(|waiter| *waiter != id);
        }
        Some(timeout)
    }

    /// The thread that has waited longest.
    pub(super) fn first(&self, queue: QueueId) -> Option<ThreadId> {
        self.queues[queue.0].first().copied()
    }

    /// The waiting threads, with their reasons.
    pub(super) fn waits(&self) -> impl Iterator<Item = (&str, Reason)> {
        let waiting = self.list.iter().filter(|thread| !thread.is_done);
        waiting.filter_map(|thread| Some((thread.name(), thread.wait.as_ref()?.reason)))
    }

    /// Notes that a thread was unparked. Returns whether it is parked.
    pub(super) fn add_token(&mut self, id: ThreadId) -> bool {
        let thread = &mut self.list[id.0];
        thread.has_token = true;
        matches!(thread.wait, Some(Wait { reason: Reason::Parked, .. }))
    }

    /// Returns whether there was one.
    pub(super) fn take_token(&mut self, id: ThreadId) -> bool {
        mem::take(&mut self.list[id.0].has_token)
    }

    /// The queue of those that join a thread. None if it has ended.
    pub(super) fn joiners(&self, id: ThreadId) -> Option<QueueId> {
        let thread = &self.list[id.0];
        (!thread.is_done).then_some(thread.joiners)
    }

    /// Notes the end of a thread. Returns the queue of those that join it.
    pub(super) fn set_done(&mut self, id: ThreadId) -> QueueId {
        let thread = &mut self.list[id.0];
        thread.is_done = true;
        thread.joiners
    }

    pub(super) fn set_gives_way(&mut self, id: ThreadId, gives_way: bool) {
        self.list[id.0].gives_way = gives_way;
    }

    /// The next one to run after the end of the world: one that could run, the last one first.
    ///
    /// Then those that wait end: the last one first, since it may need those from before; but a thread before
    /// those that it has started, as it may wait for their end. Those that give way come last, and then the main
    /// one goes on. One that only computes goes on before any of them.
    ///
    /// One that waits at the end of a scope is never chosen. The threads of its scope were started after it, so the
    /// last one that has not ended waits for something else, and is.
    pub(super) fn next_to_end(&mut self) -> ThreadId {
        if let Some(id) = self.runnable.pop() {
            return id;
        }
        let computes =
            |thread: &Thread| matches!(thread.wait, Some(Wait { reason: Reason::Computes, .. }));
        if let Some(index) = self.list.iter().position(computes) {
            return ThreadId(index);
        }
        let has_ended = |id: ThreadId| self.list[id.0].has_ended();
        let is_next = |id: &ThreadId| {
            let parent = self.list[id.0].parent;
            !has_ended(*id) && (parent == MAIN || has_ended(parent))
        };
        let others = || (1..self.list.len()).rev().map(ThreadId);
        let next = others().find(is_next).or_else(|| Some(MAIN).filter(|main| !has_ended(*main)));
        let gives_up = |id: &ThreadId| {
            let thread = &self.list[id.0];
            !thread.is_done && !thread.is_in_scope()
        };
        next.or_else(|| others().find(gives_up)).unwrap_or(MAIN)
    }
}

/// How long a thread is kept from going on between two calls.
pub(super) const MAX_PAUSE: Duration = Duration::from_millis(10);
