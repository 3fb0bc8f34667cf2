//! Apple systems and the BSDs.

mod descriptor;
pub(crate) mod kevent;
mod sources;

pub(crate) use descriptor::check_is_open;
pub(crate) use sources::{ChildFd, TimerFd};
pub(crate) use std::sync::MutexGuard;
