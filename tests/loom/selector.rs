//! The selector of `OsPoller` in this program: kqueue's, over a table of knotes.

#[path = "../../src/selector/kqueue.rs"]
mod kqueue;
pub(crate) use kqueue::OsSelector;
