//! The rules of kqueue, as the selector of `pollio` meets them: the reports of filters, and the calls that fail.
//!
//! A registration has a filter for each of its interests. Each filter is queued, cleared and reported separately.

use std::io;

use pollio::{Interest, Readiness};

use super::errno::errno;
use super::rules::{Rule, RuleSet};
use crate::kernels::Kernel;

/// The interests that have a filter: EVFILT_READ, EVFILT_WRITE and EVFILT_EXCEPT.
pub(super) const FILTERS: [Interest; 3] =
    [Interest::READABLE, Interest::WRITABLE, Interest::PRIORITY];

/// The state of a file.
#[derive(Clone, Copy)]
pub(super) struct Truth {
    /// Its readiness, as in Linux's poll(2).
    pub(super) readiness: Readiness,
    /// The program itself has ended what it sends.
    pub(super) is_write_shut: bool,
    /// It is a TCP connection of which no direction has ended, but for the program's own shutdown of reading.
    pub(super) is_established: bool,
}

impl Truth {
    pub(super) const fn of(readiness: Readiness) -> Self {
        Self { readiness, is_write_shut: false, is_established: false }
    }
}

/// The report of one interest's filter, without anything outside that interest.
pub(super) fn reported(filter: Interest, truth: Truth, rules: RuleSet) -> Readiness {
    const FAILED: Readiness =
        Readiness::READABLE.union(Readiness::WRITABLE).union(Readiness::ERROR);
    let has = |one| truth.readiness.contains(one);
    let hang_up = has(Readiness::WRITE_CLOSED);
    let read_end = has(Readiness::READ_CLOSED) || hang_up;
    let (fires, is_end, ready, closed) = if filter == Interest::READABLE {
        (has(Readiness::READABLE), read_end, Readiness::READABLE, Readiness::READ_CLOSED)
    } else if filter == Interest::WRITABLE {
        let is_end = hang_up || truth.is_write_shut;
        (has(Readiness::WRITABLE), is_end, Readiness::WRITABLE, Readiness::WRITE_CLOSED)
    } else if filter != Interest::PRIORITY || rules.has(Rule::NoPriority) {
        return Readiness::NONE;
    } else if has(Readiness::PRIORITY) {
        return Readiness::PRIORITY;
    } else if read_end && rules.has(Rule::PriorityReportsEnd) {
        (false, true, Readiness::READABLE, Readiness::READ_CLOSED)
    } else {
        return Readiness::NONE;
    };
    match (is_end, has(Readiness::ERROR)) {
        // The error is in the fflags of the end.
        (true, true) => ready | closed | FAILED,
        (true, false) => ready | closed,
        // Without an end it is left to the next call: `filt_soread`, `filt_sowrite`.
        (false, true) => ready,
        (false, false) if fires => ready,
        (false, false) => Readiness::NONE,
    }
}

/// Fails if a kqueue, such as a timer, has no filter for `interest`: `kqueue_kqfilter`.
pub(super) fn check_kqueue(interest: Interest, kernel: Kernel, rules: RuleSet) -> io::Result<()> {
    let invalid = if kernel == Kernel::DragonFly { libc::EOPNOTSUPP } else { libc::EINVAL };
    if interest.contains(Interest::WRITABLE) {
        return Err(errno(if kernel == Kernel::NetBsd { libc::EPERM } else { invalid }));
    }
    if interest.contains(Interest::PRIORITY) && !rules.has(Rule::NoPriority) {
        return Err(errno(invalid));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const BOTH: Readiness = Readiness::READABLE.union(Readiness::WRITABLE);

    fn reports(filter: Interest, kernel: Kernel, readiness: Readiness) -> Readiness {
        reported(filter, Truth::of(readiness), RuleSet::of(kernel))
    }

    #[test]
    fn a_filter_reports_its_own_direction_only() {
        let hang_up = BOTH | Readiness::READ_CLOSED | Readiness::WRITE_CLOSED;
        for kernel in Kernel::ALL.iter().filter(|kernel| **kernel != Kernel::Linux) {
            let read = |readiness| reports(Interest::READABLE, *kernel, readiness);
            let write = |readiness| reports(Interest::WRITABLE, *kernel, readiness);
            assert_eq!((read(BOTH), write(BOTH)), (Readiness::READABLE, Readiness::WRITABLE));
            assert_eq!(read(hang_up), Readiness::READABLE | Readiness::READ_CLOSED);
            assert_eq!(write(hang_up), Readiness::WRITABLE | Readiness::WRITE_CLOSED);
            let failed = BOTH | Readiness::ERROR;
            assert_eq!(read(hang_up | Readiness::ERROR), failed | Readiness::READ_CLOSED);
            // As for a datagram socket whose peer's port is unreachable.
            assert_eq!(read(Readiness::ERROR), Readiness::READABLE);
            assert_eq!(write(Readiness::ERROR), Readiness::WRITABLE);
            assert_eq!(reports(Interest::NONE, *kernel, hang_up), Readiness::NONE);
        }
    }

    #[test]
    fn priority_is_out_of_band_data_where_there_is_a_filter_and_the_end_on_apple() {
        let end = Readiness::READABLE | Readiness::READ_CLOSED;
        for (kernel, of_data, of_end) in [
            (Kernel::Apple, Readiness::PRIORITY, end),
            (Kernel::FreeBsd, Readiness::NONE, Readiness::NONE),
            (Kernel::NetBsd, Readiness::NONE, Readiness::NONE),
            (Kernel::OpenBsd, Readiness::PRIORITY, Readiness::NONE),
            (Kernel::DragonFly, Readiness::PRIORITY, Readiness::NONE),
        ] {
            assert_eq!(reports(Interest::PRIORITY, kernel, Readiness::PRIORITY), of_data);
            assert_eq!(reports(Interest::PRIORITY, kernel, end), of_end);
            assert_eq!(reports(Interest::PRIORITY, kernel, Readiness::ERROR), Readiness::NONE);
        }
    }
}
