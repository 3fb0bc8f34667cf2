//! Readiness through [epoll(7)](https://man7.org/linux/man-pages/man7/epoll.7.html).

use std::cell::Cell;
use std::ffi::c_int;
use std::fmt;
use std::io;
use std::marker::PhantomData;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::sync::Arc;
use std::time::Duration;

use crate::deadline::wait_until;
use crate::spin::Spin;
use crate::sys::epoll;
use crate::{EventObject, Interest, Mode, Poller, Readiness, Register, Registry};

/// The poller of Linux and Android, over
/// [epoll(7)](https://man7.org/linux/man-pages/man7/epoll.7.html).
///
/// It goes to another thread, yet only one thread at a time can wait on it: it is `Send`, not
/// `Sync`. Its [`registry`](Poller::registry) is both.
///
/// ```
/// # fn is_send<T: Send>() {}
/// is_send::<pollio::EpollPoller>();
/// ```
/// ```compile_fail
/// # fn is_sync<T: Sync>() {}
/// is_sync::<pollio::EpollPoller>();
/// ```
///
/// It is itself a descriptor that is readable while one of its own is ready, so that it can be
/// registered with another poller.
pub struct EpollPoller {
    kernel: Kernel,
    /// As many as the kernel can write.
    events: Vec<EventObject>,
    /// How many of them the last wait told.
    told: usize,
    registry: Registry,
    spin: Option<Spin>,
    not_sync: PhantomData<Cell<()>>,
}

/// How many events a poller from [`Poller::new`] takes in its first wait.
const CAPACITY: usize = 128;

/// How many events one wait takes at the most.
const MAX_CAPACITY: usize = 1 << 20;

impl EpollPoller {
    /// Makes a poller whose first wait takes up to `events` events.
    ///
    /// The buffer doubles whenever a wait has filled it, so this only spares a program that knows
    /// its load the first steps. It never shrinks, and takes 28 or 32 bytes an event, by the
    /// architecture. [`new`](Poller::new) begins with 128. 0 counts as 1, and more than 1,048,576 as
    /// that: there the buffer grows no further, and what else is ready comes at the next wait.
    ///
    /// # Errors
    ///
    /// As [`Poller::new`] tells, and `OutOfMemory` where there is no room for the buffer.
    pub fn with_capacity(events: usize) -> io::Result<Self> {
        let interest_list = Arc::new(InterestList(epoll::create()?));
        let mut poller = Self {
            registry: Registry::new(interest_list.clone()),
            kernel: Kernel { interest_list, events: Vec::new(), has_nanoseconds: true },
            events: Vec::new(),
            told: 0,
            spin: None,
            not_sync: PhantomData,
        };
        poller.set_capacity(events.clamp(1, MAX_CAPACITY))?;
        Ok(poller)
    }

    /// Asks the kernel without sleeping, for up to `limit`, before a wait sleeps: [clause
    /// C17](Poller#the-contract). Zero, as at first, turns it off.
    ///
    /// An event that comes meanwhile costs no sleep and no wake-up, which take a core that falls
    /// idle in between tens of microseconds. The guide says
    /// [when to spin](crate::guide#when-to-spin), and for how long.
    ///
    /// Every call begins anew: the next wait spins.
    pub fn set_spin(&mut self, limit: Duration) {
        self.spin = Spin::up_to(limit);
    }

    fn set_capacity(&mut self, events: usize) -> io::Result<()> {
        let more = events - self.events.len();
        self.kernel.events.try_reserve_exact(more)?;
        self.events.try_reserve_exact(more)?;
        self.kernel.events.resize(events, epoll::NO_EVENT);
        self.events.resize(events, EventObject::client(0));
        Ok(())
    }

    /// After a wait that filled the buffer.
    #[cold]
    fn grow(&mut self) {
        // Without the memory to grow, the rest comes at the next waits: nothing is lost.
        let _ = self.set_capacity(MAX_CAPACITY.min(self.events.len() * 2));
    }
}

impl Poller for EpollPoller {
    fn new() -> io::Result<Self> {
        Self::with_capacity(CAPACITY)
    }

    fn registry(&self) -> &Registry {
        &self.registry
    }

    fn wait_timeout(&mut self, timeout: Option<Duration>) -> io::Result<&[EventObject]> {
        if self.told == self.events.len() {
            self.grow();
        }
        self.told = 0;
        let told = wait_until(timeout, &mut self.spin, |left| self.kernel.wait(left))?;
        for (event, kernel_event) in self.events.iter_mut().zip(&self.kernel.events[..told]) {
            *event = event_object(kernel_event);
        }
        self.told = told;
        Ok(&self.events[..told])
    }

    // Not through the registry: where its `dyn Register` leads to is out of the cache by then.

    fn add(&self, object: EventObject) -> io::Result<()> {
        self.kernel.interest_list.add(object)
    }

    fn modify(&self, object: EventObject) -> io::Result<()> {
        self.kernel.interest_list.modify(object)
    }

    fn delete(&self, fd: RawFd) -> io::Result<()> {
        self.kernel.interest_list.delete(fd)
    }
}

impl AsFd for EpollPoller {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.kernel.interest_list.0.as_fd()
    }
}

impl AsRawFd for EpollPoller {
    fn as_raw_fd(&self) -> RawFd {
        self.kernel.interest_list.0.as_raw_fd()
    }
}

impl fmt::Debug for EpollPoller {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EpollPoller")
            .field("fd", &self.as_raw_fd())
            .field("told", &&self.events[..self.told])
            .finish_non_exhaustive()
    }
}

/// The kernel's side of a wait.
struct Kernel {
    interest_list: Arc<InterestList>,
    /// What it writes; their number is how many events one wait can take.
    events: Vec<epoll::Event>,
    /// It has `epoll_pwait2`, as far as we know.
    has_nanoseconds: bool,
}

impl Kernel {
    /// Waits once, as exactly as it can, and returns how many events it wrote.
    fn wait(&mut self, timeout: Option<Duration>) -> io::Result<usize> {
        let epoll = self.interest_list.0.as_fd();
        if let Some(timeout) = timeout.filter(|time| self.has_nanoseconds && !is_whole_ms(*time)) {
            match epoll::pwait2(epoll, &mut self.events, timeout) {
                // ENOSYS before Linux 5.11; EPERM from a sandbox that does not know the call.
                Err(error) if matches!(error.raw_os_error(), Some(libc::ENOSYS | libc::EPERM)) => {
                    self.has_nanoseconds = false;
                }
                answer => return answer,
            }
        }
        epoll::wait(epoll, &mut self.events, timeout_ms(timeout))
    }
}

/// The epoll instance, shared by the poller and its registries.
struct InterestList(OwnedFd);

impl Register for InterestList {
    fn add(&self, object: EventObject) -> io::Result<()> {
        epoll::add(self.0.as_fd(), object.fd, epoll_bits(object), object.to_user_data())
    }

    fn modify(&self, object: EventObject) -> io::Result<()> {
        epoll::modify(self.0.as_fd(), object.fd, epoll_bits(object), object.to_user_data())
    }

    fn delete(&self, fd: RawFd) -> io::Result<()> {
        epoll::delete(self.0.as_fd(), fd)
    }
}

/// What epoll is asked for.
fn epoll_bits(object: EventObject) -> u32 {
    let mut bits = match object.mode() {
        Mode::Level => 0,
        Mode::Edge => epoll::EPOLLET,
        Mode::Oneshot => epoll::EPOLLONESHOT,
        Mode::EdgeOneshot => epoll::EPOLLET | epoll::EPOLLONESHOT,
    };
    if object.interest().contains(Interest::READABLE) {
        bits |= epoll::EPOLLIN;
        // The kernel refuses EPOLLRDHUP beside EPOLLEXCLUSIVE. Without READABLE it would tell a
        // program that stopped reading, at every wait, of the half-close that it will not read.
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

/// What epoll told of one descriptor.
fn event_object(event: &epoll::Event) -> EventObject {
    // Taken out by value: the fields of a packed struct cannot be borrowed.
    let (bits, data) = (event.events, event.u64);
    EventObject::from_user_data(data).with_readiness(readiness(bits))
}

/// What epoll's bits mean, by [`meaning`]. One load is cheaper than six tests, for every event.
fn readiness(bits: u32) -> Readiness {
    READINESS[dense(bits) as usize]
}

static READINESS: [Readiness; 64] = {
    let mut table = [Readiness::empty(); 64];
    let mut bits = 0;
    while bits <= EVERY_BIT {
        table[dense(bits) as usize] = meaning(bits);
        bits += 1;
    }
    table
};

const LOW_BITS: u32 =
    epoll::EPOLLIN | epoll::EPOLLPRI | epoll::EPOLLOUT | epoll::EPOLLERR | epoll::EPOLLHUP;
const EVERY_BIT: u32 = LOW_BITS | epoll::EPOLLRDHUP;

/// The six bits that tell something, side by side: `EPOLLRDHUP` stands apart from the others.
const fn dense(bits: u32) -> u32 {
    bits & LOW_BITS | (bits & epoll::EPOLLRDHUP) >> 8
}

const _: () = assert!(dense(u32::MAX) == 0b11_1111);

/// What a set of bits means. A hang-up or an error lets no call block, hence both directions.
const fn meaning(bits: u32) -> Readiness {
    const fn told(bits: u32, by: u32, readiness: Readiness) -> Readiness {
        if bits & by == 0 { Readiness::empty() } else { readiness }
    }
    told(bits, epoll::EPOLLIN | epoll::EPOLLHUP | epoll::EPOLLERR, Readiness::READABLE)
        .union(told(bits, epoll::EPOLLOUT | epoll::EPOLLHUP | epoll::EPOLLERR, Readiness::WRITABLE))
        .union(told(bits, epoll::EPOLLPRI, Readiness::PRIORITY))
        .union(told(bits, epoll::EPOLLRDHUP | epoll::EPOLLHUP, Readiness::READ_CLOSED))
        .union(told(bits, epoll::EPOLLHUP, Readiness::WRITE_CLOSED))
        .union(told(bits, epoll::EPOLLERR, Readiness::ERROR))
}

/// Whether milliseconds can say `timeout`.
fn is_whole_ms(timeout: Duration) -> bool {
    timeout.subsec_nanos() % 1_000_000 == 0
}

/// `timeout` for `epoll_wait`: rounded up, at most 24 days, -1 for ever.
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
    fn half_close_is_asked_for_with_reading_alone() {
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
        assert_eq!(bits(Mode::EdgeOneshot), epoll::EPOLLET | epoll::EPOLLONESHOT);
    }

    #[test]
    fn every_epoll_bit_is_told_as_what_it_means() {
        let both = Readiness::READABLE | Readiness::WRITABLE;
        let closed = Readiness::READ_CLOSED | Readiness::WRITE_CLOSED;
        assert_eq!(readiness(0), Readiness::empty());
        assert_eq!(readiness(epoll::EPOLLIN), Readiness::READABLE);
        assert_eq!(readiness(epoll::EPOLLOUT), Readiness::WRITABLE);
        assert_eq!(readiness(epoll::EPOLLPRI), Readiness::PRIORITY);
        assert_eq!(readiness(epoll::EPOLLRDHUP), Readiness::READ_CLOSED);
        assert_eq!(readiness(epoll::EPOLLHUP), both | closed);
        assert_eq!(readiness(epoll::EPOLLERR), both | Readiness::ERROR);
        assert_eq!(readiness(u32::MAX), Readiness::all());
    }
}
