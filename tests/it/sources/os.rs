//! The sources of this system, over its poller.

use pollio::{ChildExit, OsPoller as AnyPoller, Timer};

#[path = "child_exit.rs"]
#[allow(clippy::duplicate_mod, reason = "the same cases, with other types above them")]
mod child_exit;
#[path = "registered.rs"]
#[allow(clippy::duplicate_mod, reason = "the same cases, with other types above them")]
mod registered;
#[path = "timer.rs"]
#[allow(clippy::duplicate_mod, reason = "the same cases, with other types above them")]
mod timer;
