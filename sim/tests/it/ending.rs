//! The end of a world whose threads still run, and calls in a plan.

use std::io;
use std::panic::{self, AssertUnwindSafe};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use pollio::{Poller, Waker};
use pollio_sim::os::unix::net::UnixStream;
use pollio_sim::sync::{Arc, Condvar, Mutex, mpsc};
use pollio_sim::time::Instant;
use pollio_sim::{self as sim, SimPoller, World, thread};

use super::world::{failure, run};

const SECOND: Duration = Duration::from_secs(1);

/// Calls its closure when it is dropped.
struct OnDrop<F: FnMut()>(F);

impl<F: FnMut()> Drop for OnDrop<F> {
    fn drop(&mut self) {
        self.0();
    }
}

pub(super) fn forever() {
    thread::sleep(1_000_000 * SECOND);
}

/// Runs a body that passes, and ends while other threads wait.
pub(super) fn ends(body: impl Fn(&World)) {
    for seed in 0..50 {
        run(seed, |world| {
            body(world);
            thread::sleep(SECOND);
            Ok(())
        });
    }
}

/// Like a pool of threads that is dropped with its server.
#[test]
fn a_destructor_joins_threads_that_end_in_order() {
    let done = Arc::new(AtomicUsize::new(0));
    ends(|world| {
        let done = done.clone();
        world.spawn("server", move || {
            let (sender, receiver) = mpsc::channel::<()>();
            let receiver = Arc::new(Mutex::new(receiver));
            let mut workers: Vec<_> = (0..3)
                .map(|_| {
                    let (receiver, done) = (receiver.clone(), done.clone());
                    thread::spawn(move || {
                        while receiver.lock().unwrap().recv().is_ok() {}
                        done.fetch_add(1, Ordering::Relaxed);
                    })
                })
                .collect();
            let mut sender = Some(sender);
            let _pool = OnDrop(|| {
                drop(sender.take());
                workers.drain(..).for_each(|worker| worker.join().unwrap());
            });
            forever();
        });
    });
    assert_eq!(done.load(Ordering::Relaxed), 150);
}

#[test]
fn a_destructor_waits_for_a_lock_that_another_thread_holds() {
    ends(|world| {
        let lock = Arc::new(Mutex::new(0));
        let waits = lock.clone();
        world.spawn("waits", move || {
            let _on_drop = OnDrop(|| *waits.lock().unwrap() += 1);
            forever();
        });
        world.spawn("holds", move || {
            let _guard = lock.lock().unwrap();
            forever();
        });
    });
}

/// A thread that holds a lock when its world ends has not panicked.
#[test]
fn a_lock_that_was_held_at_the_end_is_not_poisoned() {
    ends(|world| {
        let lock = Arc::new(Mutex::new(0));
        let held = lock.clone();
        world.spawn("holds", move || {
            let _guard = held.lock().unwrap();
            forever();
        });
        world.spawn("locks", move || {
            let _on_drop = OnDrop(|| *lock.lock().unwrap() += 1);
            forever();
        });
    });
}

/// It was started first, and ends last.
#[test]
fn a_destructor_asks_a_thread_that_still_serves() {
    ends(|world| {
        let (sender, receiver) = mpsc::channel::<mpsc::Sender<()>>();
        world.spawn("serves", move || receiver.iter().for_each(|answer| answer.send(()).unwrap()));
        world.spawn("asks", move || {
            let _on_drop = OnDrop(|| {
                let (answer, answered) = mpsc::channel();
                sender.send(answer).unwrap();
                answered.recv().unwrap();
            });
            forever();
        });
    });
}

/// Nobody ever notifies, or sends, or writes.
#[test]
fn a_destructor_that_waits_without_an_end_is_ended() {
    ends(|world| {
        world.spawn("waits", || {
            let (lock, changed) = (Mutex::new(()), Condvar::new());
            let (_sender, receiver) = mpsc::channel::<()>();
            let _on_drop = OnDrop(|| {
                thread::sleep(SECOND);
                drop(changed.wait(lock.lock().unwrap()).unwrap());
                assert!(receiver.recv().is_err());
                assert!(SimPoller::new().unwrap().wait(-1).unwrap().is_empty());
            });
            forever();
        });
    });
}

#[test]
fn a_deadlock_is_reported_though_a_destructor_waits() {
    let why = failure(0, |world| {
        let lock = Arc::new(Mutex::new(()));
        let waits = lock.clone();
        world.spawn("waits", move || {
            let (_sender, receiver) = mpsc::channel::<()>();
            let _on_drop = OnDrop(|| drop(waits.lock().unwrap()));
            receiver.recv().unwrap();
        });
        let (_sender, receiver) = mpsc::channel::<()>();
        let _guard = lock.lock().unwrap();
        receiver.recv().unwrap();
        Ok(())
    });
    assert!(why.contains("deadlock") && why.contains("waits: receives from"), "{why}");
}

/// The result of a thread that is never joined is dropped in the world.
#[test]
fn a_result_that_nobody_takes_may_make_calls() {
    ends(|world| {
        world.spawn("returns", || OnDrop(thread::yield_now));
    });
}

#[test]
fn a_thread_that_catches_its_end_is_ended_again() {
    ends(|world| {
        world.spawn("catches", || {
            for _ in 0..10 {
                let _ = panic::catch_unwind(AssertUnwindSafe(forever));
            }
        });
    });
}

#[test]
fn a_plan_that_never_came_holds_nothing() {
    let holder = Arc::new(());
    run(0, |world| {
        let (stream, held) = (UnixStream::pair()?, holder.clone());
        world.schedule(1_000 * SECOND, move |_| drop((stream, held)));
        Ok(())
    });
    assert_eq!(Arc::strong_count(&holder), 1);
}

#[test]
fn a_sender_that_waits_for_room_ends_with_its_world() {
    let returned = Arc::new(AtomicUsize::new(0));
    ends(|world| {
        let returned = returned.clone();
        world.spawn("sender", move || {
            let poller = SimPoller::new().unwrap();
            let (sender, _receiver) = sim::sync_channel(poller.registry(), 0, 1).unwrap();
            sender.send(0).unwrap();
            // While it unwinds, nothing may block.
            let _last = OnDrop(|| {
                assert!(sender.send(2).is_err());
                returned.fetch_add(1, Ordering::Relaxed);
            });
            let _ = sender.send(1);
            panic!("there is no room");
        });
    });
    assert_eq!(returned.load(Ordering::Relaxed), 50);
}

/// A plan runs while threads wait, in none of them.
#[test]
fn a_plan_makes_calls() {
    for seed in 0..100 {
        run(seed, |world| {
            let mut poller = SimPoller::new()?;
            let waker = Waker::new(poller.registry(), 0)?;
            let (sender, receiver) = mpsc::channel();
            let total = Arc::new(Mutex::new(1));
            let adds = total.clone();
            world.schedule(SECOND, move |_| {
                waker.wake().unwrap();
                sender.send(Instant::now()).unwrap();
                *adds.lock().unwrap() += 1;
            });
            world.spawn("other", || thread::sleep(SECOND));
            let begin = Instant::now();
            assert_eq!(poller.wait(-1)?.len(), 1);
            assert_eq!(receiver.recv().unwrap(), begin + SECOND);
            assert_eq!(*total.lock().unwrap(), 2);
            Ok(())
        });
    }
}

#[test]
fn a_plan_that_waits_fails_the_run() {
    let plan_waits = |plan: fn()| {
        failure(0, |world| -> io::Result<()> {
            world.schedule(SECOND, move |_| plan());
            thread::sleep(2 * SECOND);
            Ok(())
        })
    };
    let why = plan_waits(|| thread::sleep(SECOND));
    assert!(why.contains("a plan panicked: only a thread of this world can wait here"), "{why}");
    let why = plan_waits(|| panic!("too late"));
    assert!(why.starts_with("a plan panicked: too late, at "), "{why}");
}

#[test]
fn a_program_looks_back_before_its_world() {
    run(0, |_| {
        let long_ago = Instant::now() - 3_600 * SECOND;
        assert_eq!(long_ago.elapsed(), 3_600 * SECOND);
        Ok(())
    });
}
