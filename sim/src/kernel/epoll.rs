//! The rules of epoll: what a registration reports, and which calls fail.

use std::io;

use pollio::{EventObject, Interest, Mode, Readiness};

use super::errno::errno;

/// Every readiness that there is.
pub(super) const ALL: Readiness = Readiness::READABLE
    .union(Readiness::WRITABLE)
    .union(Readiness::PRIORITY)
    .union(Readiness::READ_CLOSED)
    .union(Readiness::WRITE_CLOSED)
    .union(Readiness::ERROR);

/// Fails if `object` cannot be added, as epoll_ctl(2) does.
pub(super) fn check_add(object: EventObject, is_registered: bool) -> io::Result<()> {
    let is_shareable = matches!(object.mode(), Mode::Level | Mode::Edge)
        && !object.interest().contains(Interest::PRIORITY);
    // As `EPOLLEXCLUSIVE_OK_BITS` has it.
    if object.is_exclusive() && !is_shareable {
        return Err(errno(libc::EINVAL));
    }
    if is_registered { Err(errno(libc::EEXIST)) } else { Ok(()) }
}

/// Fails if the registration `before` cannot become `object`.
pub(super) fn check_modify(before: Option<EventObject>, object: EventObject) -> io::Result<()> {
    if object.is_exclusive() {
        return Err(errno(libc::EINVAL));
    }
    match before {
        None => Err(errno(libc::ENOENT)),
        Some(before) if before.is_exclusive() => Err(errno(libc::EINVAL)),
        Some(_) => Ok(()),
    }
}

/// The report of a registration whose descriptor is ready for `readiness`.
pub(super) fn reported_by(object: EventObject, readiness: Readiness) -> Readiness {
    let reported = reported(readiness, object.interest());
    // `EPOLLRDHUP` is none of `EPOLLEXCLUSIVE_OK_BITS`.
    if object.is_exclusive() && !reported.contains(Readiness::WRITE_CLOSED) {
        return reported - Readiness::READ_CLOSED;
    }
    reported
}

/// The report of epoll for `interest` in a descriptor that is ready for `readiness`.
fn reported(readiness: Readiness, interest: Interest) -> Readiness {
    const BOTH: Readiness = Readiness::READABLE.union(Readiness::WRITABLE);
    let mut asked = Readiness::NONE;
    let mut implied = Readiness::NONE;
    if interest.contains(Interest::READABLE) {
        asked |= Readiness::READABLE | Readiness::READ_CLOSED;
    }
    if interest.contains(Interest::WRITABLE) {
        asked |= Readiness::WRITABLE;
    }
    if interest.contains(Interest::PRIORITY) {
        asked |= Readiness::PRIORITY;
    }
    if readiness.contains(Readiness::READ_CLOSED) {
        implied |= Readiness::READABLE;
    }
    // These need no interest, and let no call block.
    if readiness.contains(Readiness::WRITE_CLOSED) {
        let hang_up = Readiness::READ_CLOSED | Readiness::WRITE_CLOSED | BOTH;
        asked |= hang_up;
        implied |= hang_up;
    }
    if readiness.contains(Readiness::ERROR) {
        asked |= Readiness::ERROR | BOTH;
        implied |= BOTH;
    }
    (readiness | implied) & asked
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_interests_asked_for_are_reported() {
        let both = Readiness::READABLE | Readiness::WRITABLE;
        assert_eq!(reported(both, Interest::READABLE), Readiness::READABLE);
        assert_eq!(reported(both, Interest::WRITABLE), Readiness::WRITABLE);
        assert_eq!(reported(both, Interest::PRIORITY), Readiness::NONE);
        assert_eq!(reported(Readiness::PRIORITY, Interest::PRIORITY), Readiness::PRIORITY);
        assert_eq!(reported(Readiness::PRIORITY, Interest::READABLE), Readiness::NONE);
        assert_eq!(reported(ALL, Interest::BOTH | Interest::PRIORITY), ALL);
    }

    #[test]
    fn hang_ups_and_errors_are_reported_as_epoll_reports_them() {
        let both = Readiness::READABLE | Readiness::WRITABLE;
        let closed = Readiness::READ_CLOSED | Readiness::WRITE_CLOSED;
        let half = Readiness::READ_CLOSED;
        assert_eq!(reported(half, Interest::READABLE), half | Readiness::READABLE);
        assert_eq!(reported(half, Interest::WRITABLE), Readiness::NONE);
        assert_eq!(reported(half, Interest::NONE), Readiness::NONE);
        assert_eq!(reported(Readiness::WRITE_CLOSED, Interest::NONE), both | closed);
        assert_eq!(reported(Readiness::ERROR, Interest::NONE), both | Readiness::ERROR);
    }
}
