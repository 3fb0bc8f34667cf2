//! Everything that pollio promises, against the real kernel. One binary, so that it links once.

mod alone;
mod conformance;
mod costs;
mod descriptors;
mod echo_server;
mod epoll;
mod example;
mod expect;
mod foreign;
mod quick_start;
mod sources;
mod system_calls;
mod tidy;
