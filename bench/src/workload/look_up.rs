//! Finding a connection by its event.

use std::collections::HashMap;
use std::hint::black_box;
use std::io::{self, Write};
use std::os::fd::{AsRawFd, RawFd};
use std::os::unix::net::UnixStream;
use std::time::Instant;

use indicatif::ProgressBar;
use pollio::{Connections, Event, EventObject, OsPoller, Poller};

use super::Plan;
use crate::method::{Case, Row, Turn, compare_with, ns_each};
use crate::sockets::Pairs;

pub(crate) const COUNTS: &str = "N connections are ready, and each is looked up by its event, with its \
    socket and a number to add to: in Connections, compared with a HashMap keyed by descriptor and token. \
    Counted: the time for each look-up.";

const HASH_MAP: &str = "HashMap";

/// The number of look-ups in a turn, after as many to warm up.
const LOOK_UPS: usize = 1_000_000;

pub(crate) fn run(plan: Plan, progress: &ProgressBar) -> io::Result<Vec<Row>> {
    let mut rows = Vec::new();
    for connections in plan.some(&[1_000], &[10, 1_000, 4_000]) {
        let pairs = Pairs::new(connections)?;
        let mut poller = OsPoller::with_capacity(connections)?;
        let mut table = Connections::new(poller.registry());
        for (near, far) in &pairs.0 {
            table.insert(near, EventObject::client, 0_u64)?;
            (&*far).write_all(b"x")?;
        }
        let events = poller.wait(0)?;
        let mut map: HashMap<(RawFd, u32), (&UnixStream, u64)> = HashMap::new();
        for event in events {
            let (stream, _) = table.get(event).expect("it was inserted");
            map.insert((event.fd, event.token), (stream, 0));
        }
        let turns = vec![
            turn(HASH_MAP, events, |event| {
                let (stream, count) = map.get_mut(&(event.fd, event.token))?;
                *count += 1;
                Some(stream.as_raw_fd())
            }),
            turn("Connections", events, |event| {
                let (stream, count) = table.get_mut(event)?;
                *count += 1;
                Some(stream.as_raw_fd())
            }),
        ];
        let name = format!("of {connections}");
        let case = Case { workload: "look_up", name, rounds: plan.rounds() };
        rows.extend(compare_with(HASH_MAP, case, turns, progress));
    }
    Ok(rows)
}

fn turn<'a>(
    peer: &'static str,
    events: &'a [Event],
    mut look_up: impl FnMut(&Event) -> Option<RawFd> + 'a,
) -> Turn<'a> {
    let run = move || {
        let mut once = || {
            for event in events.iter().cycle().take(LOOK_UPS) {
                if black_box(look_up(black_box(event))) != Some(event.fd) {
                    return Err(io::ErrorKind::NotFound.into());
                }
            }
            Ok::<_, io::Error>(())
        };
        once()?;
        let start = Instant::now();
        once()?;
        Ok(vec![("a look-up [ns]", ns_each(start.elapsed(), LOOK_UPS))])
    };
    Turn { peer, run: Ok(Box::new(run)) }
}
