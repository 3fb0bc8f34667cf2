//! The state that threads share, in every order of their steps: the crate's own files, over the `sys` of this program,
//! checked by loom. A program of its own, because `crate` has to be its root.
//!
//! Threads share the [`Wakers`](wakers::Wakers) of a poller, the queue of a [`channel`](channel::channel) with one of
//! them, and the guide's table of registrations; on kqueue also the lock of registrations and the claim to report a
//! oneshot. A `Registry` over epoll is a descriptor that never changes, and each verb is atomic in the kernel. A poller
//! is not `Sync`.
#![cfg(target_os = "linux")]

#[path = "../../src/channel.rs"]
#[allow(unreachable_pub, reason = "public in its crate, not in these tests")]
mod channel;
#[path = "../../src/chunks.rs"]
mod chunks;
mod claiming;
#[path = "../../src/os_poller.rs"]
#[allow(unreachable_pub, dead_code, reason = "public in its crate, and only half of it is used")]
mod os_poller;
mod registering;
mod registry;
mod selector;
mod sending;
#[path = "../../src/spin.rs"]
mod spin;
mod sys;
mod table;
#[path = "../../src/wait.rs"]
mod wait;
#[path = "../../src/waker.rs"]
#[allow(
    unreachable_pub,
    dead_code,
    reason = "public in its crate, and only half of it is asked for"
)]
mod waker;
#[path = "../../src/wakers.rs"]
#[allow(
    unreachable_pub,
    dead_code,
    reason = "public in its crate, and only half of it is asked for"
)]
mod wakers;
mod waking;

use pollio::{
    Backend, Event, EventKind, EventObject, Interest, Mode, Poller, Readiness, Registry, Wakeups,
};
