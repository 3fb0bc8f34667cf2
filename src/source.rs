//! Sources: objects that are themselves a descriptor, so that any poller can watch them.
//!
//! A source knows no poller. It is `Send + Sync + AsFd + AsRawFd`, is registered like any other
//! descriptor, and closes its own when it is dropped.

mod waker;

pub use waker::Waker;
