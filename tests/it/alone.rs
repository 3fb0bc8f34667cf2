//! A test in a process of its own, for what a process has only once: signals, the limit of
//! descriptors, the list of open ones.
//!
//! Every case of the contract runs so. Until its exec, a child that another test spawns has
//! duplicates of all descriptors, close-on-exec or not, so that for a moment a close closes nothing.

use std::env;
use std::process::{Child, Command, Stdio};
use std::sync::{Condvar, Mutex, PoisonError};

use nix::unistd::alarm;

/// Marks the process that is alone.
const ALONE: &str = "POLLIO_TEST_ALONE";

/// How long a test may take there before `SIGALRM` ends it.
const LIMIT_S: u32 = 60;

/// The path of the test that calls this.
macro_rules! this_test {
    () => {{
        // A function's type is named by its path.
        fn here() {}
        std::any::type_name_of_val(&here).strip_suffix("::here").unwrap()
    }};
}
pub(crate) use this_test;

/// Runs the body of the test that calls this in a process of its own.
macro_rules! alone {
    ($body:expr $(,)?) => {
        $crate::alone::run_alone($crate::alone::this_test!(), $body)
    };
}
pub(crate) use alone;

/// Runs `body` in a process of its own: this program again, told to run the test `path` and
/// nothing else.
pub(crate) fn run_alone(path: &str, body: fn()) {
    if env::var_os(ALONE).is_some() {
        alarm::set(LIMIT_S);
        return body();
    }
    let mut command = this_program_again(path);
    command.env(ALONE, "1").stdout(Stdio::piped()).stderr(Stdio::piped());
    let output = spawn(&mut command).wait_with_output().unwrap();
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
    command.args([test, "--exact", "--include-ignored", "--nocapture", "--test-threads=1"]);
    command
}

/// Spawns a process while nobody [closes](Closing).
pub(crate) fn spawn(command: &mut Command) -> Child {
    let mut closing = CLOSING.0.lock().unwrap_or_else(PoisonError::into_inner);
    while *closing > 0 {
        closing = CLOSING.1.wait(closing).unwrap_or_else(PoisonError::into_inner);
    }
    // It returns when the child has done its exec.
    command.spawn().unwrap()
}

/// How many tests close.
static CLOSING: (Mutex<usize>, Condvar) = (Mutex::new(0), Condvar::new());

/// While one of these lives, [`spawn`] spawns nothing: for a test that runs beside others, and in
/// which a close must close.
#[allow(dead_code, reason = "on a BSD all such tests run alone")]
pub(crate) struct Closing(());

#[allow(dead_code, reason = "on a BSD all such tests run alone")]
impl Closing {
    pub(crate) fn new() -> Self {
        *CLOSING.0.lock().unwrap_or_else(PoisonError::into_inner) += 1;
        Self(())
    }
}

impl Drop for Closing {
    fn drop(&mut self) {
        *CLOSING.0.lock().unwrap_or_else(PoisonError::into_inner) -= 1;
        CLOSING.1.notify_all();
    }
}
