//! Sources: the same cases over each kernel.

#[cfg(any(target_os = "linux", target_os = "android"))]
mod kqueue_model;
mod os;
