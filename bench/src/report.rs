//! The reports: a file of data, and the page and the pictures that are made from it.

mod exhibit;
mod page;
mod picture;
mod table;

use std::error::Error;
use std::fs;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::machine::Machine;
use crate::method::Row;

/// All figures, and the run that made them.
#[derive(Debug, Deserialize, PartialEq, Serialize)]
pub(crate) struct Report {
    pub(crate) about: About,
    pub(crate) rows: Vec<Row>,
}

/// The date, the machine and the workloads of a run.
#[derive(Debug, Deserialize, PartialEq, Serialize)]
pub(crate) struct About {
    pub(crate) date: String,
    pub(crate) commit: String,
    pub(crate) machine: Machine,
    /// The peers whose version is known, with it.
    pub(crate) versions: Vec<(String, String)>,
    pub(crate) quick: bool,
    pub(crate) seconds: u64,
    /// The part of the machine that others had during the run.
    pub(crate) noise: f64,
    /// The workloads, each with its description.
    pub(crate) workloads: Vec<(String, String)>,
}

/// Figures from elsewhere, in a file next to the bench's own. Their rows are like its rows, with other names of
/// workloads. Everything else in the file is for its readers.
#[derive(Debug, Deserialize)]
struct Aside {
    /// The comparison, its date and its machine: a paragraph of the page.
    about: String,
    rows: Vec<Row>,
}

/// The possible [`Aside`]s, by the names of their files. Without its file, a section of the page is left out.
const ASIDES: [&str; 2] = ["kqueue", "programs"];

/// If others have more than this part of the machine, the figures cannot be trusted.
pub(crate) const NOISY: f64 = 0.05;

impl Report {
    /// All cells, as tables.
    pub(crate) fn tables(&self) -> String {
        table::all(self)
    }

    pub(crate) fn write(&self, folder: &Path) -> Result<(), Box<dyn Error>> {
        fs::create_dir_all(folder)?;
        Ok(fs::write(folder.join("results.json"), self.to_json()?)?)
    }

    /// A line for each row, so that runs can be compared.
    fn to_json(&self) -> serde_json::Result<String> {
        let about = serde_json::to_string_pretty(&self.about)?;
        let rows: Vec<_> = self.rows.iter().map(serde_json::to_string).collect::<Result<_, _>>()?;
        Ok(format!("{{\n\"about\": {about},\n\"rows\": [\n{}\n]\n}}\n", rows.join(",\n")))
    }
}

/// Makes the page and its pictures from the data in `folder`.
pub(crate) fn write_page(folder: &Path) -> Result<(), Box<dyn Error>> {
    fs::create_dir_all(folder.join(PICTURES))?;
    for entry in fs::read_dir(folder.join(PICTURES))? {
        fs::remove_file(entry?.path())?;
    }
    for (path, text) in made_from(folder)? {
        fs::write(folder.join(path), text)?;
    }
    Ok(())
}

const PICTURES: &str = "plots";

/// The files that the data in `folder` makes: their paths below it, and their texts.
fn made_from(folder: &Path) -> Result<Vec<(PathBuf, String)>, Box<dyn Error>> {
    let read = |name: &str| fs::read_to_string(folder.join(name).with_extension("json"));
    let report: Report = serde_json::from_str(&read("results")?)?;
    let mut data = page::Data { about: report.about, rows: report.rows, asides: Vec::new() };
    for name in ASIDES {
        if folder.join(name).with_extension("json").exists() {
            let aside: Aside = serde_json::from_str(&read(name)?)?;
            data.asides.push((name, aside.about, aside.rows));
        }
    }
    data.made()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn page_and_pictures_match_the_data() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR"));
        let made = made_from(folder).unwrap();
        for (path, text) in &made {
            let there = fs::read_to_string(folder.join(path)).unwrap_or_default();
            let path = path.display();
            assert!(*text == there, "{path} is stale: cargo run -p pollio-bench -- --page bench");
        }
        let pictures = fs::read_dir(folder.join(PICTURES)).unwrap();
        let pictures = pictures.map(|entry| Path::new(PICTURES).join(entry.unwrap().file_name()));
        let made: BTreeSet<_> = made.into_iter().map(|(path, _)| path).collect();
        assert_eq!(pictures.filter(|path| !made.contains(path)).count(), 0, "a picture of nothing");
    }

    #[test]
    fn a_report_that_is_read_again_is_the_same() {
        let json =
            fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/results.json")).unwrap();
        let report: Report = serde_json::from_str(&json).unwrap();
        assert!(report.to_json().unwrap() == json);
    }
}
