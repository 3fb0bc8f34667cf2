//! What tests have in common that run only on Linux: programs, their clients, random numbers.

pub(crate) mod example;
pub(crate) mod random;
pub(crate) mod talker;
