//! The last output of a child process, of the section "Terminals, stdin and pipes".

use std::time::{Duration, Instant};

use pollio::Mode;

use crate::support::expect::Expect;
use crate::support::subprocess::spawn;

// As it stands in the guide, with its imports: the build script takes it from there.
include!(concat!(env!("OUT_DIR"), "/output.rs"));

/// The end is added first, so that its event is the first of the slice.
#[test]
fn the_last_output_can_be_reported_after_the_end() {
    let mut child =
        spawn(Command::new("sh").args(["-c", "echo last words"]).stdout(Stdio::piped()));
    let exit = ChildExit::new(&child).unwrap();
    let mut stdout = child.stdout.take().unwrap();
    let exited = EventObject::new(exit.as_raw_fd());
    let mut ended = OsPoller::new().unwrap();
    ended.add(exited).unwrap();
    ended.expect_one();

    let mut poller = OsPoller::new().unwrap();
    poller.add(exited.with_mode(Mode::Oneshot)).unwrap();
    poller.add(EventObject::new(stdout.as_raw_fd())).unwrap();
    let [end, output] = poller.wait(-1).unwrap() else { panic!("both are ready") };
    assert_eq!((end.fd, output.fd), (exit.as_raw_fd(), stdout.as_raw_fd()));
    assert_eq!(stdout.read(&mut [0; 64]).unwrap(), 11);
    child.wait().unwrap();
}

#[test]
fn all_output_is_read_up_to_the_end() {
    let script = "head -c 1000000 /dev/zero; head -c 1000000 /dev/zero >&2";
    for _ in 0..10 {
        assert_eq!(output(Command::new("sh").args(["-c", script])).unwrap().len(), 2_000_000);
    }
}

#[test]
fn a_grandchild_that_holds_the_pipes_does_not_hold_the_loop() {
    let start = Instant::now();
    let written = output(Command::new("sh").args(["-c", "sleep 20 & echo started"])).unwrap();
    assert_eq!(written, b"started\n");
    assert!(start.elapsed() < Duration::from_secs(10));
}
