//! Threads that borrow: none goes on when its scope is left, in whichever way.

use std::io::{self, Read, Write};
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::Duration;

use pollio_sim::net::{TcpListener, TcpStream};
use pollio_sim::sync::Arc;
use pollio_sim::thread::{Builder, Scope, scope};
use pollio_sim::{Conditions, World, thread};

use super::world::{failure, run};

const SECOND: Duration = Duration::from_secs(1);
const ADDRESS: &str = "10.0.0.1:7";

fn talk(text: &str) -> io::Result<usize> {
    TcpStream::connect(ADDRESS)?.write_all(text.as_bytes())?;
    Ok(text.len())
}

#[test]
fn threads_borrow_and_return() {
    for seed in 0..100 {
        run(seed, |world| {
            world.set_conditions(Conditions::calm());
            let listener = TcpListener::bind(ADDRESS)?;
            let mut received = String::new();
            let sent = scope(|scope| {
                let reader = scope.spawn(|| listener.accept()?.0.read_to_string(&mut received));
                let sent = talk("some words")?;
                assert_eq!(reader.join().unwrap()?, sent);
                Ok::<_, io::Error>(sent)
            })?;
            assert_eq!((&*received, sent), ("some words", 10));
            Ok(())
        });
    }
}

/// One that is started by another one, too.
#[test]
fn a_scope_waits_for_threads_that_nobody_joins() {
    for seed in 0..100 {
        run(seed, |world| {
            let count = AtomicUsize::new(0);
            let sleep = |seconds| {
                thread::sleep(seconds * SECOND);
                count.fetch_add(1, Relaxed);
            };
            scope(|scope| {
                scope.spawn(|| {
                    scope.spawn(|| {
                        sleep(3);
                        scope.spawn(|| sleep(2));
                    });
                    sleep(1);
                });
            });
            assert_eq!((count.load(Relaxed), world.elapsed().as_secs()), (3, 5));
            Ok(())
        });
    }
}

#[test]
fn a_seed_with_scopes_replays_exactly() {
    for seed in 0..20 {
        let trace = || {
            run(seed, |_| {
                let listener = TcpListener::bind(ADDRESS)?;
                scope(|scope| {
                    for _ in 0..3 {
                        scope.spawn(|| listener.accept()?.0.read_to_string(&mut String::new()));
                    }
                    (0..3).try_for_each(|_| talk("some words").map(drop))
                })
            })
            .trace
        };
        assert_eq!(trace(), trace(), "seed {seed}");
    }
}

/// What became of scopes and their threads.
#[derive(Default)]
struct Counts {
    alive: AtomicUsize,
    /// The scopes that were left.
    left: AtomicUsize,
    /// The threads that were alive when their scope was left.
    late: AtomicUsize,
}

/// Alive until it is dropped.
struct Alive<'a>(&'a Counts);

impl<'a> Alive<'a> {
    fn new(counts: &'a Counts) -> Self {
        counts.alive.fetch_add(1, Relaxed);
        Self(counts)
    }
}

impl Drop for Alive<'_> {
    fn drop(&mut self) {
        // Others may run first.
        thread::yield_now();
        self.0.alive.fetch_sub(1, Relaxed);
    }
}

/// Dropped when a scope is left.
struct Witness<'a>(&'a Counts);

impl Drop for Witness<'_> {
    fn drop(&mut self) {
        self.0.left.fetch_add(1, Relaxed);
        self.0.late.fetch_add(self.0.alive.load(Relaxed), Relaxed);
    }
}

/// Three threads of a scope sleep, each in a scope of its own in which another one waits for a client that never
/// comes. Then `leave` ends what it can.
fn wait_in_scopes(
    counts: &Counts,
    leave: impl for<'scope> FnOnce(&'scope Scope<'scope, '_>),
) -> io::Result<()> {
    let listener = TcpListener::bind(ADDRESS)?;
    let accept = || {
        let _alive = Alive::new(counts);
        listener.accept().map(drop)
    };
    let _witness = Witness(counts);
    scope(|outer| {
        for _ in 0..3 {
            outer.spawn(|| {
                let _alive = Alive::new(counts);
                scope(|inner| {
                    inner.spawn(accept);
                    thread::sleep(SECOND);
                });
            });
        }
        thread::sleep(SECOND / 2);
        assert_eq!(counts.alive.load(Relaxed), 6);
        leave(outer);
    });
    Ok(())
}

#[track_caller]
fn expect_left(counts: &Counts) {
    let Counts { alive, left, late } = counts;
    assert_eq!((left.load(Relaxed), late.load(Relaxed), alive.load(Relaxed)), (1, 0, 0));
}

/// As in a program, where `std` waits for the threads as well.
#[test]
fn a_body_that_panics_waits_for_the_threads() {
    for seed in 0..50 {
        let counts = Counts::default();
        let why = failure(seed, |_| {
            let threads = &counts;
            scope(|scope| {
                scope.spawn(|| {
                    let _alive = Alive::new(threads);
                    thread::sleep(SECOND);
                });
                panic!("enough");
            })
        });
        assert!(why.starts_with("it panicked: enough"), "{why}");
        assert_eq!(counts.alive.load(Relaxed), 0);
    }
}

/// They wait for ever. The report says what happened before.
#[test]
fn a_body_that_panics_under_waiting_threads_is_a_deadlock() {
    for seed in 0..50 {
        let counts = Counts::default();
        let outcome = World::run(seed, |_| wait_in_scopes(&counts, |_| panic!("enough")));
        let (why, trace) = (outcome.failure.unwrap(), outcome.trace.join("\n"));
        assert!(why.contains("\n  main: waits for the threads of its scope"), "{why}");
        assert!(trace.contains(" main         panicked in a scope: enough, at "), "{trace}");
        expect_left(&counts);
    }
}

#[test]
fn a_thread_that_panics_ends_the_others_first() {
    for seed in 0..50 {
        let counts = Counts::default();
        let why = failure(seed, |_| {
            wait_in_scopes(&counts, |scope| {
                let body = || panic!("enough");
                Builder::new().name("last".into()).spawn_scoped(scope, body).unwrap();
            })
        });
        assert!(why.starts_with("thread `last` panicked: enough"), "{why}");
        expect_left(&counts);
    }
}

#[test]
fn a_world_that_ends_ends_the_threads_before_their_scope() {
    for seed in 0..50 {
        for seconds in [0.75, 1.5] {
            let counts = Arc::new(Counts::default());
            let theirs = counts.clone();
            run(seed, |world| {
                world.spawn("owner", move || wait_in_scopes(&theirs, |_| ()));
                thread::sleep(SECOND.mul_f64(seconds));
                Ok(())
            });
            expect_left(&counts);
        }
    }
}

/// The scope is in a destructor, which the end of the world has reached.
#[test]
fn a_scope_that_begins_late_ends_as_well() {
    struct OnDrop(Arc<Counts>);
    impl Drop for OnDrop {
        fn drop(&mut self) {
            let _witness = Witness(&self.0);
            scope(|scope| {
                scope.spawn(|| drop(Alive::new(&self.0)));
                scope.spawn(|| thread::sleep(SECOND));
            });
        }
    }
    for seed in 0..50 {
        let counts = Arc::new(Counts::default());
        let theirs = OnDrop(counts.clone());
        run(seed, |world| {
            world.spawn("owner", move || {
                let _on_drop = theirs;
                thread::sleep(1_000 * SECOND);
            });
            thread::sleep(SECOND);
            Ok(())
        });
        expect_left(&counts);
    }
}

#[test]
fn a_deadlock_in_a_scope_is_reported() {
    let why = failure(0, |_| wait_in_scopes(&Counts::default(), |_| ()));
    assert!(why.starts_with("deadlock"), "{why}");
    assert!(why.contains("\n  main: waits for the threads of its scope"), "{why}");
    assert!(why.contains("\n  thread: waits for the threads of its scope"), "{why}");
    assert!(why.contains("\n  thread: accept listener 10.0.0.1:7"), "{why}");
}

#[test]
fn a_plan_has_no_scopes() {
    let why = failure(0, |world| {
        world.schedule(SECOND, |_: &World| scope(|scope| drop(scope.spawn(|| ()))));
        thread::sleep(2 * SECOND);
        Ok(())
    });
    assert!(why.contains("a plan panicked: only a thread of this world can wait"), "{why}");
}
