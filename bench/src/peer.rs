//! The peers, each behind one small trait. A registration is named by its descriptor.

mod bare;
#[cfg(feature = "c-peers")]
mod callback;
#[cfg(feature = "c-peers")]
mod libev;
#[cfg(feature = "c-peers")]
mod libevent;
#[cfg(feature = "c-peers")]
mod libuv;
mod mio;
mod polling;
mod pollio;
mod pollio_0_1;

use std::io;
use std::os::fd::RawFd;
use std::time::Duration;

/// A readiness poller, as the workloads see it.
pub(crate) trait Peer: Sized {
    const NAME: &'static str;

    fn new() -> io::Result<Self>;

    /// The reason, if the peer cannot do what `asked` asks for.
    fn lacks(asked: Asked) -> Option<&'static str>;

    /// The reason, if a call to register does nothing until the next wait.
    const LAZY: Option<&'static str> = None;

    fn add(&mut self, fd: RawFd, asked: Asked) -> io::Result<()>;

    fn modify(&mut self, fd: RawFd, asked: Asked) -> io::Result<()>;

    fn delete(&mut self, fd: RawFd) -> io::Result<()>;

    /// Waits until something is ready, and calls `reported` with each such descriptor.
    fn wait(&mut self, reported: impl FnMut(RawFd)) -> io::Result<()>;
}

/// A peer whose wait another thread can end.
pub(crate) trait Wakes: Peer + Send {
    type Waker: Send + Sync + 'static;

    fn with_waker() -> io::Result<(Self, Self::Waker)>;

    fn wake(waker: &Self::Waker) -> io::Result<()>;

    /// Waits for a wake, and clears it.
    fn wait_for_wake(&mut self) -> io::Result<()>;
}

/// A peer on which several threads can wait.
pub(crate) trait Shares: Peer + Send {
    /// Another handle on the same registrations.
    fn share(&self) -> io::Result<Self>;
}

/// A peer whose wait ends by itself.
pub(crate) trait TimesOut: Peer {
    fn wait_for(&mut self, timeout: Duration) -> io::Result<()>;
}

/// The interest and the mode of a registration.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Asked {
    pub(crate) writable_too: bool,
    pub(crate) mode: Mode,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mode {
    Level,
    Edge,
    Oneshot,
}

impl Asked {
    /// Level-triggered, or edge-triggered if the peer has nothing else.
    pub(crate) fn naturally<P: Peer>() -> Self {
        if P::lacks(Self::LEVEL).is_none() { Self::LEVEL } else { Self::in_mode(Mode::Edge) }
    }

    pub(crate) const LEVEL: Self = Self { writable_too: false, mode: Mode::Level };

    pub(crate) const fn in_mode(mode: Mode) -> Self {
        Self { writable_too: false, mode }
    }
}

impl Mode {
    pub(crate) const ALL: [Self; 3] = [Self::Level, Self::Edge, Self::Oneshot];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Level => "level",
            Self::Edge => "edge",
            Self::Oneshot => "oneshot",
        }
    }
}

/// A turn of one peer, or the reason why it cannot run.
pub(crate) struct Entrant<Run: ?Sized> {
    pub(crate) peer: &'static str,
    pub(crate) run: Result<Box<Run>, &'static str>,
}

/// The peer that all others are compared with.
pub(crate) const BASE: &str = bare::Bare::<false>::NAME;

/// The same, polling until there is an event.
pub(crate) const BASE_SPINNING: &str = bare::Bare::<true>::NAME;

/// pollio without spinning: the one whose instructions and system calls are compared.
pub(crate) const US: &str = pollio::Pollio::<0>::NAME;

/// pollio, spinning.
pub(crate) const US_SPINNING: &str = pollio::Pollio::<{ pollio::SPIN_US }>::NAME;

/// The versions of the peers, and of the runtimes and queues that go with them.
pub(crate) fn versions() -> Vec<(String, String)> {
    const PEERS: [&str; 7] =
        ["pollio", "mio", "polling", "tokio", "async-io", "crossbeam-channel", "async-channel"];
    let mut versions = Vec::new();
    for package in include_str!("../../Cargo.lock").split("[[package]]") {
        let value = |key: &str| {
            let line = package.lines().find_map(|line| line.strip_prefix(key));
            line.map(|value| value.trim_matches('"').to_owned())
        };
        if let (Some(name), Some(version)) = (value("name = "), value("version = "))
            && PEERS.contains(&&*name)
        {
            versions.push((name, version));
        }
    }
    #[cfg(feature = "c-peers")]
    versions.extend([libevent::version(), libev::version(), libuv::version()]);
    versions
}

/// Calls `$each::<Peer>($argument…)` for every peer that registers, and collects what it returns.
macro_rules! of_each_peer {
    ($each:ident($($argument:expr),*)) => {{
        use $crate::peer::all;
        Vec::from([
            $each::<all::Bare>($($argument),*),
            $each::<all::Pollio<0>>($($argument),*),
            $each::<all::Pollio<{ all::SPIN_US }>>($($argument),*),
            $each::<all::Pollio01>($($argument),*),
            $each::<all::Mio>($($argument),*),
            $each::<all::Polling>($($argument),*),
            #[cfg(feature = "c-peers")]
            $each::<all::Libevent>($($argument),*),
            #[cfg(feature = "c-peers")]
            $each::<all::Libev>($($argument),*),
            #[cfg(feature = "c-peers")]
            $each::<all::Libuv>($($argument),*),
        ])
    }};
}
pub(crate) use of_each_peer;

/// A turn that [`of_each_peer`] names.
pub(crate) mod all {
    pub(crate) use super::bare::Bare;
    pub(crate) use super::mio::Mio;
    pub(crate) use super::polling::Polling;
    pub(crate) use super::pollio::{Pollio, SPIN_US};
    pub(crate) use super::pollio_0_1::Pollio01;
    #[cfg(feature = "c-peers")]
    pub(crate) use super::{libev::Libev, libevent::Libevent, libuv::Libuv};
}
