//! Shared by the tests of programs on several kernels.

use std::env;
use std::panic::{self, UnwindSafe};

/// The number of seeds for each program in `cargo test`.
pub(crate) fn seeds() -> u64 {
    env::var("POLLIO_SEEDS").map_or(1_000, |seeds| seeds.parse().unwrap())
}

/// The panic message of a check, if it panics.
pub(crate) fn report_of(check: impl FnOnce() + UnwindSafe) -> Option<String> {
    let failure = panic::catch_unwind(check).err()?;
    Some(*failure.downcast().unwrap())
}

/// The seed at the beginning of a report on a kernel other than Linux.
pub(crate) fn first_seed(report: &str) -> &str {
    report.strip_prefix("seed ").and_then(|rest| Some(rest.split_once(" on ")?.0)).expect(report)
}
