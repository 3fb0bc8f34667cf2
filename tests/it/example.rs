//! The examples, as programs.

use std::env;
use std::fs;
use std::path::PathBuf;
use std::process::Child;

/// The program of the example `name`, which `cargo test` builds beside the tests.
pub(crate) fn example(name: &str) -> PathBuf {
    let tests = env::current_exe().unwrap();
    let program = tests.ancestors().nth(2).unwrap().join("examples").join(name);
    assert!(program.exists(), "no {}: cargo build --examples", program.display());
    program
}

/// The processor time that a program has used so far, in clock ticks: fields 14 and 15 of
/// [proc_pid_stat(5)](https://man7.org/linux/man-pages/man5/proc_pid_stat.5.html).
pub(crate) fn processor_ticks(program: &Child) -> u64 {
    let stat = fs::read_to_string(format!("/proc/{}/stat", program.id())).unwrap();
    // The second field, a name in parentheses, may hold spaces.
    let (_, from_the_third) = stat.rsplit_once(") ").unwrap();
    let ticks = from_the_third.split(' ').skip(14 - 3).take(2);
    ticks.map(|ticks| ticks.parse::<u64>().unwrap()).sum()
}
