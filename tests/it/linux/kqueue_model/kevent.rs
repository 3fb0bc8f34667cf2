//! A model of kqueue(2), on Linux, which the kqueue selector calls instead of a kernel.
//!
//! The descriptor of a kqueue is an epoll instance, so that a program can wait for it, watch it with another kqueue,
//! and close it. Its table of knotes is in `kqueue`. For each `knote`, epoll watches the descriptor that the knote
//! names, or a descriptor of the model's if it names none. Epoll takes a descriptor only once, so the write and except
//! filters have an epoll instance each, within the kqueue's: `queues`. The `filter` attaches knotes and makes events.
//!
//! Each kqueue has a [`Kernel`]: Apple's, FreeBSD's, NetBSD's, OpenBSD's or DragonFly's. The model differs where their
//! sources differ: `systems` has the reports that differ from epoll's, and the tests in `facts` name the functions.
//! Where a source leaves it open, the model chooses the behaviour that is harder for its caller.
//!
//! No kernel holds a lock over a list of changes: another thread's wait may come between two of them, and in the model
//! it does.
//!
//! The model notices a close when it next checks the number. If the number then has a file with the same inode, such as
//! another eventfd, its knotes stay; the same holds for a kqueue. A closed kqueue frees its table when the next one is
//! created.
//!
//! Left out:
//!
//! - the filters that pollio does not use, low-water marks, `NOTE_FF…`, the number of ready bytes (`data` is 1), the
//!   exit status of a process, a duplicate of a kqueue's descriptor,
//! - EVFILT_WRITE's end after a socket's own shutdown,
//! - a kqueue that looks readable although its event is gone before a wait,
//! - revoked terminals of macOS,
//! - NetBSD's timers in ticks, and its EV_ENABLE, which reports only new readiness.
#![allow(
    clippy::missing_const_for_thread_local,
    reason = "they are, and where the system has none of its own, clippy does not see it"
)]

use std::cell::Cell;
use std::collections::BTreeMap;
use std::env;
use std::fs::{self, File, Metadata};
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::sync::{Arc, Mutex, MutexGuard};
use std::thread;
use std::time::{Duration, Instant};

use allocation_counter::opt_out;
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, ppoll};

use super::sys::epoll;
use crate::support::kernel::Kernel;
pub(crate) use entry::Kevent;
use kqueue::Kqueue;
use state::{is_same, named_by};

mod entry;
mod facts;
mod filter;
mod knote;
mod kqueue;
mod queues;
#[allow(unsafe_code, reason = "a knote names a descriptor by its number")]
mod state;
mod systems;
mod tests;

pub(crate) type Filter = i16;
pub(crate) type Flags = u16;

// The numbers are those of macOS. FreeBSD and NetBSD have no EVFILT_EXCEPT.
pub(crate) const EVFILT_READ: Filter = -1;
pub(crate) const EVFILT_WRITE: Filter = -2;
pub(crate) const EVFILT_PROC: Filter = -5;
pub(crate) const EVFILT_TIMER: Filter = -7;
pub(crate) const EVFILT_USER: Filter = -10;
pub(crate) const EVFILT_EXCEPT: Option<Filter> = Some(EXCEPT);
const EXCEPT: Filter = -15;

pub(crate) const EV_ADD: Flags = 0x0001;
pub(crate) const EV_DELETE: Flags = 0x0002;
pub(crate) const EV_ENABLE: Flags = 0x0004;
pub(crate) const EV_DISABLE: Flags = 0x0008;
pub(crate) const EV_ONESHOT: Flags = 0x0010;
pub(crate) const EV_CLEAR: Flags = 0x0020;
pub(crate) const EV_RECEIPT: Flags = 0x0040;
pub(crate) const EV_DISPATCH: Flags = 0x0080;
pub(crate) const EV_ERROR: Flags = 0x4000;
pub(crate) const EV_EOF: Flags = 0x8000;

pub(crate) const NOTE_TRIGGER: u32 = 0x0100_0000;
pub(crate) const NOTE_LOWAT: u32 = 0x0000_0001;
pub(crate) const NOTE_OOB: u32 = 0x0000_0002;
pub(crate) const NOTE_EXIT: u32 = 0x8000_0000;
pub(crate) const NOTE_NSECONDS: u32 = 0x0000_0004;
pub(crate) const NOTE_TIMER_UNIT: u32 = NOTE_NSECONDS;
/// Only Apple has it. The model accepts it on every system, since the choice is made when the crate is compiled.
pub(crate) const NOTE_MACH_CONTINUOUS_TIME: Option<u32> = Some(CONTINUOUS);
const CONTINUOUS: u32 = 0x0000_0080;
pub(crate) const TIMER_UNIT: Duration = Duration::from_nanos(1);

/// The longest timeout that is not EINVAL on macOS before 10.15. Newer versions accept 2³¹ - 1 seconds, the BSDs any.
const LONGEST_TIMEOUT: Duration = Duration::from_secs(100_000_000);

/// The longest single sleep of the model.
const SLICE: Duration = Duration::from_millis(10);

impl Kevent {
    fn has(&self, flag: Flags) -> bool {
        self.flags & flag != 0
    }
}

/// Every kqueue, by its descriptor. Nothing reports the close of one.
static KQUEUES: Mutex<BTreeMap<RawFd, Created>> = Mutex::new(BTreeMap::new());

struct Created {
    /// The file of its descriptor at its creation.
    named: Option<Metadata>,
    kqueue: Arc<Mutex<Kqueue>>,
}

thread_local! {
    /// The number of this thread's calls, and of their changes.
    static CALLS: Cell<u64> = const { Cell::new(0) };
    static CHANGES: Cell<usize> = const { Cell::new(0) };
    /// The kernel of the kqueues that this thread creates.
    static KERNEL: Cell<Kernel> = Cell::new(default_kernel());
    /// The error of the next EVFILT_PROC that this thread adds.
    static NEXT_PROC: Cell<Option<Errno>> = const { Cell::new(None) };
}

/// As `longest_timer` in the crate.
pub(crate) fn longest_timer() -> Duration {
    DAY * if KERNEL.get().counts_timers_in_ticks() { 240 } else { 30 * 365 }
}

const DAY: Duration = Duration::from_secs(24 * 60 * 60);

/// The variable with a process's kernel, by a name in [`KERNELS`].
pub(crate) const KERNEL_NAME: &str = "POLLIO_TEST_KERNEL";

/// The modelled systems.
pub(crate) const KERNELS: [(&str, Kernel); 5] = [
    ("apple", Kernel::Apple),
    ("freebsd", Kernel::FreeBsd),
    ("netbsd", Kernel::NetBsd),
    ("openbsd", Kernel::OpenBsd),
    ("dragonfly", Kernel::DragonFly),
];

fn default_kernel() -> Kernel {
    let Ok(name) = env::var(KERNEL_NAME) else { return Kernel::FreeBsd };
    KERNELS.iter().find(|(known, _)| *known == name).expect(KERNEL_NAME).1
}

/// The number of calls of kevent(2) that this thread makes while `body` runs, and of their changes.
pub(crate) fn calls(body: impl FnOnce()) -> (u64, usize) {
    let before = (CALLS.get(), CHANGES.get());
    body();
    (CALLS.get() - before.0, CHANGES.get() - before.1)
}

/// As `can_rearm` in the crate, for the kernel of the kqueues that this thread creates.
pub(crate) fn can_rearm() -> bool {
    KERNEL.get().can_rearm()
}

/// Runs `create`, whose kqueues get this kernel.
pub(crate) fn on<T>(kernel: Kernel, create: impl FnOnce() -> T) -> T {
    let before = KERNEL.replace(kernel);
    let created = create();
    KERNEL.set(before);
    created
}

/// The next EVFILT_PROC that this thread adds fails: the process has begun to end, and cannot be reaped
/// yet.
pub(crate) fn fail_next_proc(errno: Errno) {
    NEXT_PROC.set(Some(errno));
}

/// The next call on this kqueue with a change that has `flag` fails with `errno` and does nothing else, like a kernel
/// without memory.
pub(crate) fn fail_next(kq: BorrowedFd<'_>, flag: Flags, errno: Errno) {
    let kqueue = kqueue_of(kq.as_raw_fd()).expect("it is open");
    kqueue.lock().expect("no call panics").failing = Some((flag, errno));
}

/// A new kqueue, close-on-exec.
pub(crate) fn kqueue() -> io::Result<OwnedFd> {
    let kq = epoll::create()?;
    let kqueue = Kqueue::new(KERNEL.get());
    let created = Created { named: named_by(kq.as_raw_fd()), kqueue: Arc::new(Mutex::new(kqueue)) };
    let mut kqueues = kqueues();
    kqueues.retain(|fd, created| created.is_open(*fd));
    kqueues.insert(kq.as_raw_fd(), created);
    Ok(kq)
}

/// Applies `changes`, then waits for events up to `timeout`, indefinitely if there is none, and returns
/// how many of `events` were written.
pub(crate) fn kevent(
    kq: BorrowedFd<'_>,
    changes: &[Kevent],
    events: &mut [Kevent],
    timeout: Option<Duration>,
) -> io::Result<usize> {
    CALLS.set(CALLS.get() + 1);
    CHANGES.set(CHANGES.get() + changes.len());
    // A kernel has its own memory.
    let mut called = Ok(0);
    opt_out(|| called = call(kq, changes, events, timeout));
    called
}

fn call(
    kq: BorrowedFd<'_>,
    changes: &[Kevent],
    events: &mut [Kevent],
    timeout: Option<Duration>,
) -> io::Result<usize> {
    let kqueue = kqueue_of(kq.as_raw_fd()).ok_or(Errno::EBADF)?;
    let lock = || kqueue.lock().expect("no call panics");
    let kernel = lock().kernel;
    if kernel == Kernel::Apple && timeout.is_some_and(|timeout| timeout > LONGEST_TIMEOUT) {
        return Err(Errno::EINVAL.into());
    }
    if let Some(receipts) = apply(&kqueue, kq, changes, events)? {
        return Ok(receipts);
    }
    // Without room for an event, the call returns at once, with any timeout.
    if events.is_empty() {
        return Ok(0);
    }
    lock().waiting += 1;
    let waited = wait(&kqueue, kq, events, timeout);
    lock().waiting -= 1;
    waited
}

fn wait(
    kqueue: &Mutex<Kqueue>,
    kq: BorrowedFd<'_>,
    events: &mut [Kevent],
    timeout: Option<Duration>,
) -> io::Result<usize> {
    let lock = || kqueue.lock().expect("no call panics");
    let deadline = timeout.map(|timeout| Instant::now() + timeout);
    loop {
        // Computed before the check, so that the check finds arrivals during a signal handler that outlasts the
        // deadline.
        let left = deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()));
        let written = lock().collect(kq, events)?;
        if written == 0 && lock().is_interrupted(timeout) {
            return Err(Errno::EINTR.into());
        }
        if written > 0 || left == Some(Duration::ZERO) {
            return Ok(written);
        }
        // Not epoll_wait(2), which would take events without the lock. In slices, since ppoll(2) restarts its timeout
        // after a stop and continue.
        let slice = left.map_or(SLICE, |left| left.min(SLICE));
        ppoll(&mut [PollFd::new(kq, PollFlags::POLLIN)], Some(slice.into()), None)?;
    }
}

fn kqueues() -> MutexGuard<'static, BTreeMap<RawFd, Created>> {
    KQUEUES.lock().expect("no call panics")
}

/// The kqueue that has this descriptor, if it is open.
fn kqueue_of(fd: RawFd) -> Option<Arc<Mutex<Kqueue>>> {
    let kqueues = kqueues();
    kqueues.get(&fd).filter(|created| created.is_open(fd)).map(|created| created.kqueue.clone())
}

impl Created {
    fn is_open(&self, fd: RawFd) -> bool {
        is_same(self.named.as_ref(), named_by(fd).as_ref())
    }
}

/// Whether the descriptor is that of a kqueue.
fn kqueues_have(ident: usize) -> bool {
    RawFd::try_from(ident).is_ok_and(|fd| kqueue_of(fd).is_some())
}

/// Applies each change, and returns the number of written receipts and errors, if that ends the call.
fn apply(
    kqueue: &Mutex<Kqueue>,
    kq: BorrowedFd<'_>,
    changes: &[Kevent],
    events: &mut [Kevent],
) -> io::Result<Option<usize>> {
    let lock = || kqueue.lock().expect("no call panics");
    let kernel = lock().kernel;
    let fails = |(flag, _): &mut (Flags, Errno)| changes.iter().any(|one| one.has(*flag));
    if let Some((_, errno)) = lock().failing.take_if(fails) {
        return Err(errno.into());
    }
    let mut room = events.iter_mut();
    let mut written = 0;
    for change in changes {
        // FreeBSD skips it: `kqueue_kevent`.
        if kernel == Kernel::FreeBsd && change.filter == 0 {
            continue;
        }
        let adds_disabled = change.has(EV_ADD) && change.has(EV_DISABLE);
        let done = if kernel == Kernel::NetBsd && adds_disabled {
            // NetBSD before 10 activates the knote before it disables it: `kqueue_register`.
            let added = lock().change(kq, &change.with_flags(change.flags & !EV_DISABLE));
            thread::yield_now();
            added.and_then(|()| lock().change(kq, &change.with_flags(EV_DISABLE)))
        } else {
            lock().change(kq, change)
        };
        let_others_in(changes.len());
        if done.is_ok() && !change.has(EV_RECEIPT) {
            continue;
        }
        let Some(event) = room.next() else {
            // The changes that follow are lost, even if this one succeeded. FreeBSD and NetBSD lose the count:
            // `kqueue_kevent` returns its error, 0.
            let forgets = matches!(kernel, Kernel::FreeBsd | Kernel::NetBsd);
            return done.map(|()| Some(if forgets { 0 } else { written }));
        };
        let errno = done.err().and_then(|error| error.raw_os_error()).unwrap_or(0);
        // FreeBSD puts EV_ERROR in place of the flags, macOS adds it to them.
        *event = Kevent { flags: change.flags | EV_ERROR, data: errno.into(), ..*change };
        written += 1;
    }
    Ok((written > 0).then_some(written))
}

/// No thread holds a lock between two changes: now and then, another thread runs there.
fn let_others_in(changes: usize) {
    const NOW_AND_THEN: u64 = 64;
    if changes > 1 && CALLS.get() % NOW_AND_THEN == 0 {
        thread::yield_now();
    }
}
