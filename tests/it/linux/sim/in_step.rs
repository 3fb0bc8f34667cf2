//! Simulated pollers of each kernel with kqueue in step with `OsPoller` over its model, both over the sockets of Linux.

use pollio::{Interest, Poller};
use pollio_sim::Kernel;

use crate::linux::kqueue_model::{apple, dragonfly, freebsd, netbsd, openbsd};
use crate::linux::support::random;

#[path = "../../../../sim/tests/it/script.rs"]
mod script;

fn compare<P: Poller>(kernel: Kernel) {
    let priority = [Interest::PRIORITY, Interest::BOTH | Interest::PRIORITY];
    script::compare::<P>(kernel, &[&script::INTERESTS[..], &priority].concat());
}

#[test]
fn simulated_pollers_are_in_step_with_apples() {
    compare::<apple::Poller>(Kernel::Apple);
}

#[test]
fn simulated_pollers_are_in_step_with_freebsds() {
    compare::<freebsd::Poller>(Kernel::FreeBsd);
}

#[test]
fn simulated_pollers_are_in_step_with_netbsds() {
    compare::<netbsd::Poller>(Kernel::NetBsd);
}

#[test]
fn simulated_pollers_are_in_step_with_openbsds() {
    compare::<openbsd::Poller>(Kernel::OpenBsd);
}

#[test]
fn simulated_pollers_are_in_step_with_dragonflys() {
    compare::<dragonfly::Poller>(Kernel::DragonFly);
}
