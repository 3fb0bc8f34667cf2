//! Everything that pollio promises, against the real kernel. One binary, so that it links once.

mod allocations;
mod conformance;
mod descriptors;
mod expect;
mod foreign;
mod kernel;
mod sources;
mod spinning;
mod subprocess;
mod tidy;

#[cfg(not(any(target_os = "linux", target_os = "android")))]
mod kqueue;

// Epoll's, what reads /proc, and what seccomp refuses.
#[cfg(any(target_os = "linux", target_os = "android"))]
mod async_runtime;
#[cfg(any(target_os = "linux", target_os = "android"))]
mod command_line;
#[cfg(any(target_os = "linux", target_os = "android"))]
mod connections;
#[cfg(any(target_os = "linux", target_os = "android"))]
mod echo_server;
#[cfg(any(target_os = "linux", target_os = "android"))]
mod epoll;
#[cfg(any(target_os = "linux", target_os = "android"))]
mod example;
#[cfg(any(target_os = "linux", target_os = "android"))]
mod faults;
#[cfg(any(target_os = "linux", target_os = "android"))]
mod graceful_shutdown;
#[cfg(any(target_os = "linux", target_os = "android"))]
mod guide;
#[cfg(any(target_os = "linux", target_os = "android"))]
mod http_server;
#[cfg(any(target_os = "linux", target_os = "android"))]
mod pool;
#[cfg(any(target_os = "linux", target_os = "android"))]
mod proxy;
#[cfg(any(target_os = "linux", target_os = "android"))]
mod quick_start;
#[cfg(any(target_os = "linux", target_os = "android"))]
mod random;
#[cfg(any(target_os = "linux", target_os = "android"))]
mod random_operations;
#[cfg(any(target_os = "linux", target_os = "android"))]
mod sim;
#[cfg(any(target_os = "linux", target_os = "android"))]
mod soak;
#[cfg(any(target_os = "linux", target_os = "android"))]
mod supervise;
#[cfg(any(target_os = "linux", target_os = "android"))]
mod surroundings;
#[cfg(any(target_os = "linux", target_os = "android"))]
mod talker;
// By a call of ptrace(2) that libc has only for glibc.
#[cfg(all(target_os = "linux", target_env = "gnu"))]
mod system_calls;

// The kqueue backend over a model, and what it finds around it in its own crate.
#[cfg(any(target_os = "linux", target_os = "android"))]
#[path = "../../src/chunks.rs"]
mod chunks;
#[cfg(any(target_os = "linux", target_os = "android"))]
mod kqueue_model;
#[cfg(any(target_os = "linux", target_os = "android"))]
#[path = "../../src/os_poller.rs"]
#[allow(unreachable_pub, reason = "public in its crate, not in these tests")]
mod os_poller;
#[cfg(any(target_os = "linux", target_os = "android"))]
mod selector;
#[cfg(any(target_os = "linux", target_os = "android"))]
#[path = "../../src/spin.rs"]
mod spin;
#[cfg(any(target_os = "linux", target_os = "android"))]
mod sys;
#[cfg(any(target_os = "linux", target_os = "android"))]
#[path = "../../src/wait.rs"]
mod wait;
#[cfg(any(target_os = "linux", target_os = "android"))]
use pollio::{
    Backend, Event, EventKind, EventObject, Interest, Mode, Poller, Readiness, Registry, Wakeups,
};
