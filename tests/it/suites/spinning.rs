//! The contract, over a poller that spins before it blocks.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd};
use std::time::Duration;

use pollio::{Event, Poller, Registry};

use crate::conformance::sharing::Share;
use crate::support::kernel::{Kernel, On};

/// A poller that spins from the beginning.
pub(crate) struct Spinning<P>(P);

/// Long enough to catch an early event, short enough to sleep before a late one.
const LIMIT: Duration = Duration::from_millis(1);

impl<P: On> On for Spinning<P> {
    const KERNEL: Kernel = P::KERNEL;
    const IS_MODELLED: bool = P::IS_MODELLED;
}

impl<P: Share> Poller for Spinning<P> {
    fn new() -> io::Result<Self> {
        let mut poller = P::new()?;
        poller.set_spin(LIMIT);
        Ok(Self(poller))
    }

    fn registry(&self) -> &Registry {
        self.0.registry()
    }

    fn wait_timeout(&mut self, timeout: Option<Duration>) -> io::Result<&[Event]> {
        self.0.wait_timeout(timeout)
    }
}

impl<P: AsFd> AsFd for Spinning<P> {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl<P: AsRawFd> AsRawFd for Spinning<P> {
    fn as_raw_fd(&self) -> RawFd {
        self.0.as_raw_fd()
    }
}

/// C17
mod os {
    use pollio::OsPoller;

    use super::Spinning;
    use crate::conformance::conformance;

    conformance!(Spinning<OsPoller>);
}
