//! What every wait does, whatever the kernel is.

use std::cell::Cell;
use std::fmt;
use std::hint;
use std::io;
use std::marker::PhantomData;
use std::mem;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd};
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use crate::selector::OsSelector;
use crate::spin::Spin;
use crate::wait::{Wait, wait_until};
use crate::{Backend, Event, EventKind, Poller, Readiness, Registry, Wakeups};

/// The poller of the operating system: over
/// [epoll(7)](https://man7.org/linux/man-pages/man7/epoll.7.html) on Linux and Android, over
/// [kqueue(2)](https://man.freebsd.org/cgi/man.cgi?query=kqueue) on Apple systems and the BSDs.
///
/// ```
/// use std::{net::TcpListener, os::fd::AsRawFd};
/// use pollio::{EventObject, OsPoller, Poller};
///
/// let listener = TcpListener::bind("127.0.0.1:0")?;
/// let mut poller = OsPoller::new()?;
/// let fd = listener.as_raw_fd();
/// poller.add(EventObject::server(fd))?;
/// // No client in 10 ms.
/// assert!(poller.wait(10)?.is_empty());
/// # Ok::<(), std::io::Error>(())
/// ```
///
/// You can move it to another thread, but only one thread at a time can wait on it: it is `Send`, not
/// `Sync`, so that a backend may keep state in it without atomics. Its [`registry`](Poller::registry) is
/// both, and [`try_clone`](Self::try_clone) creates another handle for another thread.
///
/// It is itself a descriptor, which is readable while one of those that it watches is ready. So you can
/// register it with another poller.
pub struct OsPoller {
    asking: Asking,
    /// How many events the last wait returned.
    returned: usize,
    registry: Registry,
    spin: Option<Spin>,
    /// ```
    /// # fn is_send<T: Send>() {}
    /// is_send::<pollio::OsPoller>();
    /// ```
    /// ```compile_fail,E0277
    /// # fn is_sync<T: Sync>() {}
    /// is_sync::<pollio::OsPoller>();
    /// ```
    not_sync: PhantomData<AssertUnwindSafe<Cell<()>>>,
}

/// How many events one wait takes at the most.
pub(crate) const MAX_CAPACITY: usize = 1 << 20;

/// Fills the buffer where no wait has written.
const NO_EVENT: Event = Event::new(-1, EventKind::Client, 0, Readiness::NONE);

/// What one call of the kernel found.
#[derive(Clone, Copy)]
pub(crate) struct Found {
    /// How many events. Zero: nothing was ready when the call ended. It may have ended early if the kernel cannot wait
    /// for so long.
    pub(crate) events: usize,
    /// The call also found something that is no event: a [`Backend::wake`], or an oddity of the kernel. It may have
    /// ended early.
    pub(crate) is_wake_up: bool,
}

/// The operations that differ between kernels.
pub(crate) trait Selector: AsFd + Sized {
    /// How many events the first wait of a poller from [`new`](crate::Poller::new) takes.
    const CAPACITY: usize;

    /// Creates the kernel's object, with room for no event.
    fn create() -> io::Result<Self>;

    /// Another selector on the same kernel object, with room for no event.
    fn share(&self) -> Self;

    /// The three verbs, which work from any thread and outlive the selector.
    fn backend(&self) -> Arc<dyn Backend>;

    /// Makes room for the kernel to write `capacity` events. That is never less than before.
    fn reserve(&mut self, capacity: usize) -> io::Result<()>;

    /// Calls the kernel once, for up to `events.len()` events: at least one, and no more than were reserved.
    ///
    /// `Interrupted` if a signal ended it: then the kernel has not looked for events.
    fn wait(&mut self, events: &mut [Event], timeout: Option<Duration>) -> io::Result<Found>;

    /// Whether the last wait used all the reserved room, so that more may be ready than it returned.
    fn is_full(&self) -> bool;
}

impl OsPoller {
    /// Creates a poller whose first wait takes up to `capacity` events.
    ///
    /// The buffer doubles whenever a wait has filled it, so this only saves the first of these steps, if
    /// you know your load. It never shrinks. An event takes 24 or 28 bytes on epoll, depending on the
    /// architecture, and up to 108 on kqueue. [`new`](Poller::new) begins with 128 events, on kqueue with
    /// 32.
    ///
    /// A capacity of 0 counts as 1. The most is 1,048,576: the buffer grows no further, and what else is
    /// ready is reported by the next wait. If a wait is to return fewer, call
    /// [`set_max_events`](Self::set_max_events).
    ///
    /// # Errors
    ///
    /// See [`Poller::new`]; and `OutOfMemory` if there is no memory for the buffer.
    pub fn with_capacity(capacity: usize) -> io::Result<Self> {
        let selector = OsSelector::create()?;
        let registry = Registry::new(selector.backend());
        Self::of(selector, registry, capacity.clamp(1, MAX_CAPACITY), MAX_CAPACITY)
    }

    /// Creates another handle on the same registrations, so that another thread can wait for them too:
    /// [clause C18](Poller#the-contract).
    ///
    /// It has a buffer of its own, with the capacity and the [bound](Self::set_max_events) that this one has
    /// now, and does not spin until you call [`set_spin`](Self::set_spin) on it. The registrations live until
    /// the last handle and the last [`Registry`] are dropped. The guide shows [several threads on one
    /// poller](crate::guide::threads#several-threads-on-one-poller).
    ///
    /// ```
    /// # use pollio::{EventObject, Interest, Mode, OsPoller, Poller};
    /// # use std::os::{fd::AsRawFd, unix::net::UnixStream};
    /// # let (stream, _peer) = UnixStream::pair()?;
    /// let mut poller = OsPoller::new()?;
    /// let mut other = poller.try_clone()?;
    /// let object = EventObject::client(stream.as_raw_fd())
    ///     .with_interest(Interest::WRITABLE)
    ///     .with_mode(Mode::Oneshot);
    /// poller.add(object)?;
    /// let thread = std::thread::spawn(move || {
    ///     other.wait(100).map(<[_]>::len)
    /// });
    /// // One of the two waits returns the event.
    /// let here = poller.wait(100)?.len();
    /// assert_eq!(here + thread.join().unwrap()?, 1);
    /// # Ok::<(), std::io::Error>(())
    /// ```
    ///
    /// # Errors
    ///
    /// `OutOfMemory` if there is no memory for the buffer.
    pub fn try_clone(&self) -> io::Result<Self> {
        let (selector, registry) = (self.asking.selector.share(), self.registry.clone());
        self.asking.wakeups.share();
        Self::of(selector, registry, self.asking.events.len(), self.asking.max_events)
    }

    fn of(
        selector: OsSelector,
        registry: Registry,
        capacity: usize,
        max_events: usize,
    ) -> io::Result<Self> {
        let wakeups = registry.wakeups();
        let mut asking = Asking {
            selector,
            events: Vec::new(),
            max_events,
            room: 0,
            wakeups,
            wakes_first: false,
        };
        asking.reserve(capacity)?;
        Ok(Self { asking, returned: 0, registry, spin: None, not_sync: PhantomData })
    }

    /// Lets each wait poll for up to `limit` before it blocks:
    /// [clause C17](Poller#the-contract). Zero turns it off, and is the default.
    ///
    /// An event that arrives in that time costs no sleep and no wake-up. These take tens of microseconds
    /// if the core falls idle in between. The guide says
    /// [when to spin](crate::guide::threads#when-to-spin), and for how long.
    ///
    /// Each call resets what the poller has learned: the next wait spins.
    pub fn set_spin(&mut self, limit: Duration) {
        self.spin = Spin::up_to(limit);
    }

    /// Bounds how many events each later wait returns, whatever the capacity is:
    /// [clause C9](Poller#the-contract). `usize::MAX` removes the bound, and is the default; 0 counts as 1.
    ///
    /// Use it where one thread should not take more than its share: in a [pool of
    /// threads](crate::guide::threads#several-threads-on-one-poller), or to return to other work after a few events.
    /// The kernel keeps the rest for the next wait. A buffer that is smaller grows up to the bound and no
    /// further; one that is larger keeps its size.
    ///
    /// On kqueue, a descriptor that becomes ready for two interests takes two of the `n` places, and is still
    /// one event. So a wait can return fewer than `n` events while more are ready; and a oneshot at the end can be
    /// reported with one of its interests (C4).
    ///
    /// ```
    /// # use std::{io::Write, os::{fd::AsRawFd, unix::net::UnixStream}};
    /// # use pollio::{EventObject, Mode, OsPoller, Poller};
    /// # let mut streams = Vec::new();
    /// let mut poller = OsPoller::new()?;
    /// poller.set_max_events(8);
    /// for _ in 0..20 {
    ///     let (stream, mut peer) = UnixStream::pair()?;
    ///     peer.write_all(b"hello")?;
    ///     let object = EventObject::client(stream.as_raw_fd());
    ///     poller.add(object.with_mode(Mode::Oneshot))?;
    /// #   streams.push((stream, peer));
    /// }
    /// for expected in [8, 8, 4, 0] {
    ///     assert_eq!(poller.wait(0)?.len(), expected);
    /// }
    /// # Ok::<(), std::io::Error>(())
    /// ```
    pub fn set_max_events(&mut self, n: usize) {
        self.asking.set_max_events(n.clamp(1, MAX_CAPACITY));
    }

    /// The slice that the last wait returned. It is empty before the first wait, and after one that failed.
    ///
    /// A wait borrows the poller for as long as you use its slice. Call this to look at it again after using
    /// the poller in between.
    #[must_use]
    pub fn events(&self) -> &[Event] {
        &self.asking.events[..self.returned]
    }
}

impl Poller for OsPoller {
    fn new() -> io::Result<Self> {
        Self::with_capacity(OsSelector::CAPACITY)
    }

    fn registry(&self) -> &Registry {
        &self.registry
    }

    fn wait_timeout(&mut self, timeout: Option<Duration>) -> io::Result<&[Event]> {
        self.asking.grow_if_full();
        self.returned = 0;
        self.returned = wait_until(timeout, &mut self.spin, &mut self.asking)?;
        Ok(self.events())
    }
}

/// The state for one call of the kernel. A wait consists of one or more.
struct Asking {
    selector: OsSelector,
    /// The buffer: as many events as the kernel can write.
    events: Vec<Event>,
    /// How many events a wait may return: from 1 to `MAX_CAPACITY`. The buffer may have fewer.
    max_events: usize,
    /// The smaller of `events.len()` and `max_events`.
    room: usize,
    wakeups: Wakeups,
    /// The last call had no room for a waker that was woken.
    wakes_first: bool,
}

/// How often a spin looks for a wake before each poll. All these looks take as long as the poll.
const LOOKS: usize = 16;

impl Wait for Asking {
    #[inline(always)]
    fn ask(&mut self, timeout: Option<Duration>) -> io::Result<usize> {
        if self.wakeups.is_used() {
            return self.ask_with_wakeups(timeout);
        }
        let room = self.room;
        let found = self.selector.wait(&mut self.events[..room], timeout)?;
        // A waker was created during the call, and woken.
        if found.is_wake_up { self.add_wakes(found) } else { Ok(found.events) }
    }

    fn pause(&mut self) {
        let mut looks = if self.wakeups.is_used() { LOOKS } else { 0 };
        while looks > 0 && !self.wakeups.is_woken() {
            hint::spin_loop();
            looks -= 1;
        }
    }
}

impl Asking {
    fn set_max_events(&mut self, max_events: usize) {
        self.max_events = max_events;
        self.room = max_events.min(self.events.len());
    }

    fn reserve(&mut self, capacity: usize) -> io::Result<()> {
        self.events.try_reserve_exact(capacity - self.events.len())?;
        self.selector.reserve(capacity)?;
        self.events.resize(capacity, NO_EVENT);
        self.set_max_events(self.max_events);
        Ok(())
    }

    /// Grows the buffer if the last wait filled it, up to `max_events`.
    #[inline]
    fn grow_if_full(&mut self) {
        let is_full = self.selector.is_full() || self.wakes_first;
        if is_full && self.events.len() < self.max_events {
            self.grow();
        }
    }

    #[cold]
    fn grow(&mut self) {
        // Without memory to grow, the next waits return the rest: nothing is lost.
        let _ = self.reserve(self.max_events.min(self.events.len() * 2));
    }

    #[inline(never)]
    fn ask_with_wakeups(&mut self, timeout: Option<Duration>) -> io::Result<usize> {
        if mem::take(&mut self.wakes_first) {
            let count = self.take_wakes(0);
            if count > 0 {
                return self.ask_after_wakes(count);
            }
        }
        let room = self.room;
        let Self { selector, events, wakeups, .. } = self;
        let found =
            wakeups.block(timeout, |timeout| selector.wait(&mut events[..room], timeout))?;
        self.add_wakes(found)
    }

    /// Polls for events behind the `count` wakes that this wait began with, because the last one had no room for them.
    #[cold]
    fn ask_after_wakes(&mut self, count: usize) -> io::Result<usize> {
        let room = self.room;
        if count == room {
            return Ok(count);
        }
        // It takes no further wakes: a waker that was woken since would be in the slice twice.
        let more = match self.selector.wait(&mut self.events[count..room], Some(Duration::ZERO)) {
            Ok(found) => found.events,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => 0,
            Err(error) => return Err(error),
        };
        // The poll may have taken the wake-up of a sleeping thread, even if it was then interrupted.
        self.wakeups.take(0, |_| {});
        Ok(count + more)
    }

    /// Puts the wakes behind the kernel's events.
    fn add_wakes(&mut self, found: Found) -> io::Result<usize> {
        let total = self.take_wakes(found.events);
        self.wakes_first = total == self.room && self.wakeups.is_woken();
        if total == 0 && found.is_wake_up {
            return Err(io::ErrorKind::Interrupted.into());
        }
        Ok(total)
    }

    /// Puts wakes behind the first `count` events, and returns the number of all.
    fn take_wakes(&mut self, mut count: usize) -> usize {
        let (fd, room) = (self.selector.as_fd().as_raw_fd(), self.room);
        let events = &mut self.events;
        self.wakeups.take(room - count, |token| {
            events[count] = Event::wake(fd, token);
            count += 1;
        });
        count
    }
}

/// Code that takes the descriptor may wait until it is readable, so from now on a wake makes it readable.
impl AsFd for OsPoller {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.asking.wakeups.watch();
        self.asking.selector.as_fd()
    }
}

impl AsRawFd for OsPoller {
    fn as_raw_fd(&self) -> RawFd {
        self.as_fd().as_raw_fd()
    }
}

impl fmt::Debug for OsPoller {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("OsPoller")
            .field("fd", &self.asking.selector.as_fd().as_raw_fd())
            .field("events", &self.events())
            .finish_non_exhaustive()
    }
}
