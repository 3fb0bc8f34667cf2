//! libev 4, through its C API.
#![allow(unsafe_code, reason = "a C API is foreign functions")]

use std::collections::HashMap;
use std::ffi::{c_int, c_uint, c_void};
use std::io;
use std::os::fd::RawFd;
use std::ptr;

use super::{Asked, Mode, Peer, Wakes, callback};

pub(crate) struct Libev {
    ev_loop: *mut c_void,
    /// Boxed, so that they do not move while the loop has them.
    watchers: HashMap<RawFd, Box<EvIo>>,
    waker: Option<Box<EvAsync>>,
}

impl Peer for Libev {
    const NAME: &'static str = "libev";

    const LAZY: Option<&'static str> = Some("registers in the next wait");

    fn new() -> io::Result<Self> {
        // SAFETY: the call takes no pointer.
        let ev_loop = unsafe { ev_loop_new(EVBACKEND_EPOLL | EVFLAG_NOENV) };
        if ev_loop.is_null() {
            return Err(io::ErrorKind::Unsupported.into());
        }
        Ok(Self { ev_loop, watchers: HashMap::new(), waker: None })
    }

    fn lacks(asked: Asked) -> Option<&'static str> {
        (asked.mode != Mode::Level).then_some("is only level-triggered")
    }

    fn add(&mut self, fd: RawFd, asked: Asked) -> io::Result<()> {
        let write = if asked.writable_too { EV_WRITE } else { 0 };
        let mut watcher = Box::new(EvIo {
            active: 0,
            pending: 0,
            priority: 0,
            data: ptr::null_mut(),
            callback: on_event,
            next: ptr::null_mut(),
            fd,
            events: EV_READ | write | EV_IOFDSET,
        });
        // SAFETY: the watcher has its place until `delete` or `drop`, which stop it first.
        unsafe { ev_io_start(self.ev_loop, &mut *watcher) };
        self.watchers.insert(fd, watcher);
        Ok(())
    }

    fn modify(&mut self, fd: RawFd, asked: Asked) -> io::Result<()> {
        self.delete(fd)?;
        self.add(fd, asked)
    }

    fn delete(&mut self, fd: RawFd) -> io::Result<()> {
        if let Some(mut watcher) = self.watchers.remove(&fd) {
            // SAFETY: `add` started it, and it is dropped only after this.
            unsafe { ev_io_stop(self.ev_loop, &mut *watcher) };
        }
        Ok(())
    }

    fn wait(&mut self, reported: impl FnMut(RawFd)) -> io::Result<()> {
        // SAFETY: the loop lives, and so do the watchers in it.
        unsafe { ev_run(self.ev_loop, EVRUN_ONCE) };
        callback::take(reported);
        Ok(())
    }
}

/// A loop, and the watcher that wakes it from another thread.
pub(crate) struct Waker(*mut c_void, *mut EvAsync);

// SAFETY: `ev_async_send` is made to be called from any thread.
unsafe impl Send for Waker {}
// SAFETY: as above.
unsafe impl Sync for Waker {}
// SAFETY: one thread after the other uses a loop and its watchers; nothing in them is a thread's own.
unsafe impl Send for Libev {}

impl Wakes for Libev {
    type Waker = Waker;

    fn with_waker() -> io::Result<(Self, Waker)> {
        let mut libev = Self::new()?;
        let waker = libev.waker.insert(Box::new(EvAsync {
            active: 0,
            pending: 0,
            priority: 0,
            data: ptr::null_mut(),
            callback: on_wake,
            sent: 0,
        }));
        // SAFETY: the watcher has its place until `drop`, which stops it first.
        unsafe { ev_async_start(libev.ev_loop, &mut **waker) };
        let waker = Waker(libev.ev_loop, &raw mut **waker);
        Ok((libev, waker))
    }

    fn wake(waker: &Waker) -> io::Result<()> {
        // SAFETY: the workload drops the peer, with the loop and the watcher, when all have woken.
        unsafe { ev_async_send(waker.0, waker.1) };
        Ok(())
    }

    fn wait_for_wake(&mut self) -> io::Result<()> {
        // SAFETY: the loop lives, and so does the watcher in it.
        unsafe { ev_run(self.ev_loop, EVRUN_ONCE) };
        Ok(())
    }
}

impl Drop for Libev {
    fn drop(&mut self) {
        if let Some(waker) = &mut self.waker {
            // SAFETY: `new` started it, and nobody has stopped it.
            unsafe { ev_async_stop(self.ev_loop, &mut **waker) };
        }
        for watcher in self.watchers.values_mut() {
            // SAFETY: `add` started it, and nobody has stopped it.
            unsafe { ev_io_stop(self.ev_loop, &mut **watcher) };
        }
        // SAFETY: no watcher is left in it.
        unsafe { ev_loop_destroy(self.ev_loop) };
    }
}

pub(crate) fn version() -> (String, String) {
    // SAFETY: the call takes nothing.
    let major = unsafe { ev_version_major() };
    // SAFETY: the call takes nothing.
    let minor = unsafe { ev_version_minor() };
    ("libev".to_owned(), format!("{major}.{minor}"))
}

extern "C" fn on_event(_loop: *mut c_void, watcher: *mut EvIo, _events: c_int) {
    // SAFETY: libev calls with a watcher that was started and has not been stopped.
    callback::ready(unsafe { &*watcher }.fd);
}

/// `struct ev_io` of <ev.h>, as Debian builds it: with priorities, and a loop as first argument.
#[repr(C)]
struct EvIo {
    active: c_int,
    pending: c_int,
    priority: c_int,
    data: *mut c_void,
    callback: extern "C" fn(*mut c_void, *mut EvIo, c_int),
    next: *mut c_void,
    fd: c_int,
    events: c_int,
}

/// `struct ev_async` of <ev.h>.
#[repr(C)]
pub(crate) struct EvAsync {
    active: c_int,
    pending: c_int,
    priority: c_int,
    data: *mut c_void,
    callback: extern "C" fn(*mut c_void, *mut EvAsync, c_int),
    sent: c_int,
}

extern "C" fn on_wake(_loop: *mut c_void, _watcher: *mut EvAsync, _events: c_int) {}

const EV_READ: c_int = 0x01;
const EV_WRITE: c_int = 0x02;
const EV_IOFDSET: c_int = 0x80;
const EVBACKEND_EPOLL: c_uint = 0x04;
const EVFLAG_NOENV: c_uint = 0x0100_0000;
const EVRUN_ONCE: c_int = 0x02;

unsafe extern "C" {
    fn ev_version_major() -> c_int;
    fn ev_version_minor() -> c_int;
    fn ev_loop_new(flags: c_uint) -> *mut c_void;
    fn ev_loop_destroy(ev_loop: *mut c_void);
    fn ev_run(ev_loop: *mut c_void, flags: c_int) -> c_int;
    fn ev_io_start(ev_loop: *mut c_void, watcher: *mut EvIo);
    fn ev_io_stop(ev_loop: *mut c_void, watcher: *mut EvIo);
    fn ev_async_start(ev_loop: *mut c_void, watcher: *mut EvAsync);
    fn ev_async_stop(ev_loop: *mut c_void, watcher: *mut EvAsync);
    fn ev_async_send(ev_loop: *mut c_void, watcher: *mut EvAsync);
}
