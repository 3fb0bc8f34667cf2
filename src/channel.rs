//! Values from other threads, announced by a wake-up.

use std::cell::Cell;
use std::fmt;
use std::io;
use std::sync::Arc;
use std::sync::mpsc::{SendError, TryRecvError, TrySendError};

use crate::registry::Registry;
use crate::sys::mpsc;
use crate::waker::Waker;

/// Creates an unbounded channel into the loop of a poller.
///
/// When values were sent, a wait returns an event: [`is_wake`](crate::Event::is_wake), with `token`. Take them with
/// [`try_recv`](Receiver::try_recv) or [`try_iter`](Receiver::try_iter), as many as you like: the next wait returns
/// the event again, until the queue was found empty. The drop of the last sender is an event as well.
///
/// A send to a loop that is busy makes no system call.
///
/// ```
/// use std::thread;
/// use pollio::{OsPoller, Poller};
///
/// let mut poller = OsPoller::new()?;
/// let (sender, receiver) = pollio::channel(poller.registry(), 2)?;
///
/// let worker = thread::spawn(move || {
///     (0..1_000).try_for_each(|value| sender.send(value))
/// });
///
/// let mut sum = 0;
/// while !receiver.is_disconnected() {
///     for event in poller.wait(-1)? {
///         assert!(event.is_wake() && event.token == 2);
///         sum += receiver.try_iter().sum::<u32>();
///     }
/// }
/// assert_eq!(sum, 499_500);
/// # worker.join().unwrap().unwrap();
/// # Ok::<(), std::io::Error>(())
/// ```
///
/// # Errors
///
/// See [`Waker::new`].
pub fn channel<T>(registry: &Registry, token: u32) -> io::Result<(Sender<T>, Receiver<T>)> {
    let waker = Waker::of_channel(registry, token)?;
    let (queue, values) = mpsc::channel();
    let (waker, receiver) = ends(waker, values);
    Ok((Sender { queue, waker }, receiver))
}

/// Creates a channel that holds up to `bound` values; otherwise like [`channel`]. While it is full,
/// [`try_send`](SyncSender::try_send) returns the value, and [`send`](SyncSender::send) blocks.
///
/// The room for `bound` values is allocated at once: for each a value and a `usize`.
///
/// ```
/// use std::sync::mpsc::TrySendError;
/// use pollio::{OsPoller, Poller};
///
/// let poller = OsPoller::new()?;
/// let (sender, receiver) = pollio::sync_channel(poller.registry(), 2, 1)?;
/// assert_eq!(sender.try_send('a'), Ok(()));
/// let full = Err(TrySendError::Full('b'));
/// assert_eq!(sender.try_send('b'), full);
/// assert_eq!(receiver.try_recv(), Ok('a'));
/// assert_eq!(sender.try_send('b'), Ok(()));
/// # Ok::<(), std::io::Error>(())
/// ```
///
/// # Errors
///
/// `InvalidInput` for a bound of zero: such a channel passes a value only to a thread that blocks to receive
/// it, and this receiver never blocks. `OutOfMemory` if the memory for `bound` values cannot be had. Otherwise
/// see [`Waker::new`].
pub fn sync_channel<T>(
    registry: &Registry,
    token: u32,
    bound: usize,
) -> io::Result<(SyncSender<T>, Receiver<T>)> {
    if bound == 0 {
        let why = "a channel for zero values would always be full";
        return Err(io::Error::new(io::ErrorKind::InvalidInput, why));
    }
    // The standard library's queue, which allocates as much, panics or aborts instead.
    Vec::<(usize, T)>::new().try_reserve_exact(bound)?;
    let waker = Waker::of_channel(registry, token)?;
    let (queue, values) = mpsc::sync_channel(bound);
    let (waker, receiver) = ends(waker, values);
    Ok((SyncSender { queue, waker }, receiver))
}

fn ends<T>(waker: Waker, queue: mpsc::Receiver<T>) -> (Arc<WakeOnDrop>, Receiver<T>) {
    let for_senders = Arc::new(WakeOnDrop(waker.clone()));
    (for_senders, Receiver { queue, waker, is_disconnected: Cell::new(false) })
}

/// The senders' half of the waker, which wakes when the last of them is dropped.
struct WakeOnDrop(Waker);

impl WakeOnDrop {
    /// Called after the queue has the value, or is disconnected.
    fn wake(&self) {
        // Fails only if other code closed the poller's descriptors: then no wait is left to wake.
        let _ = self.0.wake();
    }
}

impl Drop for WakeOnDrop {
    fn drop(&mut self) {
        // Only if the other clone, the receiver's, is there: without a receiver the event would mean nothing.
        if self.0.has_clones() {
            self.wake();
        }
    }
}

/// The sending half of a [`channel`]. Clone it for more threads.
pub struct Sender<T> {
    // Fields are dropped in this order: the queue before the waker, so that the last sender's wake finds the queue
    // disconnected.
    queue: mpsc::Sender<T>,
    waker: Arc<WakeOnDrop>,
}

impl<T> Sender<T> {
    /// Sends `value`, and wakes the poller. It never blocks.
    ///
    /// # Errors
    ///
    /// The receiver was dropped: gives `value` back.
    pub fn send(&self, value: T) -> Result<(), SendError<T>> {
        self.queue.send(value)?;
        self.waker.wake();
        Ok(())
    }
}

/// The sending half of a [`sync_channel`]. Clone it for more threads.
pub struct SyncSender<T> {
    // In the order of `Sender`.
    queue: mpsc::SyncSender<T>,
    waker: Arc<WakeOnDrop>,
}

impl<T> SyncSender<T> {
    /// Sends `value` if there is room for it, and wakes the poller. It never blocks.
    ///
    /// # Errors
    ///
    /// `Full`, or `Disconnected` if the receiver was dropped: both give `value` back.
    pub fn try_send(&self, value: T) -> Result<(), TrySendError<T>> {
        self.queue.try_send(value)?;
        self.waker.wake();
        Ok(())
    }

    /// Sends `value`, and wakes the poller. It blocks while the channel is full, so the receiver's thread must
    /// not call it.
    ///
    /// # Errors
    ///
    /// The receiver was dropped: gives `value` back.
    pub fn send(&self, value: T) -> Result<(), SendError<T>> {
        self.queue.send(value)?;
        self.waker.wake();
        Ok(())
    }
}

/// The receiving half of a [`channel`] or a [`sync_channel`]. Like the standard library's receiver, it is
/// `Send`, not `Sync`.
///
/// After a wait has returned the channel's event, the next one returns it again, until the receiver has returned
/// `Empty`. So a loop may take a few values and serve others in between, and a value that it leaves by a panic or a
/// `break` is reported again. With several handles on the poller, this holds for the one that returned the event.
pub struct Receiver<T> {
    queue: mpsc::Receiver<T>,
    waker: Waker,
    is_disconnected: Cell<bool>,
}

impl<T> Drop for Receiver<T> {
    fn drop(&mut self) {
        // What is left in the queue is dropped as well.
        self.waker.close();
    }
}

impl<T> Receiver<T> {
    /// Takes the oldest value, without blocking.
    ///
    /// # Errors
    ///
    /// `Empty`: all values are taken, and the next one is an event. `Disconnected`: also, all senders are
    /// dropped.
    pub fn try_recv(&self) -> Result<T, TryRecvError> {
        self.queue.try_recv().inspect_err(|error| {
            self.waker.finish();
            self.is_disconnected.set(*error == TryRecvError::Disconnected);
        })
    }

    /// Takes the values that were sent, without blocking, until none is left.
    ///
    /// While others send faster than you take, the iterator does not end: use [`take`](Iterator::take) to serve
    /// other descriptors in between.
    pub fn try_iter(&self) -> TryIter<'_, T> {
        TryIter { receiver: self }
    }

    /// Whether all senders are dropped and all values taken, as the last [`try_recv`](Self::try_recv) or
    /// [`try_iter`](Self::try_iter) found out.
    #[must_use]
    pub fn is_disconnected(&self) -> bool {
        self.is_disconnected.get()
    }
}

/// The values that were sent; see [`Receiver::try_iter`].
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
        Self { queue: self.queue.clone(), waker: Arc::clone(&self.waker) }
    }
}

impl<T> Clone for SyncSender<T> {
    fn clone(&self) -> Self {
        Self { queue: self.queue.clone(), waker: Arc::clone(&self.waker) }
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
        f.debug_struct("Receiver").field("waker", &self.waker).finish_non_exhaustive()
    }
}

impl<T> fmt::Debug for TryIter<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TryIter").finish_non_exhaustive()
    }
}
