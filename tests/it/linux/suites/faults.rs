//! Faults around a poller, on Linux: no memory, a kernel that refuses calls, descriptors that other code closes, forked
//! children.
//!
//! Signals, stops and a lack of descriptors are cases of the contract.
#![cfg_attr(
    not(all(target_os = "linux", target_env = "gnu")),
    allow(unused_imports, reason = "some cases are for Linux with glibc only")
)]

use std::array;
use std::fs::{self, File, OpenOptions};
use std::io::{self, ErrorKind, Read, Write};
use std::mem;
use std::net::UdpSocket;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd};
use std::os::unix::fs::OpenOptionsExt;
use std::process::Command;
use std::sync::mpsc::TryRecvError;
use std::thread;
use std::time::Duration;

use nix::errno::Errno;
use nix::sys::ptrace;
use nix::sys::resource::{Resource, getrlimit, rlim_t, setrlimit};
use nix::sys::signal::{Signal, kill};
use nix::sys::utsname::uname;
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::{ForkResult, Pid, Uid, alarm, close, fork, setresuid};
use pollio::{ChildExit, EventObject, Interest, Mode, OsPoller, Poller, Registered, Timer, Waker};

use crate::linux::suites::epoll::{SHORT, shortest_wait};
use crate::support::descriptors::{allow_descriptors, open, pair};
use crate::support::expect::Expect;
use crate::support::subprocess::in_subprocess;

/// Makes `call` fail with `error` in this thread, by a filter of
/// [seccomp(2)](https://man7.org/linux/man-pages/man2/seccomp.2.html), on any processor.
#[expect(unsafe_code, reason = "no crate knows this call on every processor")]
pub(crate) fn refuse(call: libc::c_long, error: Errno) {
    // From linux/bpf_common.h, which libc has not on Android: load a word from a place, jump if it is
    // equal to a constant, return a constant.
    const LOAD: u16 = 0x20;
    const JUMP_IF_EQUAL: u16 = 0x15;
    const RETURN: u16 = 0x06;
    let instruction = |code, k, jf| libc::sock_filter { code, jt: 0, jf, k };
    // The number of the call is the first field of the filter's input.
    let mut filter = [
        instruction(LOAD, 0, 0),
        instruction(JUMP_IF_EQUAL, call.try_into().unwrap(), 1),
        instruction(RETURN, libc::SECCOMP_RET_ERRNO | (error as i32).unsigned_abs(), 0),
        instruction(RETURN, libc::SECCOMP_RET_ALLOW, 0),
    ];
    let program =
        libc::sock_fprog { len: filter.len().try_into().unwrap(), filter: filter.as_mut_ptr() };
    // Without this, only root may set a filter.
    let [on, unused]: [libc::c_ulong; 2] = [1, 0];
    // SAFETY: the call takes no pointer.
    let set = unsafe { libc::prctl(libc::PR_SET_NO_NEW_PRIVS, on, unused, unused, unused) };
    Errno::result(set).unwrap();
    // SAFETY: the kernel copies the `len` instructions that `program` points to.
    let set =
        unsafe { libc::prctl(libc::PR_SET_SECCOMP, libc::SECCOMP_MODE_FILTER, &raw const program) };
    Errno::result(set).expect("seccomp is refused here: leave this test out by name, with --skip");
}

/// Runs `body` in a thread in which `call` fails with `error`, and returns its result.
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
    in_subprocess!(|| {
        for error in [Errno::ENOSYS, Errno::EPERM, Errno::EINVAL, Errno::EBADF, Errno::EFAULT] {
            let shortest = refused(libc::SYS_epoll_pwait2, error, || {
                shortest_wait(&mut OsPoller::new().unwrap(), SHORT)
            });
            assert!(shortest >= Duration::from_millis(1), "100 µs took {shortest:?}");
        }
    });
}

#[test]
fn without_pidfd_open_a_child_is_refused() {
    in_subprocess!(|| {
        let mut process = Command::new("true").spawn().unwrap();
        for (error, kind) in
            [(Errno::ENOSYS, ErrorKind::Unsupported), (Errno::EPERM, ErrorKind::PermissionDenied)]
        {
            let child = refused(libc::SYS_pidfd_open, error, || ChildExit::new(&process));
            assert_eq!(child.unwrap_err().kind(), kind);
        }
        assert!(process.wait().unwrap().success());
    });
}

/// C11: the errors of a system without descriptors or memory. No test can exhaust a whole system, so a filter returns
/// them.
#[test]
fn a_system_without_room_is_the_error_of_whatever_opens_a_descriptor() {
    in_subprocess!(|| {
        let mut process = Command::new("true").spawn().unwrap();
        let before = open();
        type Make<'a> = &'a (dyn Fn() -> io::Result<()> + Sync);
        let opens: [(libc::c_long, Make<'_>); 4] = [
            (libc::SYS_epoll_create1, &|| OsPoller::new().map(drop)),
            (libc::SYS_eventfd2, &|| Waker::new(OsPoller::new()?.registry(), 1).map(drop)),
            (libc::SYS_timerfd_create, &|| Timer::new().map(drop)),
            (libc::SYS_pidfd_open, &|| ChildExit::new(&process).map(drop)),
        ];
        for (call, make) in opens {
            for error in [Errno::ENFILE, Errno::ENOMEM] {
                let reported = refused(call, error, make).unwrap_err();
                assert_eq!(reported.raw_os_error(), Some(error as i32));
                make().unwrap();
            }
        }
        assert_eq!(open(), before);
        process.wait().unwrap();
    });
}

/// C10: a filter returns the error, since a test cannot exhaust the kernel's memory.
#[test]
fn a_kernel_without_memory_is_the_error_of_an_add() {
    in_subprocess!(|| {
        let (near, mut far) = pair();
        let object = EventObject::client(near.as_raw_fd());
        let mut poller = OsPoller::new().unwrap();
        let registry = poller.registry().clone();
        for error in [Errno::ENOMEM, Errno::ENOSPC] {
            let reported =
                refused(libc::SYS_epoll_ctl, error, || registry.add(object)).unwrap_err();
            assert_eq!(reported.raw_os_error(), Some(error as i32));
        }
        poller.add(object).unwrap();
        far.write_all(b"x").unwrap();
        poller.expect_one();
    });
}

const MAX_USER_WATCHES: &str = "/proc/sys/fs/epoll/max_user_watches";

/// A lower limit of registrations for the whole machine, until this is dropped.
struct FewerWatches {
    limit_before: String,
}

impl FewerWatches {
    fn new(limit: u32) -> Self {
        let limit_before = fs::read_to_string(MAX_USER_WATCHES).unwrap();
        fs::write(MAX_USER_WATCHES, limit.to_string()).expect("this test must be root's");
        Self { limit_before }
    }
}

impl Drop for FewerWatches {
    fn drop(&mut self) {
        fs::write(MAX_USER_WATCHES, &self.limit_before).unwrap();
    }
}

/// C10: the real limit. Each user has one, so this process becomes a user without registrations; all others stay far
/// below it.
#[test]
#[ignore = "it lowers a limit of the whole machine for a second: root runs it, with --ignored"]
fn too_many_registrations_are_enospc() {
    in_subprocess!(|| {
        const LIMIT: u32 = 200_000;
        allow_descriptors(1_500);
        let _fewer = FewerWatches::new(LIMIT);
        setresuid(Uid::from_raw(3_141_592_653), Uid::effective(), Uid::effective()).unwrap();

        let timers: Vec<_> = (0..1_000).map(|_| Timer::new().unwrap()).collect();
        let objects = || timers.iter().map(|timer| EventObject::new(timer.as_raw_fd()));
        let mut full = Vec::new();
        for _ in 0..LIMIT / 1_000 {
            let poller = OsPoller::new().unwrap();
            objects().for_each(|object| poller.add(object).unwrap());
            full.push(poller);
        }

        let [first, second] = [0, 1].map(|index| EventObject::new(timers[index].as_raw_fd()));
        let mut poller = OsPoller::new().unwrap();
        let no_room = poller.add(first).unwrap_err();
        assert_eq!(no_room.raw_os_error(), Some(Errno::ENOSPC as i32));
        assert_eq!(poller.delete(first.fd).unwrap_err().kind(), ErrorKind::NotFound);
        full[0].modify(first.with_token(1)).unwrap();
        timers[0].set(Duration::ZERO).unwrap();
        assert_eq!(full[0].expect_one().token, 1);
        poller.expect_none();

        full[0].delete(first.fd).unwrap();
        poller.add(first).unwrap();
        poller.expect_one();
        assert_eq!(poller.add(second).unwrap_err().raw_os_error(), Some(Errno::ENOSPC as i32));
        drop(full);
        poller.add(second).unwrap();
    });
}

/// Holds all the memory that this process can get, so that a kilobyte more is refused, until this is dropped.
struct NoMemory {
    limits: (rlim_t, rlim_t),
    taken: Vec<Vec<u8>>,
}

impl NoMemory {
    fn new() -> Self {
        let limits = getrlimit(Resource::RLIMIT_DATA).unwrap();
        let mut taken = Vec::with_capacity(100_000);
        // The limit is below the memory in use, so it forbids more.
        setrlimit(Resource::RLIMIT_DATA, 1, limits.1).unwrap();
        loop {
            let mut block = Vec::new();
            if block.try_reserve_exact(1_024).is_err() {
                return Self { limits, taken };
            }
            assert!(taken.len() < taken.capacity(), "the limit does not hold");
            taken.push(block);
        }
    }
}

impl Drop for NoMemory {
    fn drop(&mut self) {
        setrlimit(Resource::RLIMIT_DATA, self.limits.0, self.limits.1).unwrap();
        self.taken.clear();
    }
}

/// C11
#[test]
fn without_memory_for_its_buffer_no_poller_is_half_made() {
    in_subprocess!(|| {
        let before = open();
        let no_memory = NoMemory::new();
        let poller = OsPoller::with_capacity(1_000);
        drop(no_memory);
        assert_eq!(poller.unwrap_err().kind(), ErrorKind::OutOfMemory);
        assert_eq!(open(), before);
    });
}

/// C9
#[test]
fn without_memory_to_grow_the_rest_comes_at_the_next_waits() {
    in_subprocess!(|| {
        let pairs: Vec<_> = (0..200).map(|_| pair()).collect();
        let mut poller = OsPoller::with_capacity(100).unwrap();
        for (token, (near, _)) in (0..).zip(&pairs) {
            let object = EventObject::client(near.as_raw_fd()).with_token(token);
            poller.add(object.with_interest(Interest::WRITABLE)).unwrap();
        }
        let no_memory = NoMemory::new();
        let mut reported = [0; 200];
        // A panic would allocate, so nothing is asserted until then.
        let waits: [Result<usize, ErrorKind>; 4] = array::from_fn(|_| {
            let events = poller.wait(0).map_err(|error| error.kind())?;
            events.iter().for_each(|event| reported[event.token as usize] += 1);
            Ok(events.len())
        });
        drop(no_memory);
        assert_eq!(waits, [Ok(100); 4]);
        assert_eq!(reported, [2; 200]);
        assert_eq!(poller.wait(0).unwrap().len(), 200);
    });
}

/// Another file may have the number of a poller's descriptor by now.
#[test]
fn a_poller_whose_number_is_used_again_is_invalid() {
    in_subprocess!(|| {
        let (near, _far) = pair();
        let mut poller = OsPoller::new().unwrap();
        close(poller.as_raw_fd()).unwrap();
        let other = File::open("/dev/null").unwrap();
        assert_eq!(other.as_raw_fd(), poller.as_raw_fd(), "the lowest free number is used again");
        for spin in [Duration::ZERO, Duration::from_millis(1)] {
            poller.set_spin(spin);
            assert_eq!(poller.wait(-1).unwrap_err().kind(), ErrorKind::InvalidInput);
        }
        let object = EventObject::client(near.as_raw_fd());
        assert_eq!(poller.add(object).unwrap_err().kind(), ErrorKind::InvalidInput);
        // One of the two closes the number.
        mem::forget(other);
    });
}

/// The kernel keeps the files of a wait until it has ended.
#[test]
fn a_poller_that_is_closed_while_it_waits_is_bad_at_the_next_wait() {
    in_subprocess!(|| {
        for spin in [Duration::ZERO, Duration::from_millis(1)] {
            let (near, far) = pair();
            let mut poller = OsPoller::new().unwrap();
            poller.set_spin(spin);
            poller.add(EventObject::client(near.as_raw_fd())).unwrap();
            let number = poller.as_raw_fd();
            thread::scope(|scope| {
                scope.spawn(|| {
                    thread::sleep(Duration::from_millis(50));
                    close(number).unwrap();
                    thread::sleep(Duration::from_millis(50));
                    (&far).write_all(b"x").unwrap();
                });
                poller.expect_one();
            });
            let error = poller.wait(-1).unwrap_err();
            assert_eq!(error.raw_os_error(), Some(Errno::EBADF as i32));
            assert_eq!(poller.events(), [], "they are those of the wait before");
            let other = File::open("/dev/null").unwrap();
            assert_eq!(other.as_raw_fd(), number, "the lowest free number is used again");
            // One of the two closes the number.
            mem::forget(other);
        }
    });
}

/// Forks a child that runs `body` and ends, successfully if it returned true.
///
/// A child has only this thread. Another thread's work stays half done in it, such as a lock, so the test must be
/// [alone](in_subprocess!): then the only other thread sleeps until the test is over.
#[expect(unsafe_code, reason = "a fork is safe next to threads that sleep, which no type says")]
pub(crate) fn forked(body: impl FnOnce() -> bool) -> Pid {
    // SAFETY: no other thread of this process is in the middle of anything.
    match unsafe { fork() }.unwrap() {
        ForkResult::Child => {
            // It does not inherit its parent's.
            alarm::set(20);
            let status = i32::from(!body());
            // SAFETY: it ends the process without running any of its code.
            unsafe { libc::_exit(status) }
        }
        ForkResult::Parent { child } => child,
    }
}

/// Two ends of a pipe: a forked child waits at the first until its parent has written to the second.
fn gate() -> (File, File) {
    let (reader, writer) = nix::unistd::pipe().unwrap();
    (File::from(reader), File::from(writer))
}

#[track_caller]
pub(crate) fn expect_to_end_well(child: Pid) {
    assert_eq!(waitpid(child, None).unwrap(), WaitStatus::Exited(child, 0));
}

#[test]
fn a_forked_child_adds_and_deletes_for_both() {
    in_subprocess!(|| {
        let [(first, mut to_first), (second, mut to_second)] = [pair(), pair()];
        let mut poller = OsPoller::new().unwrap();
        poller.add(EventObject::client(first.as_raw_fd()).with_token(1)).unwrap();
        expect_to_end_well(forked(|| {
            let added = poller.add(EventObject::client(second.as_raw_fd()).with_token(2));
            added.is_ok() && poller.delete(first.as_raw_fd()).is_ok()
        }));
        to_first.write_all(b"x").unwrap();
        poller.expect_none();
        to_second.write_all(b"x").unwrap();
        assert_eq!(poller.expect_one().token, 2);
    });
}

#[test]
fn a_descriptor_that_a_forked_child_adds_is_reported_to_its_parent() {
    in_subprocess!(|| {
        let (mut gate, mut open_gate) = gate();
        let mut poller = OsPoller::new().unwrap();
        let child = forked(|| {
            let (near, mut far) = pair();
            let object = EventObject::client(near.as_raw_fd()).with_token(3);
            poller.add(object).is_ok() && far.write_all(b"x").is_ok() && gate.read(&mut [0]).is_ok()
        });
        let event = poller.expect_one();
        assert_eq!(event.token, 3);
        // No descriptor of this process has that number, so the process cannot delete it either.
        assert_eq!(poller.delete(event.fd).unwrap_err().raw_os_error(), Some(Errno::EBADF as i32));
        open_gate.write_all(b"x").unwrap();
        expect_to_end_well(child);
        poller.expect_none();
    });
}

#[test]
fn an_edge_is_reported_to_a_forked_child_or_to_its_parent() {
    in_subprocess!(|| {
        for (mode, is_reported_to_both) in
            [(Mode::Level, true), (Mode::Edge, false), (Mode::Oneshot, false)]
        {
            let (near, mut far) = pair();
            let mut poller = OsPoller::new().unwrap();
            poller.add(EventObject::client(near.as_raw_fd()).with_mode(mode)).unwrap();
            far.write_all(b"x").unwrap();
            expect_to_end_well(forked(|| poller.wait(0).is_ok_and(|events| events.len() == 1)));
            assert_eq!(poller.wait(0).unwrap().len() == 1, is_reported_to_both, "{mode:?}");
        }
    });
}

#[test]
fn a_forked_child_drops_its_poller_and_makes_its_own() {
    in_subprocess!(|| {
        let (near, mut far) = pair();
        let object = EventObject::client(near.as_raw_fd());
        let mut poller = Some(OsPoller::new().unwrap());
        poller.as_ref().unwrap().add(object).unwrap();
        far.write_all(b"x").unwrap();
        expect_to_end_well(forked(|| {
            // Only in the child's copy of the memory.
            drop(poller.take());
            OsPoller::new().is_ok_and(|mut own| {
                own.add(object.with_token(4)).is_ok()
                    && own.wait(0).is_ok_and(|events| events.len() == 1 && events[0].token == 4)
            })
        }));
        assert_eq!(poller.unwrap().expect_one().token, 0);
    });
}

#[test]
fn a_forked_child_that_drops_a_registered_deletes_it_for_both() {
    in_subprocess!(|| {
        let (near, mut far) = pair();
        let mut poller = OsPoller::new().unwrap();
        let registered = Registered::new(poller.registry(), near, EventObject::client).unwrap();
        far.write_all(b"x").unwrap();
        let mut registered = Some(registered);
        expect_to_end_well(forked(|| {
            // Only in the child's copy of the memory.
            mem::forget(registered.take());
            true
        }));
        poller.expect_one();
        expect_to_end_well(forked(|| {
            drop(registered.take());
            true
        }));
        poller.expect_none();

        let registered = registered.unwrap();
        let error = registered.modify(EventObject::client).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::NotFound);
        poller.add(EventObject::client(registered.as_raw_fd())).unwrap();
        poller.expect_one();
    });
}

/// C15: the child has a copy of the marks, and wakes no thread.
#[test]
fn a_forked_child_neither_wakes_its_parent_nor_ends_its_channel() {
    in_subprocess!(|| {
        let mut poller = OsPoller::new().unwrap();
        let waker = Waker::new(poller.registry(), 1).unwrap();
        let (sender, receiver) = pollio::channel::<()>(poller.registry(), 2).unwrap();
        let mut sender = Some(sender);
        expect_to_end_well(forked(|| {
            drop(sender.take());
            waker.wake().is_ok()
        }));
        poller.expect_none();
        waker.wake().unwrap();
        assert_eq!(poller.expect_one().token, 1);
        drop(sender);
        assert_eq!(poller.expect_one().token, 2);
        assert_eq!(receiver.try_recv(), Err(TryRecvError::Disconnected));
    });
}

/// C16
#[test]
fn a_closed_descriptor_is_reported_while_a_forked_child_has_it() {
    in_subprocess!(|| {
        let (mut gate, mut open_gate) = gate();
        let (near, mut far) = pair();
        let mut poller = OsPoller::new().unwrap();
        let fd: RawFd = near.as_raw_fd();
        poller.add(EventObject::client(fd).with_token(5)).unwrap();
        let child = forked(|| gate.read(&mut [0]).is_ok());
        drop(near);
        far.write_all(b"x").unwrap();
        assert_eq!(poller.expect_one().token, 5);
        assert_eq!(poller.delete(fd).unwrap_err().raw_os_error(), Some(Errno::EBADF as i32));
        open_gate.write_all(b"x").unwrap();
        expect_to_end_well(child);
        poller.expect_none();
    });
}

#[test]
fn a_forked_child_sets_the_timer_of_its_parent() {
    in_subprocess!(|| {
        let timer = Timer::new().unwrap();
        let mut poller = OsPoller::new().unwrap();
        poller.add(EventObject::new(timer.as_raw_fd())).unwrap();
        expect_to_end_well(forked(|| timer.set(Duration::ZERO).is_ok()));
        poller.expect_one();
        expect_to_end_well(forked(|| timer.clear().is_ok_and(|expirations| expirations == 1)));
        poller.expect_none();
    });
}

/// Lets any process trace this one, where Yama lets only its ancestors.
#[cfg(all(target_os = "linux", target_env = "gnu"))]
#[expect(unsafe_code, reason = "no crate knows this call")]
fn allow_any_tracer() {
    let (any, unused): (libc::c_ulong, libc::c_ulong) = (libc::PR_SET_PTRACER_ANY, 0);
    // SAFETY: the call takes no pointer. It fails where there is no Yama.
    unsafe { libc::prctl(libc::PR_SET_PTRACER, any, unused, unused, unused) };
}

/// The parent must not rely on a `waitpid` that does not block: the tracer's comes first. Nix has `seize` for Linux.
#[cfg(all(target_os = "linux", target_env = "gnu"))]
#[test]
fn a_traced_child_is_reported_before_it_can_be_reaped() {
    in_subprocess!(|| {
        let (mut is_ready, mut ready) = gate();
        let (mut stays, _stay) = gate();
        let child = forked(|| {
            allow_any_tracer();
            ready.write_all(b"x").is_ok() && stays.read(&mut [0]).is_ok()
        });
        is_ready.read_exact(&mut [0]).unwrap();
        let exit = ChildExit::from_pid(child.as_raw().unsigned_abs()).unwrap();
        let object = EventObject::new(exit.as_raw_fd());
        let [mut level, mut edge, mut oneshot] =
            [Mode::Level, Mode::Edge, Mode::Oneshot].map(|mode| {
                let poller = OsPoller::new().unwrap();
                poller.add(object.with_mode(mode)).unwrap();
                poller
            });

        let (mut may_reap, mut let_go) = gate();
        let killed = WaitStatus::Signaled(child, Signal::SIGKILL, false);
        let tracer = forked(|| {
            ptrace::seize(child, ptrace::Options::empty()).is_ok()
                && kill(child, Signal::SIGKILL).is_ok()
                && may_reap.read(&mut [0]).is_ok()
                && waitpid(child, None) == Ok(killed)
        });
        for poller in [&mut level, &mut edge, &mut oneshot] {
            assert!(poller.expect_one().is_readable());
        }
        let reap = || waitpid(child, Some(WaitPidFlag::WNOHANG)).unwrap();
        assert_eq!(reap(), WaitStatus::StillAlive);
        for _ in 0..1_000 {
            assert_eq!(level.wait(0).unwrap().len(), 1);
        }
        edge.expect_none();
        oneshot.expect_none();

        let_go.write_all(b"x").unwrap();
        expect_to_end_well(tracer);
        edge.expect_one();
        oneshot.expect_none();
        assert_eq!(reap(), killed);
    });
}

#[test]
fn a_child_that_is_reaped_before_it_is_deleted_is_reported_once_more() {
    in_subprocess!(|| {
        let release = uname().unwrap().release().to_string_lossy().into_owned();
        let mut version = release.split('.').map(|number| number.parse().unwrap_or(0));
        assert!(
            [version.next(), version.next()] >= [Some(6), Some(9)],
            "Linux {release} does not do this yet, 6.9 does: leave this test out by name, with --skip"
        );

        let child = forked(|| true);
        let exit = ChildExit::from_pid(child.as_raw().unsigned_abs()).unwrap();
        let object = EventObject::new(exit.as_raw_fd());
        let [mut edge, mut none, mut deleted] =
            [object.with_mode(Mode::Edge), object.with_interest(Interest::NONE), object].map(
                |object| {
                    let poller = OsPoller::new().unwrap();
                    poller.add(object).unwrap();
                    poller
                },
            );
        edge.expect_one();
        none.expect_none();
        deleted.expect_one();
        deleted.delete(exit.as_raw_fd()).unwrap();
        expect_to_end_well(child);
        edge.expect_one();
        edge.expect_none();
        for _ in 0..3 {
            assert!(none.expect_one().is_write_closed());
        }
        deleted.expect_none();
    });
}

/// Opens a device of which each open file can become a network interface.
fn open_tun() -> File {
    let mut options = OpenOptions::new();
    let tun = options.read(true).write(true).custom_flags(libc::O_NONBLOCK).open("/dev/net/tun");
    tun.expect("no /dev/net/tun here: leave this test out by name, with --skip")
}

#[test]
fn a_device_that_was_not_set_up_is_an_error_at_every_wait() {
    let tun = open_tun();
    let mut poller = OsPoller::new().unwrap();
    poller.add(EventObject::new(tun.as_raw_fd())).unwrap();
    for _ in 0..1_000 {
        assert!(poller.expect_one().is_error());
    }
    poller.modify(EventObject::new(tun.as_raw_fd()).with_mode(Mode::Edge)).unwrap();
    assert!(poller.expect_one().is_error());
    poller.expect_none();
}

/// Makes `tun` a network interface that is up. The type of a request differs between C libraries.
#[cfg(all(target_os = "linux", target_env = "gnu"))]
#[expect(unsafe_code, reason = "no crate knows these calls")]
fn set_up(tun: BorrowedFd<'_>) {
    let flags =
        |flags: libc::c_int| libc::__c_anonymous_ifr_ifru { ifru_flags: flags.try_into().unwrap() };
    let mut request = libc::ifreq {
        ifr_name: [0; libc::IFNAMSIZ],
        ifr_ifru: flags(libc::IFF_TUN | libc::IFF_NO_PI),
    };
    // SAFETY: the kernel reads and writes one ifreq.
    let made = unsafe { libc::ioctl(tun.as_raw_fd(), libc::TUNSETIFF, &raw mut request) };
    Errno::result(made).expect("this test must be root's");
    request.ifr_ifru = flags(libc::IFF_UP);
    let any_socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    // SAFETY: the kernel reads one ifreq, with the name that it wrote.
    let up = unsafe { libc::ioctl(any_socket.as_raw_fd(), libc::SIOCSIFFLAGS, &raw const request) };
    Errno::result(up).unwrap();
}

/// Until now, the device had no wait queue for its pollers.
#[cfg(all(target_os = "linux", target_env = "gnu"))]
#[test]
#[ignore = "it makes a network interface for a moment: root runs it, with --ignored"]
fn a_device_that_was_added_before_it_was_set_up_is_silent_until_it_is_added_again() {
    in_subprocess!(|| {
        let tun = open_tun();
        let object = EventObject::new(tun.as_raw_fd()).with_interest(Interest::WRITABLE);
        let mut poller = OsPoller::new().unwrap();
        poller.add(object.with_mode(Mode::Edge)).unwrap();
        assert!(poller.expect_one().is_error());
        set_up(tun.as_fd());
        poller.expect_none();
        poller.delete(object.fd).unwrap();
        poller.add(object.with_mode(Mode::Edge)).unwrap();
        let event = poller.expect_one();
        assert!(event.is_writable() && !event.is_error());
    });
}
