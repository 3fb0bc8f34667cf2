//! The guide's statements about kernels and descriptors, section by section.

mod blocking;
mod connecting;
mod edges;
mod expiring;
mod foreign_loop;
mod line_writer;
mod listening;
mod output;
mod readiness;
mod sharing;
mod signals;
mod timeouts;
