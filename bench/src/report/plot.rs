//! The figures as SVG.

use std::error::Error;
use std::path::Path;

use plotters::prelude::{
    BLACK, ChartBuilder, Color, IntoDrawingArea, IntoLogRange, LineSeries, PathElement, RGBColor,
    Rectangle, SVGBackend, SeriesLabelPosition, Text, WHITE,
};

use super::Report;
use crate::method::Row;
use crate::peer::{US, US_SPINNING};
use crate::stats::PARTS;

type Done = Result<(), Box<dyn Error>>;

const SIZE: (u32, u32) = (800, 420);

/// Each plot whose figures were measured.
pub(crate) fn all(report: &Report, folder: &Path) -> Done {
    let rows = &report.rows;
    many_idle(rows, &folder.join("many-idle.svg"))?;
    let ready = |row: &&Row| row.workload == "ready_events" && row.metric.ends_with("net");
    if let Some(row) = rows.iter().find(|row| ready(row) && row.case.starts_with("edge, 256 of")) {
        let title = format!(
            "What an event costs, {}: nanoseconds in addition to its read and write",
            row.case
        );
        bars(row, &title, &folder.join("ready-events.svg"))?;
    }
    let echo = |row: &&Row| row.workload == "echo" && row.case == "1";
    if let Some(row) = rows.iter().find(|row| echo(row) && row.metric == "messages/s") {
        let title = "An echo server and one client: messages a second";
        bars(row, title, &folder.join("echo.svg"))?;
    }
    let name = "An echo server and one client: how long an answer took";
    latencies(rows, ("echo", "1"), name, &folder.join("echo-latency.svg"))?;
    let name = "Two threads, a core for each: from a wake to the wake back";
    latencies(rows, ("wake", "two cores"), name, &folder.join("wake-latency.svg"))
}

/// What the idle cost: one line a peer.
fn many_idle(rows: &[Row], path: &Path) -> Done {
    let points: Vec<(f64, &Row)> = rows
        .iter()
        .filter(|row| row.workload == "many_idle")
        .filter_map(|row| Some((row.case.parse().ok()?, row)))
        .collect();
    let (Some((first, row)), Some((last, _))) = (points.first(), points.last()) else {
        return Ok(());
    };
    let peers: Vec<_> = row.cells.iter().map(|cell| cell.peer).collect();
    let lines: Vec<(&str, Vec<(f64, f64)>)> = peers
        .into_iter()
        .map(|peer| {
            let points =
                points.iter().filter_map(|(size, row)| Some((*size, row.cell(peer)?.median)));
            (peer, points.collect())
        })
        .collect();
    let highest = lines.iter().flat_map(|(_, line)| line).map(|(_, y)| *y).fold(0.0, f64::max);
    let root = SVGBackend::new(path, SIZE).into_drawing_area();
    root.fill(&WHITE)?;
    let mut chart = ChartBuilder::on(&root)
        .caption("A chain of 100 sockets among many idle ones", ("sans-serif", 18))
        .margin(10)
        .margin_right(30)
        .x_label_area_size(40)
        .y_label_area_size(60)
        .build_cartesian_2d((*first..*last).log_scale(), 0.0..highest * 1.1)?;
    chart
        .configure_mesh()
        .max_light_lines(1)
        .x_desc("idle sockets")
        .y_desc("nanoseconds for an event")
        .x_label_formatter(&|x| format!("{x:.0}"))
        .draw()?;
    for (index, (peer, line)) in lines.into_iter().enumerate() {
        draw_line(&mut chart, peer, index, line)?;
    }
    draw_legend(&mut chart, SeriesLabelPosition::LowerRight)?;
    Ok(root.present()?)
}

/// How many of the answers were how fast.
fn latencies(rows: &[Row], (workload, case): (&str, &str), title: &str, path: &Path) -> Done {
    let points: Vec<(f64, &Row)> = PARTS
        .iter()
        .enumerate()
        .filter_map(|(place, (metric, _))| {
            let row = rows.iter().find(|row| {
                row.workload == workload && row.case == case && row.metric == *metric
            })?;
            Some((f64::from(u32::try_from(place).ok()?), row))
        })
        .collect();
    let Some((_, row)) = points.first() else { return Ok(()) };
    let lines: Vec<(&str, Vec<(f64, f64)>)> = row
        .cells
        .iter()
        .map(|cell| {
            let figure = |(place, row): &(f64, &Row)| Some((*place, row.cell(cell.peer)?.median));
            (cell.peer, points.iter().filter_map(figure).collect())
        })
        .filter(|(_, line): &(_, Vec<_>)| !line.is_empty())
        .collect();
    let all = || lines.iter().flat_map(|(_, line)| line).map(|(_, y)| *y);
    let (lowest, highest) = (all().fold(f64::MAX, f64::min), all().fold(0.0, f64::max));
    let root = SVGBackend::new(path, SIZE).into_drawing_area();
    root.fill(&WHITE)?;
    let mut chart = ChartBuilder::on(&root)
        .caption(title, ("sans-serif", 18))
        .margin(10)
        .margin_right(30)
        .x_label_area_size(40)
        .y_label_area_size(60)
        .build_cartesian_2d(0.0..6.0, (lowest / 2.0..highest * 4.0).log_scale())?;
    chart
        .configure_mesh()
        .max_light_lines(1)
        .x_desc("of all, this part was as fast")
        .y_desc("microseconds")
        .x_labels(PARTS.len())
        .x_label_formatter(&|place| {
            PARTS
                .iter()
                .enumerate()
                .find(|(index, _)| {
                    u32::try_from(*index).is_ok_and(|at| (f64::from(at) - place).abs() < 0.1)
                })
                .map_or(String::new(), |(_, (_, part))| format!("{} %", 100.0 * part))
        })
        .draw()?;
    for (index, (peer, line)) in lines.into_iter().enumerate() {
        draw_line(&mut chart, peer, index, line)?;
    }
    draw_legend(&mut chart, SeriesLabelPosition::UpperLeft)?;
    Ok(root.present()?)
}

type Chart<'a, X, Y> = plotters::chart::ChartContext<
    'a,
    SVGBackend<'a>,
    plotters::coord::cartesian::Cartesian2d<X, Y>,
>;

fn draw_line<X, Y>(
    chart: &mut Chart<'_, X, Y>,
    peer: &str,
    index: usize,
    line: Vec<(f64, f64)>,
) -> Done
where
    X: plotters::prelude::Ranged<ValueType = f64>,
    Y: plotters::prelude::Ranged<ValueType = f64>,
{
    let style = color(peer, index).stroke_width(if is_ours(peer) { 3 } else { 1 });
    chart
        .draw_series(LineSeries::new(line, style))?
        .label(peer)
        .legend(move |(x, y)| PathElement::new(vec![(x, y), (x + 20, y)], style));
    Ok(())
}

fn draw_legend<X, Y>(chart: &mut Chart<'_, X, Y>, position: SeriesLabelPosition) -> Done
where
    X: plotters::prelude::Ranged<ValueType = f64>,
    Y: plotters::prelude::Ranged<ValueType = f64>,
{
    chart
        .configure_series_labels()
        .position(position)
        .background_style(WHITE.mix(0.8))
        .border_style(BLACK.mix(0.3))
        .draw()?;
    Ok(())
}

/// A bar a peer, from the left, with its figure at the end.
fn bars(row: &Row, title: &str, path: &Path) -> Done {
    let bars: Vec<(&str, f64)> = row
        .cells
        .iter()
        .filter_map(|cell| Some((cell.peer, row.cell(cell.peer)?.median)))
        .collect();
    let highest = bars.iter().map(|(_, value)| *value).fold(0.0, f64::max);
    let height = u32::try_from(bars.len())?;
    let root = SVGBackend::new(path, (SIZE.0, 60 + 30 * height)).into_drawing_area();
    root.fill(&WHITE)?;
    let mut chart = ChartBuilder::on(&root)
        .caption(title, ("sans-serif", 18))
        .margin(10)
        .margin_left(130)
        .build_cartesian_2d(0.0..highest * 1.15, 0.0..f64::from(height))?;
    for (index, (peer, value)) in bars.iter().enumerate() {
        let top = f64::from(height - u32::try_from(index)?);
        let color = if is_ours(peer) { color(peer, index) } else { OTHERS };
        let bar = [(0.0, top - 0.15), (*value, top - 0.85)];
        chart.draw_series([Rectangle::new(bar, color.filled())])?;
        let label = |text: String, at| Text::new(text, (at, top - 0.3), ("sans-serif", 14));
        chart.draw_series([label(format!("{value:.0}"), value + highest * 0.01)])?;
        let (x, y) = chart.backend_coord(&(0.0, top - 0.3));
        root.draw(&Text::new((*peer).to_owned(), (x - 120, y), ("sans-serif", 14)))?;
    }
    Ok(root.present()?)
}

const OURS: RGBColor = RGBColor(0xc0, 0x39, 0x2b);
const OURS_SPINNING: RGBColor = RGBColor(0xe8, 0x8e, 0x22);
const OTHERS: RGBColor = RGBColor(0x9a, 0xa5, 0xb1);

/// Colours that differ, ours the same in each plot.
fn color(peer: &str, index: usize) -> RGBColor {
    const COLORS: [RGBColor; 11] = [
        RGBColor(0x22, 0x22, 0x22),
        RGBColor(0x29, 0x80, 0xb9),
        RGBColor(0x27, 0xae, 0x60),
        RGBColor(0x8e, 0x44, 0xad),
        RGBColor(0xd3, 0x84, 0x00),
        RGBColor(0x16, 0xa0, 0x85),
        RGBColor(0x7f, 0x8c, 0x8d),
        RGBColor(0x2c, 0x3e, 0x90),
        RGBColor(0x95, 0xa5, 0x50),
        RGBColor(0xb0, 0x6a, 0x90),
        RGBColor(0x6d, 0x4c, 0x41),
    ];
    match peer {
        US => OURS,
        US_SPINNING => OURS_SPINNING,
        _ => COLORS[index % COLORS.len()],
    }
}

fn is_ours(peer: &str) -> bool {
    [US, US_SPINNING].contains(&peer)
}
