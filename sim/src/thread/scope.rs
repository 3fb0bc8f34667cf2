//! Threads that borrow from the one that starts them.
#![allow(unsafe_code, reason = "a thread of the pool outlives the lifetimes of what it runs")]

use std::fmt;
use std::marker::PhantomData;
use std::mem;
use std::panic::{self, AssertUnwindSafe};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::{JoinHandle, NAME, Result, keep_result};
use crate::machine::Machine;
use crate::panics::message_of;
use crate::schedule::ThreadId;

/// Runs `body`, in which threads can be started that borrow from outside of it, in place of [`std::thread::scope`].
///
/// It returns when all of them have ended. A thread that panics fails the run.
///
/// ```
/// use std::io::{Read, Write};
///
/// use pollio_sim::net::{TcpListener, TcpStream};
/// use pollio_sim::{Conditions, thread};
///
/// pollio_sim::check(100, |world| {
///     world.set_conditions(Conditions::calm());
///     let listener = TcpListener::bind("10.0.0.1:7")?;
///     let mut received = String::new();
///     thread::scope(|scope| {
///         scope.spawn(|| listener.accept()?.0.read_to_string(&mut received));
///         TcpStream::connect("10.0.0.1:7")?.write_all(b"tea")
///     })?;
///     assert_eq!(received, "tea");
///     Ok(())
/// });
/// ```
///
/// # Panics
///
/// In a plan, which cannot wait for threads.
pub fn scope<'env, T>(body: impl for<'scope> FnOnce(&'scope Scope<'scope, 'env>) -> T) -> T {
    let machine = Machine::current();
    let id = machine.current_thread().expect("only a thread of this world can wait: no plan");
    let scope = Scope {
        machine,
        threads: Mutex::default(),
        unfinished: AtomicUsize::new(0),
        scope: PhantomData,
        env: PhantomData,
    };
    let outcome = panic::catch_unwind(AssertUnwindSafe(|| body(&scope)));
    if let Some(message) = outcome.as_ref().err().and_then(|payload| message_of(&**payload)) {
        // A program prints it, and may then wait for ever.
        let note = || format!("panicked in a scope: {message}");
        scope.machine.kernel().schedule_mut().note_call(note);
    }
    // A thread that starts another one has not ended, so none is missed.
    while let Some(thread) = scope.pop_thread() {
        scope.machine.await_end(id, thread, "waits for the threads of its scope");
    }
    match outcome {
        Ok(value) => {
            if scope.unfinished.load(Ordering::Relaxed) > 0 {
                scope.machine.end_thread_here();
            }
            value
        }
        Err(payload) => panic::resume_unwind(payload),
    }
}

/// Starts threads that end before [`scope`] returns, in place of [`std::thread::Scope`].
pub struct Scope<'scope, 'env: 'scope> {
    machine: Machine,
    /// The threads whose end nobody has waited for yet.
    threads: Mutex<Vec<ThreadId>>,
    /// How many threads have not returned: the end of the world ends them before that.
    unfinished: AtomicUsize,
    /// Both are invariant, as in `std`: a shorter `'scope` would let threads borrow from inside of the scope.
    scope: PhantomData<&'scope mut &'scope ()>,
    env: PhantomData<&'env mut &'env ()>,
}

impl<'scope> Scope<'scope, '_> {
    /// Starts a thread, under the name `thread` in reports. [`Builder::spawn_scoped`](super::Builder::spawn_scoped)
    /// gives it another.
    pub fn spawn<T: Send + 'scope>(
        &'scope self,
        body: impl FnOnce() -> T + Send + 'scope,
    ) -> ScopedJoinHandle<'scope, T> {
        self.spawn_named(NAME, body)
    }

    pub(super) fn spawn_named<T: Send + 'scope>(
        &'scope self,
        name: &str,
        body: impl FnOnce() -> T + Send + 'scope,
    ) -> ScopedJoinHandle<'scope, T> {
        let (body, result) = keep_result(body);
        self.unfinished.fetch_add(1, Ordering::Relaxed);
        let body: Box<dyn FnOnce() + Send + 'scope> = Box::new(move || {
            body();
            self.unfinished.fetch_sub(1, Ordering::Relaxed);
        });
        // SAFETY: It is as if 'scope were 'static: 'scope ends after the call of `scope` that this scope belongs to.
        // That call neither returns nor unwinds before `Machine::await_end` has returned for each thread, and a thread
        // ends only after it has run or dropped its body, with all that the body owns.
        let body: Box<dyn FnOnce() + Send> = unsafe { mem::transmute(body) };
        let thread = self.machine.spawn(name, body);
        self.threads().push(thread);
        let handle = JoinHandle { machine: self.machine.clone(), thread, result };
        ScopedJoinHandle { handle, scope: PhantomData }
    }

    fn pop_thread(&self) -> Option<ThreadId> {
        self.threads().pop()
    }

    fn threads(&self) -> MutexGuard<'_, Vec<ThreadId>> {
        self.threads.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Waits for the end of a thread of a scope, in place of [`std::thread::ScopedJoinHandle`].
pub struct ScopedJoinHandle<'scope, T> {
    handle: JoinHandle<T>,
    scope: PhantomData<&'scope ()>,
}

impl<T> ScopedJoinHandle<'_, T> {
    /// Waits for the end of the thread, and returns what it returned.
    ///
    /// # Errors
    ///
    /// It never fails: a thread that panics fails the run, which ends the thread that joins as well.
    pub fn join(self) -> Result<T> {
        self.handle.join()
    }

    /// Whether the thread has returned, or would be found to.
    #[must_use]
    pub fn is_finished(&self) -> bool {
        self.handle.is_finished()
    }
}

impl fmt::Debug for Scope<'_, '_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Scope").finish_non_exhaustive()
    }
}

impl<T> fmt::Debug for ScopedJoinHandle<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ScopedJoinHandle").finish_non_exhaustive()
    }
}
