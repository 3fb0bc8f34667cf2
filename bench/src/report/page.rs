//! The page: bench/page.md, with the text in braces filled in from the data.
//!
//! | in braces | becomes |
//! |---|---|
//! | a cell | its figure, with its unit |
//! | `times` and a cell | how many times that of the base it is |
//! | `times` and a cell, `over` and a cell or another peer of the same row | how many times that it is |
//! | `range`, and the same as behind `times` | the least and the greatest of all cases that match |
//! | `picture` or `table`, and a name | what [`exhibit`] has under that name |
//! | `losses`, `run`, `machine`, `versions` | what they are called |
//! | `about` or `all`, and the name of a file | what that file says of itself; tables of all that it has |
//!
//! A cell is `workload / case / metric / peer`, as in the data; in a case, `*` stands for anything.

use std::error::Error;
use std::path::PathBuf;

use super::exhibit::{self, EXHIBITS};
use super::{About, NOISY, PICTURES};
use crate::method::{NO_POLLER, Row, Spread};
use crate::peer::{BASE, BASE_SPINNING, US, US_SPINNING};
use crate::stats::MINOR;

const TEMPLATE: &str = include_str!("../../page.md");

/// The longest line of the page, apart from tables.
const COLUMNS: usize = 120;

/// The file of real servers next to small ones. The page shows all its rows.
const PROGRAMS: &str = "programs";
const PROGRAMS_TITLE: &str = "Small programs over pollio next to real ones: requests a second";

/// The data of the page.
pub(crate) struct Data {
    pub(crate) about: About,
    pub(crate) rows: Vec<Row>,
    /// The name of a file, its text about itself, and its rows.
    pub(crate) asides: Vec<(&'static str, String, Vec<Row>)>,
}

type Filled = Result<String, Box<dyn Error>>;

impl Data {
    /// The page, and the pictures.
    pub(crate) fn made(&self) -> Result<Vec<(PathBuf, String)>, Box<dyn Error>> {
        let mut made = vec![(PathBuf::from("RESULTS.md"), self.page(TEMPLATE)?)];
        for exhibit in EXHIBITS.iter().filter(|exhibit| exhibit.is_drawn()) {
            made.push((picture(exhibit.name), exhibit.picture(self)));
        }
        if let Some((_, rows)) = self.aside(PROGRAMS) {
            made.push((picture(PROGRAMS), exhibit::picture_of(PROGRAMS_TITLE, rows)));
        }
        Ok(made)
    }

    fn page(&self, template: &str) -> Filled {
        let mut page = String::new();
        for (index, section) in template.split("\n## ").enumerate() {
            let needed = section.split_once("{{about ").and_then(|(_, rest)| rest.split_once("}}"));
            if needed.is_some_and(|(name, _)| self.aside(name).is_none()) {
                continue;
            }
            if index > 0 {
                page.push_str("\n## ");
            }
            page.push_str(wrapped(&self.filled(section)?).trim_end());
            page.push('\n');
        }
        Ok(page)
    }

    fn filled(&self, template: &str) -> Filled {
        let mut text = String::new();
        let mut rest = template;
        while let Some((before, from)) = rest.split_once("{{") {
            let (what, after) = from.split_once("}}").ok_or("a brace is not closed")?;
            let what = what.split_whitespace().collect::<Vec<_>>().join(" ");
            text.push_str(before);
            text.push_str(&self.value(&what).map_err(|error| format!("{what}: {error}"))?);
            rest = after;
        }
        text.push_str(rest);
        Ok(text)
    }

    fn value(&self, what: &str) -> Filled {
        let (verb, of) = what.split_once(' ').unwrap_or((what, ""));
        let exhibit = EXHIBITS.iter().find(|exhibit| exhibit.name == of);
        match verb {
            "times" => match self.all_times(of)?[..] {
                [times] => Ok(ratio(times)),
                _ => Err("there are several".into()),
            },
            "range" => {
                let mut all = self.all_times(of)?;
                all.sort_by(f64::total_cmp);
                let [least, most] = [all[0], all[all.len() - 1]].map(ratio);
                Ok(if least == most { least } else { format!("{least} to {most}") })
            }
            "picture" => {
                let title = exhibit.map(|exhibit| exhibit.title);
                let title = title.or((of == PROGRAMS).then_some(PROGRAMS_TITLE));
                let title = title.ok_or("there is no such picture")?;
                Ok(format!("![{title}]({})", picture(of).display()))
            }
            "table" => Ok(exhibit.ok_or("there is no such table")?.table(self)),
            "about" => Ok(self.aside(of).ok_or("there is no such file")?.0.to_owned()),
            "all" => Ok(exhibit::tables_of(self.aside(of).ok_or("there is no such file")?.1)),
            "losses" => Ok(self.losses()),
            "run" => Ok(self.run()),
            "machine" => {
                let machine = &self.about.machine;
                let [processor, kernel, rust] =
                    [&machine.processor, &machine.kernel, &machine.rust];
                Ok(format!("{processor}, {} cores, Linux {kernel}, {rust}", machine.cores))
            }
            "versions" => {
                let versions = self.about.versions.iter();
                let versions = versions.map(|(peer, version)| format!("{peer} {version}"));
                Ok(versions.collect::<Vec<_>>().join(", "))
            }
            _ => {
                let (row, peer) = self.only(what)?;
                Ok(with_unit(row, row.cell(peer).ok_or("it has no figure")?.median))
            }
        }
    }

    fn aside(&self, name: &str) -> Option<(&str, &[Row])> {
        let aside = self.asides.iter().find(|(aside, ..)| *aside == name);
        aside.map(|(_, about, rows)| (&**about, &**rows))
    }

    pub(crate) fn all_rows(&self) -> impl Iterator<Item = &Row> {
        self.rows.iter().chain(self.asides.iter().flat_map(|(_, _, rows)| rows))
    }

    /// The rows that match, and the peer.
    fn matching<'a>(&'a self, cell: &'a str) -> Result<(Vec<&'a Row>, &'a str), Box<dyn Error>> {
        let [workload, case, metric, peer] = cell.split(" / ").collect::<Vec<_>>()[..] else {
            return Err("a cell is workload / case / metric / peer".into());
        };
        let matches = |name: &str| match case.split_once('*') {
            Some((start, end)) => name.starts_with(start) && name.ends_with(end),
            None => name == case,
        };
        let rows: Vec<_> = self
            .all_rows()
            .filter(|row| row.workload == workload && row.metric == metric && matches(&row.case))
            .filter(|row| row.cell(peer).is_some())
            .collect();
        if rows.is_empty() { Err("the data has none".into()) } else { Ok((rows, peer)) }
    }

    fn only<'a>(&'a self, cell: &'a str) -> Result<(&'a Row, &'a str), Box<dyn Error>> {
        match self.matching(cell)? {
            (rows, peer) if rows.len() == 1 => Ok((rows[0], peer)),
            _ => Err("there are several".into()),
        }
    }

    fn all_times(&self, of: &str) -> Result<Vec<f64>, Box<dyn Error>> {
        let Some((cell, base)) = of.split_once(" over ") else {
            let (rows, peer) = self.matching(of)?;
            let ratios = rows.iter().map(|row| Some(row.ratio(peer)?.median));
            return Ok(ratios.collect::<Option<_>>().ok_or("it is compared with nothing")?);
        };
        let (rows, peer) = self.matching(cell)?;
        let other = if base.contains(" / ") { Some(self.only(base)?) } else { None };
        let over = |row: &&Row| {
            let (base_row, base_peer) = other.unwrap_or((row, base));
            Some(row.cell(peer)?.median / base_row.cell(base_peer)?.median)
        };
        Ok(rows.iter().map(over).collect::<Option<_>>().ok_or("the base has no figure")?)
    }

    fn run(&self) -> String {
        let About { date, commit, seconds, noise, quick, .. } = &self.about;
        let mut text = format!(
            "The run is of {date}, commit {commit}; it took {seconds} s, and others had {:.0} % of the machine",
            100.0 * noise
        );
        text.push_str(if *noise > NOISY { ": **too much to trust the figures**." } else { "." });
        if *quick {
            text.push_str(" **It is a `--quick` one: few rounds of few cases, which show the page and no figures.**");
        }
        text
    }

    /// The figures in which a peer is ahead of us by more than both spreads.
    fn losses(&self) -> String {
        const OURS: [&str; 5] = [US, US_SPINNING, BASE, BASE_SPINNING, NO_POLLER];
        let mut lines = Vec::new();
        // The columns of spin are limits, and those of look_up are tables.
        let rows = self.rows.iter().filter(|row| !["spin", "look_up"].contains(&&*row.workload));
        for row in rows.filter(|row| !MINOR.contains(&&*row.metric)) {
            let compared = |peer| row.ratio(peer).or(row.cell(peer));
            let Some(ours) = compared(US) else { continue };
            let is_ahead = |theirs: Spread| {
                if is_better_if_more(row) { theirs.low > ours.high } else { theirs.high < ours.low }
            };
            let ahead =
                row.cells.iter().map(|cell| &*cell.peer).filter(|peer| !OURS.contains(peer));
            let shown = |peer: &str| {
                let figure = with_unit(row, row.cell(peer)?.median);
                let ratio =
                    row.ratio(peer).map(|ratio| format!(" ({})", times_and_quarters(ratio)));
                Some(format!("{figure}{}", ratio.unwrap_or_default()))
            };
            let ahead: Vec<_> = ahead
                .filter(|peer| compared(peer).is_some_and(is_ahead))
                .filter_map(|peer| Some(format!("{peer} {}", shown(peer)?)))
                .collect();
            if let (false, Some(ours)) = (ahead.is_empty(), shown(US)) {
                let Row { workload, case, metric, .. } = row;
                let what = format!("{workload}, {case}: {}", without_unit(metric));
                lines.push(format!("| {what} | {ours} | {} |", ahead.join("; ")));
            }
        }
        if lines.is_empty() {
            return "Nowhere in this run.".to_owned();
        }
        format!("| | pollio | ahead of it |\n|---|---|---|\n{}", lines.join("\n"))
    }
}

fn is_better_if_more(row: &Row) -> bool {
    row.metric.ends_with("/s")
}

fn picture(name: &str) -> PathBuf {
    PathBuf::from(PICTURES).join(name).with_extension("svg")
}

/// `text` with the lines of its paragraphs and lists broken again. Tables, headings and comments stay.
fn wrapped(text: &str) -> String {
    let blocks = text.split("\n\n").map(|block| {
        if ["|", "#", "<", "!", "```"].iter().any(|start| block.starts_with(start)) {
            return block.to_owned();
        }
        let indent = if block.starts_with("- ") { "\n  " } else { "\n" };
        let points = block.split("\n- ").map(|point| in_lines(point, indent));
        points.collect::<Vec<_>>().join("\n- ")
    });
    blocks.collect::<Vec<_>>().join("\n\n")
}

fn in_lines(text: &str, indent: &str) -> String {
    let (mut lines, mut column) = (String::new(), indent.len());
    for word in text.split_whitespace() {
        let letters = word.chars().count();
        if lines.is_empty() {
            column += letters;
        } else if column + 1 + letters > COLUMNS {
            lines.push_str(indent);
            column = indent.len() + letters;
        } else {
            lines.push(' ');
            column += 1 + letters;
        }
        lines.push_str(word);
    }
    lines
}

/// At most three significant digits.
pub(crate) fn digits(value: f64) -> String {
    match value.abs() {
        1000.0.. => thousands(&format!("{:.0}", format!("{value:.2e}").parse().unwrap_or(value))),
        100.0.. => format!("{value:.0}"),
        _ if value.fract() == 0.0 => format!("{value:.0}"),
        10.0.. => format!("{value:.1}"),
        _ => format!("{value:.2}"),
    }
}

/// With commas: 12,300.
fn thousands(digits: &str) -> String {
    let mut text = String::new();
    for (index, digit) in digits.chars().enumerate() {
        let left = digits.len() - index;
        if index > 0 && left.is_multiple_of(3) && !text.ends_with('-') {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// `p50 [µs]` of 13.42 is 13.4 µs.
pub(crate) fn with_unit(row: &Row, value: f64) -> String {
    match unit(&row.metric) {
        Some(unit) => format!("{} {unit}", digits(value)),
        None => digits(value),
    }
}

/// `p50 [µs]` is in µs.
pub(crate) fn unit(metric: &str) -> Option<&str> {
    metric.rsplit_once(" [")?.1.split(']').next()
}

pub(crate) fn without_unit(metric: &str) -> String {
    let Some((name, unit)) = metric.rsplit_once(" [") else { return metric.to_owned() };
    let after = unit.split_once(']').map_or("", |(_, after)| after);
    format!("{name}{after}")
}

/// A multiple.
pub(crate) fn ratio(times: f64) -> String {
    match times.abs() {
        10.0.. => digits(times),
        0.1.. => format!("{times:.2}"),
        _ => format!("{times:.3}"),
    }
}

/// With the quartiles, if they are further apart than a hundredth.
pub(crate) fn times_and_quarters(Spread { low, median, high }: Spread) -> String {
    let [low, median, high, width] =
        [low, median, high, high - low].map(|times| (ratio(times), times));
    if width.1 > 0.01 {
        format!("×{}, {}–{}", median.0, low.0, high.0)
    } else {
        format!("×{}", median.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::machine::Machine;
    use crate::method::{Cell, Outcome};

    fn row(workload: &str, case: &str, cells: &[(&str, f64, f64)]) -> Row {
        let exact = |value: f64| Spread { low: value, median: value, high: value };
        let cell = |(peer, figure, times): &(&str, f64, f64)| Cell {
            peer: (*peer).to_owned(),
            outcome: Outcome::Figure { figure: exact(*figure), ratio: Some(exact(*times)) },
        };
        Row {
            workload: workload.to_owned(),
            case: case.to_owned(),
            metric: "a call [ns]".to_owned(),
            cells: cells.iter().map(cell).collect(),
        }
    }

    fn data() -> Data {
        let about = About {
            date: String::new(),
            commit: String::new(),
            machine: Machine {
                processor: String::new(),
                cores: 2,
                kernel: String::new(),
                rust: String::new(),
            },
            versions: Vec::new(),
            quick: false,
            seconds: 0,
            noise: 0.0,
            workloads: Vec::new(),
        };
        let rows = vec![
            row("calls", "1 of 10", &[(BASE, 100.0, 1.0), (US, 103.0, 1.03), ("mio", 99.0, 0.99)]),
            row(
                "calls",
                "5 of 10",
                &[(BASE, 1000.0, 1.0), (US, 970.0, 0.97), ("mio", 2000.0, 2.0)],
            ),
        ];
        Data { about, rows, asides: Vec::new() }
    }

    fn filled(template: &str) -> String {
        data().filled(template).unwrap()
    }

    #[test]
    fn a_cell_is_its_figure_with_its_unit() {
        assert_eq!(filled("{{calls / 1 of 10 / a call [ns] / mio}}."), "99 ns.");
        assert_eq!(filled("{{calls / 5 of 10 /\na call [ns] / mio}}"), "2,000 ns");
    }

    #[test]
    fn a_ratio_is_to_the_base_or_to_the_cell_that_it_names() {
        assert_eq!(filled("{{times calls / 1 of 10 / a call [ns] / pollio}}"), "1.03");
        assert_eq!(filled("{{times calls / 5 of 10 / a call [ns] / mio over bare epoll}}"), "2.00");
        let over = "{{times calls / 5 of 10 / a call [ns] / mio over calls / 1 of 10 / a call [ns] / bare epoll}}";
        assert_eq!(filled(over), "20");
        assert_eq!(filled("{{range calls / * of 10 / a call [ns] / pollio}}"), "0.97 to 1.03");
    }

    #[test]
    fn a_cell_that_the_data_does_not_have_is_an_error() {
        let cells =
            ["calls / 2 of 10 / a call [ns] / mio", "calls / * / a call [ns] / libuv", "calls"];
        for cell in cells {
            let error = data().filled(&format!("{{{{{cell}}}}}")).unwrap_err();
            assert!(error.to_string().starts_with(cell), "{error}");
        }
        let several = data().filled("{{calls / * / a call [ns] / mio}}").unwrap_err();
        assert!(several.to_string().ends_with("there are several"), "{several}");
    }

    #[test]
    fn a_section_is_left_out_without_its_data() {
        let template = "# A\n\n## B\n\n{{about programs}}\n\n## C\n\nd";
        assert_eq!(data().page(template).unwrap(), "# A\n\n## C\n\nd\n");
    }

    #[test]
    fn a_peer_is_ahead_only_by_more_than_both_spreads() {
        let mut data = data();
        let losses = data.losses();
        assert!(
            losses.ends_with("| calls, 1 of 10: a call | 103 ns (×1.03) | mio 99 ns (×0.99) |"),
            "{losses}"
        );
        let Outcome::Figure { ratio: Some(ratio), .. } = &mut data.rows[0].cells[2].outcome else {
            panic!("mio has a ratio")
        };
        ratio.high = 1.04;
        assert_eq!(data.losses(), "Nowhere in this run.");
    }

    #[test]
    fn paragraphs_and_points_are_broken_into_lines_and_tables_are_not() {
        let words = "word ".repeat(100);
        let text = format!("{words}\n\n- {words}\n- {words}\n\n| {words} |");
        let wrapped = wrapped(&text);
        let lines: Vec<_> = wrapped.lines().collect();
        let (table, prose) = lines.split_last().unwrap();
        assert_eq!(*table, format!("| {words} |"));
        assert!(prose.iter().all(|line| line.len() <= COLUMNS), "{wrapped}");
        assert_eq!(prose.iter().filter(|line| line.starts_with("- ")).count(), 2);
        assert!(prose.iter().filter(|line| line.starts_with("  ")).count() >= 8);
    }

    #[test]
    fn figures_have_three_digits() {
        let figures = [0.0, 3.234, 13.42, 428.4, 1234.5, 1_234_567.0, -1500.0].map(digits);
        assert_eq!(figures, ["0", "3.23", "13.4", "428", "1,230", "1,230,000", "-1,500"]);
    }
}
