//! Threads that borrow from the one that starts them.

use std::fmt;
use std::marker::PhantomData;
use std::panic::{self, AssertUnwindSafe};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread;

use super::{JoinHandle, Result, Thread};
use crate::machine::Machine;
use crate::panics;
use crate::schedule::ThreadId;

/// Where threads are started that may borrow, in place of [`std::thread::Scope`].
pub struct Scope<'scope, 'env: 'scope> {
    /// Its threads are real ones of this scope, which sees to it that they end before what they borrow.
    real: &'scope thread::Scope<'scope, 'env>,
    /// Of its world, and which may not have ended. Empty at its end: this is leaked, and the world must not be.
    started: Mutex<Option<(Machine, Vec<ThreadId>)>>,
    /// How many threads have not returned.
    unfinished: AtomicUsize,
}

/// Runs `body`, which may start threads that borrow, and waits for their end, in place of [`std::thread::scope`].
///
/// The other threads of the world run while it waits. If `body` panics, so does this, after its threads have ended.
/// If a thread panics, that fails the run, which ends the thread that waits here as well. When the world ends, the
/// threads of a scope end before the one that waits for them.
///
/// Each scope leaves a few bytes of memory allocated.
///
/// # Panics
///
/// In a plan, which cannot wait.
pub fn scope<'env, F, T>(body: F) -> T
where
    F: for<'scope> FnOnce(&'scope Scope<'scope, 'env>) -> T,
{
    let (machine, id) = Machine::current_with_thread();
    thread::scope(|real| {
        // It has to live for as long as `real`, which is borrowed from outside: without unsafe code, only what is
        // leaked does.
        let scope: &Scope<'_, '_> = Box::leak(Box::new(Scope {
            real,
            started: Mutex::new(Some((machine.clone(), Vec::new()))),
            unfinished: AtomicUsize::new(0),
        }));
        let outcome = panic::catch_unwind(AssertUnwindSafe(|| body(scope)));
        if let Some(message) =
            outcome.as_ref().err().and_then(|payload| panics::message_of(&**payload))
        {
            // What follows may hang, and be reported in its place.
            machine.kernel().schedule_mut().note_call(|| format!("panic in a scope: {message}"));
        }
        // The real scope blocks until its threads have ended, while this thread has the baton: they have to end before.
        machine.wait_for_scope(id, || scope.started().as_mut()?.1.pop());
        *scope.started() = None;
        let value = outcome.unwrap_or_else(|payload| panic::resume_unwind(payload));
        if scope.unfinished.load(Ordering::Relaxed) > 0 {
            // By a panic or by the end of the world, which a panic ends as well.
            panics::end_unless_unwinding();
        }
        value
    })
}

impl<'scope, 'env> Scope<'scope, 'env> {
    /// Starts a thread, under the name `thread` in reports.
    ///
    /// [`Builder::spawn_scoped`](super::Builder::spawn_scoped) gives it another.
    pub fn spawn<F, T>(&'scope self, body: F) -> ScopedJoinHandle<'scope, T>
    where
        F: FnOnce() -> T + Send + 'scope,
        T: Send + 'scope,
    {
        self.spawn_named(None, body)
    }

    pub(super) fn spawn_named<T: Send + 'scope>(
        &'scope self,
        name: Option<&str>,
        body: impl FnOnce() -> T + Send + 'scope,
    ) -> ScopedJoinHandle<'scope, T> {
        const OPEN: &str = "a scope is not borrowed after its end";
        // The lock is not held while the thread is started: with that of the kernel, it is taken as the second one.
        let machine = self.started().as_ref().expect(OPEN).0.clone();
        let started = machine.spawn_scoped(self.real, name, || {
            let value = body();
            self.unfinished.fetch_sub(1, Ordering::Relaxed);
            value
        });
        // It runs once this thread waits.
        self.unfinished.fetch_add(1, Ordering::Relaxed);
        self.started().as_mut().expect(OPEN).1.push(started.id);
        ScopedJoinHandle { handle: JoinHandle::new(&machine, started), scope: PhantomData }
    }

    fn started(&self) -> MutexGuard<'_, Option<(Machine, Vec<ThreadId>)>> {
        self.started.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Scope<'_, '_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Scope").finish_non_exhaustive()
    }
}

/// Waits for the end of a thread of a scope, in place of [`std::thread::ScopedJoinHandle`].
pub struct ScopedJoinHandle<'scope, T> {
    handle: JoinHandle<T>,
    scope: PhantomData<&'scope ()>,
}

impl<T> ScopedJoinHandle<'_, T> {
    /// The thread.
    #[must_use]
    pub const fn thread(&self) -> &Thread {
        self.handle.thread()
    }

    /// Waits for the end of the thread, and returns what it returned.
    ///
    /// # Errors
    ///
    /// As for [`JoinHandle::join`].
    pub fn join(self) -> Result<T> {
        self.handle.join()
    }

    /// Whether the thread has returned, or would be found to.
    #[must_use]
    pub fn is_finished(&self) -> bool {
        self.handle.is_finished()
    }
}

impl<T> fmt::Debug for ScopedJoinHandle<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ScopedJoinHandle").finish_non_exhaustive()
    }
}
