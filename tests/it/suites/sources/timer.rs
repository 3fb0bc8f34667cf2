//! `Timer`, over a poller.

use std::io::ErrorKind;
use std::mem;
use std::os::fd::AsRawFd;
use std::thread;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::unistd::close;
use pollio::{EventObject, Interest, Mode, OsPoller, Poller};

use super::{AnyPoller, Timer};
use crate::support::descriptors::make_with_too_little_room_first;
use crate::support::expect::Expect;
use crate::support::kernel::On;
use crate::support::subprocess::in_subprocess;

const MS: Duration = Duration::from_millis(1);
const HOUR: Duration = Duration::from_secs(3_600);

/// By how much a timer may go off early here.
fn early() -> Duration {
    OsPoller::KERNEL.timers_are_early_by()
}

/// A poller that watches a timer.
fn watched(mode: Mode) -> (AnyPoller, Timer) {
    let poller = AnyPoller::new().unwrap();
    let timer = Timer::new().unwrap();
    poller.add(EventObject::new(timer.as_raw_fd()).with_mode(mode)).unwrap();
    (poller, timer)
}

#[test]
fn it_is_silent_until_it_is_set() {
    let (mut poller, timer) = watched(Mode::Level);
    poller.expect_none();
    assert_eq!(timer.clear().unwrap(), 0);
}

#[test]
fn it_goes_off_once_and_never_early() {
    for mode in [Mode::Level, Mode::Edge] {
        let (mut poller, timer) = watched(mode);
        for nanoseconds in [1, 999_999, 1_000_000, 1_500_001, 20_000_000] {
            let after = Duration::from_nanos(nanoseconds);
            let start = Instant::now();
            timer.set(after).unwrap();
            assert!(poller.expect_one().is_readable());
            let elapsed = start.elapsed() + early();
            assert!(elapsed >= after, "{after:?} was over after {elapsed:?}");
            assert_eq!(timer.clear().unwrap(), 1);
            assert_eq!(timer.clear().unwrap(), 0);
            poller.expect_none();
        }
    }
}

#[test]
fn it_is_readable_until_it_is_cleared() {
    let (mut poller, timer) = watched(Mode::Level);
    timer.set(MS).unwrap();
    for _ in 0..3 {
        poller.expect_one();
    }
    assert_eq!(timer.clear().unwrap(), 1);
    poller.expect_none();
}

#[test]
fn zero_is_at_once() {
    let (mut poller, timer) = watched(Mode::Level);
    for _ in 0..3 {
        timer.set(Duration::ZERO).unwrap();
        poller.expect_one();
        assert_eq!(timer.clear().unwrap(), 1);
        poller.expect_none();
    }
}

#[test]
fn an_interval_goes_off_again_and_again() {
    let (mut poller, timer) = watched(Mode::Level);
    let start = Instant::now();
    timer.set_interval(20 * MS).unwrap();
    let mut expirations = 0;
    while expirations < 5 {
        poller.expect_one();
        let count = timer.clear().unwrap();
        assert_ne!(count, 0);
        expirations += u32::try_from(count).unwrap();
        assert!(start.elapsed() >= expirations * (20 * MS - early()));
    }
}

#[test]
fn clear_returns_how_often_it_went_off() {
    let (mut poller, timer) = watched(Mode::Level);
    timer.set_interval(5 * MS).unwrap();
    let mut count = 0;
    // A kernel that counts in ticks has longer intervals.
    for slept in [52, 100, 1_000] {
        thread::sleep(slept * MS);
        poller.expect_one();
        count = timer.clear().unwrap();
        if count >= 10 {
            return;
        }
    }
    panic!("it went off {count} times in a second");
}

#[test]
fn every_zero_seconds_is_refused() {
    let (mut poller, timer) = watched(Mode::Level);
    timer.set(HOUR).unwrap();
    assert_eq!(timer.set_interval(Duration::ZERO).unwrap_err().kind(), ErrorKind::InvalidInput);
    poller.expect_none();
}

#[test]
fn setting_it_again_forgets_what_went_off() {
    let (mut poller, timer) = watched(Mode::Level);
    timer.set(MS).unwrap();
    poller.expect_one();
    timer.set(HOUR).unwrap();
    poller.expect_none();
    assert_eq!(timer.clear().unwrap(), 0);

    timer.set_interval(MS).unwrap();
    poller.expect_one();
    timer.set_interval(HOUR).unwrap();
    poller.expect_none();
    assert_eq!(timer.clear().unwrap(), 0);
}

#[test]
fn setting_it_again_replaces_an_interval() {
    let (mut poller, timer) = watched(Mode::Level);
    timer.set_interval(MS).unwrap();
    poller.expect_one();
    timer.set(MS).unwrap();
    poller.expect_one();
    assert_eq!(timer.clear().unwrap(), 1);
    poller.expect_none();
}

#[test]
fn setting_it_later_moves_it() {
    let (mut poller, timer) = watched(Mode::Level);
    let start = Instant::now();
    timer.set(HOUR).unwrap();
    timer.set(30 * MS).unwrap();
    poller.expect_one();
    assert!(start.elapsed() + early() >= 30 * MS);
}

/// Both went off, and the handler of the first event disarms or sets the other timer.
#[test]
fn a_timer_that_was_changed_since_its_event_is_cleared_of_nothing() {
    let (mut poller, one) = watched(Mode::Level);
    let other = Timer::new().unwrap();
    poller.add(EventObject::client(other.as_raw_fd())).unwrap();
    for change in [Timer::disarm, |timer: &Timer| timer.set(HOUR)] {
        one.set(Duration::ZERO).unwrap();
        other.set(Duration::ZERO).unwrap();
        while poller.wait(20_000).unwrap().len() < 2 {}
        let &[first, second] = poller.events() else { panic!("two timers are two events") };
        assert_ne!(first.fd, second.fd);
        let (first, second) =
            if first.fd == one.as_raw_fd() { (&one, &other) } else { (&other, &one) };
        assert_eq!(first.clear().unwrap(), 1);
        change(second).unwrap();
        assert_eq!(second.clear().unwrap(), 0);
        poller.expect_none();
    }
}

#[test]
fn disarming_silences_it() {
    let (mut poller, timer) = watched(Mode::Level);
    timer.disarm().unwrap();
    timer.set(5 * MS).unwrap();
    timer.disarm().unwrap();
    poller.expect_none();

    timer.set_interval(MS).unwrap();
    poller.expect_one();
    timer.disarm().unwrap();
    poller.expect_none();
    assert_eq!(timer.clear().unwrap(), 0);

    timer.set(MS).unwrap();
    poller.expect_one();
}

#[test]
fn an_infinite_timeout_is_never_over() {
    let (mut poller, timer) = watched(Mode::Level);
    for for_ever in [
        Duration::MAX,
        Duration::from_secs(u64::MAX),
        Duration::from_secs(i64::MAX.unsigned_abs()),
        Duration::from_nanos(u64::MAX),
        Duration::from_secs(200 * 365 * 24 * 3_600),
        Duration::from_secs(31 * 365 * 24 * 3_600),
        Duration::from_secs(29 * 365 * 24 * 3_600),
    ] {
        timer.set(MS).unwrap();
        poller.expect_one();
        timer.set(for_ever).unwrap();
        poller.expect_none();
        timer.set(MS).unwrap();
        poller.expect_one();
        timer.set_interval(for_ever).unwrap();
        poller.expect_none();
        assert_eq!(timer.clear().unwrap(), 0);
    }
}

#[test]
fn setting_it_ends_a_blocked_wait() {
    let (mut poller, timer) = watched(Mode::Level);
    timer.set(HOUR).unwrap();
    thread::scope(|scope| {
        scope.spawn(|| {
            thread::sleep(30 * MS);
            timer.set(MS).unwrap();
        });
        poller.expect_one();
    });
}

#[test]
fn it_can_be_registered_without_interest() {
    let (mut poller, timer) = watched(Mode::Level);
    let object = EventObject::new(timer.as_raw_fd());
    poller.modify(object.with_interest(Interest::NONE)).unwrap();
    timer.set(MS).unwrap();
    poller.expect_none();
    poller.modify(object).unwrap();
    poller.expect_one();
}

#[test]
fn timers_go_off_in_their_own_time() {
    let mut poller = AnyPoller::new().unwrap();
    let timers: Vec<_> = (0..5).map(|_| Timer::new().unwrap()).collect();
    let after = |token: u32| (5 - token) * 20 * MS;
    let start = Instant::now();
    for (token, timer) in (0..).zip(&timers) {
        let object = EventObject::new(timer.as_raw_fd());
        poller.add(object.with_token(token).with_mode(Mode::Edge)).unwrap();
        timer.set(after(token)).unwrap();
    }
    let mut reported = Vec::new();
    while reported.len() < timers.len() {
        for event in poller.wait(20_000).unwrap() {
            assert!(start.elapsed() + early() >= after(event.token));
            reported.push(event.token);
        }
    }
    reported.sort_unstable();
    assert_eq!(reported, [0, 1, 2, 3, 4]);
}

/// C11: on kqueue, a running timer needs more of the kernel than one that is not set.
#[test]
fn without_room_for_its_descriptors_no_timer_is_half_made() {
    in_subprocess!(|| {
        let timer = make_with_too_little_room_first(|| {
            let timer = Timer::new()?;
            timer.set(MS)?;
            Ok(timer)
        });
        let mut poller = AnyPoller::new().unwrap();
        poller.add(EventObject::new(timer.as_raw_fd())).unwrap();
        poller.expect_one();
    });
}

/// Other code has closed its descriptor.
#[test]
fn a_closed_timer_is_an_error() {
    in_subprocess!(|| {
        let timer = Timer::new().unwrap();
        close(timer.as_raw_fd()).unwrap();
        for done in [timer.set(MS), timer.set_interval(MS), timer.disarm(), timer.clear().map(drop)]
        {
            assert_eq!(done.unwrap_err().raw_os_error(), Some(Errno::EBADF as i32));
        }
        // Its drop would close the number again.
        mem::forget(timer);
    });
}

/// No test here suspends the machine. `each_timer_has_its_clock` shows on Linux that it has the other clock, and
/// `each_timer_asks_kqueue_for_its_clock` on kqueue.
#[test]
fn a_timer_of_the_boot_clock_goes_off_like_the_other() {
    let timer = match Timer::new_boottime() {
        Ok(timer) => timer,
        Err(error) => {
            assert_eq!(error.kind(), ErrorKind::Unsupported);
            let has_clock = cfg!(any(target_os = "linux", target_os = "android"))
                || cfg!(target_vendor = "apple");
            assert!(!has_clock, "{error}");
            return;
        }
    };
    let mut poller = AnyPoller::new().unwrap();
    poller.add(EventObject::new(timer.as_raw_fd())).unwrap();
    poller.expect_none();
    for after in [Duration::ZERO, Duration::from_nanos(1_500_001), 20 * MS] {
        let start = Instant::now();
        timer.set(after).unwrap();
        poller.expect_one();
        assert!(start.elapsed() >= after);
        assert_eq!(timer.clear().unwrap(), 1);
        poller.expect_none();
    }

    timer.set_interval(5 * MS).unwrap();
    thread::sleep(52 * MS);
    poller.expect_one();
    assert!(timer.clear().unwrap() >= 10);
    timer.set(Duration::MAX).unwrap();
    poller.expect_none();
    timer.set(MS).unwrap();
    timer.disarm().unwrap();
    poller.expect_none();
    assert_eq!(timer.clear().unwrap(), 0);
}

#[test]
fn a_timer_is_send_and_sync() {
    fn is_send_and_sync<T: Send + Sync>() {}
    is_send_and_sync::<Timer>();
}
