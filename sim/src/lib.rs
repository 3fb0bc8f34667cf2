#![doc = include_str!("../README.md")]

mod channel;
mod check;
mod conditions;
mod descriptor;
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
