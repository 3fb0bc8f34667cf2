//! Locks and queues between simulated threads, under the names of `std::sync`.
//!
//! The rest of `std::sync` works as it is, where no thread blocks in it. A lock of the standard library that
//! is held over a call into the simulation can hang: another thread may run during the call, and wait for
//! the lock for real. [`check()`](crate::sim::check()) reports both threads then.

use std::cell::OnceCell;
use std::fmt;
use std::ops::{Deref, DerefMut};
#[doc(no_inline)]
pub use std::sync::{Arc, LockResult, OnceLock, PoisonError, TryLockError, Weak, atomic};

use super::kernel::{FileId, Kind};
use super::world::World;
use crate::Readiness;

/// A lock that simulated threads wait for in virtual time, in place of [`std::sync::Mutex`].
#[derive(Default)]
pub struct Mutex<T: ?Sized> {
    /// What blocks those who wait, once somebody has.
    gate: OnceLock<(World, FileId)>,
    value: std::sync::Mutex<T>,
}

/// A locked [`Mutex`].
pub struct MutexGuard<'a, T: ?Sized> {
    // Dropped first, so that the thread that is woken finds it free.
    value: OnceCell<std::sync::MutexGuard<'a, T>>,
    gate: &'a OnceLock<(World, FileId)>,
}

impl<T> Mutex<T> {
    /// A lock that is free.
    pub const fn new(value: T) -> Self {
        Self { gate: OnceLock::new(), value: std::sync::Mutex::new(value) }
    }
}

impl<T: ?Sized> Mutex<T> {
    /// Waits until the lock is free, and takes it.
    ///
    /// # Errors
    ///
    /// A thread panicked that held it.
    pub fn lock(&self) -> LockResult<MutexGuard<'_, T>> {
        let try_lock = || match self.value.try_lock() {
            Ok(guard) => Some(Ok(self.guard(guard))),
            Err(TryLockError::Poisoned(error)) => {
                Some(Err(PoisonError::new(self.guard(error.into_inner()))))
            }
            Err(TryLockError::WouldBlock) => None,
        };
        if let Some(locked) = try_lock() {
            return locked;
        }
        let (world, gate) = self.gate.get_or_init(|| {
            let world = World::current();
            let gate = world.state().files.add(Kind::Gate);
            (world, gate)
        });
        let state = world.state();
        let (state, locked) = world.block(state, Some(*gate), "locks", None, |_| try_lock());
        drop(state);
        // Its world has ended, and with it the thread that held the lock.
        locked.unwrap_or_else(|| match self.value.lock() {
            Ok(guard) => Ok(self.guard(guard)),
            Err(error) => Err(PoisonError::new(self.guard(error.into_inner()))),
        })
    }

    fn guard<'a>(&'a self, value: std::sync::MutexGuard<'a, T>) -> MutexGuard<'a, T> {
        MutexGuard { value: OnceCell::from(value), gate: &self.gate }
    }
}

impl<T: ?Sized> Deref for MutexGuard<'_, T> {
    type Target = T;

    fn deref(&self) -> &T {
        self.value.get().expect("it is taken in the drop only")
    }
}

impl<T: ?Sized> DerefMut for MutexGuard<'_, T> {
    fn deref_mut(&mut self) -> &mut T {
        self.value.get_mut().expect("it is taken in the drop only")
    }
}

impl<T: ?Sized> Drop for MutexGuard<'_, T> {
    fn drop(&mut self) {
        drop(self.value.take());
        if let Some((world, gate)) = self.gate.get() {
            world.state().notify(*gate, Readiness::READABLE);
        }
    }
}

impl<T: ?Sized + fmt::Debug> fmt::Debug for Mutex<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Mutex").field("value", &&self.value).finish_non_exhaustive()
    }
}

impl<T: ?Sized + fmt::Debug> fmt::Debug for MutexGuard<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        (**self).fmt(f)
    }
}

/// In place of [`std::sync::mpsc`].
pub mod mpsc {
    use std::collections::VecDeque;
    use std::fmt;
    #[doc(no_inline)]
    pub use std::sync::mpsc::{RecvError, RecvTimeoutError, SendError, TryRecvError, TrySendError};
    use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
    use std::time::Duration;

    use crate::Readiness;
    use crate::sim::kernel::{FileId, Kind};
    use crate::sim::world::World;

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

    struct Shared<T> {
        world: World,
        /// Blocks the receiver, and who finds the queue full.
        gate: FileId,
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
            let world = World::current();
            let gate = world.state().files.add(Kind::Gate);
            let queue = Queue { values: VecDeque::new(), bound, senders: 1, has_receiver: true };
            Arc::new(Self { world, gate, queue: Mutex::new(queue) })
        }

        fn queue(&self) -> MutexGuard<'_, Queue<T>> {
            self.queue.lock().unwrap_or_else(PoisonError::into_inner)
        }

        fn notify(&self) {
            self.world.state().notify(self.gate, Readiness::READABLE);
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
            let state = shared.world.enter();
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
            let (mut state, sent) =
                shared.world.block(state, Some(shared.gate), "sends to", None, send);
            if let Some(Ok(())) = sent {
                state.notify(shared.gate, Readiness::READABLE)
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
            drop(self.0.world.enter());
            let mut queue = self.0.queue();
            if !queue.has_receiver {
                return Err(TrySendError::Disconnected(value));
            }
            if queue.values.len() >= queue.bound {
                return Err(TrySendError::Full(value));
            }
            queue.values.push_back(value);
            drop(queue);
            self.0.notify();
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

        fn receive(&self, timeout: Option<Duration>) -> Result<T, TryRecvError> {
            let state = self.0.world.enter();
            let deadline = timeout.and_then(|time| state.now.checked_add(time));
            let take = |_: &mut _| {
                let mut queue = self.0.queue();
                match queue.values.pop_front() {
                    Some(value) => Some(Ok(value)),
                    None if queue.senders == 0 => Some(Err(TryRecvError::Disconnected)),
                    None => None,
                }
            };
            let gate = Some(self.0.gate);
            let (mut state, value) =
                self.0.world.block(state, gate, "receives from", deadline, take);
            if let Some(Ok(_)) = value {
                // There is room now.
                state.notify(self.0.gate, Readiness::WRITABLE);
            }
            value.unwrap_or(Err(TryRecvError::Empty))
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
                self.0.notify();
            }
        }
    }

    impl<T> Drop for Receiver<T> {
        fn drop(&mut self) {
            let mut queue = self.0.queue();
            queue.has_receiver = false;
            let values = std::mem::take(&mut queue.values);
            drop(queue);
            // Who waits for room is given its value back.
            self.0.notify();
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
}
