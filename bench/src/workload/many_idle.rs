//! libevent's classic: a chain of sockets among many that stay idle.

use std::io;
use std::os::fd::{AsRawFd, RawFd};
use std::time::Instant;

use indicatif::ProgressBar;
use socket2::Socket;

use super::Plan;
use crate::method::{Case, Row, Turn, compare, ns_each};
use crate::peer::{Asked, Peer, of_each_peer};
use crate::sockets::{Pairs, idle, read, write};

pub(crate) const COUNTS: &str = "Ten bytes go round in a chain of 100 Unix sockets, each of which \
    hands on what it is sent, while N idle sockets are registered as well. Counted: the time for \
    each event with its read and its write. It should not depend on N.";

pub(crate) const CROWDS: [usize; 5] = [100, 1_000, 5_000, 10_000, 18_000];

const CHAIN: usize = 100;
const BYTES: usize = 10;

/// The number of events in a turn, after a tenth of them to warm up.
const EVENTS: usize = 10_000;

pub(crate) fn run(plan: Plan, progress: &ProgressBar) -> io::Result<Vec<Row>> {
    let mut rows = Vec::new();
    let idle_sockets = idle(plan.of([1_000, 18_000]))?;
    for size in plan.some(&CROWDS[..2], &CROWDS) {
        let pairs = Pairs::new(CHAIN)?;
        let case = Case { workload: "many_idle", name: size.to_string(), rounds: plan.rounds() };
        let turns = of_each_peer!(turn(&pairs, &idle_sockets[..size]));
        rows.extend(compare(case, turns, progress));
    }
    Ok(rows)
}

fn turn<'a, P: Peer>(pairs: &'a Pairs, idle_sockets: &'a [Socket]) -> Turn<'a> {
    let run = move || {
        let asked = Asked::naturally::<P>();
        let mut poller = P::new()?;
        idle_sockets.iter().try_for_each(|socket| poller.add(socket.as_raw_fd(), asked))?;
        let (near, far) = pairs.spread(CHAIN);
        let mut chain = Chain { poller, next: Vec::new(), events: 0 };
        for (at, fd) in near.iter().enumerate() {
            chain.poller.add(*fd, asked)?;
            let index = fd.unsigned_abs() as usize;
            chain.next.resize(chain.next.len().max(index + 1), 0);
            chain.next[index] = far[(at + 1) % CHAIN];
        }
        far.iter().step_by(CHAIN / BYTES).try_for_each(|fd| write(*fd, b"x"))?;
        chain.run_for(EVENTS / 10)?;
        let (start, before) = (Instant::now(), chain.events);
        chain.run_for(EVENTS)?;
        let time = start.elapsed();
        let events = chain.events - before;
        // Bytes on their way must not reach the next peer.
        let mut bytes = [0; BYTES];
        near.iter().for_each(|fd| drop(read(*fd, &mut bytes)));
        Ok(vec![("an event [ns]", ns_each(time, events))])
    };
    Turn { peer: P::NAME, run: Ok(Box::new(run)) }
}

struct Chain<P> {
    poller: P,
    /// The far end to which each near end, by its number, passes bytes on.
    next: Vec<RawFd>,
    events: usize,
}

impl<P: Peer> Chain<P> {
    fn run_for(&mut self, events: usize) -> io::Result<()> {
        let end = self.events + events;
        while self.events < end {
            let mut outcome = Ok(());
            self.poller.wait(|fd| {
                let mut bytes = [0; BYTES];
                // Reads all bytes, so that no edge is lost if two bytes have met.
                if let Ok(count) = read(fd, &mut bytes) {
                    self.events += 1;
                    let sent = write(self.next[fd.unsigned_abs() as usize], &bytes[..count]);
                    if sent.is_err() {
                        outcome = sent;
                    }
                }
            })?;
            outcome?;
        }
        Ok(())
    }
}
