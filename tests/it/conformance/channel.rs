//! `channel` and `sync_channel`: values, their wake-up, and the drop of the last sender.

use std::cell::Cell;
use std::io::{ErrorKind, Write};
use std::os::fd::AsRawFd;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::mpsc::{SendError, TryRecvError, TrySendError};
use std::thread;
use std::time::Instant;

use pollio::{
    EventObject, Mode, Poller, Receiver, Sender, SyncSender, Waker, channel, sync_channel,
};

use super::sharing::{BLOCKED, Share};
use crate::support::descriptors::pair;
use crate::support::expect::{Expect, LONG_MS};

const TOKEN: u32 = 2;

/// A poller with a channel.
fn receiving<P: Poller, T>() -> (P, Sender<T>, Receiver<T>) {
    let poller = P::new().unwrap();
    let (sender, receiver) = channel(poller.registry(), TOKEN).unwrap();
    (poller, sender, receiver)
}

/// Takes the values from 0 up to `count`, in order, until the last sender is gone.
fn expect_in_order<P: Poller>(
    poller: &mut P,
    receiver: &Receiver<u32>,
    count: u32,
    each: impl Fn(u32),
) {
    let mut next = 0;
    while !receiver.is_disconnected() {
        poller.expect_one();
        for value in receiver.try_iter() {
            assert_eq!(value, next);
            next += 1;
            each(value);
        }
    }
    assert_eq!(next, count);
}

fn taken<T>(receiver: &Receiver<T>) -> Vec<T> {
    receiver.try_iter().collect()
}

/// C15
pub(crate) fn sent_values_are_reported_once_in_order<P: Poller>() {
    let (mut poller, sender, receiver) = receiving::<P, _>();
    poller.expect_none();
    for round in 0..3 {
        for value in 0..1_000 {
            sender.send(round + value).unwrap();
        }
        let event = poller.expect_one();
        assert!(event.is_wake() && event.is_readable() && event.token == TOKEN);
        assert_eq!(taken(&receiver), Vec::from_iter(round..round + 1_000));
        poller.expect_none();
    }
    assert!(!receiver.is_disconnected());
}

/// C15: until a receive has found the queue empty.
pub(crate) fn values_that_are_left_are_reported_by_each_wait<P: Poller>() {
    let (mut poller, sender, receiver) = receiving::<P, _>();
    for value in 0..5 {
        sender.send(value).unwrap();
    }
    for value in 0..5 {
        poller.expect_one();
        assert_eq!(receiver.try_recv(), Ok(value));
    }
    // No receive found the queue empty, so there might be more values.
    poller.expect_one();
    assert_eq!(receiver.try_recv(), Err(TryRecvError::Empty));
    poller.expect_none();
    sender.send(5).unwrap();
    poller.expect_one();
    assert_eq!(receiver.try_iter().take(1).count(), 1);
    assert_eq!(poller.wait(0).unwrap().len(), 1);
    assert_eq!(taken(&receiver), []);
    poller.expect_none();
}

/// C15: the program does not act on an event, because another handler panics or because it is busy.
pub(crate) fn an_event_that_nobody_acts_on_is_returned_again<P: Poller>() {
    let (mut poller, sender, receiver) = receiving::<P, _>();
    sender.send(1).unwrap();
    sender.send(2).unwrap();
    for _ in 0..3 {
        assert!(poller.expect_one().is_wake());
    }
    assert_eq!(receiver.try_recv(), Ok(1));
    for _ in 0..3 {
        poller.expect_one();
    }
    assert_eq!(taken(&receiver), [2]);
    poller.expect_none();
}

/// C15: an outer poller finds it readable while values are left.
pub(crate) fn a_watched_poller_is_readable_while_values_are_left<P: Poller + AsRawFd>() {
    let mut outer = P::new().unwrap();
    let (mut inner, sender, receiver) = receiving::<P, _>();
    outer.add(EventObject::new(inner.as_raw_fd())).unwrap();
    sender.send(1).unwrap();
    sender.send(2).unwrap();
    for value in [1, 2] {
        outer.expect_one();
        assert_eq!(inner.wait(0).unwrap().len(), 1);
        assert_eq!(receiver.try_recv(), Ok(value));
    }
    // No receive found the queue empty.
    outer.expect_one();
    assert_eq!(inner.wait(0).unwrap().len(), 1);
    assert_eq!(receiver.try_recv(), Err(TryRecvError::Empty));
    inner.expect_none();
    outer.expect_none();
}

/// C15: also if the wait that returned the event had it from the start, and then polled.
pub(crate) fn a_watched_poller_with_a_bound_is_readable_while_values_are_left<
    P: Share + AsRawFd,
>() {
    let (near, mut far) = pair();
    far.write_all(b"x").unwrap();
    let mut outer = P::new().unwrap();
    let (mut inner, sender, receiver) = receiving::<P, _>();
    inner.set_max_events(2);
    outer.add(EventObject::new(inner.as_raw_fd())).unwrap();
    let object = EventObject::client(near.as_raw_fd()).with_token(1);
    inner.add(object.with_mode(Mode::Oneshot)).unwrap();
    // Woken before the channel.
    Waker::new(inner.registry(), 3).unwrap().wake().unwrap();
    sender.send(1).unwrap();
    let mut tokens = Vec::new();
    while tokens.len() < 3 {
        outer.expect_one();
        tokens.extend(inner.wait(0).unwrap().iter().map(|event| event.token));
    }
    assert_eq!(tokens, [1, 3, TOKEN]);
    outer.expect_one();
    assert_eq!(taken(&receiver), [1]);
    inner.expect_none();
    outer.expect_none();
}

/// C15, C18: another handle returns the wakes that a dropped handle has left.
pub(crate) fn a_handle_that_is_dropped_leaves_its_channel_to_another<P: Share>() {
    let (poller, sender, receiver) = receiving::<P, _>();
    let (mut first, mut second) = (poller.share(), poller);
    sender.send(1).unwrap();
    sender.send(2).unwrap();
    thread::scope(|scope| {
        let sleeping = scope.spawn(move || second.expect_one().token);
        // Either handle may return the event; this one is dropped soon.
        let _ = first.wait(0).unwrap();
        thread::sleep(BLOCKED);
        drop(first);
        assert_eq!(sleeping.join().unwrap(), TOKEN);
    });
    assert_eq!(taken(&receiver), [1, 2]);
}

/// C15: of many channels, only those with values are reported.
pub(crate) fn only_channels_with_values_are_reported<P: Poller>() {
    let mut poller = P::new().unwrap();
    let channels = (0..200).map(|token| channel(poller.registry(), token).unwrap());
    let channels: Vec<(Sender<u32>, Receiver<u32>)> = channels.collect();
    for (sender, _) in channels.iter().step_by(50) {
        sender.send(1).unwrap();
        sender.send(2).unwrap();
    }
    for value in [1, 2] {
        let mut tokens = Vec::from_iter(poller.wait(0).unwrap().iter().map(|event| event.token));
        tokens.sort_unstable();
        assert_eq!(tokens, [0, 50, 100, 150]);
        for token in tokens {
            assert_eq!(channels[token as usize].1.try_recv(), Ok(value));
        }
    }
    // One receiver is dropped, with values in its queue.
    let mut channels = channels;
    let (sender, receiver) = channels.remove(0);
    drop(receiver);
    drop(sender);
    let events = poller.wait(0).unwrap();
    assert!(events.len() == 3 && events.iter().all(|event| event.token != 0));
}

/// C15: without a receiver, no thread could ever find the queue empty.
pub(crate) fn the_event_of_a_dropped_receiver_is_not_repeated<P: Poller>() {
    for is_reported in [false, true] {
        let (mut poller, sender, receiver) = receiving::<P, _>();
        sender.send(1).unwrap();
        if is_reported {
            poller.expect_one();
        }
        drop(receiver);
        // The wake from before the drop.
        assert_eq!(poller.wait(0).unwrap().len(), usize::from(!is_reported));
        poller.expect_none();
        assert_eq!(sender.send(2), Err(SendError(2)));
        poller.expect_none();
    }
}

/// C15
pub(crate) fn a_value_sent_while_others_are_taken_is_not_lost<P: Poller>() {
    for taken_first in 0..3 {
        let (mut poller, sender, receiver) = receiving::<P, _>();
        sender.send(0).unwrap();
        sender.send(1).unwrap();
        poller.expect_one();
        let mut values = receiver.try_iter();
        let first: Vec<_> = values.by_ref().take(taken_first).collect();
        sender.send(2).unwrap();
        poller.expect_one();
        assert_eq!([first, taken(&receiver)].concat(), [0, 1, 2]);
        poller.expect_none();
    }
    let (mut poller, sender, receiver) = receiving::<P, _>();
    sender.send(0).unwrap();
    poller.expect_one();
    let mut values = receiver.try_iter();
    assert_eq!((values.next(), values.next()), (Some(0), None));
    sender.send(1).unwrap();
    poller.expect_one();
    assert_eq!(values.next(), Some(1));
}

/// C15
pub(crate) fn a_panic_while_values_are_taken_loses_none_of_the_others<P: Poller>() {
    let (mut poller, sender, receiver) = receiving::<P, _>();
    sender.send(0).unwrap();
    sender.send(1).unwrap();
    poller.expect_one();
    let take = AssertUnwindSafe(|| {
        if receiver.try_recv().is_ok() {
            resume_unwind(Box::new(()));
        }
    });
    catch_unwind(take).unwrap_err();
    poller.expect_one();
    assert_eq!(taken(&receiver), [1]);
    poller.expect_none();
}

/// C15
pub(crate) fn values_can_be_taken_without_an_event<P: Poller>() {
    let (mut poller, sender, receiver) = receiving::<P, _>();
    assert_eq!(taken(&receiver), []);
    sender.send(1).unwrap();
    assert_eq!(taken(&receiver), [1]);
    assert_eq!(taken(&receiver), []);
    poller.wait(0).unwrap();
    sender.send(2).unwrap();
    poller.expect_one();
    assert_eq!(taken(&receiver), [2]);
}

/// C15
pub(crate) fn the_last_senders_drop_is_reported<P: Poller>() {
    let (mut poller, sender, receiver) = receiving::<P, _>();
    let [first, second, last] = [(); 3].map(|()| sender.clone());
    drop((sender, first, second));
    poller.expect_none();
    assert_eq!(taken(&receiver), []);
    assert!(!receiver.is_disconnected());
    last.send(1).unwrap();
    drop(last);
    poller.expect_one();
    assert_eq!(receiver.try_recv(), Ok(1));
    assert!(!receiver.is_disconnected(), "only once all is taken");
    poller.expect_one();
    assert_eq!(receiver.try_recv(), Err(TryRecvError::Disconnected));
    assert!(receiver.is_disconnected());
    poller.expect_none();

    // No receiver is left to report to.
    let (mut poller, sender, receiver) = receiving::<P, u8>();
    drop(receiver);
    drop(sender);
    poller.expect_none();
}

/// C15, C12
pub(crate) fn the_last_drop_ends_a_blocked_wait<P: Poller>() {
    let (mut poller, sender, receiver) = receiving::<P, u8>();
    let other = sender.clone();
    thread::scope(|scope| {
        for sender in [sender, other] {
            scope.spawn(move || {
                thread::sleep(BLOCKED);
                drop(sender);
            });
        }
        poller.expect_one();
    });
    assert_eq!(taken(&receiver), []);
    assert!(receiver.is_disconnected());
}

pub(crate) fn without_a_receiver_a_value_comes_back<P: Poller>() {
    let (poller, sender, receiver) = receiving::<P, _>();
    sender.send("lost").unwrap();
    drop(receiver);
    assert_eq!(sender.send("kept"), Err(SendError("kept")));

    let (sender, receiver) = sync_channel(poller.registry(), TOKEN, 1).unwrap();
    drop(receiver);
    assert_eq!(sender.try_send("kept"), Err(TrySendError::Disconnected("kept")));
    assert_eq!(sender.send("kept"), Err(SendError("kept")));
}

/// C15
pub(crate) fn a_full_channel_gives_the_value_back<P: Poller>() {
    let mut poller = P::new().unwrap();
    let (sender, receiver) = sync_channel(poller.registry(), TOKEN, 3).unwrap();
    for value in 0..3 {
        sender.try_send(value).unwrap();
    }
    assert_eq!(sender.try_send(3), Err(TrySendError::Full(3)));
    poller.expect_one();
    assert_eq!(receiver.try_recv(), Ok(0));
    sender.try_send(3).unwrap();
    assert_eq!(sender.try_send(4), Err(TrySendError::Full(4)));
    poller.expect_one();
    assert_eq!(taken(&receiver), [1, 2, 3]);
    poller.expect_none();
    drop(sender);
    poller.expect_one();
    assert_eq!(receiver.try_recv(), Err(TryRecvError::Disconnected));
}

pub(crate) fn a_bound_that_cannot_be_had_is_refused<P: Poller>() {
    let poller = P::new().unwrap();
    let refused = |bound| sync_channel::<u8>(poller.registry(), TOKEN, bound).unwrap_err().kind();
    assert_eq!(refused(0), ErrorKind::InvalidInput);
    // More bytes than the machine's memory, though fewer than its addresses, if these have 64 bits.
    let more_than_memory = usize::try_from(1_u64 << 44).unwrap_or(usize::MAX);
    for bound in [more_than_memory, usize::MAX / 8, usize::MAX / 2, usize::MAX] {
        assert_eq!(refused(bound), ErrorKind::OutOfMemory, "{bound}");
    }
}

/// C15
pub(crate) fn a_sender_blocks_while_there_is_no_room<P: Poller>() {
    let mut poller = P::new().unwrap();
    let (sender, receiver) = sync_channel(poller.registry(), TOKEN, 2).unwrap();
    let sent = AtomicU64::new(0);
    let sent = &sent;
    // A failure here drops the receiver, and so ends the thread.
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
        thread::sleep(BLOCKED);
        assert_eq!(sent.load(Relaxed), 2);
        expect_in_order(&mut poller, &receiver, 5_000, |_| {});
    });
}

/// Each thread sends its numbers, in order; the receiver stops in the middle now and then.
fn stress<P: Poller>(
    mut poller: P,
    values: usize,
    send: impl Fn(usize, usize) + Sync,
    receiver: Receiver<(usize, usize)>,
) {
    const THREADS: usize = 4;
    let mut next = [0; THREADS];
    let start = Instant::now();
    thread::scope(|scope| {
        for thread in 0..THREADS {
            let send = &send;
            scope.spawn(move || (0..values).for_each(|value| send(thread, value)));
        }
        let mut left = THREADS * values;
        for turn in 1.. {
            let events = poller.wait(LONG_MS).unwrap().len();
            assert_eq!(events, 1, "{left} of the values are lost");
            let most = if turn % 3 == 0 { 10 } else { usize::MAX };
            for (thread, value) in receiver.try_iter().take(most) {
                let next = &mut next[thread];
                assert_eq!(value, *next);
                *next += 1;
                left -= 1;
            }
            if left == 0 {
                break;
            }
        }
    });
    assert_eq!(taken(&receiver), []);
    println!("{} values in {:?}", THREADS * values, start.elapsed());
}

/// C15
pub(crate) fn no_value_of_many_threads_is_lost<P: Poller>() {
    let (poller, sender, receiver) = receiving::<P, _>();
    stress(poller, 50_000, |thread, value| sender.send((thread, value)).unwrap(), receiver);
}

/// C15
pub(crate) fn no_value_of_many_threads_that_wait_for_room_is_lost<P: Poller>() {
    let poller = P::new().unwrap();
    let (sender, receiver) = sync_channel(poller.registry(), TOKEN, 16).unwrap();
    stress(poller, 10_000, |thread, value| sender.send((thread, value)).unwrap(), receiver);
}

/// C12, C15: a thread sends now and then, to a wait that blocks each time.
pub(crate) fn each_value_ends_a_blocked_wait<P: Poller>() {
    let (mut poller, sender, receiver) = receiving::<P, _>();
    let (back, answers) = std::sync::mpsc::channel();
    thread::scope(|scope| {
        scope.spawn(move || {
            for value in 0..2_000 {
                sender.send(value).unwrap();
                assert_eq!(answers.recv().unwrap(), value);
            }
        });
        expect_in_order(&mut poller, &receiver, 2_000, |value| back.send(value).unwrap());
    });
}

/// C15: threads come and go, and the drop of the last one is reported.
pub(crate) fn the_last_drop_of_many_threads_is_reported<P: Poller>() {
    for _ in 0..200 {
        let (mut poller, sender, receiver) = receiving::<P, _>();
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
            }
            values.sort_unstable();
            assert_eq!(values, [0, 1, 2, 3]);
        });
    }
}

pub(crate) fn the_ends_are_as_shareable_as_those_of_std<P: Poller>() {
    fn is_send<T: Send>() {}
    fn is_sync<T: Sync>() {}
    is_send::<Receiver<Cell<u8>>>();
    is_send::<Sender<Cell<u8>>>();
    is_sync::<Sender<Cell<u8>>>();
    is_send::<SyncSender<u8>>();
    is_sync::<SyncSender<u8>>();
    // Values need neither Debug nor Clone.
    struct Plain;
    let (poller, sender, receiver) = receiving::<P, Plain>();
    let shown = format!("{:?} {:?} {:?}", sender.clone(), receiver, receiver.try_iter());
    assert!(shown.starts_with("Sender { .. } Receiver { waker: Waker {"), "{shown}");
    let (sender, _receiver) = sync_channel::<Plain>(poller.registry(), TOKEN, 1).unwrap();
    assert_eq!(format!("{:?}", sender.clone()), "SyncSender { .. }");
}
