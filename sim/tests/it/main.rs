//! What the simulation does, and that its sockets do what real ones do.

mod datagrams;
mod ending;
mod porting;
mod reporting;
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
mod kernels;
#[cfg(any(target_os = "linux", target_os = "android"))]
mod random;
