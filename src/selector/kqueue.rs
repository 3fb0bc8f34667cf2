//! Readiness through [kqueue(2)](https://man.freebsd.org/cgi/man.cgi?query=kqueue).

use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;
use std::time::Duration;

use crate::os_poller::{Found, Selector};
use crate::sys::kevent::{self, Kevent};
use crate::{Backend, Event};
use encoding::{event_from, has_several_filters, is_false_alarm, registered_interest};
use knotes::Knotes;
use places::Places;

#[path = "kqueue/encoding.rs"]
mod encoding;
#[path = "kqueue/knotes.rs"]
mod knotes;
#[path = "kqueue/numbers.rs"]
mod numbers;
#[path = "kqueue/places.rs"]
mod places;
#[path = "kqueue/trigger.rs"]
mod trigger;

/// A kqueue, and the kevents that the kernel writes for it.
pub(crate) struct KqueueSelector {
    knotes: Arc<Knotes>,
    /// The kernel's buffer: its length is how many kevents one wait can take. After a wait, it begins with the kevents
    /// of its events, in the same order.
    kevents: Vec<Kevent>,
    /// How many of them the last wait wrote.
    written: usize,
    /// The last wait found the [trigger](trigger), or a kevent that looks like it.
    is_triggered: bool,
    /// The events of this wait whose descriptors have several filters.
    places: Places,
}

/// The longest timeout of one call: macOS refuses to wait for years.
const MAX_WAIT: Duration = Duration::from_secs(24 * 60 * 60);

pub(crate) use KqueueSelector as OsSelector;

impl Selector for KqueueSelector {
    const CAPACITY: usize = 32;

    fn create() -> io::Result<Self> {
        Ok(Self::of(Arc::new(Knotes::create()?)))
    }

    fn share(&self) -> Self {
        Self::of(self.knotes.clone())
    }

    fn backend(&self) -> Arc<dyn Backend> {
        self.knotes.clone()
    }

    fn reserve(&mut self, capacity: usize) -> io::Result<()> {
        self.kevents.try_reserve_exact(capacity - self.kevents.len())?;
        self.places.reserve(capacity)?;
        self.kevents.resize(capacity, Kevent::NONE);
        Ok(())
    }

    fn wait(&mut self, events: &mut [Event], timeout: Option<Duration>) -> io::Result<Found> {
        let timeout = timeout.map(|timeout| timeout.min(MAX_WAIT));
        self.is_triggered = false;
        let mut calls = 0_u32;
        let mut passed = None;
        loop {
            let count = self.collect(events, timeout)?;
            if count > 0 || self.written == 0 {
                return Ok(Found { events: count, is_wake_up: self.is_triggered });
            }
            if timeout != Some(Duration::ZERO) {
                return Ok(Found { events: 0, is_wake_up: true });
            }
            // A full batch without an event may hide ready filters. A level goes back to the end of the kernel's
            // queue: when one comes a second time, all filters before it were looked at. Another thread may take that
            // one away, so after 1, 2, 4, … calls another one is remembered.
            let is_passed = |kevent: &Kevent| Some((kevent.ident(), kevent.filter())) == passed;
            let batch = &self.kevents[..self.written];
            if self.written < events.len() || batch.iter().any(is_passed) {
                return Ok(Found { events: 0, is_wake_up: self.is_triggered });
            }
            calls += 1;
            if calls.is_power_of_two() {
                passed = Some((self.kevents[0].ident(), self.kevents[0].filter()));
            }
        }
    }

    fn is_full(&self) -> bool {
        self.written == self.kevents.len()
    }
}

impl KqueueSelector {
    fn of(knotes: Arc<Knotes>) -> Self {
        let (kevents, places) = (Vec::new(), Places::new());
        Self { knotes, kevents, written: 0, is_triggered: false, places }
    }

    /// Calls the kernel once, and returns how many `events` it wrote.
    fn collect(&mut self, events: &mut [Event], timeout: Option<Duration>) -> io::Result<usize> {
        self.places.start();
        self.written = 0;
        let room = &mut self.kevents[..events.len()];
        self.written = kevent::kevent(self.knotes.as_fd(), &[], room, timeout)?;
        let mut count = 0;
        for index in 0..self.written {
            count = self.merge(index, events, count);
        }
        Ok(count)
    }

    /// Puts a filter that fired behind the `count` events that there are, or into the event of its
    /// descriptor. Returns how many events there are then.
    fn merge(&mut self, index: usize, events: &mut [Event], count: usize) -> usize {
        let kevent = self.kevents[index];
        let event = event_from(&kevent);
        if kevent.flags() & kevent::EV_ONESHOT != 0 {
            self.knotes.note_dropped(kevent.ident());
        }
        if is_false_alarm(&kevent) {
            self.is_triggered |= kevent.udata() == trigger::UDATA;
            return count;
        }
        let mut slot = None;
        if has_several_filters(registered_interest(kevent.udata())) {
            let (number, udata) = (kevent.ident(), kevent.udata());
            let is_same = |place: usize| {
                let first = &self.kevents[place];
                first.ident() == number && first.udata() == udata
            };
            match self.places.find(number, is_same) {
                Ok(place) => {
                    let merged = &mut events[place];
                    debug_assert_eq!(merged.fd, event.fd, "two descriptors are one event");
                    let readiness = merged.readiness() | event.readiness();
                    *merged = Event::new(merged.fd, merged.kind, merged.token, readiness);
                    return count;
                }
                Err(free) => slot = Some(free),
            }
        }
        if !self.knotes.may_report(&kevent) {
            return count;
        }
        if let Some(slot) = slot {
            self.places.put(slot, count);
        }
        self.kevents[count] = kevent;
        events[count] = event;
        count + 1
    }
}

impl AsFd for KqueueSelector {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.knotes.as_fd()
    }
}
