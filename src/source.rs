//! Sources: objects that are themselves a descriptor, so that any poller can watch them.
//!
//! A source knows no poller. It is `Send + Sync + AsFd + AsRawFd`; it is registered like any other descriptor, and
//! closes its own when it is dropped.

mod child_exit;
mod timer;

pub use child_exit::ChildExit;
pub use timer::Timer;
