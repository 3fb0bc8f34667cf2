//! A queue in place of the standard library's, which loom cannot check.
//!
//! Its length and its senders are read without an ordering, so that all ordering between senders and the receiver comes
//! from the waker.

use std::collections::VecDeque;
use std::sync::mpsc::{SendError, TryRecvError, TrySendError};
use std::sync::{Arc, Mutex};

use loom::sync::atomic::AtomicUsize;
use loom::sync::atomic::Ordering::Relaxed;

struct Queue<T> {
    /// Never contended, so it need not be loom's.
    values: Mutex<VecDeque<T>>,
    bound: usize,
    /// The number of values, plus [`SENDER`] for each sender. Loom tries every value that a thread may see.
    state: AtomicUsize,
}

const SENDER: usize = 1 << 16;

pub(crate) struct Sender<T>(Arc<Queue<T>>);

pub(crate) struct SyncSender<T>(Sender<T>);

pub(crate) struct Receiver<T>(Arc<Queue<T>>);

pub(crate) fn channel<T>() -> (Sender<T>, Receiver<T>) {
    queue(usize::MAX)
}

pub(crate) fn sync_channel<T>(bound: usize) -> (SyncSender<T>, Receiver<T>) {
    let (sender, receiver) = queue(bound);
    (SyncSender(sender), receiver)
}

fn queue<T>(bound: usize) -> (Sender<T>, Receiver<T>) {
    let (values, state) = (Mutex::default(), AtomicUsize::new(SENDER));
    let queue = Arc::new(Queue { values, bound, state });
    (Sender(Arc::clone(&queue)), Receiver(queue))
}

impl<T> Sender<T> {
    pub(crate) fn send(&self, value: T) -> Result<(), SendError<T>> {
        self.try_send(value).map_err(|error| match error {
            TrySendError::Full(value) | TrySendError::Disconnected(value) => SendError(value),
        })
    }

    fn try_send(&self, value: T) -> Result<(), TrySendError<T>> {
        let mut values = self.0.values.lock().unwrap();
        if values.len() == self.0.bound {
            return Err(TrySendError::Full(value));
        }
        values.push_back(value);
        drop(values);
        self.0.state.fetch_add(1, Relaxed);
        Ok(())
    }
}

impl<T> SyncSender<T> {
    pub(crate) fn try_send(&self, value: T) -> Result<(), TrySendError<T>> {
        self.0.try_send(value)
    }

    /// Never asked to block here.
    pub(crate) fn send(&self, value: T) -> Result<(), SendError<T>> {
        self.0.send(value)
    }
}

impl<T> Receiver<T> {
    pub(crate) fn try_recv(&self) -> Result<T, TryRecvError> {
        match self.0.state.load(Relaxed) {
            0 => Err(TryRecvError::Disconnected),
            state if state % SENDER == 0 => Err(TryRecvError::Empty),
            _ => {
                self.0.state.fetch_sub(1, Relaxed);
                Ok(self.0.values.lock().unwrap().pop_front().unwrap())
            }
        }
    }
}

impl<T> Clone for Sender<T> {
    fn clone(&self) -> Self {
        self.0.state.fetch_add(SENDER, Relaxed);
        Self(Arc::clone(&self.0))
    }
}

impl<T> Clone for SyncSender<T> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<T> Drop for Sender<T> {
    fn drop(&mut self) {
        self.0.state.fetch_sub(SENDER, Relaxed);
    }
}
