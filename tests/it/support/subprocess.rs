//! A test in a process of its own, for the state that a process has only once: signals, the limit of descriptors, the
//! list of open ones.
//!
//! Every case of the contract runs like this. Until its exec, a child of another test has duplicates of all
//! descriptors, close-on-exec or not, so for a moment a close closes nothing.

use std::env;
use std::io::Read;
use std::os::unix::net::UnixStream;
use std::process::{Child, Command, Output, Stdio};
use std::sync::{Condvar, Mutex, PoisonError};

use nix::unistd::alarm;
use rustix::io::fcntl_dupfd_cloexec;

/// Marks the process of a single test.
const IN_PROCESS: &str = "POLLIO_TEST_IN_PROCESS";

/// The time after which `SIGALRM` ends a test there: longer than it takes on a busy machine.
const LIMIT_S: u32 = 300;

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
macro_rules! in_subprocess {
    ($body:expr $(,)?) => {
        $crate::support::subprocess::run($crate::support::subprocess::this_test!(), $body)
    };
}
pub(crate) use in_subprocess;

/// Runs `body` in a process of its own: this program again, which runs only the test
/// `path`.
pub(crate) fn run(path: &str, body: fn()) {
    if env::var_os(IN_PROCESS).is_some() {
        alarm::set(LIMIT_S);
        return body();
    }
    let mut command = this_program_again(path);
    let output = output(command.env(IN_PROCESS, "1"));
    let stdout = String::from_utf8_lossy(&output.stdout);
    assert!(
        output.status.success() && stdout.contains("1 passed"),
        "{path}, in a subprocess: {}\n{stdout}{}",
        output.status,
        String::from_utf8_lossy(&output.stderr)
    );
}

/// This program, to run one test. `path` begins with the crate, as `module_path!` does.
pub(crate) fn this_program_again(path: &str) -> Command {
    let (_crate, test) = path.split_once("::").expect("a path that begins with the crate");
    let mut command = Command::new(env::current_exe().unwrap());
    command.args([test, "--exact", "--include-ignored", "--nocapture", "--test-threads=1"]);
    command
}

/// Spawns a process while no test [closes](Closing). When this returns, the process has none of our descriptors.
pub(crate) fn spawn(command: &mut Command) -> Child {
    let mut closing = CLOSING.0.lock().unwrap_or_else(PoisonError::into_inner);
    while *closing > 0 {
        closing = CLOSING.1.wait(closing).unwrap_or_else(PoisonError::into_inner);
    }
    // Linux lets the parent of a vfork(2) continue before it closes the child's close-on-exec descriptors
    // (`begin_new_exec`), in the order of their numbers. So a high number is closed last.
    let (mut ours, theirs) = UnixStream::pair().unwrap();
    let theirs = fcntl_dupfd_cloexec(&theirs, 900).unwrap_or_else(|_| theirs.into());
    let child = command.spawn().unwrap();
    drop(theirs);
    assert_eq!(ours.read(&mut [0]).unwrap(), 0);
    child
}

/// Runs a process without input to its end.
pub(crate) fn output(command: &mut Command) -> Output {
    let command = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    spawn(command).wait_with_output().unwrap()
}

/// The number of tests that are closing.
static CLOSING: (Mutex<usize>, Condvar) = (Mutex::new(0), Condvar::new());

/// While one of these lives, [`spawn`] waits: for tests that run in parallel with others, and whose closes must take
/// effect.
#[allow(dead_code, reason = "on a BSD all such tests run in a subprocess")]
pub(crate) struct Closing(());

#[allow(dead_code, reason = "on a BSD all such tests run in a subprocess")]
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
