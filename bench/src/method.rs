//! The comparison of peers: they take turns, so that a disturbance of the machine affects them all.

use std::io;
use std::time::Duration;

use indicatif::ProgressBar;
use serde::{Deserialize, Serialize};

use crate::peer::{BASE, Entrant};

/// The figures of one turn of one peer, by name.
pub(crate) type Figures = Vec<(&'static str, f64)>;

/// One turn of one peer.
pub(crate) type Turn<'a> = Entrant<dyn FnMut() -> io::Result<Figures> + 'a>;

/// The turn that makes the same calls without a poller, if there is one. The others are also reported net of it.
pub(crate) const NO_POLLER: &str = "no poller";

/// The figures of all peers under one name.
#[derive(Debug, Deserialize, PartialEq, Serialize)]
pub(crate) struct Row {
    pub(crate) workload: String,
    pub(crate) case: String,
    pub(crate) metric: String,
    pub(crate) cells: Vec<Cell>,
}

/// The figure of one peer.
#[derive(Debug, Deserialize, PartialEq, Serialize)]
pub(crate) struct Cell {
    pub(crate) peer: String,
    #[serde(flatten)]
    pub(crate) outcome: Outcome,
}

#[derive(Debug, Deserialize, PartialEq, Serialize)]
#[serde(untagged)]
pub(crate) enum Outcome {
    Figure {
        figure: Spread,
        /// Divided by the base of the same round.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        ratio: Option<Spread>,
    },
    /// The reason why there is none.
    Absent { absent: String },
}

/// The median of the rounds, and the quartiles around it.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Serialize)]
#[serde(from = "[f64; 3]", into = "[f64; 3]")]
pub(crate) struct Spread {
    pub(crate) low: f64,
    pub(crate) median: f64,
    pub(crate) high: f64,
}

impl From<[f64; 3]> for Spread {
    fn from([low, median, high]: [f64; 3]) -> Self {
        Self { low, median, high }
    }
}

/// In five digits: a file of data needs no more.
impl From<Spread> for [f64; 3] {
    fn from(Spread { low, median, high }: Spread) -> Self {
        [low, median, high].map(|value| format!("{value:.4e}").parse().unwrap_or(value))
    }
}

impl Spread {
    fn of(mut values: Vec<f64>) -> Self {
        values.sort_by(f64::total_cmp);
        let last = values.len() - 1;
        Self { low: values[last / 4], median: values[last / 2], high: values[last - last / 4] }
    }
}

impl Row {
    pub(crate) fn cell(&self, peer: &str) -> Option<Spread> {
        self.reported(peer).map(|(figure, _)| figure)
    }

    pub(crate) fn ratio(&self, peer: &str) -> Option<Spread> {
        self.reported(peer).and_then(|(_, ratio)| ratio)
    }

    fn reported(&self, peer: &str) -> Option<(Spread, Option<Spread>)> {
        self.cells.iter().find(|cell| cell.peer == peer).and_then(|cell| match cell.outcome {
            Outcome::Figure { figure, ratio } => Some((figure, ratio)),
            Outcome::Absent { .. } => None,
        })
    }
}

/// The names of a comparison.
pub(crate) struct Case {
    pub(crate) workload: &'static str,
    pub(crate) name: String,
    pub(crate) rounds: usize,
}

/// Lets the peers take turns, and compares them with the bare calls.
pub(crate) fn compare(case: Case, turns: Vec<Turn<'_>>, progress: &ProgressBar) -> Vec<Row> {
    compare_with(BASE, case, turns, progress)
}

/// Lets the peers take turns, the order rotating from round to round, and compares them with `base`.
pub(crate) fn compare_with(
    base: &str,
    case: Case,
    mut turns: Vec<Turn<'_>>,
    progress: &ProgressBar,
) -> Vec<Row> {
    progress.set_message(format!("{}: {}", case.workload, case.name));
    let mut rounds: Vec<Vec<Figures>> = (0..turns.len()).map(|_| Vec::new()).collect();
    let mut failures = vec![None; turns.len()];
    for round in 0..case.rounds {
        for place in 0..turns.len() {
            let index = (round + place) % turns.len();
            let Ok(run) = &mut turns[index].run else { continue };
            match run() {
                Ok(figures) => rounds[index].push(figures),
                Err(error) => failures[index] = Some(format!("failed: {error}")),
            }
            progress.tick();
        }
    }
    progress.inc(1);
    let reported: Vec<_> = turns
        .iter()
        .zip(&rounds)
        .zip(failures)
        .map(|((turn, rounds), failure)| match (failure, turn.run.as_ref().err()) {
            (None, None) => (turn.peer, Ok(rounds)),
            (Some(why), _) => (turn.peer, Err(why)),
            (None, Some(why)) => (turn.peer, Err((*why).to_owned())),
        })
        .collect();
    rows(base, &case, &reported)
}

/// A peer with the figures of its rounds, or the reason why there are none.
type Measured<'a> = (&'static str, Result<&'a Vec<Figures>, String>);

fn rows(base: &str, case: &Case, reported: &[Measured<'_>]) -> Vec<Row> {
    let of = |peer: &str| {
        reported
            .iter()
            .find(|(name, _)| *name == peer)
            .and_then(|(_, reported)| reported.as_ref().ok())
    };
    let Some(first) = reported.iter().find_map(|(_, reported)| reported.as_ref().ok()) else {
        return Vec::new();
    };
    let mut rows = Vec::new();
    for (at, (metric, _)) in first[0].iter().enumerate() {
        let value = |rounds: &[Figures], round: usize| rounds[round][at].1;
        let mut add = |metric: String, less: Option<&Vec<Figures>>| {
            let figure = |rounds: &[Figures], round| {
                value(rounds, round) - less.map_or(0.0, |less| value(less, round))
            };
            let cells = reported.iter().filter(|(peer, _)| less.is_none() || *peer != NO_POLLER);
            let cells = cells.map(|(peer, reported)| Cell {
                peer: (*peer).to_owned(),
                outcome: match reported {
                    Err(why) => Outcome::Absent { absent: why.clone() },
                    Ok(rounds) => Outcome::Figure {
                        figure: Spread::of(
                            (0..case.rounds).map(|round| figure(rounds, round)).collect(),
                        ),
                        ratio: of(base)
                            .filter(|base| (0..case.rounds).all(|round| value(base, round) > 0.0))
                            .map(|base| {
                                Spread::of(
                                    (0..case.rounds)
                                        .map(|round| figure(rounds, round) / figure(base, round))
                                        .collect(),
                                )
                            }),
                    },
                },
            });
            rows.push(Row {
                workload: case.workload.to_owned(),
                case: case.name.clone(),
                metric,
                cells: cells.collect(),
            });
        };
        add((*metric).to_owned(), None);
        if let Some(none) = of(NO_POLLER) {
            add(format!("{metric}, net"), Some(none));
        }
    }
    rows
}

/// Nanoseconds for each of `count`.
#[expect(clippy::cast_precision_loss, reason = "figures of a bench have few digits")]
pub(crate) fn ns_each(time: Duration, count: usize) -> f64 {
    time.as_nanos() as f64 / count as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_spread_is_the_median_and_the_quarters_around_it() {
        let Spread { low, median, high } = Spread::of(vec![9.0, 1.0, 5.0, 3.0, 7.0]);
        assert_eq!([low, median, high], [3.0, 5.0, 7.0]);
        let Spread { low, median, high } = Spread::of(vec![2.0]);
        assert_eq!([low, median, high], [2.0, 2.0, 2.0]);
    }

    /// A turn that takes the next of `times` in each round.
    fn turn(peer: &'static str, times: &'static [f64]) -> Turn<'static> {
        let mut times = times.iter();
        Turn { peer, run: Ok(Box::new(move || Ok(vec![("time", *times.next().unwrap())]))) }
    }

    fn compared(turns: Vec<Turn<'_>>) -> Vec<Row> {
        let case = Case { workload: "test", name: String::new(), rounds: 3 };
        compare(case, turns, &ProgressBar::hidden())
    }

    #[test]
    fn a_ratio_is_taken_round_by_round() {
        let rows =
            compared(vec![turn(BASE, &[1.0, 10.0, 100.0]), turn("peer", &[2.0, 20.0, 200.0])]);
        let [row] = &rows[..] else { panic!("{rows:?}") };
        let Spread { low, median, high } = row.ratio("peer").unwrap();
        assert_eq!([low, median, high], [2.0, 2.0, 2.0]);
    }

    #[test]
    fn costs_without_a_poller_are_subtracted() {
        let rows = compared(vec![
            turn(BASE, &[3.0; 3]),
            turn("peer", &[5.0; 3]),
            turn(NO_POLLER, &[1.0; 3]),
        ]);
        let [all, net] = &rows[..] else { panic!("{rows:?}") };
        assert_eq!(all.cell("peer").unwrap().median, 5.0);
        assert_eq!(net.cell("peer").unwrap().median, 4.0);
        assert_eq!(net.ratio("peer").unwrap().median, 2.0);
        assert!(net.cell(NO_POLLER).is_none());
    }

    #[test]
    fn a_peer_that_cannot_run_or_fails_is_absent_with_a_reason() {
        let fails =
            Turn { peer: "fails", run: Ok(Box::new(|| Err(io::ErrorKind::Unsupported.into()))) };
        let cannot = Turn { peer: "cannot", run: Err("has no such thing") };
        let rows = compared(vec![turn(BASE, &[1.0; 3]), fails, cannot]);
        let why = |peer| match &rows[0].cells.iter().find(|cell| cell.peer == peer).unwrap().outcome
        {
            Outcome::Absent { absent } => absent.clone(),
            Outcome::Figure { .. } => panic!("{peer} has a figure"),
        };
        assert_eq!(why("fails"), "failed: unsupported");
        assert_eq!(why("cannot"), "has no such thing");
    }

    #[test]
    fn the_order_rotates() {
        let order = std::cell::RefCell::new(Vec::new());
        let order_of = &order;
        let turn = |peer| Turn {
            peer,
            run: Ok(Box::new(move || {
                order_of.borrow_mut().push(peer);
                Ok(vec![("time", 1.0)])
            })),
        };
        compared(vec![turn("a"), turn("b"), turn("c")]);
        assert_eq!(order.take().concat(), "abcbcacab");
    }
}
