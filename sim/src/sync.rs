//! Locks and queues between simulated threads, under the names of `std::sync`.
//!
//! The rest of `std::sync` works as it is, where no thread blocks in it. A lock of the standard library that
//! is held over a call into the simulation can hang: another thread may run during the call, and wait for
//! the lock for real. [`check()`](crate::check()) reports both threads then.
//!
//! A lock or a condition variable is of the world whose thread first blocks in it: one in a `static` is
//! not, as all worlds share it.

mod condvar;
pub mod mpsc;
mod mutex;

#[doc(no_inline)]
pub use std::sync::{
    Arc, LockResult, OnceLock, PoisonError, TryLockError, TryLockResult, Weak, atomic,
};

pub use condvar::{Condvar, WaitTimeoutResult};
pub use mutex::{Mutex, MutexGuard};

use crate::kernel::{FileId, Kind};
use crate::world::World;

/// What blocks those who wait, once somebody has.
#[derive(Default)]
struct Gate(OnceLock<(World, FileId)>);

impl Gate {
    const fn new() -> Self {
        Self(OnceLock::new())
    }

    /// None if nobody has waited yet.
    fn get(&self) -> Option<(&World, FileId)> {
        self.0.get().map(|(world, file)| (world, *file))
    }

    /// For a thread that waits.
    fn get_or_add(&self) -> (&World, FileId) {
        let (world, file) = self.0.get_or_init(|| {
            let world = World::current();
            let file = world.state().files.add(Kind::Gate);
            (world, file)
        });
        (world, *file)
    }
}

/// Changes what a lock returned, whether or not a thread has panicked that held it.
fn map<T, U>(result: LockResult<T>, change: impl FnOnce(T) -> U) -> LockResult<U> {
    match result {
        Ok(value) => Ok(change(value)),
        Err(error) => Err(PoisonError::new(change(error.into_inner()))),
    }
}
