//! Locks and queues between simulated threads, under the names of `std::sync`.
//!
//! The rest of `std::sync` works as it is, where no thread blocks in it. A lock of the standard library that
//! is held over a call into the simulation can hang: another thread may run during the call, and wait for
//! the lock for real. [`check()`](crate::check()) reports both threads then.
//!
//! A lock or a condition variable is of the world whose thread first blocks in it: one in a `static` is
//! not, as all worlds share it.

mod condvar;
mod gate;
pub mod mpsc;
mod mutex;

#[doc(no_inline)]
pub use std::sync::{
    Arc, LockResult, OnceLock, PoisonError, TryLockError, TryLockResult, Weak, atomic,
};

pub use condvar::{Condvar, WaitTimeoutResult};
pub use mutex::{Mutex, MutexGuard};
