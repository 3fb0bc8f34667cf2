//! Where the examples are, as programs.

use std::env;
use std::path::PathBuf;

/// The program of the example `name`, which `cargo test` builds beside the tests.
pub(crate) fn example(name: &str) -> PathBuf {
    let tests = env::current_exe().unwrap();
    let program = tests.ancestors().nth(2).unwrap().join("examples").join(name);
    assert!(program.exists(), "no {}: cargo build --examples", program.display());
    program
}
