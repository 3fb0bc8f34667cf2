//! Locks, condition variables and queues between simulated threads.

use std::collections::VecDeque;
use std::panic;
use std::sync::TryLockError;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use pollio_sim::sync::{Arc, Condvar, Mutex, mpsc};
use pollio_sim::time::Instant;
use pollio_sim::{self as sim, Conditions, World, thread};

use super::world::{failure, run};

const SECOND: Duration = Duration::from_secs(1);

#[test]
fn a_lock_and_a_queue_block_in_virtual_time() {
    for seed in 0..100 {
        run(seed, |world| {
            let total = Arc::new(Mutex::new(0));
            let (sender, receiver) = mpsc::channel();
            for number in 0..3 {
                let (total, sender) = (total.clone(), sender.clone());
                world.spawn("adder", move || {
                    let mut total = total.lock().unwrap();
                    let before = *total;
                    thread::sleep(SECOND);
                    *total = before + 1;
                    sender.send(number).unwrap();
                });
            }
            drop(sender);
            let mut numbers: Vec<_> = receiver.iter().collect();
            numbers.sort_unstable();
            assert_eq!((numbers, *total.lock().unwrap()), (vec![0, 1, 2], 3));
            Ok(())
        });
    }
}

#[test]
fn a_lock_is_tried_and_taken_apart() {
    run(0, |world| {
        let lock = Arc::new(Mutex::from(1));
        let held = lock.clone();
        let holder = world.spawn("holder", move || {
            let mut number = held.lock().unwrap();
            thread::sleep(2 * SECOND);
            *number += 1;
        });
        thread::sleep(SECOND);
        assert!(matches!(lock.try_lock(), Err(TryLockError::WouldBlock)));
        holder.join().unwrap();
        *lock.try_lock().unwrap() += 1;
        assert!(!lock.is_poisoned());
        let mut lock = Arc::into_inner(lock).unwrap();
        *lock.get_mut().unwrap() += 1;
        assert_eq!(lock.into_inner().unwrap(), 4);
        Ok(())
    });
}

#[test]
fn values_are_received_by_iterators() {
    run(0, |world| {
        let (sender, receiver) = mpsc::channel();
        world.spawn("sender", move || {
            for number in 0..6 {
                sender.send(number).unwrap();
                thread::sleep(SECOND);
            }
        });
        thread::sleep(SECOND / 2);
        assert!(receiver.try_iter().eq([0]));
        assert!(receiver.try_iter().eq([]));
        assert!(receiver.iter().take(2).eq([1, 2]));
        assert_eq!((&receiver).into_iter().next(), Some(3));
        assert!(receiver.into_iter().eq([4, 5]));
        Ok(())
    });
}

/// `None` ends the thread that takes it.
type Jobs = Mutex<VecDeque<Option<u32>>>;

/// Threads take jobs from a queue. Returns the sum of their jobs.
fn work(workers: u32, take: fn(&Jobs, &Condvar) -> Option<u32>) -> u32 {
    let shared = Arc::new((Mutex::new(VecDeque::new()), Condvar::new()));
    let workers: Vec<_> = (0..workers)
        .map(|_| {
            let shared = shared.clone();
            thread::spawn(move || {
                let mut sum = 0;
                while let Some(number) = take(&shared.0, &shared.1) {
                    sum += number;
                    thread::sleep(SECOND / 10);
                }
                sum
            })
        })
        .collect();
    let jobs = (1..=10).map(Some).chain(workers.iter().map(|_| None));
    for job in jobs {
        // By now some of them are idle.
        thread::sleep(SECOND / 20);
        shared.0.lock().unwrap().push_back(job);
        shared.1.notify_one();
    }
    workers.into_iter().map(|worker| worker.join().unwrap()).sum()
}

#[test]
fn a_condition_variable_loses_no_notification() {
    sim::check(300, |_| {
        let sum = work(3, |queue, filled| {
            let queue = queue.lock().unwrap();
            let mut queue = filled.wait_while(queue, |queue| queue.is_empty()).unwrap();
            queue.pop_front().unwrap()
        });
        assert_eq!(sum, 55);
        Ok(())
    });
}

/// The failure of the first seed that fails.
fn first_failure(body: impl Fn() + Send + Sync + 'static) -> String {
    let check = || {
        sim::check(1_000, move |_| {
            body();
            Ok(())
        });
    };
    let why = panic::catch_unwind(panic::AssertUnwindSafe(check)).unwrap_err();
    *why.downcast().unwrap()
}

/// Some waits end without a notification; or another thread takes the job first.
#[test]
fn a_wait_without_a_loop_is_found() {
    for workers in [1, 3] {
        let why = first_failure(move || {
            work(workers, |queue, filled| {
                let mut queue = queue.lock().unwrap();
                if queue.is_empty() {
                    queue = filled.wait(queue).unwrap();
                }
                queue.pop_front().unwrap()
            });
        });
        assert!(why.contains("`Option::unwrap()` on a `None`"), "{why}");
    }
}

/// It comes between the check of the flag and the wait.
#[test]
fn a_notification_that_the_lock_does_not_guard_is_found() {
    let why = first_failure(|| {
        let shared = Arc::new((Mutex::new(()), Condvar::new(), AtomicBool::new(false)));
        let setter = shared.clone();
        thread::spawn(move || {
            let (_, changed, is_set) = &*setter;
            thread::sleep(SECOND);
            is_set.store(true, Ordering::SeqCst);
            changed.notify_one();
        });
        let (lock, changed, is_set) = &*shared;
        thread::sleep(SECOND);
        let guard = lock.lock().unwrap();
        drop(changed.wait_while(guard, |()| !is_set.load(Ordering::SeqCst)).unwrap());
    });
    assert!(why.contains("deadlock"), "{why}");
    assert!(why.contains("main: waits to be notified"), "{why}");
}

#[test]
fn locks_that_are_taken_in_two_orders_are_found() {
    let why = first_failure(|| {
        let locks = Arc::new((Mutex::new(()), Mutex::new(())));
        let other = locks.clone();
        let thread = thread::spawn(move || {
            let _second = other.1.lock().unwrap();
            let _first = other.0.lock().unwrap();
        });
        let first = locks.0.lock().unwrap();
        let second = locks.1.lock().unwrap();
        drop((first, second));
        thread.join().unwrap();
    });
    assert!(why.contains("deadlock"), "{why}");
}

#[test]
fn a_change_in_two_sections_is_found() {
    let why = first_failure(|| {
        let total = Arc::new(Mutex::new(0));
        let add = |total: &Mutex<u32>| {
            let before = *total.lock().unwrap();
            *total.lock().unwrap() = before + 1;
        };
        let other = total.clone();
        let thread = thread::spawn(move || add(&other));
        add(&total);
        thread.join().unwrap();
        assert_eq!(*total.lock().unwrap(), 2);
    });
    assert!(why.contains("left: 1"), "{why}");
}

/// Runs `body` in a world without faults.
fn calm(body: impl FnOnce(&World)) {
    run(0, |world| {
        world.set_conditions(Conditions::calm());
        body(world);
        Ok(())
    });
}

#[test]
fn a_wait_to_be_notified_ends_when_the_time_is_up() {
    calm(|world| {
        let shared = Arc::new((Mutex::new(false), Condvar::default()));
        let (lock, changed) = &*shared;
        let begin = Instant::now();
        let (guard, result) = changed.wait_timeout(lock.lock().unwrap(), SECOND).unwrap();
        assert!(result.timed_out() && !*guard);
        assert_eq!(begin.elapsed(), SECOND);
        let waited = changed.wait_timeout_while(guard, SECOND, |is_set| !*is_set);
        let (guard, result) = waited.unwrap();
        assert!(result.timed_out() && !*guard);
        assert_eq!(begin.elapsed(), 2 * SECOND);
        drop(guard);

        let setter = shared.clone();
        world.spawn("setter", move || {
            for is_set in [false, true] {
                thread::sleep(SECOND);
                *setter.0.lock().unwrap() = is_set;
                setter.1.notify_all();
            }
        });
        let guard = lock.lock().unwrap();
        let waited = changed.wait_timeout_while(guard, 9 * SECOND, |is_set| !*is_set);
        let (guard, result) = waited.unwrap();
        assert!(!result.timed_out() && *guard);
        assert_eq!(begin.elapsed(), 4 * SECOND);
        // Without a notification, and without time left.
        let (_guard, result) = changed.wait_timeout(guard, Duration::ZERO).unwrap();
        assert!(result.timed_out());
        assert_eq!(begin.elapsed(), 4 * SECOND);
    });
}

#[test]
fn one_wait_is_ended_or_all_are() {
    calm(|world| {
        let shared = Arc::new((Mutex::new(0), Condvar::new()));
        let (woken, changed) = &*shared;
        // No thread waits yet.
        changed.notify_all();
        for _ in 0..3 {
            let shared = shared.clone();
            world.spawn("waiter", move || {
                *shared.1.wait(shared.0.lock().unwrap()).unwrap() += 1;
            });
        }
        let woken = |after: fn(&Condvar)| {
            thread::sleep(SECOND);
            after(changed);
            thread::sleep(SECOND);
            *woken.lock().unwrap()
        };
        assert_eq!(woken(|_| ()), 0);
        assert_eq!(woken(Condvar::notify_one), 1);
        assert_eq!(woken(Condvar::notify_all), 3);
    });
}

#[test]
fn a_thread_that_is_built_has_its_name_in_reports() {
    let fails = |name: Option<&str>| {
        failure(0, |_| {
            let builder = thread::Builder::new();
            let builder = match name {
                Some(name) => builder.name(name.to_owned()),
                None => builder,
            };
            let builder = builder.stack_size(1 << 16);
            let thread = builder.spawn(|| panic!("on purpose"))?;
            thread.join().unwrap();
            Ok(())
        })
    };
    assert!(fails(Some("worker 7")).starts_with("thread `worker 7` panicked: on purpose, at "));
    assert!(fails(None).starts_with("thread `thread` panicked: on purpose, at "));
}

#[test]
fn everything_is_shown() {
    let lock = Mutex::new(7);
    assert!(format!("{lock:?}").contains('7'));
    assert_eq!(format!("{:?}", lock.lock().unwrap()), "7");
    assert_eq!(format!("{:?}", Condvar::new()), "Condvar { .. }");
    run(0, |_| {
        let (sender, receiver) = mpsc::channel::<()>();
        assert_eq!(format!("{sender:?}, {receiver:?}"), "Sender { .. }, Receiver { .. }");
        assert_eq!(format!("{:?}", mpsc::sync_channel::<()>(1).0), "SyncSender { .. }");
        assert_eq!(format!("{:?}", thread::spawn(|| ())), "JoinHandle { .. }");
        Ok(())
    });
}

#[test]
fn a_thread_that_yields_lets_others_run() {
    for seed in 0..20 {
        run(seed, |world| {
            let is_set = Arc::new(AtomicBool::new(false));
            let sets = is_set.clone();
            world.spawn("sets", move || sets.store(true, Ordering::SeqCst));
            while !is_set.load(Ordering::SeqCst) {
                thread::yield_now();
            }
            Ok(())
        });
    }
}

#[test]
fn a_thread_is_finished_once_it_has_returned() {
    run(0, |_| {
        assert_eq!(thread::available_parallelism()?.get(), 2);
        let thread = thread::spawn(|| thread::sleep(2 * SECOND));
        thread::sleep(SECOND);
        assert!(!thread.is_finished());
        thread::sleep(2 * SECOND);
        assert!(thread.is_finished());
        Ok(())
    });
}

#[test]
fn a_lock_is_poisoned_by_a_panic_until_it_is_cleared() {
    let lock = Mutex::new(7);
    let panics = || {
        let _guard = lock.lock();
        panic::resume_unwind(Box::new(()));
    };
    panic::catch_unwind(panic::AssertUnwindSafe(panics)).unwrap_err();
    assert!(lock.is_poisoned());
    assert_eq!(*lock.lock().unwrap_err().into_inner(), 7);
    lock.clear_poison();
    assert!(!lock.is_poisoned() && lock.lock().is_ok());
}

/// As for a lock in a `static`, which outlives its world.
#[test]
fn a_lock_of_another_world_says_so() {
    let lock = Arc::new(Mutex::new(()));
    let contend = |world: &World| {
        let held = lock.clone();
        world.spawn("holder", move || {
            let _guard = held.lock().unwrap();
            thread::sleep(2 * SECOND);
        });
        thread::sleep(SECOND);
        drop(lock.lock().unwrap());
        Ok(())
    };
    run(0, contend);
    let why = failure(0, contend);
    assert!(why.contains("nothing in a `static`"), "{why}");
}
