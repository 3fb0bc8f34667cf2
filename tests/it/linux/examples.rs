//! The examples as programs, each in a file of its name, and tests of all of them.

mod async_runtime;
mod command_line;
pub(crate) mod echo_server;
mod graceful_shutdown;
mod http_server;
mod pool;
mod proxy;
mod quick_start;
mod resp_server;
mod supervise;
mod surroundings;
