//! The system-call layer below the kqueue selector and the BSD halves of the sources: a model of
//! kqueue(2), over the crate's own epoll.

#[allow(unsafe_code, dead_code, reason = "the crate's own calls, of which the model needs some")]
#[path = "../../../../src/sys/linux/epoll.rs"]
pub(crate) mod epoll;
pub(crate) use super::kevent;

#[path = "../../../../src/sys/bsd/sources.rs"]
mod bsd;
#[allow(unsafe_code, reason = "the crate's own call")]
#[path = "../../../../src/sys/bsd/descriptor.rs"]
mod descriptor;
#[allow(unsafe_code, reason = "the crate's own call")]
#[path = "../../../../src/sys/process.rs"]
mod process;
pub(crate) use bsd::{ChildFd, TimerFd};
pub(crate) use descriptor::check_is_open;
pub(crate) use std::sync::atomic::AtomicU32;
pub(crate) use std::sync::{Mutex, MutexGuard};

#[allow(unreachable_pub, reason = "public in its crate, not in these tests")]
#[path = "../../../../src/source/child_exit.rs"]
mod child_exit;
#[allow(unreachable_pub, reason = "public in its crate, not in these tests")]
#[path = "../../../../src/source/timer.rs"]
mod timer;
pub(crate) use child_exit::ChildExit;
pub(crate) use timer::Timer;

use std::ffi::c_int;
use std::io;

/// The return value of a system call, or its error in `errno`.
fn result(returned: c_int) -> io::Result<c_int> {
    if returned == -1 { Err(io::Error::last_os_error()) } else { Ok(returned) }
}
