//! `ChildExit`, over a poller.

use std::io::ErrorKind;
use std::os::fd::AsRawFd;
use std::os::unix::process::ExitStatusExt;
use std::process::{self, Command, Stdio};
use std::thread;
use std::time::Duration;

use nix::errno::Errno;
use pollio::{EventObject, Mode, Poller};

use super::{AnyPoller, ChildExit};
use crate::support::descriptors::{inherited, make_with_too_little_room_first};
use crate::support::expect::Expect;
use crate::support::subprocess::{self, in_subprocess};

/// A process that ends when its standard input does, with this status.
fn spawn(status: u8) -> process::Child {
    let mut command = Command::new("sh");
    subprocess::spawn(command.args(["-c", &format!("read _; exit {status}")]).stdin(Stdio::piped()))
}

fn end(process: &mut process::Child) {
    drop(process.stdin.take());
}

#[test]
fn it_is_readable_once_the_process_has_ended() {
    for mode in [Mode::Level, Mode::Edge, Mode::Oneshot] {
        let mut process = spawn(7);
        let child = ChildExit::new(&process).unwrap();
        let mut poller = AnyPoller::new().unwrap();
        poller.add(EventObject::new(child.as_raw_fd()).with_mode(mode).with_token(9)).unwrap();
        poller.expect_none();
        end(&mut process);
        let event = poller.expect_one();
        assert!(event.token == 9 && event.is_readable());
        // It is not reaped yet. On Apple systems that may still take microseconds.
        assert_eq!(process.wait().unwrap().code(), Some(7));
    }
}

#[test]
fn it_stays_readable_until_the_process_is_reaped() {
    let mut process = spawn(0);
    let child = ChildExit::new(&process).unwrap();
    let mut poller = AnyPoller::new().unwrap();
    poller.add(EventObject::new(child.as_raw_fd())).unwrap();
    end(&mut process);
    for _ in 0..3 {
        assert!(poller.expect_one().is_readable());
    }
    assert!(process.wait().unwrap().success());
}

#[test]
fn a_process_that_has_ended_already_is_reported() {
    let mut process = spawn(3);
    let watch = ChildExit::new(&process).unwrap();
    let mut poller = AnyPoller::new().unwrap();
    poller.add(EventObject::client(watch.as_raw_fd())).unwrap();
    end(&mut process);
    poller.expect_one();

    let child = ChildExit::new(&process).unwrap();
    let mut poller = AnyPoller::new().unwrap();
    poller.add(EventObject::new(child.as_raw_fd())).unwrap();
    for _ in 0..3 {
        assert!(poller.expect_one().is_readable());
    }
    assert_eq!(process.wait().unwrap().code(), Some(3));
}

#[test]
fn a_process_that_was_killed_is_reported() {
    let mut process = spawn(0);
    let child = ChildExit::new(&process).unwrap();
    let mut poller = AnyPoller::new().unwrap();
    poller.add(EventObject::new(child.as_raw_fd())).unwrap();
    process.kill().unwrap();
    poller.expect_one();
    assert_eq!(process.wait().unwrap().signal(), Some(9));
}

#[test]
fn a_stop_is_no_end() {
    let mut process = spawn(0);
    let child = ChildExit::new(&process).unwrap();
    let mut poller = AnyPoller::new().unwrap();
    poller.add(EventObject::new(child.as_raw_fd())).unwrap();
    let signal = |signal: &str| {
        let pid = process.id().to_string();
        assert!(Command::new("kill").args([signal, &pid]).status().unwrap().success());
    };
    signal("-STOP");
    poller.expect_none();
    signal("-CONT");
    poller.expect_none();
    end(&mut process);
    poller.expect_one();
    process.wait().unwrap();
}

#[test]
fn a_reaped_process_is_an_error() {
    let mut process = spawn(0);
    end(&mut process);
    process.wait().unwrap();
    let error = ChildExit::new(&process).unwrap_err();
    assert_eq!(error.raw_os_error(), Some(Errno::ECHILD as i32));
}

#[test]
fn children_are_distinguished() {
    let mut processes: Vec<_> = (0..10).map(spawn).collect();
    let children: Vec<_> = processes.iter().map(|child| ChildExit::new(child).unwrap()).collect();
    let mut poller = AnyPoller::new().unwrap();
    for (token, child) in (0..).zip(&children) {
        let object = EventObject::new(child.as_raw_fd()).with_token(token);
        poller.add(object.with_mode(Mode::Oneshot)).unwrap();
    }
    for (status, process) in (0..10).zip(&mut processes).rev() {
        end(process);
        assert_eq!(poller.expect_one().token, status);
        assert_eq!(process.wait().unwrap().code(), Some(status.try_into().unwrap()));
    }
}

#[test]
fn an_end_ends_a_blocked_wait() {
    let mut process = spawn(0);
    let child = ChildExit::new(&process).unwrap();
    let mut poller = AnyPoller::new().unwrap();
    poller.add(EventObject::new(child.as_raw_fd())).unwrap();
    thread::scope(|scope| {
        scope.spawn(|| {
            thread::sleep(Duration::from_millis(50));
            end(&mut process);
        });
        poller.expect_one();
    });
    process.wait().unwrap();
}

#[test]
fn it_leaves_the_process_alone_when_it_is_dropped() {
    let mut process = spawn(5);
    drop(ChildExit::new(&process).unwrap());
    end(&mut process);
    assert_eq!(process.wait().unwrap().code(), Some(5));
}

/// C11
#[test]
fn an_exec_closes_the_descriptors_of_sources() {
    in_subprocess!(|| {
        let mut process = Command::new("cat").stdin(Stdio::piped()).spawn().unwrap();
        let before = inherited();
        let _child = ChildExit::new(&process).unwrap();
        let _timer = super::Timer::new().unwrap();
        assert_eq!(inherited(), before);
        end(&mut process);
        process.wait().unwrap();
    });
}

/// C11: for a process that runs, and for one that has ended.
#[test]
fn without_room_for_its_descriptors_no_child_is_half_made() {
    in_subprocess!(|| {
        let mut process = spawn(0);
        let running = make_with_too_little_room_first(|| ChildExit::new(&process));
        end(&mut process);
        let mut poller = AnyPoller::new().unwrap();
        poller.add(EventObject::client(running.as_raw_fd())).unwrap();
        poller.expect_one();
        poller.delete(running.as_raw_fd()).unwrap();

        let ended = make_with_too_little_room_first(|| ChildExit::new(&process));
        poller.add(EventObject::client(ended.as_raw_fd())).unwrap();
        poller.expect_one();
        process.wait().unwrap();
    });
}

#[test]
fn a_child_is_send_and_sync() {
    fn is_send_and_sync<T: Send + Sync>() {}
    is_send_and_sync::<ChildExit>();
}

/// For children that std did not start. A number alone does not show its parent.
#[test]
fn a_child_is_watched_by_its_number() {
    let mut process = subprocess::spawn(&mut Command::new("true"));
    let child = ChildExit::from_pid(process.id()).unwrap();
    let mut poller = AnyPoller::new().unwrap();
    poller.add(EventObject::new(child.as_raw_fd()).with_token(7)).unwrap();
    assert_eq!(poller.expect_one().token, 7);
    assert!(process.wait().unwrap().success());
}

#[test]
fn a_number_that_is_no_childs_is_refused() {
    for pid in [0, 1 << 31, u32::MAX] {
        let error = ChildExit::from_pid(pid).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidInput);
    }
    for pid in [1, std::process::id(), i32::MAX.unsigned_abs()] {
        let error = ChildExit::from_pid(pid).unwrap_err();
        assert_eq!(error.raw_os_error(), Some(Errno::ECHILD as i32));
    }
}
