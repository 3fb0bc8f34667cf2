//! The reports that a registration may and must have, by poll(2).

use nix::poll::PollFlags;
use pollio::{Event, EventObject, Interest, Mode, Readiness};

use crate::support::kernel::Kernel;

/// The peer's half-close, which nix does not know.
pub(super) const RDHUP: PollFlags = PollFlags::from_bits_retain(libc::POLLRDHUP);

const IN: PollFlags = PollFlags::POLLIN;
const OUT: PollFlags = PollFlags::POLLOUT;
const PRI: PollFlags = PollFlags::POLLPRI;
const ERR: PollFlags = PollFlags::POLLERR;
const HUP: PollFlags = PollFlags::POLLHUP;

const NOTHING: Readiness = Readiness::NONE;
const EVERYTHING: Interest = Interest::BOTH.union(Interest::PRIORITY);

/// The rules that hold over a kernel, where the docs say that kernels differ.
impl Kernel {
    /// The report for a descriptor whose bits in poll(2) are `bits`, which may be empty.
    pub(super) fn readiness(
        self,
        interest: Interest,
        bits: PollFlags,
        is_socket: bool,
    ) -> Readiness {
        match self {
            Self::Epoll => epoll_readiness(interest, bits),
            _ => each(interest)
                .map(|one| kqueue_readiness(self, one, bits, is_socket))
                .fold(NOTHING, Readiness::union),
        }
    }

    /// Those of the interests that have something to report.
    fn ready(self, interest: Interest, bits: PollFlags) -> Interest {
        each(interest)
            .filter(|one| self.readiness(*one, bits, false) != NOTHING)
            .fold(Interest::NONE, Interest::union)
    }
}

/// The interests of a set, one at a time.
fn each(interest: Interest) -> impl Iterator<Item = Interest> {
    [Interest::READABLE, Interest::WRITABLE, Interest::PRIORITY]
        .into_iter()
        .filter(move |one| interest.contains(*one))
}

/// The interests that are ready, and always hang-ups and errors, which are readable and writable.
fn epoll_readiness(interest: Interest, bits: PollFlags) -> Readiness {
    let mut reported = NOTHING;
    if interest.contains(Interest::READABLE) {
        reported |= if bits.contains(IN) { Readiness::READABLE } else { NOTHING };
        reported |= if bits.contains(RDHUP) { Readiness::READ_CLOSED } else { NOTHING };
    }
    if interest.contains(Interest::WRITABLE) && bits.contains(OUT) {
        reported |= Readiness::WRITABLE;
    }
    if interest.contains(Interest::PRIORITY) && bits.contains(PRI) {
        reported |= Readiness::PRIORITY;
    }
    if bits.contains(HUP) {
        reported |= Readiness::READ_CLOSED | Readiness::WRITE_CLOSED;
    }
    if bits.contains(ERR) {
        reported |= Readiness::ERROR;
    }
    if bits.intersects(HUP | ERR) {
        reported |= Readiness::READABLE | Readiness::WRITABLE;
    }
    reported
}

/// The report of one interest's filter, without anything outside that interest.
fn kqueue_readiness(kernel: Kernel, one: Interest, bits: PollFlags, is_socket: bool) -> Readiness {
    let (fires, end, ready, closed) = if one == Interest::WRITABLE {
        // A pipe without a reader has an end, and no error.
        let end = if is_socket { HUP } else { HUP | ERR };
        (OUT | HUP | ERR, end, Readiness::WRITABLE, Readiness::WRITE_CLOSED)
    } else if one == Interest::READABLE {
        let end = if is_socket { RDHUP | HUP } else { RDHUP | HUP | ERR };
        (IN | RDHUP | HUP | ERR, end, Readiness::READABLE, Readiness::READ_CLOSED)
    } else if !kernel.has_priority() || kernel != Kernel::Apple && !bits.contains(PRI) {
        return NOTHING;
    } else if bits.contains(PRI) {
        (PRI, PollFlags::empty(), Readiness::PRIORITY, NOTHING)
    } else {
        (RDHUP | HUP | ERR, RDHUP | HUP, Readiness::READABLE, Readiness::READ_CLOSED)
    };
    if !bits.intersects(fires) {
        return NOTHING;
    }
    if !bits.intersects(end) {
        return ready;
    }
    let failed = Readiness::READABLE | Readiness::WRITABLE | Readiness::ERROR;
    ready | closed | if is_socket && bits.contains(ERR) { failed } else { NOTHING }
}

/// A registration in the model.
#[derive(Debug)]
pub(super) struct Registration {
    pub(super) object: EventObject,
    /// The interests that are reported by the bits of poll(2).
    interest: Interest,
    /// The readiness of other interests that the kernel may report, or not.
    unsure: Readiness,
    /// Edge: the interests for which there was an arrival that was not reported yet.
    due: Interest,
    /// Edge: whether a hang-up or an error is an unreported arrival.
    hang_up_is_due: bool,
    /// Edge: whether anything happened to the descriptor since the last report.
    is_touched: bool,
    /// Oneshot: whether it is armed, and not yet reported.
    is_armed: bool,
    /// The wait that reported it last.
    pub(super) reported_in: u32,
    /// With several threads: the number of reports known so far.
    reported: u64,
}

/// The bits of poll(2) for a descriptor before a wait, and after it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Polled {
    pub(super) before: PollFlags,
    pub(super) after: PollFlags,
    pub(super) is_socket: bool,
    pub(super) takes_its_time: bool,
}

impl Registration {
    /// A registration that was just added or modified, which is an arrival of all readiness. For `unsure` interests the
    /// kernel may report more than poll(2), or less.
    pub(super) fn new(object: EventObject, unsure: Interest) -> Self {
        let is_unsure = !unsure.is_empty() && object.interest().contains(unsure);
        Self {
            object,
            interest: object.interest() - unsure,
            unsure: if is_unsure { Readiness::WRITABLE | Readiness::WRITE_CLOSED } else { NOTHING },
            due: EVERYTHING,
            hang_up_is_due: true,
            is_touched: true,
            is_armed: true,
            reported_in: 0,
            reported: 0,
        }
    }

    fn is_oneshot(&self) -> bool {
        self.object.mode() == Mode::Oneshot
    }

    /// Notes that something happened to the descriptor that made `bits` new.
    pub(super) fn touch(&mut self, kernel: Kernel, bits: PollFlags) {
        self.is_touched = true;
        self.due |= kernel.ready(EVERYTHING, bits);
        self.hang_up_is_due |= bits.intersects(HUP | ERR);
    }

    /// The readiness that counts as lost if it is not reported.
    pub(super) fn lost(&self, kernel: Kernel, polled: Polled) -> Readiness {
        let must = |bits| self.must(kernel, bits, polled.is_socket);
        must(polled.before) & must(polled.after)
    }

    /// The readiness that must be reported if poll(2) says `bits`.
    fn must(&self, kernel: Kernel, bits: PollFlags, is_socket: bool) -> Readiness {
        let interest = self.interest;
        let all = kernel.readiness(interest, bits, is_socket);
        match self.object.mode() {
            Mode::Level => all,
            Mode::Oneshot if self.is_armed => all,
            Mode::Oneshot => NOTHING,
            Mode::Edge => {
                let due = kernel.ready(interest & self.due, bits);
                let hang_up =
                    kernel == Kernel::Epoll && self.hang_up_is_due && bits.intersects(HUP | ERR);
                if due.is_empty() && !hang_up {
                    return NOTHING;
                }
                match kernel {
                    Kernel::Epoll => all,
                    // Each filter for itself.
                    _ => kernel.readiness(due, bits, is_socket),
                }
            }
            mode => panic!("{mode:?} has no rules"),
        }
    }

    /// Checks that an event may be reported, and notes it. With `is_all`, there was room for more.
    pub(super) fn report(
        &mut self,
        kernel: Kernel,
        event: &Event,
        polled: Polled,
        is_all: bool,
    ) -> Result<(), String> {
        let Polled { before, after, is_socket, takes_its_time } = polled;
        let object = self.object;
        if (event.fd, event.kind, event.token) != (object.fd, object.kind, object.token) {
            return Err(format!("{event:?} was reported for {object:?}"));
        }
        let reported = event.readiness();
        let can = |bits| kernel.readiness(self.interest, bits, is_socket);
        let (can_before, can_after) = (can(before), can(after));
        if reported == NOTHING || !(can_before | can_after | self.unsure).contains(reported) {
            return Err(format!(
                "{event:?} was reported, while poll(2) says {before:?}, {after:?}"
            ));
        }
        let is_exact =
            kernel == Kernel::Epoll || is_all && !takes_its_time && object.mode() != Mode::Edge;
        if is_exact && can_before == can_after && reported - self.unsure != can_before {
            return Err(format!("{event:?} was reported, and not all of {can_before:?}"));
        }
        let must = self.lost(kernel, polled);
        if is_all && !reported.contains(must) && !takes_its_time {
            return Err(format!("{event:?} was reported, and not all of {must:?}"));
        }
        if self.is_oneshot() && !self.is_armed {
            return Err(format!("{event:?} was reported again, though it is a oneshot"));
        }
        let can_be_news =
            self.is_touched || takes_its_time || !(self.due & object.interest()).is_empty();
        if object.mode() == Mode::Edge && !can_be_news {
            return Err(format!("{event:?} was reported again, though nothing happened"));
        }
        self.is_armed = false;
        if is_all || kernel == Kernel::Epoll {
            self.forget_arrivals();
        } else {
            // The other filters may come in the next batch.
            self.due -= each(self.due)
                .filter(|one| reported.contains(kernel.readiness(*one, before, is_socket)))
                .fold(Interest::NONE, Interest::union);
        }
        Ok(())
    }

    /// Notes the number of reports so far, and returns whether it has grown.
    pub(super) fn learn(&mut self, reported: u64) -> bool {
        let is_news = reported > self.reported;
        if is_news {
            self.reported = reported;
            self.is_armed = false;
            self.forget_arrivals();
        }
        is_news
    }

    /// Notes that a wait examined it without a report.
    pub(super) fn forget_arrivals(&mut self) {
        self.due = Interest::NONE;
        self.hang_up_is_due = false;
        self.is_touched = false;
    }
}
