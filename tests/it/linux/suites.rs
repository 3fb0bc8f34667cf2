//! Suites over epoll, and over other features of Linux.

mod connections;
pub(crate) mod epoll;
pub(crate) mod faults;
mod random_operations;
mod soak;
// Needs a call of ptrace(2) that libc has only for glibc.
#[cfg(all(target_os = "linux", target_env = "gnu"))]
mod system_calls;
