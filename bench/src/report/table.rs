//! The figures as Markdown.

use std::collections::BTreeMap;
use std::fmt::Write;

use super::{NOISY, Report};
use crate::counts;
use crate::method::{NO_POLLER, Outcome, Row, Spread};
use crate::peer::{BASE, BASE_SPINNING, US, US_SPINNING};
use crate::workload::ALL;

/// Percentiles that the plots show, and tables do not.
const HIDDEN: [&str; 3] = ["p10 [µs]", "p25 [µs]", "p75 [µs]"];

pub(crate) fn markdown(report: &Report) -> String {
    let mut text = String::new();
    // Writing to a String cannot fail.
    let _ = write_all(&mut text, report);
    text
}

fn write_all(text: &mut String, report: &Report) -> std::fmt::Result {
    let machine = &report.machine;
    writeln!(
        text,
        "{}, {} cores, Linux {}, {}. {}{} s.\n",
        machine.processor,
        machine.cores,
        machine.kernel,
        machine.rust,
        if report.quick { "`--quick`, which has few rounds: " } else { "" },
        report.seconds
    )?;
    let versions = report.versions.iter().map(|(peer, version)| format!("{peer} {version}"));
    writeln!(text, "{}.\n", versions.collect::<Vec<_>>().join(", "))?;
    if report.noise > NOISY {
        writeln!(
            text,
            "**Others had {:.0} % of the machine during this run: don't trust these figures.**\n",
            100.0 * report.noise
        )?;
    }
    writeln!(
        text,
        "Each figure is the median over the rounds. Behind it, how many times that of {BASE} it is, \
         round by round, unless the section names another base: the median, and the quarters around it where they are further apart than \
         0.01.\n"
    )?;
    let counted = [("counts", counts::COUNTS)];
    for (name, counts) in
        ALL.map(|workload| (workload.name, workload.counts)).into_iter().chain(counted)
    {
        let rows: Vec<_> = report
            .rows
            .iter()
            .filter(|row| row.workload == name && !HIDDEN.contains(&&*row.metric))
            .collect();
        if !rows.is_empty() {
            writeln!(text, "## {name}\n\n{counts}\n")?;
            table(text, &rows)?;
        }
    }
    losses(text, &report.rows)
}

fn table(text: &mut String, rows: &[&Row]) -> std::fmt::Result {
    let mut peers = Vec::new();
    for cell in rows.iter().flat_map(|row| &row.cells) {
        if !peers.contains(&cell.peer) {
            peers.push(cell.peer);
        }
    }
    writeln!(text, "| | {} |", peers.join(" | "))?;
    writeln!(text, "|---|{}", "---|".repeat(peers.len()))?;
    let mut absent: BTreeMap<(&str, &str), ()> = BTreeMap::new();
    for row in rows {
        write!(text, "| {}: {} |", row.case, row.metric)?;
        for peer in &peers {
            match row.cells.iter().find(|cell| cell.peer == *peer).map(|cell| &cell.outcome) {
                None => write!(text, " |")?,
                Some(Outcome::Absent(why)) => {
                    absent.insert((peer, why), ());
                    write!(text, " – |")?;
                }
                Some(Outcome::Figure { over_rounds, ratio }) => {
                    write!(text, " {}{} |", digits(over_rounds.median), times(ratio.as_ref()))?;
                }
            }
        }
        writeln!(text)?;
    }
    writeln!(text)?;
    if !absent.is_empty() {
        let reasons = absent.keys().map(|(peer, why)| format!("{peer} {why}"));
        writeln!(text, "–: {}.\n", reasons.collect::<Vec<_>>().join("; "))?;
    }
    Ok(())
}

/// Three digits that count.
fn digits(value: f64) -> String {
    match value.abs() {
        100.0.. => format!("{value:.0}"),
        10.0.. => format!("{value:.1}"),
        _ => format!("{value:.2}"),
    }
}

fn times(ratio: Option<&Spread>) -> String {
    ratio.map_or(String::new(), |Spread { low, median, high }| {
        if high - low > 0.01 {
            format!(" (×{median:.2}, {low:.2}–{high:.2})")
        } else {
            format!(" (×{median:.2})")
        }
    })
}

/// Where a peer is ahead of us by more than both spreads.
fn losses(text: &mut String, rows: &[Row]) -> std::fmt::Result {
    writeln!(text, "## Where pollio loses\n")?;
    writeln!(text, "A peer is ahead of pollio, without spinning, by more than both spreads:\n")?;
    let mut any = false;
    for row in rows.iter().filter(|row| !HIDDEN.contains(&&*row.metric)) {
        if row.workload == "spin" {
            // Its columns are limits, and its base another.
            continue;
        }
        let Some(ours) = row.ratio(US) else { continue };
        let others = row
            .cells
            .iter()
            .map(|cell| cell.peer)
            .filter(|peer| ![US, US_SPINNING, BASE, BASE_SPINNING, NO_POLLER].contains(peer));
        let better = others.filter(|peer| {
            row.ratio(peer).is_some_and(|theirs| {
                if row.metric.ends_with("/s") {
                    theirs.low > ours.high
                } else {
                    theirs.high < ours.low
                }
            })
        });
        let better: Vec<_> =
            better.map(|peer| format!("{peer}{}", times(row.ratio(peer).as_ref()))).collect();
        if !better.is_empty() {
            any = true;
            writeln!(
                text,
                "- {}, {}, {}: pollio{}, {}",
                row.workload,
                row.case,
                row.metric,
                times(Some(&ours)),
                better.join(", ")
            )?;
        }
    }
    if !any {
        writeln!(text, "- nowhere in this run")?;
    }
    Ok(())
}
