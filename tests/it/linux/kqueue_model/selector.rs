//! The selector of `OsPoller` in these tests: kqueue's, over the model.

#[path = "../../../../src/selector/kqueue.rs"]
mod kqueue;
pub(crate) use kqueue::OsSelector;
