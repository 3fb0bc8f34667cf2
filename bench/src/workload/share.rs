//! Several threads on one poller, next to several threads with a poller each.

use std::collections::HashMap;
use std::io;
use std::os::fd::RawFd;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::thread;
use std::time::Instant;

use indicatif::ProgressBar;

use super::Plan;
use crate::method::{Case, Figures, Row, Turn, compare, ns_each};
use crate::peer::{Asked, Mode, Shares, all};
use crate::sockets::{Pairs, read, write};

pub(crate) const COUNTS: &str = "64 Unix sockets have a byte in them, each registered as a oneshot. Threads \
    wait, read the byte, write another one that makes the socket readable again, and arm it. Counted: the \
    time for each byte, in all threads together: with one poller on which all threads wait, and with a \
    poller for each thread, which has its part of the sockets.";

const SOCKETS: usize = 64;

/// The number of bytes that a turn reads, after a tenth of them to warm up.
const BYTES: usize = 100_000;

pub(crate) fn run(plan: Plan, progress: &ProgressBar) -> io::Result<Vec<Row>> {
    let mut rows = Vec::new();
    for threads in plan.some(&[2], &[2, 4, 8]) {
        for (name, pollers) in [("one poller", 1), ("a poller each", threads)] {
            let case = Case {
                workload: "share",
                name: format!("{threads} threads, {name}"),
                rounds: plan.rounds(),
            };
            let turns = vec![
                turn::<all::Bare>(threads, pollers),
                turn::<all::Pollio<0>>(threads, pollers),
                turn::<all::Pollio<{ all::SPIN_US }>>(threads, pollers),
            ];
            rows.extend(compare(case, turns, progress));
        }
    }
    Ok(rows)
}

fn turn<P: Shares>(threads: usize, pollers: usize) -> Turn<'static> {
    Turn { peer: P::NAME, run: Ok(Box::new(move || bytes::<P>(threads, pollers))) }
}

fn bytes<P: Shares>(threads: usize, pollers: usize) -> io::Result<Figures> {
    let pairs = Pairs::new(SOCKETS)?;
    let (near, far) = pairs.spread(SOCKETS);
    let far_of: HashMap<_, _> = near.iter().copied().zip(far).collect();
    let mut origins = (0..pollers).map(|_| P::new()).collect::<io::Result<Vec<P>>>()?;
    for (index, (near, far)) in far_of.iter().enumerate() {
        origins[index % pollers].add(*near, Asked::in_mode(Mode::Oneshot))?;
        write(*far, b"x")?;
    }
    let handles: Vec<P> =
        (0..threads).map(|thread| origins[thread % pollers].share()).collect::<io::Result<_>>()?;
    let (count, begin) = (AtomicUsize::new(0), BYTES / 10);
    let start = thread::scope(|scope| {
        let handle = |mut poller| {
            let (count, far_of) = (&count, &far_of);
            scope.spawn(move || handle_until(&mut poller, count, far_of, begin))
        };
        let threads: Vec<_> = handles.into_iter().map(handle).collect();
        let mut start = None;
        for thread in threads {
            start = start.or(thread.join().expect("it does not panic")?);
        }
        Ok::<_, io::Error>(start.expect("one of them has counted so far"))
    })?;
    Ok(vec![("a byte [ns]", ns_each(start.elapsed(), BYTES))])
}

/// Passes bytes on until there were enough. Returns the start of the measured time, if this thread began it.
fn handle_until<P: Shares>(
    poller: &mut P,
    count: &AtomicUsize,
    far_of: &HashMap<RawFd, RawFd>,
    begin: usize,
) -> io::Result<Option<Instant>> {
    let (mut start, mut ready) = (None, Vec::new());
    while count.load(Relaxed) < begin + BYTES {
        poller.wait(|fd| ready.push(fd))?;
        for fd in ready.drain(..) {
            if count.fetch_add(read(fd, &mut [0])?, Relaxed) == begin {
                start = Some(Instant::now());
            }
            write(far_of[&fd], b"x")?;
            poller.modify(fd, Asked::in_mode(Mode::Oneshot))?;
        }
    }
    Ok(start)
}
