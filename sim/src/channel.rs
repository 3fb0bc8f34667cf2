//! The crate's channels between simulated threads, of which a full one blocks only the simulated one.

use std::fmt;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::mpsc::{SendError, TryRecvError, TrySendError};

use pollio::Registry;

use crate::machine::Machine;
use crate::schedule::{QueueId, Reason};

/// See [`pollio::channel`]. Each send and each receive is a call of the world that runs here.
///
/// # Errors
///
/// See [`pollio::channel`].
pub fn channel<T>(registry: &Registry, token: u32) -> io::Result<(Sender<T>, Receiver<T>)> {
    let (sender, receiver) = pollio::channel(registry, token)?;
    let shared = Shared::new(token);
    let receiver = Receiver { receiver, end: ReceiverEnd(shared.clone()) };
    Ok((Sender { sender, shared }, receiver))
}

/// See [`pollio::sync_channel`]. Each send and each receive is a call of the world that runs here.
///
/// # Errors
///
/// See [`pollio::sync_channel`].
pub fn sync_channel<T>(
    registry: &Registry,
    token: u32,
    bound: usize,
) -> io::Result<(SyncSender<T>, Receiver<T>)> {
    let (sender, receiver) = pollio::sync_channel(registry, token, bound)?;
    let shared = Shared::new(token);
    let receiver = Receiver { receiver, end: ReceiverEnd(shared.clone()) };
    Ok((SyncSender { sender, shared }, receiver))
}

/// The state that both ends of a channel share.
struct Shared {
    machine: Machine,
    token: u32,
    /// The threads that found the channel full.
    waiting: QueueId,
    /// The number of times that the receiver took a value or was dropped.
    changes: AtomicU64,
}

impl Shared {
    fn new(token: u32) -> Arc<Self> {
        let machine = Machine::current();
        let waiting = machine.kernel().schedule_mut().add_queue();
        Arc::new(Self { machine, token, waiting, changes: AtomicU64::new(0) })
    }

    /// Begins a call.
    fn enter(&self, what: &str) {
        let text = || format!("{what} a channel, token {}", self.token);
        self.machine.enter().schedule_mut().note_call(text);
    }

    /// The receiver took a value, or was dropped.
    fn change(&self) {
        self.changes.fetch_add(1, Relaxed);
        self.machine.kernel().schedule_mut().wake_all(self.waiting);
    }

    /// Blocks until there were more changes than `seen`. Returns false if the world ends first.
    fn wait_for_change(&self, seen: u64) -> bool {
        let has_changed = |_: &mut _| (self.changes.load(Relaxed) > seen).then_some(());
        let (kernel, reason) =
            (self.machine.kernel(), Reason::Thread("sends to a full channel", self.waiting));
        self.machine.block(kernel, reason, None, has_changed).1.is_some()
    }
}

/// See [`pollio::Sender`].
pub struct Sender<T> {
    sender: pollio::Sender<T>,
    shared: Arc<Shared>,
}

impl<T> Sender<T> {
    /// See [`pollio::Sender::send`].
    ///
    /// # Errors
    ///
    /// The receiver was dropped: gives `value` back.
    pub fn send(&self, value: T) -> Result<(), SendError<T>> {
        self.shared.enter("send to");
        self.sender.send(value)
    }
}

/// See [`pollio::SyncSender`].
pub struct SyncSender<T> {
    sender: pollio::SyncSender<T>,
    shared: Arc<Shared>,
}

impl<T> SyncSender<T> {
    /// See [`pollio::SyncSender::try_send`].
    ///
    /// # Errors
    ///
    /// `Full`, or `Disconnected` if the receiver was dropped: both give `value` back.
    pub fn try_send(&self, value: T) -> Result<(), TrySendError<T>> {
        self.shared.enter("send to");
        self.sender.try_send(value)
    }

    /// See [`pollio::SyncSender::send`].
    ///
    /// # Errors
    ///
    /// The receiver was dropped: gives `value` back.
    pub fn send(&self, mut value: T) -> Result<(), SendError<T>> {
        loop {
            let seen = self.shared.changes.load(Relaxed);
            value = match self.try_send(value) {
                Ok(()) => return Ok(()),
                Err(TrySendError::Disconnected(value)) => return Err(SendError(value)),
                Err(TrySendError::Full(value)) => value,
            };
            if !self.shared.wait_for_change(seen) {
                return Err(SendError(value));
            }
        }
    }
}

/// See [`pollio::Receiver`].
pub struct Receiver<T> {
    // In this order, so that a blocked sender notices that the receiver is gone.
    receiver: pollio::Receiver<T>,
    end: ReceiverEnd,
}

/// The receiver's handle on the shared state.
struct ReceiverEnd(Arc<Shared>);

impl Drop for ReceiverEnd {
    fn drop(&mut self) {
        self.0.change();
    }
}

impl<T> Receiver<T> {
    /// See [`pollio::Receiver::try_recv`].
    ///
    /// # Errors
    ///
    /// See [`pollio::Receiver::try_recv`].
    pub fn try_recv(&self) -> Result<T, TryRecvError> {
        let shared = &self.end.0;
        shared.enter("receive from");
        let received = self.receiver.try_recv();
        if received.is_ok() {
            shared.change();
        }
        received
    }

    /// See [`pollio::Receiver::try_iter`].
    pub fn try_iter(&self) -> TryIter<'_, T> {
        TryIter { receiver: self }
    }

    /// See [`pollio::Receiver::is_disconnected`].
    #[must_use]
    pub fn is_disconnected(&self) -> bool {
        self.receiver.is_disconnected()
    }
}

/// See [`pollio::TryIter`].
#[must_use = "values are taken by iterating"]
pub struct TryIter<'a, T> {
    receiver: &'a Receiver<T>,
}

impl<T> Iterator for TryIter<'_, T> {
    type Item = T;

    fn next(&mut self) -> Option<T> {
        self.receiver.try_recv().ok()
    }
}

impl<T> Clone for Sender<T> {
    fn clone(&self) -> Self {
        Self { sender: self.sender.clone(), shared: self.shared.clone() }
    }
}

impl<T> Clone for SyncSender<T> {
    fn clone(&self) -> Self {
        Self { sender: self.sender.clone(), shared: self.shared.clone() }
    }
}

impl<T> fmt::Debug for Sender<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.sender.fmt(f)
    }
}

impl<T> fmt::Debug for SyncSender<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.sender.fmt(f)
    }
}

impl<T> fmt::Debug for Receiver<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.receiver.fmt(f)
    }
}

impl<T> fmt::Debug for TryIter<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TryIter").finish_non_exhaustive()
    }
}
