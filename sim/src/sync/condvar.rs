//! A condition variable, which is waited for in virtual time.

use std::fmt;
use std::mem;
use std::sync::LockResult;
use std::time::Duration;

use super::gate::{Gate, map, type_name};
use super::mutex::MutexGuard;
use crate::schedule::Reason;
use crate::time::Instant;

/// What simulated threads wait at for each other, in place of [`std::sync::Condvar`].
///
/// As there, a wait may end although nobody has notified: where
/// [`Conditions::with_spurious`](crate::Conditions::with_spurious) is set, some do.
#[derive(Default)]
pub struct Condvar {
    gate: Gate,
}

/// Whether a [wait](Condvar::wait_timeout) took as long as it could, in place of
/// [`std::sync::WaitTimeoutResult`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WaitTimeoutResult(bool);

impl WaitTimeoutResult {
    /// Whether the time was up.
    #[must_use]
    pub const fn timed_out(&self) -> bool {
        self.0
    }
}

impl Condvar {
    /// One at which nobody waits.
    #[must_use]
    pub const fn new() -> Self {
        Self { gate: Gate::new() }
    }

    /// Gives the lock back and waits to be notified, without anything in between; then takes the lock again.
    ///
    /// # Errors
    ///
    /// A thread panicked that held the lock.
    pub fn wait<'a, T>(&self, guard: MutexGuard<'a, T>) -> LockResult<MutexGuard<'a, T>> {
        self.wait_for(guard, None).0
    }

    /// [`wait`](Self::wait), again and again while `condition` holds.
    ///
    /// # Errors
    ///
    /// A thread panicked that held the lock.
    pub fn wait_while<'a, T>(
        &self,
        mut guard: MutexGuard<'a, T>,
        mut condition: impl FnMut(&mut T) -> bool,
    ) -> LockResult<MutexGuard<'a, T>> {
        while condition(&mut guard) {
            guard = self.wait(guard)?;
        }
        Ok(guard)
    }

    /// [`wait`](Self::wait), for so long.
    ///
    /// # Errors
    ///
    /// A thread panicked that held the lock.
    pub fn wait_timeout<'a, T>(
        &self,
        guard: MutexGuard<'a, T>,
        timeout: Duration,
    ) -> LockResult<(MutexGuard<'a, T>, WaitTimeoutResult)> {
        let (locked, result) = self.wait_for(guard, Some(timeout));
        map(locked, |guard| (guard, result))
    }

    /// [`wait`](Self::wait), again and again while `condition` holds, for so long in all.
    ///
    /// # Errors
    ///
    /// A thread panicked that held the lock.
    pub fn wait_timeout_while<'a, T>(
        &self,
        mut guard: MutexGuard<'a, T>,
        timeout: Duration,
        mut condition: impl FnMut(&mut T) -> bool,
    ) -> LockResult<(MutexGuard<'a, T>, WaitTimeoutResult)> {
        let begin = Instant::now();
        loop {
            if !condition(&mut guard) {
                return Ok((guard, WaitTimeoutResult(false)));
            }
            let Some(left) = timeout.checked_sub(begin.elapsed()).filter(|left| !left.is_zero())
            else {
                return Ok((guard, WaitTimeoutResult(true)));
            };
            guard = self.wait_timeout(guard, left)?.0;
        }
    }

    /// Ends a wait, if there is one: that of the thread that has waited longest.
    pub fn notify_one(&self) {
        if let Some((machine, queue)) = self.gate.get() {
            let mut kernel = machine.enter();
            kernel.schedule_mut().note_call(|| "notify one".into());
            kernel.schedule_mut().wake_one(queue);
        }
    }

    /// Ends all waits.
    pub fn notify_all(&self) {
        if let Some((machine, queue)) = self.gate.get() {
            let mut kernel = machine.enter();
            kernel.schedule_mut().note_call(|| "notify all".into());
            kernel.schedule_mut().wake_all(queue);
        }
    }

    fn wait_for<'a, T>(
        &self,
        guard: MutexGuard<'a, T>,
        timeout: Option<Duration>,
    ) -> (LockResult<MutexGuard<'a, T>>, WaitTimeoutResult) {
        let (machine, queue) = self.gate.get_or_add();
        // Others may run before the wait, and notify nobody; but not between the unlocking and the wait.
        drop(machine.enter());
        let mutex = guard.mutex();
        drop(guard);
        let mut kernel = machine.kernel();
        let deadline = timeout.and_then(|timeout| kernel.now().checked_add(timeout));
        let mut is_over = kernel.draw_spurious();
        let schedule = kernel.schedule_mut();
        schedule
            .note_call(|| format!("unlock Mutex<{}> and wait to be notified", type_name::<T>()));
        if is_over {
            schedule.note(|| "fault: a wait at a condition variable ends".into());
        }
        // The first attempt is before the wait, the second after it.
        let attempt = |_: &mut _| mem::replace(&mut is_over, true).then_some(());
        let reason = Reason::Thread("waits to be notified", queue);
        let (kernel, _) = machine.block(kernel, reason, deadline, attempt);
        let is_late = deadline.is_some_and(|deadline| deadline <= kernel.now());
        drop(kernel);
        (mutex.lock(), WaitTimeoutResult(is_late))
    }
}

impl fmt::Debug for Condvar {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Condvar").finish_non_exhaustive()
    }
}
