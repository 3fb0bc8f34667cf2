//! Apple systems and the BSDs.

pub(crate) mod kevent;
mod sources;

pub(crate) use sources::{ChildFd, TimerFd, WakerFd};
pub(crate) use std::sync::{Mutex, MutexGuard};
