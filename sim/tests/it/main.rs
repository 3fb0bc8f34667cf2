//! Tests of the simulation, and of its sockets against real ones.

mod checks;
mod datagrams;
mod ending;
mod kernels;
mod pollers;
mod porting;
mod reporting;
mod scope;
mod scripted;
mod sockets;
mod sync;
mod wakes;
mod world;

// The rules are those of Linux.
#[cfg(any(target_os = "linux", target_os = "android"))]
mod alike;
#[cfg(any(target_os = "linux", target_os = "android"))]
mod in_step;
#[cfg(any(target_os = "linux", target_os = "android"))]
mod random;
#[cfg(any(target_os = "linux", target_os = "android"))]
mod script;
