//! Adding, deleting and changing registrations.

use std::io;
use std::time::Instant;

use indicatif::ProgressBar;

use super::Plan;
use crate::method::{Case, Row, Turn, compare, ns_each};
use crate::peer::{Asked, Peer, of_each_peer};
use crate::sockets::Pairs;

pub(crate) const ADD_DELETE: &str =
    "1,000 idle Unix sockets are added, then deleted. Counted: the time for each add and delete.";

pub(crate) const MODIFY: &str = "The interest of 1,000 idle Unix sockets changes from reading to \
    both directions and back, and nobody waits. Counted: the time for each change.";

const SOCKETS: usize = 1_000;
const TIMES: usize = 10;

pub(crate) fn add_delete(plan: Plan, progress: &ProgressBar) -> io::Result<Vec<Row>> {
    let pairs = Pairs::new(SOCKETS)?;
    let case = case("add_delete", "add and delete", plan);
    Ok(compare(case, of_each_peer!(add_delete_turn(&pairs)), progress))
}

fn add_delete_turn<P: Peer>(pairs: &Pairs) -> Turn<'_> {
    let run = move || {
        let asked = Asked::naturally::<P>();
        let mut poller = P::new()?;
        let mut once = || {
            pairs.near().try_for_each(|fd| poller.add(fd, asked))?;
            pairs.near().try_for_each(|fd| poller.delete(fd))
        };
        once()?;
        let start = Instant::now();
        (0..TIMES).try_for_each(|_| once())?;
        Ok(vec![("both calls [ns]", ns_each(start.elapsed(), TIMES * SOCKETS))])
    };
    Turn { peer: P::NAME, run: P::LAZY.map_or(Ok(Box::new(run)), Err) }
}

pub(crate) fn modify(plan: Plan, progress: &ProgressBar) -> io::Result<Vec<Row>> {
    let pairs = Pairs::new(SOCKETS)?;
    let case = case("modify", "modify", plan);
    Ok(compare(case, of_each_peer!(modify_turn(&pairs)), progress))
}

fn modify_turn<P: Peer>(pairs: &Pairs) -> Turn<'_> {
    let asked = Asked::naturally::<P>();
    let both = Asked { writable_too: true, ..asked };
    let run = move || {
        let mut poller = P::new()?;
        pairs.near().try_for_each(|fd| poller.add(fd, asked))?;
        let mut once = || {
            pairs.near().try_for_each(|fd| poller.modify(fd, both))?;
            pairs.near().try_for_each(|fd| poller.modify(fd, asked))
        };
        once()?;
        let start = Instant::now();
        (0..TIMES).try_for_each(|_| once())?;
        Ok(vec![("a call [ns]", ns_each(start.elapsed(), TIMES * 2 * SOCKETS))])
    };
    Turn { peer: P::NAME, run: P::lacks(both).or(P::LAZY).map_or(Ok(Box::new(run)), Err) }
}

fn case(workload: &'static str, name: &str, plan: Plan) -> Case {
    Case { workload, name: name.to_owned(), rounds: plan.rounds() }
}
