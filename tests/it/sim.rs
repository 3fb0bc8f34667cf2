//! The contract over a simulated poller, and what the simulation alone does.

mod following;

use crate::conformance::conformance;
use following::Following;

conformance!(simulated: Following<{ usize::MAX }>);
