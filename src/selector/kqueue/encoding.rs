//! How a registration is written into a kevent, and an event is read from one: no call, no state.

use std::os::fd::RawFd;

use super::numbers::GENERATION_BITS;
use crate::sys::kevent::{self, Filter, Flags, Kevent};
use crate::{Event, EventKind, EventObject, Interest, Mode, Readiness};

/// Each interest that has a filter.
pub(super) const ALL: Interest = Interest::BOTH.union(Interest::PRIORITY);

/// A change to the knote of `fd` and `filter`, which comes back with a receipt.
#[expect(clippy::cast_sign_loss, reason = "a negative descriptor is EBADF to the kernel")]
pub(super) fn kevent_for(fd: RawFd, filter: Filter, flags: Flags) -> Kevent {
    let change = Kevent::new(fd as usize, filter, flags | kevent::EV_RECEIPT);
    if Some(filter) == kevent::EVFILT_EXCEPT {
        // macOS fires this filter for ordinary data too, once there is this much or the buffer is full: see
        // `is_false_alarm`.
        change.with_fflags(kevent::NOTE_OOB | kevent::NOTE_LOWAT).with_data(i64::MAX)
    } else {
        change
    }
}

/// The error of a receipt: 0 for success.
pub(super) fn errno(receipt: &Kevent) -> i32 {
    i32::try_from(receipt.data()).unwrap_or(libc::EINVAL)
}

/// The filters that report `interest`. FreeBSD and NetBSD have none for out-of-band data.
pub(super) fn filters(interest: Interest) -> impl Iterator<Item = Filter> {
    let asked = move |one| interest.contains(one);
    [
        Some(kevent::EVFILT_READ).filter(|_| asked(Interest::READABLE)),
        Some(kevent::EVFILT_WRITE).filter(|_| asked(Interest::WRITABLE)),
        kevent::EVFILT_EXCEPT.filter(|_| asked(Interest::PRIORITY)),
    ]
    .into_iter()
    .flatten()
}

pub(super) fn has_several_filters(interest: Interest) -> bool {
    interest_bits(interest).count_ones() > 1
}

/// The interest that `filter` reports.
fn filter_interest(filter: Filter) -> Interest {
    match filter {
        kevent::EVFILT_READ => Interest::READABLE,
        kevent::EVFILT_WRITE => Interest::WRITABLE,
        _ => Interest::PRIORITY,
    }
}

pub(super) fn mode_flags(mode: Mode, filter: Filter) -> Flags {
    match mode {
        Mode::Edge => kevent::EV_CLEAR,
        // EV_DISPATCH would disable this filter at a false alarm, and nothing would enable it again. The claim keeps
        // it to one event.
        Mode::Oneshot if Some(filter) == kevent::EVFILT_EXCEPT => kevent::EV_CLEAR,
        // EV_ONESHOT would delete the knote. EV_CLEAR would change nothing, since `modify` makes a
        // new knote, but on NetBSD that EV_DISPATCH is ignored.
        Mode::Oneshot => kevent::EV_DISPATCH,
        // Level. Not by name: in the tests that include this file, `Mode` is non-exhaustive.
        _ => 0,
    }
}

// The descriptor is in `ident`, so all bits of `udata` are free for what a wait needs.
const SERVER: u64 = 1 << 32;
const INTEREST_SHIFT: u32 = 33;
const GENERATION_SHIFT: u32 = 36;
const _: () = assert!(GENERATION_SHIFT + GENERATION_BITS <= u64::BITS);

/// The user data of a knote: its part of the registration.
pub(super) fn udata(object: EventObject, generation: u32) -> u64 {
    let kind = match object.kind {
        EventKind::Server => SERVER,
        EventKind::Client => 0,
    };
    u64::from(generation) << GENERATION_SHIFT
        | u64::from(interest_bits(object.interest())) << INTEREST_SHIFT
        | kind
        | u64::from(object.token)
}

/// An interest as a number of three bits.
fn interest_bits(interest: Interest) -> u32 {
    let bit = |one, place| u32::from(interest.contains(one)) << place;
    bit(Interest::READABLE, 0) | bit(Interest::WRITABLE, 1) | bit(Interest::PRIORITY, 2)
}

/// The interest of a oneshot as such a number; 0 for other modes, and without an interest.
pub(super) fn oneshot_bits(object: EventObject) -> u32 {
    if object.mode() == Mode::Oneshot { interest_bits(object.interest()) } else { 0 }
}

/// The interest of a knote's registration.
pub(super) fn registered_interest(udata: u64) -> Interest {
    let if_set = |one, place| {
        if udata >> (INTEREST_SHIFT + place) & 1 == 0 { Interest::NONE } else { one }
    };
    if_set(Interest::READABLE, 0) | if_set(Interest::WRITABLE, 1) | if_set(Interest::PRIORITY, 2)
}

pub(super) fn generation_from(udata: u64) -> u32 {
    (udata >> GENERATION_SHIFT) as u32
}

/// Whether a filter fired without anything to report.
pub(super) fn is_false_alarm(kevent: &Kevent) -> bool {
    let interest = filter_interest(kevent.filter());
    // NetBSD before 10 reports a knote that is added disabled, if another thread waits.
    !registered_interest(kevent.udata()).contains(interest)
        // macOS fires this filter without out-of-band data on a full buffer, whatever its mark is.
        || interest == Interest::PRIORITY
            && kevent.fflags() & kevent::NOTE_OOB == 0
            && kevent.flags() & (kevent::EV_EOF | kevent::EV_ERROR) == 0
}

/// The event of one filter.
#[expect(clippy::cast_possible_truncation, reason = "the token is the low half of the user data")]
pub(super) fn event_from(kevent: &Kevent) -> Event {
    let fd = RawFd::try_from(kevent.ident()).unwrap_or(-1);
    let udata = kevent.udata();
    let kind = if udata & SERVER == 0 { EventKind::Client } else { EventKind::Server };
    Event::new(fd, kind, udata as u32, readiness(kevent))
}

/// The readiness that a filter and its flags stand for. After an error no call blocks, hence both directions.
fn readiness(kevent: &Kevent) -> Readiness {
    const FAILED: Readiness =
        Readiness::READABLE.union(Readiness::WRITABLE).union(Readiness::ERROR);
    if kevent.flags() & kevent::EV_ERROR != 0 {
        return FAILED;
    }
    let (ready, closed) = match kevent.filter() {
        kevent::EVFILT_WRITE => (Readiness::WRITABLE, Readiness::WRITE_CLOSED),
        kevent::EVFILT_READ => (Readiness::READABLE, Readiness::READ_CLOSED),
        // The filter for out-of-band data, which on macOS reports the end as EVFILT_READ does.
        _ if kevent.fflags() == kevent::NOTE_OOB => (Readiness::PRIORITY, Readiness::READ_CLOSED),
        _ => (Readiness::READABLE, Readiness::READ_CLOSED),
    };
    if kevent.flags() & kevent::EV_EOF == 0 {
        return ready;
    }
    match kevent.fflags() {
        0 | kevent::NOTE_OOB => ready | closed,
        // The socket's error, which the next call returns.
        _errno => ready | closed | FAILED,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn decoded(filter: Filter, flags: Flags, fflags: u32) -> Readiness {
        readiness(&Kevent::new(0, filter, flags).with_fflags(fflags))
    }

    #[test]
    fn udata_brings_back_what_was_asked() {
        for token in [0, 1, u32::MAX] {
            for object in [EventObject::server(3), EventObject::client(3)] {
                let udata = udata(object.with_token(token), u32::MAX >> 5);
                let kevent = Kevent::new(3, kevent::EVFILT_READ, 0).with_udata(udata);
                let event = event_from(&kevent);
                assert_eq!((event.fd, event.kind, event.token), (3, object.kind, token));
            }
        }
    }

    #[test]
    fn udata_carries_interest_and_generation() {
        let object = EventObject::server(3).with_token(u32::MAX);
        let last = (1 << GENERATION_BITS) - 1;
        let (read, write, priority) = (Interest::READABLE, Interest::WRITABLE, Interest::PRIORITY);
        for interest in [Interest::NONE, read, write, priority, read | priority, ALL] {
            for generation in [0, 1, last] {
                let udata = udata(object.with_interest(interest), generation);
                assert_eq!(registered_interest(udata), interest);
                assert_eq!(generation_from(udata), generation);
            }
        }
    }

    #[test]
    fn a_filter_that_reports_nothing_of_its_registration_is_a_false_alarm() {
        let fired = |filter, flags, fflags, interest| {
            let object = EventObject::client(3).with_interest(interest);
            let kevent = Kevent::new(3, filter, flags).with_fflags(fflags);
            is_false_alarm(&kevent.with_udata(udata(object, 0)))
        };
        let (read, write) = (kevent::EVFILT_READ, kevent::EVFILT_WRITE);
        let both = Interest::READABLE | Interest::WRITABLE;
        assert!(!fired(read, 0, 0, Interest::READABLE) && !fired(write, 0, 0, both));
        assert!(fired(read, 0, 0, Interest::NONE) && fired(read, 0, 0, Interest::WRITABLE));
        let Some(except) = kevent::EVFILT_EXCEPT else { return };
        let (eof, oob) = (kevent::EV_EOF, kevent::NOTE_OOB);
        assert!(fired(except, 0, 0, Interest::PRIORITY));
        assert!(!fired(except, 0, oob, Interest::PRIORITY));
        assert!(!fired(except, eof, 0, Interest::PRIORITY));
    }

    #[test]
    fn every_interest_has_the_filter_that_reports_it() {
        for interest in [Interest::READABLE, Interest::WRITABLE, Interest::PRIORITY] {
            for filter in filters(interest) {
                assert_eq!(filter_interest(filter), interest);
            }
        }
        assert_eq!(filters(Interest::NONE).count(), 0);
    }

    #[test]
    fn the_end_of_a_direction_is_reported_with_its_filter() {
        let (read, write) = (kevent::EVFILT_READ, kevent::EVFILT_WRITE);
        let eof = kevent::EV_EOF;
        assert_eq!(decoded(read, 0, 0), Readiness::READABLE);
        assert_eq!(decoded(write, 0, 0), Readiness::WRITABLE);
        assert_eq!(decoded(read, eof, 0), Readiness::READABLE | Readiness::READ_CLOSED);
        assert_eq!(decoded(write, eof, 0), Readiness::WRITABLE | Readiness::WRITE_CLOSED);
    }

    #[test]
    fn an_error_is_readable_and_writable() {
        let failed = Readiness::READABLE | Readiness::WRITABLE | Readiness::ERROR;
        let errno = libc::ECONNRESET.unsigned_abs();
        let (read, write) = (kevent::EVFILT_READ, kevent::EVFILT_WRITE);
        assert_eq!(decoded(read, kevent::EV_EOF, errno), failed | Readiness::READ_CLOSED);
        assert_eq!(decoded(write, kevent::EV_EOF, errno), failed | Readiness::WRITE_CLOSED);
        assert_eq!(decoded(read, kevent::EV_ERROR, 0), failed);
    }
}
