//! libevent 2, through its C API.
#![allow(unsafe_code, reason = "a C API is foreign functions")]

use std::collections::HashMap;
use std::ffi::{CStr, c_char, c_int, c_short, c_void};
use std::io;
use std::os::fd::RawFd;
use std::ptr;

use super::{Asked, Mode, Peer, Wakes, callback};

pub(crate) struct Libevent {
    base: *mut c_void,
    events: HashMap<RawFd, *mut c_void>,
}

impl Peer for Libevent {
    const NAME: &'static str = "libevent";

    fn new() -> io::Result<Self> {
        // SAFETY: the call takes nothing.
        let base = unsafe { event_base_new() };
        if base.is_null() {
            return Err(io::ErrorKind::OutOfMemory.into());
        }
        Ok(Self { base, events: HashMap::new() })
    }

    fn lacks(_: Asked) -> Option<&'static str> {
        None
    }

    fn add(&mut self, fd: RawFd, asked: Asked) -> io::Result<()> {
        // SAFETY: the event is freed before the base is, in `delete` or `drop`.
        let event = unsafe { event_new(self.base, fd, flags(asked), on_event, ptr::null_mut()) };
        if event.is_null() {
            return Err(io::ErrorKind::OutOfMemory.into());
        }
        self.events.insert(fd, event);
        // SAFETY: `event` was made above.
        result(unsafe { event_add(event, ptr::null()) })
    }

    fn modify(&mut self, fd: RawFd, asked: Asked) -> io::Result<()> {
        let event = self.events[&fd];
        if asked.mode == Mode::Oneshot {
            // SAFETY: `event` is one that `add` made and nobody has freed.
            return result(unsafe { event_add(event, ptr::null()) });
        }
        // An event that waits cannot change: it is deleted first, as the manual asks.
        // SAFETY: as above.
        result(unsafe { event_del(event) })?;
        // SAFETY: as above, and it waits no more.
        result(unsafe {
            event_assign(event, self.base, fd, flags(asked), on_event, ptr::null_mut())
        })?;
        // SAFETY: as above.
        result(unsafe { event_add(event, ptr::null()) })
    }

    fn delete(&mut self, fd: RawFd) -> io::Result<()> {
        if let Some(event) = self.events.remove(&fd) {
            // SAFETY: `add` made it, and it is forgotten here.
            unsafe { event_free(event) };
        }
        Ok(())
    }

    fn wait(&mut self, reported: impl FnMut(RawFd)) -> io::Result<()> {
        // SAFETY: the base lives, and so do the events in it.
        if unsafe { event_base_loop(self.base, EVLOOP_ONCE) } == -1 {
            return Err(io::Error::last_os_error());
        }
        callback::take(reported);
        Ok(())
    }
}

/// An event of no descriptor, which another thread makes active.
pub(crate) struct Waker(*mut c_void);

// SAFETY: `event_active` takes the lock of the base, which `evthread_use_pthreads` gave it.
unsafe impl Send for Waker {}
// SAFETY: as above.
unsafe impl Sync for Waker {}
// SAFETY: one thread after the other uses a base and its events; nothing in them is a thread's own.
unsafe impl Send for Libevent {}

impl Wakes for Libevent {
    type Waker = Waker;

    fn with_waker() -> io::Result<(Self, Waker)> {
        // SAFETY: the call takes nothing, and does nothing the second time.
        result(unsafe { evthread_use_pthreads() })?;
        let mut libevent = Self::new()?;
        // SAFETY: the event is freed before the base is, in `drop`.
        let event = unsafe { event_new(libevent.base, NO_FD, 0, on_event, ptr::null_mut()) };
        if event.is_null() {
            return Err(io::ErrorKind::OutOfMemory.into());
        }
        libevent.events.insert(NO_FD, event);
        Ok((libevent, Waker(event)))
    }

    fn wake(waker: &Waker) -> io::Result<()> {
        // SAFETY: the workload drops the peer, which frees the event, when all have woken.
        unsafe { event_active(waker.0, EV_READ.into(), 0) };
        Ok(())
    }

    fn wait_for_wake(&mut self) -> io::Result<()> {
        // SAFETY: the base lives, and so does the event in it.
        if unsafe { event_base_loop(self.base, EVLOOP_ONCE | EVLOOP_NO_EXIT_ON_EMPTY) } == -1 {
            return Err(io::Error::last_os_error());
        }
        callback::take(drop);
        Ok(())
    }
}

impl Drop for Libevent {
    fn drop(&mut self) {
        for event in self.events.values() {
            // SAFETY: `add` made it, and nobody has freed it.
            unsafe { event_free(*event) };
        }
        // SAFETY: no event is left in it.
        unsafe { event_base_free(self.base) };
    }
}

pub(crate) fn version() -> (String, String) {
    // SAFETY: the call takes nothing.
    let version = unsafe { event_get_version() };
    // SAFETY: it is a string that is never freed.
    let version = unsafe { CStr::from_ptr(version) };
    ("libevent".to_owned(), version.to_string_lossy().into_owned())
}

extern "C" fn on_event(fd: c_int, _what: c_short, _argument: *mut c_void) {
    callback::ready(fd);
}

fn flags(asked: Asked) -> c_short {
    let write = if asked.writable_too { EV_WRITE } else { 0 };
    EV_READ
        | write
        | match asked.mode {
            Mode::Level => EV_PERSIST,
            Mode::Edge => EV_PERSIST | EV_ET,
            Mode::Oneshot => 0,
        }
}

fn result(returned: c_int) -> io::Result<()> {
    if returned == -1 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

const EV_READ: c_short = 0x02;
const EV_WRITE: c_short = 0x04;
const EV_PERSIST: c_short = 0x10;
const EV_ET: c_short = 0x20;
const EVLOOP_ONCE: c_int = 0x01;
const EVLOOP_NO_EXIT_ON_EMPTY: c_int = 0x04;

/// The descriptor of an event that has none.
const NO_FD: RawFd = -1;

type Callback = extern "C" fn(c_int, c_short, *mut c_void);

// From <event2/event.h>.
unsafe extern "C" {
    fn event_get_version() -> *const c_char;
    fn event_base_new() -> *mut c_void;
    fn event_base_free(base: *mut c_void);
    fn event_base_loop(base: *mut c_void, flags: c_int) -> c_int;
    fn event_new(
        base: *mut c_void,
        fd: c_int,
        what: c_short,
        callback: Callback,
        argument: *mut c_void,
    ) -> *mut c_void;
    fn event_assign(
        event: *mut c_void,
        base: *mut c_void,
        fd: c_int,
        what: c_short,
        callback: Callback,
        argument: *mut c_void,
    ) -> c_int;
    fn event_free(event: *mut c_void);
    fn event_add(event: *mut c_void, timeout: *const libc::timeval) -> c_int;
    fn event_del(event: *mut c_void) -> c_int;
    fn event_active(event: *mut c_void, what: c_int, calls: c_short);
    fn evthread_use_pthreads() -> c_int;
}
