//! How long a wait lasts, whatever interrupts it.

use std::io;
use std::time::{Duration, Instant};

use crate::spin::{Next, Spin};

/// How many polls a spin makes between two readings of the clock, which take a fifth of a poll each. Eight polls take a
/// microsecond or two: a spin, or a timeout that ends during one, can be late by as much.
const POLLS: usize = 8;

/// What a wait is made of.
pub(crate) trait Wait {
    /// Asks for events, and blocks until there are some, for up to `timeout`; returns how many.
    ///
    /// It may end early: with zero events if the kernel cannot wait for so long, with `Interrupted` if a signal
    /// or a wake-up without an event ended it.
    fn ask(&mut self, timeout: Option<Duration>) -> io::Result<usize>;

    /// Called before each poll of a spin: looks for events that need no system call, until there is one, or for about
    /// as long as a poll takes.
    fn pause(&mut self);
}

/// Asks with the remaining time until there are events or `timeout` elapses; returns how many.
/// Polls before it blocks, for as long as `spin` allows.
///
/// An empty result is true when the wait ends: after an interruption or a spin that outlasted `timeout`, it
/// polls once more.
#[inline]
pub(crate) fn wait_until(
    timeout: Option<Duration>,
    spin: &mut Option<Spin>,
    wait: &mut impl Wait,
) -> io::Result<usize> {
    // The commonest waits need no clock: their first answer is returned directly.
    if spin.is_none() && timeout.is_none_or(|timeout| timeout.is_zero()) {
        let answer = wait.ask(timeout);
        if !is_empty(&answer) || timeout.is_some() && answer.is_ok() {
            return answer;
        }
    }
    spin_or_sleep_until(timeout, spin, wait)
}

// Out of line: its register spills stay off the fast path.
#[inline(never)]
fn spin_or_sleep_until(
    timeout: Option<Duration>,
    spin: &mut Option<Spin>,
    wait: &mut impl Wait,
) -> io::Result<usize> {
    match spin {
        Some(spin) if timeout != Some(Duration::ZERO) => spin_until(timeout, spin, wait),
        _ => sleep_until(timeout, wait),
    }
}

fn spin_until(
    timeout: Option<Duration>,
    spin: &mut Spin,
    wait: &mut impl Wait,
) -> io::Result<usize> {
    let (window, is_probe) = match spin.next_wait() {
        Next::Sleep => return sleep_until(timeout, wait),
        Next::TimedSleep => {
            let start = Instant::now();
            let answer = sleep_until(timeout, wait);
            if has_events(&answer) {
                spin.slept(start.elapsed());
            }
            return answer;
        }
        Next::Spin(window) => (window, false),
        Next::Probe(window) => (window, true),
    };
    let window = timeout.map_or(window, |timeout| timeout.min(window));
    // Events that were already pending count neither as caught nor as missed, and need no clock.
    let answer = wait.ask(Some(Duration::ZERO));
    if !is_empty(&answer) {
        return answer;
    }
    let start = Instant::now();
    let (mut polls, mut spun) = (0, Duration::ZERO);
    while spun < window {
        wait.pause();
        let answer = wait.ask(Some(Duration::ZERO));
        if !is_empty(&answer) {
            spin.caught(if polls < POLLS && !is_probe { spun } else { start.elapsed() });
            return answer;
        }
        polls += 1;
        if polls % POLLS == 0 {
            spun = start.elapsed();
        }
    }
    // With no time left, this polls: an event may have come while the clock was read, or while this thread was
    // stopped.
    let answer = sleep_until(timeout.map(|timeout| timeout.saturating_sub(spun)), wait);
    let slept = if has_events(&answer) { start.elapsed() - spun } else { Duration::ZERO };
    spin.missed(spun, slept);
    answer
}

#[inline]
fn sleep_until(timeout: Option<Duration>, wait: &mut impl Wait) -> io::Result<usize> {
    // `None` and zero need no deadline. One that overflows the clock is infinite.
    let deadline = match timeout {
        None | Some(Duration::ZERO) => None,
        Some(time) => Instant::now().checked_add(time),
    };
    let mut time_left = timeout;
    loop {
        let answer = wait.ask(time_left);
        if !is_empty(&answer) {
            return answer;
        }
        if let Some(deadline) = deadline {
            time_left = Some(deadline.saturating_duration_since(Instant::now()));
        }
        if time_left == Some(Duration::ZERO) && answer.is_ok() {
            return answer;
        }
    }
}

/// Whether the wait goes on after this answer.
#[inline]
fn is_empty(answer: &io::Result<usize>) -> bool {
    match answer {
        Ok(count) => *count == 0,
        // Neither epoll_wait(2) nor kevent(2) is ever restarted: not after a handler, whatever its
        // SA_RESTART says, and on Linux not after a stop and continue without one.
        Err(error) => error.kind() == io::ErrorKind::Interrupted,
    }
}

fn has_events(answer: &io::Result<usize>) -> bool {
    matches!(answer, Ok(1..))
}

// Tests that include this file do not repeat these.
#[cfg(all(test, not(included)))]
#[path = "wait/tests.rs"]
mod tests;
