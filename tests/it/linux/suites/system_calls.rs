//! Counts every system call of a program, by ptrace(2).

use std::env;
use std::ffi::c_long;
use std::io::Write;
use std::os::fd::AsRawFd;
use std::process::Stdio;
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use nix::errno::Errno;
use nix::sys::ptrace;
use nix::sys::signal::{Signal, raise};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::{getpid, getppid};
use pollio::{EventObject, Interest, OsPoller, Poller, Timer, Waker, channel, sync_channel};

use crate::linux::suites::faults::refuse;
use crate::support::descriptors::pair;
use crate::support::subprocess::{spawn, this_program_again, this_test};

/// Marks the process that is traced.
const TRACED: &str = "POLLIO_TEST_TRACED";

/// C14
#[test]
fn each_verb_is_one_system_call() {
    let calls = trace(this_test!(), || {
        let (near, _far) = pair();
        let poller = OsPoller::new().unwrap();
        let object = EventObject::client(near.as_raw_fd());
        trace_from_here();
        for _ in 0..10 {
            poller.add(object).unwrap();
            poller.modify(object.with_interest(Interest::WRITABLE)).unwrap();
            poller.delete(object.fd).unwrap();
        }
        trace_to_here();
    });
    assert_eq!(calls, [libc::SYS_epoll_ctl; 30]);
}

/// C14
#[test]
fn each_wait_is_one_system_call_however_many_are_ready() {
    let calls = trace(this_test!(), || {
        let pairs: Vec<_> = (0..300).map(|_| pair()).collect();
        let mut poller = OsPoller::with_capacity(1_000).unwrap();
        for (near, far) in &pairs {
            poller.add(EventObject::client(near.as_raw_fd())).unwrap();
            (&*far).write_all(b"x").unwrap();
        }
        trace_from_here();
        for timeout_ms in [-1, 0, 1, i32::MAX] {
            assert_eq!(poller.wait(timeout_ms).unwrap().len(), 300);
        }
        assert_eq!(poller.wait_timeout(Some(Duration::MAX / 2)).unwrap().len(), 300);
        poller.set_max_events(8);
        assert_eq!(poller.wait(-1).unwrap().len(), 8);
        trace_to_here();
    });
    assert_eq!(calls, [WAIT, WAIT, WAIT, WAIT, libc::SYS_epoll_pwait2, WAIT]);
}

/// C14, C8
#[test]
fn a_timeout_is_one_system_call() {
    let calls = trace(this_test!(), || {
        let mut poller = OsPoller::new().unwrap();
        trace_from_here();
        assert!(poller.wait(0).unwrap().is_empty());
        assert!(poller.wait(2).unwrap().is_empty());
        assert!(poller.wait_timeout(Some(Duration::from_micros(1_500))).unwrap().is_empty());
        trace_to_here();
    });
    assert_eq!(calls, [WAIT, WAIT, libc::SYS_epoll_pwait2]);
}

/// C8: `epoll_pwait2` is tried once, and never again.
#[test]
fn a_kernel_without_nanoseconds_is_asked_once() {
    let calls = trace(this_test!(), || {
        refuse(libc::SYS_epoll_pwait2, Errno::ENOSYS);
        let mut poller = OsPoller::new().unwrap();
        trace_from_here();
        for _ in 0..3 {
            assert!(poller.wait_timeout(Some(Duration::from_micros(1_500))).unwrap().is_empty());
        }
        trace_to_here();
    });
    assert_eq!(calls, [libc::SYS_epoll_pwait2, WAIT, WAIT, WAIT]);
}

/// C17, C14: a spin consists of polls, and ends with the first miss.
#[test]
fn a_poller_spins_until_it_catches_nothing() {
    let calls = trace(this_test!(), || {
        let mut poller = OsPoller::new().unwrap();
        poller.set_spin(Duration::MAX);
        trace_from_here();
        assert!(poller.wait(20).unwrap().is_empty());
        getpid();
        assert!(poller.wait(20).unwrap().is_empty());
        assert!(poller.wait(20).unwrap().is_empty());
        trace_to_here();
    });
    let in_vain = calls.iter().position(|call| *call == libc::SYS_getpid).unwrap();
    assert!(in_vain > 2 && calls[..in_vain].iter().all(|call| *call == WAIT), "{calls:?}");
    assert_eq!(calls[in_vain + 1..], [WAIT, WAIT]);
}

/// C17: it goes on as long as it catches events.
#[test]
fn a_poller_that_catches_events_spins_on() {
    let calls = trace(this_test!(), || {
        let (mut poller, timer) = (OsPoller::new().unwrap(), Timer::new().unwrap());
        poller.add(EventObject::new(timer.as_raw_fd())).unwrap();
        poller.set_spin(Duration::from_secs(3_600));
        trace_from_here();
        for _ in 0..3 {
            timer.set(Duration::from_millis(20)).unwrap();
            assert_eq!(poller.wait(-1).unwrap().len(), 1);
            timer.clear().unwrap();
        }
        trace_to_here();
    });
    for waits in calls.split(|call| *call == libc::SYS_timerfd_settime).skip(1) {
        let [waits @ .., libc::SYS_read] = waits else { panic!("{calls:?}") };
        assert!(waits.len() > 2 && waits.iter().all(|call| *call == WAIT), "{calls:?}");
    }
}

/// C17: a poll, a wait with pending events, and a poller that no longer spins make no extra call.
#[test]
fn a_spinning_poller_asks_once_where_once_is_enough() {
    let calls = trace(this_test!(), || {
        let (near, mut far) = pair();
        let mut poller = OsPoller::new().unwrap();
        poller.add(EventObject::client(near.as_raw_fd())).unwrap();
        poller.set_spin(Duration::from_secs(3_600));
        trace_from_here();
        for _ in 0..3 {
            assert!(poller.wait(0).unwrap().is_empty());
        }
        poller.set_spin(Duration::ZERO);
        assert!(poller.wait(2).unwrap().is_empty());
        poller.set_spin(Duration::from_secs(3_600));
        far.write_all(b"x").unwrap();
        for timeout_ms in [-1, 0, 2] {
            assert_eq!(poller.wait(timeout_ms).unwrap().len(), 1);
        }
        trace_to_here();
    });
    let write = calls.iter().position(|call| *call != WAIT).unwrap();
    assert_eq!(write, 4);
    assert_eq!(calls[write + 1..], [WAIT; 3]);
}

/// C14, C15: a wake of a poller that is awake makes none, and its report needs only the call of the wait.
#[test]
fn a_wake_of_a_busy_loop_makes_no_system_call() {
    let calls = trace(this_test!(), || {
        let mut poller = OsPoller::new().unwrap();
        poller.set_max_events(2);
        let wakers = [1, 2, 3].map(|token| Waker::new(poller.registry(), token).unwrap());
        // The creation of the first waker may end a wait.
        assert!(poller.wait(1).unwrap().is_empty());
        trace_from_here();
        for timeout_ms in [-1, 0, 1_000] {
            for _ in 0..1_000 {
                wakers.iter().for_each(|waker| waker.wake().unwrap());
            }
            assert_eq!(poller.wait(timeout_ms).unwrap().len(), 2);
            assert_eq!(poller.wait(timeout_ms).unwrap().len(), 1);
        }
        // This does not hand out the descriptor either.
        assert!(format!("{poller:?}").contains("fd"));
        wakers[0].wake().unwrap();
        assert_eq!(poller.wait_timeout(None).unwrap().len(), 1);
        trace_to_here();
    });
    assert_eq!(calls, [WAIT; 7]);
}

/// C14, C15
#[test]
fn a_wake_of_a_sleeper_is_one_write() {
    let calls = trace(this_test!(), || {
        let mut poller = OsPoller::new().unwrap();
        let waker = Waker::new(poller.registry(), 1).unwrap();
        assert!(poller.wait(1).unwrap().is_empty());
        let (sleeps, slept) = mpsc::channel();
        let sleeper = thread::spawn(move || {
            sleeps.send(()).unwrap();
            assert_eq!(poller.wait(-1).unwrap().len(), 1);
        });
        slept.recv().unwrap();
        thread::sleep(Duration::from_millis(50));
        trace_from_here();
        for _ in 0..1_000 {
            waker.wake().unwrap();
        }
        trace_to_here();
        sleeper.join().unwrap();
    });
    assert_eq!(calls, [libc::SYS_write]);
}

/// C15: after the descriptor was handed out, each wake is a write, watched or not.
#[test]
fn a_wake_of_a_watched_poller_is_one_write() {
    let calls = trace(this_test!(), || {
        let mut poller = OsPoller::new().unwrap();
        let waker = Waker::new(poller.registry(), 1).unwrap();
        assert!(poller.wait(1).unwrap().is_empty());
        trace_from_here();
        waker.wake().unwrap();
        poller.as_raw_fd();
        poller.as_raw_fd();
        assert_eq!(poller.wait(0).unwrap().len(), 1);
        waker.wake().unwrap();
        waker.wake().unwrap();
        assert_eq!(poller.wait(0).unwrap().len(), 1);
        trace_to_here();
    });
    assert_eq!(calls, [libc::SYS_write, WAIT, libc::SYS_write, WAIT]);
}

/// C15: a send to a loop that is awake makes no system call, nor does taking the values.
#[test]
fn a_burst_of_values_makes_no_system_call() {
    let calls = trace(this_test!(), || {
        let mut poller = OsPoller::new().unwrap();
        let (sender, receiver) = channel(poller.registry(), 1).unwrap();
        let (bounded, receiver_of_bounded) = sync_channel(poller.registry(), 2, 1_000).unwrap();
        let burst = || {
            for value in 0..1_000 {
                sender.send(value).unwrap();
                bounded.try_send(value).unwrap();
            }
            bounded.try_send(1_000).unwrap_err();
            assert_eq!(receiver.try_iter().take(500).count(), 500);
            assert_eq!(receiver.try_iter().count(), 500);
            assert_eq!(receiver_of_bounded.try_iter().count(), 1_000);
        };
        // Allocates the queue.
        burst();
        trace_from_here();
        burst();
        drop(sender);
        trace_to_here();
        assert_eq!(poller.wait(0).unwrap().len(), 2);
    });
    assert_eq!(calls, []);
}

#[test]
fn each_verb_of_a_timer_is_one_system_call() {
    let calls = trace(this_test!(), || {
        let timer = Timer::new().unwrap();
        let hour = Duration::from_secs(3_600);
        trace_from_here();
        timer.set(hour).unwrap();
        timer.set_interval(hour).unwrap();
        timer.disarm().unwrap();
        timer.clear().unwrap();
        trace_to_here();
    });
    let set = libc::SYS_timerfd_settime;
    assert_eq!(calls, [set, set, set, libc::SYS_read]);
}

/// The system call of `epoll_wait`: newer architectures have only `epoll_pwait`.
#[cfg(not(any(target_arch = "aarch64", target_arch = "loongarch64", target_arch = "riscv64")))]
const WAIT: c_long = libc::SYS_epoll_wait;
#[cfg(any(target_arch = "aarch64", target_arch = "loongarch64", target_arch = "riscv64"))]
const WAIT: c_long = libc::SYS_epoll_pwait;

/// A system call that nothing else here makes, to mark the part that counts.
const MARK: c_long = libc::SYS_getppid;

fn trace_from_here() {
    getppid();
}

fn trace_to_here() {
    getppid();
}

/// Runs `program` in a process of its own (this binary with only the test `path`), and returns the system calls between
/// its two marks.
#[expect(clippy::zombie_processes, reason = "the tracer waits for it")]
fn trace(path: &str, program: fn()) -> Vec<c_long> {
    if env::var_os(TRACED).is_some() {
        ptrace::traceme().expect("ptrace is refused here: leave `system_calls` out, with --skip");
        raise(Signal::SIGSTOP).unwrap();
        program();
        // The tracer has the assertions of the test.
        std::process::exit(0);
    }
    spawn(this_program_again(path).env(TRACED, "1").stdout(Stdio::null()));
    let calls = calls_of_traced_child();
    let marks: Vec<_> = (0..calls.len()).filter(|&call| calls[call] == MARK).collect();
    let [from, to] = marks[..] else { panic!("{path}: {} marks in {calls:?}", marks.len()) };
    calls[from + 1..to].to_vec()
}

/// The system calls of the child of this thread that asked to be traced, to its successful end.
fn calls_of_traced_child() -> Vec<c_long> {
    let mut calls = Vec::new();
    // Other threads have children too, which are not ours.
    let ours = WaitPidFlag::__WALL | WaitPidFlag::__WNOTHREAD;
    loop {
        match waitpid(None, Some(ours)).unwrap() {
            WaitStatus::Stopped(thread, Signal::SIGSTOP) => {
                let options =
                    ptrace::Options::PTRACE_O_TRACESYSGOOD | ptrace::Options::PTRACE_O_EXITKILL;
                ptrace::setoptions(thread, options).unwrap();
                ptrace::syscall(thread, None).unwrap();
            }
            WaitStatus::PtraceSyscall(thread) => {
                let info = ptrace::syscall_info(thread).unwrap();
                if info.op == libc::PTRACE_SYSCALL_INFO_ENTRY {
                    calls.push(entered(&info));
                }
                ptrace::syscall(thread, None).unwrap();
            }
            WaitStatus::Stopped(thread, signal) => ptrace::syscall(thread, signal).unwrap(),
            WaitStatus::Exited(_, 0) if !calls.is_empty() => return calls,
            WaitStatus::Exited(_, 0) => {}
            end => panic!("the traced program ended with {end:?} after {calls:?}"),
        }
    }
}

/// The number of the system call that `info` says was entered.
#[expect(unsafe_code, reason = "the kernel's answer is a union")]
fn entered(info: &libc::ptrace_syscall_info) -> c_long {
    // SAFETY: `op` is PTRACE_SYSCALL_INFO_ENTRY, for which the kernel fills `entry`.
    let number = unsafe { info.u.entry.nr };
    number.try_into().unwrap()
}
