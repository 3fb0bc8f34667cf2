//! The selector that `OsPoller` has here: that of kqueue, over a table of knotes.

#[path = "../../src/selector/kqueue.rs"]
mod kqueue;
pub(crate) use kqueue::OsSelector;
