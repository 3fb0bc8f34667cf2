//! The contract over kqueue, and kqueue's own behaviour.

use pollio::OsPoller;

use crate::conformance::conformance;

conformance!(OsPoller);
conformance!(kqueue: OsPoller);
conformance!(shared: OsPoller);
