//! The sources of this system, over its poller.

use pollio::{OsPoller as AnyPoller, Waker};

#[path = "waker.rs"]
mod waker;
