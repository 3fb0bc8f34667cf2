//! The sources of the BSDs, over the model of kqueue.

use crate::kqueue_model::backend::KqueuePoller as AnyPoller;
use crate::sys::Waker;

#[path = "waker.rs"]
#[allow(clippy::duplicate_mod, reason = "the same cases, with other types above them")]
mod waker;
