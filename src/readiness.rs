//! What a poller answers: the bits that come back.

use bitflags::bitflags;

bitflags! {
    /// What is true of a descriptor that a wait told of.
    ///
    /// A program reads it through the predicates of [`EventObject`](crate::EventObject), such as
    /// [`is_readable`](crate::EventObject::is_readable), where each bit is explained. A backend
    /// sets it with [`EventObject::with_readiness`](crate::EventObject::with_readiness).
    #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
    pub struct Readiness: u8 {
        /// A read would not block.
        const READABLE = 1 << 0;
        /// A write would not block.
        const WRITABLE = 1 << 1;
        /// Something exceptional is there to be read.
        const PRIORITY = 1 << 2;
        /// The peer will send no more.
        const READ_CLOSED = 1 << 3;
        /// Nothing can be sent any more.
        const WRITE_CLOSED = 1 << 4;
        /// An error is pending.
        const ERROR = 1 << 5;
    }
}
