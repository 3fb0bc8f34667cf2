//! Descriptors, and pairs of Unix sockets, under the names of `std::os`.

pub mod fd;

/// In place of `std::os::unix`.
pub mod unix {
    pub mod net;
}
