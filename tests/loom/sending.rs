//! `channel`: values, the wake-up that announces them, and the drop of the last sender.

use std::sync::mpsc::TrySendError;

use loom::sync::Arc;
use loom::sync::atomic::{AtomicBool, Ordering::Relaxed};
use loom::thread;

use crate::channel::{Receiver, channel, sync_channel};
use crate::sys;

/// What a poller reports of a receiver.
struct Watched {
    receiver: Receiver<u8>,
    readable: Arc<AtomicBool>,
    /// Edge-triggered: to report an arrival takes it.
    is_edge: bool,
    taken: Vec<u8>,
}

impl Watched {
    fn new(receiver: Receiver<u8>, is_edge: bool) -> Self {
        Self { receiver, readable: sys::last_made(), is_edge, taken: Vec::new() }
    }

    /// Takes up to `most` values, if the poller reports the receiver.
    fn look(&mut self, most: usize) {
        let is_reported = if self.is_edge {
            self.readable.swap(false, Relaxed)
        } else {
            self.readable.load(Relaxed)
        };
        if is_reported {
            self.taken.extend(self.receiver.try_iter().take(most));
        }
    }

    /// Once all have come to rest: looks until nothing is reported, and returns what was taken.
    fn rest(&mut self) -> &[u8] {
        for _ in 0..4 {
            self.look(usize::MAX);
        }
        self.taken.sort_unstable();
        &self.taken
    }
}

/// A thread sends twice, while the receiver takes all, or one value at a time. That several threads may wake
/// is proved of the waker, in `waking`.
fn send_twice(is_edge: bool, most: usize) {
    loom::model(move || {
        let (sender, receiver) = channel().unwrap();
        let mut watched = Watched::new(receiver, is_edge);
        let thread = thread::spawn(move || {
            sender.send(1).unwrap();
            sender.send(2).unwrap();
            sender
        });
        watched.look(most);
        watched.look(most);
        let sender = thread.join().unwrap();
        assert_eq!(watched.rest(), [1, 2], "a value was sent, and the receiver is not reported");
        assert!(!watched.receiver.is_disconnected());

        // And none of it prevents the next.
        sender.send(3).unwrap();
        assert_eq!(watched.rest(), [1, 2, 3]);
        drop(sender);
        watched.rest();
        assert!(watched.receiver.is_disconnected());
    });
}

#[test]
fn no_value_is_lost_to_a_level() {
    send_twice(false, usize::MAX);
}

#[test]
fn no_value_is_lost_to_an_edge() {
    send_twice(true, usize::MAX);
}

#[test]
fn no_value_is_lost_to_a_level_that_stops_in_the_middle() {
    send_twice(false, 1);
}

#[test]
fn no_value_is_lost_to_an_edge_that_stops_in_the_middle() {
    send_twice(true, 1);
}

/// Whichever sender is the last, and however the receiver looks while they end.
#[test]
fn the_last_drop_is_reported() {
    for is_edge in [false, true] {
        loom::model(move || {
            let (sender, receiver) = channel().unwrap();
            let mut watched = Watched::new(receiver, is_edge);
            let other = sender.clone();
            let thread = thread::spawn(move || drop(other));
            watched.look(usize::MAX);
            drop(sender);
            watched.look(usize::MAX);
            thread.join().unwrap();
            assert_eq!(watched.rest(), []);
            assert!(watched.receiver.is_disconnected());
        });
    }
}

/// What a full channel refuses, it has made room for by the time that it reports nothing more.
#[test]
fn a_full_channel_is_reported() {
    for is_edge in [false, true] {
        loom::model(move || {
            let (sender, receiver) = sync_channel(1).unwrap();
            let mut watched = Watched::new(receiver, is_edge);
            let thread = thread::spawn(move || {
                sender.send(1).unwrap();
                match sender.try_send(2) {
                    Ok(()) => vec![1, 2],
                    Err(TrySendError::Full(2)) => vec![1],
                    Err(error) => panic!("{error}"),
                }
            });
            watched.look(usize::MAX);
            let sent = thread.join().unwrap();
            assert_eq!(watched.rest(), sent);
            assert!(watched.receiver.is_disconnected());
        });
    }
}
