//! A test in a process of its own, for what a process has only once: signals, the limit of
//! descriptors, the list of open ones.

use std::env;
use std::process::Command;

use nix::unistd::alarm;

/// Marks the process that is alone.
const ALONE: &str = "POLLIO_TEST_ALONE";

/// How long a test may take there before `SIGALRM` ends it.
const LIMIT_S: u32 = 60;

/// Runs `body` in a process of its own: this program again, told to run the test `path` and
/// nothing else.
pub(crate) fn alone(path: &str, body: fn()) {
    if env::var_os(ALONE).is_some() {
        alarm::set(LIMIT_S);
        return body();
    }
    let output = this_program_again(path).env(ALONE, "1").output().unwrap();
    let stdout = String::from_utf8_lossy(&output.stdout);
    assert!(
        output.status.success() && stdout.contains("1 passed"),
        "{path}, alone: {}\n{stdout}{}",
        output.status,
        String::from_utf8_lossy(&output.stderr)
    );
}

/// This program, told to run one test. `path` begins with the crate, as `module_path!` does.
pub(crate) fn this_program_again(path: &str) -> Command {
    let (_crate, test) = path.split_once("::").expect("a path that begins with the crate");
    let mut command = Command::new(env::current_exe().unwrap());
    command.args([test, "--exact", "--nocapture", "--test-threads=1"]);
    command
}
