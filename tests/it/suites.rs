//! Suites over the kernel of each system.

mod allocations;
pub(crate) mod foreign;
pub(crate) mod sources;
pub(crate) mod spinning;
mod tidy;

#[cfg(not(any(target_os = "linux", target_os = "android")))]
mod kqueue;
