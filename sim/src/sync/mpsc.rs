//! Queues between simulated threads, in place of [`std::sync::mpsc`].

use std::collections::VecDeque;
use std::fmt;
#[doc(no_inline)]
pub use std::sync::mpsc::{RecvError, RecvTimeoutError, SendError, TryRecvError, TrySendError};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::gate::type_name;
use crate::machine::Machine;
use crate::schedule::{QueueId, Reason};

/// A queue without a limit.
#[must_use]
pub fn channel<T>() -> (Sender<T>, Receiver<T>) {
    let shared = Shared::new(usize::MAX);
    (Sender(End(shared.clone())), Receiver(shared))
}

/// A queue that holds up to `bound` values.
///
/// # Panics
///
/// If `bound` is zero: a value that passes from thread to thread without a queue is not simulated.
#[must_use]
pub fn sync_channel<T>(bound: usize) -> (SyncSender<T>, Receiver<T>) {
    assert!(bound > 0, "a queue that holds no value is not simulated");
    let shared = Shared::new(bound);
    (SyncSender(End(shared.clone())), Receiver(shared))
}

/// The end that sends.
pub struct Sender<T>(End<T>);

/// The end that sends, and blocks while the queue is full.
pub struct SyncSender<T>(End<T>);

/// The end that receives.
pub struct Receiver<T>(Arc<Shared<T>>);

/// Waits for each value, until the last sender is gone.
#[derive(Debug)]
pub struct Iter<'a, T>(&'a Receiver<T>);

/// The values that are there.
#[derive(Debug)]
pub struct TryIter<'a, T>(&'a Receiver<T>);

/// As [`Iter`], of a receiver of its own.
#[derive(Debug)]
pub struct IntoIter<T>(Receiver<T>);

struct Shared<T> {
    machine: Machine,
    /// The receiver, and senders that find the queue full.
    waiting: QueueId,
    queue: Mutex<Queue<T>>,
}

/// What both kinds of sender are: counted, so that the last one disconnects.
struct End<T>(Arc<Shared<T>>);

struct Queue<T> {
    values: VecDeque<T>,
    bound: usize,
    senders: usize,
    has_receiver: bool,
}

impl<T> Shared<T> {
    fn new(bound: usize) -> Arc<Self> {
        let machine = Machine::current();
        let waiting = machine.kernel().schedule_mut().add_queue();
        let queue = Queue { values: VecDeque::new(), bound, senders: 1, has_receiver: true };
        Arc::new(Self { machine, waiting, queue: Mutex::new(queue) })
    }

    fn queue(&self) -> MutexGuard<'_, Queue<T>> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Wakes the threads that wait for a value or for room.
    fn wake_all(&self) {
        self.machine.kernel().schedule_mut().wake_all(self.waiting);
    }

    fn note_call(&self, what: &str) {
        if !self.machine.is_traced() {
            return;
        }
        let text = || format!("{what} a queue of {}", type_name::<T>());
        self.machine.kernel().schedule_mut().note_call(text);
    }
}

impl<T> Sender<T> {
    /// Appends a value.
    ///
    /// # Errors
    ///
    /// Gives it back once the receiver is gone.
    pub fn send(&self, value: T) -> Result<(), SendError<T>> {
        self.0.try_send(value).map_err(
            |(TrySendError::Full(value) | TrySendError::Disconnected(value))| SendError(value),
        )
    }
}

impl<T> SyncSender<T> {
    /// Appends a value; waits while the queue is full.
    ///
    /// # Errors
    ///
    /// Gives it back once the receiver is gone.
    pub fn send(&self, value: T) -> Result<(), SendError<T>> {
        let shared = &self.0.0;
        let kernel = shared.machine.enter();
        let mut value = Some(value);
        let send = |_: &mut _| {
            let mut queue = shared.queue();
            if !queue.has_receiver {
                return Some(Err(()));
            }
            (queue.values.len() < queue.bound).then(|| {
                queue.values.extend(value.take());
                Ok(())
            })
        };
        let reason = Reason::Thread("sends to a queue", shared.waiting);
        let (kernel, sent) = shared.machine.block(kernel, reason, None, send);
        drop(kernel);
        if let Some(Ok(())) = sent {
            shared.wake_all();
            shared.note_call("send to");
        }
        value.map_or(Ok(()), |value| Err(SendError(value)))
    }

    /// Appends a value, if there is room for it.
    ///
    /// # Errors
    ///
    /// `Full`, or `Disconnected` once the receiver is gone: both give it back.
    pub fn try_send(&self, value: T) -> Result<(), TrySendError<T>> {
        self.0.try_send(value)
    }
}

impl<T> End<T> {
    fn try_send(&self, value: T) -> Result<(), TrySendError<T>> {
        drop(self.0.machine.enter());
        let mut queue = self.0.queue();
        if !queue.has_receiver {
            return Err(TrySendError::Disconnected(value));
        }
        if queue.values.len() >= queue.bound {
            return Err(TrySendError::Full(value));
        }
        queue.values.push_back(value);
        drop(queue);
        self.0.wake_all();
        self.0.note_call("send to");
        Ok(())
    }
}

impl<T> Receiver<T> {
    /// Waits for the next value.
    ///
    /// # Errors
    ///
    /// The queue is empty, and the last sender is gone.
    pub fn recv(&self) -> Result<T, RecvError> {
        self.receive(None).map_err(|_| RecvError)
    }

    /// Waits for the next value, for so long.
    ///
    /// # Errors
    ///
    /// The time is up, or as [`recv`](Self::recv).
    pub fn recv_timeout(&self, timeout: Duration) -> Result<T, RecvTimeoutError> {
        self.receive(Some(timeout)).map_err(|error| match error {
            TryRecvError::Empty => RecvTimeoutError::Timeout,
            TryRecvError::Disconnected => RecvTimeoutError::Disconnected,
        })
    }

    /// Takes the next value, if there is one.
    ///
    /// # Errors
    ///
    /// The queue is empty.
    pub fn try_recv(&self) -> Result<T, TryRecvError> {
        self.receive(Some(Duration::ZERO))
    }

    /// Waits for each value, until the last sender is gone.
    pub fn iter(&self) -> Iter<'_, T> {
        Iter(self)
    }

    /// Takes the values that are there.
    pub fn try_iter(&self) -> TryIter<'_, T> {
        TryIter(self)
    }

    fn receive(&self, timeout: Option<Duration>) -> Result<T, TryRecvError> {
        let kernel = self.0.machine.enter();
        let deadline = timeout.and_then(|time| kernel.now().checked_add(time));
        let take = |_: &mut _| {
            let mut queue = self.0.queue();
            match queue.values.pop_front() {
                Some(value) => Some(Ok(value)),
                None if queue.senders == 0 => Some(Err(TryRecvError::Disconnected)),
                None => None,
            }
        };
        let reason = Reason::Thread("receives from a queue", self.0.waiting);
        let (kernel, value) = self.0.machine.block(kernel, reason, deadline, take);
        drop(kernel);
        match value {
            Some(Ok(_)) => {
                // There is room now.
                self.0.wake_all();
                self.0.note_call("receive from");
            }
            Some(Err(_)) => self.0.note_call("find the senders gone of"),
            None => self.0.note_call("find nothing in"),
        }
        value.unwrap_or(Err(TryRecvError::Empty))
    }
}

impl<T> Iterator for Iter<'_, T> {
    type Item = T;

    fn next(&mut self) -> Option<T> {
        self.0.recv().ok()
    }
}

impl<T> Iterator for TryIter<'_, T> {
    type Item = T;

    fn next(&mut self) -> Option<T> {
        self.0.try_recv().ok()
    }
}

impl<T> Iterator for IntoIter<T> {
    type Item = T;

    fn next(&mut self) -> Option<T> {
        self.0.recv().ok()
    }
}

impl<'a, T> IntoIterator for &'a Receiver<T> {
    type Item = T;
    type IntoIter = Iter<'a, T>;

    fn into_iter(self) -> Iter<'a, T> {
        self.iter()
    }
}

impl<T> IntoIterator for Receiver<T> {
    type Item = T;
    type IntoIter = IntoIter<T>;

    fn into_iter(self) -> IntoIter<T> {
        IntoIter(self)
    }
}

impl<T> Clone for End<T> {
    fn clone(&self) -> Self {
        self.0.queue().senders += 1;
        Self(self.0.clone())
    }
}

impl<T> Clone for Sender<T> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<T> Clone for SyncSender<T> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<T> Drop for End<T> {
    fn drop(&mut self) {
        let mut queue = self.0.queue();
        queue.senders -= 1;
        let is_last = queue.senders == 0;
        drop(queue);
        if is_last {
            self.0.wake_all();
        }
    }
}

impl<T> Drop for Receiver<T> {
    fn drop(&mut self) {
        let mut queue = self.0.queue();
        queue.has_receiver = false;
        let values = std::mem::take(&mut queue.values);
        drop(queue);
        // A thread that waits for room gets its value back.
        self.0.wake_all();
        drop(values);
    }
}

impl<T> fmt::Debug for Sender<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sender").finish_non_exhaustive()
    }
}

impl<T> fmt::Debug for SyncSender<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SyncSender").finish_non_exhaustive()
    }
}

impl<T> fmt::Debug for Receiver<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Receiver").finish_non_exhaustive()
    }
}
