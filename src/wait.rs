//! How long a wait lasts, whatever interrupts it.

use std::io;
use std::time::{Duration, Instant};

use crate::spin::{Next, Spin};

/// How often a spin polls between two looks at the clock, which take a fifth of a poll each. Together
/// they take a microsecond or two: by so much a spin, or a timeout that ends in one, can be late.
const POLLS: usize = 8;

/// What a wait is made of.
pub(crate) trait Wait {
    /// Asks for events, and blocks until there are some, for up to `timeout`; returns how many.
    ///
    /// It may end early: with zero events if the kernel cannot wait for so long, with `Interrupted` if a signal
    /// or a wake-up without an event ended it.
    fn ask(&mut self, timeout: Option<Duration>) -> io::Result<usize>;

    /// Called before each poll of a spin: looks for events that take no call of the kernel, for about as long as a
    /// poll takes, or until there is one.
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
    // The commonest waits, and their first answer, go straight through: those that need no clock.
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
    // Pending events were neither caught nor missed, and need no clock.
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
    // With no time left, this polls: something may have come while the clock was read, or while this thread
    // was stopped.
    let answer = sleep_until(timeout.map(|timeout| timeout.saturating_sub(spun)), wait);
    let slept = if has_events(&answer) { start.elapsed() - spun } else { Duration::ZERO };
    spin.missed(spun, slept);
    answer
}

#[inline]
fn sleep_until(timeout: Option<Duration>, wait: &mut impl Wait) -> io::Result<usize> {
    // No deadline for `None` and zero; one that overflows the clock is infinite.
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
mod tests {
    use super::*;

    /// A wait that asks its closure.
    struct Closure<F>(F);

    impl<F: FnMut(Option<Duration>) -> io::Result<usize>> Wait for Closure<F> {
        fn ask(&mut self, timeout: Option<Duration>) -> io::Result<usize> {
            (self.0)(timeout)
        }

        fn pause(&mut self) {}
    }

    const NANOSECOND: Duration = Duration::from_nanos(1);

    /// Asks with `timeout`, gets `answers` one after the other, and returns what was asked.
    fn asked(
        timeout: Option<Duration>,
        answers: &[fn() -> io::Result<usize>],
    ) -> Vec<Option<Duration>> {
        let mut asked = Vec::new();
        let last = wait_until(
            timeout,
            &mut None,
            &mut Closure(|time_left| {
                asked.push(time_left);
                answers[asked.len() - 1]()
            }),
        );
        assert_eq!(asked.len(), answers.len());
        assert_eq!(last.ok(), answers[answers.len() - 1]().ok());
        asked
    }

    fn interrupted() -> io::Result<usize> {
        Err(io::ErrorKind::Interrupted.into())
    }

    #[test]
    fn an_answer_ends_the_wait() {
        assert_eq!(asked(None, &[|| Ok(3)]), [None]);
        assert_eq!(asked(None, &[|| Err(io::ErrorKind::InvalidInput.into())]), [None]);
    }

    #[test]
    fn zero_asks_once() {
        assert_eq!(asked(Some(Duration::ZERO), &[|| Ok(0)]), [Some(Duration::ZERO)]);
    }

    #[test]
    fn without_a_timeout_it_goes_on_after_an_interruption() {
        assert_eq!(asked(None, &[interrupted, || Ok(0), || Ok(1)]), [None; 3]);
        assert_eq!(asked(Some(Duration::MAX), &[interrupted, || Ok(1)]), [Some(Duration::MAX); 2]);
    }

    #[test]
    fn an_interruption_leaves_less_time() {
        let hour = Duration::from_secs(3_600);
        let [first, second] = asked(Some(hour), &[interrupted, || Ok(1)])[..] else { panic!() };
        assert_eq!(first, Some(hour));
        assert!(second < first && second > Some(hour / 2));
    }

    #[test]
    fn the_deadline_ends_the_wait() {
        assert_eq!(wait_until(Some(NANOSECOND), &mut None, &mut Closure(|_| Ok(0))).unwrap(), 0);
    }

    #[test]
    fn an_interruption_is_followed_by_a_poll_however_late() {
        let zero = Some(Duration::ZERO);
        assert_eq!(asked(zero, &[interrupted, interrupted, || Ok(2)]), [zero; 3]);
        assert_eq!(asked(zero, &[interrupted, || Ok(0)]), [zero; 2]);
        let late = asked(Some(NANOSECOND), &[interrupted, interrupted, || Ok(1)]);
        assert_eq!(late, [Some(NANOSECOND), zero, zero]);
        let late = asked(Some(NANOSECOND), &[interrupted, || Ok(0)]);
        assert_eq!(late, [Some(NANOSECOND), zero]);
    }

    #[test]
    fn a_spin_that_ends_at_the_deadline_is_followed_by_a_poll() {
        let mut spin = Spin::up_to(Duration::MAX);
        let timeout = Duration::from_millis(1);
        let start = Instant::now();
        let mut is_late = false;
        let reported = wait_until(
            Some(timeout),
            &mut spin,
            &mut Closure(|time_left| {
                assert_eq!(time_left, Some(Duration::ZERO));
                // A stop of the process that begins after the last poll in time.
                let polled_late = is_late;
                is_late = start.elapsed() >= timeout;
                Ok(usize::from(polled_late))
            }),
        );
        assert_eq!(reported.unwrap(), 1);
    }

    #[test]
    fn a_spin_never_sleeps_and_ends_with_the_first_event() {
        let mut spin = Spin::up_to(Duration::MAX);
        let mut asked = 0;
        let reported = wait_until(
            None,
            &mut spin,
            &mut Closure(|time_left| {
                assert_eq!(time_left, Some(Duration::ZERO));
                asked += 1;
                match asked {
                    1..5 => Ok(0),
                    5 => interrupted(),
                    _ => Ok(2),
                }
            }),
        );
        assert_eq!((reported.unwrap(), asked), (2, 6));
    }

    #[test]
    fn a_spin_without_an_event_sleeps_for_the_time_that_is_left() {
        let (hour, limit) = (Duration::from_secs(3_600), Duration::from_micros(100));
        for timeout in [None, Some(hour)] {
            let mut spin = Spin::up_to(limit);
            let start = Instant::now();
            let reported = wait_until(
                timeout,
                &mut spin,
                &mut Closure(|time_left| match time_left {
                    Some(Duration::ZERO) => Ok(0),
                    time_left => {
                        assert!(start.elapsed() >= limit);
                        assert_eq!(time_left.is_none(), timeout.is_none());
                        assert!(
                            time_left.is_none_or(|left| left <= hour - limit && left > hour / 2)
                        );
                        Ok(1)
                    }
                }),
            );
            assert_eq!(reported.unwrap(), 1);
            assert_eq!(spin.unwrap().next_wait(), Next::TimedSleep);
        }
    }

    #[test]
    fn a_timeout_within_the_limit_is_spun_to_its_end() {
        let timeout = Duration::from_micros(100);
        let start = Instant::now();
        let reported = wait_until(
            Some(timeout),
            &mut Spin::up_to(Duration::MAX),
            &mut Closure(|time_left| {
                assert_eq!(time_left, Some(Duration::ZERO));
                Ok(0)
            }),
        );
        assert_eq!(reported.unwrap(), 0);
        assert!(start.elapsed() >= timeout);
    }

    #[test]
    fn zero_never_spins_and_teaches_nothing() {
        let mut spin = Spin::up_to(Duration::from_secs(1));
        let mut asked = 0;
        for _ in 0..10 {
            let reported = wait_until(
                Some(Duration::ZERO),
                &mut spin,
                &mut Closure(|_| {
                    asked += 1;
                    Ok(0)
                }),
            );
            assert_eq!(reported.unwrap(), 0);
        }
        assert_eq!(asked, 10);
        assert_eq!(spin.unwrap().next_wait(), Next::Spin(Duration::from_secs(1)));
    }
}
