//! The model, tested by the manual pages of kqueue(2), sentence by sentence.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};

use signal_hook::consts::SIGUSR1;
use socket2::{Domain, SockRef, Socket, Type};

use super::filter::eventfd;
use super::*;
use crate::conformance::waiting::signal;
use crate::support::descriptors::{drain, fill, open, pair, pipe, tcp_pair};
use crate::support::subprocess::{Closing, in_subprocess};

const MS: Duration = Duration::from_millis(1);

/// Longer than anything here takes.
const LONG: Duration = Duration::from_secs(20);

/// A kqueue; no process is spawned while it lives.
pub(super) struct Kq(OwnedFd, Closing);

impl Kq {
    fn new() -> Self {
        Self(kqueue().unwrap(), Closing::new())
    }

    pub(super) fn on(kernel: Kernel) -> Self {
        on(kernel, Self::new)
    }

    pub(super) fn fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }

    pub(super) fn owned(&self) -> &OwnedFd {
        &self.0
    }

    #[track_caller]
    pub(super) fn change(&self, change: Kevent) {
        assert_eq!(self.try_change(change), Ok(()));
    }

    pub(super) fn try_change(&self, change: Kevent) -> Result<(), Errno> {
        let done = kevent(self.0.as_fd(), &[change], &mut [], None);
        done.map(|count| assert_eq!(count, 0)).map_err(|error| errno(&error))
    }

    /// Up to `room` events that are pending now, or come soon.
    #[track_caller]
    pub(super) fn events_up_to(&self, room: usize, timeout: Duration) -> Vec<Kevent> {
        let mut events = vec![Kevent::NONE; room];
        let count = loop {
            match kevent(self.0.as_fd(), &[], &mut events, Some(timeout)) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                count => break count.unwrap(),
            }
        };
        events.truncate(count);
        events
    }

    /// The pending events: ident and filter.
    #[track_caller]
    pub(super) fn pending(&self) -> Vec<(usize, Filter)> {
        let events = self.events_up_to(8, Duration::ZERO);
        events.iter().map(|event| (event.ident(), event.filter())).collect()
    }

    #[track_caller]
    pub(super) fn one(&self) -> Kevent {
        match self.events_up_to(8, LONG)[..] {
            [event] => event,
            ref events => panic!("expected one event, not {events:?}"),
        }
    }

    #[track_caller]
    fn expect_none(&self) {
        assert_eq!(self.pending(), []);
        assert!(!self.is_readable());
    }

    pub(super) fn is_readable(&self) -> bool {
        let mut watched = [PollFd::new(self.0.as_fd(), PollFlags::POLLIN)];
        ppoll(&mut watched, Some(Duration::ZERO.into()), None).unwrap() == 1
    }
}

pub(super) fn errno(error: &io::Error) -> Errno {
    Errno::from_raw(error.raw_os_error().unwrap())
}

pub(super) fn ident(of: &impl AsRawFd) -> usize {
    of.as_raw_fd().try_into().unwrap()
}

pub(super) fn read(of: &impl AsRawFd, flags: Flags) -> Kevent {
    Kevent::new(ident(of), EVFILT_READ, flags)
}

pub(super) fn write(of: &impl AsRawFd, flags: Flags) -> Kevent {
    Kevent::new(ident(of), EVFILT_WRITE, flags)
}

pub(super) fn user(flags: Flags, fflags: u32) -> Kevent {
    Kevent::new(1, EVFILT_USER, flags).with_fflags(fflags)
}

/// A kqueue, and a pair whose near end is ready to be read.
fn ready() -> (Kq, impl AsRawFd + Read, impl Write) {
    ready_on(Kernel::FreeBsd)
}

pub(super) fn ready_on(kernel: Kernel) -> (Kq, impl AsRawFd + Read, impl Write) {
    let (near, mut far) = pair();
    far.write_all(b"x").unwrap();
    (Kq::on(kernel), near, far)
}

// How a kevent is registered.

#[test]
fn there_is_one_kevent_for_an_ident_and_a_filter() {
    let (kq, near, _far) = ready();
    for _ in 0..3 {
        kq.change(read(&near, EV_ADD));
        kq.change(write(&near, EV_ADD));
    }
    assert_eq!(kq.pending(), [(ident(&near), EVFILT_READ), (ident(&near), EVFILT_WRITE)]);
    kq.change(read(&near, EV_DELETE));
    assert_eq!(kq.pending(), [(ident(&near), EVFILT_WRITE)]);
}

#[test]
fn the_filter_is_run_when_a_kevent_is_registered() {
    for flags in [0, EV_CLEAR, EV_ONESHOT, EV_DISPATCH] {
        let (kq, near, _far) = ready();
        kq.change(read(&near, EV_ADD | flags));
        assert!(kq.is_readable());
        assert_eq!(kq.one().ident(), ident(&near));
    }
}

#[test]
fn the_filter_is_run_when_a_kevent_is_retrieved() {
    for flags in [0, EV_CLEAR, EV_DISPATCH] {
        let (kq, mut near, _far) = ready();
        kq.change(read(&near, EV_ADD | flags));
        drain(&mut near);
        kq.expect_none();
    }
}

#[test]
fn events_are_aggregated_into_one_kevent() {
    let (kq, near, mut far) = ready();
    kq.change(read(&near, EV_ADD | EV_CLEAR));
    far.write_all(b"more").unwrap();
    far.write_all(b"still more").unwrap();
    kq.one();
    kq.expect_none();
}

#[test]
fn udata_and_flags_come_back() {
    let (kq, near, _far) = ready();
    kq.change(read(&near, EV_ADD | EV_CLEAR).with_udata(u64::MAX));
    let event = kq.one();
    assert_eq!(event.udata(), u64::MAX);
    assert_eq!(event.flags() & (EV_CLEAR | EV_ERROR | EV_EOF), EV_CLEAR);
    assert!(event.data() > 0 && event.fflags() == 0);
}

#[test]
fn adding_again_replaces_udata() {
    let (kq, near, _far) = ready();
    kq.change(read(&near, EV_ADD).with_udata(1));
    kq.change(read(&near, EV_ADD).with_udata(2));
    assert_eq!(kq.one().udata(), 2);
}

#[test]
fn adding_again_reports_readiness_again() {
    let (kq, near, _far) = ready();
    for _ in 0..3 {
        kq.change(read(&near, EV_ADD | EV_CLEAR));
        kq.one();
        kq.expect_none();
    }
}

#[test]
fn adding_again_leaves_the_other_flags_as_they_were() {
    let (kq, near, _far) = ready();
    kq.change(read(&near, EV_ADD));
    kq.change(read(&near, EV_ADD | EV_CLEAR));
    kq.one();
    kq.one();

    let (kq, near, _far) = ready();
    kq.change(read(&near, EV_ADD | EV_DISPATCH));
    kq.change(read(&near, EV_ADD));
    kq.one();
    kq.expect_none();
}

#[test]
fn adding_again_enables_no_more_than_it_says() {
    let (kq, near, _far) = ready();
    kq.change(read(&near, EV_ADD | EV_DISABLE));
    kq.change(read(&near, EV_ADD));
    kq.expect_none();
    kq.change(read(&near, EV_ADD | EV_ENABLE));
    kq.one();
}

#[test]
fn disable_keeps_kevent_from_returning_the_event() {
    for flags in [0, EV_CLEAR, EV_ONESHOT, EV_DISPATCH] {
        let (kq, near, mut far) = ready();
        kq.change(read(&near, EV_ADD | EV_DISABLE | flags));
        kq.expect_none();
        kq.change(read(&near, EV_ENABLE));
        kq.change(read(&near, EV_DISABLE));
        far.write_all(b"more").unwrap();
        kq.expect_none();
        kq.change(read(&near, EV_ENABLE));
        kq.one();
    }
}

#[test]
fn a_disabled_kevent_is_silent_about_the_end() {
    let (near, far) = pair();
    let kq = Kq::new();
    kq.change(read(&near, EV_ADD | EV_DISABLE));
    kq.change(write(&near, EV_ADD | EV_DISPATCH));
    kq.one();
    drop(far);
    kq.expect_none();
}

#[test]
fn dispatch_disables_after_delivery() {
    for flags in [EV_DISPATCH, EV_DISPATCH | EV_CLEAR] {
        let (kq, near, mut far) = ready();
        kq.change(read(&near, EV_ADD | flags));
        for _ in 0..3 {
            kq.one();
            far.write_all(b"more").unwrap();
            kq.expect_none();
            kq.change(read(&near, EV_ENABLE));
        }
    }
}

#[test]
fn delete_removes_the_event() {
    for flags in [0, EV_CLEAR, EV_DISABLE] {
        let (kq, near, mut far) = ready();
        kq.change(read(&near, EV_ADD | flags));
        kq.change(read(&near, EV_DELETE));
        far.write_all(b"more").unwrap();
        kq.expect_none();
        assert_eq!(kq.try_change(read(&near, EV_DELETE)), Err(Errno::ENOENT));
    }
}

#[test]
fn oneshot_is_deleted_after_it_was_retrieved() {
    let (kq, near, mut far) = ready();
    kq.change(read(&near, EV_ADD | EV_ONESHOT));
    kq.one();
    far.write_all(b"more").unwrap();
    kq.expect_none();
    assert_eq!(kq.try_change(read(&near, EV_ENABLE)), Err(Errno::ENOENT));
}

#[test]
fn clear_resets_the_state_after_it_was_retrieved() {
    let (kq, near, mut far) = ready();
    kq.change(read(&near, EV_ADD | EV_CLEAR));
    kq.change(write(&near, EV_ADD | EV_CLEAR));
    assert_eq!(kq.pending().len(), 2);
    for _ in 0..3 {
        kq.expect_none();
        far.write_all(b"more").unwrap();
        assert_eq!(kq.one().filter(), EVFILT_READ);
    }
}

#[test]
fn without_clear_the_event_is_returned_until_its_condition_is_gone() {
    let (kq, mut near, _far) = ready();
    kq.change(read(&near, EV_ADD));
    for _ in 0..3 {
        kq.one();
    }
    drain(&mut near);
    kq.expect_none();
}

// Refused changes.

#[test]
fn a_kevent_that_was_not_added_is_not_found() {
    let (kq, near, _far) = ready();
    for flags in [0, EV_DELETE, EV_ENABLE, EV_DISABLE] {
        assert_eq!(kq.try_change(read(&near, flags)), Err(Errno::ENOENT));
        assert_eq!(kq.try_change(user(flags, 0)), Err(Errno::ENOENT));
    }
}

#[test]
fn a_descriptor_that_is_not_open_is_bad() {
    let kq = Kq::new();
    for ident in [usize::MAX, 1 << 31, 1 << 30] {
        for flags in [EV_ADD, EV_DELETE, EV_ENABLE, EV_DISABLE] {
            let change = Kevent::new(ident, EVFILT_WRITE, flags);
            assert_eq!(kq.try_change(change), Err(Errno::EBADF));
        }
    }
}

#[test]
fn a_filter_that_is_none_is_invalid() {
    let (kq, near, _far) = ready();
    for filter in [1, -100, Filter::MIN] {
        let change = Kevent::new(ident(&near), filter, EV_ADD);
        assert_eq!(kq.try_change(change), Err(Errno::EINVAL));
    }
}

#[test]
fn enable_and_disable_together_are_invalid() {
    let (kq, near, _far) = ready();
    let change = read(&near, EV_ADD | EV_ENABLE | EV_DISABLE);
    assert_eq!(kq.try_change(change), Err(Errno::EINVAL));
}

#[test]
fn a_descriptor_that_is_no_kqueue_is_bad() {
    let (near, _far) = pair();
    let error = kevent(near.as_fd(), &[], &mut [], None).unwrap_err();
    assert_eq!(errno(&error), Errno::EBADF);
}

#[test]
fn an_error_is_placed_in_the_eventlist_where_there_is_room() {
    let (kq, near, _far) = ready();
    let changes = [
        read(&near, EV_DELETE).with_udata(7),
        write(&near, EV_ADD),
        read(&near, EV_ENABLE),
        read(&near, EV_ADD),
    ];
    let mut events = [Kevent::NONE; 2];
    assert_eq!(kevent(kq.0.as_fd(), &changes, &mut events, None).unwrap(), 2);
    for event in events {
        assert_eq!((event.ident(), event.filter()), (ident(&near), EVFILT_READ));
        assert!(event.flags() & EV_ERROR != 0);
        assert_eq!(event.data(), Errno::ENOENT as i64);
    }
    assert_eq!((events[0].udata(), events[1].udata()), (7, 0));
    assert_eq!(kq.pending().len(), 2);
}

#[test]
fn an_error_without_room_ends_the_call() {
    let (kq, near, _far) = ready();
    let changes = [write(&near, EV_ADD), read(&near, EV_DELETE), read(&near, EV_ADD)];
    let error = kevent(kq.0.as_fd(), &changes, &mut [], None).unwrap_err();
    assert_eq!(errno(&error), Errno::ENOENT);
    assert_eq!(kq.pending(), [(ident(&near), EVFILT_WRITE)]);
}

#[test]
fn receipt_forces_an_error_of_zero_to_be_returned_and_drains_nothing() {
    let (kq, near, _far) = ready();
    let changes =
        [EV_ADD, EV_DISABLE, EV_DELETE, EV_DELETE].map(|flags| read(&near, flags | EV_RECEIPT));
    kq.change(write(&near, EV_ADD));
    let mut events = [Kevent::NONE; 8];
    assert_eq!(kevent(kq.0.as_fd(), &changes, &mut events, None).unwrap(), 4);
    let data = events.map(|event| event.data());
    assert_eq!(data, [0, 0, 0, Errno::ENOENT as i64, 0, 0, 0, 0]);
    assert!(events[..4].iter().all(|event| event.flags() & EV_ERROR != 0));
    assert_eq!(kq.pending(), [(ident(&near), EVFILT_WRITE)]);
}

#[test]
fn a_receipt_without_room_ends_the_changes() {
    let (kq, near, _far) = ready();
    let changes = [read(&near, EV_ADD | EV_RECEIPT), write(&near, EV_ADD)];
    assert_eq!(kevent(kq.0.as_fd(), &changes, &mut [], None).unwrap(), 0);
    assert_eq!(kq.pending(), [(ident(&near), EVFILT_READ)]);
}

// When the call returns.

#[test]
fn all_changes_are_applied_before_events_are_read() {
    let (kq, near, _far) = ready();
    let mut events = [Kevent::NONE; 2];
    let changes = [read(&near, EV_ADD), write(&near, EV_ADD), read(&near, EV_DISABLE)];
    assert_eq!(kevent(kq.0.as_fd(), &changes, &mut events, None).unwrap(), 1);
    assert_eq!(events[0].filter(), EVFILT_WRITE);
}

#[test]
fn without_room_it_returns_at_once() {
    let (kq, near, _far) = ready();
    kq.change(read(&near, EV_ADD));
    assert_eq!(kevent(kq.0.as_fd(), &[], &mut [], None).unwrap(), 0);
}

#[test]
fn when_the_time_limit_expires_it_returns_zero() {
    let kq = Kq::new();
    for nanoseconds in [0, 1, 999_999, 1_000_001, 20_000_000] {
        let (start, timeout) = (Instant::now(), Duration::from_nanos(nanoseconds));
        assert!(kq.events_up_to(1, timeout).is_empty());
        assert!(start.elapsed() >= timeout && start.elapsed() < LONG);
    }
}

#[test]
fn a_null_timeout_waits_for_another_thread() {
    let (near, mut far) = pair();
    let kq = Kq::new();
    thread::scope(|scope| {
        let waiting = scope.spawn(|| {
            let mut events = [Kevent::NONE; 2];
            let count = kevent(kq.0.as_fd(), &[], &mut events, None).unwrap();
            (count, events[0].ident())
        });
        thread::sleep(20 * MS);
        kq.change(read(&near, EV_ADD));
        thread::sleep(20 * MS);
        far.write_all(b"x").unwrap();
        assert_eq!(waiting.join().unwrap(), (1, ident(&near)));
    });
}

#[test]
fn a_signal_is_an_interruption_with_all_changes_applied() {
    in_subprocess!(|| {
        let caught = Arc::new(AtomicBool::new(false));
        signal_hook::flag::register(SIGUSR1, Arc::clone(&caught)).unwrap();
        let (near, mut far) = pair();
        let kq = Kq::new();
        let changes = [read(&near, EV_ADD)];
        let waiting = thread::spawn(move || {
            let interrupted = kevent(kq.0.as_fd(), &changes, &mut [Kevent::NONE], None);
            (kq, interrupted)
        });
        thread::sleep(50 * MS);
        signal(&waiting);
        let (kq, interrupted) = waiting.join().unwrap();
        assert_eq!(errno(&interrupted.unwrap_err()), Errno::EINTR);
        assert!(caught.load(Ordering::Relaxed));
        far.write_all(b"x").unwrap();
        assert_eq!(kq.one().ident(), ident(&near));
    },);
}

#[test]
fn a_small_eventlist_starves_nobody() {
    let pairs: Vec<_> = (0..10).map(|_| pair()).collect();
    let kq = Kq::new();
    for (near, far) in &pairs {
        (&*far).write_all(b"x").unwrap();
        kq.change(read(near, EV_ADD));
        kq.change(write(near, EV_ADD));
    }
    for room in 1..4 {
        let mut reported = std::collections::BTreeSet::new();
        for _ in 0..200 {
            let events = kq.events_up_to(room, LONG);
            reported.extend(events.iter().map(|event| (event.ident(), event.filter())));
        }
        assert_eq!(reported.len(), 20, "with room for {room}");
    }
}

#[test]
fn the_two_filters_of_a_descriptor_are_not_adjacent() {
    let pairs = [pair(), pair()];
    let kq = Kq::new();
    for (near, far) in &pairs {
        (&*far).write_all(b"x").unwrap();
        kq.change(write(near, EV_ADD));
        kq.change(read(near, EV_ADD));
    }
    let filters = kq.pending().into_iter().map(|(_, filter)| filter);
    assert!(filters.eq([EVFILT_READ, EVFILT_READ, EVFILT_WRITE, EVFILT_WRITE]));
}

// Closes.

#[test]
fn a_close_removes_the_events_of_the_descriptor_though_a_duplicate_lives() {
    for flags in [0, EV_CLEAR, EV_DISABLE] {
        let (near, mut far) = pair();
        let (kq, number) = (Kq::new(), ident(&near));
        let duplicate = near.try_clone().unwrap();
        kq.change(read(&near, EV_ADD | flags));
        drop(near);
        far.write_all(b"x").unwrap();
        assert_eq!(kq.pending(), []);
        kq.expect_none();
        // Other tests may have the number by now, with another file.
        let closed = kq.try_change(Kevent::new(number, EVFILT_READ, EV_DELETE));
        assert!(matches!(closed, Err(Errno::EBADF | Errno::ENOENT)));
        kq.change(read(&duplicate, EV_ADD));
        assert_eq!(kq.one().ident(), ident(&duplicate));
    }
}

#[test]
fn events_that_a_close_removed_take_no_room() {
    for room in 1..=3 {
        let (kq, open, closed) = (Kq::new(), [pair(), pair()], pair());
        let _duplicate = closed.0.try_clone().unwrap();
        kq.change(write(&closed.0, EV_ADD));
        for (near, _) in &open {
            kq.change(write(near, EV_ADD));
        }
        drop(closed.0);
        assert_eq!(kq.events_up_to(room, Duration::ZERO).len(), room.min(open.len()));
    }
}

/// All eventfds have one inode, so the second is like the first.
#[test]
fn a_change_of_a_closed_descriptor_finds_out_that_its_events_are_gone() {
    in_subprocess!(|| {
        let (kq, first) = (Kq::new(), eventfd(true).unwrap());
        let delete = read(&first, EV_DELETE);
        kq.change(read(&first, EV_ADD));
        drop(first);
        assert_eq!(kq.try_change(delete), Err(Errno::EBADF));
        let second = eventfd(true).unwrap();
        assert_eq!(ident(&second), delete.ident());
        assert_eq!(kq.try_change(delete), Err(Errno::ENOENT));
        kq.expect_none();
    },);
}

#[test]
fn closing_a_kqueue_frees_its_knotes() {
    in_subprocess!(|| {
        let before = open();
        let (kq, near, far) = ready();
        kq.change(read(&near, EV_ADD));
        drop((kq, near, far));
        assert_eq!(open(), before, "a kqueue of readers is a single descriptor");

        let (kq, near, far) = ready();
        for change in [write(&near, EV_ADD), user(EV_ADD, 0)] {
            kq.change(change);
        }
        drop((kq, near, far));
        drop(Kq::new());
        assert_eq!(open(), before);
    });
}

// Descriptors.

#[test]
fn a_kqueue_in_a_kqueue_is_readable_while_events_are_pending() {
    let (outer, inner) = (Kq::new(), Kq::new());
    let (near, mut far) = pair();
    outer.change(read(&inner.0, EV_ADD));
    inner.change(read(&near, EV_ADD));
    outer.expect_none();
    far.write_all(b"x").unwrap();
    assert_eq!(outer.one().ident(), ident(&inner.0));
    inner.change(read(&near, EV_DISABLE));
    outer.expect_none();
    inner.change(write(&near, EV_ADD | EV_DISPATCH));
    assert_eq!(outer.one().ident(), ident(&inner.0));
    inner.one();
    outer.expect_none();
}

#[test]
fn a_kqueue_can_be_read_and_no_more() {
    let (outer, inner) = (Kq::new(), Kq::new());
    assert_eq!(outer.try_change(write(&inner.0, EV_ADD)), Err(Errno::EINVAL));
    assert_eq!(outer.try_change(read(&outer.0, EV_ADD)), Err(Errno::EINVAL));
}

#[test]
fn a_listening_socket_returns_when_a_connection_is_pending() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let kq = Kq::new();
    kq.change(read(&listener, EV_ADD));
    kq.expect_none();
    let _client = std::net::TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    assert_eq!(kq.one().flags() & EV_EOF, 0);
}

#[test]
fn eof_is_set_when_the_read_direction_has_shut_down() {
    let (mut near, far) = tcp_pair();
    let kq = Kq::new();
    (&far).write_all(b"last words").unwrap();
    far.shutdown(Shutdown::Write).unwrap();
    near.set_nonblocking(false).unwrap();
    near.read_exact(&mut [0; 4]).unwrap();
    kq.change(read(&near, EV_ADD));
    kq.change(write(&near, EV_ADD));
    let mut events = kq.events_up_to(2, LONG);
    while events[0].flags() & EV_EOF == 0 {
        events = kq.events_up_to(2, LONG);
    }
    assert_eq!((events[0].filter(), events[0].fflags()), (EVFILT_READ, 0));
    assert_eq!((events[1].filter(), events[1].flags() & EV_EOF), (EVFILT_WRITE, 0));
}

#[test]
fn eof_is_set_on_both_filters_when_the_peer_is_gone() {
    let (kq, near, far) = ready();
    drop(far);
    for change in [read(&near, EV_ADD), write(&near, EV_ADD)] {
        kq.change(change);
    }
    let events = kq.events_up_to(2, LONG);
    assert!(events.iter().all(|event| event.flags() & EV_EOF != 0 && event.fflags() == 0));
    assert_eq!(events.len(), 2);
}

#[test]
fn eof_returns_the_error_of_a_socket_in_fflags_and_leaves_it_there() {
    let (mut near, far) = tcp_pair();
    let kq = Kq::new();
    kq.change(read(&near, EV_ADD));
    SockRef::from(&far).set_linger(Some(Duration::ZERO)).unwrap();
    drop(far);
    let event = kq.one();
    assert!(event.flags() & EV_EOF != 0 && event.fflags() != 0);
    let error = near.read(&mut [0]).unwrap_err();
    assert_eq!(errno(&error), Errno::ECONNRESET);
    assert!(kq.one().fflags() == 0);
}

#[test]
fn a_refused_connection_is_an_eof_with_an_error() {
    let nobody = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let client = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    client.set_nonblocking(true).unwrap();
    client.connect(&nobody.into()).unwrap_err();
    let kq = Kq::new();
    kq.change(write(&client, EV_ADD));
    let event = kq.one();
    assert!(event.flags() & EV_EOF != 0 && event.fflags() != 0);
}

#[test]
fn eof_is_set_when_the_last_writer_disconnects() {
    let (reader, mut writer) = pipe();
    let kq = Kq::new();
    kq.change(read(&reader, EV_ADD));
    kq.expect_none();
    writer.write_all(b"x").unwrap();
    assert_eq!(kq.one().flags() & EV_EOF, 0);
    drop(writer);
    assert!(kq.one().flags() & EV_EOF != 0);
}

#[test]
fn eof_is_set_when_the_reader_disconnects() {
    let (reader, writer) = pipe();
    let kq = Kq::new();
    fill(&writer);
    kq.change(write(&writer, EV_ADD));
    kq.expect_none();
    drop(reader);
    let event = kq.one();
    assert!(event.flags() & EV_EOF != 0 && event.fflags() == 0);
}

/// The manual page of macOS does not mention the data, its kernel reports it.
#[test]
fn except_returns_out_of_band_data_and_on_macos_any_data() {
    let out_of_band = |near: &_, fflags| {
        Kevent::new(ident(near), EVFILT_EXCEPT.unwrap(), EV_ADD | EV_CLEAR).with_fflags(fflags)
    };
    for (fflags, any) in [(NOTE_OOB, true), (NOTE_OOB | NOTE_LOWAT, false)] {
        let (near, far) = tcp_pair();
        let kq = Kq::on(Kernel::Apple);
        kq.change(out_of_band(&near, fflags).with_data(i64::MAX));
        kq.expect_none();
        (&far).write_all(b"in band").unwrap();
        if any {
            assert_eq!(kq.one().fflags(), 0);
        } else {
            assert!(kq.events_up_to(1, 20 * MS).is_empty());
        }
        SockRef::from(&far).send_out_of_band(b"!").unwrap();
        while kq.one().fflags() & NOTE_OOB == 0 {}
    }
}

// Filters without a descriptor.

#[test]
fn a_user_event_is_triggered_by_user_level_code() {
    let kq = Kq::new();
    kq.change(user(EV_ADD | EV_CLEAR, 0).with_udata(5));
    kq.expect_none();
    thread::scope(|scope| {
        scope.spawn(|| {
            thread::sleep(20 * MS);
            for _ in 0..3 {
                kq.change(user(0, NOTE_TRIGGER).with_udata(5));
            }
        });
        let event = kq.one();
        assert_eq!((event.ident(), event.filter(), event.udata()), (1, EVFILT_USER, 5));
        assert_eq!(event.fflags() & NOTE_TRIGGER, 0);
    });
    kq.pending();
    kq.expect_none();
    kq.change(user(0, NOTE_TRIGGER));
    kq.one();
    kq.expect_none();
}

#[test]
fn a_user_event_stays_triggered_without_clear() {
    let kq = Kq::new();
    kq.change(user(EV_ADD, 0));
    kq.change(user(0, NOTE_TRIGGER));
    kq.one();
    kq.one();
    kq.change(user(EV_CLEAR, 0));
    kq.expect_none();
}

/// As FreeBSD and NetBSD do.
#[test]
fn a_user_event_triggered_and_cleared_at_once_is_cleared() {
    let kq = Kq::new();
    kq.change(user(EV_ADD | EV_CLEAR, 0));
    kq.change(user(EV_CLEAR, NOTE_TRIGGER));
    kq.expect_none();
}

fn timer_of(milliseconds: i64, flags: Flags) -> Kevent {
    Kevent::new(1, EVFILT_TIMER, EV_ADD | flags).with_data(milliseconds)
}

#[test]
fn a_timer_is_periodic_and_returns_how_often_it_expired() {
    let kq = Kq::new();
    let start = Instant::now();
    kq.change(timer_of(10, 0));
    thread::sleep(50 * MS);
    let mut expired = kq.one().data();
    assert!(expired >= 4, "{expired}");
    while expired < 10 {
        expired += kq.one().data();
    }
    assert!(start.elapsed() >= 100 * MS);
}

#[test]
fn a_oneshot_timer_expires_once() {
    let kq = Kq::new();
    let start = Instant::now();
    kq.change(timer_of(20, EV_ONESHOT));
    assert_eq!(kq.one().data(), 1);
    assert!(start.elapsed() >= 20 * MS);
    let change = Kevent::new(1, EVFILT_TIMER, EV_DELETE);
    assert_eq!(kq.try_change(change), Err(Errno::ENOENT));
}

#[test]
fn a_timer_is_in_nanoseconds_if_its_note_says_so() {
    let kq = Kq::new();
    let start = Instant::now();
    kq.change(timer_of(1_500_000, EV_ONESHOT).with_fflags(NOTE_NSECONDS));
    kq.one();
    assert!(start.elapsed() >= Duration::from_nanos(1_500_000) && start.elapsed() < LONG);
}

#[test]
fn a_timer_that_is_added_again_starts_again() {
    let kq = Kq::new();
    kq.change(timer_of(1, 0));
    thread::sleep(10 * MS);
    assert!(kq.is_readable());
    let start = Instant::now();
    kq.change(timer_of(200, 0));
    kq.expect_none();
    kq.one();
    assert!(start.elapsed() >= 200 * MS);
    kq.change(timer_of(1, EV_DISABLE));
    thread::sleep(5 * MS);
    kq.expect_none();
}

#[test]
fn a_negative_timer_is_invalid() {
    assert_eq!(Kq::new().try_change(timer_of(-1, 0)), Err(Errno::EINVAL));
}

fn exit_of_process(pid: usize) -> Kevent {
    Kevent::new(pid, EVFILT_PROC, EV_ADD).with_fflags(NOTE_EXIT)
}

#[test]
fn a_process_returns_when_it_has_exited() {
    let mut child = Command::new("cat").stdin(Stdio::piped()).spawn().unwrap();
    let pid = child.id() as usize;
    let kq = Kq::new();
    kq.change(exit_of_process(pid));
    kq.expect_none();
    drop(child.stdin.take());
    let event = kq.one();
    assert_eq!((event.ident(), event.filter()), (pid, EVFILT_PROC));
    assert!(event.fflags() & NOTE_EXIT != 0 && event.flags() & EV_EOF != 0);
    kq.expect_none();
    assert!(child.wait().unwrap().success());
}

#[test]
fn a_process_that_does_not_exist_is_not_found() {
    let kq = Kq::new();
    let mut child = Command::new("true").spawn().unwrap();
    let pid = child.id() as usize;
    child.wait().unwrap();
    assert_eq!(kq.try_change(exit_of_process(pid)), Err(Errno::ESRCH));
    assert_eq!(kq.try_change(exit_of_process(usize::MAX)), Err(Errno::ESRCH));
}
