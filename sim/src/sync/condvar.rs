//! A condition variable, which is waited for in virtual time.

use std::fmt;
use std::mem;
use std::sync::LockResult;
use std::time::Duration;

use super::{Gate, MutexGuard, map};
use crate::time::Instant;
use crate::world::State;
use pollio::Readiness;

/// What simulated threads wait at for each other, in place of [`std::sync::Condvar`].
///
/// As there, a wait may end although nobody has notified: where
/// [`Conditions::spurious`](crate::Conditions::spurious) is set, some do.
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
        if let Some((world, gate)) = self.gate.get() {
            world.enter().wake_one(gate);
        }
    }

    /// Ends all waits.
    pub fn notify_all(&self) {
        if let Some((world, gate)) = self.gate.get() {
            world.enter().notify(gate, Readiness::READABLE);
        }
    }

    fn wait_for<'a, T>(
        &self,
        guard: MutexGuard<'a, T>,
        timeout: Option<Duration>,
    ) -> (LockResult<MutexGuard<'a, T>>, WaitTimeoutResult) {
        let (world, gate) = self.gate.get_or_add();
        // Others may run before the wait, and notify nobody; but not between the unlocking and the wait.
        drop(world.enter());
        let mutex = guard.mutex;
        drop(guard);
        let mut state = world.state();
        let deadline = timeout.and_then(|timeout| state.now.checked_add(timeout));
        let State { weather, random, .. } = &mut *state;
        let mut is_over = weather.fault(|kind| kind.spurious, random);
        if is_over {
            state.note(|| "fault: a wait at a condition variable ends".into());
        }
        // The first attempt is before the wait, the second after it.
        let attempt = |_: &mut State| mem::replace(&mut is_over, true).then_some(());
        let (state, _) =
            world.block(state, Some(gate), "waits to be notified by", deadline, attempt);
        let is_late = deadline.is_some_and(|deadline| deadline <= state.now);
        drop(state);
        (mutex.lock(), WaitTimeoutResult(is_late))
    }
}

impl fmt::Debug for Condvar {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Condvar").finish_non_exhaustive()
    }
}
