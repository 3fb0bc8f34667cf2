//! The one place that chooses: which kernel interface `OsPoller` stands for.

#[cfg(any(target_os = "linux", target_os = "android"))]
mod epoll;

#[cfg(any(target_os = "linux", target_os = "android"))]
pub use epoll::{EpollPoller, EpollPoller as OsPoller};
