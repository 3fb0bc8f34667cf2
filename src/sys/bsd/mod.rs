//! Apple systems and the BSDs.

mod descriptor;
pub(crate) mod kevent;
mod sources;

pub(crate) use descriptor::check_is_open;
pub(crate) use sources::{ChildFd, TimerFd, WakerFd};
pub(crate) use std::sync::atomic::AtomicU32;
pub(crate) use std::sync::{Mutex, MutexGuard};
