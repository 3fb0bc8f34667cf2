//! The operations of a sequence.

use std::fmt;
use std::net::Shutdown;

use crate::support::kernel::Kernel;
use pollio::{EventKind, Interest, Mode};
use proptest::collection::vec;
use proptest::prelude::Strategy;
use proptest::prop_oneof;
use proptest::sample::select;

/// The kind of a slot: a descriptor that a poller may watch, and for most kinds its other end.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum What {
    Unix,
    Tcp,
    PipeReader,
    PipeWriter,
    PtyMaster,
    PtySlave,
    Eventfd,
    Timer,
}

impl What {
    /// This kind, or a substitute over a kernel whose filters for it have special cases of their own: FreeBSD and
    /// NetBSD for the writer of a pipe, and NetBSD for the master of a pty.
    pub(super) fn on(self, kernel: Kernel) -> Self {
        match (self, kernel) {
            (Self::PipeWriter, _) if kernel.hangs_writes_on_peers() => Self::PipeReader,
            (Self::PtyMaster, Kernel::NetBsd) => Self::PtySlave,
            _ => self,
        }
    }

    /// The interest that it can have over a kernel with a special case for the writing end of a pipe.
    pub(super) fn interest(self, interest: Interest, kernel: Kernel) -> Interest {
        if self == Self::PipeReader
            && kernel.hangs_writes_on_peers()
            && interest == Interest::WRITABLE
        {
            Interest::BOTH
        } else {
            interest
        }
    }

    pub(super) fn is_socket(self) -> bool {
        matches!(self, Self::Unix | Self::Tcp)
    }

    fn is_pty(self) -> bool {
        matches!(self, Self::PtyMaster | Self::PtySlave)
    }

    /// Data from one end reaches the other later, and in parts.
    pub(super) fn takes_its_time(self) -> bool {
        self == Self::Tcp || self.is_pty()
    }

    /// Every one of these has the same inode.
    pub(super) fn is_anonymous(self) -> bool {
        self.is_pty() || matches!(self, Self::Eventfd | Self::Timer)
    }
}

/// A descriptor: a slot, and which of the duplicates there.
#[derive(Debug, Clone, Copy)]
pub(super) struct Which(pub(super) usize, pub(super) usize);

#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum End {
    Near,
    Far,
}

#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Amount {
    One,
    /// Until it would block.
    All,
}

/// The interest and mode of a registration.
#[derive(Debug, Clone, Copy)]
pub(super) struct Asked {
    pub(super) kind: EventKind,
    pub(super) interest: Interest,
    pub(super) mode: Mode,
}

/// The near end is the one that is watched. A number is that of the slot.
#[derive(Debug, Clone, Copy)]
pub(super) enum Operation {
    Add(Which, Asked),
    Modify(Which, Asked),
    Delete(Which),
    /// One wait that does not block.
    Wait,
    /// Enough waits for a turn of every registration.
    WaitForAll,
    Write(usize, End, Amount),
    Read(usize, End, Amount),
    WriteOutOfBand(usize),
    Shutdown(usize, End, Shutdown),
    CloseFar(usize),
    ResetFar(usize),
    Close(Which),
    Duplicate(usize),
    /// Closes the slot's descriptor without a delete, and opens a new one.
    Open(usize, What),
}

impl Operation {
    /// The slot that it is about.
    fn slot(&self) -> Option<usize> {
        match *self {
            Self::Wait | Self::WaitForAll => None,
            Self::Add(Which(slot, _), _)
            | Self::Modify(Which(slot, _), _)
            | Self::Delete(Which(slot, _))
            | Self::Close(Which(slot, _))
            | Self::Write(slot, ..)
            | Self::Read(slot, ..)
            | Self::WriteOutOfBand(slot)
            | Self::Shutdown(slot, ..)
            | Self::CloseFar(slot)
            | Self::ResetFar(slot)
            | Self::Duplicate(slot)
            | Self::Open(slot, _) => Some(slot),
        }
    }
}

/// The kinds of the slots at their first use, and the operations.
#[derive(Debug, Clone)]
pub(super) struct Sequence {
    pub(super) slots: Vec<What>,
    pub(super) operations: Vec<Operation>,
}

impl fmt::Display for Sequence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (slot, what) in self.slots.iter().enumerate() {
            if self.operations.iter().any(|operation| operation.slot() == Some(slot)) {
                writeln!(f, "    slot {slot}: {what:?}")?;
            }
        }
        for (step, operation) in self.operations.iter().enumerate() {
            writeln!(f, "{step:4} {operation:?}")?;
        }
        Ok(())
    }
}

/// The theme of a sequence. A sequence with every kind of operation would have few of each.
#[derive(Debug, Clone, Copy)]
pub(super) struct Shape {
    pub(super) slots: usize,
    pub(super) length: usize,
    /// The number of waits and adds for every thirty reads or writes.
    pub(super) waits: u32,
    pub(super) adds: u32,
    pub(super) modes: &'static [Mode],
    pub(super) interests: &'static [Interest],
}

pub(super) fn sequences(shape: Shape) -> impl Strategy<Value = Sequence> {
    (vec(what(), shape.slots), vec(operation(shape), 1..=shape.length))
        .prop_map(|(slots, operations)| Sequence { slots, operations })
}

fn operation(shape: Shape) -> impl Strategy<Value = Operation> {
    let slot = || 0..shape.slots;
    let which = || (slot(), 0..3_usize).prop_map(|(slot, nth)| Which(slot, nth));
    let asked = || asked(shape);
    let end = || select(&[End::Near, End::Far][..]);
    let amount = || select(&[Amount::One, Amount::All][..]);
    prop_oneof![
        shape.waits => select(&WAITS[..]),
        shape.adds => (which(), asked())
            .prop_map(|(which, asked)| Operation::Add(which, asked)),
        12 => (which(), asked()).prop_map(|(which, asked)| Operation::Modify(which, asked)),
        4 => which().prop_map(Operation::Delete),
        16 => (slot(), end(), amount())
            .prop_map(|(slot, end, amount)| Operation::Write(slot, end, amount)),
        14 => (slot(), end(), amount())
            .prop_map(|(slot, end, amount)| Operation::Read(slot, end, amount)),
        2 => (slot(), end(), select(&SHUTDOWNS[..]))
            .prop_map(|(slot, end, how)| Operation::Shutdown(slot, end, how)),
        6 => (slot(), select(&RARE[..])).prop_map(|(slot, operation)| operation(slot)),
        4 => which().prop_map(Operation::Close),
        4 => (slot(), what()).prop_map(|(slot, what)| Operation::Open(slot, what)),
    ]
}

fn what() -> impl Strategy<Value = What> {
    select(&WHATS[..])
}

fn asked(Shape { modes, interests, .. }: Shape) -> impl Strategy<Value = Asked> {
    let kind = select(&[EventKind::Client, EventKind::Server][..]);
    (kind, select(interests), select(modes)).prop_map(|(kind, interest, mode)| Asked {
        kind,
        interest,
        mode,
    })
}

// A variant that is listed twice is chosen twice as often.

const WHATS: [What; 25] = {
    use What::{Eventfd, PipeReader, PipeWriter, PtyMaster, PtySlave, Tcp, Timer, Unix};
    [
        Unix, Unix, Unix, Unix, Unix, Unix, Unix, Unix, PipeReader, PipeReader, PipeReader,
        PipeReader, PipeWriter, PipeWriter, PipeWriter, PipeWriter, Eventfd, Eventfd, Eventfd,
        Timer, Timer, Tcp, Tcp, PtyMaster, PtySlave,
    ]
};

pub(super) const INTERESTS: [&[Interest]; 3] = {
    let (read, write, priority) = (Interest::READABLE, Interest::WRITABLE, Interest::PRIORITY);
    [
        &[read, write, Interest::BOTH],
        &[Interest::BOTH],
        &[
            read,
            write,
            Interest::BOTH,
            priority,
            read.union(priority),
            write.union(priority),
            Interest::BOTH.union(priority),
            Interest::NONE,
        ],
    ]
};

pub(super) const MODES: [&[Mode]; 4] = {
    use Mode::{Edge, Level, Oneshot};
    [&[Level, Edge, Oneshot], &[Level], &[Edge], &[Oneshot]]
};

const SHUTDOWNS: [Shutdown; 6] = {
    use Shutdown::{Both, Read, Write};
    [Write, Write, Write, Both, Both, Read]
};

const WAITS: [Operation; 9] = {
    let mut waits = [Operation::Wait; 9];
    waits[8] = Operation::WaitForAll;
    waits
};

const RARE: [fn(usize) -> Operation; 8] = {
    use Operation::{CloseFar, Duplicate, ResetFar, WriteOutOfBand};
    [CloseFar, CloseFar, ResetFar, WriteOutOfBand, WriteOutOfBand, Duplicate, Duplicate, Duplicate]
};
