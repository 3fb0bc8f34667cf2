//! The sources of the BSDs, over the model of kqueue.

use crate::kqueue_model::backend::KqueuePoller as AnyPoller;
use crate::sys::Waker;

#[path = "waker.rs"]
mod waker;
