//! `channel` and `sync_channel`, over a poller.

use std::io::ErrorKind;
use std::os::fd::AsRawFd;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::mpsc::{SendError, TrySendError};
use std::thread;
use std::time::{Duration, Instant};

use pollio::{EventObject, Mode, Poller};

use super::{AnyPoller, Receiver, Sender, SyncSender, channel, sync_channel};
use crate::descriptors::{inherited, make_with_too_little_room_first, open};
use crate::expect::{Expect, LONG_MS};
use crate::subprocess::in_subprocess;

const MODES: [Mode; 3] = [Mode::Level, Mode::Edge, Mode::Oneshot];

/// A poller that watches a receiver.
fn watched<T>(mode: Mode) -> (AnyPoller, Sender<T>, Receiver<T>) {
    let (sender, receiver) = channel().unwrap();
    let poller = AnyPoller::new().unwrap();
    poller.add(EventObject::client(receiver.as_raw_fd()).with_mode(mode)).unwrap();
    (poller, sender, receiver)
}

/// Re-arms a oneshot, and changes nothing else.
fn rearm<T>(poller: &AnyPoller, receiver: &Receiver<T>, mode: Mode) {
    if mode == Mode::Oneshot {
        poller.modify(EventObject::client(receiver.as_raw_fd()).with_mode(mode)).unwrap();
    }
}

fn taken<T>(receiver: &Receiver<T>) -> Vec<T> {
    receiver.try_iter().collect()
}

#[test]
fn what_is_sent_is_reported_once_in_its_order() {
    for mode in MODES {
        let (mut poller, sender, receiver) = watched(mode);
        poller.expect_none();
        for round in 0..3 {
            for value in 0..1_000 {
                sender.send(round + value).unwrap();
            }
            assert!(poller.expect_one().is_readable());
            assert_eq!(taken(&receiver), Vec::from_iter(round..round + 1_000));
            rearm(&poller, &receiver, mode);
            poller.expect_none();
        }
        assert!(!receiver.is_disconnected());
    }
}

#[test]
fn it_is_level_triggered_until_it_is_taken() {
    let (mut poller, sender, receiver) = watched(Mode::Level);
    sender.send('a').unwrap();
    for _ in 0..3 {
        poller.expect_one();
    }
    assert_eq!(taken(&receiver), ['a']);
    poller.expect_none();
}

#[test]
fn what_is_left_by_stopping_is_reported_again() {
    for mode in MODES {
        let (mut poller, sender, receiver) = watched(mode);
        for value in 0..5 {
            sender.send(value).unwrap();
        }
        for value in 0..5 {
            poller.expect_one();
            assert_eq!(receiver.try_iter().next(), Some(value));
            rearm(&poller, &receiver, mode);
        }
        // It was not iterated to its end, so there might have been more.
        poller.expect_one();
        assert_eq!(taken(&receiver), []);
        rearm(&poller, &receiver, mode);
        poller.expect_none();
        sender.send(5).unwrap();
        poller.expect_one();
        assert_eq!(taken(&receiver), [5]);
    }
}

/// What comes in between is in neither of the two wake-ups.
#[test]
fn what_is_sent_while_it_is_taken_is_not_lost() {
    for mode in MODES {
        for taken_first in 0..3 {
            let (mut poller, sender, receiver) = watched(mode);
            sender.send(0).unwrap();
            sender.send(1).unwrap();
            poller.expect_one();
            let mut values = receiver.try_iter();
            let first: Vec<_> = values.by_ref().take(taken_first).collect();
            sender.send(2).unwrap();
            drop(values);
            rearm(&poller, &receiver, mode);
            poller.expect_one();
            assert_eq!([first, taken(&receiver)].concat(), [0, 1, 2]);
            rearm(&poller, &receiver, mode);
            poller.expect_none();
        }
        let (mut poller, sender, receiver) = watched(mode);
        sender.send(0).unwrap();
        poller.expect_one();
        let mut values = receiver.try_iter();
        assert_eq!((values.next(), values.next()), (Some(0), None));
        // At its end it stays there, whatever comes: that has its own event.
        sender.send(1).unwrap();
        assert_eq!(values.next(), None);
        drop(values);
        rearm(&poller, &receiver, mode);
        poller.expect_one();
        assert_eq!(taken(&receiver), [1]);
    }
}

#[test]
fn a_panic_while_values_are_taken_loses_none_of_the_others() {
    for mode in MODES {
        let (mut poller, sender, receiver) = watched(mode);
        sender.send(0).unwrap();
        sender.send(1).unwrap();
        poller.expect_one();
        let take = std::panic::AssertUnwindSafe(|| {
            if receiver.try_iter().next().is_some() {
                std::panic::resume_unwind(Box::new(()));
            }
        });
        std::panic::catch_unwind(take).unwrap_err();
        rearm(&poller, &receiver, mode);
        poller.expect_one();
        assert_eq!(taken(&receiver), [1]);
    }
}

#[test]
fn values_can_be_taken_without_an_event() {
    let (mut poller, sender, receiver) = watched(Mode::Edge);
    assert_eq!(taken(&receiver), []);
    sender.send(1).unwrap();
    assert_eq!(taken(&receiver), [1]);
    assert_eq!(taken(&receiver), []);
    poller.wait(0).unwrap();
    sender.send(2).unwrap();
    poller.expect_one();
    assert_eq!(taken(&receiver), [2]);
}

#[test]
fn the_last_senders_drop_is_reported() {
    for mode in MODES {
        let (mut poller, sender, receiver) = watched(mode);
        let others = [(); 3].map(|()| sender.clone());
        drop(sender);
        let [first, second, last] = others;
        drop((first, second));
        poller.expect_none();
        assert_eq!(taken(&receiver), []);
        assert!(!receiver.is_disconnected());
        last.send(1).unwrap();
        drop(last);
        poller.expect_one();
        // Only once all is taken.
        assert_eq!(receiver.try_iter().next(), Some(1));
        assert!(!receiver.is_disconnected());
        rearm(&poller, &receiver, mode);
        poller.expect_one();
        assert_eq!(taken(&receiver), []);
        assert!(receiver.is_disconnected());
        rearm(&poller, &receiver, mode);
        poller.expect_none();
    }
}

#[test]
fn the_last_drop_ends_a_blocked_wait() {
    let (mut poller, sender, receiver) = watched::<u8>(Mode::Level);
    let other = sender.clone();
    thread::scope(|scope| {
        for sender in [sender, other] {
            scope.spawn(move || {
                thread::sleep(Duration::from_millis(30));
                drop(sender);
            });
        }
        poller.expect_one();
    });
    assert_eq!(taken(&receiver), []);
    assert!(receiver.is_disconnected());
}

#[test]
fn the_drop_of_the_last_sender_that_blocks_is_reported() {
    let (sender, receiver) = sync_channel(1).unwrap();
    let mut poller = AnyPoller::new().unwrap();
    poller.add(EventObject::client(receiver.as_raw_fd())).unwrap();
    let other = sender.clone();
    sender.send(1).unwrap();
    drop(sender);
    drop(other);
    poller.expect_one();
    assert_eq!(taken(&receiver), [1]);
    assert!(receiver.is_disconnected());
    poller.expect_none();
}

#[test]
fn without_a_receiver_a_value_comes_back() {
    let (sender, receiver) = channel().unwrap();
    sender.send("lost").unwrap();
    drop(receiver);
    assert_eq!(sender.send("kept"), Err(SendError("kept")));

    let (sender, receiver) = sync_channel(1).unwrap();
    drop(receiver);
    assert_eq!(sender.try_send("kept"), Err(TrySendError::Disconnected("kept")));
    assert_eq!(sender.send("kept"), Err(SendError("kept")));
}

#[test]
fn a_full_channel_gives_the_value_back() {
    for mode in MODES {
        let (sender, receiver) = sync_channel(3).unwrap();
        let mut poller = AnyPoller::new().unwrap();
        poller.add(EventObject::client(receiver.as_raw_fd()).with_mode(mode)).unwrap();
        for value in 0..3 {
            sender.try_send(value).unwrap();
        }
        assert_eq!(sender.try_send(3), Err(TrySendError::Full(3)));
        poller.expect_one();
        assert_eq!(receiver.try_iter().next(), Some(0));
        sender.try_send(3).unwrap();
        assert_eq!(sender.try_send(4), Err(TrySendError::Full(4)));
        rearm(&poller, &receiver, mode);
        poller.expect_one();
        assert_eq!(taken(&receiver), [1, 2, 3]);
        rearm(&poller, &receiver, mode);
        poller.expect_none();
    }
}

#[test]
fn a_bound_of_zero_is_refused() {
    assert_eq!(sync_channel::<u8>(0).unwrap_err().kind(), ErrorKind::InvalidInput);
}

#[test]
fn a_sender_blocks_while_there_is_no_room() {
    let (sender, receiver) = sync_channel(2).unwrap();
    let mut poller = AnyPoller::new().unwrap();
    poller.add(EventObject::client(receiver.as_raw_fd()).with_mode(Mode::Edge)).unwrap();
    let sent = AtomicU64::new(0);
    let sent = &sent;
    // What fails here drops the receiver, and so ends the thread.
    thread::scope(move |scope| {
        scope.spawn(move || {
            for value in 0..5_000 {
                sender.send(value).unwrap();
                sent.fetch_add(1, Relaxed);
            }
        });
        while sent.load(Relaxed) < 2 {
            thread::yield_now();
        }
        thread::sleep(Duration::from_millis(50));
        assert_eq!(sent.load(Relaxed), 2);
        let mut next = 0;
        while !receiver.is_disconnected() {
            poller.expect_one();
            for value in receiver.try_iter() {
                assert_eq!(value, next);
                next += 1;
            }
        }
        assert_eq!(next, 5_000);
    });
}

/// Each thread sends its numbers, in order; the receiver stops in the middle now and then.
fn stress(
    mode: Mode,
    threads: u64,
    values: u64,
    send: impl Fn(u64, u64) + Sync,
    receiver: Receiver<(u64, u64)>,
) {
    let mut poller = AnyPoller::new().unwrap();
    poller.add(EventObject::client(receiver.as_raw_fd()).with_mode(mode)).unwrap();
    let mut next = vec![0; usize::try_from(threads).unwrap()];
    let start = Instant::now();
    thread::scope(|scope| {
        for thread in 0..threads {
            let send = &send;
            scope.spawn(move || (0..values).for_each(|value| send(thread, value)));
        }
        let mut left = threads * values;
        for turn in 1.. {
            let events = poller.wait(LONG_MS).unwrap().len();
            assert_eq!(events, 1, "{mode:?}: {left} of the values are lost");
            let most = if turn % 3 == 0 { 10 } else { usize::MAX };
            for (thread, value) in receiver.try_iter().take(most) {
                let next = &mut next[usize::try_from(thread).unwrap()];
                assert_eq!(value, *next);
                *next += 1;
                left -= 1;
            }
            rearm(&poller, &receiver, mode);
            if left == 0 {
                break;
            }
        }
    });
    assert_eq!(taken(&receiver), []);
    println!("{mode:?}: {} values in {:?}", threads * values, start.elapsed());
}

#[test]
fn no_value_of_many_threads_is_lost() {
    for mode in MODES {
        let (sender, receiver) = channel().unwrap();
        let send = |thread, value| sender.send((thread, value)).unwrap();
        stress(mode, 4, 250_000, send, receiver);
    }
}

#[test]
fn no_value_of_many_threads_that_wait_for_room_is_lost() {
    for mode in MODES {
        let (sender, receiver) = sync_channel(16).unwrap();
        let send = |thread, value| sender.send((thread, value)).unwrap();
        stress(mode, 4, 25_000, send, receiver);
    }
}

/// C12: a thread that sends now and then, to a wait that blocks each time.
#[test]
fn each_value_ends_a_blocked_wait() {
    for mode in MODES {
        let (mut poller, sender, receiver) = watched(mode);
        let (back, answers) = std::sync::mpsc::channel();
        thread::scope(|scope| {
            scope.spawn(move || {
                for value in 0..2_000 {
                    sender.send(value).unwrap();
                    assert_eq!(answers.recv().unwrap(), value);
                }
            });
            let mut next = 0;
            while !receiver.is_disconnected() {
                poller.expect_one();
                for value in receiver.try_iter() {
                    assert_eq!(value, next);
                    next += 1;
                    back.send(value).unwrap();
                }
                rearm(&poller, &receiver, mode);
            }
            assert_eq!(next, 2_000);
        });
    }
}

/// Threads that come and go: the last of them is reported.
#[test]
fn the_last_drop_of_many_threads_is_reported() {
    for round in 0..300 {
        let mode = MODES[round % MODES.len()];
        let (mut poller, sender, receiver) = watched(mode);
        thread::scope(|scope| {
            for value in 0..4 {
                let sender = sender.clone();
                scope.spawn(move || sender.send(value).unwrap());
            }
            drop(sender);
            let mut values = Vec::new();
            while !receiver.is_disconnected() {
                poller.expect_one();
                values.extend(receiver.try_iter());
                rearm(&poller, &receiver, mode);
            }
            values.sort_unstable();
            assert_eq!(values, [0, 1, 2, 3]);
        });
    }
}

/// C11
#[test]
fn both_ends_close_the_descriptors_together() {
    in_subprocess!(|| {
        let before = open();
        let (sender, receiver) = channel::<u8>().unwrap();
        let other = sender.clone();
        assert!(open() > before);
        drop((sender, receiver));
        drop(other);
        assert_eq!(open(), before);
    });
}

/// C11
#[test]
fn an_exec_closes_a_channels_descriptors() {
    in_subprocess!(|| {
        let before = inherited();
        let _channel = channel::<u8>().unwrap();
        assert_eq!(inherited(), before);
    });
}

/// C11
#[test]
fn without_room_for_its_descriptors_no_channel_is_half_made() {
    in_subprocess!(|| {
        let (sender, receiver) = make_with_too_little_room_first(channel);
        sender.send(1).unwrap();
        assert_eq!(taken(&receiver), [1]);
        make_with_too_little_room_first(|| sync_channel::<u8>(1));
    });
}

#[test]
fn the_ends_are_as_shareable_as_those_of_std() {
    fn is_send<T: Send>() {}
    fn is_sync<T: Sync>() {}
    is_send::<Receiver<std::cell::Cell<u8>>>();
    is_send::<Sender<std::cell::Cell<u8>>>();
    is_sync::<Sender<std::cell::Cell<u8>>>();
    is_send::<SyncSender<u8>>();
    is_sync::<SyncSender<u8>>();
    // Neither Debug nor Clone asks anything of the values.
    struct Plain;
    let (sender, receiver) = channel::<Plain>().unwrap();
    let shown = format!("{:?} {:?} {:?}", sender.clone(), receiver, receiver.try_iter());
    assert!(shown.starts_with("Sender { .. } Receiver { waker: Waker {"), "{shown}");
    let (sender, _receiver) = sync_channel::<Plain>(1).unwrap();
    assert_eq!(format!("{:?}", sender.clone()), "SyncSender { .. }");
}
