//! What the tests of programs on several kernels have in common.

use std::env;
use std::panic::{self, UnwindSafe};

/// How many seeds each program has in `cargo test`.
pub(crate) fn seeds() -> u64 {
    env::var("POLLIO_SEEDS").map_or(1_000, |seeds| seeds.parse().unwrap())
}

/// What a check panics with, if it does.
pub(crate) fn report_of(check: impl FnOnce() + UnwindSafe) -> Option<String> {
    let failure = panic::catch_unwind(check).err()?;
    Some(*failure.downcast().unwrap())
}

/// The seed that a report on a kernel other than Linux begins with.
pub(crate) fn first_seed(report: &str) -> &str {
    report.strip_prefix("seed ").and_then(|rest| Some(rest.split_once(" on ")?.0)).expect(report)
}
