#![doc = include_str!("../README.md")]

mod backend;
mod deadline;
mod event;
mod interest;
mod poller;
mod readiness;
mod registry;
pub mod sim;
mod source;
mod spin;
mod sys;

pub use backend::*;
pub use event::{EventKind, EventObject};
pub use interest::{Interest, Mode};
pub use poller::Poller;
pub use readiness::Readiness;
pub use registry::{Register, Registry};
pub use source::{Child, Timer, Waker};

#[doc = include_str!("guide.md")]
pub mod guide {}
