//! The kernel below a poller, for cases that depend on it.

use std::time::Duration;

use pollio::OsPoller;

/// A kernel, real or modelled.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(dead_code, reason = "a system runs with one of them")]
pub(crate) enum Kernel {
    Epoll,
    Apple,
    FreeBsd,
    NetBsd,
    OpenBsd,
    DragonFly,
}

/// A poller with a known kernel.
pub(crate) trait On {
    const KERNEL: Kernel;
    /// Whether it is a model.
    const IS_MODELLED: bool = false;
}

impl On for OsPoller {
    const KERNEL: Kernel = if cfg!(target_vendor = "apple") {
        Kernel::Apple
    } else if cfg!(target_os = "freebsd") {
        Kernel::FreeBsd
    } else if cfg!(target_os = "netbsd") {
        Kernel::NetBsd
    } else if cfg!(target_os = "openbsd") {
        Kernel::OpenBsd
    } else if cfg!(target_os = "dragonfly") {
        Kernel::DragonFly
    } else {
        Kernel::Epoll
    };
}

impl Kernel {
    pub(crate) fn is_kqueue(self) -> bool {
        self != Self::Epoll
    }

    /// The time by which a timer may go off early. NetBSD before 10 rounds down to whole ticks (`mstohz`).
    pub(crate) fn timers_are_early_by(self) -> Duration {
        Duration::from_millis(if self == Self::NetBsd { 13 } else { 0 })
    }

    /// Whether there is a filter for out-of-band data.
    pub(crate) fn has_priority(self) -> bool {
        !matches!(self, Self::FreeBsd | Self::NetBsd)
    }
}

/// Used only by the models of kqueue and the cases over them.
#[allow(dead_code, reason = "they run on Linux")]
impl Kernel {
    /// Whether the filter for writing to a pipe is attached to the other end, and is gone with it: `pipe_kqfilter`.
    pub(crate) fn hangs_writes_on_peers(self) -> bool {
        matches!(self, Self::FreeBsd | Self::NetBsd)
    }

    /// Whether `modify` re-arms a oneshot with one call: `kevent_register`, `kqueue_register`.
    pub(crate) fn can_rearm(self) -> bool {
        matches!(self, Self::Apple | Self::FreeBsd)
    }

    /// Whether a timer counts ticks in an `int`: `tstohz`, `tvtohz_high`.
    pub(crate) fn counts_timers_in_ticks(self) -> bool {
        matches!(self, Self::NetBsd | Self::OpenBsd | Self::DragonFly)
    }
}
