//! Which wakers were woken, and whether the kernel has to wake a sleeping thread: the same for every kernel.

use std::fmt;
use std::io;
use std::panic::{RefUnwindSafe, UnwindSafe};
use std::sync::Arc;
use std::sync::PoisonError;
use std::sync::atomic::Ordering::{self, AcqRel, Acquire, Relaxed, Release, SeqCst};
use std::time::Duration;

use crate::Backend;
use crate::chunks::Chunks;
use crate::sys::{AtomicBool, AtomicU32, Mutex, fence_for_loom};

/// The wakers of a poller, shared by its handles, its registries and the wakers themselves.
///
/// A wake calls the kernel only if a thread sleeps. Wake and wait do not miss each other, because each announces itself
/// before it looks at the other: a wake puts its slot on a list, then looks for sleepers; a wait counts itself as a
/// sleeper, then looks at the lists. All threads see one order of the four (`SeqCst`), so at least one side sees the
/// other.
pub(crate) struct Wakers {
    backend: Arc<dyn Backend>,
    /// The slot that was woken last: the head of a list through `Slot::next`.
    woken: AtomicU32,
    /// The slots that a wait took off `woken` and had no room for: a list with the oldest at its head.
    left: AtomicU32,
    /// How many threads block in the kernel, or are about to.
    sleepers: AtomicU32,
    /// A waker was created, or a second handle: waits count themselves as sleepers.
    is_used: AtomicBool,
    /// The poller's descriptor was handed out: other code may wait until it is readable.
    is_watched: AtomicBool,
    slots: Chunks<Slot>,
    /// A slot without a waker: the head of a list through `Slot::next`.
    free: AtomicU32,
    /// Locked while a waker is created.
    creation: Mutex<Creation>,
}

/// What the next waker needs to be created.
struct Creation {
    /// How many slots ever had a waker.
    slots: u32,
    /// The backend can wake: it has done so once.
    can_wake: bool,
}

/// A place for one waker.
struct Slot {
    /// The bits [`WOKEN`] and [`DROPPED`].
    state: AtomicU32,
    token: AtomicU32,
    next: AtomicU32,
    /// It belongs to a channel that has its receiver: each wait returns its event until the receiver has found the
    /// queue empty.
    is_channel: AtomicBool,
    /// The channel's event was returned, and the receiver has not found the queue empty since.
    is_unfinished: AtomicBool,
}

/// The slot is on a list of woken slots, or about to be.
const WOKEN: u32 = 1;
/// The waker was dropped. Its slot becomes free when it leaves the list of woken slots.
const DROPPED: u32 = 2;

/// The end of a list.
const NONE: u32 = u32::MAX;

impl Wakers {
    pub(crate) fn new(backend: Arc<dyn Backend>) -> Self {
        Self {
            backend,
            woken: AtomicU32::new(NONE),
            left: AtomicU32::new(NONE),
            sleepers: AtomicU32::new(0),
            is_used: AtomicBool::new(false),
            is_watched: AtomicBool::new(false),
            slots: Chunks::new(),
            free: AtomicU32::new(NONE),
            creation: Mutex::new(Creation { slots: 0, can_wake: false }),
        }
    }

    /// Creates a waker, and returns its slot.
    pub(crate) fn create(&self, token: u32, is_channel: bool) -> io::Result<u32> {
        let mut creation = self.creation.lock().unwrap_or_else(PoisonError::into_inner);
        let index = match self.pop_free() {
            Some(index) => index,
            None => {
                let index = creation.slots;
                self.slots.reserve(index as usize, Slot::new)?;
                creation.slots += 1;
                index
            }
        };
        if !creation.can_wake {
            self.is_used.store(true, SeqCst);
            // The first call prepares the kernel. It also ends a wait that began before, which is not counted as a
            // sleeper.
            if let Err(error) = self.backend.wake() {
                self.push(&self.free, index, index);
                return Err(error);
            }
            creation.can_wake = true;
        }
        let slot = self.slot(index);
        slot.token.store(token, Relaxed);
        slot.is_channel.store(is_channel, Relaxed);
        slot.is_unfinished.store(false, Relaxed);
        slot.state.store(0, Release);
        Ok(index)
    }

    /// Frees the slot of a waker whose last handle is dropped. A wake before that is still reported.
    pub(crate) fn retire(&self, index: u32) {
        if self.slot(index).state.fetch_or(DROPPED, AcqRel) & WOKEN == 0 {
            self.push(&self.free, index, index);
        }
    }

    /// Wakes a waker.
    pub(crate) fn wake(&self, index: u32) -> io::Result<()> {
        // A swap also if it was already woken, so that the thread which takes the wake sees what this thread wrote. It
        // overwrites no other bit: a waker that wakes is not dropped.
        if self.slot(index).state.swap(WOKEN, AcqRel) == WOKEN {
            return Ok(());
        }
        self.list(index)
    }

    /// Notes that the receiver of a channel found its queue empty.
    pub(crate) fn finish(&self, index: u32) {
        self.slot(index).is_unfinished.store(false, Relaxed);
    }

    /// Notes that the receiver of a channel is dropped, so that its event is not repeated. A wake before that is still
    /// reported.
    pub(crate) fn close(&self, index: u32) {
        self.slot(index).is_channel.store(false, Relaxed);
    }

    /// Wakes a channel again whose event was returned, unless its receiver has found the queue empty since.
    fn wake_if_unfinished(&self, index: u32) {
        let slot = self.slot(index);
        // Only if its receiver is there. If the slot has another waker by now, it is not unfinished; if it gets one at
        // this moment, at worst that waker is woken without need.
        if slot.is_channel.load(Relaxed)
            && slot.is_unfinished.load(Relaxed)
            && slot.state.compare_exchange(0, WOKEN, AcqRel, Relaxed).is_ok()
        {
            let _ = self.list(index);
        }
    }

    /// Puts a slot on the list of woken slots.
    fn list(&self, index: u32) -> io::Result<()> {
        let is_first = self.push(&self.woken, index, index);
        // Only the first calls the kernel: while the list is not empty, no thread goes to sleep.
        if is_first { self.kick() } else { Ok(()) }
    }

    fn is_woken(&self, order: Ordering) -> bool {
        self.woken.load(order) != NONE || self.left.load(order) != NONE
    }

    /// Calls the kernel if a thread sleeps, or if other code watches the poller.
    fn kick(&self) -> io::Result<()> {
        fence_for_loom();
        if self.sleepers.load(SeqCst) == 0 && !self.is_watched.load(SeqCst) {
            return Ok(());
        }
        self.backend.wake()
    }

    fn slot(&self, index: u32) -> &Slot {
        self.slots.get(index as usize).expect("a waker has a slot")
    }

    /// Puts the linked slots from `head` to `tail` in front of a list. Returns whether the list was empty.
    fn push(&self, list: &AtomicU32, head: u32, tail: u32) -> bool {
        let mut next = list.load(Relaxed);
        loop {
            self.slot(tail).next.store(next, Relaxed);
            match list.compare_exchange_weak(next, head, SeqCst, Relaxed) {
                Ok(_) => return next == NONE,
                Err(now) => next = now,
            }
        }
    }

    /// Takes a free slot. Call it only while `creation` is locked: two threads at once could take one slot twice.
    fn pop_free(&self) -> Option<u32> {
        let mut index = self.free.load(Acquire);
        while index != NONE {
            let next = self.slot(index).next.load(Relaxed);
            match self.free.compare_exchange_weak(index, next, AcqRel, Acquire) {
                Ok(_) => return Some(index),
                Err(now) => index = now,
            }
        }
        None
    }

    /// The last slot of a list that no other thread has.
    fn last(&self, mut index: u32) -> u32 {
        loop {
            match self.slot(index).next.load(Relaxed) {
                NONE => return index,
                next => index = next,
            }
        }
    }

    /// Reverses a list that no other thread has, and returns its new head.
    fn reversed(&self, mut index: u32) -> u32 {
        let mut head = NONE;
        while index != NONE {
            let next = self.slot(index).next.load(Relaxed);
            self.slot(index).next.store(head, Relaxed);
            (head, index) = (index, next);
        }
        head
    }
}

/// The wakers' part in the waits of a backend of your own. Each handle on the poller has its own, from
/// [`Registry::wakeups`](crate::Registry::wakeups).
///
/// A wait blocks within [`block`](Self::block), then takes the wakers that were woken, with [`take`](Self::take). A
/// [`wake`](crate::Waker::wake) calls [`Backend::wake`] only if a thread is blocked there.
///
/// ```
/// # use std::time::Duration;
/// # use pollio::{Event, Wakeups};
/// # struct Stack;
/// # impl Stack {
/// #     fn wait(&self, _: Option<Duration>, _: &mut Vec<Event>) {}
/// # }
/// fn wait<'a>(
///     stack: &Stack,
///     wakeups: &mut Wakeups,
///     events: &'a mut Vec<Event>,
///     timeout: Option<Duration>,
/// ) -> &'a [Event] {
///     events.clear();
///     // Zero, if a waker was already woken.
///     wakeups.block(timeout, |timeout| stack.wait(timeout, events));
///     wakeups.take(usize::MAX, |token| events.push(Event::wake(-1, token)));
///     events
/// }
/// ```
pub struct Wakeups {
    wakers: Arc<Wakers>,
    /// The channels whose events the last `take` returned.
    channels: Vec<u32>,
}

impl Wakeups {
    pub(crate) fn new(wakers: Arc<Wakers>) -> Self {
        Self { wakers, channels: Vec::new() }
    }

    /// Calls `block`, with the timeout that it may block for: `timeout`, or zero if a waker was already woken. During
    /// the call, a wake calls [`Backend::wake`].
    ///
    /// If `block` ends without an event, and `take` returns no waker, call both again with the remaining time: it may
    /// have been woken up without need.
    pub fn block<T>(
        &mut self,
        timeout: Option<Duration>,
        block: impl FnOnce(Option<Duration>) -> T,
    ) -> T {
        self.wake_unfinished();
        let wakers = &*self.wakers;
        if timeout == Some(Duration::ZERO) {
            return block(timeout);
        }
        wakers.sleepers.fetch_add(1, SeqCst);
        // Also if `block` unwinds, as a simulation's may.
        let _awake = OnDrop(|| {
            wakers.sleepers.fetch_sub(1, Relaxed);
        });
        fence_for_loom();
        block(if wakers.is_woken(SeqCst) { Some(Duration::ZERO) } else { timeout })
    }

    /// Takes up to `room` wakers that were woken, the first ones first, and reports the token of each. The others are
    /// left to the next call, of any handle.
    ///
    /// If the wait polls once more after that, the poll may take the wake-up of a sleeping thread. Then call this with
    /// a room of zero, which passes the wake-up on.
    pub fn take(&mut self, room: usize, mut report: impl FnMut(u32)) {
        if !self.is_woken() && self.channels.is_empty() {
            return;
        }
        let mut taken = Taken { wakeups: self, rest: NONE };
        if room > 0 {
            taken.rest = taken.wakers().left.swap(NONE, AcqRel);
            // Only one of the lists: a waker that is woken again during this call would be reported twice.
            if taken.rest == NONE {
                let woken = taken.wakers().woken.swap(NONE, AcqRel);
                taken.rest = taken.wakers().reversed(woken);
            }
        }
        for _ in 0..room {
            match taken.next() {
                Some(token) => report(token),
                None => break,
            }
        }
    }

    /// Wakes the channels whose events the last `take` returned, unless they were emptied.
    fn wake_unfinished(&mut self) {
        let wakers = &*self.wakers;
        self.channels.drain(..).for_each(|index| wakers.wake_if_unfinished(index));
    }

    /// Whether the next wait returns a wake.
    #[inline]
    #[must_use]
    pub fn is_woken(&self) -> bool {
        self.wakers.is_woken(Relaxed)
    }

    /// From now on, a wake calls [`Backend::wake`] also if no thread sleeps, because other code watches the poller and
    /// must find it ready. If a waker was already woken, [`Backend::wake`] is called now.
    pub fn watch(&self) {
        if self.wakers.is_watched.load(Relaxed) {
            return;
        }
        self.wakers.is_watched.store(true, SeqCst);
        fence_for_loom();
        if self.wakers.is_woken(SeqCst) || !self.channels.is_empty() {
            let _ = self.wakers.kick();
        }
    }

    /// Whether waits must use [`block`](Self::block) and [`take`](Self::take), which cost two atomic operations. They
    /// must once a waker was created, or [`share`](Self::share) was called; a [`Backend::wake`] ends a wait that began
    /// before.
    #[inline]
    #[must_use]
    pub fn is_used(&self) -> bool {
        self.wakers.is_used.load(Relaxed)
    }

    /// Call it before you create a second handle on the poller, so that [`is_used`](Self::is_used) holds for the waits
    /// of both. (The creation of a waker ends the wait of only one.)
    pub fn share(&self) {
        self.wakers.is_used.store(true, SeqCst);
    }
}

/// The list of wakers that a `take` works through. Its drop leaves the rest to the next `take`, also after a panic.
struct Taken<'a> {
    wakeups: &'a mut Wakeups,
    rest: u32,
}

impl Taken<'_> {
    fn wakers(&self) -> &Wakers {
        &self.wakeups.wakers
    }

    /// Takes the first waker off the list, and returns its token.
    fn next(&mut self) -> Option<u32> {
        let index = self.rest;
        if index == NONE {
            return None;
        }
        let Wakeups { wakers, channels } = &mut *self.wakeups;
        let slot = wakers.slot(index);
        // Read before the slot can be woken again, or get another waker.
        let token = slot.token.load(Relaxed);
        self.rest = slot.next.load(Relaxed);
        if slot.is_channel.load(Relaxed) {
            slot.is_unfinished.store(true, Relaxed);
            channels.push(index);
        }
        // From here on, this thread sees what other threads wrote before each wake so far.
        if slot.state.fetch_and(!WOKEN, AcqRel) & DROPPED != 0 {
            wakers.push(&wakers.free, index, index);
        }
        Some(token)
    }
}

impl Drop for Taken<'_> {
    fn drop(&mut self) {
        let (wakers, rest) = (self.wakers(), self.rest);
        if rest != NONE {
            let is_free = wakers.left.compare_exchange(NONE, rest, SeqCst, Relaxed).is_ok();
            if !is_free {
                // Another handle has left some as well.
                wakers.push(&wakers.left, rest, wakers.last(rest));
            }
        }
        // Passes the kernel's wake-up on: another thread may sleep. Code that watches the poller must find it readable
        // while a channel may have values.
        let has_channels = !self.wakeups.channels.is_empty();
        let is_watched_channel = has_channels && wakers.is_watched.load(Relaxed);
        if self.wakeups.is_woken() || is_watched_channel {
            let _ = wakers.kick();
        }
    }
}

// Each operation is atomic, so a panic between two of them leaves nothing half changed; see `Registry`.
impl UnwindSafe for Wakers {}
impl RefUnwindSafe for Wakers {}

impl Slot {
    fn new() -> Self {
        Self {
            state: AtomicU32::new(0),
            token: AtomicU32::new(0),
            next: AtomicU32::new(NONE),
            is_channel: AtomicBool::new(false),
            is_unfinished: AtomicBool::new(false),
        }
    }
}

impl Drop for Wakeups {
    fn drop(&mut self) {
        // Another handle returns the events of channels that this one has not emptied.
        self.wake_unfinished();
    }
}

impl fmt::Debug for Wakeups {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Wakeups").field("is_woken", &self.is_woken()).finish_non_exhaustive()
    }
}

/// Calls its closure when it is dropped.
struct OnDrop<F: FnMut()>(F);

impl<F: FnMut()> Drop for OnDrop<F> {
    fn drop(&mut self) {
        (self.0)();
    }
}
