//! Signals: a descriptor in the loop, like everything else.

use std::io;
use std::os::unix::net::UnixStream;

use nix::sys::signal::SigSet;
use signal_hook::low_level::pipe;

/// Lets all signals reach the program, and what it starts: whoever started it may have blocked some. To be
/// called before there are threads, which inherit it.
pub(crate) fn unblock_all() -> io::Result<()> {
    Ok(SigSet::empty().thread_set_mask()?)
}

/// A stream that has a byte to read for each of these signals that arrived. A handler can do little more than
/// write it.
pub(crate) fn signals(numbers: &[i32]) -> io::Result<UnixStream> {
    let (reader, writer) = UnixStream::pair()?;
    for number in numbers {
        pipe::register(*number, writer.try_clone()?)?;
    }
    Ok(reader)
}
