//! What a poller tells that spins before it sleeps: the contract, once more.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd};
use std::time::Duration;

use pollio::{Event, OsPoller, Poller, Registry};

/// A poller that spins from the beginning.
pub(crate) struct Spinning<P>(P);

/// Long enough to catch what comes soon, short enough to sleep before the rest.
const LIMIT: Duration = Duration::from_millis(1);

pub(crate) trait SetSpin: Poller {
    fn set_spin(&mut self, limit: Duration);
}

impl SetSpin for OsPoller {
    fn set_spin(&mut self, limit: Duration) {
        self.set_spin(limit);
    }
}

impl<P: SetSpin> Poller for Spinning<P> {
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

/// C17
#[cfg(any(target_os = "linux", target_os = "android"))]
mod kqueue_model {
    use std::time::Duration;

    use super::{SetSpin, Spinning};
    use crate::conformance::conformance;
    use crate::kqueue_model::KqueuePoller;

    impl SetSpin for KqueuePoller {
        fn set_spin(&mut self, limit: Duration) {
            self.set_spin(limit);
        }
    }

    conformance!(Spinning<KqueuePoller>);
}
