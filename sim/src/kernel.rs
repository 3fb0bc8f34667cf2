//! Descriptors, the files behind them, and who is notified of what happens to a file.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::io;
use std::os::fd::RawFd;
use std::time::Duration;

use crate::agenda::{Action, When};
use crate::interest_list::InterestList;
use crate::network::{EndId, Listening};
use crate::threads::ThreadId;
use crate::world::State;
use pollio::Readiness;

/// Numbers from here on are given out, so that one which strays into a real system call is `EBADF`.
const FIRST_FD: RawFd = 1 << 20;

/// Every readiness that there is.
pub(super) const ALL: Readiness = Readiness::READABLE
    .union(Readiness::WRITABLE)
    .union(Readiness::PRIORITY)
    .union(Readiness::READ_CLOSED)
    .union(Readiness::WRITE_CLOSED)
    .union(Readiness::ERROR);

/// Never used again, unlike the number of a descriptor.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct FileId(usize);

/// What descriptors refer to, as an open file description.
pub(super) struct File {
    pub(super) kind: Kind,
    /// How many descriptors refer to it.
    descriptors: usize,
    pub(super) is_nonblocking: bool,
    pub(super) read_timeout: Option<Duration>,
    pub(super) write_timeout: Option<Duration>,
    /// The threads that it blocks.
    pub(super) waiters: Vec<ThreadId>,
    /// The interest lists that it is on, each with the number that it has there.
    pub(super) watchers: Vec<(FileId, RawFd)>,
}

pub(super) enum Kind {
    /// What a test says that it is.
    Scripted(Readiness),
    /// A socket that neither listens nor was ever connected.
    Socket(crate::network::Unconnected),
    Listener(Listening),
    Stream(EndId),
    Timer(Timer),
    /// Readable from a wake on.
    Waker(bool),
    /// What a poller watches.
    InterestList(InterestList),
    /// What only blocks threads: the end of one, a queue of messages.
    Gate,
}

#[derive(Default)]
pub(super) struct Timer {
    pub(super) next: Option<When>,
    pub(super) every: Option<Duration>,
    pub(super) expirations: u64,
}

#[derive(Default)]
pub(super) struct Files {
    files: Vec<Option<File>>,
    descriptors: BTreeMap<RawFd, FileId>,
    /// Numbers that were given out and closed: the lowest is used again.
    free: BTreeSet<RawFd>,
    given_out: RawFd,
    /// How many may be open; any number, if none.
    pub(super) limit: Option<usize>,
}

pub(super) fn errno(code: i32) -> io::Error {
    io::Error::from_raw_os_error(code)
}

impl Files {
    pub(super) fn add(&mut self, kind: Kind) -> FileId {
        let file = File {
            kind,
            descriptors: 0,
            is_nonblocking: false,
            read_timeout: None,
            write_timeout: None,
            waiters: Vec::new(),
            watchers: Vec::new(),
        };
        self.files.push(Some(file));
        FileId(self.files.len() - 1)
    }

    pub(super) fn get(&self, id: FileId) -> Option<&File> {
        self.files.get(id.0)?.as_ref()
    }

    pub(super) fn get_mut(&mut self, id: FileId) -> Option<&mut File> {
        self.files.get_mut(id.0)?.as_mut()
    }

    /// The file of an open descriptor.
    pub(super) fn of(&self, fd: RawFd) -> io::Result<FileId> {
        self.descriptors.get(&fd).copied().ok_or_else(|| errno(libc::EBADF))
    }

    /// How many descriptors are open. Each poller is one of a real process, though nobody asks for its
    /// number here.
    pub(super) fn open_count(&self) -> usize {
        let is_poller = |file: &&File| matches!(file.kind, Kind::InterestList(_));
        self.descriptors.len() + self.files.iter().flatten().filter(is_poller).count()
    }

    /// Fails if there is no room for as many descriptors more.
    pub(super) fn check_limit(&self, count: usize) -> io::Result<()> {
        match self.limit {
            Some(limit) if self.open_count() + count > limit => Err(errno(libc::EMFILE)),
            _ => Ok(()),
        }
    }

    /// Another descriptor of the file.
    pub(super) fn open(&mut self, file: FileId) -> RawFd {
        let fd = loop {
            let fd = self.free.pop_first().unwrap_or_else(|| {
                self.given_out += 1;
                FIRST_FD + self.given_out - 1
            });
            if !self.descriptors.contains_key(&fd) {
                break fd;
            }
        };
        self.open_as(fd, file);
        fd
    }

    pub(super) fn open_as(&mut self, fd: RawFd, file: FileId) {
        self.descriptors.insert(fd, file);
        if let Some(file) = self.get_mut(file) {
            file.descriptors += 1;
        }
    }

    /// Closes a descriptor. Returns its file if that was the last one.
    fn close(&mut self, fd: RawFd) -> Option<FileId> {
        let id = self.descriptors.remove(&fd)?;
        if fd >= FIRST_FD {
            self.free.insert(fd);
        }
        let file = self.get_mut(id)?;
        file.descriptors -= 1;
        (file.descriptors == 0).then_some(id)
    }

    pub(super) fn remove(&mut self, id: FileId) -> Option<File> {
        self.files.get_mut(id.0)?.take()
    }

    pub(super) fn list(&mut self, id: FileId) -> Option<&mut InterestList> {
        match &mut self.get_mut(id)?.kind {
            Kind::InterestList(list) => Some(list),
            _ => None,
        }
    }
}

impl State {
    /// A new file, with a descriptor.
    pub(super) fn open(&mut self, kind: Kind) -> (RawFd, FileId) {
        let file = self.files.add(kind);
        (self.files.open(file), file)
    }

    pub(super) fn close(&mut self, fd: RawFd) {
        let Some(id) = self.files.close(fd) else { return };
        self.close_file(id);
    }

    /// What closing the last descriptor does.
    pub(super) fn close_file(&mut self, id: FileId) {
        let Some(file) = self.files.remove(id) else { return };
        for (list, fd) in file.watchers {
            if let Some(list) = self.files.list(list) {
                list.forget((fd, id));
            }
        }
        match file.kind {
            Kind::Socket(socket) => self.release(socket.bound, id),
            Kind::Stream(end) => {
                self.release(self.address(end), id);
                self.close_end(end);
            }
            Kind::Listener(listening) => {
                self.release(Some(listening.address), id);
                self.reset_queue(listening);
            }
            Kind::Timer(timer) => timer.next.into_iter().for_each(|when| self.agenda.remove(when)),
            Kind::InterestList(list) => {
                for (_, watched) in list.registered() {
                    if let Some(file) = self.files.get_mut(watched) {
                        file.watchers.retain(|(watcher, _)| *watcher != id);
                    }
                }
            }
            Kind::Scripted(_) | Kind::Waker(_) | Kind::Gate => {}
        }
    }

    /// What is true of a file now, as poll(2) would say.
    pub(super) fn readiness(&mut self, id: FileId) -> Readiness {
        let Some(file) = self.files.get(id) else { return Readiness::NONE };
        match &file.kind {
            Kind::Scripted(readiness) => *readiness,
            Kind::Socket(_) => Readiness::WRITE_CLOSED | Readiness::WRITABLE,
            Kind::Listener(listening) if listening.queue.is_empty() => Readiness::NONE,
            Kind::Listener(_) => Readiness::READABLE,
            Kind::Stream(end) => self.end_readiness(*end),
            Kind::Timer(timer) if timer.expirations == 0 => Readiness::NONE,
            Kind::Timer(_) => Readiness::READABLE,
            Kind::Waker(true) => Readiness::READABLE | Readiness::WRITABLE,
            Kind::Waker(false) => Readiness::WRITABLE,
            Kind::InterestList(_) | Kind::Gate => Readiness::NONE,
        }
    }

    /// Lets those who wait for a file know what came: threads that it blocks, and pollers whose
    /// registration asks for it.
    pub(super) fn notify(&mut self, id: FileId, arrival: Readiness) {
        while self.wake_one(id) {}
        let Some(file) = self.files.get(id) else { return };
        match file.watchers[..] {
            [] => {}
            [(list, fd)] => {
                self.queue(list, (fd, id), arrival);
            }
            _ => self.notify_watchers(id, arrival),
        }
    }

    /// All that are not exclusive, and of those that are, one that waits.
    fn notify_watchers(&mut self, id: FileId, arrival: Readiness) {
        let Some(file) = self.files.get(id) else { return };
        let mut watchers = file.watchers.clone();
        let start = self.random.index(watchers.len());
        watchers.rotate_left(start);
        let mut has_woken = false;
        for (list, fd) in watchers {
            let Some(item) = self.files.list(list).and_then(|list| list.get((fd, id))) else {
                continue;
            };
            if item.object.is_exclusive() {
                has_woken = has_woken || self.queue(list, (fd, id), arrival);
            } else {
                self.queue(list, (fd, id), arrival);
            }
        }
    }

    /// Reports `readiness` for what a test scripts.
    pub(super) fn script(&mut self, fd: RawFd) -> Option<(FileId, &mut Readiness)> {
        let id = self.files.of(fd).ok()?;
        match &mut self.files.get_mut(id)?.kind {
            Kind::Scripted(readiness) => Some((id, readiness)),
            _ => None,
        }
    }

    /// Sets a timer, and forgets what it was set to before.
    pub(super) fn set_timer(
        &mut self,
        id: FileId,
        after: Option<Duration>,
        every: Option<Duration>,
    ) {
        let time = after.and_then(|after| self.now.checked_add(after));
        let next = time.map(|time| self.agenda.add(time, Action::Timer(id)));
        let Some(File { kind: Kind::Timer(timer), .. }) = self.files.get_mut(id) else { return };
        let before = std::mem::replace(timer, Timer { next, every, expirations: 0 });
        before.next.into_iter().for_each(|when| self.agenda.remove(when));
    }

    pub(super) fn timer_expires(&mut self, id: FileId) {
        let now = self.now;
        let Some(File { kind: Kind::Timer(timer), .. }) = self.files.get_mut(id) else { return };
        timer.expirations += 1;
        let next = timer.every.and_then(|every| now.checked_add(every));
        timer.next = next.map(|time| self.agenda.add(time, Action::Timer(id)));
        // What goes off again before anybody has looked is no arrival: `timerfd_poll` starts it anew only in
        // a read.
        if timer.expirations == 1 {
            self.notify(id, Readiness::READABLE);
        }
    }

    /// Who waits for a file, in words.
    pub(super) fn describe(&self, id: FileId) -> String {
        let Some(file) = self.files.get(id) else { return "a file that is closed".into() };
        match &file.kind {
            Kind::InterestList(list) => {
                let watched: Vec<_> =
                    list.registered().map(|(fd, file)| self.describe_watched(fd, file)).collect();
                match watched.len() {
                    0 => "a poller with nothing registered".into(),
                    _ => format!("a poller of {}", watched.join(", ")),
                }
            }
            Kind::Stream(end) => self.describe_end(*end),
            Kind::Listener(listening) if listening.queue.is_empty() => {
                format!("listener {}", listening.address)
            }
            Kind::Listener(Listening { address, queue, .. }) => {
                format!("listener {address}, {} in its queue", queue.len())
            }
            Kind::Socket(_) => "a socket".into(),
            Kind::Timer(_) => "a timer".into(),
            Kind::Waker(_) => "a waker".into(),
            Kind::Scripted(_) => "a scripted descriptor".into(),
            Kind::Gate => "another thread".into(),
        }
    }

    fn describe_watched(&self, fd: RawFd, file: FileId) -> String {
        format!("{fd} ({})", self.describe(file))
    }
}

/// Bytes that can be read, and how they came.
#[derive(Default)]
pub(super) struct Received {
    pub(super) bytes: VecDeque<u8>,
    /// The pieces that they came in: how long each was, and how much of it is left.
    pieces: VecDeque<(usize, usize)>,
}

impl Received {
    pub(super) fn push(&mut self, bytes: &[u8]) {
        self.bytes.extend(bytes);
        self.pieces.push_back((bytes.len(), bytes.len()));
    }

    /// Copies what fits, and leaves it there.
    pub(super) fn peek(&self, buffer: &mut [u8]) -> usize {
        let count = buffer.len().min(self.bytes.len());
        let (front, back) = self.bytes.as_slices();
        let middle = count.min(front.len());
        buffer[..middle].copy_from_slice(&front[..middle]);
        buffer[middle..count].copy_from_slice(&back[..count - middle]);
        count
    }

    /// Takes what fits. Returns how many bytes, and the length of the pieces that are used up.
    pub(super) fn take(&mut self, buffer: &mut [u8]) -> (usize, usize) {
        let count = self.peek(buffer);
        self.bytes.drain(..count);
        let (mut rest, mut used_up) = (count, 0);
        while let Some((length, left)) = self.pieces.front_mut() {
            if *left > rest {
                *left -= rest;
                break;
            }
            rest -= *left;
            used_up += *length;
            self.pieces.pop_front();
        }
        (count, used_up)
    }
}
