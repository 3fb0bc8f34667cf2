//! `channel`: values, the wake-up that announces them, and the drop of the last sender.

use std::sync::mpsc::TrySendError;

use loom::thread;

use crate::channel::{Receiver, channel, sync_channel};
use crate::waking::{Handle, model};

/// A receiver whose values are taken when its event is returned.
struct Watched {
    handle: Handle,
    receiver: Receiver<u8>,
    taken: Vec<u8>,
}

impl Watched {
    /// Polls, and takes up to `most` values if the channel is reported.
    fn look(&mut self, most: usize) {
        if !self.handle.poll().is_empty() {
            self.taken.extend(self.receiver.try_iter().take(most));
        }
    }

    /// Called when all threads have ended: polls until nothing is reported, and returns the taken values.
    fn rest(&mut self) -> &[u8] {
        for _ in 0..4 {
            self.look(usize::MAX);
        }
        self.taken.sort_unstable();
        &self.taken
    }
}

/// A thread sends twice, while the receiver takes all, or one value at a time.
fn send_twice(most: usize) {
    model(3, move || {
        let handle = Handle::new();
        let (sender, receiver) = channel(&handle.registry, 1).unwrap();
        let mut watched = Watched { handle, receiver, taken: Vec::new() };
        let thread = thread::spawn(move || {
            sender.send(1).unwrap();
            sender.send(2).unwrap();
            sender
        });
        watched.look(most);
        watched.look(most);
        let sender = thread.join().unwrap();
        assert_eq!(watched.rest(), [1, 2], "a value was sent, but the receiver is not reported");
        assert!(!watched.receiver.is_disconnected());

        // The next value is reported too.
        sender.send(3).unwrap();
        assert_eq!(watched.rest(), [1, 2, 3]);
        drop(sender);
        watched.rest();
        assert!(watched.receiver.is_disconnected());
    });
}

#[test]
fn no_value_is_lost() {
    send_twice(usize::MAX);
}

#[test]
fn no_value_is_lost_to_a_loop_that_takes_one_at_a_time() {
    send_twice(1);
}

/// With any sender as the last, and any polls of the receiver while they end.
#[test]
fn the_last_drop_is_reported() {
    model(3, || {
        let handle = Handle::new();
        let (sender, receiver) = channel(&handle.registry, 1).unwrap();
        let mut watched = Watched { handle, receiver, taken: Vec::new() };
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

/// A full channel that refused a value has room for it by the time that it reports nothing more.
#[test]
fn a_full_channel_is_reported() {
    model(3, || {
        let handle = Handle::new();
        let (sender, receiver) = sync_channel(&handle.registry, 1, 1).unwrap();
        let mut watched = Watched { handle, receiver, taken: Vec::new() };
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
