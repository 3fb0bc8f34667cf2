//! A model of kqueue(2), on Linux: what the kqueue selector calls instead of its kernel.
//!
//! A kqueue is an epoll instance, so that it can be waited for, watched by another kqueue, and
//! closed; its knotes stand in a table next to it. A knote is what epoll watches for it: the
//! descriptor that it names, or one of its own for what is none. Epoll takes a descriptor only
//! once, hence the write and except filters have an epoll instance each, within the kqueue's.
//!
//! A kqueue is that of a [`Kernel`]: Apple's, FreeBSD's, NetBSD's, OpenBSD's or DragonFly's. Where the
//! sources of these differ, so does the model, and its `facts` name the function that says so. Where a
//! source does not settle it, the model does what is harder for its caller.
//!
//! No kernel holds a lock over a list of changes: another thread's wait may come between two of them, and
//! here it does.
//!
//! A close is found out when the model next looks at the number. If by then it is that of a file with
//! the same inode, such as another eventfd, its knotes go on; so does a kqueue.
//!
//! Left out are the filters that pollio does not use, low-water marks, `NOTE_FF…`, what a duplicate
//! of a kqueue's descriptor does, how many bytes are ready (`data` is 1), how a process ended, and
//! the end that a socket's own shutdown is to EVFILT_WRITE. A kqueue that was closed frees what it
//! has next to its descriptor when the next one is created; readers have nothing there before they are
//! reported. Left out too: a kqueue that looks readable because of what came and went before anybody
//! waited; macOS's terminals that are revoked; NetBSD's timers in ticks, and that its EV_ENABLE reports
//! only what is new.
#![allow(
    clippy::missing_const_for_thread_local,
    reason = "they are, and where the system has none of its own, clippy does not see it"
)]

use std::cell::Cell;
use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, HashMap};
use std::env;
use std::fs::{self, File, Metadata};
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::sync::{Arc, Mutex, MutexGuard};
use std::thread;
use std::time::{Duration, Instant};

use allocation_counter::opt_out;
use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::poll::{PollFd, PollFlags, ppoll};
use nix::sys::eventfd::{EfdFlags, EventFd};
use nix::sys::timerfd::{ClockId, Expiration, TimerFd, TimerFlags, TimerSetTimeFlags};
use nix::sys::wait::{Id, WaitPidFlag, WaitStatus, waitid};
use nix::unistd::Pid;

use super::sys::epoll;
use crate::support::kernel::Kernel;
pub(crate) use entry::Kevent;
use state::named;

mod entry;
mod facts;
#[allow(unsafe_code, reason = "a knote names a descriptor by its number")]
mod state;
mod tests;

pub(crate) type Filter = i16;
pub(crate) type Flags = u16;

// The numbers are those of macOS; EVFILT_EXCEPT is not on FreeBSD and NetBSD.
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
/// Only Apple has it. The model takes it on every system, since it is chosen when the crate is compiled.
pub(crate) const NOTE_MACH_CONTINUOUS_TIME: Option<u32> = Some(CONTINUOUS);
const CONTINUOUS: u32 = 0x0000_0080;
pub(crate) const TIMER_UNIT: Duration = Duration::from_nanos(1);

/// The longest timeout that is not EINVAL: that of macOS before 10.15. Newer ones take 2³¹ - 1 seconds,
/// the BSDs any.
const LONGEST_TIMEOUT: Duration = Duration::from_secs(100_000_000);

/// How long the model sleeps at a time.
const SLICE: Duration = Duration::from_millis(10);

impl Kevent {
    fn has(&self, flag: Flags) -> bool {
        self.flags & flag != 0
    }
}

/// Every kqueue, by its descriptor, whose close nothing reports.
static KQUEUES: Mutex<BTreeMap<RawFd, Created>> = Mutex::new(BTreeMap::new());

struct Created {
    /// What its descriptor was when it was created.
    named: Option<Metadata>,
    kqueue: Arc<Mutex<Kqueue>>,
}

thread_local! {
    /// How many calls this thread has made, and how many changes they had.
    static CALLS: Cell<u64> = const { Cell::new(0) };
    static CHANGES: Cell<usize> = const { Cell::new(0) };
    /// The kernel of the kqueues that this thread creates.
    static KERNEL: Cell<Kernel> = Cell::new(default_kernel());
    /// What the next EVFILT_PROC that this thread adds fails with.
    static NEXT_PROC: Cell<Option<Errno>> = const { Cell::new(None) };
}

/// What `longest_timer` of the crate's own says of it.
pub(crate) fn longest_timer() -> Duration {
    DAY * if KERNEL.get().counts_timers_in_ticks() { 240 } else { 30 * 365 }
}

const DAY: Duration = Duration::from_secs(24 * 60 * 60);

/// Names the kernel of a process: [`KERNELS`] has the names.
pub(crate) const KERNEL_NAME: &str = "POLLIO_TEST_KERNEL";

/// The systems of which this is a model.
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

/// How many calls of kevent(2) this thread makes while `body` runs, and how many changes they have.
pub(crate) fn calls(body: impl FnOnce()) -> (u64, usize) {
    let before = (CALLS.get(), CHANGES.get());
    body();
    (CALLS.get() - before.0, CHANGES.get() - before.1)
}

/// What `can_rearm` of the crate's own says of the kernel of the kqueues that this thread creates.
pub(crate) fn can_rearm() -> bool {
    KERNEL.get().can_rearm()
}

/// Runs `create`; the kqueues that it creates are of this kernel.
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

/// The next call on this kqueue with a change that has `flag` does nothing but fail with `errno`, as a
/// kernel may that has no memory for it.
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
    // A kernel has memory of its own.
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
    // Without room for an event, the call returns whatever the timeout is.
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
        // Before the look: what arrives while a signal handler keeps this thread past the deadline is found.
        let left = deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()));
        let written = lock().collect(kq, events)?;
        if written == 0 && lock().is_interrupted(timeout) {
            return Err(Errno::EINTR.into());
        }
        if written > 0 || left == Some(Duration::ZERO) {
            return Ok(written);
        }
        // Not epoll_wait(2), which would take the events out while nobody holds the lock. In
        // slices, since a stop and continue gives ppoll(2) the time again that the stop took.
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

/// Applies each change, and returns how many receipts and errors were written, if that ends the call.
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
            // It activates the knote before it disables it: `kqueue_register`, before 10.
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
            // The changes that follow are lost, also where this one succeeded. FreeBSD and NetBSD forget how
            // many they wrote: `kqueue_kevent` returns its error, 0.
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

/// Nobody holds a lock between two changes: now and then, another thread runs there.
fn let_others_in(changes: usize) {
    const NOW_AND_THEN: u64 = 64;
    if changes > 1 && CALLS.get() % NOW_AND_THEN == 0 {
        thread::yield_now();
    }
}

/// The knotes of one kqueue.
struct Kqueue {
    kernel: Kernel,
    /// How many polls found nothing so far.
    empty_polls: u32,
    /// How many threads wait.
    waiting: u32,
    /// How many knotes that dispatch were reported.
    dispatched: u32,
    queues: Queues,
    knotes: HashMap<u64, Knote>,
    ids: HashMap<(Filter, usize), u64>,
    last_id: u64,
    /// See [`fail_next`].
    failing: Option<(Flags, Errno)>,
    /// Readable while a level is queued that was reported, and of which nobody has looked whether it still
    /// holds. It is not made before the first one.
    queued: Option<File>,
}

struct Knote {
    /// What was registered, with the flags of the first EV_ADD.
    registered: Kevent,
    is_enabled: bool,
    /// The descriptor that it names, as it was then.
    named: Option<Metadata>,
    /// What is readable while the knote is active, if that is not the descriptor that it names.
    own: Option<File>,
    seen: Seen,
}

/// What a knote remembers of its descriptor.
struct Seen {
    /// It is a socket that listens, and is read.
    is_listener: bool,
    /// When a timer was started.
    since: Instant,
    /// How much there was to read, or how many to accept, in a pipe or a listening socket.
    amount: Option<u64>,
    /// Out-of-band data was reported, as a level: macOS's note of it stays.
    has_oob: bool,
    /// The end was reported that the program's own shutdown of reading is.
    is_deaf: bool,
    /// It is a Unix datagram socket that could not be written since the filter last ran by a change.
    was_full: bool,
}

impl Default for Seen {
    fn default() -> Self {
        let since = Instant::now();
        Self {
            is_listener: false,
            since,
            amount: None,
            has_oob: false,
            is_deaf: false,
            was_full: false,
        }
    }
}

impl Kqueue {
    fn new(kernel: Kernel) -> Self {
        Self {
            kernel,
            empty_polls: 0,
            waiting: 0,
            dispatched: 0,
            queues: Queues { kernel, others: BTreeMap::new() },
            knotes: HashMap::new(),
            ids: HashMap::new(),
            last_id: 0,
            failing: None,
            queued: None,
        }
    }

    /// Whether a signal ends this poll, which found nothing: without KEVENT_FLAG_IMMEDIATE macOS sleeps even
    /// so (`kqueue_scan_continue`). Here now and then.
    fn is_interrupted(&mut self, timeout: Option<Duration>) -> bool {
        if self.kernel != Kernel::Apple || timeout != Some(Duration::ZERO) {
            return false;
        }
        self.empty_polls += 1;
        self.empty_polls % 5 == 0
    }

    fn change(&mut self, kq: BorrowedFd<'_>, change: &Kevent) -> io::Result<()> {
        let key = (change.filter, change.ident);
        let named = match change.filter {
            EVFILT_READ | EVFILT_WRITE | EXCEPT => named(change.ident),
            // NetBSD has had it since 10.
            EVFILT_USER if self.kernel != Kernel::NetBsd => None,
            EVFILT_PROC | EVFILT_TIMER => None,
            _ => return Err(Errno::EINVAL.into()),
        };
        // NetBSD accepts it: `kqueue_register`.
        let is_both = change.has(EV_ENABLE) && change.has(EV_DISABLE);
        if is_both && self.kernel != Kernel::NetBsd {
            return Err(Errno::EINVAL.into());
        }
        let mut id = self.ids.get(&key).copied();
        if let Some(closed) = id.filter(|id| !self.knotes[id].is_of(named.as_ref())) {
            self.forget(closed);
            id = None;
        }
        // macOS looks at the descriptor only for EV_ADD, and has no knote of a bad one: `knote_fdfind`.
        let looks = self.kernel != Kernel::Apple || change.has(EV_ADD);
        let is_of_descriptor = matches!(change.filter, EVFILT_READ | EVFILT_WRITE | EXCEPT);
        if looks && is_of_descriptor && named.is_none() {
            return Err(Errno::EBADF.into());
        }
        match id {
            None if change.has(EV_ADD) => self.attach(kq, change, named),
            None => Err(Errno::ENOENT.into()),
            Some(id) if change.has(EV_DELETE) => {
                self.take_off_the_queue();
                if self.knotes[&id].is_enabled {
                    self.queues.disarm(kq, &self.knotes[&id]);
                }
                self.forget(id);
                Ok(())
            }
            Some(id) => self.touch(kq, id, change),
        }
    }

    fn attach(
        &mut self,
        kq: BorrowedFd<'_>,
        change: &Kevent,
        named: Option<Metadata>,
    ) -> io::Result<()> {
        let mut registered = *change;
        let own = match change.filter {
            EVFILT_READ => None,
            // Another kqueue can be read, and no more: `kqueue_kqfilter`.
            EVFILT_WRITE | EXCEPT if kqueues_have(change.ident) => {
                return Err(match self.kernel {
                    Kernel::NetBsd => Errno::EPERM,
                    Kernel::DragonFly => Errno::EOPNOTSUPP,
                    _ => Errno::EINVAL,
                }
                .into());
            }
            // macOS registers it, since 10.15. The others hang this filter on the other end, whichever this
            // one is: `pipe_kqfilter`.
            EVFILT_WRITE
                if self.kernel != Kernel::Apple
                    && is_pipe_without_its_other_end(change.ident, named.as_ref())? =>
            {
                let is_netbsd = self.kernel == Kernel::NetBsd;
                return Err(if is_netbsd { Errno::EBADF } else { Errno::EPIPE }.into());
            }
            // A filter of sockets: `pipe_kqfilter`, `vn_kqfilter`.
            EXCEPT if self.kernel.has_priority() && !named.as_ref().is_some_and(is_socket) => {
                let is_dragonfly = self.kernel == Kernel::DragonFly;
                return Err(if is_dragonfly { Errno::EOPNOTSUPP } else { Errno::EINVAL }.into());
            }
            // FreeBSD's pipes go both ways, so that a reading end can be written as well.
            EVFILT_WRITE
                if self.kernel == Kernel::FreeBsd
                    && named.as_ref().is_some_and(is_fifo)
                    && state::is_only(change.ident, OFlag::O_RDONLY) =>
            {
                Some(eventfd(false)?)
            }
            EVFILT_WRITE | EXCEPT => None,
            // FreeBSD clears the fflags before it attaches: `kqueue_register`.
            EVFILT_USER => {
                let is_triggered = change.fflags & NOTE_TRIGGER != 0;
                Some(eventfd(is_triggered && self.kernel != Kernel::FreeBsd)?)
            }
            EVFILT_TIMER => {
                registered.flags |= EV_CLEAR;
                check_ticks(self.kernel, change)?;
                Some(timer(change)?)
            }
            _ => {
                registered.flags |= EV_CLEAR | EV_ONESHOT;
                if let Some(errno) = NEXT_PROC.take() {
                    return Err(errno.into());
                }
                // FreeBSD finds one that has ended: `filt_procattach`.
                Some(exit_of(change.ident, self.kernel == Kernel::FreeBsd)?)
            }
        };
        self.last_id += 1;
        let id = FIRST_ID + self.last_id;
        let is_enabled = !change.has(EV_DISABLE);
        let seen = Seen {
            is_listener: change.filter == EVFILT_READ && state::is_listener(change.ident),
            ..Seen::default()
        };
        let mut knote = Knote { registered, is_enabled, named, own, seen };
        if is_enabled {
            self.queues.arm(kq, id, &mut knote)?;
        }
        self.ids.insert((change.filter, change.ident), id);
        self.knotes.insert(id, knote);
        Ok(())
    }

    /// Changes a knote that exists. Its flags stay as they are, so that it goes on to clear, to
    /// dispatch or to end as it did.
    fn touch(&mut self, kq: BorrowedFd<'_>, id: u64, change: &Kevent) -> io::Result<()> {
        let knote = self.knotes.get_mut(&id).expect("its id is known");
        // `kqueue_register` of OpenBSD and NetBSD takes these from EV_ADD only, that of the others from
        // every change. A user event takes them always (`filt_usermodify`), or never on DragonFly BSD.
        let takes_all = !matches!(self.kernel, Kernel::OpenBsd | Kernel::NetBsd);
        let takes = match change.filter {
            EVFILT_USER => self.kernel != Kernel::DragonFly,
            _ => takes_all || change.has(EV_ADD),
        };
        if takes {
            let Kevent { fflags, data, udata, .. } = *change;
            knote.registered = Kevent { fflags, data, udata, ..knote.registered };
        }
        match (change.filter, &mut knote.own) {
            (EVFILT_USER, Some(trigger)) => {
                if change.fflags & NOTE_TRIGGER != 0 {
                    trigger.write_all(&1_u64.to_ne_bytes())?;
                }
                // In this order: both together lose the trigger. macOS clears only what was added with
                // EV_CLEAR, when it is reported: `filt_usertouch`.
                if change.has(EV_CLEAR) && self.kernel != Kernel::Apple {
                    expirations(trigger);
                }
            }
            (EVFILT_TIMER, own) if change.has(EV_ADD) => {
                check_ticks(self.kernel, change)?;
                *own = Some(timer(change)?);
                knote.seen.since = Instant::now();
            }
            _ => {}
        }
        knote.seen.was_full = false;
        let was_enabled = knote.is_enabled;
        knote.is_enabled = !change.has(EV_DISABLE) && (was_enabled || change.has(EV_ENABLE));
        match (was_enabled, knote.is_enabled) {
            (true, false) => self.queues.disarm(kq, knote),
            (false, true) => self.queues.arm(kq, id, knote)?,
            // Where it takes all of a change, it runs the filter as well: `kqueue_register`.
            (true, true) if change.has(EV_ADD) || takes_all => self.queues.arm(kq, id, knote)?,
            _ => {}
        }
        Ok(())
    }

    fn forget(&mut self, id: u64) {
        if let Some(Knote { registered, .. }) = self.knotes.remove(&id) {
            self.ids.remove(&(registered.filter, registered.ident));
        }
    }

    /// Reports what is active, as far as there is room: all that can be read before all that can be
    /// written, however many descriptors there are.
    fn collect(&mut self, kq: BorrowedFd<'_>, events: &mut [Kevent]) -> io::Result<usize> {
        self.take_off_the_queue();
        self.look_for_full_datagram_sockets();
        let mut active = self.more_edges(events.len());
        active.retain(|(id, _)| self.is_there(*id));
        loop {
            let mut found = self.queues.ready(kq, events.len() - active.len())?;
            let count = found.len();
            found.retain(|(id, bits)| self.is_there(*id) && !self.is_silent(*id, *bits));
            let is_done = found.len() == count;
            active.retain(|(id, _)| found.iter().all(|(other, _)| id != other));
            active.append(&mut found);
            if is_done {
                break;
            }
        }
        for (event, (id, bits)) in events.iter_mut().zip(&active) {
            *event = self.report(kq, *id, *bits);
        }
        let is_level = |event: &Kevent| event.flags & (EV_CLEAR | EV_DISPATCH | EV_ONESHOT) == 0;
        if events[..active.len()].iter().any(is_level) {
            self.put_back_on_the_queue(kq)?;
        }
        Ok(active.len())
    }

    /// A level that was reported is queued again, so that the kqueue is readable: `filt_kqueue`,
    /// `kqueue_poll`.
    fn put_back_on_the_queue(&mut self, kq: BorrowedFd<'_>) -> io::Result<()> {
        if !matches!(self.kernel, Kernel::Apple | Kernel::FreeBsd | Kernel::NetBsd) {
            return Ok(());
        }
        let queued = match &mut self.queued {
            Some(queued) => queued,
            none => {
                let queued = none.insert(eventfd(false)?);
                epoll::add(kq, queued.as_raw_fd(), epoll::EPOLLIN, QUEUED_ID)?;
                queued
            }
        };
        queued.write_all(&1_u64.to_ne_bytes())
    }

    fn take_off_the_queue(&mut self) {
        self.queued.as_mut().map(expirations);
    }

    /// Notes which of them cannot be written, where a read of the peer is no news.
    fn look_for_full_datagram_sockets(&mut self) {
        if self.kernel == Kernel::Apple {
            self.knotes.values_mut().for_each(Knote::look_whether_it_is_full);
        }
    }

    /// The edges that this kernel has and epoll has not, by what became of the descriptor since.
    fn more_edges(&mut self, room: usize) -> Vec<(u64, u32)> {
        let kernel = self.kernel;
        let news = |(id, knote): (&u64, &mut Knote)| {
            let bits = (knote.is_edge() && knote.is_enabled).then(|| knote.more_edges(kernel));
            bits.flatten().map(|bits| (*id, bits))
        };
        self.knotes.iter_mut().filter_map(news).take(room).collect()
    }

    /// Whether this kernel does not report what epoll does.
    fn is_silent(&mut self, id: u64, bits: u32) -> bool {
        let kernel = self.kernel;
        self.knotes.get_mut(&id).is_some_and(|knote| knote.is_silent(kernel, bits))
    }

    /// Epoll goes on about a descriptor that was closed while a duplicate of it lives.
    fn is_there(&mut self, id: u64) -> bool {
        let Some(knote) = self.knotes.get(&id) else { return false };
        let is_there = knote.named.is_none() || knote.is_of(named(knote.registered.ident).as_ref());
        if !is_there {
            self.forget(id);
        }
        is_there
    }

    fn report(&mut self, kq: BorrowedFd<'_>, id: u64, bits: u32) -> Kevent {
        let kernel = self.kernel;
        let knote = self.knotes.get_mut(&id).expect("it is there");
        let event = knote.event(kernel, bits);
        // NetBSD looks at EV_CLEAR first, and then no further: `kqueue_scan`.
        let dispatches =
            event.has(EV_DISPATCH) && !(kernel == Kernel::NetBsd && event.has(EV_CLEAR));
        // It unlocks the queue while it runs the filter, so that two waits may report one knote.
        self.dispatched += u32::from(dispatches);
        let is_for_two = kernel == Kernel::NetBsd && self.waiting > 1 && self.dispatched % 8 == 0;
        if event.has(EV_ONESHOT) {
            self.queues.disarm(kq, knote);
            self.forget(id);
        } else if dispatches && !is_for_two {
            knote.is_enabled = false;
            self.queues.disarm(kq, knote);
        } else if !knote.is_edge() && self.queues.arm(kq, id, knote).is_err() {
            self.forget(id);
        }
        event
    }
}

impl Knote {
    /// Whether the descriptor that it names is still the one that it named.
    fn is_of(&self, named: Option<&Metadata>) -> bool {
        is_same(self.named.as_ref(), named)
    }

    /// What is reported of it, which clears what is its own and to be cleared.
    fn event(&mut self, kernel: Kernel, bits: u32) -> Kevent {
        let event = self.registered;
        let mut clear = || self.own.as_mut().map_or(0, expirations);
        match event.filter {
            // macOS counts how often it could have gone off: `filt_timerprocess`.
            EVFILT_TIMER if kernel == Kernel::Apple && event.has(EV_ONESHOT) => {
                clear();
                let periods = self.seen.since.elapsed().as_nanos() / period(&event).as_nanos();
                Kevent { data: i64::try_from(periods.max(1)).unwrap_or(i64::MAX), ..event }
            }
            EVFILT_TIMER => Kevent { data: clear(), ..event },
            EVFILT_USER => {
                if event.has(EV_CLEAR) {
                    clear();
                }
                Kevent { fflags: event.fflags & !NOTE_TRIGGER, ..event }
            }
            EVFILT_PROC => Kevent { flags: event.flags | EV_EOF, fflags: NOTE_EXIT, ..event },
            _ => self.descriptor_event(kernel, bits),
        }
    }

    fn descriptor_event(&mut self, kernel: Kernel, bits: u32) -> Kevent {
        let bits = if self.is_broken() { bits | epoll::EPOLLHUP } else { bits };
        let mut event = descriptor_event(self.registered, bits, self.is_socket());
        let is_end = event.has(EV_EOF);
        if kernel == Kernel::FreeBsd && is_end && event.filter == EVFILT_WRITE && self.is_fifo() {
            // The other end's close drops the knotes that hang on it: `pipeclose`, `knlist_clear`.
            event.flags |= EV_ONESHOT;
        }
        if event.filter == EXCEPT {
            // `filt_soread_common`: the note is cleared with EV_CLEAR, and overwritten at the end.
            let stays = kernel == Kernel::Apple && !event.has(EV_CLEAR) && !is_end;
            self.seen.has_oob |= stays && event.fflags & NOTE_OOB != 0;
            if stays && self.seen.has_oob {
                event.fflags |= NOTE_OOB;
            }
        }
        let can_be_deaf = matches!(kernel, Kernel::FreeBsd | Kernel::NetBsd)
            && event.filter == EVFILT_READ
            && event.has(EV_CLEAR);
        if can_be_deaf && is_end && state::is_established(self.named.as_ref()) {
            self.seen.is_deaf = true;
        }
        event
    }

    /// Whether this kernel does not report what epoll does.
    fn is_silent(&mut self, kernel: Kernel, bits: u32) -> bool {
        match (kernel, self.registered.filter) {
            // A vnode's filter is silent at the end of a file.
            (_, EVFILT_READ) if self.is_file() => {
                state::is_at_its_end(self.registered.ident, self.named.as_ref())
            }
            // macOS has an end of a pipe, and none of a named one: `filt_vnode_common`.
            (Kernel::Apple, EVFILT_READ) if self.is_fifo() && self.is_named() => {
                bits & epoll::EPOLLIN == 0
            }
            (Kernel::Apple, EVFILT_WRITE) if self.is_fifo() && self.is_named() => {
                bits & epoll::EPOLLOUT == 0
            }
            // It has no such filter, which pollio never names there.
            (Kernel::FreeBsd | Kernel::NetBsd, EXCEPT) => true,
            // macOS's mark is the size of the buffer, and no connection that can be accepted is below it:
            // `filt_soread_common`.
            (Kernel::Apple, EXCEPT) if self.registered.fflags & NOTE_LOWAT != 0 => {
                let ident = self.registered.ident;
                bits == epoll::EPOLLIN && !state::is_full(ident) && !state::is_listener(ident)
            }
            // `filt_soexcept` and `filt_soread` look only at out-of-band data.
            (Kernel::OpenBsd | Kernel::DragonFly, EXCEPT) => bits & epoll::EPOLLPRI == 0,
            // `sorflush` takes the mark of a knote away with the buffer.
            (Kernel::FreeBsd | Kernel::NetBsd, EVFILT_READ)
                if self.is_edge() && self.seen.is_deaf =>
            {
                true
            }
            // `uipc_rcvd` wakes nobody who waits for room.
            (Kernel::Apple, EVFILT_WRITE) => self.seen.was_full,
            // `pipeclose` wakes nobody who waits for room.
            (Kernel::NetBsd, EVFILT_WRITE) if self.is_fifo() => bits & epoll::EPOLLOUT == 0,
            (Kernel::NetBsd, EVFILT_READ) if self.is_pty_master() => bits & epoll::EPOLLIN == 0,
            _ => false,
        }
    }

    /// The edge that this kernel has and epoll has not, if there is one.
    fn more_edges(&mut self, kernel: Kernel) -> Option<u32> {
        let is_accept = matches!(kernel, Kernel::FreeBsd | Kernel::NetBsd) && self.seen.is_listener;
        let amount = if is_accept {
            // `kern_accept4` ends in KNOTE.
            state::to_accept(self.named.as_ref())?
        } else if self.is_fifo()
            && matches!(kernel, Kernel::Apple | Kernel::FreeBsd | Kernel::NetBsd)
        {
            // Every read that leaves something and every write wake both ends: `pipe_read`. So does a close.
            let closed = u64::from(self.is_broken()) << 32;
            state::unread(self.registered.ident)? | closed
        } else {
            return None;
        };
        let before = self.seen.amount.replace(amount)?;
        let ident = self.registered.ident;
        match self.registered.filter {
            EVFILT_READ if (1..before).contains(&amount) => Some(epoll::EPOLLIN),
            EVFILT_WRITE if amount != before && (self.own.is_some() || state::has_room(ident)) => {
                Some(epoll::EPOLLOUT)
            }
            _ => None,
        }
    }

    fn look_whether_it_is_full(&mut self) {
        let ident = self.registered.ident;
        self.seen.was_full |= self.registered.filter == EVFILT_WRITE
            && self.is_socket()
            && state::is_unix_datagram(ident)
            && !state::has_room(ident);
    }

    fn is_file(&self) -> bool {
        self.named.as_ref().is_some_and(|file| file.file_type().is_file())
    }

    fn is_fifo(&self) -> bool {
        self.named.as_ref().is_some_and(is_fifo)
    }

    /// Whether it is the reading end of a pipe, to be written, of which the other end is gone.
    fn is_broken(&self) -> bool {
        let is_one = self.own.is_some() && self.is_fifo();
        is_one
            && is_pipe_without_its_other_end(self.registered.ident, self.named.as_ref())
                .unwrap_or(false)
    }

    /// Whether its descriptor has a name in a folder, as what mkfifo(2) makes.
    fn is_named(&self) -> bool {
        let path = fs::read_link(format!("/proc/self/fd/{}", self.registered.ident));
        path.is_ok_and(|path| path.is_absolute())
    }

    fn is_pty_master(&self) -> bool {
        // /dev/ptmx, whose device is 5, 2.
        self.named.as_ref().is_some_and(|file| file.rdev() == 5 << 8 | 2)
    }

    fn is_socket(&self) -> bool {
        self.named.as_ref().is_some_and(is_socket)
    }

    fn watched(&self) -> RawFd {
        let ident = || RawFd::try_from(self.registered.ident).unwrap_or(-1);
        self.own.as_ref().map_or_else(ident, AsRawFd::as_raw_fd)
    }

    /// What is its own is cleared by reading it.
    fn is_edge(&self) -> bool {
        self.registered.has(EV_CLEAR) && self.named.is_some()
    }
}

/// The epoll instances of a kqueue: the kqueue itself, and by filter the others.
struct Queues {
    kernel: Kernel,
    others: BTreeMap<Filter, OwnedFd>,
}

/// No filter's, and no knote's.
const QUEUED_ID: u64 = 0;

/// Ids of knotes are above those that the kqueue's epoll instance has for the other ones.
const FIRST_ID: u64 = 1 << 16;

impl Queues {
    fn of<'a>(&'a mut self, kq: BorrowedFd<'a>, filter: Filter) -> io::Result<BorrowedFd<'a>> {
        if !matches!(filter, EVFILT_WRITE | EXCEPT) {
            return Ok(kq);
        }
        let queue: &OwnedFd = match self.others.entry(filter) {
            Entry::Occupied(queue) => queue.into_mut(),
            Entry::Vacant(place) => {
                let queue = epoll::create()?;
                epoll::add(kq, queue.as_raw_fd(), epoll::EPOLLIN, queue_id(filter))?;
                place.insert(queue)
            }
        };
        Ok(queue.as_fd())
    }

    /// Has epoll report the knote: once for each arrival, or once until it is armed again. If it is
    /// ready, that is now.
    fn arm(&mut self, kq: BorrowedFd<'_>, id: u64, knote: &mut Knote) -> io::Result<()> {
        let filter = knote.registered.filter;
        let bits = match filter {
            EVFILT_WRITE => epoll::EPOLLOUT,
            // macOS reports any data, as EVFILT_READ does, from the low-water mark on. That is never more
            // than the buffer holds.
            EXCEPT if self.kernel == Kernel::Apple => {
                epoll::EPOLLPRI | epoll::EPOLLIN | epoll::EPOLLRDHUP
            }
            EXCEPT => epoll::EPOLLPRI | epoll::EPOLLRDHUP,
            _ => epoll::EPOLLIN | epoll::EPOLLRDHUP,
        };
        // What is not reported must not be reported again and again, nor be lost.
        let is_filtered = filter == EXCEPT && self.kernel == Kernel::Apple;
        let is_edge = knote.is_edge() || is_filtered;
        let often = if is_edge { epoll::EPOLLET } else { epoll::EPOLLONESHOT };
        let queue = self.of(kq, filter)?;
        let armed = match epoll::modify(queue, knote.watched(), bits | often, id) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                epoll::add(queue, knote.watched(), bits | often, id)
            }
            armed => armed,
        };
        match armed {
            // What epoll cannot watch, such as a regular file, is always ready.
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
                knote.own = Some(eventfd(true)?);
                self.arm(kq, id, knote)
            }
            armed => armed,
        }
    }

    fn disarm(&mut self, kq: BorrowedFd<'_>, knote: &Knote) {
        // It fails on what was closed in between, which needs no more.
        let _ = self
            .of(kq, knote.registered.filter)
            .and_then(|queue| epoll::delete(queue, knote.watched()));
    }

    /// What is ready, up to `room`: ids and bits.
    fn ready(&self, kq: BorrowedFd<'_>, room: usize) -> io::Result<Vec<(u64, u32)>> {
        let wait = |queue, room| {
            let mut events = vec![epoll::NO_EVENT; room];
            let count = if room == 0 { 0 } else { epoll::wait(queue, &mut events, 0)? };
            events.truncate(count);
            Ok::<_, io::Error>(events.into_iter().map(|event| (event.u64, event.events)))
        };
        let (mut ready, queues): (Vec<_>, Vec<_>) =
            wait(kq, room)?.partition(|(id, _)| *id > FIRST_ID);
        for (filter, queue) in &self.others {
            let room = room - ready.len();
            if room > 0 && queues.iter().any(|(id, _)| *id == queue_id(*filter)) {
                ready.extend(wait(queue.as_fd(), room)?);
            }
        }
        Ok(ready)
    }
}

fn queue_id(filter: Filter) -> u64 {
    filter.unsigned_abs().into()
}

/// What epoll's bits are to a filter of descriptors.
fn descriptor_event(registered: Kevent, bits: u32, is_socket: bool) -> Kevent {
    let is_error = bits & epoll::EPOLLERR != 0;
    let end = match registered.filter {
        // A pipe that cannot be written any more has an error, and no hang-up.
        EVFILT_WRITE if !is_socket => epoll::EPOLLHUP | epoll::EPOLLERR,
        EVFILT_WRITE => epoll::EPOLLHUP,
        EVFILT_READ if !is_socket => epoll::EPOLLHUP | epoll::EPOLLRDHUP | epoll::EPOLLERR,
        _ => epoll::EPOLLHUP | epoll::EPOLLRDHUP,
    };
    let mut event = Kevent { fflags: 0, data: 1, ..registered };
    if registered.filter == EXCEPT
        && registered.fflags & NOTE_OOB != 0
        && bits & epoll::EPOLLPRI != 0
    {
        event.fflags = NOTE_OOB;
    } else if bits & end != 0 {
        event.flags |= EV_EOF;
        if is_error && is_socket {
            // Which one it is, only SO_ERROR says, and takes it away from the program. This one
            // has the bit of NOTE_OOB, as BSD's ECONNRESET has.
            event.fflags = Errno::ECONNREFUSED as u32;
        }
    }
    event
}

fn named_by(fd: RawFd) -> Option<Metadata> {
    named(usize::try_from(fd).ok()?)
}

fn is_same(one: Option<&Metadata>, other: Option<&Metadata>) -> bool {
    let identity = |file: &Metadata| (file.dev(), file.ino());
    one.map(identity) == other.map(identity)
}

fn is_socket(file: &Metadata) -> bool {
    file.file_type().is_socket()
}

fn kqueues_have(ident: usize) -> bool {
    RawFd::try_from(ident).is_ok_and(|fd| kqueue_of(fd).is_some())
}

fn is_fifo(file: &Metadata) -> bool {
    file.file_type().is_fifo()
}

fn is_pipe_without_its_other_end(ident: usize, named: Option<&Metadata>) -> io::Result<bool> {
    if !named.is_some_and(is_fifo) {
        return Ok(false);
    }
    let (queue, mut events) = (epoll::create()?, [epoll::NO_EVENT]);
    let fd = RawFd::try_from(ident).map_err(|_| Errno::EBADF)?;
    epoll::add(queue.as_fd(), fd, 0, 0)?;
    let count = epoll::wait(queue.as_fd(), &mut events, 0)?;
    // The writing end has an error then, the reading end a hang-up.
    Ok(count > 0)
}

fn eventfd(is_ready: bool) -> io::Result<File> {
    let flags = EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK;
    let eventfd = EventFd::from_value_and_flags(is_ready.into(), flags)?;
    Ok(OwnedFd::from(eventfd).into())
}

/// More ticks than an `int` has make NetBSD panic (`callout_schedule_locked`), and others' timers go off early.
fn check_ticks(kernel: Kernel, timer: &Kevent) -> io::Result<()> {
    const TICK: Duration = Duration::from_millis(10);
    let ticks = period(timer).as_nanos() / TICK.as_nanos();
    let is_over = kernel.counts_timers_in_ticks() && ticks > i32::MAX as u128;
    if is_over { Err(Errno::EOVERFLOW.into()) } else { Ok(()) }
}

/// The time of a timer that was accepted.
fn period(timer: &Kevent) -> Duration {
    let data = timer.data.unsigned_abs().max(1);
    if timer.fflags & NOTE_NSECONDS != 0 {
        Duration::from_nanos(data)
    } else {
        Duration::from_millis(data)
    }
}

/// A timer that goes off every `data` milliseconds or nanoseconds, or once.
fn timer(change: &Kevent) -> io::Result<File> {
    if change.data < 0 || ![0, NOTE_NSECONDS].contains(&(change.fflags & !CONTINUOUS)) {
        return Err(Errno::EINVAL.into());
    }
    let time = period(change);
    let clock = match change.fflags & CONTINUOUS {
        0 => ClockId::CLOCK_MONOTONIC,
        _ => ClockId::CLOCK_BOOTTIME,
    };
    let timer = TimerFd::new(clock, TimerFlags::TFD_CLOEXEC | TimerFlags::TFD_NONBLOCK)?;
    let expiration =
        if change.has(EV_ONESHOT) { Expiration::OneShot } else { Expiration::Interval };
    timer.set(expiration(time.into()), TimerSetTimeFlags::empty())?;
    Ok(OwnedFd::from(timer).into())
}

/// How often a timer went off, or a user event was triggered, since it was asked last.
fn expirations(own: &mut File) -> i64 {
    let mut count = [0; size_of::<i64>()];
    own.read_exact(&mut count).map_or(0, |()| i64::from_ne_bytes(count))
}

/// What is readable once a child has ended. One that already has, and was not waited for, is found by
/// some kernels and not by others.
fn exit_of(ident: usize, finds_ended: bool) -> io::Result<File> {
    let ended = WaitPidFlag::WEXITED | WaitPidFlag::WNOWAIT;
    let pid = Pid::from_raw(ident.try_into().map_err(|_| Errno::ESRCH)?);
    match waitid(Id::Pid(pid), ended | WaitPidFlag::WNOHANG) {
        Ok(WaitStatus::StillAlive) => {}
        Ok(_) if finds_ended => return eventfd(true),
        _ => return Err(Errno::ESRCH.into()),
    }
    let own = eventfd(false)?;
    let mut waker = own.try_clone()?;
    thread::spawn(move || {
        while waitid(Id::Pid(pid), ended) == Err(Errno::EINTR) {}
        waker.write_all(&1_u64.to_ne_bytes())
    });
    Ok(own)
}
