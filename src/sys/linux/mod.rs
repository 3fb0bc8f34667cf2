//! Linux and Android.

pub(crate) mod epoll;
mod sources;

pub(crate) use sources::{ChildFd, TimerFd, WakerFd};
