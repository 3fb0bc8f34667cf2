//! The sources of this system, over its poller.

use pollio::{Child, OsPoller as AnyPoller, Timer, Waker};

#[path = "child.rs"]
#[allow(clippy::duplicate_mod, reason = "the same cases, with other types above them")]
mod child;
#[path = "timer.rs"]
#[allow(clippy::duplicate_mod, reason = "the same cases, with other types above them")]
mod timer;
#[path = "waker.rs"]
#[allow(clippy::duplicate_mod, reason = "the same cases, with other types above them")]
mod waker;
