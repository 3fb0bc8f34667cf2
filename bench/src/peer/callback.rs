//! What the peers in C call back with, until their wait is over.

use std::cell::RefCell;
use std::os::fd::RawFd;

thread_local! {
    static READY: RefCell<Vec<RawFd>> = const { RefCell::new(Vec::new()) };
}

/// Something is ready: called from within the peer's loop.
pub(crate) fn ready(fd: RawFd) {
    READY.with_borrow_mut(|reported| reported.push(fd));
}

/// Calls `reported` with all that became ready in the turn of the loop that is over.
pub(crate) fn take(reported: impl FnMut(RawFd)) {
    READY.with_borrow_mut(|all| all.drain(..).for_each(reported));
}
