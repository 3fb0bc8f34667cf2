//! Tests of all promises of pollio, against the real kernel. One binary, so that it links once.

mod conformance;
mod suites;
mod support;

#[cfg(any(target_os = "linux", target_os = "android"))]
mod linux;

// The kqueue model includes files of `src/`, which use these names of their own crate.
#[cfg(any(target_os = "linux", target_os = "android"))]
use linux::kqueue_model::{
    Backend, Event, EventKind, EventObject, Interest, Mode, Poller, Readiness, Registry, Wakeups,
    chunks, os_poller, selector, spin, sys, wait,
};
