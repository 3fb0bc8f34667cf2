//! The sources of this system, over its poller.

use pollio::{OsPoller as AnyPoller, Waker};

#[path = "waker.rs"]
#[allow(clippy::duplicate_mod, reason = "the same cases, with other types above them")]
mod waker;
