//! What happens in the kernel at a time that it knows before.

use std::time::Duration;

use super::ids::{EndId, FileId, SocketId};
use super::udp::Packet;

pub(crate) enum Event {
    /// A timer expires.
    Timer(FileId),
    Tcp(Arrival),
    /// In a box: TCP moves far more events, which are small.
    Udp(Box<Packet>),
    /// What came to this file is taken by now, or was touched since this time, or the run fails.
    Patience(FileId, Duration),
}

/// Something that arrives at an end of a TCP connection.
pub(crate) enum Arrival {
    /// At a listener: the attempt of a client to connect, and how many came before it.
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
