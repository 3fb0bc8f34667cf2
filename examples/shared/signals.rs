//! Signals: a descriptor in the loop, like everything else.

use std::io;
use std::os::unix::net::UnixStream;

use nix::sys::signal::SigSet;
use signal_hook::low_level::pipe;

/// Unblocks all signals for the program and its children: its parent may have left some blocked. Call it before the
/// first thread starts, since threads inherit the mask.
pub(crate) fn unblock_all() -> io::Result<()> {
    Ok(SigSet::empty().thread_set_mask()?)
}

/// A stream with a byte to read for each of these signals that arrived. A handler can do little more than write it.
pub(crate) fn signals(numbers: &[i32]) -> io::Result<UnixStream> {
    let (reader, writer) = UnixStream::pair()?;
    for number in numbers {
        pipe::register(*number, writer.try_clone()?)?;
    }
    Ok(reader)
}
