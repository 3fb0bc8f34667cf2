//! Threads that borrow, and threads that are parked.

use std::io::{self, Read, Write};
use std::panic::{self, AssertUnwindSafe};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use pollio_sim::net::{TcpListener, TcpStream};
use pollio_sim::os::unix::net::UnixStream;
use pollio_sim::sync::{Arc, Mutex, mpsc};
use pollio_sim::time::Instant;
use pollio_sim::{Conditions, World, thread};

use super::ending::{ends, forever};
use super::world::{failure, run};

const SECOND: Duration = Duration::from_secs(1);
const ADDRESS: &str = "10.0.0.1:7";

/// Counts how often it is dropped.
struct Counts<'a>(&'a AtomicUsize);

impl Drop for Counts<'_> {
    fn drop(&mut self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

/// Two threads borrow locals, and are client and server.
fn borrow(world: &World) -> io::Result<()> {
    world.set_conditions(Conditions::calm());
    let listener = TcpListener::bind(ADDRESS)?;
    let message = [7; 1_000];
    let mut received = Vec::new();
    let sent = thread::scope(|s| {
        let client = s.spawn(|| {
            let mut stream = TcpStream::connect(ADDRESS).unwrap();
            stream.write_all(&message).unwrap();
            message.len()
        });
        s.spawn(|| listener.accept().unwrap().0.read_to_end(&mut received).unwrap());
        client.join().unwrap()
    });
    assert_eq!(sent, received.len());
    assert_eq!(received, message);
    Ok(())
}

#[test]
fn threads_of_a_scope_borrow_and_replay() {
    for seed in 0..100 {
        let outcome = run(seed, borrow);
        assert!(outcome.trace.len() > 3);
        assert_eq!(outcome, run(seed, borrow));
    }
}

/// The inner ones wait at their ends for bytes that are sent by threads that the outer one runs.
#[test]
fn nested_scopes_wait_in_sockets() {
    for seed in 0..100 {
        run(seed, |_| {
            let total = AtomicUsize::new(0);
            thread::scope(|outer| {
                for _ in 0..3 {
                    let (reader, writer) = UnixStream::pair().unwrap();
                    outer.spawn(|| {
                        let mut reader = reader;
                        thread::scope(|inner| {
                            inner.spawn(|| {
                                let mut bytes = Vec::new();
                                reader.read_to_end(&mut bytes).unwrap();
                                total.fetch_add(bytes.len(), Ordering::Relaxed);
                            });
                        });
                        total.fetch_add(100, Ordering::Relaxed);
                    });
                    // It is added to the outer scope by one of its threads.
                    outer.spawn(|| {
                        let mut writer = writer;
                        outer.spawn(move || {
                            thread::sleep(SECOND);
                            writer.write_all(&[1; 5]).unwrap();
                        });
                    });
                }
            });
            assert_eq!(total.load(Ordering::Relaxed), 315);
            Ok(())
        });
    }
}

#[test]
fn a_thread_of_a_scope_has_a_name_and_a_result() {
    run(0, |_| {
        assert_eq!(thread::current().name(), Some("main"));
        let local = String::from("local");
        thread::scope(|s| {
            let builder = thread::Builder::new().name("named".into());
            let named = builder.spawn_scoped(s, thread::current).unwrap();
            assert!(!named.is_finished());
            assert_eq!(named.thread().name(), Some("named"));
            let id = named.thread().id();
            assert_eq!(named.join().unwrap().id(), id);
            let unnamed = s.spawn(|| (thread::current().name().is_none(), &*local));
            assert_eq!(unnamed.join().unwrap(), (true, "local"));
        });
        Ok(())
    });
}

#[test]
fn a_thread_of_a_scope_that_panics_fails_the_run() {
    for seed in 0..50 {
        let (begun, ended, after) = <[AtomicUsize; 3]>::default().into();
        let run = |is_joined: bool| {
            failure(seed, |_| {
                thread::scope(|s| {
                    s.spawn(|| {
                        begun.fetch_add(1, Ordering::Relaxed);
                        let _counts = Counts(&ended);
                        forever();
                    });
                    let clumsy = s.spawn(|| panic!("ouch"));
                    if is_joined {
                        let _ = clumsy.join();
                        after.fetch_add(1, Ordering::Relaxed);
                    }
                });
                after.fetch_add(1, Ordering::Relaxed);
                Ok(())
            })
        };
        for is_joined in [false, true] {
            let why = run(is_joined);
            assert!(why.starts_with("thread `thread` panicked: ouch, at "), "{why}");
        }
        assert_eq!(after.load(Ordering::Relaxed), 0);
        assert_eq!(begun.load(Ordering::Relaxed), ended.load(Ordering::Relaxed));
    }
}

/// A program may catch it.
#[test]
fn a_panic_in_a_scope_goes_on_after_its_threads() {
    for seed in 0..50 {
        run(seed, |_| {
            let done = AtomicUsize::new(0);
            let outcome = panic::catch_unwind(AssertUnwindSafe(|| {
                thread::scope(|s| -> () {
                    s.spawn(|| {
                        thread::sleep(SECOND);
                        done.fetch_add(1, Ordering::Relaxed);
                    });
                    panic!("oh");
                });
            }));
            assert_eq!(outcome.unwrap_err().downcast_ref(), Some(&"oh"));
            assert_eq!(done.load(Ordering::Relaxed), 1);
            Ok(())
        });
    }
}

#[test]
fn a_panic_that_leaves_a_scope_hanging_is_in_the_trace() {
    let outcome = World::run(0, |_| {
        let (_sender, receiver) = mpsc::channel::<()>();
        thread::scope(|s| {
            s.spawn(|| receiver.into_iter().for_each(drop));
            panic!("oh");
        })
    });
    let why = outcome.failure.unwrap();
    assert!(why.starts_with("deadlock") && why.contains("main: waits for the threads"), "{why}");
    assert!(outcome.trace.iter().any(|line| line.ends_with(" panic in a scope: oh")));
}

#[test]
fn a_deadlock_in_a_scope_says_who_waits_for_what() {
    let why = failure(0, |_| {
        let listener = TcpListener::bind(ADDRESS)?;
        thread::scope(|s| {
            let builder = thread::Builder::new().name("server".into());
            builder.spawn_scoped(s, || listener.accept().unwrap()).unwrap();
            thread::Builder::new().name("parked".into()).spawn_scoped(s, thread::park).unwrap();
        });
        Ok(())
    });
    assert!(why.starts_with("deadlock"), "{why}");
    assert!(why.contains("main: waits for the threads of a scope"), "{why}");
    assert!(why.contains("server: accept listener 10.0.0.1:7"), "{why}");
    assert!(why.contains("parked: is parked"), "{why}");
}

/// One waits in a scope, another at its end; in both, threads wait at the ends of their own.
#[test]
fn a_world_that_ends_while_scopes_wait_ends_their_threads_first() {
    let counts = Arc::new(<[AtomicUsize; 3]>::default());
    ends(|world| {
        for is_at_end in [false, true] {
            let counts = counts.clone();
            world.spawn("outer", move || {
                let ([begun, ended, late], local) = (&*counts, AtomicUsize::new(0));
                thread::scope(|s| {
                    for _ in 0..2 {
                        s.spawn(|| {
                            begun.fetch_add(1, Ordering::Relaxed);
                            let _counts = (Counts(&local), Counts(ended));
                            thread::scope(|s| {
                                s.spawn(|| {
                                    begun.fetch_add(1, Ordering::Relaxed);
                                    let _counts = (Counts(&local), Counts(ended));
                                    forever();
                                });
                            });
                            late.fetch_add(1, Ordering::Relaxed);
                        });
                    }
                    if !is_at_end {
                        forever();
                    }
                });
                late.fetch_add(1, Ordering::Relaxed);
            });
        }
    });
    let counts = counts.each_ref().map(|count| count.load(Ordering::Relaxed));
    assert_eq!(counts, [400, 400, 0]);
}

/// Waits in its destructor for what never comes.
struct Waits(mpsc::Receiver<()>);

impl Drop for Waits {
    fn drop(&mut self) {
        assert!(self.0.recv().is_err());
    }
}

/// A thread that waits at the end of a scope never gives up, those of the scope do.
#[test]
fn a_destructor_in_a_scope_gives_up_as_the_world_ends() {
    let ended = Arc::new(AtomicUsize::new(0));
    ends(|world| {
        let ended = ended.clone();
        world.spawn("outer", move || {
            let ended = &*ended;
            thread::scope(|s| {
                s.spawn(move || {
                    let _counts = Counts(ended);
                    let (_sender, receiver) = mpsc::channel();
                    let _waits = Waits(receiver);
                    forever();
                });
            });
        });
    });
    assert_eq!(ended.load(Ordering::Relaxed), 50);
}

/// No thread begins after the end, so that of the scope does not.
#[test]
fn a_destructor_runs_a_scope_as_the_world_ends() {
    struct Scopes<'a>(&'a AtomicUsize);
    impl Drop for Scopes<'_> {
        fn drop(&mut self) {
            thread::scope(|s| {
                s.spawn(|| self.0.fetch_add(1, Ordering::Relaxed));
                self.0.fetch_add(1, Ordering::Relaxed);
            });
            self.0.fetch_add(10, Ordering::Relaxed);
        }
    }
    for seed in 0..50 {
        let count = Arc::new(AtomicUsize::new(0));
        run(seed, |world| {
            let count = count.clone();
            world.spawn("scopes", move || {
                let _scopes = Scopes(&count);
                forever();
            });
            thread::sleep(SECOND);
            Ok(())
        });
        assert_eq!(count.load(Ordering::Relaxed), 11);
    }
}

#[test]
fn a_scope_holds_nothing_after_its_end() {
    let holder = Arc::new(());
    run(0, |world| {
        let held = holder.clone();
        world.schedule(1_000 * SECOND, move |_| drop(held));
        thread::scope(|s| drop(s.spawn(thread::yield_now)));
        Ok(())
    });
    assert_eq!(Arc::strong_count(&holder), 1);
}

#[test]
fn a_plan_has_no_scope() {
    let why = failure(0, |world| {
        world.schedule(SECOND, |_| thread::scope(|s| drop(s.spawn(|| ()))));
        thread::sleep(2 * SECOND);
        Ok(())
    });
    assert!(why.contains("a plan panicked: only a thread of this world can wait here"), "{why}");
}

#[test]
fn a_thread_is_parked_until_it_is_unparked() {
    for seed in 0..100 {
        run(seed, |world| {
            world.set_conditions(Conditions::calm());
            let begin = Instant::now();
            let parked = thread::spawn(move || {
                thread::park();
                begin.elapsed()
            });
            thread::sleep(SECOND);
            parked.thread().unpark();
            assert!(parked.join().unwrap() >= SECOND);
            // A token, and not two, is kept.
            let main = thread::current();
            main.unpark();
            thread::scope(|s| drop(s.spawn(|| main.unpark())));
            thread::park();
            let begin = Instant::now();
            thread::park_timeout(SECOND);
            assert!(begin.elapsed() >= SECOND);
            Ok(())
        });
    }
}

#[test]
fn a_park_that_is_spurious_ends_early() {
    let early = (0..100).filter(|seed| {
        let early = Mutex::new(false);
        run(*seed, |world| {
            world.set_conditions(Conditions::default().with_spurious(true));
            for _ in 0..10 {
                let begin = Instant::now();
                thread::park_timeout(SECOND);
                *early.lock().unwrap() |= begin.elapsed() < SECOND;
            }
            Ok(())
        });
        early.into_inner().unwrap()
    });
    assert!(early.count() > 0);
}
