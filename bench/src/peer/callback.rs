//! Collects the callbacks of the peers in C, until their wait is over.

use std::cell::RefCell;
use std::os::fd::RawFd;

thread_local! {
    static READY: RefCell<Vec<RawFd>> = const { RefCell::new(Vec::new()) };
}

/// Notes a ready descriptor. Called from within the peer's loop.
pub(crate) fn ready(fd: RawFd) {
    READY.with_borrow_mut(|reported| reported.push(fd));
}

/// Calls `reported` with all descriptors that became ready in the last turn of the loop.
pub(crate) fn take(reported: impl FnMut(RawFd)) {
    READY.with_borrow_mut(|all| all.drain(..).for_each(reported));
}
