// The links of the front page, as they are in the docs: a label's first definition counts. README.md has those for
// the repository.
//! [`World::set_patience`]: crate::World::set_patience
//! [`check`]: crate::check()
//! [`SimPoller`]: crate::SimPoller
//! [`Timer`]: crate::Timer
//! [`channel`]: crate::channel()
//! [`sync_channel`]: crate::sync_channel()
//! [`net`]: crate::net
//! [`fs::remove_file`]: crate::fs::remove_file
//! [`os::unix::net`]: crate::os::unix::net
//! [`os::fd::AsFd`]: crate::os::fd::AsFd
//! [`thread`]: crate::thread
//! [`time::Instant`]: crate::time::Instant
//! [`sync`]: crate::sync
//! [`socket2`]: crate::socket2
//! [`signal_hook`]: crate::signal_hook
//! [`World::raise`]: crate::World::raise
//! [`Waker`]: pollio::Waker
//! [`Conditions`]: crate::Conditions
//! [`World`]: crate::World
//! [scripted descriptors]: crate::SimPoller
#![doc = include_str!("../README.md")]

mod channel;
mod check;
mod conditions;
mod descriptor;
pub mod fs;
mod kernel;
mod kernels;
mod machine;
pub mod net;
pub mod os;
mod panics;
mod poller;
mod schedule;
pub mod signal_hook;
pub mod socket2;
mod stream;
pub mod sync;
pub mod thread;
pub mod time;
mod timer;
mod world;

pub use channel::{Receiver, Sender, SyncSender, TryIter, channel, sync_channel};
pub use check::{check, check_on};
pub use conditions::Conditions;
pub use kernels::Kernel;
pub use poller::SimPoller;
pub use timer::Timer;
pub use world::{Outcome, World};
