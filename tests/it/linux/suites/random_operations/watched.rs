//! An open slot: a descriptor that a poller may watch, its duplicates, and its other end.

use std::fs::File;
use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::os::unix::net::UnixStream;
use std::sync::{LazyLock, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::pty::openpty;
use nix::sys::eventfd::{EfdFlags, EventFd};
use nix::sys::termios::{SetArg, cfmakeraw, tcgetattr, tcsetattr};
use pollio::{EventObject, Interest, Timer};
use socket2::SockRef;

use super::operation::{Amount, End, What};
use super::oracle::{Polled, RDHUP, Registration};
use crate::support::kernel::Kernel;

/// Longer than the kernel takes to deliver anything.
pub(super) const LONG: Duration = Duration::from_secs(10);

/// The descriptors by which an open file is watched: the original and its duplicates.
pub(super) enum Near {
    Plain(File),
    Timer(Timer),
}

impl AsFd for Near {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Self::Plain(file) => file.as_fd(),
            Self::Timer(timer) => timer.as_fd(),
        }
    }
}

impl Near {
    pub(super) fn number(&self) -> RawFd {
        self.as_fd().as_raw_fd()
    }
}

/// The open files of a slot.
pub(super) struct Watched {
    pub(super) what: What,
    pub(super) nears: Vec<Near>,
    far: Option<File>,
    pub(super) registrations: Vec<Registration>,
}

impl Watched {
    pub(super) fn open(what: What) -> Self {
        let (near, far) = match what {
            What::Unix => {
                let (near, far) = UnixStream::pair().unwrap();
                // One or two writes fill it.
                SockRef::from(&near).set_send_buffer_size(1).unwrap();
                (Near::Plain(OwnedFd::from(near).into()), Some(OwnedFd::from(far)))
            }
            What::Tcp => {
                let (near, far) = tcp_pair();
                (Near::Plain(OwnedFd::from(near).into()), Some(far.into()))
            }
            What::PipeReader | What::PipeWriter => {
                let (reader, writer) = nix::unistd::pipe().unwrap();
                fcntl(&writer, FcntlArg::F_SETPIPE_SZ(4096)).unwrap();
                if what == What::PipeReader {
                    (Near::Plain(reader.into()), Some(writer))
                } else {
                    (Near::Plain(writer.into()), Some(reader))
                }
            }
            What::PtyMaster | What::PtySlave => {
                let pty = openpty(None, None).unwrap();
                let mut terminal = tcgetattr(&pty.slave).unwrap();
                cfmakeraw(&mut terminal);
                tcsetattr(&pty.slave, SetArg::TCSANOW, &terminal).unwrap();
                if what == What::PtyMaster {
                    (Near::Plain(pty.master.into()), Some(pty.slave))
                } else {
                    (Near::Plain(pty.slave.into()), Some(pty.master))
                }
            }
            What::Eventfd => {
                let eventfd = EventFd::from_flags(EfdFlags::EFD_CLOEXEC).unwrap();
                (Near::Plain(OwnedFd::from(eventfd).into()), None)
            }
            What::Timer => (Near::Timer(Timer::new().unwrap()), None),
        };
        if let Near::Plain(near) = &near {
            set_nonblocking(near);
        }
        let far = far.map(File::from);
        if let Some(far) = &far {
            set_nonblocking(far);
        }
        Self { what, nears: vec![near], far, registrations: Vec::new() }
    }

    pub(super) fn entries(&self) -> [PollFd<'_>; 2] {
        let near = self.nears[0].as_fd();
        let known = PollFlags::POLLIN | PollFlags::POLLOUT | PollFlags::POLLPRI;
        [PollFd::new(near, known), PollFd::new(near, RDHUP)]
    }

    /// Its bits in poll(2).
    pub(super) fn bits(&self) -> PollFlags {
        let mut entries = self.entries();
        poll(&mut entries, PollTimeout::ZERO).unwrap();
        bits(&entries)
    }

    /// Waits until poll(2) reports `bits`.
    fn await_bits(&self, bits: PollFlags) -> Result<(), String> {
        let start = Instant::now();
        while !self.bits().contains(bits) {
            if start.elapsed() > LONG {
                return Err(format!("no {bits:?} came, only {:?}", self.bits()));
            }
            thread::sleep(Duration::from_micros(20));
        }
        Ok(())
    }

    /// Its state around a wait.
    pub(super) fn polled(&self, before: PollFlags, after: PollFlags) -> Polled {
        let (is_socket, takes_its_time) = (self.what.is_socket(), self.what.takes_its_time());
        Polled { before, after, is_socket, takes_its_time }
    }

    pub(super) fn is_registered(&self, fd: RawFd) -> bool {
        self.registrations.iter().any(|registration| registration.object.fd == fd)
    }

    pub(super) fn forget(&mut self, fd: RawFd) {
        self.registrations.retain(|registration| registration.object.fd != fd);
    }

    /// Registers a descriptor, or replaces its registration.
    pub(super) fn register(&mut self, kernel: Kernel, object: EventObject) -> Result<(), Errno> {
        self.forget(object.fd);
        let is_pipe = matches!(self.what, What::PipeReader | What::PipeWriter);
        let is_broken = is_pipe && self.far.is_none();
        let refuses = is_broken && !matches!(kernel, Kernel::Epoll | Kernel::Apple);
        if refuses && object.interest() & Interest::BOTH == Interest::WRITABLE {
            return Err(if kernel == Kernel::NetBsd { Errno::EBADF } else { Errno::EPIPE });
        }
        let asks_for_priority = object.interest().contains(Interest::PRIORITY);
        if kernel.is_kqueue()
            && kernel.has_priority()
            && asks_for_priority
            && !self.what.is_socket()
        {
            // Its filter is one of sockets.
            let is_dragonfly = kernel == Kernel::DragonFly;
            return Err(if is_dragonfly { Errno::EOPNOTSUPP } else { Errno::EINVAL });
        }
        // The reading end of a pipe can be written on FreeBSD. A refused filter is left out, but for a
        // oneshot that still has it.
        let is_unsure = refuses || self.what == What::PipeReader && kernel.hangs_writes_on_peers();
        let unsure = if is_unsure { Interest::WRITABLE } else { Interest::NONE };
        self.registrations.push(Registration::new(object, unsure));
        Ok(())
    }

    pub(super) fn duplicate(&mut self) {
        const MOST: usize = 3;
        if self.nears.len() < MOST {
            let near = self.nears[0].as_fd().try_clone_to_owned().unwrap();
            self.nears.push(Near::Plain(near.into()));
        }
    }

    pub(super) fn write(&mut self, kernel: Kernel, end: End, amount: Amount) -> Result<(), String> {
        let arrives = match (&self.nears[0], &self.far, self.what) {
            (Near::Timer(timer), ..) => {
                timer.set(Duration::ZERO).unwrap();
                self.await_bits(PollFlags::POLLIN)?;
                true
            }
            (Near::Plain(eventfd), _, What::Eventfd) => {
                if amount == Amount::All {
                    // An eventfd that is read loses its whole count.
                    read(eventfd, Amount::One);
                }
                let count: u64 = if amount == Amount::All { u64::MAX - 1 } else { 1 };
                let mut eventfd = eventfd;
                eventfd.write(&count.to_ne_bytes()).is_ok()
            }
            (Near::Plain(near), _, what) if end == End::Near => {
                write(near, amount, what);
                false
            }
            (_, Some(far), what) => {
                let arrives = write(far, amount, what);
                if arrives && what.takes_its_time() {
                    self.await_bits(PollFlags::POLLIN)?;
                }
                arrives
            }
            (_, None, _) => false,
        };
        if arrives {
            self.touch(kernel, PollFlags::POLLIN);
        }
        Ok(())
    }

    pub(super) fn read(&mut self, end: End, amount: Amount) {
        match (&self.nears[0], &self.far) {
            (Near::Timer(timer), _) => drop(timer.clear().unwrap()),
            (Near::Plain(near), _) if end == End::Near || self.far.is_none() => read(near, amount),
            (_, Some(far)) => read(far, amount),
            (_, None) => {}
        }
    }

    pub(super) fn write_out_of_band(&mut self, kernel: Kernel) -> Result<(), String> {
        let Some(far) = self.far.as_ref().filter(|_| self.what == What::Tcp) else { return Ok(()) };
        if SockRef::from(far).send_out_of_band(b"!").is_ok() {
            self.await_bits(PollFlags::POLLPRI)?;
            self.touch(kernel, PollFlags::POLLPRI);
        }
        Ok(())
    }

    pub(super) fn shutdown(&mut self, end: End, how: Shutdown) -> Result<(), String> {
        let file = match (&self.nears[0], &self.far) {
            (Near::Plain(near), _) if end == End::Near => near,
            (_, Some(far)) => far,
            _ => return Ok(()),
        };
        if !self.what.is_socket() || SockRef::from(file).shutdown(how).is_err() {
            return Ok(());
        }
        let ends_reading = match end {
            End::Near => how != Shutdown::Write,
            End::Far => how != Shutdown::Read,
        };
        if ends_reading { self.await_bits(RDHUP) } else { Ok(()) }
    }

    pub(super) fn close_far(&mut self, reset: bool) -> Result<(), String> {
        let Some(far) = self.far.take() else { return Ok(()) };
        if reset && self.what == What::Tcp {
            SockRef::from(&far).set_linger(Some(Duration::ZERO)).unwrap();
        }
        drop(far);
        match self.what {
            What::Tcp => self.await_bits(RDHUP),
            What::PtyMaster | What::PtySlave => self.await_bits(PollFlags::POLLHUP),
            _ => Ok(()),
        }
    }

    /// Notes for every registration that something happened that made `bits` new.
    pub(super) fn touch(&mut self, kernel: Kernel, bits: PollFlags) {
        for registration in &mut self.registrations {
            registration.touch(kernel, bits);
        }
    }
}

impl Drop for Watched {
    fn drop(&mut self) {
        if self.what == What::Tcp {
            // A connection that ends in good order keeps its port for a minute.
            let far = self.far.iter().map(File::as_fd);
            for end in self.nears.iter().map(Near::as_fd).chain(far) {
                let _ = SockRef::from(&end).set_linger(Some(Duration::ZERO));
            }
        }
    }
}

/// The bits of two entries for a descriptor. nix drops all bits of an entry with RDHUP, so RDHUP has an entry of its
/// own.
pub(super) fn bits(entries: &[PollFd<'_>]) -> PollFlags {
    let known = entries[0].revents().unwrap();
    if entries[1].revents().is_none() { known | RDHUP } else { known }
}

fn tcp_pair() -> (TcpStream, TcpStream) {
    static LISTENER: LazyLock<Mutex<TcpListener>> =
        LazyLock::new(|| Mutex::new(TcpListener::bind("127.0.0.1:0").unwrap()));
    let listener = LISTENER.lock().unwrap();
    let near = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    let (far, _) = listener.accept().unwrap();
    for end in [&near, &far] {
        end.set_nodelay(true).unwrap();
    }
    SockRef::from(&near).set_send_buffer_size(1).unwrap();
    (near, far)
}

fn set_nonblocking(file: &File) {
    let flags = OFlag::from_bits_retain(fcntl(file, FcntlArg::F_GETFL).unwrap());
    fcntl(file, FcntlArg::F_SETFL(flags | OFlag::O_NONBLOCK)).unwrap();
}

/// Writes, and returns whether anything was written.
fn write(mut to: &File, amount: Amount, what: What) -> bool {
    // The room in these changes by itself.
    if amount == Amount::One || what.takes_its_time() {
        return to.write(b"x").is_ok();
    }
    let mut written = false;
    while matches!(to.write(&[0; 4096]), Ok(1..)) {
        written = true;
    }
    written
}

fn read(mut from: &File, amount: Amount) {
    let mut room = [0; 4096];
    let room = if amount == Amount::One { &mut room[..1] } else { &mut room[..] };
    while matches!(from.read(room), Ok(1..)) && amount == Amount::All {}
}
