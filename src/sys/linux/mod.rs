//! Linux and Android.

pub(crate) mod epoll;
pub(crate) mod eventfd;
mod sources;

pub(crate) use sources::{ChildFd, TimerFd};
