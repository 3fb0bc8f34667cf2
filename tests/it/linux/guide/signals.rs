//! The section "Signals": which signals a signalfd reports, and to which process or thread.

use std::os::fd::{AsFd, AsRawFd};
use std::process::Command;
use std::thread;

use nix::sys::signal::{SigSet, Signal, raise};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use pollio::{EventObject, OsPoller, Poller};

use crate::linux::suites::faults::{expect_to_end_well, forked};
use crate::support::expect::Expect;
use crate::support::subprocess::{in_subprocess, output};

/// A signalfd for a signal that this thread, and the threads that it spawns, block from now on.
fn signal_fd() -> (SignalFd, EventObject) {
    let signals = SigSet::from_iter([Signal::SIGUSR1]);
    signals.thread_block().unwrap();
    let flags = SfdFlags::SFD_NONBLOCK | SfdFlags::SFD_CLOEXEC;
    let signal_fd = SignalFd::with_flags(&signals, flags).unwrap();
    let object = EventObject::new(signal_fd.as_fd().as_raw_fd());
    (signal_fd, object)
}

#[test]
fn a_command_inherits_blocked_signals() {
    in_subprocess!(|| {
        let _signal_fd = signal_fd();
        let status = output(Command::new("cat").arg("/proc/self/status")).stdout;
        let status = String::from_utf8(status).unwrap();
        let mask = status.lines().find_map(|line| line.strip_prefix("SigBlk:")).unwrap();
        let mask = u64::from_str_radix(mask.trim(), 16).unwrap();
        assert_ne!(mask & 1 << (Signal::SIGUSR1 as i32 - 1), 0, "{mask:#x}");
    });
}

/// `raise` sends the signal to the calling thread.
#[test]
fn a_signal_of_another_thread_is_not_reported() {
    in_subprocess!(|| {
        let (signal_fd, object) = signal_fd();
        let mut poller = OsPoller::new().unwrap();
        poller.add(object).unwrap();
        raise(Signal::SIGUSR1).unwrap();
        poller.expect_one();
        assert!(signal_fd.read_signal().unwrap().is_some());
        thread::scope(|scope| {
            let raising = scope.spawn(|| {
                raise(Signal::SIGUSR1).unwrap();
                let mut own = OsPoller::new().unwrap();
                own.add(object).unwrap();
                own.expect_one();
                thread::park();
                own.expect_one();
            });
            poller.expect_none();
            raising.thread().unpark();
        });
    });
}

#[test]
fn a_forked_child_needs_a_signalfd_of_its_own() {
    in_subprocess!(|| {
        let (signal_fd, object) = signal_fd();
        let mut poller = OsPoller::new().unwrap();
        poller.add(object).unwrap();
        expect_to_end_well(forked(|| {
            raise(Signal::SIGUSR1).unwrap();
            let is_silent = poller.wait(20).is_ok_and(<[_]>::is_empty);
            let mut own = OsPoller::new().unwrap();
            own.add(object).unwrap();
            is_silent && own.wait(20).is_ok_and(|events| events.len() == 1)
        }));
        poller.expect_none();

        raise(Signal::SIGUSR1).unwrap();
        expect_to_end_well(forked(|| poller.wait(0).is_ok_and(<[_]>::is_empty)));
        poller.expect_none();
        assert!(signal_fd.read_signal().unwrap().is_some());
    });
}
