//! A timer: its next expiration, and the number of past ones, counted like a timerfd's.

use std::time::Duration;

use crate::schedule::When;

#[derive(Default)]
pub(crate) struct Timer {
    next: Option<When>,
    interval: Option<Duration>,
    expirations: u64,
}

impl Timer {
    pub(crate) const fn new(next: Option<When>, interval: Option<Duration>) -> Self {
        Self { next, interval, expirations: 0 }
    }

    pub(crate) const fn next(&self) -> Option<When> {
        self.next
    }

    pub(crate) const fn set_next(&mut self, next: Option<When>) {
        self.next = next;
    }

    pub(crate) const fn is_readable(&self) -> bool {
        self.expirations > 0
    }

    /// Counts the expirations since `due`. Returns the time of the next one, if there is one, and whether these are an
    /// arrival: an expiration after another one, before a read, is none, as in `timerfd_poll`.
    pub(crate) fn expire(&mut self, due: Duration, now: Duration) -> (Option<Duration>, bool) {
        let is_arrival = self.expirations == 0;
        let Some(interval) = self.interval else {
            self.expirations += 1;
            return (None, is_arrival);
        };
        // The clock may be past several: a plan has let time pass.
        let periods = 1 + (now - due).as_nanos() / interval.as_nanos().max(1);
        self.expirations += u64::try_from(periods).unwrap_or(u64::MAX);
        let next = u32::try_from(periods).ok().and_then(|periods| interval.checked_mul(periods));
        (next.and_then(|time| due.checked_add(time)), is_arrival)
    }

    /// Returns the number of expirations since the last call.
    pub(crate) const fn take_expirations(&mut self) -> u64 {
        std::mem::replace(&mut self.expirations, 0)
    }
}
