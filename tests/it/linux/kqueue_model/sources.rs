//! The sources of the BSDs, over the model of FreeBSD's kqueue, and over each of the others in a process of its own.

use std::env;
use std::fs;
use std::io;
use std::os::fd::AsRawFd;
use std::process::{Command, Stdio};
use std::time::Duration;

use nix::errno::Errno;
use pollio::{EventObject, Poller};

use crate::os_poller::OsPoller as AnyPoller;
use crate::support::descriptors::allow_descriptors;
use crate::support::expect::Expect;
use crate::support::subprocess::{in_subprocess, spawn};
use crate::sys::{ChildExit, Timer, kevent};

#[path = "../../suites/sources/child_exit.rs"]
#[allow(clippy::duplicate_mod, reason = "the same cases, with other types above them")]
mod child_exit;
#[path = "../../suites/sources/registered.rs"]
#[allow(clippy::duplicate_mod, reason = "the same cases, with other types above them")]
mod registered;
#[path = "../../suites/sources/timer.rs"]
#[allow(clippy::duplicate_mod, reason = "the same cases, with other types above them")]
mod timer;

/// Runs every case of this module over another kernel.
fn over(kernel: &str) {
    let (_crate, module) = module_path!().split_once("::").unwrap();
    let mut command = Command::new(env::current_exe().unwrap());
    command.args([&format!("{module}::"), "--skip", &format!("{module}::every_case_over")]);
    let output = spawn(command.env(kevent::KERNEL_NAME, kernel).stdout(Stdio::piped()))
        .wait_with_output()
        .unwrap();
    let stdout = String::from_utf8_lossy(&output.stdout);
    let passed = stdout.rsplit_once(" passed").and_then(|(before, _)| before.rsplit_once(' '));
    let passed = passed.and_then(|(_, count)| count.parse().ok()).unwrap_or(0);
    assert!(output.status.success() && passed > 15, "over {kernel}: {stdout}");
}

#[test]
fn every_case_over_apple() {
    over("apple");
}

#[test]
fn every_case_over_netbsd() {
    over("netbsd");
}

#[test]
fn every_case_over_openbsd() {
    over("openbsd");
}

#[test]
fn every_case_over_dragonfly() {
    over("dragonfly");
}

/// macOS and OpenBSD do not find a process that has begun to end, and cannot be reaped yet: `proc_find`.
#[test]
fn a_process_that_is_about_to_end_is_reported_and_wait_reaps_it() {
    let mut process = spawn(Command::new("cat").stdin(Stdio::piped()));
    kevent::fail_next_proc(Errno::ESRCH);
    let child = ChildExit::new(&process).unwrap();
    let mut poller = AnyPoller::new().unwrap();
    poller.add(EventObject::new(child.as_raw_fd())).unwrap();
    for _ in 0..3 {
        poller.expect_one();
    }
    assert!(process.try_wait().unwrap().is_none());
    drop(process.stdin.take());
    assert!(process.wait().unwrap().success());
}

/// It would panic NetBSD's kernel, and go off early on OpenBSD and DragonFly BSD.
#[test]
fn a_timer_beyond_the_ticks_of_a_kernel_is_never_over() {
    const DAY: Duration = Duration::from_secs(24 * 60 * 60);
    for (name, kernel) in kevent::KERNELS {
        kevent::on(kernel, || {
            let mut poller = AnyPoller::new().unwrap();
            let timer = Timer::new().unwrap();
            poller.add(EventObject::new(timer.as_raw_fd())).unwrap();
            for days in [1, 240, 241, 248, 249, 400, 10_000, 20_000] {
                let set = timer.set(days * DAY).and_then(|()| timer.set_interval(days * DAY));
                assert!(set.is_ok(), "{name}, {days}: {set:?}");
                assert_eq!(poller.wait(0).unwrap(), []);
            }
        });
    }
}

/// The model's timers are descriptors.
#[test]
fn a_timer_that_cannot_be_set_is_an_error() {
    in_subprocess!(|| {
        const HOUR: Duration = Duration::from_secs(3_600);
        let timer = Timer::new().unwrap();
        allow_descriptors(0);
        let error = timer.set(HOUR).unwrap_err();
        assert_eq!(error.raw_os_error(), Some(Errno::EMFILE as i32));
        allow_descriptors(100);
        timer.set(HOUR).unwrap();
    });
}

/// The model's timers are descriptors with the clock of their EVFILT_TIMER: 1 is CLOCK_MONOTONIC, and 7 is
/// CLOCK_BOOTTIME, in place of Apple's continuous time.
#[test]
fn each_timer_asks_kqueue_for_its_clock() {
    in_subprocess!(|| {
        const HOUR: Duration = Duration::from_secs(3_600);
        let clocks = || {
            let infos = fs::read_dir("/proc/self/fdinfo").unwrap();
            // One of them was the folder itself.
            let infos = infos.filter_map(|info| fs::read_to_string(info.unwrap().path()).ok());
            let clocks = infos.filter_map(|info| {
                info.lines().find_map(|line| line.strip_prefix("clockid: ").map(str::to_owned))
            });
            clocks.collect::<Vec<_>>()
        };
        let expect = |timer: io::Result<Timer>, clock| {
            let timer = timer.unwrap();
            timer.set(HOUR).unwrap();
            assert_eq!(clocks(), [clock]);
            timer.set_interval(HOUR).unwrap();
            assert_eq!(clocks(), [clock]);
        };
        expect(Timer::new(), "1");
        expect(Timer::new_boottime(), "7");
    });
}
