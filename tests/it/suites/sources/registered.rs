//! Each source, with its registration owned by `Registered`.

use std::os::fd::{AsFd, AsRawFd};
use std::process::{Command, Stdio};
use std::time::Duration;

use nix::unistd::dup;
use pollio::{EventObject, Poller, Registered};

use super::{AnyPoller, ChildExit, Timer};
use crate::support::expect::Expect;
use crate::support::subprocess::spawn;

/// C16: reported after `act` has made it readable, and not after its drop, though a duplicate of its descriptor stays
/// open.
fn registered<S: AsFd>(source: S, act: impl FnOnce(&S)) {
    let mut poller = AnyPoller::new().unwrap();
    let object = |fd| EventObject::client(fd).with_token(6);
    let source = Registered::new(poller.registry(), source, object).unwrap();
    poller.expect_none();
    act(source.get_ref());
    let event = poller.expect_one();
    assert_eq!((event.fd, event.token), (source.as_raw_fd(), 6));
    let _duplicate = dup(&source).unwrap();
    drop(source);
    poller.expect_none();
}

#[test]
fn a_timer_can_be_registered_for_good() {
    registered(Timer::new().unwrap(), |timer| timer.set(Duration::from_millis(1)).unwrap());
}

#[test]
fn a_child_can_be_registered_for_good() {
    let mut process = spawn(Command::new("cat").stdin(Stdio::piped()));
    let child = ChildExit::new(&process).unwrap();
    registered(child, |_| drop(process.stdin.take()));
    process.wait().unwrap();
}
