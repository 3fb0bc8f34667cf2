//! Shared by the tests: descriptors, processes, the kernel below a poller, and the expected events of a wait.

pub(crate) mod descriptors;
pub(crate) mod expect;
pub(crate) mod kernel;
pub(crate) mod subprocess;
