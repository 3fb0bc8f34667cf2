//! The ids of the kernel's objects. Unlike the number of a descriptor, no id is used again.

/// A file, to which descriptors refer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct FileId(pub(super) usize);

/// A socket of TCP, one of UDP, or a Unix listener.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct SocketId(pub(super) usize);

/// One of the two ends of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct EndId {
    pub(super) connection: usize,
    pub(super) side: usize,
}

impl EndId {
    pub(super) const fn peer(self) -> Self {
        Self { connection: self.connection, side: 1 - self.side }
    }
}
