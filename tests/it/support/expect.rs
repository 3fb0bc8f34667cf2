//! The expectations of a test about a wait.

use std::time::{Duration, Instant};

use pollio::{Event, Poller};

/// Longer than anything here takes, so that a lost event fails a test instead of hanging it.
pub(crate) const LONG_MS: i32 = 20_000;

const LONG: Duration = Duration::from_millis(LONG_MS.unsigned_abs() as u64);

/// The longest time that an unwanted event would take.
const SHORT_MS: i32 = 20;

pub(crate) trait Expect: Poller {
    /// The only event that is reported, now or soon.
    #[track_caller]
    fn expect_one(&mut self) -> Event {
        match self.wait(LONG_MS).unwrap() {
            [event] => *event,
            events => panic!("expected one event, not {events:?}"),
        }
    }

    /// Expects no event, after those that are on their way: on some kernels a new connection causes several edges of
    /// room.
    #[track_caller]
    fn await_silence(&mut self) {
        let start = Instant::now();
        while !self.wait(SHORT_MS).unwrap().is_empty() {
            assert!(start.elapsed() < LONG, "it is never silent");
        }
    }

    /// Expects no event.
    #[track_caller]
    fn expect_none(&mut self) {
        let events = self.wait(SHORT_MS).unwrap();
        assert!(events.is_empty(), "expected no event, not {events:?}");
    }
}

impl<P: Poller + ?Sized> Expect for P {}
