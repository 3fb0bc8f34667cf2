//! In place of [`std::fs`]: the files that Unix listeners are bound to.
//!
//! A world has no other files, and none of the real file system.

use std::io;
use std::path::Path;

use crate::machine::Machine;

/// Removes the file of a [`UnixListener`](crate::os::unix::net::UnixListener), in place of [`std::fs::remove_file`].
/// The listener keeps the clients in its queue. Other clients cannot find it.
///
/// # Errors
///
/// `NotFound`.
pub fn remove_file<P: AsRef<Path>>(path: P) -> io::Result<()> {
    let (machine, path) = (Machine::current(), path.as_ref());
    let mut kernel = machine.enter();
    let result = kernel.remove_file(path);
    kernel.schedule_mut().note_call(|| match &result {
        Ok(()) => format!("remove {}", path.display()),
        Err(error) => format!("remove {}: {error}", path.display()),
    });
    result
}
