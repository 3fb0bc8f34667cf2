//! The call about child processes that every system has.

use std::io;
use std::mem::MaybeUninit;

use super::result;

/// Fails with `ECHILD` unless `pid` is a child of this process, running or ended, that nobody has
/// waited for: [waitid(2)](https://man7.org/linux/man-pages/man2/waitid.2.html) with `WNOWAIT`,
/// which leaves it as it is.
#[allow(clippy::useless_conversion, reason = "an id_t has 32 bits, on FreeBSD 64")]
pub(crate) fn check_unreaped(pid: u32) -> io::Result<()> {
    let mut info = MaybeUninit::<libc::siginfo_t>::uninit();
    let look = libc::WEXITED | libc::WNOHANG | libc::WNOWAIT;
    // SAFETY: the kernel writes at most one siginfo_t, and `info` has room for that.
    result(unsafe { libc::waitid(libc::P_PID, pid.into(), info.as_mut_ptr(), look) })?;
    Ok(())
}
