//! How long a wait lasts, whatever interrupts it.

use std::io;
use std::time::{Duration, Instant};

/// Asks the kernel, with the time that is left, until it tells of something or `timeout` is over;
/// returns how much it told of.
///
/// `ask` may come back early and empty-handed, where a kernel cannot wait for so long.
pub(crate) fn wait_until(
    timeout: Option<Duration>,
    mut ask: impl FnMut(Option<Duration>) -> io::Result<usize>,
) -> io::Result<usize> {
    // Zero needs no clock, and what overflows it is for ever.
    let deadline =
        timeout.filter(|time| !time.is_zero()).and_then(|time| Instant::now().checked_add(time));
    let mut time_left = timeout;
    loop {
        match ask(time_left) {
            Ok(0) => {}
            // Neither epoll_wait(2) nor kevent(2) is ever restarted: not after a handler, whatever
            // its SA_RESTART says, and on Linux not after a stop and continue without one.
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            answer => return answer,
        }
        if let Some(deadline) = deadline {
            time_left = Some(deadline.saturating_duration_since(Instant::now()));
        }
        if time_left == Some(Duration::ZERO) {
            return Ok(0);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Asks with `timeout`, gets `answers` one after the other, and returns what was asked.
    fn asked(
        timeout: Option<Duration>,
        answers: &[fn() -> io::Result<usize>],
    ) -> Vec<Option<Duration>> {
        let mut asked = Vec::new();
        let last = wait_until(timeout, |time_left| {
            asked.push(time_left);
            answers[asked.len() - 1]()
        });
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
    fn for_ever_goes_on_after_an_interruption() {
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
        let nanosecond = Duration::from_nanos(1);
        assert_eq!(wait_until(Some(nanosecond), |_| Ok(0)).unwrap(), 0);
        assert_eq!(wait_until(Some(nanosecond), |_| interrupted()).unwrap(), 0);
    }
}
