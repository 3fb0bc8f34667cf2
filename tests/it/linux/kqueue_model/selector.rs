//! The selector that `OsPoller` has here: that of kqueue, over the model.

#[path = "../../../../src/selector/kqueue.rs"]
mod kqueue;
pub(crate) use kqueue::OsSelector;
