//! The sources of the BSDs, over the model of kqueue.

use std::os::fd::{AsFd, AsRawFd};
use std::time::Duration;

use nix::errno::Errno;
use pollio::{EventObject, Poller};

use crate::alone::alone;
use crate::descriptors::allow_descriptors;
use crate::expect::Expect;
use crate::kqueue_model::KqueuePoller as AnyPoller;
use crate::sys::{
    ChildExit, Receiver, Sender, SyncSender, Timer, Waker, WakerFd, channel, sync_channel,
};

#[path = "channel.rs"]
#[allow(clippy::duplicate_mod, reason = "the same cases, with other types above them")]
mod channel;
#[path = "child_exit.rs"]
#[allow(clippy::duplicate_mod, reason = "the same cases, with other types above them")]
mod child_exit;
#[path = "registered.rs"]
#[allow(clippy::duplicate_mod, reason = "the same cases, with other types above them")]
mod registered;
#[path = "timer.rs"]
#[allow(clippy::duplicate_mod, reason = "the same cases, with other types above them")]
mod timer;
#[path = "waker.rs"]
#[allow(clippy::duplicate_mod, reason = "the same cases, with other types above them")]
mod waker;

/// C15: more bytes than the pair of sockets holds, and than one read takes.
#[test]
fn a_wake_of_a_full_connection_does_not_block() {
    let fd = WakerFd::new().unwrap();
    for _ in 0..10_000 {
        fd.wake().unwrap();
    }
    let mut poller = AnyPoller::new().unwrap();
    poller.add(EventObject::client(fd.as_fd().as_raw_fd())).unwrap();
    poller.expect_one();
    fd.clear().unwrap();
    poller.expect_none();
}

/// The model's timers are descriptors.
#[test]
fn a_timer_that_cannot_be_set_is_an_error() {
    alone(concat!(module_path!(), "::a_timer_that_cannot_be_set_is_an_error"), || {
        const HOUR: Duration = Duration::from_secs(3_600);
        let timer = Timer::new().unwrap();
        allow_descriptors(0);
        let error = timer.set(HOUR).unwrap_err();
        assert_eq!(error.raw_os_error(), Some(Errno::EMFILE as i32));
        allow_descriptors(100);
        timer.set(HOUR).unwrap();
    });
}
