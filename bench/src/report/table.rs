//! Every cell as Markdown, for the person who measures. The page shows few of them.

use std::collections::BTreeSet;
use std::fmt::Write;

use super::Report;
use super::page::{digits, times_and_quarters};
use crate::method::{Outcome, Row};

pub(crate) fn all(report: &Report) -> String {
    let mut text = String::new();
    // Writing to a String cannot fail.
    let _ = write_all(&mut text, report);
    text
}

fn write_all(text: &mut String, report: &Report) -> std::fmt::Result {
    for (name, counts) in &report.about.workloads {
        let rows: Vec<_> = report.rows.iter().filter(|row| row.workload == *name).collect();
        if !rows.is_empty() {
            writeln!(text, "## {name}\n\n{counts}\n")?;
            table(text, &rows)?;
        }
    }
    Ok(())
}

fn table(text: &mut String, rows: &[&Row]) -> std::fmt::Result {
    let mut peers: Vec<&str> = Vec::new();
    for cell in rows.iter().flat_map(|row| &row.cells) {
        if !peers.contains(&&*cell.peer) {
            peers.push(&cell.peer);
        }
    }
    writeln!(text, "| | {} |", peers.join(" | "))?;
    writeln!(text, "|---|{}", "---|".repeat(peers.len()))?;
    let mut reasons = BTreeSet::new();
    for row in rows {
        write!(text, "| {}: {} |", row.case, row.metric)?;
        for peer in &peers {
            match row.cells.iter().find(|cell| cell.peer == *peer).map(|cell| &cell.outcome) {
                None => write!(text, " |")?,
                Some(Outcome::Absent { absent }) => {
                    reasons.insert(format!("{peer} {absent}"));
                    write!(text, " – |")?;
                }
                Some(Outcome::Figure { figure, ratio }) => {
                    write!(text, " {}", digits(figure.median))?;
                    if let Some(ratio) = ratio {
                        write!(text, " ({})", times_and_quarters(*ratio))?;
                    }
                    write!(text, " |")?;
                }
            }
        }
        writeln!(text)?;
    }
    writeln!(text)?;
    if !reasons.is_empty() {
        let reasons: Vec<_> = reasons.into_iter().collect();
        writeln!(text, "–: {}.\n", reasons.join("; "))?;
    }
    Ok(())
}
