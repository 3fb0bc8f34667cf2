//! The one place that chooses which kernel interface `OsPoller` waits on.

#[cfg(any(target_os = "linux", target_os = "android"))]
#[path = "selector/epoll.rs"]
mod chosen;

#[cfg(any(
    target_vendor = "apple",
    target_os = "freebsd",
    target_os = "netbsd",
    target_os = "openbsd",
    target_os = "dragonfly",
))]
#[path = "selector/kqueue.rs"]
mod chosen;

pub(crate) use chosen::OsSelector;

#[cfg(not(any(
    target_os = "linux",
    target_os = "android",
    target_vendor = "apple",
    target_os = "freebsd",
    target_os = "netbsd",
    target_os = "openbsd",
    target_os = "dragonfly",
)))]
compile_error!("pollio needs epoll or kqueue: Linux, Android, an Apple system or a BSD");
