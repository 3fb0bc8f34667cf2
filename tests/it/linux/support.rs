//! Shared by the tests that run only on Linux: programs, their clients, random numbers.

pub(crate) mod example;
pub(crate) mod random;
pub(crate) mod talker;
