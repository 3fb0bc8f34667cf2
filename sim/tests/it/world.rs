//! Tests of a simulated world apart from its sockets.

use std::io::{self, ErrorKind, Read, Write};
use std::os::fd::AsRawFd;
use std::panic;
use std::rc::Rc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{SendError, TrySendError};
use std::time::Duration;

use pollio::{EventObject, Mode, Poller, Registered, Registry, Waker};
use pollio_sim::net::{SocketAddr, TcpListener, TcpStream};
use pollio_sim::os::fd::AsFd;
use pollio_sim::os::unix::net::UnixStream;
use pollio_sim::socket2::{Domain, Type};
use pollio_sim::sync::Arc;
use pollio_sim::time::Instant;
use pollio_sim::{self as sim, Conditions, SimPoller, Timer, World, thread};

const SECOND: Duration = Duration::from_secs(1);
const ADDRESS: &str = "10.0.0.1:7";

/// The failure of a run that has to fail.
pub(super) fn failure(seed: u64, body: impl FnOnce(&World) -> io::Result<()>) -> String {
    World::run(seed, body).failure.expect("this fails")
}

/// Runs a body that must not fail.
pub(super) fn run(seed: u64, body: impl FnOnce(&World) -> io::Result<()>) -> sim::Outcome {
    let outcome = World::run(seed, body);
    assert_eq!(outcome.failure, None, "seed {seed}: {:#?}", outcome.trace);
    outcome
}

/// Serves one client after another, with blocking calls.
fn echo() -> io::Result<()> {
    for stream in TcpListener::bind(ADDRESS)?.incoming() {
        // A fault: the client is still in the queue.
        let Ok(mut stream) = stream else { continue };
        let mut buffer = [0; 100];
        while let count @ 1.. = stream.read(&mut buffer)? {
            stream.write_all(&buffer[..count])?;
        }
    }
    Ok(())
}

fn ask() -> io::Result<()> {
    let mut client = TcpStream::connect(ADDRESS)?;
    for number in 0..10 {
        client.write_all(&[number; 100])?;
        let mut answer = [0; 100];
        client.read_exact(&mut answer)?;
        assert_eq!(answer, [number; 100]);
    }
    Ok(())
}

fn several_ask(world: &World) -> io::Result<()> {
    world.spawn("server", || echo().unwrap());
    thread::sleep(SECOND);
    let clients: Vec<_> =
        (0..3).map(|number| world.spawn(&format!("client {number}"), || ask().unwrap())).collect();
    clients.into_iter().for_each(|client| client.join().unwrap());
    Ok(())
}

#[test]
fn a_seed_replays_exactly_and_another_does_not() {
    for seed in 0..50 {
        let (first, second) = (run(seed, several_ask), run(seed, several_ask));
        assert!(first.trace.len() > 30);
        assert_eq!(first, second);
        assert_ne!(first.trace, run(seed + 1, several_ask).trace);
    }
}

#[test]
fn a_deadlock_says_who_waits_for_what() {
    let why = failure(1, |world| {
        world.spawn("server", || {
            let mut poller = SimPoller::new().unwrap();
            let listener = TcpListener::bind(ADDRESS).unwrap();
            poller.add(EventObject::server(listener.as_raw_fd())).unwrap();
            poller.wait(-1).unwrap();
            poller.delete(listener.as_raw_fd()).unwrap();
            poller.wait(-1).unwrap();
        });
        thread::sleep(SECOND);
        TcpStream::connect(ADDRESS)?.read(&mut [0]).map(drop)
    });
    assert!(why.starts_with("deadlock"), "{why}");
    assert!(why.contains("server: waits for events of a poller with nothing registered"), "{why}");
    assert!(why.contains("main: read 10.0.0.1:49152 to 10.0.0.1:7"), "{why}");
}

#[test]
fn a_panic_in_any_thread_fails_the_run() {
    let in_thread = failure(1, |world| {
        world.spawn("clumsy", || panic!("ouch"));
        thread::sleep(SECOND);
        Ok(())
    });
    let in_body = failure(1, |_| panic!("oh"));
    let in_plan = failure(1, |world| {
        world.schedule(SECOND, |_| panic!("oops"));
        thread::sleep(2 * SECOND);
        Ok(())
    });
    assert!(in_thread.starts_with("thread `clumsy` panicked: ouch, at "), "{in_thread}");
    assert!(in_body.starts_with("it panicked: oh, at "), "{in_body}");
    assert!(in_plan.starts_with("a plan panicked: oops, at "), "{in_plan}");
    let error = failure(1, |_| Err(ErrorKind::NotFound.into()));
    assert!(error.contains("entity not found"), "{error}");
}

#[test]
fn a_thread_that_spins_fails_the_run() {
    let why = failure(1, |world| {
        world.spawn("spinner", || {
            let mut poller = SimPoller::new().unwrap();
            while poller.wait(0).unwrap().is_empty() {}
        });
        world.set_conditions(Conditions::calm());
        thread::sleep(SECOND);
        Ok(())
    });
    assert!(why.contains("thread `spinner` spins"), "{why}");
}

#[test]
fn a_forgotten_client_fails_the_run() {
    fn forgetful(world: &World) -> io::Result<()> {
        world.set_conditions(Conditions::calm());
        world.set_patience(SECOND);
        world.spawn("server", || {
            let listener = TcpListener::bind(ADDRESS).unwrap();
            let mut poller = SimPoller::new().unwrap();
            let server = EventObject::server(listener.as_raw_fd());
            poller.add(server.with_mode(Mode::Edge)).unwrap();
            loop {
                poller.wait(-1).unwrap();
                // Accepts one client for each edge, though two may have come.
                listener.accept().unwrap();
            }
        });
        thread::sleep(SECOND);
        let _clients = [TcpStream::connect(ADDRESS)?, TcpStream::connect(ADDRESS)?];
        thread::sleep(10 * SECOND);
        Ok(())
    }
    // The clients are a round trip apart: only a server that is late meets both.
    assert_eq!(World::run(0, forgetful).failure, None);
    let why = failure(0, |world| {
        world.schedule(SECOND, |world| world.set_patience(SECOND));
        world.spawn("server", || {
            let listener = TcpListener::bind(ADDRESS).unwrap();
            listener.set_nonblocking(true).unwrap();
            let mut poller = SimPoller::new().unwrap();
            let server = EventObject::server(listener.as_raw_fd());
            poller.add(server.with_mode(Mode::Edge)).unwrap();
            poller.wait(-1).unwrap();
            thread::sleep(SECOND);
            let _ = listener.accept();
            poller.wait(0).unwrap();
            poller.wait(-1).unwrap();
        });
        thread::sleep(SECOND);
        let _clients = [TcpStream::connect(ADDRESS)?, TcpStream::connect(ADDRESS)?];
        thread::sleep(100 * SECOND);
        Ok(())
    });
    assert!(why.contains("listener 10.0.0.1:7, 1 in its queue has waited"), "{why}");
}

#[test]
fn time_passes_only_while_all_wait() {
    let outcome = run(3, |world| {
        world.set_conditions(Conditions::calm());
        let begin = Instant::now();
        let sleepers: Vec<_> = (1..=3)
            .map(|seconds| world.spawn("sleeper", move || thread::sleep(seconds * SECOND)))
            .collect();
        sleepers.into_iter().for_each(|sleeper| sleeper.join().unwrap());
        assert_eq!(begin.elapsed(), 3 * SECOND);
        Ok(())
    });
    assert_eq!(outcome.elapsed, 3 * SECOND);
}

/// Each period counts, and later periods keep their phase, like those of a timerfd.
#[test]
fn a_timer_counts_the_periods_that_a_plan_lets_pass() {
    run(0, |world| {
        world.set_conditions(Conditions::calm());
        let (timer, once) = (Timer::new()?, Timer::new()?);
        let mut poller = SimPoller::new()?;
        poller.add(EventObject::new(timer.as_raw_fd()))?;
        timer.set_interval(SECOND)?;
        once.set(3 * SECOND)?;
        world.schedule(5 * SECOND / 2, |world| world.advance(3 * SECOND));
        thread::sleep(9 * SECOND / 4);
        assert_eq!(timer.clear()?, 2);
        assert_eq!(poller.wait(-1)?.len(), 1);
        assert_eq!(world.elapsed(), 11 * SECOND / 2);
        assert_eq!((timer.clear()?, once.clear()?), (3, 1));
        assert_eq!(poller.wait(-1)?.len(), 1);
        assert_eq!((timer.clear()?, world.elapsed()), (1, 6 * SECOND));
        Ok(())
    });
}

#[test]
fn a_timer_and_a_waker_end_a_wait() {
    for seed in 0..100 {
        run(seed, |world| {
            let mut poller = SimPoller::new()?;
            let (waker, timer) = (Waker::new(poller.registry(), 1)?, Timer::new()?);
            poller.add(EventObject::new(timer.as_raw_fd()).with_token(2))?;
            timer.set_interval(SECOND)?;
            let begin = Instant::now();
            assert_eq!(poller.wait(-1)?[0].token, 2);
            assert!(begin.elapsed() >= SECOND - Duration::from_millis(11));
            assert!(timer.clear()? >= 1);
            timer.disarm()?;
            world.spawn("waker", move || waker.wake().unwrap());
            let events = poller.wait(-1)?;
            assert_eq!((events.len(), events[0].token, events[0].is_wake()), (1, 1, true));
            assert!(poller.wait(0)?.is_empty());
            Ok(())
        });
    }
}

/// C18: an edge, a oneshot or a wake goes to exactly one of the threads that wait on one poller.
#[test]
fn a_single_report_ends_one_wait_of_a_shared_poller() {
    for mode in [None, Some(Mode::Oneshot), Some(Mode::Edge)] {
        let mut first = [0, 0];
        for seed in 0..200 {
            run(seed, |world| {
                world.set_conditions(Conditions::calm());
                let poller = SimPoller::new()?;
                let waker = Waker::new(poller.registry(), 0)?;
                let timer = Timer::new()?;
                if let Some(mode) = mode {
                    poller.add(EventObject::new(timer.as_raw_fd()).with_mode(mode))?;
                }
                let waiters = [0, 1].map(|_| {
                    let mut poller = poller.try_clone().unwrap();
                    world.spawn("waiter", move || {
                        let count = poller.wait_timeout(Some(10 * SECOND)).unwrap().len();
                        (count, Instant::now())
                    })
                });
                let begin = Instant::now();
                if mode.is_some() {
                    timer.set(SECOND)?;
                } else {
                    thread::sleep(SECOND);
                    waker.wake()?;
                }
                let ends = waiters.map(|waiter| waiter.join().unwrap());
                let ends = ends.map(|(count, end)| (count, (end - begin).as_secs()));
                match ends {
                    [(1, 1), (0, 10)] => first[0] += 1,
                    [(0, 10), (1, 1)] => first[1] += 1,
                    _ => panic!("{ends:?}"),
                }
                Ok(())
            });
        }
        assert!(first.iter().all(|count| *count > 20), "{first:?}: the seed does not choose");
    }
}

/// C18: one of two handles is busy, and the blocked one returns the wake at once.
#[test]
fn a_wake_goes_to_the_handle_that_is_blocked() {
    for seed in 0..200 {
        run(seed, |world| {
            world.set_conditions(Conditions::calm());
            let mut busy = SimPoller::new()?;
            let waker = Waker::new(busy.registry(), 3)?;
            let mut blocked = busy.try_clone()?;
            let other = waker.clone();
            world.spawn("busy", move || {
                other.wake().unwrap();
                assert_eq!(busy.wait(-1).unwrap()[0].token, 3);
                thread::sleep(100 * SECOND);
                assert!(busy.wait(0).unwrap().is_empty());
            });
            thread::sleep(SECOND);
            let begin = Instant::now();
            world.schedule(10 * SECOND, move |_| waker.wake().unwrap());
            let events = blocked.wait_timeout(Some(50 * SECOND))?;
            assert_eq!((events.len(), events[0].token, events[0].is_wake()), (1, 3, true));
            assert_eq!(begin.elapsed(), 10 * SECOND);
            thread::sleep(100 * SECOND);
            Ok(())
        });
    }
}

/// Polling and with a timeout, before and while it waits.
#[test]
fn each_wait_that_may_return_a_wake_does() {
    for seed in 0..200 {
        run(seed, |world| {
            world.set_conditions(Conditions::calm());
            let mut poller = SimPoller::new()?;
            let wakers = [1, 2].map(|token| Waker::new(poller.registry(), token).unwrap());
            // Creating it ends no wait.
            assert!(poller.wait(0)?.is_empty());
            let begin = Instant::now();
            assert!(poller.wait(1_000)?.is_empty());
            assert_eq!(begin.elapsed(), SECOND);
            // Before it waits: all wakes of a waker are one event.
            for timeout in [Some(Duration::ZERO), Some(SECOND), None] {
                wakers.iter().chain(&wakers).try_for_each(Waker::wake)?;
                let mut tokens: Vec<_> =
                    poller.wait_timeout(timeout)?.iter().map(|event| event.token).collect();
                tokens.sort_unstable();
                assert_eq!(tokens, [1, 2]);
                assert!(poller.wait(0)?.is_empty());
            }
            assert_eq!(begin.elapsed(), SECOND);
            // While it waits.
            for timeout in [Some(10 * SECOND), None] {
                let [waker, _] = wakers.clone();
                world.spawn("waker", move || {
                    thread::sleep(SECOND);
                    waker.wake().unwrap();
                });
                assert_eq!(poller.wait_timeout(timeout)?[0].token, 1);
            }
            assert_eq!(begin.elapsed(), 3 * SECOND);
            // With other ready descriptors, in any order; the wake of a dropped waker is still reported.
            let (near, _far) = UnixStream::pair()?;
            let writable = EventObject::client(near.as_raw_fd()).with_token(9);
            poller.add(writable.with_interest(pollio::Interest::WRITABLE))?;
            wakers[1].wake()?;
            drop(wakers);
            let mut tokens: Vec<_> = poller.wait(-1)?.iter().map(|event| event.token).collect();
            tokens.sort_unstable();
            assert_eq!(tokens, [2, 9]);
            Ok(())
        });
    }
}

/// A scripted poller is a poller as well: its plans wake it.
#[test]
fn a_plan_wakes_a_scripted_poller() {
    let mut poller = SimPoller::with_seed(0);
    let world = poller.world().clone();
    let waker = Waker::new(poller.registry(), 1).unwrap();
    let (sender, receiver) = pollio::channel(poller.registry(), 2).unwrap();
    world.schedule(SECOND, move |_| waker.wake().unwrap());
    world.schedule(2 * SECOND, move |_| sender.send('a').unwrap());
    for token in [1, 2] {
        assert_eq!(poller.wait(-1).unwrap()[0].token, token);
        assert_eq!(world.elapsed(), token * SECOND);
    }
    assert_eq!(receiver.try_iter().collect::<Vec<_>>(), ['a']);
    assert!(receiver.is_disconnected());
    assert_eq!(poller.wait(-1).unwrap_err().kind(), ErrorKind::Deadlock);
}

/// Each event has one reader, which re-arms it: every byte is read once.
#[test]
fn two_threads_serve_one_poller() {
    for seed in 0..200 {
        run(seed, |world| {
            let poller = SimPoller::new()?;
            let pairs = [UnixStream::pair()?, UnixStream::pair()?, UnixStream::pair()?];
            let (mut ours, theirs): (Vec<_>, Vec<_>) = pairs.into_iter().unzip();
            let streams = Arc::new(theirs);
            let oneshot = |index: usize| {
                let token = u32::try_from(index).unwrap();
                let object = EventObject::client(streams[index].as_raw_fd());
                object.with_token(token).with_mode(Mode::Oneshot)
            };
            for (index, stream) in streams.iter().enumerate() {
                stream.set_nonblocking(true)?;
                poller.add(oneshot(index))?;
            }
            let waiters = [0, 1].map(|_| {
                let (mut poller, streams) = (poller.try_clone().unwrap(), streams.clone());
                world.spawn("waiter", move || {
                    let (mut count, registry) = (0, poller.registry().clone());
                    loop {
                        let events = poller.wait_timeout(Some(100 * SECOND)).unwrap();
                        if events.is_empty() {
                            return count;
                        }
                        for event in events {
                            let mut stream = &streams[event.token as usize];
                            // Under a oneshot no other thread reads, so there is a byte.
                            count += stream.read(&mut [0]).unwrap();
                            let object = EventObject::client(event.fd).with_token(event.token);
                            registry.modify(object.with_mode(Mode::Oneshot)).unwrap();
                        }
                    }
                })
            });
            for _ in 0..10 {
                ours.iter_mut().try_for_each(|stream| stream.write_all(b"x"))?;
            }
            let counts = waiters.map(|waiter| waiter.join().unwrap());
            assert_eq!(counts.iter().sum::<usize>(), 30, "{counts:?}");
            Ok(())
        });
    }
}

/// Takes all values like an event loop, a few at a time, until the last sender is dropped.
fn receive_all(
    poller: &mut SimPoller,
    receiver: &sim::Receiver<u32>,
    few: usize,
) -> io::Result<Vec<u32>> {
    let mut values = Vec::new();
    while !receiver.is_disconnected() {
        let event = poller.wait(-1)?[0];
        assert_eq!((event.token, event.is_wake()), (5, true));
        values.extend(receiver.try_iter().take(few));
    }
    Ok(values)
}

#[test]
fn a_channel_reports_values_that_are_left_and_its_last_sender() {
    for seed in 0..200 {
        run(seed, |world| {
            let mut poller = SimPoller::new()?;
            let (sender, receiver) = sim::channel(poller.registry(), 5)?;
            for first in [0, 100, 200] {
                let sender = sender.clone();
                world.spawn("sender", move || {
                    for number in first..first + 10 {
                        sender.send(number).unwrap();
                    }
                });
            }
            drop(sender);
            let few = [1, 3, usize::MAX][usize::try_from(seed % 3).unwrap()];
            let mut values = receive_all(&mut poller, &receiver, few)?;
            values.sort_unstable();
            let expected = [0, 100, 200].into_iter().flat_map(|first| first..first + 10);
            assert!(values.iter().copied().eq(expected), "{values:?}");
            Ok(())
        });
    }
}

#[test]
fn a_full_sync_channel_blocks_a_simulated_thread() {
    for seed in 0..200 {
        run(seed, |world| {
            let mut poller = SimPoller::new()?;
            let (sender, receiver) = sim::sync_channel(poller.registry(), 5, 2)?;
            let begin = Instant::now();
            let sending = world.spawn("sender", move || {
                (0..5).for_each(|number| sender.send(number).unwrap());
                begin.elapsed()
            });
            thread::sleep(SECOND);
            assert_eq!(receiver.try_iter().take(2).count(), 2);
            thread::sleep(SECOND);
            assert_eq!(receive_all(&mut poller, &receiver, 1)?, [2, 3, 4]);
            assert!(sending.join().unwrap() >= 2 * SECOND);
            Ok(())
        });
    }
}

#[test]
fn a_channel_gives_back_values_that_nobody_will_receive() {
    let why = failure(1, |_| {
        let poller = SimPoller::new()?;
        let (sender, _receiver) = sim::sync_channel(poller.registry(), 0, 1)?;
        sender.send('a').unwrap();
        assert_eq!(sender.try_send('b'), Err(TrySendError::Full('b')));
        sender.send('c').unwrap();
        Ok(())
    });
    assert!(why.contains("main: sends to a full channel"), "{why}");
    for seed in 0..50 {
        run(seed, |world| {
            let poller = SimPoller::new()?;
            let registry = poller.registry();
            let (sender, receiver) = sim::sync_channel(registry, 0, 1)?;
            let blocked = sender.clone();
            let blocked =
                world.spawn("sender", move || blocked.send('a').and_then(|()| blocked.send('b')));
            thread::sleep(SECOND);
            drop(receiver);
            assert_eq!(blocked.join().unwrap(), Err(SendError('b')));
            assert_eq!(sender.try_send('c'), Err(TrySendError::Disconnected('c')));
            let none = sim::sync_channel::<u8>(registry, 0, 0);
            assert_eq!(none.unwrap_err().kind(), ErrorKind::InvalidInput);
            let (sender, _) = sim::channel(registry, 0)?;
            assert_eq!(sender.send('d'), Err(SendError('d')));
            Ok(())
        });
    }
}

#[test]
fn a_reset_and_a_stall_are_scripted() {
    run(1, |world| {
        world.set_conditions(Conditions::calm());
        let listener = TcpListener::bind(ADDRESS)?;
        let mut client = TcpStream::connect(ADDRESS)?;
        let (mut server, _) = listener.accept()?;
        let begin = Instant::now();
        world.stall(&client, 10 * SECOND);
        client.write_all(b"late")?;
        server.read_exact(&mut [0; 4])?;
        assert_eq!(begin.elapsed(), 10 * SECOND);
        world.reset(&server);
        assert_eq!(client.read(&mut [0]).unwrap_err().kind(), ErrorKind::ConnectionReset);
        assert_eq!(server.read(&mut [0]).unwrap_err().kind(), ErrorKind::ConnectionReset);
        Ok(())
    });
}

#[test]
fn a_reset_is_scripted_at_a_byte() {
    for count in [0, 1, 7, 150, 200] {
        run(1, |world| {
            world.set_conditions(Conditions::calm().with_fragments(true));
            let listener = TcpListener::bind(ADDRESS)?;
            let mut client = TcpStream::connect(ADDRESS)?;
            let (mut server, _) = listener.accept()?;
            world.reset_after(&client, count);
            client.write_all(&[1; 100])?;
            client.write_all(&[2; 100])?;
            let mut taken = Vec::new();
            let error = server.read_to_end(&mut taken).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::ConnectionReset);
            assert_eq!(taken, [[1; 100], [2; 100]].concat()[..count]);
            assert_eq!(client.read(&mut [0]).unwrap_err().kind(), ErrorKind::ConnectionReset);
            Ok(())
        });
    }
}

#[test]
fn a_refusal_is_scripted_at_a_time() {
    run(1, |world| {
        world.set_conditions(Conditions::calm());
        let _listener = TcpListener::bind(ADDRESS)?;
        world.schedule(SECOND, |world| world.refuse(ADDRESS.parse().unwrap(), 2));
        let connect = || TcpStream::connect(ADDRESS).map(drop).map_err(|error| error.kind());
        assert_eq!(connect(), Ok(()));
        thread::sleep(SECOND);
        assert_eq!(connect(), Err(ErrorKind::ConnectionRefused));
        assert_eq!(connect(), Err(ErrorKind::ConnectionRefused));
        assert_eq!(connect(), Ok(()));
        Ok(())
    });
}

#[test]
fn whatever_opens_a_descriptor_fails_at_the_limit() {
    fn is_over<T>(result: io::Result<T>) {
        let error = result.err().expect("no descriptor is left");
        assert_eq!(error.raw_os_error(), Some(libc::EMFILE), "{error}");
    }
    run(1, |world| {
        world.set_conditions(Conditions::calm());
        let listener = TcpListener::bind(ADDRESS)?;
        listener.set_nonblocking(true)?;
        let poller = SimPoller::new()?;
        assert_eq!(world.descriptors(), 2);
        world.set_descriptor_limit(2);
        // The limit is checked before the queue.
        is_over(listener.accept());
        is_over(listener.try_clone());
        is_over(TcpListener::bind("10.0.0.1:8"));
        is_over(TcpStream::connect(ADDRESS));
        is_over(sim::socket2::Socket::new(Domain::IPV4, Type::STREAM, None));
        is_over(UnixStream::pair());
        is_over(SimPoller::new());
        is_over(Waker::new(poller.registry(), 0));
        is_over(Timer::new());
        is_over(sim::channel::<u8>(poller.registry(), 0));
        is_over(sim::sync_channel::<u8>(poller.registry(), 0, 1));
        // Like a clone of a real waker, it takes no descriptor.
        drop(poller.try_clone()?);
        world.set_descriptor_limit(3);
        is_over(UnixStream::pair());
        drop(Timer::new()?);
        // The first waker takes one, for the poller and all its wakers.
        let waker = Waker::new(poller.registry(), 0)?;
        let (other, _channel) = (waker.clone(), sim::channel::<u8>(poller.registry(), 0)?);
        is_over(Timer::new());
        drop((waker, poller));
        assert_eq!(world.descriptors(), 3);
        drop((other, _channel));
        assert_eq!(world.descriptors(), 1);
        UnixStream::pair().map(drop)
    });
}

/// As in `graceful_shutdown`: a client that came while there was no descriptor is served later.
#[test]
fn a_client_that_queues_without_a_descriptor_is_accepted_once_there_is_one() {
    for seed in 0..100 {
        let outcome = run(seed, |world| {
            world.set_conditions(Conditions::calm());
            let client = sim::socket2::Socket::new(Domain::IPV4, Type::STREAM, None)?;
            let listener = TcpListener::bind(ADDRESS)?;
            listener.set_nonblocking(true)?;
            let mut poller = SimPoller::new()?;
            poller.add(EventObject::server(listener.as_raw_fd()).with_mode(Mode::Edge))?;
            world.set_descriptor_limit(world.descriptors());
            world.schedule(5 * SECOND, |world| world.set_descriptor_limit(usize::MAX));
            client.connect(&ADDRESS.parse::<SocketAddr>().unwrap().into())?;
            assert_eq!(poller.wait(-1)?.len(), 1);
            let error = listener.accept().unwrap_err();
            assert_eq!(error.raw_os_error(), Some(libc::EMFILE));
            // The edge is over.
            while poller.wait_timeout(Some(SECOND))?.is_empty() && listener.accept().is_err() {}
            Ok(())
        });
        assert_eq!(outcome.elapsed.as_secs(), 5);
    }
}

#[test]
fn a_full_queue_makes_clients_knock_again() {
    let outcome = run(1, |world| {
        world.set_conditions(Conditions::calm());
        let listener = TcpListener::bind(ADDRESS)?;
        sim::socket2::SockRef::from(&listener).listen(1)?;
        let clients: Vec<_> = (0..4)
            .map(|_| world.spawn("client", || TcpStream::connect(ADDRESS).map(drop).unwrap()))
            .collect();
        for _ in 0..4 {
            thread::sleep(SECOND / 2);
            listener.accept()?;
        }
        clients.into_iter().for_each(|client| client.join().unwrap());
        Ok(())
    });
    assert!(outcome.elapsed > SECOND, "{:?}", outcome.elapsed);
}

#[test]
fn a_check_names_the_first_seed_that_fails_and_replays_it() {
    let ran = Arc::new(AtomicU64::new(0));
    let count = ran.clone();
    let result = panic::catch_unwind(move || {
        sim::check(10_000, move |world| {
            count.fetch_add(1, Ordering::Relaxed);
            several_ask(world)?;
            assert!(world.seed() < 77, "too large");
            Ok(())
        });
    });
    let why = *result.unwrap_err().downcast::<String>().unwrap();
    assert!(why.starts_with("seed 77 fails: it panicked: too large"), "{why}");
    assert!(why.contains("it replays exactly") && why.contains("POLLIO_SEED=77"), "{why}");
    assert!(ran.load(Ordering::Relaxed) < 1_000);
}

#[test]
fn a_check_notices_a_failure_that_does_not_replay() {
    let runs = Arc::new(AtomicU64::new(0));
    let result = panic::catch_unwind(move || {
        sim::check(1, move |_| {
            thread::sleep(SECOND * u32::try_from(runs.fetch_add(1, Ordering::Relaxed)).unwrap());
            Err(ErrorKind::Other.into())
        });
    });
    let why = *result.unwrap_err().downcast::<String>().unwrap();
    assert!(why.contains("does not replay"), "{why}");
}

/// C16: through the same pointers as std's sources.
#[test]
fn a_simulated_source_is_registered_through_any_pointer() {
    fn register<T: AsFd>(registry: &Registry, source: T) -> Registered<T> {
        let fd = source.as_fd().as_raw_fd();
        let source = Registered::new(registry, source, EventObject::client).unwrap();
        assert_eq!((source.as_raw_fd(), source.as_fd().as_raw_fd()), (fd, fd));
        source
    }
    run(1, |_| {
        let mut poller = SimPoller::new()?;
        let registry = poller.registry().clone();
        let (mut near, far) = UnixStream::pair()?;
        (&far).write_all(b"x")?;
        let _ = register(&registry, &near);
        let _ = register(&registry, &mut near);
        let near = register(&registry, Box::new(near)).into_inner();
        let near = register(&registry, Rc::new(*near)).into_inner();
        assert!(poller.wait(0)?.is_empty());

        let near = Arc::new(Rc::into_inner(near).unwrap());
        let registered = register(&registry, Arc::clone(&near));
        assert_eq!(poller.wait(-1)?[0].fd, near.as_raw_fd());
        assert_eq!((&*near).read(&mut [0; 2])?, 1);
        let _ = register(SimPoller::new()?.registry(), &registered);
        drop(registered);
        (&far).write_all(b"x")?;
        assert!(poller.wait(0)?.is_empty());

        let mut near =
            Registered::new(&registry, Arc::into_inner(near).unwrap(), EventObject::client)?;
        assert_eq!(poller.wait(-1)?[0].fd, near.as_raw_fd());
        assert_eq!((near.read(&mut [0; 2])?, (&near).write(b"yz")?), (1, 2));
        assert_eq!((&far).read(&mut [0; 4])?, 2);
        Ok(())
    });
}
