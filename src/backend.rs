//! The one place that chooses: which kernel interface `OsPoller` stands for.

#[cfg(any(target_os = "linux", target_os = "android"))]
mod epoll;
#[cfg(any(target_os = "linux", target_os = "android"))]
pub use epoll::{EpollPoller, EpollPoller as OsPoller};

#[cfg(not(any(target_os = "linux", target_os = "android")))]
mod kqueue;
#[cfg(not(any(target_os = "linux", target_os = "android")))]
pub use kqueue::{KqueuePoller, KqueuePoller as OsPoller};
