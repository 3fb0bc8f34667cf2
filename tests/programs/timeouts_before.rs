//! The timeouts of the guide before their fix: an entry that is pushed back with an old time breaks the order.

use std::collections::{HashMap, VecDeque};
use std::hash::Hash;
use std::time::{Duration, Instant};

use pollio::Connections;

struct Timeouts<K> {
    deadlines: HashMap<K, Instant>,
    queue: VecDeque<(Instant, K)>,
}

impl<K: Copy + Eq + Hash> Timeouts<K> {
    fn new() -> Self {
        Self { deadlines: HashMap::new(), queue: VecDeque::new() }
    }

    fn set(&mut self, key: K, deadline: Instant) {
        if self.deadlines.insert(key, deadline).is_none() {
            self.queue.push_back((deadline, key));
        }
    }

    fn remove(&mut self, key: K) {
        self.deadlines.remove(&key);
    }

    fn next_expired(&mut self, now: Instant) -> Option<K> {
        while self.queue.front().is_some_and(|(deadline, _)| *deadline <= now) {
            let (_, key) = self.queue.pop_front()?;
            match self.deadlines.get(&key) {
                Some(deadline) if *deadline > now => self.queue.push_back((*deadline, key)),
                Some(_) => {
                    self.deadlines.remove(&key);
                    return Some(key);
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
