//! Simulated sockets and pollers in step with those of Linux.

mod datagrams;

use pollio::OsPoller;
use pollio_sim::Kernel;

use crate::script::{INTERESTS, MODES, compare, show};

#[test]
fn simulated_sockets_are_in_step_with_real_ones() {
    compare::<OsPoller>(Kernel::Linux, &INTERESTS);
}
