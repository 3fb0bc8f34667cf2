//! In place of [`std::os::unix::net`].

use std::io;

use crate::descriptor::Descriptor;
use crate::machine::Machine;
use crate::stream::stream;

/// One end of a simulated pair, in place of [`std::os::unix::net::UnixStream`]. What is written to the
/// other end is there at once.
pub struct UnixStream(pub(crate) Descriptor);

impl UnixStream {
    /// Two that are connected to each other.
    ///
    /// # Errors
    ///
    /// `EMFILE` at the limit of descriptors.
    pub fn pair() -> io::Result<(Self, Self)> {
        let machine = Machine::current();
        let ends = machine.enter().open_pair()?;
        let [near, far] = ends.map(|fd| Self(Descriptor::new(&machine, fd)));
        Ok((near, far))
    }
}

stream!(UnixStream);
