//! libuv 1, through its C API: its poll handles.
#![allow(unsafe_code, reason = "a C API is foreign functions")]

use std::collections::HashMap;
use std::ffi::{CStr, c_char, c_int, c_void};
use std::io;
use std::os::fd::RawFd;
use std::ptr;

use super::{Asked, Mode, Peer, Wakes, callback};

/// Memory for an object whose size the library returns; aligned for whatever C puts there.
type Object = Box<[u128]>;

pub(crate) struct Libuv {
    uv_loop: Object,
    handles: HashMap<RawFd, Object>,
    /// Closed, but used by the loop until its next turn.
    closing: Vec<Object>,
}

impl Libuv {
    fn uv_loop(&mut self) -> *mut c_void {
        self.uv_loop.as_mut_ptr().cast()
    }
}

impl Peer for Libuv {
    const NAME: &'static str = "libuv";

    const LAZY: Option<&'static str> = Some("registers in the next wait");

    fn new() -> io::Result<Self> {
        // SAFETY: the call takes nothing.
        let mut uv_loop = object(unsafe { uv_loop_size() });
        // SAFETY: the memory has the size of a loop, and stays put.
        result(unsafe { uv_loop_init(uv_loop.as_mut_ptr().cast()) })?;
        Ok(Self { uv_loop, handles: HashMap::new(), closing: Vec::new() })
    }

    fn lacks(asked: Asked) -> Option<&'static str> {
        (asked.mode != Mode::Level).then_some("is only level-triggered")
    }

    fn add(&mut self, fd: RawFd, asked: Asked) -> io::Result<()> {
        // SAFETY: the call takes no pointer.
        let mut handle = object(unsafe { uv_handle_size(UV_POLL) });
        let pointer = handle.as_mut_ptr().cast();
        // SAFETY: the memory has the size of a poll handle, and stays put until it is closed.
        result(unsafe { uv_poll_init(self.uv_loop(), pointer, fd) })?;
        // The descriptor itself: a handle does not have it.
        // SAFETY: the handle was made above; nobody takes what it carries for an address.
        unsafe {
            uv_handle_set_data(pointer, ptr::without_provenance_mut(fd.unsigned_abs() as usize))
        };
        self.handles.insert(fd, handle);
        self.modify(fd, asked)
    }

    fn modify(&mut self, fd: RawFd, asked: Asked) -> io::Result<()> {
        let write = if asked.writable_too { UV_WRITABLE } else { 0 };
        let handle = self.handles.get_mut(&fd).ok_or(io::ErrorKind::NotFound)?;
        // SAFETY: `add` made the handle, and it is not closed.
        result(unsafe { uv_poll_start(handle.as_mut_ptr().cast(), UV_READABLE | write, on_event) })
    }

    fn delete(&mut self, fd: RawFd) -> io::Result<()> {
        if let Some(mut handle) = self.handles.remove(&fd) {
            // SAFETY: `add` made the handle, and it is closed once; its memory stays until the loop
            // has turned.
            unsafe { uv_close(handle.as_mut_ptr().cast(), on_close) };
            self.closing.push(handle);
        }
        Ok(())
    }

    fn wait(&mut self, reported: impl FnMut(RawFd)) -> io::Result<()> {
        // SAFETY: the loop lives, and so do the handles in it.
        unsafe { uv_run(self.uv_loop(), UV_RUN_ONCE) };
        self.closing.clear();
        callback::take(reported);
        Ok(())
    }
}

/// The handle that wakes a loop from another thread.
pub(crate) struct Waker(*mut c_void);

// SAFETY: `uv_async_send` is made to be called from any thread.
unsafe impl Send for Waker {}
// SAFETY: as above.
unsafe impl Sync for Waker {}
// SAFETY: one thread after the other uses a loop and its handles; nothing in them is a thread's own.
unsafe impl Send for Libuv {}

impl Wakes for Libuv {
    type Waker = Waker;

    fn with_waker() -> io::Result<(Self, Waker)> {
        let mut libuv = Self::new()?;
        // SAFETY: the call takes no pointer.
        let mut handle = object(unsafe { uv_handle_size(UV_ASYNC) });
        let pointer: *mut c_void = handle.as_mut_ptr().cast();
        // SAFETY: the memory has the size of an async handle, and stays put until it is closed.
        result(unsafe { uv_async_init(libuv.uv_loop(), pointer, on_wake) })?;
        libuv.handles.insert(NO_FD, handle);
        Ok((libuv, Waker(pointer)))
    }

    fn wake(waker: &Waker) -> io::Result<()> {
        // SAFETY: the workload drops the peer, which closes the handle, when all have woken.
        result(unsafe { uv_async_send(waker.0) })
    }

    fn wait_for_wake(&mut self) -> io::Result<()> {
        // SAFETY: the loop lives, and so does the handle in it.
        unsafe { uv_run(self.uv_loop(), UV_RUN_ONCE) };
        Ok(())
    }
}

extern "C" fn on_wake(_handle: *mut c_void) {}

/// The key of the waker's handle, which has no descriptor.
const NO_FD: RawFd = -1;

impl Drop for Libuv {
    fn drop(&mut self) {
        let fds: Vec<_> = self.handles.keys().copied().collect();
        for fd in fds {
            // It has no error to return.
            let _ = self.delete(fd);
        }
        // SAFETY: the loop lives; it calls back for the closed handles, whose memory does too.
        unsafe { uv_run(self.uv_loop(), UV_RUN_DEFAULT) };
        // SAFETY: no handle is left in it.
        unsafe { uv_loop_close(self.uv_loop()) };
    }
}

pub(crate) fn version() -> (String, String) {
    // SAFETY: the call takes nothing.
    let version = unsafe { uv_version_string() };
    // SAFETY: it is a string that is never freed.
    let version = unsafe { CStr::from_ptr(version) };
    ("libuv".to_owned(), version.to_string_lossy().into_owned())
}

extern "C" fn on_event(handle: *mut c_void, _status: c_int, _events: c_int) {
    // SAFETY: libuv calls with a handle that `add` made.
    let fd = unsafe { uv_handle_get_data(handle) };
    callback::ready(RawFd::try_from(fd.addr()).expect("a descriptor went in"));
}

extern "C" fn on_close(_handle: *mut c_void) {}

fn object(size: usize) -> Object {
    vec![0; size.div_ceil(size_of::<u128>())].into()
}

fn result(returned: c_int) -> io::Result<()> {
    if returned < 0 { Err(io::Error::from_raw_os_error(-returned)) } else { Ok(()) }
}

const UV_ASYNC: c_int = 1;
const UV_POLL: c_int = 8;
const UV_READABLE: c_int = 1;
const UV_WRITABLE: c_int = 2;
const UV_RUN_DEFAULT: c_int = 0;
const UV_RUN_ONCE: c_int = 1;

unsafe extern "C" {
    fn uv_version_string() -> *const c_char;
    fn uv_loop_size() -> usize;
    fn uv_loop_init(uv_loop: *mut c_void) -> c_int;
    fn uv_loop_close(uv_loop: *mut c_void) -> c_int;
    fn uv_run(uv_loop: *mut c_void, mode: c_int) -> c_int;
    fn uv_handle_size(kind: c_int) -> usize;
    fn uv_handle_set_data(handle: *mut c_void, data: *mut c_void);
    fn uv_handle_get_data(handle: *const c_void) -> *mut c_void;
    fn uv_close(handle: *mut c_void, callback: extern "C" fn(*mut c_void));
    fn uv_async_init(
        uv_loop: *mut c_void,
        handle: *mut c_void,
        callback: extern "C" fn(*mut c_void),
    ) -> c_int;
    fn uv_async_send(handle: *mut c_void) -> c_int;
    fn uv_poll_init(uv_loop: *mut c_void, handle: *mut c_void, fd: c_int) -> c_int;
    fn uv_poll_start(
        handle: *mut c_void,
        events: c_int,
        callback: extern "C" fn(*mut c_void, c_int, c_int),
    ) -> c_int;
}
