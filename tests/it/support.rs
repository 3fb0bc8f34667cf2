//! What tests have in common: descriptors, processes, which kernel is below, what a wait has to report.

pub(crate) mod descriptors;
pub(crate) mod expect;
pub(crate) mod kernel;
pub(crate) mod subprocess;
