//! The contract over kqueue, and what kqueue alone does.

use pollio::KqueuePoller;

use crate::conformance::conformance;

conformance!(KqueuePoller);
conformance!(kqueue: KqueuePoller);
