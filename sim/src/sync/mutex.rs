//! A lock that is waited for in virtual time.

use std::cell::OnceCell;
use std::fmt;
use std::ops::{Deref, DerefMut};
use std::sync::{self, LockResult, TryLockError, TryLockResult};
use std::thread;

use super::gate::{Gate, map, type_name};
use crate::machine::Machine;
use crate::schedule::Reason;

/// A lock that simulated threads wait for in virtual time, in place of [`std::sync::Mutex`].
#[derive(Default)]
pub struct Mutex<T: ?Sized> {
    gate: Gate,
    value: sync::Mutex<T>,
}

/// A locked [`Mutex`].
pub struct MutexGuard<'a, T: ?Sized> {
    // Dropped first, so that the thread that is woken finds it free.
    value: OnceCell<sync::MutexGuard<'a, T>>,
    mutex: &'a Mutex<T>,
}

impl<T> Mutex<T> {
    /// A lock that is free.
    pub const fn new(value: T) -> Self {
        Self { gate: Gate::new(), value: sync::Mutex::new(value) }
    }

    /// What it holds.
    ///
    /// # Errors
    ///
    /// A thread panicked that held it.
    pub fn into_inner(self) -> LockResult<T> {
        self.value.into_inner()
    }
}

impl<T: ?Sized> Mutex<T> {
    /// Waits until the lock is free, and takes it.
    ///
    /// # Errors
    ///
    /// A thread panicked that held it.
    ///
    /// # Panics
    ///
    /// If two destructors wait for each other's lock at the end of a world.
    pub fn lock(&self) -> LockResult<MutexGuard<'_, T>> {
        let try_lock = || match self.try_lock() {
            Ok(guard) => Some(Ok(guard)),
            Err(TryLockError::Poisoned(error)) => Some(Err(error)),
            Err(TryLockError::WouldBlock) => None,
        };
        let current = Machine::current_if_any();
        current.iter().for_each(Machine::preempt);
        let locked = try_lock().unwrap_or_else(|| {
            let (machine, queue) = self.gate.get_or_add();
            let reason = Reason::Thread("locks a mutex", queue);
            let kernel = machine.kernel();
            let (kernel, locked) = machine.block(kernel, reason, None, |_| try_lock());
            drop(kernel);
            locked.expect("its world has ended, and two destructors wait for each other's lock")
        });
        if let Some(machine) = current.filter(Machine::is_traced) {
            let text = || format!("lock Mutex<{}>", type_name::<T>());
            machine.kernel().schedule_mut().note_call(text);
        }
        locked
    }

    /// Takes the lock if it is free.
    ///
    /// # Errors
    ///
    /// `WouldBlock` if it is not; `Poisoned` if a thread panicked that held it.
    pub fn try_lock(&self) -> TryLockResult<MutexGuard<'_, T>> {
        match self.value.try_lock() {
            Ok(guard) => Ok(self.guard(guard)),
            Err(TryLockError::Poisoned(error)) => {
                map(Err(error), |guard| self.guard(guard)).map_err(TryLockError::Poisoned)
            }
            Err(TryLockError::WouldBlock) => Err(TryLockError::WouldBlock),
        }
    }

    /// The value: a `&mut` borrow means that no thread holds the lock.
    ///
    /// # Errors
    ///
    /// A thread panicked that held it.
    pub fn get_mut(&mut self) -> LockResult<&mut T> {
        self.value.get_mut()
    }

    /// Whether a thread panicked that held it.
    pub fn is_poisoned(&self) -> bool {
        self.value.is_poisoned()
    }

    /// Forgets that a thread panicked that held it.
    pub fn clear_poison(&self) {
        self.value.clear_poison();
    }

    fn guard<'a>(&'a self, value: sync::MutexGuard<'a, T>) -> MutexGuard<'a, T> {
        MutexGuard { value: OnceCell::from(value), mutex: self }
    }
}

impl<T> From<T> for Mutex<T> {
    fn from(value: T) -> Self {
        Self::new(value)
    }
}

impl<'a, T: ?Sized> MutexGuard<'a, T> {
    pub(super) const fn mutex(&self) -> &'a Mutex<T> {
        self.mutex
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
        // A thread that holds a lock at the end of its world has not failed.
        if thread::panicking()
            && Machine::current_if_any().is_some_and(|machine| machine.is_ending())
        {
            self.mutex.clear_poison();
        }
        self.mutex.gate.wake_all();
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
