//! The sources of the BSDs, over the model of kqueue.

use crate::kqueue_model::backend::KqueuePoller as AnyPoller;
use crate::sys::{Child, Timer, Waker};

#[path = "child.rs"]
#[allow(clippy::duplicate_mod, reason = "the same cases, with other types above them")]
mod child;
#[path = "timer.rs"]
#[allow(clippy::duplicate_mod, reason = "the same cases, with other types above them")]
mod timer;
#[path = "waker.rs"]
#[allow(clippy::duplicate_mod, reason = "the same cases, with other types above them")]
mod waker;
