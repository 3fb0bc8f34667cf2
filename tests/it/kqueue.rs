//! The contract over kqueue, and what kqueue alone does.

use pollio::OsPoller;

use crate::conformance::conformance;
use crate::conformance::sharing::share;

conformance!(OsPoller);
conformance!(kqueue: OsPoller);
conformance!(shared: OsPoller);
share!(OsPoller, 250_000);
