//! Values from other threads, as a descriptor.

use std::cell::Cell;
use std::fmt;
use std::io;
use std::iter::FusedIterator;
use std::sync::mpsc::{SendError, TryRecvError, TrySendError};

use crate::os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd};
use crate::sync::{Arc, mpsc};
use crate::waker::Waker;

/// Creates an unbounded channel, whose receiver you register like any other source.
///
/// The receiver is readable from the first [`send`](Sender::send) until
/// [`try_iter`](Receiver::try_iter) has taken everything, and once more when the last sender is dropped. The
/// first send makes one system call; further sends make none until the receiver has emptied the queue.
///
/// # Errors
///
/// See [`Waker::new`].
pub fn channel<T>() -> io::Result<(Sender<T>, Receiver<T>)> {
    let (queue, values) = mpsc::channel();
    let (waker, receiver) = ends(values)?;
    Ok((Sender { queue, waker }, receiver))
}

/// Creates a channel that holds up to `bound` values; otherwise like [`channel`]. While it is full,
/// [`try_send`](SyncSender::try_send) returns the value, and [`send`](SyncSender::send) blocks.
///
/// # Errors
///
/// `InvalidInput` for a bound of zero: such a channel passes a value only to a thread that blocks to receive
/// it, and this receiver never blocks. Otherwise see [`Waker::new`].
pub fn sync_channel<T>(bound: usize) -> io::Result<(SyncSender<T>, Receiver<T>)> {
    if bound == 0 {
        let why = "a channel for zero values would always be full";
        return Err(io::Error::new(io::ErrorKind::InvalidInput, why));
    }
    let (queue, values) = mpsc::sync_channel(bound);
    let (waker, receiver) = ends(values)?;
    Ok((SyncSender { queue, waker }, receiver))
}

fn ends<T>(queue: mpsc::Receiver<T>) -> io::Result<(Arc<WakeOnDrop>, Receiver<T>)> {
    let waker = Arc::new(Waker::new()?);
    let for_senders = Arc::new(WakeOnDrop(Arc::clone(&waker)));
    Ok((for_senders, Receiver { queue, waker, is_disconnected: Cell::new(false) }))
}

/// The senders' half of the waker, which wakes when the last of them is dropped.
struct WakeOnDrop(Arc<Waker>);

impl WakeOnDrop {
    /// Called after the queue has the value, or is disconnected.
    fn wake(&self) {
        // Fails only if other code closed the descriptor, which then wakes nobody any more.
        let _ = self.0.wake();
    }
}

impl Drop for WakeOnDrop {
    fn drop(&mut self) {
        self.wake();
    }
}

/// The sending half of a [`channel`]. Clone it for more threads.
pub struct Sender<T> {
    // In this order: each sender leaves the queue before it leaves the waker, so that the wake-up of the
    // last one finds the queue disconnected.
    queue: mpsc::Sender<T>,
    waker: Arc<WakeOnDrop>,
}

impl<T> Sender<T> {
    /// Sends `value`, and makes the receiver readable. It never blocks.
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
    /// Sends `value` if there is room for it, and makes the receiver readable. It never blocks.
    ///
    /// # Errors
    ///
    /// `Full`, or `Disconnected` if the receiver was dropped: both give `value` back.
    pub fn try_send(&self, value: T) -> Result<(), TrySendError<T>> {
        self.queue.try_send(value)?;
        self.waker.wake();
        Ok(())
    }

    /// Sends `value`, and makes the receiver readable. It blocks while the channel is full, so the
    /// receiver's thread must not call it.
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

/// The receiving half of a [`channel`] or a [`sync_channel`]: a source that is readable while there are
/// values to take, and once more when the last sender is dropped.
///
/// Its descriptor stays open until the senders are dropped as well. So delete it before you drop it, as
/// [`Registered`](pollio::Registered) does. Like the standard library's receiver, it is `Send`, not `Sync`.
pub struct Receiver<T> {
    queue: mpsc::Receiver<T>,
    waker: Arc<Waker>,
    is_disconnected: Cell<bool>,
}

impl<T> Receiver<T> {
    /// Takes the values that were sent, without blocking, until none is left.
    ///
    /// It works the same in every [`Mode`](pollio::Mode). You can stop at any time: if the iterator is dropped
    /// before its end, the receiver becomes readable again, as a new arrival, and what is left is reported. A
    /// oneshot needs its `modify`, as always. An event can come for values that were already taken.
    ///
    /// While others send faster than you take, the iterator does not end: use [`take`](Iterator::take) to serve
    /// other descriptors in between.
    pub fn try_iter(&self) -> TryIter<'_, T> {
        TryIter { receiver: self, is_cleared: false, is_done: false }
    }

    /// Whether all senders are dropped and all values taken. A [`try_iter`](Self::try_iter) finds this out when
    /// it is iterated to its end.
    #[must_use]
    pub fn is_disconnected(&self) -> bool {
        self.is_disconnected.get()
    }
}

impl<T> AsFd for Receiver<T> {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.waker.as_fd()
    }
}

impl<T> AsRawFd for Receiver<T> {
    fn as_raw_fd(&self) -> RawFd {
        self.as_fd().as_raw_fd()
    }
}

/// The values that were sent; see [`Receiver::try_iter`].
#[must_use = "values are taken by iterating"]
pub struct TryIter<'a, T> {
    receiver: &'a Receiver<T>,
    is_cleared: bool,
    is_done: bool,
}

impl<T> Iterator for TryIter<'_, T> {
    type Item = T;

    fn next(&mut self) -> Option<T> {
        let Receiver { queue, waker, is_disconnected } = self.receiver;
        while !self.is_done {
            match queue.try_recv() {
                Ok(value) => return Some(value),
                // Not before the queue is empty, so that who sends in the meantime makes no system call. And
                // then once more: what was sent before the clear has its wake-up cleared with it.
                Err(_) if !self.is_cleared => {
                    // Fails only if other code closed the descriptor.
                    let _ = waker.clear();
                    self.is_cleared = true;
                }
                Err(why) => {
                    is_disconnected.set(why == TryRecvError::Disconnected);
                    self.is_done = true;
                }
            }
        }
        None
    }
}

impl<T> FusedIterator for TryIter<'_, T> {}

impl<T> Drop for TryIter<'_, T> {
    fn drop(&mut self) {
        if !self.is_done {
            // A wake-up may still be pending, which an edge or a oneshot has reported.
            self.receiver.waker.rearm();
            let _ = self.receiver.waker.wake();
        }
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

impl<T> pollio::ForeignSource for Receiver<T> {
    fn foreign_fd(&self) -> RawFd {
        self.as_raw_fd()
    }
}
