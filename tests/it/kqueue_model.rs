//! The contract over a model of kqueue: the backend's own file, with `crate::sys::kevent` of these
//! tests below it instead of the kernel's.
//!
//! It proves the backend's logic on Linux, and nothing about a BSD.

#[path = "../../src/backend/kqueue.rs"]
#[allow(unreachable_pub, reason = "public in its crate, not in these tests")]
pub(crate) mod backend;

use crate::conformance::conformance;

conformance!(backend::KqueuePoller);
conformance!(kqueue: backend::KqueuePoller);
