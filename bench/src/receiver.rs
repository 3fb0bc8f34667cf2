//! Loops that serve sockets and receive messages of other threads: by pollio's channel, and by the queue and waker that
//! users of its peers combine.

use std::collections::HashMap;
use std::io;
use std::os::fd::{AsRawFd, RawFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::Duration;

use pollio::{EventObject, OsPoller, Poller};

use crate::peer::{self, Asked, Wakes, all};
use crate::sockets::{Pairs, read, write};

/// An arrival in a loop.
#[derive(Clone, Copy)]
pub(crate) enum Received {
    Message,
    /// A byte that it has read from a socket, and written again.
    Byte,
}

/// Sends a message to a loop.
pub(crate) type Sender = Box<dyn Fn() + Send>;

/// Hands out the sender of the loop, once. Then serves the near ends of these sockets, and reports each arrival until
/// the report of a message returns false.
pub(crate) type Receive =
    fn(&Pairs, &mut dyn FnMut(Sender), &mut dyn FnMut(Received) -> bool) -> io::Result<()>;

pub(crate) const RECEIVERS: [(&str, Receive); 5] = [
    (peer::US, by_pollio::<0>),
    (peer::US_SPINNING, by_pollio::<{ all::SPIN_US }>),
    ("mio, crossbeam-channel", by_mio),
    ("polling, async-channel", by_polling),
    ("tokio", by_tokio),
];

/// The most messages that a loop takes before it checks its sockets again.
const BATCH: usize = 256;

const MESSAGE: u64 = 7;

const LIVES: &str = "the loop lives until it has received everything";

fn by_pollio<const SPIN_US: u64>(
    pairs: &Pairs,
    start: &mut dyn FnMut(Sender),
    report: &mut dyn FnMut(Received) -> bool,
) -> io::Result<()> {
    let mut poller = OsPoller::new()?;
    poller.set_spin(Duration::from_micros(SPIN_US));
    let far_of = far_of(pairs);
    far_of.keys().try_for_each(|near| poller.add(EventObject::client(*near)))?;
    let (sender, receiver) = pollio::channel(poller.registry(), 0)?;
    start(Box::new(move || sender.send(MESSAGE).expect(LIVES)));
    loop {
        for event in poller.wait(-1)? {
            if !event.is_wake() {
                pass_on(event.fd, &far_of)?;
                report(Received::Byte);
            } else if !receiver.try_iter().take(BATCH).all(|_| report(Received::Message)) {
                return Ok(());
            }
        }
    }
}

fn by_mio(
    pairs: &Pairs,
    start: &mut dyn FnMut(Sender),
    report: &mut dyn FnMut(Received) -> bool,
) -> io::Result<()> {
    let (sender, receiver) = crossbeam_channel::unbounded();
    let send = move || sender.send(MESSAGE).expect(LIVES);
    by_queue_and_waker::<all::Mio>(pairs, send, || receiver.try_recv().is_ok(), start, report)
}

fn by_polling(
    pairs: &Pairs,
    start: &mut dyn FnMut(Sender),
    report: &mut dyn FnMut(Received) -> bool,
) -> io::Result<()> {
    let (sender, receiver) = async_channel::unbounded();
    let send = move || sender.try_send(MESSAGE).expect(LIVES);
    by_queue_and_waker::<all::Polling>(pairs, send, || receiver.try_recv().is_ok(), start, report)
}

/// Wakes the loop after each message. The loop wakes itself if it leaves some in the queue.
fn by_queue_and_waker<P: Wakes>(
    pairs: &Pairs,
    send: impl Fn() + Send + 'static,
    take: impl Fn() -> bool,
    start: &mut dyn FnMut(Sender),
    report: &mut dyn FnMut(Received) -> bool,
) -> io::Result<()> {
    let (mut peer, waker) = P::with_waker()?;
    let far_of = far_of(pairs);
    far_of.keys().try_for_each(|near| peer.add(*near, Asked::naturally::<P>()))?;
    let waker = Arc::new(waker);
    let senders = Arc::clone(&waker);
    start(Box::new(move || {
        send();
        P::wake(&senders).expect(LIVES);
    }));
    let mut ready = Vec::new();
    loop {
        peer.wait(|fd| ready.push(fd))?;
        for fd in ready.drain(..) {
            pass_on(fd, &far_of)?;
            report(Received::Byte);
        }
        let mut taken = 0;
        while taken < BATCH && take() {
            taken += 1;
            if !report(Received::Message) {
                return Ok(());
            }
        }
        if taken == BATCH {
            P::wake(&waker)?;
        }
    }
}

fn by_tokio(
    pairs: &Pairs,
    start: &mut dyn FnMut(Sender),
    report: &mut dyn FnMut(Received) -> bool,
) -> io::Result<()> {
    use tokio::io::AsyncReadExt;

    let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build()?;
    runtime.block_on(async {
        let bytes = Arc::new(AtomicUsize::new(0));
        for (near, far) in &pairs.0 {
            let mut near = tokio::net::UnixStream::from_std(near.try_clone()?)?;
            let (far, bytes) = (far.as_raw_fd(), Arc::clone(&bytes));
            tokio::spawn(async move {
                while let Ok(1) = near.read(&mut [0]).await {
                    if write(far, b"x").is_err() {
                        return;
                    }
                    bytes.fetch_add(1, Relaxed);
                }
            });
        }
        let (sender, mut receiver) = tokio::sync::mpsc::unbounded_channel();
        start(Box::new(move || sender.send(MESSAGE).expect(LIVES)));
        while receiver.recv().await.is_some() {
            (0..bytes.swap(0, Relaxed)).for_each(|_| {
                report(Received::Byte);
            });
            if !report(Received::Message) {
                break;
            }
        }
        Ok(())
    })
}

/// The far end of each socket, by its near end.
fn far_of(pairs: &Pairs) -> HashMap<RawFd, RawFd> {
    pairs.0.iter().map(|(near, far)| (near.as_raw_fd(), far.as_raw_fd())).collect()
}

/// Reads the byte of a socket, and writes it again.
fn pass_on(near: RawFd, far_of: &HashMap<RawFd, RawFd>) -> io::Result<()> {
    read(near, &mut [0])?;
    write(far_of[&near], b"x")
}
