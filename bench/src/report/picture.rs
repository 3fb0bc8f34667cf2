//! Groups of bars, as SVG: legible at its own width, on a light page and on a dark one.

use std::fmt::{self, Write};

use crate::method::Spread;
use crate::peer::{BASE, BASE_SPINNING, US, US_SPINNING};

/// A group of bars that are compared with each other.
pub(crate) struct Group {
    pub(crate) heading: String,
    pub(crate) bars: Vec<Bar>,
}

pub(crate) struct Bar {
    pub(crate) peer: String,
    pub(crate) figure: Spread,
    /// The text at its end.
    pub(crate) text: String,
}

/// Whether the bars of all groups have one scale.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Scale {
    Own,
    Shared,
}

const STYLE: &str =
    r#"role="img" font-family="Helvetica, Arial, DejaVu Sans, sans-serif" font-size="12""#;

const WIDTH: f64 = 600.0;
const MARGIN: f64 = 12.0;
const TITLE: f64 = 34.0;
const HEADING: f64 = 26.0;
const BAR: f64 = 18.0;
/// The width of a letter, at the size of the labels.
const LETTER: f64 = 7.0;
/// Space for the text at the end of a bar.
const TEXT: f64 = 74.0;

/// Shorter labels leave room for two columns.
const TWO_COLUMNS: f64 = 120.0;

/// The line between the quartiles ends here, as a multiple of the longest bar.
const LONGEST: f64 = 1.15;

pub(crate) fn svg(title: &str, scale: Scale, groups: &[Group]) -> String {
    let mut text = String::new();
    // Writing to a String cannot fail.
    let _ = write_all(&mut text, title, scale, groups);
    text
}

fn write_all(text: &mut String, title: &str, scale: Scale, groups: &[Group]) -> fmt::Result {
    let bars = || groups.iter().flat_map(|group| &group.bars);
    let letters = bars().map(|bar| bar.peer.chars().count()).max().unwrap_or(0);
    let labels = LETTER * f64::from(u32::try_from(letters).unwrap_or(u32::MAX)) + 4.0;
    let columns = if labels < TWO_COLUMNS && groups.len() > 1 { 2 } else { 1 };
    let width = (WIDTH - MARGIN) / f64::from(columns) - MARGIN;
    let rows: Vec<&[Group]> = groups.chunks(if columns == 2 { 2 } else { 1 }).collect();
    let height_of = |row: &[Group]| {
        let most = row.iter().map(|group| group.bars.len()).max().unwrap_or(0);
        HEADING + BAR * f64::from(u32::try_from(most).unwrap_or(u32::MAX)) + 8.0
    };
    let height = TITLE + rows.iter().map(|row| height_of(row)).sum::<f64>() + MARGIN;
    writeln!(
        text,
        r#"<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{height}" viewBox="0 0 {WIDTH} {height}" {STYLE}>"#
    )?;
    writeln!(text, "<title>{}</title>", escaped(title))?;
    writeln!(
        text,
        r##"<rect width="{WIDTH}" height="{height}" rx="8" fill="#ffffff" stroke="#d0d7de"/>"##
    )?;
    writeln!(
        text,
        r##"<text x="{MARGIN}" y="24" font-size="15" font-weight="bold" fill="#1f2328">{}</text>"##,
        escaped(title)
    )?;
    let longest = |bars: &mut dyn Iterator<Item = &Bar>| {
        bars.map(|bar| bar.figure.median).fold(f64::MIN_POSITIVE, f64::max)
    };
    let shared = longest(&mut bars());
    let mut top = TITLE;
    for row in rows {
        let mut left = MARGIN;
        for group in row {
            let longest = match scale {
                Scale::Own => longest(&mut group.bars.iter()),
                Scale::Shared => shared,
            };
            let unit = (width - labels - TEXT) / (LONGEST * longest);
            write_group(text, group, (left, top), labels, unit, LONGEST * longest)?;
            left += width + MARGIN;
        }
        top += height_of(row);
    }
    writeln!(text, "</svg>")
}

/// `unit` is the drawn length of one unit of the metric.
fn write_group(
    text: &mut String,
    group: &Group,
    (left, top): (f64, f64),
    labels: f64,
    unit: f64,
    longest: f64,
) -> fmt::Result {
    writeln!(
        text,
        r##"<text x="{left}" y="{:.1}" font-weight="bold" fill="#1f2328">{}</text>"##,
        top + 18.0,
        escaped(&group.heading)
    )?;
    let (mut top, start) = (top + HEADING, left + labels + 4.0);
    for bar in &group.bars {
        let middle = top + BAR / 2.0;
        let [low, median, high] = [bar.figure.low, bar.figure.median, bar.figure.high]
            .map(|value| start + unit * value.clamp(0.0, longest));
        writeln!(
            text,
            r##"<text x="{:.1}" y="{:.1}" text-anchor="end" fill="#1f2328">{}</text>"##,
            start - 6.0,
            middle + 4.0,
            escaped(&bar.peer)
        )?;
        writeln!(
            text,
            r##"<rect x="{start:.1}" y="{:.1}" width="{:.1}" height="{:.1}" fill="{}"/>"##,
            top + 2.5,
            (median - start).max(1.0),
            BAR - 5.0,
            color(&bar.peer)
        )?;
        if high - low >= 2.0 {
            writeln!(
                text,
                r##"<path d="M{low:.1} {middle:.1}H{high:.1}" stroke="#1f2328" stroke-width="1"/>"##
            )?;
        }
        writeln!(
            text,
            r##"<text x="{:.1}" y="{:.1}" fill="#1f2328">{}</text>"##,
            median.max(high) + 5.0,
            middle + 4.0,
            escaped(&bar.text)
        )?;
        top += BAR;
    }
    Ok(())
}

/// Our color is the same in every picture, and so is that of the bare calls.
fn color(peer: &str) -> &'static str {
    match peer {
        US | "http_server" | "resp_server" | "one poller" => "#d1492e",
        US_SPINNING => "#f0a03c",
        BASE | BASE_SPINNING => "#57606a",
        _ => "#afb8c1",
    }
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}
