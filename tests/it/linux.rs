//! Tests that run only on Linux: over epoll, /proc, seccomp and ptrace(2), or over models of other kernels.

mod examples;
mod guide;
pub(crate) mod kqueue_model;
mod sim;
mod suites;
mod support;
