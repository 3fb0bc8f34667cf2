//! The kernel of a world: descriptors, files, and the system calls on them. It knows a thread only by the reason for
//! which it blocks.
//!
//! Here are its system calls. Each ends in the part that has the rules: [`tcp`], [`udp`], [`unix`],
//! [`unix_listeners`], [`timers`], [`epoll`] or [`kqueue`]. These share [`base`]: the schedule, the files with their
//! waiting threads and pollers, the faults, and the rules of kernels other than Linux, [`rules`].

mod addresses;
mod base;
mod descriptors;
mod epoll;
mod errno;
mod event;
mod faults;
mod files;
mod forgotten;
mod ids;
mod interests;
mod kqueue;
mod patience;
mod received;
mod report;
mod rules;
mod tcp;
mod timer;
mod timers;
mod udp;
mod unix;
mod unix_listeners;

use std::collections::VecDeque;
use std::io;
use std::net::{Shutdown, SocketAddr};
use std::os::fd::RawFd;
use std::path::Path;
use std::time::Duration;

use pollio::{EventObject, Readiness};

use crate::conditions::{self, Conditions};
use crate::kernels;
use crate::schedule::{QueueId, Schedule};
use base::Base;
use descriptors::Descriptors;
use event::Arrival;
use files::Kind;
use forgotten::Streams;
use interests::{Batch, InterestList, Key};
use kqueue::Truth;
use report::Report;
use rules::Rule;
use tcp::Tcp;
use timer::Timer;
use udp::Udp;
use unix::Pairs;
use unix_listeners::UnixListeners;

pub(crate) use errno::errno;
pub(crate) use event::Event;
pub(crate) use files::Settings;
pub(crate) use ids::FileId;
pub(crate) use tcp::{BACKLOG, Options};

pub(crate) struct Kernel {
    base: Base,
    descriptors: Descriptors,
    tcp: Tcp,
    udp: Udp,
    pairs: Pairs,
    unix_listeners: UnixListeners,
    /// The sockets that a signal writes to.
    signals: Vec<(i32, RawFd)>,
    script: Script,
}

/// The script of a test for pollers.
#[derive(Default)]
struct Script {
    /// The most events of a wait, without a limit if none.
    batch: Option<usize>,
    add_errors: VecDeque<io::Error>,
    wait_errors: VecDeque<io::Error>,
}

impl Kernel {
    pub(crate) fn new(kernel: kernels::Kernel, seed: u64, is_traced: bool) -> Self {
        Self {
            base: Base::new(kernel, seed, is_traced),
            descriptors: Descriptors::default(),
            tcp: Tcp::default(),
            udp: Udp::default(),
            pairs: Pairs::default(),
            unix_listeners: UnixListeners::default(),
            signals: Vec::new(),
            script: Script::default(),
        }
    }

    pub(crate) const fn kernel(&self) -> kernels::Kernel {
        self.base.rules().kernel()
    }

    /// From now on sockets have the rules of Linux, and pollers those of the kernel.
    pub(crate) const fn set_linux_sockets(&mut self) {
        self.base.rules_mut().remove_those_of_sockets();
    }

    /// The rules of its kernel that made a difference so far.
    pub(crate) fn rules_applied(&self) -> Vec<&'static str> {
        self.base.rules().applied().map(Rule::text).collect()
    }

    pub(crate) const fn schedule(&self) -> &Schedule<Event> {
        self.base.schedule()
    }

    pub(crate) const fn schedule_mut(&mut self) -> &mut Schedule<Event> {
        self.base.schedule_mut()
    }

    pub(crate) const fn now(&self) -> Duration {
        self.base.now()
    }

    pub(crate) fn set_conditions(&mut self, conditions: Conditions) {
        self.base.set_conditions(conditions);
    }

    /// Draws whether a wait ends spuriously.
    pub(crate) fn draw_spurious(&mut self) -> bool {
        self.base.draw_fault(conditions::Kind::Spurious)
    }

    pub(crate) fn set_patience(&mut self, patience: Duration) {
        self.base.set_patience(patience);
    }

    /// An event happens that was due at this time.
    pub(crate) fn happen(&mut self, event: Event, due: Duration) {
        match event {
            Event::Timer(file) => timers::expire(&mut self.base, file, due),
            Event::Tcp(arrival) => self.tcp.arrive(arrival, &mut self.base),
            Event::Udp(packet) => self.udp.arrive(*packet, &mut self.base),
            Event::Patience(file, since) => {
                let streams = Streams {
                    tcp: &self.tcp,
                    udp: &self.udp,
                    pairs: &self.pairs,
                    unix_listeners: &self.unix_listeners,
                };
                if streams.are_forgotten(file, since, &mut self.base) {
                    let (what, time) = (self.report().describe(file), self.now() - since);
                    let why = "while every thread that could take it waits for events";
                    self.schedule_mut().fail(format!("{what} has waited for {time:?}, {why}"));
                }
            }
        }
    }
}

/// Descriptors.
impl Kernel {
    /// The file of an open descriptor.
    pub(crate) fn file(&self, fd: RawFd) -> io::Result<FileId> {
        self.descriptors.file(fd)
    }

    /// The threads that a file blocks.
    pub(crate) fn queue_of(&self, file: FileId) -> io::Result<QueueId> {
        self.base.queue_of(file).ok_or_else(|| errno(libc::EBADF))
    }

    /// The number of open descriptors.
    pub(crate) fn descriptor_count(&self) -> usize {
        self.descriptors.count()
    }

    pub(crate) fn set_descriptor_limit(&mut self, limit: usize) {
        self.base.note(|| format!("up to {limit} descriptors may be open"));
        self.descriptors.set_limit(limit);
    }

    /// Fails if there is no room for as many descriptors more.
    pub(crate) fn check_limit(&self, count: usize) -> io::Result<()> {
        self.descriptors.check_limit(count)
    }

    /// Opens a descriptor of a file: the lowest number that is free.
    fn open(&mut self, file: FileId) -> RawFd {
        let fd = self.descriptors.free_number();
        self.open_as(fd, file);
        fd
    }

    fn open_as(&mut self, fd: RawFd, file: FileId) {
        self.descriptors.insert(fd, file);
        if let Some(file) = self.base.file_mut(file) {
            file.add_descriptor();
        }
    }

    fn open_kind(&mut self, kind: Kind) -> RawFd {
        let file = self.base.add_file(kind);
        self.open(file)
    }

    /// Another descriptor of the same file.
    pub(crate) fn duplicate(&mut self, fd: RawFd) -> io::Result<RawFd> {
        let file = self.file(fd)?;
        self.check_limit(1)?;
        Ok(self.open(file))
    }

    pub(crate) fn close(&mut self, fd: RawFd) {
        let Some(id) = self.descriptors.remove(fd) else { return };
        if self.base.file_mut(id).is_some_and(files::File::remove_descriptor) {
            self.close_file(id);
        } else if self.is_kqueue() && self.base.files_mut().unwatch_number(fd, id) {
            self.base.applies(Rule::CloseDeletes);
        }
    }

    /// Closes a file with its last descriptor.
    fn close_file(&mut self, id: FileId) {
        match self.base.files_mut().remove(id) {
            Some(Kind::Tcp(socket)) => self.tcp.close(socket, &mut self.base),
            Some(Kind::Udp(socket)) => self.udp.close(socket),
            Some(Kind::Unix(end)) => self.pairs.close(end, &mut self.base),
            Some(Kind::UnixListener(id)) => {
                self.unix_listeners.close(id, &mut self.pairs, &mut self.base);
            }
            Some(Kind::Timer(timer)) => {
                timer.next().into_iter().for_each(|when| self.schedule_mut().cancel(when));
            }
            Some(Kind::Poller(list)) => {
                let of_wakers = if list.has_wakers() { self.descriptors_of_wakers() } else { 0 };
                self.descriptors.remove_of_poller(1 + of_wakers);
            }
            Some(Kind::Scripted(_)) | None => {}
        }
    }

    pub(crate) fn settings(&self, id: FileId) -> io::Result<Settings> {
        let file = self.base.file(id).ok_or_else(|| errno(libc::EBADF))?;
        Ok(file.settings())
    }

    pub(crate) fn settings_mut(&mut self, id: FileId) -> io::Result<&mut Settings> {
        let file = self.base.file_mut(id).ok_or_else(|| errno(libc::EBADF))?;
        Ok(file.settings_mut())
    }

    fn kind(&self, id: FileId) -> Option<&Kind> {
        self.base.files().kind(id)
    }

    fn kind_mut(&mut self, id: FileId) -> Option<&mut Kind> {
        self.base.file_mut(id).map(files::File::kind_mut)
    }

    /// The state of a file now, beyond that of poll(2).
    fn truth(&mut self, id: FileId) -> Truth {
        let truth = Truth::of(self.readiness(id));
        if !self.is_kqueue() {
            return truth;
        }
        let has_own_end = self.base.rules().has(Rule::OwnShutdownIsEnd);
        match self.base.files().kind(id) {
            Some(Kind::Tcp(socket)) => Truth {
                is_write_shut: has_own_end && self.tcp.is_write_shut(*socket),
                is_established: self.tcp.is_established(*socket),
                ..truth
            },
            Some(Kind::Unix(end)) => {
                Truth { is_write_shut: has_own_end && self.pairs.is_write_shut(*end), ..truth }
            }
            _ => truth,
        }
    }

    /// The readiness of a file now, as in poll(2).
    fn readiness(&mut self, id: FileId) -> Readiness {
        match self.base.files().kind(id) {
            Some(Kind::Scripted(readiness)) => *readiness,
            Some(Kind::Tcp(socket)) => self.tcp.readiness(*socket, &mut self.base),
            Some(Kind::Udp(socket)) => self.udp.readiness(*socket),
            Some(Kind::Unix(end)) => self.pairs.readiness(*end),
            Some(Kind::UnixListener(id)) if self.unix_listeners.has_clients(*id) => {
                Readiness::READABLE
            }
            Some(Kind::Timer(timer)) if timer.is_readable() => Readiness::READABLE,
            Some(Kind::UnixListener(_) | Kind::Timer(_) | Kind::Poller(_)) | None => {
                Readiness::NONE
            }
        }
    }
}

/// Sockets.
impl Kernel {
    /// Draws whether there is no descriptor for a socket, once the program has started.
    pub(crate) fn draw_failing_socket(&mut self) -> bool {
        self.tcp.has_accepted() && self.base.draw_fault(conditions::Kind::FailingAccepts)
    }

    /// Opens a TCP socket.
    ///
    /// # Errors
    ///
    /// `EMFILE`.
    pub(crate) fn open_socket(&mut self, options: Options) -> io::Result<RawFd> {
        self.check_limit(1)?;
        let file = self.tcp.add(options, |socket| self.base.add_file(Kind::Tcp(socket)));
        Ok(self.open(file))
    }

    /// Opens a UDP socket.
    ///
    /// # Errors
    ///
    /// `EMFILE`.
    pub(crate) fn open_udp_socket(&mut self) -> io::Result<RawFd> {
        self.check_limit(1)?;
        let add_file = |socket, base: &mut Base| base.add_file(Kind::Udp(socket));
        let file = self.udp.add(&mut self.base, add_file);
        Ok(self.open(file))
    }

    /// Opens two ends that are connected to each other, as socketpair(2) does.
    pub(crate) fn open_pair(&mut self) -> io::Result<[RawFd; 2]> {
        self.check_limit(2)?;
        let files = self.pairs.next_ends().map(|end| self.base.add_file(Kind::Unix(end)));
        self.pairs.add(files);
        Ok(files.map(|file| self.open(file)))
    }

    /// Opens a Unix socket that listens at a path.
    ///
    /// # Errors
    ///
    /// `EMFILE`, `EADDRINUSE`.
    pub(crate) fn open_unix_listener(&mut self, path: &Path) -> io::Result<RawFd> {
        self.check_limit(1)?;
        let file = self.unix_listeners.bind(path, &mut self.base)?;
        Ok(self.open(file))
    }

    /// Opens a Unix socket that will connect.
    ///
    /// # Errors
    ///
    /// `EMFILE`.
    pub(crate) fn open_unix_socket(&mut self) -> io::Result<RawFd> {
        self.check_limit(1)?;
        let [end, _] = self.pairs.next_ends();
        let file = self.base.add_file(Kind::Unix(end));
        self.pairs.add_connecting(file);
        Ok(self.open(file))
    }

    pub(crate) fn connect_unix(&mut self, id: FileId, path: &Path) -> io::Result<()> {
        let Some(Kind::Unix(end)) = self.kind(id) else { return Err(errno(libc::EINVAL)) };
        self.unix_listeners.connect((id, *end), path, &mut self.pairs, &mut self.base)
    }

    /// The path that a Unix socket has.
    pub(crate) fn unix_path(&self, id: FileId) -> Option<&Path> {
        match self.kind(id) {
            Some(Kind::Unix(end)) => self.pairs.path(*end),
            Some(Kind::UnixListener(id)) => Some(self.unix_listeners.path(*id)),
            _ => None,
        }
    }

    /// The path that the peer of a Unix socket has.
    pub(crate) fn unix_peer_path(&self, id: FileId) -> Option<&Path> {
        match self.kind(id) {
            Some(Kind::Unix(end)) => self.pairs.path(end.peer()),
            _ => None,
        }
    }

    pub(crate) fn remove_file(&mut self, path: &Path) -> io::Result<()> {
        self.unix_listeners.remove_file(path)
    }

    /// A TCP socket: this error, or `EOPNOTSUPP`, if it is none.
    fn socket(&self, id: FileId, error: i32) -> io::Result<ids::SocketId> {
        match self.kind(id) {
            Some(Kind::Tcp(socket)) => Ok(*socket),
            Some(Kind::Udp(_)) => Err(errno(libc::EOPNOTSUPP)),
            _ => Err(errno(error)),
        }
    }

    pub(crate) fn udp_socket(&self, id: FileId) -> Option<ids::SocketId> {
        match self.kind(id) {
            Some(Kind::Udp(socket)) => Some(*socket),
            _ => None,
        }
    }

    pub(crate) fn bind(&mut self, id: FileId, address: SocketAddr) -> io::Result<()> {
        match self.udp_socket(id) {
            Some(socket) => self.udp.bind(socket, address),
            None => self.tcp.bind(self.socket(id, libc::EINVAL)?, address, &mut self.base),
        }
    }

    pub(crate) fn listen(&mut self, id: FileId, backlog: usize) -> io::Result<()> {
        if let Some(Kind::UnixListener(listener)) = self.base.files().kind(id) {
            self.unix_listeners.listen(*listener, backlog, &mut self.base);
            return Ok(());
        }
        self.tcp.listen(self.socket(id, libc::EINVAL)?, backlog, &mut self.base)
    }

    /// Fails if [`accept`](Self::accept) needs a descriptor before it takes a client from the queue.
    pub(crate) fn check_accept(&self) -> io::Result<()> {
        let is_reserved = !self.base.rules().has(Rule::AcceptLosesClient);
        if is_reserved { self.check_limit(1) } else { Ok(()) }
    }

    pub(crate) fn accept(&mut self, id: FileId) -> io::Result<(RawFd, SocketAddr)> {
        let listener = self.socket(id, libc::EINVAL)?;
        let add_file = |socket, base: &mut Base| base.add_file(Kind::Tcp(socket));
        let has_room = self.has_room_to_accept();
        let (file, client) = self.tcp.accept(listener, has_room, &mut self.base, add_file)?;
        Ok((self.open_accepted(id, file)?, client))
    }

    pub(crate) fn accept_unix(&mut self, id: FileId) -> io::Result<RawFd> {
        let Some(Kind::UnixListener(listener)) = self.kind(id) else {
            return Err(errno(libc::EINVAL));
        };
        let (listener, has_room) = (*listener, self.has_room_to_accept());
        let (pairs, base) = (&mut self.pairs, &mut self.base);
        let file = self.unix_listeners.accept(listener, has_room, pairs, base)?;
        self.open_accepted(id, file)
    }

    fn has_room_to_accept(&self) -> bool {
        let is_reserved = !self.base.rules().has(Rule::AcceptLosesClient);
        is_reserved || self.check_limit(1).is_ok()
    }

    /// Opens a descriptor of what a listener has accepted.
    fn open_accepted(&mut self, listener: FileId, file: FileId) -> io::Result<RawFd> {
        let is_nonblocking = self.settings(listener)?.is_nonblocking;
        if is_nonblocking && self.base.applies(Rule::AcceptedAreNonblocking) {
            self.settings_mut(file)?.is_nonblocking = true;
        }
        Ok(self.open(file))
    }

    pub(crate) fn connect(&mut self, id: FileId, address: SocketAddr) -> io::Result<()> {
        match self.udp_socket(id) {
            Some(socket) => self.udp.connect(socket, address),
            None => self.tcp.connect(self.socket(id, libc::EINVAL)?, address, &mut self.base),
        }
    }

    /// Whether a call of `connect` was made before, whose outcome [`connect_again`](Self::connect_again) returns.
    pub(crate) fn has_connected(&self, id: FileId) -> bool {
        self.socket(id, libc::EINVAL).is_ok_and(|socket| self.tcp.is_stream(socket))
    }

    /// The outcome of a `connect` that blocks, once there is one.
    pub(crate) fn finish_connect(&mut self, id: FileId) -> io::Result<()> {
        self.tcp.finish_connect(self.socket(id, libc::EINVAL)?, &mut self.base)
    }

    pub(crate) fn connect_again(&mut self, id: FileId) -> io::Result<()> {
        let blocks = !self.settings(id)?.is_nonblocking;
        self.tcp.connect_again(self.socket(id, libc::EINVAL)?, blocks, &mut self.base)
    }

    /// Fails if an option can no longer be set: one of TCP, or of any socket.
    pub(crate) fn check_option(&mut self, id: FileId, is_of_tcp: bool) -> io::Result<()> {
        match self.base.files().kind(id) {
            Some(Kind::Tcp(socket)) => self.tcp.check_option(*socket, is_of_tcp, &mut self.base),
            Some(Kind::Unix(end)) => self.pairs.check_option(*end, &mut self.base),
            _ => Ok(()),
        }
    }

    pub(crate) fn set_options(
        &mut self,
        id: FileId,
        change: impl FnOnce(&mut Options),
    ) -> io::Result<()> {
        match self.udp_socket(id) {
            Some(socket) => {
                self.udp.set_options(socket, change);
                Ok(())
            }
            None => self.tcp.set_options(self.socket(id, libc::EINVAL)?, change),
        }
    }

    pub(crate) fn set_linger_zero(&mut self, id: FileId, has_linger_zero: bool) {
        if let Ok(socket) = self.socket(id, libc::EINVAL) {
            self.tcp.set_linger_zero(socket, has_linger_zero);
        }
    }

    pub(crate) fn local_address(&self, id: FileId) -> Option<SocketAddr> {
        match self.udp_socket(id) {
            Some(socket) => self.udp.local_address(socket),
            None => self.tcp.local_address(self.socket(id, libc::EINVAL).ok()?),
        }
    }

    pub(crate) fn peer_address(&mut self, id: FileId) -> io::Result<SocketAddr> {
        match self.udp_socket(id) {
            Some(socket) => self.udp.peer_address(socket),
            None => self.tcp.peer_address(self.socket(id, libc::ENOTCONN)?, &mut self.base),
        }
    }

    pub(crate) fn read(&mut self, id: FileId, buffer: &mut [u8]) -> io::Result<usize> {
        match self.base.files().kind(id) {
            Some(Kind::Tcp(socket)) => self.tcp.read(*socket, buffer, &mut self.base),
            Some(Kind::Udp(_)) => self.receive(id, buffer, true).map(|(count, _)| count),
            Some(Kind::Unix(end)) => self.pairs.read(*end, buffer, &mut self.base),
            _ => Err(errno(libc::ENOTCONN)),
        }
    }

    pub(crate) fn peek(&mut self, id: FileId, buffer: &mut [u8]) -> io::Result<usize> {
        if self.udp_socket(id).is_some() {
            return self.receive(id, buffer, false).map(|(count, _)| count);
        }
        self.tcp.peek(self.socket(id, libc::ENOTCONN)?, buffer)
    }

    pub(crate) fn write(&mut self, id: FileId, bytes: &[u8]) -> io::Result<usize> {
        match self.base.files().kind(id) {
            Some(Kind::Tcp(socket)) => self.tcp.write(*socket, bytes, &mut self.base),
            Some(Kind::Udp(socket)) => self.udp.send(*socket, bytes, None, &mut self.base),
            Some(Kind::Unix(end)) => self.pairs.write(*end, bytes, &mut self.base),
            _ => Err(errno(libc::EPIPE)),
        }
    }

    /// Takes or peeks at a datagram. Returns the number of copied bytes, and the sender.
    pub(crate) fn receive(
        &mut self,
        id: FileId,
        buffer: &mut [u8],
        is_taken: bool,
    ) -> io::Result<(usize, Option<SocketAddr>)> {
        let socket = self.udp_socket(id).ok_or_else(|| errno(libc::ENOTSOCK))?;
        self.udp.receive(socket, buffer, is_taken, &mut self.base)
    }

    /// Sends a datagram.
    pub(crate) fn send_to(
        &mut self,
        id: FileId,
        bytes: &[u8],
        address: SocketAddr,
    ) -> io::Result<usize> {
        let socket = self.udp_socket(id).ok_or_else(|| errno(libc::ENOTSOCK))?;
        self.udp.send(socket, bytes, Some(address), &mut self.base)
    }

    /// Writes after having waited for room: a pending error comes before anything else.
    pub(crate) fn resume_write(&mut self, id: FileId, bytes: &[u8]) -> io::Result<usize> {
        if !self.base.rules().has(Rule::WriteLeavesError) {
            if let Some(error) = self.take_error(id) {
                return Err(error);
            }
        }
        self.write(id, bytes)
    }

    pub(crate) fn shut_down(&mut self, id: FileId, how: Shutdown) -> io::Result<()> {
        match self.base.files().kind(id) {
            Some(Kind::Tcp(socket)) => self.tcp.shut_down(*socket, how, &mut self.base),
            Some(Kind::Udp(socket)) => self.udp.shut_down(*socket, how, &mut self.base),
            Some(Kind::Unix(end)) => self.pairs.shut_down(*end, how, &mut self.base),
            _ => Err(errno(libc::ENOTCONN)),
        }
    }

    pub(crate) fn take_error(&mut self, id: FileId) -> Option<io::Error> {
        match self.base.files().kind(id) {
            Some(Kind::Tcp(socket)) => self.tcp.take_error(*socket),
            Some(Kind::Udp(socket)) => self.udp.take_error(*socket),
            Some(Kind::Unix(end)) => self.pairs.take_error(*end),
            _ => None,
        }
    }
}

/// Timers and signals.
impl Kernel {
    pub(crate) fn open_timer(&mut self) -> io::Result<RawFd> {
        self.check_limit(1)?;
        Ok(self.open_kind(Kind::Timer(Timer::default())))
    }

    pub(crate) fn set_timer(
        &mut self,
        id: FileId,
        after: Option<Duration>,
        interval: Option<Duration>,
    ) {
        timers::set(&mut self.base, id, after, interval);
    }

    pub(crate) fn take_expirations(&mut self, id: FileId) -> u64 {
        timers::take_expirations(&mut self.base, id)
    }

    /// Writes to this descriptor when a signal is raised.
    pub(crate) fn add_signal(&mut self, signal: i32, fd: RawFd) {
        self.signals.push((signal, fd));
    }

    pub(crate) fn raise(&mut self, signal: i32) {
        self.base.note(|| format!("signal {signal}"));
        let streams = self.signals.iter().filter(|(registered, _)| *registered == signal);
        let files: Vec<_> = streams.filter_map(|(_, fd)| self.file(*fd).ok()).collect();
        for file in files {
            // A handler cannot wait: bytes without room are lost.
            let _ = self.write(file, b"X");
        }
    }
}

/// Pollers.
impl Kernel {
    pub(crate) fn add_poller(&mut self) -> FileId {
        self.descriptors.add_of_poller(1);
        let list = InterestList::new(self.base.rules().set());
        self.base.add_file(Kind::Poller(list))
    }

    /// Whether pollers are kqueues.
    const fn is_kqueue(&self) -> bool {
        self.base.rules().set().is_kqueue()
    }

    pub(crate) fn close_poller(&mut self, poller: FileId) {
        self.close_file(poller);
    }

    /// As epoll_ctl(2) does with `EPOLL_CTL_ADD`; a kqueue has nothing of this number afterwards, if it fails.
    pub(crate) fn add(&mut self, poller: FileId, object: EventObject) -> io::Result<()> {
        if self.is_kqueue() {
            self.replace(poller, object.fd)?;
        }
        if let Some(error) = self.script.add_errors.pop_front() {
            return Err(error);
        }
        let key = (object.fd, self.file(object.fd)?);
        if self.is_kqueue() {
            self.check_interest(key.1, object)?;
        } else {
            let before = self.base.list_mut(poller)?.object(key);
            epoll::check_add(object, before.is_some())?;
        }
        self.base.list_mut(poller)?.insert(key, object);
        self.base.files_mut().watch(poller, key);
        self.queue_what_is_ready(poller, key);
        Ok(())
    }

    /// As epoll_ctl(2) does with `EPOLL_CTL_MOD`; a kqueue has nothing of this number afterwards, if it fails.
    pub(crate) fn modify(&mut self, poller: FileId, object: EventObject) -> io::Result<()> {
        let key = self.registered_key(object.fd)?;
        let before = self.base.list_mut(poller)?.object(key);
        if !self.is_kqueue() {
            epoll::check_modify(before, object)?;
        } else if before.is_none() {
            return Err(errno(libc::ENOENT));
        } else if let Err(error) = self.check_interest(key.1, object) {
            self.unregister(poller, key)?;
            self.base.applies(Rule::FailedModifyDeletes);
            return Err(error);
        }
        self.base.list_mut(poller)?.insert(key, object);
        self.queue_what_is_ready(poller, key);
        Ok(())
    }

    /// As epoll_ctl(2) does with `EPOLL_CTL_DEL`.
    pub(crate) fn delete(&mut self, poller: FileId, fd: RawFd) -> io::Result<()> {
        let key = self.registered_key(fd)?;
        if self.unregister(poller, key)? { Ok(()) } else { Err(errno(libc::ENOENT)) }
    }

    /// A number that may be registered, if it is open.
    fn registered_key(&mut self, fd: RawFd) -> io::Result<Key> {
        let is_unknown = |base: &mut Base| base.applies(Rule::UnknownIsNotFound);
        match self.file(fd) {
            Ok(file) => Ok((fd, file)),
            Err(_) if is_unknown(&mut self.base) => Err(errno(libc::ENOENT)),
            Err(error) => Err(error),
        }
    }

    /// Deletes what an add to a kqueue replaces.
    fn replace(&mut self, poller: FileId, fd: RawFd) -> io::Result<()> {
        let Ok(file) = self.file(fd) else { return Ok(()) };
        if self.unregister(poller, (fd, file))? {
            self.base.applies(Rule::AddReplaces);
        }
        Ok(())
    }

    /// Fails if a file has no filter for an interest.
    fn check_interest(&self, file: FileId, object: EventObject) -> io::Result<()> {
        match self.kind(file) {
            Some(Kind::Timer(_)) => {
                kqueue::check_kqueue(object.interest(), self.kernel(), self.base.rules().set())
            }
            _ => Ok(()),
        }
    }

    /// Returns whether it was registered.
    fn unregister(&mut self, poller: FileId, key: Key) -> io::Result<bool> {
        let is_registered = self.base.list_mut(poller)?.forget(key);
        self.base.files_mut().unwatch(poller, key);
        Ok(is_registered)
    }

    fn queue_what_is_ready(&mut self, poller: FileId, key: Key) {
        let readiness = self.readiness(key.1);
        self.base.queue(poller, key, readiness);
    }

    /// Wakes one thread that waits for a poller, or else its next wait. Returns whether it was woken before: the first
    /// time, it takes a descriptor.
    ///
    /// # Errors
    ///
    /// `EMFILE`, the first time.
    pub(crate) fn wake(&mut self, poller: FileId) -> io::Result<bool> {
        let had_wakers = self.base.list_mut(poller)?.has_wakers();
        if !had_wakers {
            let count = self.descriptors_of_wakers();
            self.check_limit(count)?;
            self.descriptors.add_of_poller(count);
        }
        self.base.wake(poller)?;
        Ok(had_wakers)
    }

    /// The number of descriptors of a poller's wakers: an eventfd, or a pair of sockets if kqueue has no user event.
    fn descriptors_of_wakers(&mut self) -> usize {
        if !self.is_kqueue() {
            1
        } else if self.base.applies(Rule::WakersTakeSockets) {
            2
        } else {
            0
        }
    }

    /// Looks for the end of a wait: an error that a test scripted, at most `max_events` events, or, without any, a
    /// wake-up.
    pub(crate) fn poll(
        &mut self,
        poller: FileId,
        max_events: usize,
        events: &mut Vec<pollio::Event>,
    ) -> Option<io::Result<()>> {
        let is_woken = match self.collect(poller, max_events, events) {
            Ok(()) => self.base.list_mut(poller).is_ok_and(InterestList::take_wake_up),
            Err(error) => return Some(Err(error)),
        };
        (is_woken || !events.is_empty()).then_some(Ok(()))
    }

    /// Makes the events of a wait, at most `max_events`.
    fn collect(
        &mut self,
        poller: FileId,
        max_events: usize,
        events: &mut Vec<pollio::Event>,
    ) -> io::Result<()> {
        if let Some(error) = self.script.wait_errors.pop_front() {
            return Err(error);
        }
        let mut ready = self.base.list_mut(poller)?.take_ready();
        for candidate in &mut ready {
            candidate.set_truth(self.truth(candidate.file()));
        }
        let batch = Batch { size: self.script.batch, max_events };
        self.base.collect(poller, ready, batch, events);
        Ok(())
    }

    /// Makes one wait report `readiness` spuriously.
    pub(crate) fn report_spuriously(&mut self, fd: RawFd, readiness: Readiness) {
        let Ok(id) = self.file(fd) else { return };
        let Some(file) = self.base.file(id) else { return };
        for (poller, fd) in file.watchers().to_vec() {
            self.base.queue(poller, (fd, id), readiness);
            if let Ok(list) = self.base.list_mut(poller) {
                list.report_once((fd, id), readiness);
            }
        }
    }

    /// Draws whether a wait reports a socket as readable spuriously.
    pub(crate) fn draw_spurious_event(&mut self, poller: FileId) {
        if !self.draw_spurious() {
            return;
        }
        let Some(list) = self.base.files().list(poller) else { return };
        let registered: Vec<_> = list.registered().collect();
        if registered.is_empty() {
            return;
        }
        let (fd, file) = registered[self.base.random().index(registered.len())];
        // No other process can take the bytes of a pair.
        let may = match self.kind(file) {
            Some(Kind::Tcp(socket)) => self.tcp.is_shareable(*socket),
            Some(Kind::Udp(_) | Kind::UnixListener(_)) => true,
            _ => false,
        };
        if may && self.file(fd).is_ok_and(|open| open == file) {
            let label = self.label(fd);
            self.base.note(|| format!("fault: {label} is reported as readable"));
            self.report_spuriously(fd, Readiness::READABLE);
        }
    }
}

/// Scripts of a test.
impl Kernel {
    pub(crate) fn open_scripted(&mut self, fd: RawFd) {
        self.close(fd);
        let file = self.base.add_file(Kind::Scripted(Readiness::NONE));
        self.open_as(fd, file);
    }

    pub(crate) fn set_ready(&mut self, fd: RawFd, readiness: Readiness) {
        let Ok(id) = self.file(fd) else { return };
        if let Some(Kind::Scripted(ready)) = self.kind_mut(id) {
            *ready |= readiness;
            self.base.notify(id, readiness);
        }
    }

    pub(crate) fn clear_ready(&mut self, fd: RawFd, readiness: Readiness) {
        let Ok(id) = self.file(fd) else { return };
        if let Some(Kind::Scripted(ready)) = self.kind_mut(id) {
            *ready -= readiness;
        }
    }

    pub(crate) fn fail_add(&mut self, error: io::Error) {
        self.script.add_errors.push_back(error);
    }

    pub(crate) fn fail_wait(&mut self, error: io::Error) {
        self.script.wait_errors.push_back(error);
    }

    pub(crate) fn set_batch(&mut self, size: usize) {
        self.script.batch = Some(size.max(1));
    }

    pub(crate) fn refuse(&mut self, address: SocketAddr, count: usize) {
        self.tcp.refuse(address, count);
    }

    /// The connection of a stream, if it is one.
    fn connection(&self, fd: RawFd) -> Option<ids::EndId> {
        self.tcp.end(self.socket(self.file(fd).ok()?, libc::ENOTCONN).ok()?).ok()
    }

    pub(crate) fn reset(&mut self, fd: RawFd) {
        if let Some(end) = self.connection(fd) {
            self.tcp.arrive(Arrival::ResetBoth(end), &mut self.base);
        }
    }

    pub(crate) fn reset_after(&mut self, fd: RawFd, count: usize) {
        if let Some(end) = self.connection(fd) {
            self.tcp.reset_after(end, count);
        }
    }

    pub(crate) fn stall(&mut self, fd: RawFd, length: Duration) {
        if let Some(end) = self.connection(fd) {
            self.tcp.arrive(Arrival::Stall(end, length), &mut self.base);
        }
    }
}

/// Texts of the trace and of reports.
impl Kernel {
    const fn report(&self) -> Report<'_> {
        Report {
            base: &self.base,
            descriptors: &self.descriptors,
            tcp: &self.tcp,
            udp: &self.udp,
            pairs: &self.pairs,
            unix_listeners: &self.unix_listeners,
        }
    }

    /// The name of what a descriptor refers to: sockets by their addresses.
    pub(crate) fn label(&self, fd: RawFd) -> String {
        self.report().label(fd)
    }

    /// The reason of each waiting thread, a line each.
    pub(crate) fn describe_waits(&self) -> String {
        self.report().waits()
    }
}
