//! Wakers: the effect of a wake on a wait, and that none is lost.

use std::io::Write;
use std::os::fd::{AsFd, AsRawFd};
use std::sync::atomic::Ordering::{Relaxed, SeqCst};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize};
use std::sync::{Barrier, mpsc};
use std::thread;
use std::time::{Duration, Instant};

use pollio::{Event, EventKind, EventObject, Mode, OsPoller, Poller, Waker};

use super::sharing::{BLOCKED, Share, times};
use super::waiting::under_signals;
use crate::support::descriptors::pair;
use crate::support::expect::Expect;

const MS: Duration = Duration::from_millis(1);

fn tokens(events: &[Event]) -> Vec<u32> {
    assert!(events.iter().all(Event::is_wake));
    events.iter().map(|event| event.token).collect()
}

/// C15
pub(crate) fn a_wake_before_the_wait_is_reported_once<P: Poller>() {
    let mut poller = P::new().unwrap();
    let waker = Waker::new(poller.registry(), 7).unwrap();
    poller.expect_none();
    for timeout_ms in [-1, 0, 1, i32::MAX] {
        for _ in 0..3 {
            waker.wake().unwrap();
            waker.clone().wake().unwrap();
        }
        assert_eq!(tokens(poller.wait(timeout_ms).unwrap()), [7]);
        assert_eq!(poller.wait(0).unwrap(), []);
    }
    poller.expect_none();
}

/// C15: its descriptor is the poller's own, so no registration has it.
pub(crate) fn a_wake_is_an_event_of_no_registered_descriptor<P: Poller + AsRawFd>() {
    let mut poller = P::new().unwrap();
    Waker::new(poller.registry(), u32::MAX).unwrap().wake().unwrap();
    let event = poller.expect_one();
    assert_eq!((event.fd, event.kind), (poller.as_raw_fd(), EventKind::Client));
    assert!(event.is_wake() && event.is_readable());
    assert!(!event.is_writable() && !event.is_error() && !event.is_read_closed());
    let (near, mut far) = pair();
    far.write_all(b"x").unwrap();
    poller.add(EventObject::client(near.as_raw_fd()).with_token(u32::MAX)).unwrap();
    assert!(!poller.expect_one().is_wake());
}

/// C15, C12
pub(crate) fn a_wake_ends_a_blocked_wait<P: Poller>() {
    let mut poller = P::new().unwrap();
    let waker = Waker::new(poller.registry(), 1).unwrap();
    for timeout in
        [None, Some(Duration::from_secs(100)), Some(Duration::from_nanos(99_999_999_999))]
    {
        let start = Instant::now();
        thread::scope(|scope| {
            scope.spawn(|| {
                thread::sleep(BLOCKED);
                waker.wake().unwrap();
            });
            assert_eq!(tokens(poller.wait_timeout(timeout).unwrap()), [1]);
        });
        assert!(start.elapsed() >= BLOCKED);
        poller.expect_none();
    }
}

/// C15, C12: the first waker of a poller is created during a blocked wait, which does not know of it.
pub(crate) fn a_waker_that_is_created_during_a_wait_ends_it<P: Poller>() {
    let mut poller = P::new().unwrap();
    let registry = poller.registry().clone();
    thread::scope(|scope| {
        let creating = scope.spawn(move || {
            thread::sleep(BLOCKED);
            let waker = Waker::new(&registry, 3).unwrap();
            thread::sleep(BLOCKED);
            waker.wake().unwrap();
            waker
        });
        assert_eq!(tokens(poller.wait(-1).unwrap()), [3]);
        creating.join().unwrap();
    });
    poller.expect_none();
}

/// C15, C2, C3
pub(crate) fn a_wake_is_reported_next_to_ready_descriptors<P: Poller>() {
    let pairs = [(); 3].map(|()| pair());
    let mut poller = P::new().unwrap();
    let waker = Waker::new(poller.registry(), 9).unwrap();
    for (token, (near, far)) in (0..).zip(&pairs) {
        (&*far).write_all(b"x").unwrap();
        poller.add(EventObject::client(near.as_raw_fd()).with_token(token)).unwrap();
    }
    for timeout_ms in [-1, 0, 1_000] {
        waker.wake().unwrap();
        let events = poller.wait(timeout_ms).unwrap();
        let mut tokens = Vec::from_iter(events.iter().map(|event| event.token));
        tokens.sort_unstable();
        assert_eq!(tokens, [0, 1, 2, 9]);
        assert_eq!(poller.wait(timeout_ms).unwrap().len(), 3);
    }
}

/// C15, C1: in the order of their wakes.
pub(crate) fn several_wakers_are_told_apart<P: Poller>() {
    let mut poller = P::new().unwrap();
    let wakers = [8, 0, u32::MAX, 8].map(|token| Waker::new(poller.registry(), token).unwrap());
    for waker in &wakers {
        waker.wake().unwrap();
        poller.expect_one();
    }
    for index in [2, 0, 1, 2, 3, 0] {
        wakers[index].wake().unwrap();
    }
    assert_eq!(tokens(poller.wait(0).unwrap()), [u32::MAX, 8, 0, 8]);
    poller.expect_none();
}

/// C15: if the last handle is dropped, its wake is still reported, with its own token.
pub(crate) fn the_wake_of_a_dropped_waker_is_reported<P: Poller>() {
    let mut poller = P::new().unwrap();
    let kept = Waker::new(poller.registry(), 0).unwrap();
    for token in 1..200 {
        let waker = Waker::new(poller.registry(), token).unwrap();
        let clone = waker.clone();
        drop(waker);
        clone.wake().unwrap();
        drop(clone);
        // It may have the slot of the dropped one.
        let _next = Waker::new(poller.registry(), 1_000_000).unwrap();
        assert_eq!(tokens(poller.wait(-1).unwrap()), [token]);
    }
    kept.wake().unwrap();
    assert_eq!(tokens(poller.wait(-1).unwrap()), [0]);
    poller.expect_none();
}

/// C15
pub(crate) fn thousands_of_wakers_come_and_go<P: Poller>() {
    let mut poller = P::new().unwrap();
    for round in 0..3 {
        let wakers = (0..3_000).map(|token| Waker::new(poller.registry(), token).unwrap());
        let wakers = Vec::from_iter(wakers);
        wakers.iter().for_each(|waker| waker.wake().unwrap());
        let mut seen = Vec::new();
        while seen.len() < 3_000 {
            let events = poller.wait(0).unwrap();
            assert!(!events.is_empty(), "round {round}: after {} wakes", seen.len());
            seen.extend(tokens(events));
        }
        assert!(seen.iter().copied().eq(0..3_000), "in the order of the wakes");
        drop(wakers);
        assert_eq!(poller.wait(0).unwrap(), []);
    }
}

/// C15
pub(crate) fn a_wake_of_a_dropped_poller_is_harmless<P: Poller>() {
    let poller = P::new().unwrap();
    let waker = Waker::new(poller.registry(), 1).unwrap();
    waker.wake().unwrap();
    drop(poller);
    waker.wake().unwrap();
    let other = Waker::new(P::new().unwrap().registry(), 1).unwrap();
    other.wake().unwrap();
}

/// C7, C8, C15
pub(crate) fn wakes_change_no_timeout<P: Poller + Send + 'static>() {
    let timeout = 200 * MS;
    let mut poller = P::new().unwrap();
    let waker = Waker::new(poller.registry(), 1).unwrap();
    waker.wake().unwrap();
    let start = Instant::now();
    assert_eq!(poller.wait_timeout(Some(timeout)).unwrap().len(), 1);
    assert!(start.elapsed() < timeout);
    let start = Instant::now();
    assert_eq!(poller.wait_timeout(Some(timeout)).unwrap(), []);
    assert!(start.elapsed() >= timeout);
}

/// C15: counts from before a wake are visible with its event, so after the last event none is missing.
pub(crate) fn no_wake_of_many_threads_is_lost<P: Poller>() {
    const THREADS: u64 = 4;
    const WAKES: u64 = 20_000;
    let mut poller = P::new().unwrap();
    let waker = Waker::new(poller.registry(), 1).unwrap();
    let work = AtomicU64::new(0);
    thread::scope(|scope| {
        for _ in 0..THREADS {
            scope.spawn(|| {
                for _ in 0..WAKES {
                    work.fetch_add(1, Relaxed);
                    waker.wake().unwrap();
                }
            });
        }
        let mut done = 0;
        while done < THREADS * WAKES {
            assert!(poller.expect_one().is_wake());
            done += work.swap(0, Relaxed);
        }
    });
}

/// C15, C7: each thread wakes its own waker, and waits for the report.
pub(crate) fn no_wake_is_lost_under_signals<P: Poller + Send + 'static>() {
    const THREADS: usize = 4;
    const WAKES: usize = 500;
    under_signals(|| {
        let mut poller = P::new().unwrap();
        let (reports, answers): (Vec<_>, Vec<_>) = (0..THREADS).map(|_| mpsc::channel()).unzip();
        thread::scope(|scope| {
            for (token, answer) in (0..).zip(answers) {
                let waker = Waker::new(poller.registry(), token).unwrap();
                scope.spawn(move || {
                    for _ in 0..WAKES {
                        waker.wake().unwrap();
                        answer.recv().unwrap();
                    }
                });
            }
            let mut left = THREADS * WAKES;
            let mut timeouts = [-1, 0, 1, 20_000].into_iter().cycle();
            while left > 0 {
                let events = poller.wait(timeouts.next().unwrap()).unwrap();
                left -= events.len();
                for token in tokens(events) {
                    reports[token as usize].send(()).unwrap();
                }
            }
        });
    });
}

/// C15: after the poller's descriptor was taken, an outer poller finds it ready after a wake.
pub(crate) fn a_wake_makes_a_watched_poller_readable<P: Poller + AsFd + AsRawFd>() {
    let (mut outer, mut inner) = (P::new().unwrap(), P::new().unwrap());
    let waker = Waker::new(inner.registry(), 4).unwrap();
    outer.add(EventObject::new(inner.as_raw_fd()).with_token(1)).unwrap();
    // The creation of a waker may be a wake-up.
    inner.expect_none();
    outer.expect_none();
    for _ in 0..3 {
        waker.wake().unwrap();
        assert_eq!(outer.expect_one().token, 1);
        assert_eq!(tokens(inner.wait(0).unwrap()), [4]);
        inner.expect_none();
        outer.expect_none();
    }
    thread::scope(|scope| {
        scope.spawn(|| {
            thread::sleep(BLOCKED);
            waker.wake().unwrap();
        });
        assert_eq!(outer.expect_one().token, 1);
    });
    assert_eq!(tokens(inner.wait(0).unwrap()), [4]);
}

/// C15: the descriptor is taken after a wake.
pub(crate) fn a_poller_that_is_watched_late_is_readable<P: Poller + AsFd + AsRawFd>() {
    let (mut outer, mut inner) = (P::new().unwrap(), P::new().unwrap());
    let waker = Waker::new(inner.registry(), 4).unwrap();
    // The wake-up of the creation.
    assert_eq!(inner.wait(0).unwrap(), []);
    waker.wake().unwrap();
    outer.add(EventObject::new(inner.as_fd().as_raw_fd()).with_token(1)).unwrap();
    assert_eq!(outer.expect_one().token, 1);
    assert_eq!(tokens(inner.wait(0).unwrap()), [4]);
    inner.expect_none();
    outer.expect_none();
}

/// C15, C9: neither the wakes nor the descriptors starve, however small the bound.
pub(crate) fn a_bound_loses_neither_wakes_nor_events<P: Share>() {
    const WAKERS: u32 = 10;
    for bound in [1, 2, 3, 8, 100] {
        let mut poller = P::with_capacity(1).unwrap();
        poller.set_max_events(bound);
        let pairs = Vec::from_iter((0..10).map(|_| pair()));
        for (near, far) in &pairs {
            (&*far).write_all(b"x").unwrap();
            // Level: they could fill each wait.
            poller.add(EventObject::client(near.as_raw_fd()).with_token(1_000)).unwrap();
        }
        let wakers =
            Vec::from_iter((0..WAKERS).map(|token| Waker::new(poller.registry(), token).unwrap()));
        for _ in 0..3 {
            wakers.iter().for_each(|waker| waker.wake().unwrap());
            let (mut woken, mut ready) = (Vec::new(), 0);
            for _ in 0..100 {
                let events = poller.wait(0).unwrap();
                assert!(!events.is_empty() && events.len() <= bound);
                for event in events {
                    if event.is_wake() {
                        woken.push(event.token);
                    } else {
                        ready += 1;
                    }
                }
            }
            assert!(woken.iter().copied().eq(0..WAKERS), "{bound}: {woken:?}");
            assert!(ready >= 30, "{bound}: {ready} events next to the wakes");
        }
    }
}

/// C15: with any bound, and at any time of its wake.
pub(crate) fn a_waker_is_in_a_slice_once<P: Share>() {
    let mut poller = P::with_capacity(1).unwrap();
    poller.set_max_events(3);
    let wakers = [0, 1].map(|token| Waker::new(poller.registry(), token).unwrap());
    let (near, mut far) = pair();
    far.write_all(b"x").unwrap();
    poller.add(EventObject::client(near.as_raw_fd()).with_token(9)).unwrap();
    let is_over = AtomicBool::new(false);
    thread::scope(|scope| {
        for waker in &wakers {
            scope.spawn(|| {
                while !is_over.load(Relaxed) {
                    waker.wake().unwrap();
                }
            });
        }
        for _ in 0..20_000 {
            let mut tokens =
                Vec::from_iter(poller.wait(0).unwrap().iter().map(|event| event.token));
            let count = tokens.len();
            tokens.sort_unstable();
            tokens.dedup();
            assert_eq!(tokens.len(), count, "of {tokens:?}, one was returned twice");
        }
        is_over.store(true, Relaxed);
    });
}

/// C15, C18
pub(crate) fn a_wake_goes_to_exactly_one_handle<P: Share>() {
    for wakers in [1, 3] {
        let poller = P::new().unwrap();
        let wakers =
            Vec::from_iter((0..wakers).map(|token| Waker::new(poller.registry(), token).unwrap()));
        let seen = AtomicUsize::new(0);
        thread::scope(|scope| {
            for _ in 0..5 {
                let mut handle = poller.share();
                let seen = &seen;
                scope.spawn(move || {
                    let start = Instant::now();
                    while start.elapsed() < 300 * MS {
                        seen.fetch_add(tokens(handle.wait(300).unwrap()).len(), SeqCst);
                    }
                });
            }
            thread::sleep(BLOCKED);
            for waker in &wakers {
                waker.wake().unwrap();
            }
        });
        assert_eq!(seen.into_inner(), wakers.len());
    }
}

/// C15, C18: one handle's thread is busy for long, and another handle sleeps.
pub(crate) fn a_wake_goes_to_the_handle_that_sleeps<P: Share>() {
    for handles in [1, 3] {
        let mut busy = P::new().unwrap();
        let waker = Waker::new(busy.registry(), 1).unwrap();
        // It has waited before, and counts as awake.
        busy.expect_none();
        let reported = AtomicUsize::new(0);
        let is_over = AtomicBool::new(false);
        thread::scope(|scope| {
            for _ in 0..handles {
                let mut handle = busy.share();
                let (reported, is_over) = (&reported, &is_over);
                scope.spawn(move || {
                    while !is_over.load(SeqCst) {
                        reported.fetch_add(tokens(handle.wait(100).unwrap()).len(), SeqCst);
                    }
                });
            }
            for round in 1..=20 {
                thread::sleep(5 * MS);
                waker.wake().unwrap();
                let start = Instant::now();
                while reported.load(SeqCst) < round {
                    assert!(start.elapsed() < Duration::from_secs(20), "wake {round} of {handles}");
                    thread::yield_now();
                }
            }
            is_over.store(true, SeqCst);
        });
    }
}

/// C15, C18: threads wake, and handles wait, poll and are dropped, in all orders.
pub(crate) fn no_wake_of_many_threads_to_many_handles_is_lost<P: Share>() {
    const WAKERS: usize = 4;
    let wakes = P::MESSAGES * times() as usize;
    let poller = P::new().unwrap();
    let pending = [(); WAKERS].map(|()| AtomicUsize::new(0));
    let (done, total) = (AtomicUsize::new(0), WAKERS * wakes);
    let begun = Barrier::new(WAKERS + 4);
    thread::scope(|scope| {
        for (token, pending) in (0..).zip(&pending) {
            let waker = Waker::new(poller.registry(), token).unwrap();
            let begun = &begun;
            scope.spawn(move || {
                begun.wait();
                for wake in 0..wakes {
                    pending.fetch_add(1, Relaxed);
                    waker.wake().unwrap();
                    if wake % 64 == 0 {
                        thread::sleep(MS / 50);
                    }
                }
            });
        }
        for (spin, timeout_ms) in [(0, -1), (0, 1), (50, -1), (0, 0)] {
            let mut handle = poller.share();
            handle.set_spin(Duration::from_micros(spin));
            let (pending, done, begun) = (&pending, &done, &begun);
            // Its own, to end the waits without a timeout.
            let last = Waker::new(poller.registry(), 1_000).unwrap();
            scope.spawn(move || {
                begun.wait();
                while done.load(SeqCst) < total {
                    for token in tokens(handle.wait(timeout_ms).unwrap()) {
                        if let Some(pending) = pending.get(token as usize) {
                            done.fetch_add(pending.swap(0, Relaxed), SeqCst);
                        }
                    }
                }
                last.wake().unwrap();
            });
        }
    });
    assert_eq!(done.into_inner(), total);
}

/// C15, C18: a handle that has no room for a wake passes it on to one that sleeps.
pub(crate) fn a_full_wait_passes_a_wake_on<P: Share>() {
    let pairs = Vec::from_iter((0..4).map(|_| pair()));
    let mut full = P::with_capacity(1).unwrap();
    full.set_max_events(1);
    let waker = Waker::new(full.registry(), 1_000).unwrap();
    let mut sleeper = full.share();
    sleeper.set_max_events(100);
    for _ in 0..50 {
        thread::scope(|scope| {
            let sleeper = &mut sleeper;
            let sleeping = scope.spawn(move || {
                let mut wakes = 0;
                while wakes == 0 {
                    let events = sleeper.wait(20_000).unwrap();
                    assert!(!events.is_empty(), "the wake is lost");
                    wakes = events.iter().filter(|event| event.is_wake()).count();
                }
                wakes
            });
            thread::sleep(MS);
            for (near, far) in &pairs {
                (&*far).write_all(b"x").unwrap();
                let object = EventObject::client(near.as_raw_fd()).with_mode(Mode::Edge);
                full.add(object).unwrap();
            }
            waker.wake().unwrap();
            if full.wait(0).unwrap().iter().any(Event::is_wake) {
                // It had room. The other one is still asleep.
                waker.wake().unwrap();
            }
            assert_eq!(sleeping.join().unwrap(), 1);
        });
        for (near, _) in &pairs {
            full.delete(near.as_raw_fd()).unwrap();
        }
    }
}

/// C15: `OsPoller` itself can watch any backend with a descriptor.
pub(crate) fn an_os_poller_sees_the_wake_of_a_watched_poller<P: Poller + AsFd + AsRawFd>() {
    let (mut outer, mut inner) = (OsPoller::new().unwrap(), P::new().unwrap());
    let waker = Waker::new(inner.registry(), 4).unwrap();
    outer.add(EventObject::new(inner.as_raw_fd()).with_mode(Mode::Edge)).unwrap();
    inner.expect_none();
    let _ = outer.wait(0).unwrap();
    for _ in 0..3 {
        waker.wake().unwrap();
        outer.expect_one();
        assert_eq!(tokens(inner.wait(0).unwrap()), [4]);
    }
}

/// C15, C18: a handle that begins a wait with wakes, and then polls, does not take another handle's wake-up.
pub(crate) fn a_wait_that_begins_with_wakes_leaves_a_sleeper_its_own<P: Share>() {
    let (near, mut far) = pair();
    far.write_all(b"x").unwrap();
    let mut busy = P::new().unwrap();
    busy.set_max_events(2);
    let wakers = [0, 1, 2].map(|token| Waker::new(busy.registry(), token).unwrap());
    let mut sleeper = busy.share();
    sleeper.set_max_events(100);
    let seen = [const { AtomicUsize::new(0) }; 3];
    let count = |events: &[Event]| {
        for event in events.iter().filter(|event| event.is_wake()) {
            seen[event.token as usize].fetch_add(1, SeqCst);
        }
    };
    thread::scope(|scope| {
        scope.spawn(|| {
            while seen[2].load(SeqCst) < 50 {
                count(sleeper.wait(-1).unwrap());
            }
        });
        for round in 1..=50 {
            thread::sleep(MS);
            let object = EventObject::client(near.as_raw_fd()).with_mode(Mode::Oneshot);
            busy.add(object).unwrap();
            wakers[0].wake().unwrap();
            wakers[1].wake().unwrap();
            // It may have room for only one of the two, and starts its next wait with the other.
            count(busy.wait(0).unwrap());
            wakers[2].wake().unwrap();
            count(busy.wait(0).unwrap());
            // It is busy now.
            let start = Instant::now();
            while seen.iter().any(|seen| seen.load(SeqCst) < round) {
                assert!(start.elapsed() < Duration::from_secs(20), "round {round}: {seen:?}");
                thread::yield_now();
            }
            busy.delete(near.as_raw_fd()).unwrap();
        }
        // In case the busy handle has returned the last one.
        wakers[0].wake().unwrap();
    });
}
