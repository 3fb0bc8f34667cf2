//! The contract over kqueue, and what kqueue alone does.

use pollio::OsPoller;

use crate::conformance::conformance;

conformance!(OsPoller);
conformance!(kqueue: OsPoller);
conformance!(shared: OsPoller);
