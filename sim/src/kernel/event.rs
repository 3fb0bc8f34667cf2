//! The events of the kernel that are due at a known time.

use std::time::Duration;

use super::ids::{EndId, FileId, SocketId};
use super::udp::Packet;

pub(crate) enum Event {
    /// A timer expires.
    Timer(FileId),
    Tcp(Arrival),
    /// In a box: TCP moves far more events, which are small.
    Udp(Box<Packet>),
    /// A check: the run fails if an arrival at this file is not taken, and the file was not touched since this time.
    Patience(FileId, Duration),
}

/// Something that arrives at an end of a TCP connection.
pub(crate) enum Arrival {
    /// At a listener: a client's attempt to connect, and the number of its earlier attempts.
    Syn(EndId, u32),
    /// At the client: it is connected.
    Connected(EndId),
    /// In the queue of the listener: its end of the connection.
    Enqueue(EndId, SocketId),
    /// The next segment on its way to this end.
    Segment(EndId),
    /// The acknowledgement of so many bytes, which makes room to write.
    Ack(EndId, usize),
    Reset(EndId, i32),
    /// A fault ends: there is room to write again.
    RoomReturns(EndId),
    /// A fault: both ends are reset.
    ResetBoth(EndId),
    /// A fault: nothing arrives at either end for so long.
    Stall(EndId, Duration),
}
