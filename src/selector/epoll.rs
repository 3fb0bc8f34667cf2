//! Readiness through [epoll(7)](https://man7.org/linux/man-pages/man7/epoll.7.html).

use std::ffi::c_int;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use crate::os_poller::{Found, Selector};
use crate::sys::{epoll, eventfd};
use crate::{Backend, Event, EventKind, EventObject, Interest, Mode, Readiness};

/// An epoll instance, and the events that the kernel writes for it.
pub(crate) struct EpollSelector {
    interest_list: Arc<InterestList>,
    /// The kernel's buffer: its length is how many events one wait can take.
    kernel_events: Vec<epoll::Event>,
    /// How many of them the last wait wrote.
    written: usize,
    /// The kernel has not refused `epoll_pwait2` so far.
    has_nanoseconds: bool,
}

pub(crate) use EpollSelector as OsSelector;

impl Selector for EpollSelector {
    const CAPACITY: usize = 128;

    fn create() -> io::Result<Self> {
        Ok(Self {
            interest_list: Arc::new(InterestList {
                epoll: epoll::create()?,
                eventfd: OnceLock::new(),
            }),
            kernel_events: Vec::new(),
            written: 0,
            has_nanoseconds: true,
        })
    }

    fn share(&self) -> Self {
        Self {
            interest_list: self.interest_list.clone(),
            kernel_events: Vec::new(),
            written: 0,
            has_nanoseconds: self.has_nanoseconds,
        }
    }

    fn backend(&self) -> Arc<dyn Backend> {
        self.interest_list.clone()
    }

    fn reserve(&mut self, capacity: usize) -> io::Result<()> {
        self.kernel_events.try_reserve_exact(capacity - self.kernel_events.len())?;
        self.kernel_events.resize(capacity, epoll::NO_EVENT);
        Ok(())
    }

    #[inline(always)]
    fn wait(&mut self, events: &mut [Event], timeout: Option<Duration>) -> io::Result<Found> {
        self.written = self.kernel_wait(events.len(), timeout)?;
        let mut count = 0;
        for kernel_event in &self.kernel_events[..self.written] {
            if !is_wake(kernel_event) {
                events[count] = event_from(kernel_event);
                count += 1;
            }
        }
        Ok(Found { events: count, is_wake_up: count < self.written })
    }

    fn is_full(&self) -> bool {
        self.written == self.kernel_events.len()
    }
}

impl EpollSelector {
    /// Waits once for up to `room` events, as exactly as the kernel can.
    #[inline(always)]
    fn kernel_wait(&mut self, room: usize, timeout: Option<Duration>) -> io::Result<usize> {
        let epoll = self.interest_list.epoll.as_fd();
        let kernel_events = &mut self.kernel_events[..room];
        if let Some(timeout) = timeout.filter(|time| self.has_nanoseconds && !is_whole_ms(*time)) {
            match epoll::pwait2(epoll, kernel_events, timeout) {
                // It cannot be called here: `ENOSYS` before Linux 5.11, or the error with which a sandbox refuses a
                // call that it does not know. If it is the wait that failed, epoll_wait returns the same error.
                Err(error) if error.kind() != io::ErrorKind::Interrupted => {
                    self.has_nanoseconds = false;
                }
                answer => return answer,
            }
        }
        epoll::wait(epoll, kernel_events, timeout_ms(timeout))
    }
}

impl AsFd for EpollSelector {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.interest_list.epoll.as_fd()
    }
}

/// The epoll instance, shared by the poller's handles and its registries.
struct InterestList {
    epoll: OwnedFd,
    /// Wakes a wait, once there is a waker. It is edge-triggered and never read: each write is an arrival, for one
    /// wait.
    eventfd: OnceLock<File>,
}

impl Backend for InterestList {
    fn add(&self, object: EventObject) -> io::Result<()> {
        epoll::add(self.epoll.as_fd(), object.fd, epoll_bits(object), user_data(object))
    }

    fn modify(&self, object: EventObject) -> io::Result<()> {
        epoll::modify(self.epoll.as_fd(), object.fd, epoll_bits(object), user_data(object))
    }

    fn delete(&self, fd: RawFd) -> io::Result<()> {
        epoll::delete(self.epoll.as_fd(), fd)
    }

    fn wake(&self) -> io::Result<()> {
        let eventfd = match self.eventfd.get() {
            Some(eventfd) => eventfd,
            None => {
                let eventfd = eventfd::create()?;
                let bits = epoll::EPOLLIN | epoll::EPOLLET;
                epoll::add(self.epoll.as_fd(), eventfd.as_raw_fd(), bits, WAKE)?;
                self.eventfd.get_or_init(|| eventfd)
            }
        };
        eventfd::add_one(eventfd)
    }
}

/// The user data of the eventfd. No registration has it: only that of `RawFd::MAX` could, and every descriptor has a
/// smaller number (`sysctl_nr_open_max` in the kernel's fs/file.c).
const WAKE: u64 = u64::MAX;

/// Whether the eventfd was written to.
fn is_wake(kernel_event: &epoll::Event) -> bool {
    // Taken out by value: the fields of a packed struct cannot be borrowed.
    let data = kernel_event.u64;
    data == WAKE
}

/// Set in the user data of a server. The bit is free, since no kernel registers a negative descriptor.
const SERVER: u64 = 1 << 63;

/// The user data of a registration: token, descriptor and kind, in 32, 31 and 1 bits, from the low end up.
#[expect(clippy::cast_sign_loss, reason = "the sign bit is masked off")]
const fn user_data(object: EventObject) -> u64 {
    let fd = (object.fd & RawFd::MAX) as u64;
    let kind = match object.kind {
        EventKind::Server => SERVER,
        EventKind::Client => 0,
    };
    kind | fd << 32 | object.token as u64
}

/// The event that epoll wrote, with the parts that [`user_data`] packed.
#[expect(clippy::cast_possible_truncation, reason = "each part is masked to its width")]
fn event_from(kernel_event: &epoll::Event) -> Event {
    // Taken out by value: the fields of a packed struct cannot be borrowed.
    let (bits, data) = (kernel_event.events, kernel_event.u64);
    let kind = if data & SERVER == 0 { EventKind::Client } else { EventKind::Server };
    Event::new(((data & !SERVER) >> 32) as RawFd, kind, data as u32, readiness(bits))
}

/// The events to register for.
fn epoll_bits(object: EventObject) -> u32 {
    let mut bits = match object.mode() {
        Mode::Level => 0,
        Mode::Edge => epoll::EPOLLET,
        Mode::Oneshot => epoll::EPOLLONESHOT,
    };
    if object.interest().contains(Interest::READABLE) {
        bits |= epoll::EPOLLIN;
        // The kernel refuses EPOLLRDHUP with EPOLLEXCLUSIVE. Without READABLE it would end every wait
        // of a program that has stopped reading, after a half-close.
        if !object.is_exclusive() {
            bits |= epoll::EPOLLRDHUP;
        }
    }
    if object.interest().contains(Interest::WRITABLE) {
        bits |= epoll::EPOLLOUT;
    }
    if object.interest().contains(Interest::PRIORITY) {
        bits |= epoll::EPOLLPRI;
    }
    if object.is_exclusive() {
        bits |= epoll::EPOLLEXCLUSIVE;
    }
    bits
}

/// Epoll's bits, [decoded](decode). One load is cheaper than six tests, for every event.
fn readiness(bits: u32) -> Readiness {
    READINESS[compact_index(bits) as usize]
}

static READINESS: [Readiness; 64] = {
    let mut table = [Readiness::NONE; 64];
    // Counting up to EPOLLRDHUP would take most of this crate's compile time.
    let mut low = 0;
    while low <= LOW_BITS {
        table[compact_index(low) as usize] = decode(low);
        let with_end = low | epoll::EPOLLRDHUP;
        table[compact_index(with_end) as usize] = decode(with_end);
        low += 1;
    }
    table
};

const LOW_BITS: u32 =
    epoll::EPOLLIN | epoll::EPOLLPRI | epoll::EPOLLOUT | epoll::EPOLLERR | epoll::EPOLLHUP;

/// The six bits in use, moved next to each other: `EPOLLRDHUP` is apart from the others.
const fn compact_index(bits: u32) -> u32 {
    bits & LOW_BITS | (bits & epoll::EPOLLRDHUP) >> 8
}

const _: () = assert!(compact_index(u32::MAX) == 0b11_1111);

/// The readiness that epoll's bits stand for. After a hang-up or an error no call blocks, hence both directions.
const fn decode(bits: u32) -> Readiness {
    const fn given(bits: u32, any_of: u32, readiness: Readiness) -> Readiness {
        if bits & any_of == 0 { Readiness::NONE } else { readiness }
    }
    given(bits, epoll::EPOLLIN | epoll::EPOLLHUP | epoll::EPOLLERR, Readiness::READABLE)
        .union(given(
            bits,
            epoll::EPOLLOUT | epoll::EPOLLHUP | epoll::EPOLLERR,
            Readiness::WRITABLE,
        ))
        .union(given(bits, epoll::EPOLLPRI, Readiness::PRIORITY))
        .union(given(bits, epoll::EPOLLRDHUP | epoll::EPOLLHUP, Readiness::READ_CLOSED))
        .union(given(bits, epoll::EPOLLHUP, Readiness::WRITE_CLOSED))
        .union(given(bits, epoll::EPOLLERR, Readiness::ERROR))
}

/// Whether `timeout` is a whole number of milliseconds.
fn is_whole_ms(timeout: Duration) -> bool {
    timeout.subsec_nanos() % 1_000_000 == 0
}

/// `timeout` for `epoll_wait`: rounded up, at most 24 days, -1 without one.
fn timeout_ms(timeout: Option<Duration>) -> c_int {
    timeout.map_or(-1, |time| {
        let ms = time
            .as_secs()
            .saturating_mul(1_000)
            .saturating_add(u64::from(time.subsec_nanos().div_ceil(1_000_000)));
        c_int::try_from(ms).unwrap_or(c_int::MAX)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(object: EventObject) -> Event {
        event_from(&epoll::Event { events: epoll::EPOLLIN, u64: user_data(object) })
    }

    #[test]
    fn user_data_brings_back_fd_kind_and_token() {
        for fd in [0, 1, 16_384, RawFd::MAX] {
            for token in [0, 1, 1 << 31, u32::MAX] {
                for object in [EventObject::server(fd), EventObject::client(fd)] {
                    let expected = Event::new(fd, object.kind, token, Readiness::READABLE);
                    assert_eq!(event(object.with_token(token)), expected);
                }
            }
        }
    }

    #[test]
    fn every_part_of_the_user_data_has_bits_of_its_own() {
        let client = EventObject::client(0);
        assert_eq!(user_data(client.with_token(u32::MAX)), 0xffff_ffff);
        assert_eq!(user_data(EventObject::client(RawFd::MAX)), 0x7fff_ffff << 32);
        assert_eq!(user_data(EventObject::server(0)), 1 << 63);
    }

    #[test]
    fn a_negative_descriptor_does_not_change_the_kind() {
        assert_eq!(event(EventObject::client(-1)).kind, EventKind::Client);
    }

    #[test]
    fn timeout_ms_rounds_up_and_never_wraps() {
        assert_eq!(timeout_ms(None), -1);
        assert_eq!(timeout_ms(Some(Duration::ZERO)), 0);
        assert_eq!(timeout_ms(Some(Duration::from_nanos(1))), 1);
        assert_eq!(timeout_ms(Some(Duration::from_millis(1))), 1);
        assert_eq!(timeout_ms(Some(Duration::from_nanos(1_000_001))), 2);
        assert_eq!(timeout_ms(Some(Duration::from_millis(0x7fff_ffff))), c_int::MAX);
        assert_eq!(timeout_ms(Some(Duration::from_millis(0x8000_0000))), c_int::MAX);
        assert_eq!(timeout_ms(Some(Duration::MAX)), c_int::MAX);
    }

    #[test]
    fn milliseconds_are_whole_unless_a_nanosecond_is_left() {
        assert!(is_whole_ms(Duration::ZERO));
        assert!(is_whole_ms(Duration::from_millis(1_001)));
        assert!(!is_whole_ms(Duration::from_nanos(1)));
        assert!(!is_whole_ms(Duration::from_nanos(1_000_001)));
        assert!(!is_whole_ms(Duration::MAX));
    }

    #[test]
    fn a_half_close_is_registered_for_only_with_reading() {
        let object = EventObject::client(0);
        assert_eq!(epoll_bits(object), epoll::EPOLLIN | epoll::EPOLLRDHUP);
        assert_eq!(epoll_bits(object.with_interest(Interest::WRITABLE)), epoll::EPOLLOUT);
        assert_eq!(epoll_bits(object.with_interest(Interest::PRIORITY)), epoll::EPOLLPRI);
        assert_eq!(epoll_bits(object.with_interest(Interest::NONE)), 0);
        assert_eq!(epoll_bits(object.exclusive()), epoll::EPOLLIN | epoll::EPOLLEXCLUSIVE);
    }

    #[test]
    fn modes_become_epoll_flags() {
        let bits =
            |mode| epoll_bits(EventObject::client(0).with_interest(Interest::NONE).with_mode(mode));
        assert_eq!(bits(Mode::Level), 0);
        assert_eq!(bits(Mode::Edge), epoll::EPOLLET);
        assert_eq!(bits(Mode::Oneshot), epoll::EPOLLONESHOT);
    }

    #[test]
    fn every_epoll_bit_is_decoded() {
        let both = Readiness::READABLE | Readiness::WRITABLE;
        let closed = Readiness::READ_CLOSED | Readiness::WRITE_CLOSED;
        assert_eq!(readiness(0), Readiness::NONE);
        assert_eq!(readiness(epoll::EPOLLIN), Readiness::READABLE);
        assert_eq!(readiness(epoll::EPOLLOUT), Readiness::WRITABLE);
        assert_eq!(readiness(epoll::EPOLLPRI), Readiness::PRIORITY);
        assert_eq!(readiness(epoll::EPOLLRDHUP), Readiness::READ_CLOSED);
        assert_eq!(readiness(epoll::EPOLLHUP), both | closed);
        assert_eq!(readiness(epoll::EPOLLERR), both | Readiness::ERROR);
        let all = both | closed | Readiness::PRIORITY | Readiness::ERROR;
        assert_eq!(readiness(u32::MAX), all);
        for bits in 0..=u16::MAX.into() {
            assert_eq!(readiness(bits), decode(bits), "{bits:#x}");
        }
    }
}
