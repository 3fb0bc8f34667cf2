//! The contract over a model of kqueue: the selector's own file, with `crate::sys::kevent` of these
//! tests below it instead of the kernel's.
//!
//! It proves the selector's logic on Linux, and nothing about a BSD.

pub(crate) mod kevent;
mod modelled;
pub(crate) mod selector;
mod sources;
pub(crate) mod sys;

#[path = "../../../src/chunks.rs"]
pub(crate) mod chunks;
#[path = "../../../src/os_poller.rs"]
#[allow(unreachable_pub, reason = "public in its crate, not in these tests")]
pub(crate) mod os_poller;
#[path = "../../../src/spin.rs"]
pub(crate) mod spin;
#[path = "../../../src/wait.rs"]
pub(crate) mod wait;

use std::fmt;
use std::io;
use std::marker::PhantomData;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd};
use std::panic::{RefUnwindSafe, UnwindSafe};
use std::time::Duration;

pub(crate) use pollio::{
    Backend, Event, EventKind, EventObject, Interest, Mode, Poller, Readiness, Registry, Wakeups,
};

use crate::conformance::conformance;
use crate::conformance::sharing::Share;
use crate::suites::spinning::Spinning;
use crate::support::kernel::{Kernel, On};
use modelled::modelled;
use os_poller::OsPoller;

/// `OsPoller` over the model of one system's kqueue.
pub(crate) struct KqueuePoller<S>(OsPoller, PhantomData<S>);

impl<S: On> Poller for KqueuePoller<S> {
    fn new() -> io::Result<Self> {
        Ok(Self(kevent::on(S::KERNEL, OsPoller::new)?, PhantomData))
    }

    fn registry(&self) -> &Registry {
        self.0.registry()
    }

    fn wait_timeout(&mut self, timeout: Option<Duration>) -> io::Result<&[Event]> {
        self.0.wait_timeout(timeout)
    }
}

impl<S: On> On for KqueuePoller<S> {
    const KERNEL: Kernel = S::KERNEL;
    const IS_MODELLED: bool = true;
}

impl<S: On + Send> Share for KqueuePoller<S> {
    const MESSAGES: usize = 4_000;

    fn share(&self) -> Self {
        Self(self.0.try_clone().unwrap(), PhantomData)
    }

    fn with_capacity(capacity: usize) -> io::Result<Self> {
        let create = || OsPoller::with_capacity(capacity);
        Ok(Self(kevent::on(S::KERNEL, create)?, PhantomData))
    }

    fn set_spin(&mut self, limit: Duration) {
        self.0.set_spin(limit);
    }

    fn set_max_events(&mut self, n: usize) {
        self.0.set_max_events(n);
    }
}

impl<S> AsFd for KqueuePoller<S> {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl<S> AsRawFd for KqueuePoller<S> {
    fn as_raw_fd(&self) -> RawFd {
        self.0.as_raw_fd()
    }
}

impl<S> fmt::Debug for KqueuePoller<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Makes a module for each system.
macro_rules! systems {
    ($($module:ident $system:ident)*) => {$(
        pub(crate) mod $module {
            use super::*;

            #[derive(Debug)]
            pub(crate) enum System {}

            impl On for System {
                const KERNEL: Kernel = Kernel::$system;
            }

            pub(crate) type Poller = KqueuePoller<System>;

            conformance!(Poller);
            conformance!(kqueue: Poller);
            conformance!(shared: Poller);
            modelled!(Poller);
        }
    )*};
}

systems! { apple Apple freebsd FreeBsd netbsd NetBsd openbsd OpenBsd dragonfly DragonFly }

/// C17
mod spinning {
    use super::*;

    conformance!(Spinning<apple::Poller>);
}

/// The same as over the kernel of this system: see `the_state_of_a_loop_is_unwind_safe`.
#[test]
fn a_poller_over_kqueue_is_unwind_safe() {
    fn is_unwind_safe<T: UnwindSafe + RefUnwindSafe>() {}
    is_unwind_safe::<OsPoller>();
}
