//! A model of kqueue(2): what the backend for macOS and the BSDs asks of its kernel, on Linux.
//!
//! A kqueue is an epoll instance, so that it can be waited for, watched by another kqueue, and
//! closed; its knotes stand in a table beside it. A knote is what epoll watches for it: the
//! descriptor that it names, or one of its own for what is none. Epoll takes a descriptor only
//! once, hence the write and except filters have an epoll instance each, within the kqueue's.
//!
//! Where the kernels differ, the model does what is harder for its caller, and says so.
//!
//! A close is found out when the model next looks at the number. If by then it is that of a file with
//! the same inode, such as another eventfd, its knotes go on.
//!
//! Left out are the filters that pollio does not use, low-water marks, `NOTE_FF…`, what a duplicate
//! of a kqueue's descriptor does, how many bytes are ready (`data` is 1), how a process ended, and
//! the end that a socket's own shutdown is to EVFILT_WRITE. A kqueue that was closed frees what it
//! has beside its descriptor when the model is called next; readers have nothing beside.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, HashMap};
use std::fs::{self, File, Metadata};
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::sync::{Arc, Mutex, MutexGuard};
use std::thread;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, ppoll};
use nix::sys::eventfd::{EfdFlags, EventFd};
use nix::sys::timerfd::{ClockId, Expiration, TimerFd, TimerFlags, TimerSetTimeFlags};
use nix::sys::wait::{Id, WaitPidFlag, WaitStatus, waitid};
use nix::unistd::Pid;

use super::epoll;
pub(crate) use entry::Kevent;

mod entry;
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
pub(crate) const TIMER_UNIT: Duration = Duration::from_nanos(1);

/// The longest timeout that is not EINVAL: that of older macOS. Newer ones take 2³¹ - 1 seconds,
/// FreeBSD takes any, and OpenBSD took 24 hours for whatever is longer.
const LONGEST_TIMEOUT: Duration = Duration::from_secs(100_000_000);

/// How long the model sleeps at a time.
const SLICE: Duration = Duration::from_millis(10);

impl Kevent {
    fn has(&self, flag: Flags) -> bool {
        self.flags & flag != 0
    }
}

/// Every kqueue, by its descriptor. Nobody tells us when that is closed, see [`kqueues`].
static KQUEUES: Mutex<BTreeMap<RawFd, Arc<Mutex<Kqueue>>>> = Mutex::new(BTreeMap::new());

/// The next call on this kqueue with a change that has `flag` does nothing but fail with `errno`, as a
/// kernel may that has no memory for it.
pub(crate) fn fail_next(kq: BorrowedFd<'_>, flag: Flags, errno: Errno) {
    let kqueue = kqueues()[&kq.as_raw_fd()].clone();
    kqueue.lock().expect("no call panics").failing = Some((flag, errno));
}

/// A new kqueue, close-on-exec.
pub(crate) fn kqueue() -> io::Result<OwnedFd> {
    let kq = epoll::create()?;
    kqueues().insert(kq.as_raw_fd(), Arc::default());
    Ok(kq)
}

/// Applies `changes`, then waits for events up to `timeout`, for ever if there is none, and says
/// how many of `events` were written.
pub(crate) fn kevent(
    kq: BorrowedFd<'_>,
    changes: &[Kevent],
    events: &mut [Kevent],
    timeout: Option<Duration>,
) -> io::Result<usize> {
    let kqueue = kqueues().get(&kq.as_raw_fd()).cloned().ok_or(Errno::EBADF)?;
    let lock = || kqueue.lock().expect("no call panics");
    if timeout.is_some_and(|timeout| timeout > LONGEST_TIMEOUT) {
        return Err(Errno::EINVAL.into());
    }
    let receipts = lock().apply(kq, changes, events)?;
    // Without room for an event, the call returns whatever the timeout is.
    if receipts > 0 || events.is_empty() {
        return Ok(receipts);
    }
    let deadline = timeout.map(|timeout| Instant::now() + timeout);
    loop {
        let told = lock().collect(kq, events)?;
        let left = deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()));
        if told > 0 || left == Some(Duration::ZERO) {
            return Ok(told);
        }
        // Not epoll_wait(2), which would take the events out while nobody holds the lock. In
        // slices, since a stop and continue gives ppoll(2) the time anew that the stop took.
        let slice = left.map_or(SLICE, |left| left.min(SLICE));
        ppoll(&mut [PollFd::new(kq, PollFlags::POLLIN)], Some(slice.into()), None)?;
    }
}

/// Every kqueue that is still open, as far as can be told: another epoll instance may have its
/// number now.
fn kqueues() -> MutexGuard<'static, BTreeMap<RawFd, Arc<Mutex<Kqueue>>>> {
    let mut kqueues = KQUEUES.lock().expect("no call panics");
    kqueues.retain(|fd, _| {
        fs::read_link(format!("/proc/self/fd/{fd}"))
            .is_ok_and(|path| path.as_os_str() == "anon_inode:[eventpoll]")
    });
    kqueues
}

/// The knotes of one kqueue.
#[derive(Default)]
struct Kqueue {
    queues: Queues,
    knotes: HashMap<u64, Knote>,
    ids: HashMap<(Filter, usize), u64>,
    last_id: u64,
    /// See [`fail_next`].
    failing: Option<(Flags, Errno)>,
}

struct Knote {
    /// What was registered, with the flags of the first EV_ADD.
    registered: Kevent,
    is_enabled: bool,
    /// The descriptor that it names, as it was then.
    named: Option<Metadata>,
    /// What is readable while the knote is active, if that is not the descriptor that it names.
    own: Option<File>,
}

impl Kqueue {
    /// Applies each change, and says how many receipts and errors were written.
    fn apply(
        &mut self,
        kq: BorrowedFd<'_>,
        changes: &[Kevent],
        events: &mut [Kevent],
    ) -> io::Result<usize> {
        let fails = |(flag, _): &mut (Flags, Errno)| changes.iter().any(|one| one.has(*flag));
        if let Some((_, errno)) = self.failing.take_if(fails) {
            return Err(errno.into());
        }
        let mut room = events.iter_mut();
        let mut written = 0;
        for change in changes {
            let done = self.change(kq, change);
            if done.is_ok() && !change.has(EV_RECEIPT) {
                continue;
            }
            let Some(event) = room.next() else {
                // The changes that follow are lost, also where this one succeeded.
                return done.map(|()| written);
            };
            let errno = done.err().and_then(|error| error.raw_os_error()).unwrap_or(0);
            // FreeBSD puts EV_ERROR in place of the flags, macOS beside them.
            *event = Kevent { flags: change.flags | EV_ERROR, data: errno.into(), ..*change };
            written += 1;
        }
        Ok(written)
    }

    fn change(&mut self, kq: BorrowedFd<'_>, change: &Kevent) -> io::Result<()> {
        let key = (change.filter, change.ident);
        let named = match change.filter {
            EVFILT_READ | EVFILT_WRITE | EXCEPT => named(change.ident),
            EVFILT_PROC | EVFILT_TIMER | EVFILT_USER => None,
            _ => return Err(Errno::EINVAL.into()),
        };
        if change.has(EV_ENABLE) && change.has(EV_DISABLE) {
            return Err(Errno::EINVAL.into());
        }
        let mut id = self.ids.get(&key).copied();
        if let Some(closed) = id.filter(|id| !self.knotes[id].is_of(named.as_ref())) {
            self.forget(closed);
            id = None;
        }
        // macOS looks at the descriptor for EV_ADD alone, and knows no knote of a bad one.
        if matches!(change.filter, EVFILT_READ | EVFILT_WRITE | EXCEPT) && named.is_none() {
            return Err(Errno::EBADF.into());
        }
        match id {
            None if change.has(EV_ADD) => self.attach(kq, change, named),
            None => Err(Errno::ENOENT.into()),
            Some(id) if change.has(EV_DELETE) => {
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
            // Another kqueue can be read, and no more.
            EVFILT_WRITE | EXCEPT if kqueues_have(change.ident) => {
                return Err(Errno::EINVAL.into());
            }
            // macOS registers it, NetBSD says EBADF.
            EVFILT_WRITE if is_pipe_without_a_reader(change.ident, named.as_ref())? => {
                return Err(Errno::EPIPE.into());
            }
            EVFILT_WRITE | EXCEPT => None,
            EVFILT_USER => Some(eventfd(change.fflags & NOTE_TRIGGER != 0)?),
            EVFILT_TIMER => {
                registered.flags |= EV_CLEAR;
                Some(timer(change)?)
            }
            _ => {
                registered.flags |= EV_CLEAR | EV_ONESHOT;
                Some(exit_of(change.ident)?)
            }
        };
        self.last_id += 1;
        let id = FIRST_ID + self.last_id;
        let is_enabled = !change.has(EV_DISABLE);
        let mut knote = Knote { registered, is_enabled, named, own };
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
        // FreeBSD, NetBSD and macOS take these from every change, OpenBSD from EV_ADD alone: don't
        // rely on the old ones after EV_DISABLE, nor on the new ones after EV_ENABLE.
        if change.has(EV_ADD) || !change.has(EV_ENABLE) {
            let Kevent { fflags, data, udata, .. } = *change;
            knote.registered = Kevent { fflags, data, udata, ..knote.registered };
        }
        match (change.filter, &mut knote.own) {
            (EVFILT_USER, Some(trigger)) => {
                if change.fflags & NOTE_TRIGGER != 0 {
                    trigger.write_all(&1_u64.to_ne_bytes())?;
                }
                // In this order, as on FreeBSD: both together lose the trigger.
                if change.has(EV_CLEAR) {
                    expirations(trigger);
                }
            }
            (EVFILT_TIMER, own) if change.has(EV_ADD) => *own = Some(timer(change)?),
            _ => {}
        }
        let was_enabled = knote.is_enabled;
        knote.is_enabled = !change.has(EV_DISABLE) && (was_enabled || change.has(EV_ENABLE));
        match (was_enabled, knote.is_enabled) {
            (true, false) => self.queues.disarm(kq, knote),
            (false, true) => self.queues.arm(kq, id, knote)?,
            (true, true) if change.has(EV_ADD) => self.queues.arm(kq, id, knote)?,
            _ => {}
        }
        Ok(())
    }

    fn forget(&mut self, id: u64) {
        if let Some(Knote { registered, .. }) = self.knotes.remove(&id) {
            self.ids.remove(&(registered.filter, registered.ident));
        }
    }

    /// Tells what is active, as far as there is room: all that can be read before all that can be
    /// written, however many descriptors there are.
    fn collect(&mut self, kq: BorrowedFd<'_>, events: &mut [Kevent]) -> io::Result<usize> {
        let mut active = Vec::new();
        loop {
            let mut found = self.queues.ready(kq, events.len() - active.len())?;
            let count = found.len();
            found.retain(|(id, _)| self.is_there(*id));
            let is_done = found.len() == count;
            active.append(&mut found);
            if is_done {
                break;
            }
        }
        for (event, (id, bits)) in events.iter_mut().zip(&active) {
            *event = self.tell(kq, *id, *bits);
        }
        Ok(active.len())
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

    fn tell(&mut self, kq: BorrowedFd<'_>, id: u64, bits: u32) -> Kevent {
        let knote = self.knotes.get_mut(&id).expect("it is there");
        let event = knote.event(bits);
        if event.has(EV_ONESHOT) {
            self.queues.disarm(kq, knote);
            self.forget(id);
        } else if event.has(EV_DISPATCH) {
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
        let identity = |file: &Metadata| (file.dev(), file.ino());
        self.named.as_ref().map(identity) == named.map(identity)
    }

    /// What is told of it, which clears what is its own and to be cleared.
    fn event(&mut self, bits: u32) -> Kevent {
        let event = self.registered;
        let mut clear = || self.own.as_mut().map_or(0, expirations);
        match event.filter {
            EVFILT_TIMER => Kevent { data: clear(), ..event },
            EVFILT_USER => {
                if event.has(EV_CLEAR) {
                    clear();
                }
                Kevent { fflags: event.fflags & !NOTE_TRIGGER, ..event }
            }
            EVFILT_PROC => Kevent { flags: event.flags | EV_EOF, fflags: NOTE_EXIT, ..event },
            _ => descriptor_event(event, bits, self.is_socket()),
        }
    }

    fn is_socket(&self) -> bool {
        self.named.as_ref().is_some_and(|file| file.file_type().is_socket())
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
#[derive(Default)]
struct Queues(BTreeMap<Filter, OwnedFd>);

/// Ids of knotes are above those that the kqueue's epoll instance has for the other ones.
const FIRST_ID: u64 = 1 << 16;

impl Queues {
    fn of<'a>(&'a mut self, kq: BorrowedFd<'a>, filter: Filter) -> io::Result<BorrowedFd<'a>> {
        if !matches!(filter, EVFILT_WRITE | EXCEPT) {
            return Ok(kq);
        }
        let queue: &OwnedFd = match self.0.entry(filter) {
            Entry::Occupied(queue) => queue.into_mut(),
            Entry::Vacant(place) => {
                let queue = epoll::create()?;
                epoll::add(kq, queue.as_raw_fd(), epoll::EPOLLIN, queue_id(filter))?;
                place.insert(queue)
            }
        };
        Ok(queue.as_fd())
    }

    /// Lets epoll tell of the knote: once for each arrival, or once until it is armed again. If it
    /// is ready, that is now.
    fn arm(&mut self, kq: BorrowedFd<'_>, id: u64, knote: &mut Knote) -> io::Result<()> {
        let Kevent { filter, fflags, .. } = knote.registered;
        let bits = match filter {
            EVFILT_WRITE => epoll::EPOLLOUT,
            // macOS tells of any data, as of EVFILT_READ, unless the low-water mark is out of reach.
            EXCEPT if fflags & NOTE_LOWAT == 0 => {
                epoll::EPOLLPRI | epoll::EPOLLIN | epoll::EPOLLRDHUP
            }
            EXCEPT => epoll::EPOLLPRI | epoll::EPOLLRDHUP,
            _ => epoll::EPOLLIN | epoll::EPOLLRDHUP,
        };
        let often = if knote.is_edge() { epoll::EPOLLET } else { epoll::EPOLLONESHOT };
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
        // It fails on what was closed meanwhile, which needs no more.
        let _ = self
            .of(kq, knote.registered.filter)
            .and_then(|queue| epoll::delete(queue, knote.watched()));
    }

    /// What is ready, up to `room`: ids and bits.
    fn ready(&self, kq: BorrowedFd<'_>, room: usize) -> io::Result<Vec<(u64, u32)>> {
        let wait = |queue, room| {
            let mut events = vec![epoll::NO_EVENT; room];
            let count = epoll::wait(queue, &mut events, 0)?;
            events.truncate(count);
            Ok::<_, io::Error>(events.into_iter().map(|event| (event.u64, event.events)))
        };
        let (mut ready, queues): (Vec<_>, Vec<_>) =
            wait(kq, room)?.partition(|(id, _)| *id > FIRST_ID);
        for (filter, queue) in &self.0 {
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
            // Which one it is, only SO_ERROR tells, and takes it away from the program. This one
            // has the bit of NOTE_OOB, as BSD's ECONNRESET has.
            event.fflags = Errno::ECONNREFUSED as u32;
        }
    }
    event
}

/// What a descriptor is, if it is open.
fn named(ident: usize) -> Option<Metadata> {
    fs::metadata(format!("/proc/self/fd/{ident}")).ok()
}

fn kqueues_have(ident: usize) -> bool {
    RawFd::try_from(ident).is_ok_and(|fd| kqueues().contains_key(&fd))
}

fn is_pipe_without_a_reader(ident: usize, named: Option<&Metadata>) -> io::Result<bool> {
    if !named.is_some_and(|file| file.file_type().is_fifo()) {
        return Ok(false);
    }
    let (queue, mut events) = (epoll::create()?, [epoll::NO_EVENT]);
    let fd = RawFd::try_from(ident).map_err(|_| Errno::EBADF)?;
    epoll::add(queue.as_fd(), fd, 0, 0)?;
    let count = epoll::wait(queue.as_fd(), &mut events, 0)?;
    Ok(events.iter().take(count).any(|event| event.events & epoll::EPOLLERR != 0))
}

fn eventfd(is_ready: bool) -> io::Result<File> {
    let flags = EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK;
    let eventfd = EventFd::from_value_and_flags(is_ready.into(), flags)?;
    Ok(OwnedFd::from(eventfd).into())
}

/// A timer that goes off every `data` milliseconds or nanoseconds, or once.
fn timer(change: &Kevent) -> io::Result<File> {
    let data = u64::try_from(change.data).map_err(|_| Errno::EINVAL)?;
    let time = match change.fflags {
        NOTE_NSECONDS => Duration::from_nanos(data.max(1)),
        0 => Duration::from_millis(data.max(1)),
        _ => return Err(Errno::EINVAL.into()),
    };
    let timer =
        TimerFd::new(ClockId::CLOCK_MONOTONIC, TimerFlags::TFD_CLOEXEC | TimerFlags::TFD_NONBLOCK)?;
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

/// What is readable once a child has ended. One that already has, and was not waited for, is not
/// found: so on macOS and OpenBSD, while FreeBSD tells of it at once.
fn exit_of(ident: usize) -> io::Result<File> {
    let ended = WaitPidFlag::WEXITED | WaitPidFlag::WNOWAIT;
    let pid = Pid::from_raw(ident.try_into().map_err(|_| Errno::ESRCH)?);
    if waitid(Id::Pid(pid), ended | WaitPidFlag::WNOHANG) != Ok(WaitStatus::StillAlive) {
        return Err(Errno::ESRCH.into());
    }
    let own = eventfd(false)?;
    let mut waker = own.try_clone()?;
    thread::spawn(move || {
        while waitid(Id::Pid(pid), ended) == Err(Errno::EINTR) {}
        waker.write_all(&1_u64.to_ne_bytes())
    });
    Ok(own)
}
