//! How the figures are reported: as JSON, as tables, as plots.

mod plot;
mod table;

use std::error::Error;
use std::fs;
use std::path::Path;

use serde::Serialize;

use crate::machine::Machine;
use crate::method::Row;

/// All that was measured, and where.
#[derive(Debug, Serialize)]
pub(crate) struct Report {
    pub(crate) machine: Machine,
    /// The peers whose version is known, with it.
    pub(crate) versions: Vec<(String, String)>,
    pub(crate) quick: bool,
    pub(crate) seconds: u64,
    /// The part of the machine that others had during the run.
    pub(crate) noise: f64,
    pub(crate) rows: Vec<Row>,
}

/// More than so much of the machine for others, and the figures are not to be trusted.
pub(crate) const NOISY: f64 = 0.05;

impl Report {
    /// Writes the figures, the tables and the plots into `folder`, and returns the tables.
    pub(crate) fn write(&self, folder: &Path) -> Result<String, Box<dyn Error>> {
        fs::create_dir_all(folder)?;
        fs::write(folder.join("results.json"), serde_json::to_string_pretty(self)?)?;
        let tables = table::markdown(self);
        fs::write(folder.join("results.md"), &tables)?;
        plot::all(self, folder)?;
        Ok(tables)
    }
}
