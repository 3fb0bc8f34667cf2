//! The contract over kqueue, and what only kqueue does.

use pollio::OsPoller;

use crate::conformance::conformance;

conformance!(OsPoller);
conformance!(kqueue: OsPoller);
conformance!(shared: OsPoller);
