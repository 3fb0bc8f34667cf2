//! What goes wrong around a poller, on Linux: a kernel that refuses, descriptors that are closed
//! behind its back.
//!
//! Signals, stops and too many descriptors are cases of the contract.

use std::fs::File;
use std::io::ErrorKind;
use std::os::fd::AsRawFd;
use std::process::Command;
use std::thread;
use std::time::Duration;

use nix::errno::Errno;
use nix::unistd::close;
use pollio::{Child, EpollPoller, EventObject, Poller};
use seccompiler::{BpfProgram, SeccompAction, SeccompFilter, apply_filter};

use crate::alone::alone;
use crate::descriptors::pair;
use crate::epoll::{SHORT, shortest_wait};

/// Lets this thread's kernel answer `call` with `error`.
pub(crate) fn refuse(call: libc::c_long, error: Errno) {
    let rules = [(call, Vec::new())].into();
    let answer = SeccompAction::Errno((error as i32).unsigned_abs());
    let architecture = std::env::consts::ARCH.try_into().expect("an architecture with seccomp");
    let filter = SeccompFilter::new(rules, SeccompAction::Allow, answer, architecture).unwrap();
    apply_filter(&BpfProgram::try_from(filter).unwrap()).unwrap();
}

/// What `body` returns in a thread whose kernel answers `call` with `error`.
fn refused<T: Send>(call: libc::c_long, error: Errno, body: impl FnOnce() -> T + Send) -> T {
    thread::scope(|scope| {
        let thread = scope.spawn(|| {
            refuse(call, error);
            body()
        });
        thread.join().unwrap()
    })
}

/// C8: a kernel or a sandbox without `epoll_pwait2` makes timeouts longer, never shorter.
#[test]
fn without_nanoseconds_a_timeout_is_rounded_up() {
    alone(concat!(module_path!(), "::without_nanoseconds_a_timeout_is_rounded_up"), || {
        for error in [Errno::ENOSYS, Errno::EPERM] {
            let shortest = refused(libc::SYS_epoll_pwait2, error, || {
                shortest_wait(&mut EpollPoller::new().unwrap(), SHORT)
            });
            assert!(shortest >= Duration::from_millis(1), "100 µs took {shortest:?}");
        }
    });
}

#[test]
fn without_pidfd_open_a_child_is_refused() {
    alone(concat!(module_path!(), "::without_pidfd_open_a_child_is_refused"), || {
        let mut process = Command::new("true").spawn().unwrap();
        for (error, kind) in
            [(Errno::ENOSYS, ErrorKind::Unsupported), (Errno::EPERM, ErrorKind::PermissionDenied)]
        {
            let child = refused(libc::SYS_pidfd_open, error, || Child::new(&process));
            assert_eq!(child.unwrap_err().kind(), kind);
        }
        assert!(process.wait().unwrap().success());
    });
}

/// What closes a poller's descriptor behind its back makes an error of it, not a spin or a panic.
#[test]
fn a_closed_poller_is_an_error() {
    alone(concat!(module_path!(), "::a_closed_poller_is_an_error"), || {
        let (near, _far) = pair();
        let mut poller = EpollPoller::new().unwrap();
        let number = poller.as_raw_fd();
        close(number).unwrap();
        let bad = Some(Errno::EBADF as i32);
        assert_eq!(poller.wait(-1).unwrap_err().raw_os_error(), bad);
        assert_eq!(poller.wait(0).unwrap_err().raw_os_error(), bad);
        let object = EventObject::client(near.as_raw_fd());
        assert_eq!(poller.add(object).unwrap_err().raw_os_error(), bad);

        let other = File::open("/dev/null").unwrap();
        assert_eq!(other.as_raw_fd(), number, "the lowest free number is used again");
        assert_eq!(poller.wait(-1).unwrap_err().kind(), ErrorKind::InvalidInput);
        assert_eq!(poller.add(object).unwrap_err().kind(), ErrorKind::InvalidInput);
        // One of the two closes the number.
        std::mem::forget(other);
    });
}
