//! The timeouts of the guide as they were: what is pushed back with an old time breaks the order.

use std::collections::{HashMap, VecDeque};
use std::time::{Duration, Instant};

#[derive(Default)]
struct Timeouts {
    deadlines: HashMap<u32, Instant>,
    queue: VecDeque<(Instant, u32)>,
}

impl Timeouts {
    fn set(&mut self, token: u32, deadline: Instant) {
        if self.deadlines.insert(token, deadline).is_none() {
            self.queue.push_back((deadline, token));
        }
    }

    fn remove(&mut self, token: u32) {
        self.deadlines.remove(&token);
    }

    fn next_expired(&mut self, now: Instant) -> Option<u32> {
        while self.queue.front().is_some_and(|(deadline, _)| *deadline <= now) {
            let (_, token) = self.queue.pop_front()?;
            match self.deadlines.get(&token) {
                Some(deadline) if *deadline > now => self.queue.push_back((*deadline, token)),
                Some(_) => {
                    self.deadlines.remove(&token);
                    return Some(token);
                }
                None => {}
            }
        }
        None
    }

    fn time_left(&self, now: Instant) -> Option<Duration> {
        self.queue.front().map(|(deadline, _)| deadline.saturating_duration_since(now))
    }
}
