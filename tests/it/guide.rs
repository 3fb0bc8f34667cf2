//! What the guide says about kernels and descriptors, section by section.

mod blocking;
mod connecting;
mod edges;
mod foreign_loop;
mod listening;
mod readiness;
mod timeouts;
