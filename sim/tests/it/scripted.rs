//! One loop over scripted descriptors.

use std::collections::BTreeSet;
use std::env;
use std::io::{self, ErrorKind, Read};
use std::os::fd::{AsRawFd, RawFd};
use std::os::unix::net::UnixStream;
use std::process::Command;
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use pollio::{Event, EventObject, Interest, Mode, Poller, Readiness, Registered, Waker};
use pollio_sim::{SimPoller, World};

const HOUR: Duration = Duration::from_secs(3_600);
const SECOND: Duration = Duration::from_secs(1);

/// A poller that watches `count` descriptors for reading, from 0 up.
fn watching(seed: u64, count: RawFd) -> (SimPoller, World) {
    let poller = SimPoller::with_seed(seed);
    let world = poller.world().clone();
    for fd in 0..count {
        world.open(fd);
        poller.add(EventObject::client(fd)).unwrap();
    }
    (poller, world)
}

/// The only event that is reported.
#[track_caller]
fn expect_one(poller: &mut SimPoller) -> Event {
    match poller.wait(-1).unwrap() {
        [event] => *event,
        events => panic!("expected one event, not {events:?}"),
    }
}

fn reported(poller: &mut SimPoller) -> Vec<RawFd> {
    poller.wait(0).unwrap().iter().map(|event| event.fd).collect()
}

/// C8
#[test]
fn a_timeout_takes_its_time_to_the_nanosecond() {
    let (mut poller, world) = watching(0, 1);
    let mut elapsed = Duration::ZERO;
    for timeout in [Duration::ZERO, Duration::from_nanos(1), SECOND, HOUR * 24 * 365] {
        let before = world.now();
        assert!(poller.wait_timeout(Some(timeout)).unwrap().is_empty());
        assert_eq!(world.now() - before, timeout);
        elapsed += timeout;
        assert_eq!(world.elapsed(), elapsed);
    }
}

/// C16: a real source under its number, which the world has open.
#[test]
fn a_registered_source_is_simulated_by_its_number() {
    let mut poller = SimPoller::new().unwrap();
    let world = poller.world().clone();
    let (near, _far) = UnixStream::pair().unwrap();
    let fd = near.as_raw_fd();
    world.open(fd);
    let near = Registered::new(poller.registry(), near, EventObject::client).unwrap();
    world.set_ready(fd, Readiness::READABLE);
    assert_eq!(reported(&mut poller), [fd]);
    drop(near);
    assert_eq!(reported(&mut poller), []);
    world.fail_add(io::Error::from_raw_os_error(libc::ENOSPC));
    let (near, mut far) = UnixStream::pair().unwrap();
    world.open(near.as_raw_fd());
    let error = Registered::new(poller.registry(), near, EventObject::client).unwrap_err();
    assert_eq!(error.raw_os_error(), Some(libc::ENOSPC));
    assert_eq!(far.read(&mut [0]).unwrap(), 0);
}

#[test]
fn nothing_sleeps() {
    let (mut poller, world) = watching(0, 1);
    let start = Instant::now();
    for hour in 1..=100 {
        world.schedule(HOUR * hour, |world| world.set_ready(0, Readiness::READABLE));
    }
    for _ in 0..100 {
        assert!(poller.wait_timeout(Some(HOUR / 2)).unwrap().is_empty());
        assert_eq!(poller.wait(-1).unwrap().len(), 1);
        world.clear_ready(0, Readiness::READABLE);
    }
    assert_eq!(world.elapsed(), HOUR * 100);
    assert!(start.elapsed() < HOUR);
}

/// C8
#[test]
fn a_wait_ends_when_a_plan_runs() {
    let (mut poller, world) = watching(0, 2);
    world.schedule(2 * SECOND, |world| world.set_ready(1, Readiness::READABLE));
    world.schedule(SECOND, |world| {
        world.set_ready(0, Readiness::WRITABLE);
        world.schedule(SECOND / 2, |world| world.set_ready(0, Readiness::READABLE));
    });
    assert_eq!(poller.wait_timeout(Some(HOUR)).unwrap()[0].fd, 0);
    assert_eq!(world.elapsed(), SECOND * 3 / 2);
    world.clear_ready(0, Readiness::READABLE);
    assert_eq!(poller.wait_timeout(None).unwrap()[0].fd, 1);
    assert_eq!(world.elapsed(), 2 * SECOND);
}

#[test]
fn plans_for_the_same_time_run_in_their_order() {
    let (mut poller, world) = watching(1, 0);
    let happened = Arc::new(Mutex::new(Vec::new()));
    for plan in 0..3 {
        let happened = happened.clone();
        world.schedule(SECOND, move |_| happened.lock().unwrap().push(plan));
    }
    assert!(poller.wait_timeout(Some(SECOND)).unwrap().is_empty());
    assert_eq!(*happened.lock().unwrap(), [0, 1, 2]);
}

#[test]
fn an_arrival_at_the_deadline_is_reported() {
    let (mut poller, world) = watching(0, 1);
    world.schedule(SECOND, |world| world.set_ready(0, Readiness::READABLE));
    world.schedule(SECOND, |world| world.clear_ready(0, Readiness::READABLE));
    world.schedule(2 * SECOND, |world| world.clear_ready(0, Readiness::READABLE));
    world.schedule(2 * SECOND, |world| world.set_ready(0, Readiness::READABLE));
    assert!(poller.wait_timeout(Some(SECOND)).unwrap().is_empty());
    assert_eq!(poller.wait_timeout(Some(SECOND)).unwrap().len(), 1);
}

#[test]
fn a_wait_that_nothing_can_end_is_a_deadlock() {
    let (mut poller, world) = watching(77, 1);
    for timeout in [None, Some(Duration::MAX)] {
        let error = poller.wait_timeout(timeout).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Deadlock);
        assert!(error.to_string().contains("77"), "{error}");
    }
    assert_eq!(world.elapsed(), Duration::ZERO);
    // A plan that ends no wait does not prevent the deadlock either.
    world.schedule(HOUR, |world| world.set_ready(0, Readiness::WRITABLE));
    assert_eq!(poller.wait(-1).unwrap_err().kind(), ErrorKind::Deadlock);
    world.schedule(Duration::MAX, |world| world.set_ready(0, Readiness::READABLE));
    assert_eq!(poller.wait(-1).unwrap_err().kind(), ErrorKind::Deadlock);
    world.set_ready(0, Readiness::READABLE);
    assert_eq!(poller.wait(-1).unwrap().len(), 1);
}

/// Runs `plan` again and again, after `delay` each time.
fn again_and_again(world: &World, delay: Duration) {
    world.schedule(delay, move |world| again_and_again(world, delay));
}

#[test]
fn a_plan_that_plans_itself_after_no_time_is_an_error() {
    let (mut poller, world) = watching(78, 1);
    world.set_ready(0, Readiness::READABLE);
    again_and_again(&world, Duration::ZERO);
    for timeout in [Some(SECOND), Some(Duration::ZERO), None] {
        let error = poller.wait_timeout(timeout).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Deadlock);
        assert!(error.to_string().contains("78"), "{error}");
    }
    assert_eq!(world.elapsed(), Duration::ZERO);
}

#[test]
fn plans_that_never_end_a_wait_are_an_error() {
    let (mut poller, world) = watching(79, 1);
    again_and_again(&world, SECOND);
    let error = poller.wait(-1).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Deadlock);
    assert!(error.to_string().contains("79"), "{error}");
    // A wait with a timeout ends by itself, whatever the number of plans.
    assert!(poller.wait_timeout(Some(HOUR)).unwrap().is_empty());
}

#[test]
fn many_plans_for_the_same_time_are_none_too_many() {
    let (mut poller, world) = watching(0, 1);
    for _ in 0..100_000 {
        world.schedule(SECOND, |_| ());
    }
    world.schedule(SECOND, |world| world.set_ready(0, Readiness::READABLE));
    assert_eq!(poller.wait(-1).unwrap().len(), 1);
}

#[test]
fn time_passes_in_a_slow_handler() {
    let (mut poller, world) = watching(0, 1);
    world.schedule(SECOND, |world| world.set_ready(0, Readiness::READABLE));
    world.advance(HOUR);
    world.advance(Duration::MAX);
    assert_eq!(world.elapsed(), HOUR);
    assert_eq!(reported(&mut poller), [0]);
    assert_eq!(world.elapsed(), HOUR);
}

/// C10
#[test]
fn adding_twice_is_already_exists() {
    let (mut poller, world) = watching(0, 1);
    let error = poller.add(EventObject::client(0).with_token(1)).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::AlreadyExists);
    world.set_ready(0, Readiness::READABLE);
    assert_eq!(expect_one(&mut poller).token, 0);
}

/// C10, C16
#[test]
fn a_close_deletes() {
    let (mut poller, world) = watching(0, 1);
    world.set_ready(0, Readiness::READABLE);
    world.close(0);
    assert!(reported(&mut poller).is_empty());
    let bad = Some(libc::EBADF);
    assert_eq!(poller.delete(0).unwrap_err().raw_os_error(), bad);
    world.set_ready(0, Readiness::READABLE);
    world.open(0);
    assert_eq!(poller.delete(0).unwrap_err().kind(), ErrorKind::NotFound);
    poller.add(EventObject::client(0)).unwrap();
    assert!(reported(&mut poller).is_empty());
    world.open(-1);
    assert_eq!(poller.add(EventObject::client(-1)).unwrap_err().raw_os_error(), bad);
}

/// C5, C6
#[test]
fn hang_ups_and_errors_need_no_interest() {
    for (readiness, is_reported) in [
        (Readiness::READ_CLOSED, false),
        (Readiness::WRITE_CLOSED, true),
        (Readiness::ERROR, true),
        (Readiness::READABLE | Readiness::WRITABLE | Readiness::PRIORITY, false),
    ] {
        for mode in [Mode::Level, Mode::Edge, Mode::Oneshot] {
            let (mut poller, world) = watching(0, 1);
            let object = EventObject::client(0).with_interest(Interest::NONE).with_mode(mode);
            poller.modify(object).unwrap();
            world.set_ready(0, readiness);
            let event = poller.wait(0).unwrap().first().copied();
            assert_eq!(event.is_some(), is_reported, "{readiness:?}");
            assert!(event.is_none_or(|event| event.readiness().contains(readiness)));
            assert_eq!(!reported(&mut poller).is_empty(), is_reported && mode == Mode::Level);
        }
    }
}

/// C3
#[test]
fn an_edge_needs_an_arrival_that_was_asked_for() {
    let (mut poller, world) = watching(0, 1);
    let object = EventObject::client(0).with_mode(Mode::Edge);
    poller.modify(object.with_interest(Interest::WRITABLE)).unwrap();
    world.set_ready(0, Readiness::WRITABLE);
    assert_eq!(reported(&mut poller), [0]);
    world.set_ready(0, Readiness::READABLE);
    assert!(reported(&mut poller).is_empty());
    poller.modify(object.with_interest(Interest::BOTH)).unwrap();
    assert_eq!(reported(&mut poller), [0]);
    world.set_ready(0, Readiness::READABLE);
    let event = expect_one(&mut poller);
    assert!(
        event.is_readable() && event.is_writable(),
        "standing readiness is reported with an arrival"
    );
}

#[test]
fn an_error_of_add_registers_nothing() {
    let (mut poller, world) = watching(0, 0);
    world.open(0);
    world.fail_add(io::Error::from_raw_os_error(libc::EMFILE));
    world.fail_add(io::Error::from_raw_os_error(libc::ENOSPC));
    world.set_ready(0, Readiness::READABLE);
    for errno in [libc::EMFILE, libc::ENOSPC] {
        let error = poller.add(EventObject::client(0)).unwrap_err();
        assert_eq!(error.raw_os_error(), Some(errno));
        assert!(reported(&mut poller).is_empty());
    }
    poller.add(EventObject::client(0)).unwrap();
    assert_eq!(reported(&mut poller), [0]);
}

#[test]
fn an_error_of_wait_loses_nothing() {
    let (mut poller, world) = watching(0, 1);
    poller.modify(EventObject::client(0).with_mode(Mode::Edge)).unwrap();
    world.set_ready(0, Readiness::READABLE);
    world.fail_wait(ErrorKind::Interrupted.into());
    assert_eq!(poller.wait(-1).unwrap_err().kind(), ErrorKind::Interrupted);
    assert_eq!(reported(&mut poller), [0]);

    world.schedule(SECOND, |world| world.fail_wait(io::Error::other("out of the blue")));
    assert_eq!(poller.wait(-1).unwrap_err().to_string(), "out of the blue");
    assert_eq!(world.elapsed(), SECOND);
    assert!(reported(&mut poller).is_empty());
}

#[test]
fn spurious_readiness_is_reported_once() {
    for mode in [Mode::Level, Mode::Edge, Mode::Oneshot] {
        let (mut poller, world) = watching(0, 1);
        poller.modify(EventObject::client(0).with_mode(mode)).unwrap();
        world.spurious(0, Readiness::READABLE);
        assert_eq!(expect_one(&mut poller).readiness(), Readiness::READABLE);
        assert!(reported(&mut poller).is_empty());
        world.spurious(0, Readiness::WRITABLE);
        assert!(reported(&mut poller).is_empty(), "nobody asked");
    }
}

#[test]
fn spurious_readiness_hides_no_true_readiness() {
    let (mut poller, world) = watching(0, 1);
    world.set_ready(0, Readiness::READABLE);
    world.spurious(0, Readiness::READABLE);
    assert_eq!(expect_one(&mut poller).readiness(), Readiness::READABLE);
}

#[test]
fn spurious_readiness_is_reported_only_with_its_interest() {
    let (mut poller, world) = watching(0, 1);
    world.spurious(0, Readiness::WRITABLE);
    world.set_ready(0, Readiness::READABLE);
    assert_eq!(expect_one(&mut poller).readiness(), Readiness::READABLE);
    poller.modify(EventObject::client(0).with_interest(Interest::WRITABLE)).unwrap();
    assert!(reported(&mut poller).is_empty());
}

#[test]
fn spurious_readiness_of_an_unregistered_descriptor_has_no_effect() {
    let (mut poller, world) = watching(0, 1);
    world.open(1);
    for fd in [1, 2] {
        world.spurious(fd, Readiness::READABLE);
    }
    poller.add(EventObject::client(1)).unwrap();
    assert!(reported(&mut poller).is_empty());
}

/// C9
#[test]
fn a_batch_of_one_starves_nobody() {
    let (mut poller, world) = watching(3, 10);
    world.set_batch(0);
    (0..10).for_each(|fd| world.set_ready(fd, Readiness::READABLE));
    for _ in 0..10 {
        let mut round: Vec<_> = (0..10).flat_map(|_| reported(&mut poller)).collect();
        assert_eq!(round.len(), 10);
        round.sort_unstable();
        assert_eq!(round, Vec::from_iter(0..10));
    }
}

/// C9
#[test]
fn a_bound_holds_for_each_wait_of_a_handle_and_of_its_clones() {
    let (mut poller, world) = watching(3, 10);
    assert_eq!(poller.events(), []);
    world.set_batch(usize::MAX);
    (0..10).for_each(|fd| world.set_ready(fd, Readiness::READABLE));
    for (bound, count) in [(4, 4), (0, 1), (usize::MAX, 10), (7, 7)] {
        poller.set_max_events(bound);
        assert_eq!(poller.wait(0).unwrap().len(), count);
        assert_eq!(poller.events().len(), count);
    }
    let mut clone = poller.try_clone().unwrap();
    assert_eq!(clone.wait(0).unwrap().len(), 7);
    world.fail_wait(ErrorKind::Other.into());
    poller.wait(0).unwrap_err();
    assert_eq!(poller.events(), []);
}

/// C9: under a bound, neither wakes nor always-ready descriptors starve the other.
#[test]
fn a_bound_holds_for_wakes_too() {
    for seed in 0..20 {
        let (mut poller, world) = watching(seed, 3);
        (0..3).for_each(|fd| world.set_ready(fd, Readiness::READABLE));
        let wakers: Vec<_> =
            (10..20).map(|token| Waker::new(poller.registry(), token).unwrap()).collect();
        for bound in [1, 2, 5] {
            poller.set_max_events(bound);
            wakers.iter().for_each(|waker| waker.wake().unwrap());
            let mut missing: BTreeSet<_> = (10..20).collect();
            let (mut waits, mut others) = (0, 0);
            while !missing.is_empty() {
                let events = poller.wait(-1).unwrap();
                assert!((1..=bound).contains(&events.len()), "{events:?}");
                for event in events {
                    assert_eq!(event.is_wake(), event.fd < 0);
                    assert!(!event.is_wake() || missing.remove(&event.token), "twice: {event:?}");
                    others += usize::from(!event.is_wake());
                }
                waits += 1;
                assert!(waits < 1_000, "{missing:?} starve");
            }
            assert!(others > 0);
        }
    }
}

/// C9
#[test]
fn a_descriptor_that_was_left_out_comes_before_later_ones() {
    for seed in 0..1_000 {
        let (mut poller, world) = watching(seed, 8);
        (0..4).for_each(|fd| world.set_ready(fd, Readiness::READABLE));
        let first = reported(&mut poller);
        // Earlier arrivals repeat, too, and keep their place.
        (0..8).for_each(|fd| world.set_ready(fd, Readiness::READABLE));
        let left_out: BTreeSet<_> = (0..4).filter(|fd| !first.contains(fd)).collect();
        let mut later = Vec::new();
        while later.len() < left_out.len() {
            later.extend(reported(&mut poller));
        }
        later.truncate(left_out.len());
        assert_eq!(BTreeSet::from_iter(later), left_out, "seed {seed}");
    }
}

#[test]
fn seeds_bring_about_every_order_in_every_batch() {
    let mut seen = BTreeSet::new();
    for seed in 0..1_000 {
        let (mut poller, world) = watching(seed, 3);
        // Earlier readiness has no priority.
        for fd in [0, 1] {
            world.set_ready(fd, Readiness::READABLE);
            assert_eq!(reported(&mut poller), [fd]);
            world.clear_ready(fd, Readiness::READABLE);
            assert!(reported(&mut poller).is_empty());
        }
        (0..3).for_each(|fd| world.set_ready(fd, Readiness::READABLE));
        let events = reported(&mut poller);
        assert!(!events.is_empty());
        seen.insert(events);
    }
    // 3 batches of one, 6 of two, 6 of three.
    assert_eq!(seen.len(), 15);
}

#[test]
fn the_same_seed_reports_the_same() {
    let run = |mut poller: SimPoller| {
        let world = poller.world().clone();
        let mut all = Vec::new();
        for fd in 0..20 {
            world.open(fd);
            poller.add(EventObject::client(fd)).unwrap();
            world.set_ready(fd, Readiness::READABLE);
            all.push(reported(&mut poller));
        }
        all
    };
    assert_eq!(run(SimPoller::with_seed(5)), run(SimPoller::with_seed(5)));
    assert_ne!(run(SimPoller::with_seed(5)), run(SimPoller::with_seed(6)));
    assert_eq!(run(SimPoller::new().unwrap()), run(SimPoller::with_seed(0)));
}

#[test]
fn a_failed_test_prints_its_seed() {
    const FAILS: &str = "POLLIO_TEST_FAILS";
    if env::var_os(FAILS).is_some() {
        let (poller, world) = watching(987_654, 1);
        let planned = world.clone();
        world.schedule(HOUR, move |_| planned.set_ready(0, Readiness::READABLE));
        // The poller may be gone by the time that the test fails.
        drop(poller);
        let _second_handle = world.clone();
        panic!("an assertion of the test");
    }
    let mut command = Command::new(env::current_exe().unwrap());
    command.args(["--nocapture", "--exact", "scripted::a_failed_test_prints_its_seed"]);
    let output = command.env(FAILS, "1").output().unwrap();
    assert!(!output.status.success());
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert_eq!(stderr.matches("with_seed(987654)").count(), 1, "{stderr}");
}

#[test]
fn a_poller_shows_its_seed_and_its_time() {
    let (mut poller, world) = watching(41, 1);
    poller.wait(1_500).unwrap();
    assert_eq!(world.seed(), 41);
    let shown = format!("{poller:?}");
    assert!(shown.contains("seed: 41") && shown.contains("elapsed: 1.5s"), "{shown}");
}

#[test]
fn the_world_goes_to_other_threads() {
    let (mut poller, world) = watching(0, 1);
    let seen = Arc::new(Mutex::new(None));
    let note = seen.clone();
    thread::spawn(move || {
        world.schedule(SECOND, move |world| {
            *note.lock().unwrap() = Some(world.elapsed());
            world.set_ready(0, Readiness::READABLE);
        });
    })
    .join()
    .unwrap();
    expect_one(&mut poller);
    assert_eq!(*seen.lock().unwrap(), Some(SECOND));
}
