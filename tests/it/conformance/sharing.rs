//! Several threads that wait on one poller.

use std::env;
use std::io::{self, ErrorKind, Read, Write};
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixStream;
use std::sync::Barrier;
use std::sync::atomic::Ordering::SeqCst;
use std::sync::atomic::{AtomicBool, AtomicUsize};
use std::thread;
use std::time::{Duration, Instant};

use nix::unistd::alarm;
use pollio::{EventObject, Interest, Mode, OsPoller, Poller};

use crate::support::descriptors::{open, pair};
use crate::support::expect::Expect;
use crate::support::kernel::{Kernel, On};

/// A poller that can have several handles.
pub(crate) trait Share: Poller + Send {
    /// The messages that a test sends, in a second or less.
    const MESSAGES: usize;
    fn share(&self) -> Self;
    fn with_capacity(capacity: usize) -> io::Result<Self>
    where
        Self: Sized;
    fn set_spin(&mut self, limit: Duration);
    fn set_max_events(&mut self, n: usize);
}

impl Share for OsPoller {
    const MESSAGES: usize = 50_000;

    fn share(&self) -> Self {
        self.try_clone().unwrap()
    }

    fn with_capacity(capacity: usize) -> io::Result<Self> {
        Self::with_capacity(capacity)
    }

    fn set_spin(&mut self, limit: Duration) {
        self.set_spin(limit);
    }

    fn set_max_events(&mut self, n: usize) {
        self.set_max_events(n);
    }
}

/// The factor by which the tests here run longer than usual, then without a time limit: `.ci/sharing`.
pub(crate) fn times() -> u32 {
    let asked = env::var("POLLIO_SHARING_TIMES").ok();
    asked.map_or(1, |times| {
        alarm::cancel();
        times.parse().expect("POLLIO_SHARING_TIMES is a number")
    })
}

const WRITABLE: Interest = Interest::WRITABLE;

/// Longer than anything here takes.
const LONG: Duration = Duration::from_secs(120);

/// Long enough for the other threads to be blocked in their waits.
pub(crate) const BLOCKED: Duration = Duration::from_millis(50);

/// Registers 200 sockets, from which eight threads read messages of one byte. Returns how often two of the threads got
/// the same socket at once. Panics if a message is lost.
fn overlaps<P: Share>(interest: Interest, mode: Mode, messages: usize) -> usize {
    const THREADS: usize = 8;
    let messages = messages * times() as usize;
    let pairs: Vec<_> = (0..200).map(|_| pair()).collect();
    let object = |token: usize| {
        EventObject::client(pairs[token].0.as_raw_fd())
            .with_interest(interest)
            .with_mode(mode)
            .with_token(u32::try_from(token).unwrap())
    };
    let poller = P::new().unwrap();
    (0..pairs.len()).for_each(|token| poller.add(object(token)).unwrap());
    let held: Vec<_> = pairs.iter().map(|_| AtomicBool::new(false)).collect();
    let (overlaps, taken) = (AtomicUsize::new(0), AtomicUsize::new(0));
    thread::scope(|scope| {
        for _ in 0..THREADS {
            let mut handle = poller.share();
            let (held, overlaps, taken, pairs) = (&held, &overlaps, &taken, &pairs);
            scope.spawn(move || {
                let registry = handle.registry().clone();
                let mut last = Instant::now();
                while taken.load(SeqCst) < messages {
                    for event in handle.wait(20).unwrap() {
                        let token = event.token as usize;
                        overlaps.fetch_add(held[token].swap(true, SeqCst).into(), SeqCst);
                        if event.is_readable() {
                            taken.fetch_add(drain(&pairs[token].0), SeqCst);
                            last = Instant::now();
                        }
                        held[token].store(false, SeqCst);
                        if mode != Mode::Level {
                            registry.modify(object(token)).unwrap();
                        }
                    }
                    let stuck = last.elapsed() > LONG;
                    assert!(!stuck, "{} of {messages} arrived", taken.load(SeqCst));
                }
            });
        }
        for (_, far) in pairs.iter().cycle().take(messages) {
            while let Err(error) = (&*far).write(b"x") {
                assert_eq!(error.kind(), ErrorKind::WouldBlock);
                thread::yield_now();
            }
        }
    });
    assert_eq!(taken.load(SeqCst), messages);
    overlaps.load(SeqCst)
}

/// Reads until it would block, and returns the number of bytes.
fn drain(mut stream: &UnixStream) -> usize {
    let mut count = 0;
    loop {
        match stream.read(&mut [0; 256]) {
            Ok(more) => count += more,
            Err(error) if error.kind() == ErrorKind::WouldBlock => return count,
            Err(error) => panic!("{error}"),
        }
    }
}

/// C18
pub(crate) fn a_oneshot_goes_to_one_thread_and_no_message_is_lost<P: Share>() {
    assert_eq!(overlaps::<P>(Interest::READABLE, Mode::Oneshot, P::MESSAGES), 0);
    assert_eq!(overlaps::<P>(Interest::BOTH, Mode::Oneshot, P::MESSAGES), 0, "both");
}

/// C18
pub(crate) fn no_message_of_a_level_or_an_edge_is_lost<P: Share>() {
    for mode in [Mode::Level, Mode::Edge] {
        for interest in [Interest::READABLE, Interest::BOTH] {
            overlaps::<P>(interest, mode, P::MESSAGES / 10);
        }
    }
}

/// Three threads wait on handles of `poller`, and count the events of each token, while `body` runs.
pub(crate) fn beside_waits<P: Share>(
    poller: &P,
    rounds: u32,
    body: impl FnOnce(&dyn Fn(u32)),
) -> Vec<usize> {
    let seen: Vec<_> = (0..rounds).map(|_| AtomicUsize::new(0)).collect();
    let is_done = AtomicBool::new(false);
    thread::scope(|scope| {
        for _ in 0..3 {
            let mut handle = poller.share();
            let (seen, is_done) = (&seen, &is_done);
            scope.spawn(move || {
                while !is_done.load(SeqCst) {
                    for event in handle.wait(5).unwrap() {
                        seen[event.token as usize].fetch_add(1, SeqCst);
                    }
                }
            });
        }
        body(&|token| {
            let start = Instant::now();
            while seen[token as usize].load(SeqCst) == 0 {
                assert!(start.elapsed() < LONG, "registration {token} is not reported");
                thread::yield_now();
            }
        });
        is_done.store(true, SeqCst);
    });
    seen.into_iter().map(AtomicUsize::into_inner).collect()
}

/// C4, C12, C18: on kqueue, a registration adds one or two filters, one after the other, while others wait.
pub(crate) fn a_oneshot_that_is_registered_beside_waits_is_reported_once<P: Share>() {
    let rounds = 300 * times();
    for interest in [Interest::BOTH, WRITABLE] {
        let poller = P::new().unwrap();
        let seen = beside_waits(&poller, rounds, |reported| {
            let mut connection = pair();
            for token in 0..rounds {
                let object = EventObject::client(connection.0.as_raw_fd())
                    .with_interest(interest)
                    .with_mode(Mode::Oneshot)
                    .with_token(token);
                (&connection.1).write_all(b"x").unwrap();
                if token % 10 == 0 {
                    // By then, the others are blocked.
                    thread::sleep(Duration::from_micros(200));
                }
                if token % 2 == 0 {
                    poller.add(object).unwrap();
                    reported(token);
                    continue;
                }
                poller.modify(object).unwrap();
                reported(token);
                if token % 4 == 1 {
                    poller.delete(object.fd).unwrap();
                } else {
                    // The same number, without a delete.
                    drop(connection);
                    connection = pair();
                }
            }
        });
        let wrong = seen.iter().filter(|times| **times != 1).count();
        assert_eq!(wrong, 0, "{interest:?}: of {rounds} registrations");
    }
}

/// C9, C12, C18
pub(crate) fn the_last_of_many_modifications_beside_waits_is_reported<P: Share>() {
    const EACH: u32 = 5;
    let rounds = 500 * times();
    let (near, mut far) = pair();
    far.write_all(b"x").unwrap();
    let poller = P::new().unwrap();
    let object = EventObject::client(near.as_raw_fd())
        .with_interest(Interest::BOTH)
        .with_mode(Mode::Oneshot);
    poller.add(object.with_interest(Interest::NONE)).unwrap();
    let seen = beside_waits(&poller, rounds * EACH, |reported| {
        for round in 0..rounds {
            let tokens = round * EACH..(round + 1) * EACH;
            for token in tokens.clone() {
                poller.modify(object.with_token(token)).unwrap();
            }
            reported(tokens.end - 1);
        }
    });
    let twice = seen.iter().filter(|times| **times > 1).count();
    assert_eq!(twice, 0, "of {} registrations", rounds * EACH);
}

/// C15, C18: as an edge or a oneshot.
pub(crate) fn a_wake_ends_one_wait<P: Share>() {
    for mode in [Mode::Edge, Mode::Oneshot] {
        let (waker, ended) = wake_five::<P>(mode);
        assert_eq!(ended, 1, "{mode:?}");
        drop(waker);
    }
}

/// C15, C18: a level that no thread clears.
pub(crate) fn a_wake_that_stays_ends_every_wait<P: Share + On>() {
    let ended = wake_five::<P>(Mode::Level).1;
    // NetBSD's `kqueue_scan` takes it off the queue during its check; putting it back wakes no thread.
    let may_be_fewer = P::KERNEL == Kernel::NetBsd && ended > 0;
    assert!(ended == 5 || may_be_fewer, "{ended} of 5");
}

/// Wakes five waits once, and returns how many ended before their time.
fn wake_five<P: Share>(mode: Mode) -> (UnixStream, usize) {
    let (near, mut far) = pair();
    let poller = P::new().unwrap();
    poller.add(EventObject::client(near.as_raw_fd()).with_mode(mode)).unwrap();
    let ended = AtomicUsize::new(0);
    thread::scope(|scope| {
        for _ in 0..5 {
            let mut handle = poller.share();
            let ended = &ended;
            scope.spawn(move || ended.fetch_add(handle.wait(500).unwrap().len(), SeqCst));
        }
        thread::sleep(BLOCKED);
        far.write_all(b"x").unwrap();
    });
    (near, ended.into_inner())
}

/// C11, C18
pub(crate) fn a_handle_that_is_dropped_leaves_the_others_waiting<P: Share>() {
    let before = open();
    let (near, mut far) = pair();
    let poller = P::new().unwrap();
    poller.add(EventObject::client(near.as_raw_fd()).with_token(7)).unwrap();
    let mut last = poller.share();
    let begun = Barrier::new(2);
    thread::scope(|scope| {
        let mut waiting = poller.share();
        let begun = &begun;
        scope.spawn(move || {
            begun.wait();
            assert_eq!(waiting.expect_one().token, 7);
        });
        begun.wait();
        thread::sleep(BLOCKED);
        drop(poller);
        far.write_all(b"x").unwrap();
    });
    assert_eq!(last.expect_one().token, 7);
    last.delete(near.as_raw_fd()).unwrap();
    drop((last, near, far));
    // The model of kqueue frees a closed kqueue when the next one is created.
    drop(P::new().unwrap());
    assert_eq!(open(), before);
}

/// C9, C17, C18
pub(crate) fn buffers_and_spinning_are_of_each_handle<P: Share>() {
    let pairs: Vec<_> = (0..8).map(|_| pair()).collect();
    let mut poller = P::with_capacity(1).unwrap();
    let mut other = poller.share();
    for (near, far) in &pairs {
        (&*far).write_all(b"x").unwrap();
        poller.add(EventObject::client(near.as_raw_fd())).unwrap();
    }
    poller.set_spin(Duration::from_millis(1));
    let mut sizes = Vec::from_iter((0..4).map(|_| poller.wait(0).unwrap().len()));
    assert_eq!(sizes, [1, 2, 4, 8]);
    assert_eq!(poller.share().wait(0).unwrap().len(), 8, "a handle begins as large as its origin");
    sizes = Vec::from_iter((0..4).map(|_| other.wait(0).unwrap().len()));
    assert_eq!(sizes, [1, 2, 4, 8]);
}
