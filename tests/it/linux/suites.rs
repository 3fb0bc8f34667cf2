//! Suites over epoll, and over what else only Linux has.

mod connections;
pub(crate) mod epoll;
pub(crate) mod faults;
mod random_operations;
mod soak;
// By a call of ptrace(2) that libc has only for glibc.
#[cfg(all(target_os = "linux", target_env = "gnu"))]
mod system_calls;
