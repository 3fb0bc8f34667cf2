//! How long a wait lasts, by a scripted kernel.

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
                    assert!(time_left.is_none_or(|left| left <= hour - limit && left > hour / 2));
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
