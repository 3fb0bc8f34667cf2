//! The example `supervise`: the commands that it starts, their times, and the processes that it leaves behind.

use std::{fs, process::Command};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::linux::support::example::{Running, eventually, example};

/// A delay longer than any test.
const NEVER: &str = "100000";

#[test]
fn a_command_that_ends_is_started_again_after_the_delay_and_not_before() {
    // The command prints its own time, since the test may read its lines later.
    let command = "read up _ </proc/uptime; echo up $up";
    let supervise = Running::start("supervise", &["0.3", command]);
    let mut last: Option<f64> = None;
    for _ in 0..5 {
        let line = next_with(&supervise, "up ");
        let seconds: f64 = line.strip_prefix("up ").unwrap().parse().expect(&line);
        if let Some(last) = last {
            // The clock has hundredths of a second, rounded down.
            assert!(seconds - last > 0.285, "from {last} to {seconds}");
        }
        last = Some(seconds);
    }
}

/// A command's first process ends, but its background processes do not.
#[test]
fn background_processes_of_a_command_end_with_it() {
    let supervise = Running::start("supervise", &["0.05", "sleep 77712345 & exit 1"]);
    (0..6).for_each(|_| drop(supervise.next_line()));
    let (status, _) = supervise.stop(Signal::SIGTERM);
    assert_eq!(status.code(), Some(0), "{status}");
    eventually("no process is left behind", || !is_running("sleep\x0077712345"));
}

/// Whether any process of this machine has a command line that begins like this.
fn is_running(command: &str) -> bool {
    let processes = fs::read_dir("/proc").unwrap();
    let commands = processes.filter_map(|entry| fs::read(entry.ok()?.path().join("cmdline")).ok());
    commands.into_iter().any(|line| line.starts_with(command.as_bytes()))
}

#[test]
fn it_works_though_it_inherits_an_ignored_sigchld() {
    // A shell does not let go of SIGCHLD itself.
    let mut ignoring = Command::new("env");
    ignoring.arg("--ignore-signal=CHLD").arg(example("supervise")).args(["0.05", "exit 7"]);
    let supervise = Running::spawn(&mut ignoring);
    for _ in 0..3 {
        assert!(supervise.next_line().starts_with("started "));
        let line = supervise.next_line();
        assert!(line.ends_with(", exit status: 7: exit 7"), "{line}");
    }
}

#[test]
fn it_prints_how_a_command_ended() {
    let commands = [
        ("exit 0", "exit status: 0"),
        ("exit 7", "exit status: 7"),
        ("kill -9 $$", "signal: 9 (SIGKILL)"),
        ("kill -TERM $$", "signal: 15 (SIGTERM)"),
        ("no-such-program 2>/dev/null", "exit status: 127"),
    ];
    let mut args = vec![NEVER];
    args.extend(commands.iter().map(|(command, _)| *command));
    let supervise = Running::start("supervise", &args);
    let mut lines: Vec<_> = (0..2 * commands.len()).map(|_| supervise.next_line()).collect();
    for (command, status) in commands {
        let of_this = format!(": {command}");
        let mut own = lines.iter().filter(|line| line.ends_with(&of_this));
        let id = id_of(own.next().unwrap());
        assert_eq!(own.next(), Some(&format!("ended {id}, {status}: {command}")));
        assert_eq!(own.next(), None);
    }

    // All of them wait now, and none of them is left as a zombie.
    assert_eq!(children(&supervise), []);
    supervise.expect_idle();
    let status;
    (status, lines) = supervise.stop(Signal::SIGTERM);
    assert_eq!(status.code(), Some(0), "{status}");
    assert_eq!(lines, [""; 0]);
}

#[test]
fn a_command_that_runs_is_left_alone_while_another_ends_often() {
    let supervise = Running::start("supervise", &["0", "exec sleep 60", "exit 1"]);
    let mut line = next_with(&supervise, "started ");
    while !line.ends_with(": exec sleep 60") {
        line = next_with(&supervise, "started ");
    }
    let sleeping = id_of(&line);
    let mut last = 0;
    let mut descriptors = 0;
    for n in 0..200 {
        let line = next_with(&supervise, "started ");
        assert!(line.ends_with(": exit 1"), "{line}");
        assert_ne!(id_of(&line), last, "the same process again");
        last = id_of(&line);
        assert_eq!(
            next_with(&supervise, "ended "),
            format!("ended {last}, exit status: 1: exit 1")
        );
        let now = supervise.descriptors().len();
        if n < 20 {
            descriptors = descriptors.max(now);
        }
        // A start needs some more descriptors for a moment.
        assert!(now < descriptors + 10, "{now} descriptors after {n} starts, {descriptors} before");
    }
    let (status, lines) = supervise.stop(Signal::SIGINT);
    assert_eq!(status.code(), Some(0), "{status}");
    let ended = format!("ended {sleeping}, signal: 15 (SIGTERM): exec sleep 60");
    assert!(lines.contains(&ended), "{lines:?}");
    assert!(is_gone(sleeping));
}

#[test]
fn a_command_ends_with_all_that_it_started() {
    for signal in [Signal::SIGINT, Signal::SIGTERM] {
        let command = "sleep 60 & echo child $!; wait";
        let supervise = Running::start("supervise", &[NEVER, command, "exec sleep 60"]);
        let child: u32 = next_with(&supervise, "child ")[6..].parse().unwrap();
        eventually("both run", || children(&supervise).len() == 2);
        let ids = children(&supervise);
        // The supervisor signals them, not the terminal.
        let (status, lines) = supervise.stop(signal);
        assert_eq!(status.code(), Some(0), "{signal}: {status}");
        let ended = |line: &&String| line.contains(", signal: 15 (SIGTERM): ");
        assert_eq!(lines.iter().filter(ended).count(), 2, "{lines:?}");
        for id in ids.into_iter().chain([child]) {
            eventually("no process is left", || is_gone(id));
        }
    }
}

#[test]
fn asked_to_end_it_waits_for_the_last_and_starts_nothing_again() {
    let slow = "trap 'sleep 0.3; exit 3' TERM; echo ready; while :; do sleep 0.01; done";
    let supervise = Running::start("supervise", &["0.1", "exec sleep 60", slow, "echo short"]);
    next_with(&supervise, "ready");
    next_with(&supervise, "short");
    let (status, lines) = supervise.stop(Signal::SIGTERM);
    assert_eq!(status.code(), Some(0), "{status}");
    let ended = |how: &str| lines.iter().position(|line| line.contains(how)).expect(how);
    let (polite, last) = (ended(", signal: 15 (SIGTERM): exec"), ended(", exit status: 3: "));
    assert!(polite < last && last == lines.len() - 1, "{lines:?}");
}

#[test]
fn a_second_ctrl_c_kills_commands_that_do_not_end() {
    let command = "trap 'echo asked' TERM; echo ready; while :; do sleep 0.01; done";
    let supervise = Running::start("supervise", &[NEVER, command]);
    next_with(&supervise, "ready");
    supervise.signal(Signal::SIGINT);
    next_with(&supervise, "asked");
    let (status, lines) = supervise.stop(Signal::SIGINT);
    assert_eq!(status.code(), Some(0), "{status}");
    assert!(lines.iter().any(|line| line.contains(", signal: 9 (SIGKILL): ")), "{lines:?}");
}

#[test]
fn nothing_is_started_once_it_is_asked_to_end() {
    // From the first line on, it is ready for signals.
    for n in 1..20 {
        let supervise = Running::start("supervise", &["0", "exit 0", "exit 1"]);
        for _ in 0..n {
            supervise.next_line();
        }
        let (status, lines) = supervise.stop(Signal::SIGTERM);
        assert_eq!(status.code(), Some(0), "{status}");
        let count = |word| lines.iter().filter(|line| line.starts_with(word)).count();
        assert!(count("ended ") >= count("started "), "{lines:?}");
    }
}

#[test]
fn whatever_ends_it_leaves_no_process_behind() {
    // Without SIGPIPE, which it ignores like every Rust program, SIGKILL, and the signals of its own faults.
    use Signal::{
        SIGABRT, SIGALRM, SIGHUP, SIGINT, SIGIO, SIGPROF, SIGQUIT, SIGSYS, SIGTERM, SIGTRAP,
        SIGUSR1, SIGUSR2, SIGVTALRM, SIGXCPU, SIGXFSZ,
    };
    for signal in [
        SIGABRT, SIGALRM, SIGHUP, SIGINT, SIGIO, SIGPROF, SIGQUIT, SIGSYS, SIGTERM, SIGTRAP,
        SIGUSR1, SIGUSR2, SIGVTALRM, SIGXCPU, SIGXFSZ,
    ] {
        // A signal that this process inherited as ignored, as from nohup, would be ignored there too.
        let mut command = Command::new("env");
        command.arg("--default-signal").arg(example("supervise"));
        let supervise = Running::spawn(command.args(["0.1", "exec sleep 60", "exit 0"]));
        let mut sleeping = None;
        eventually("it runs", || {
            let children = children(&supervise);
            sleeping = children.into_iter().find(|id| name(*id) == "sleep");
            sleeping.is_some()
        });
        let (status, _) = supervise.stop(signal);
        assert_eq!(status.code(), Some(0), "{signal}: {status}");
        assert!(is_gone(sleeping.unwrap()), "{signal}");
    }
}

/// As `nohup` leaves it.
#[test]
fn an_end_of_the_terminal_that_is_ignored_does_not_end_it() {
    let mut command = Command::new("env");
    command.arg("--ignore-signal=HUP").arg(example("supervise")).args(["0", "exit 0"]);
    let mut supervise = Running::spawn(&mut command);
    supervise.next_line();
    supervise.signal(Signal::SIGHUP);
    (0..20).for_each(|_| drop(supervise.next_line()));
    assert!(supervise.is_running());
    assert_eq!(supervise.stop(Signal::SIGTERM).0.code(), Some(0));
}

/// A stopped process gets no signal but SIGKILL until it continues.
#[test]
fn a_command_that_is_stopped_ends_with_the_first_signal() {
    let supervise =
        Running::start("supervise", &[NEVER, "kill -STOP $$; sleep 60", "exec sleep 60"]);
    let mut ids = Vec::new();
    eventually("one is stopped", || {
        ids = children(&supervise);
        ids.iter().any(|id| stat(*id).is_some_and(|(state, _)| state == "T"))
    });
    let (status, lines) = supervise.stop(Signal::SIGTERM);
    assert_eq!(status.code(), Some(0), "{status}");
    let ended = |line: &&String| line.contains(", signal: 15 (SIGTERM): ");
    assert_eq!(lines.iter().filter(ended).count(), 2, "{lines:?}");
    assert!(ids.into_iter().all(is_gone));
}

/// Its commands do not inherit blocked signals, neither those that it inherited nor those that it handles.
#[test]
fn commands_get_an_empty_signal_mask() {
    let mut command = Command::new("env");
    command.arg("--block-signal").arg(example("supervise"));
    command.args([NEVER, "grep SigBlk /proc/self/status"]);
    let supervise = Running::spawn(&mut command);
    let line = next_with(&supervise, "SigBlk");
    assert_eq!(line.split_whitespace().nth(1), Some("0000000000000000"), "{line}");
}

/// A debugger is a parent of the process too: until it detaches, `waitpid` of the supervisor finds no end.
#[cfg(target_os = "linux")]
#[test]
fn a_command_that_a_debugger_holds_holds_up_no_other() {
    use nix::sys::{ptrace, wait::waitpid};

    let supervise = Running::start("supervise", &["0.05", "exec sleep 60", "exit 1"]);
    let mut line = next_with(&supervise, "started ");
    while !line.ends_with(": exec sleep 60") {
        line = next_with(&supervise, "started ");
    }
    let sleeping = id_of(&line);
    let debugged = Pid::from_raw(sleeping.try_into().unwrap());
    eventually("it sleeps", || name(sleeping) == "sleep");
    ptrace::seize(debugged, ptrace::Options::empty()).unwrap();
    kill(debugged, Signal::SIGKILL).unwrap();
    eventually("it is dead", || stat(sleeping).is_some_and(|(state, _)| state == "Z"));
    for _ in 0..20 {
        let line = next_with(&supervise, "ended ");
        assert!(line.ends_with(": exit 1"), "{line}");
    }
    assert!(supervise.processor_time() < std::time::Duration::from_millis(500), "it spins");
    waitpid(debugged, None).unwrap();
    let ended = format!("ended {sleeping}, signal: 9 (SIGKILL): exec sleep 60");
    while next_with(&supervise, "ended ") != ended {}
    let (status, _) = supervise.stop(Signal::SIGTERM);
    assert_eq!(status.code(), Some(0), "{status}");
}

/// Process 1 is the parent of every process whose parent has ended.
#[test]
#[ignore = "it makes a program process 1 of a namespace: as root"]
fn process_1_leaves_no_zombies() {
    let mut command = Command::new("unshare");
    command.args(["--pid", "--fork", "--kill-child"]).arg(example("supervise"));
    command.args(["0.05", "setsid sleep 0.01 & setsid sleep 0.02 & exit 1"]);
    let supervise = Running::spawn(&mut command);
    for _ in 0..50 {
        next_with(&supervise, "ended ");
    }
    let first = children(&supervise)[0];
    eventually("no zombie is left", || {
        let zombies = children_of(first).into_iter();
        zombies.filter(|id| stat(*id).is_some_and(|(state, _)| state == "Z")).count() == 0
    });
    assert!(children_of(first).len() < 10, "{:?}", children_of(first));
    kill(Pid::from_raw(first.try_into().unwrap()), Signal::SIGTERM).unwrap();
    assert_eq!(supervise.end().0.code(), Some(0));
}

/// The next line with this beginning, past the output of commands.
#[track_caller]
fn next_with(supervise: &Running, beginning: &str) -> String {
    loop {
        let line = supervise.next_line();
        if line.starts_with(beginning) {
            return line;
        }
    }
}

/// The id of the process in a line `started ID: COMMAND`.
#[track_caller]
fn id_of(line: &str) -> u32 {
    let id = line.strip_prefix("started ").and_then(|rest| rest.split_once(':')).expect(line).0;
    id.parse().expect(line)
}

fn children(supervise: &Running) -> Vec<u32> {
    children_of(supervise.id())
}

/// The children of a process, zombies among them.
pub(crate) fn children_of(id: u32) -> Vec<u32> {
    let stats = fs::read_dir("/proc").unwrap().filter_map(|entry| {
        let id = entry.unwrap().file_name().to_str()?.parse().ok()?;
        Some((id, stat(id)?))
    });
    stats.filter(|(_, (_, parent))| *parent == id).map(|(child, _)| child).collect()
}

pub(crate) fn is_gone(id: u32) -> bool {
    // Another process has to reap a zombie whose parent has ended.
    stat(id).is_none_or(|(state, _)| state == "Z")
}

/// State and parent, as [proc_pid_stat(5)](https://man7.org/linux/man-pages/man5/proc_pid_stat.5.html)
/// has them after the name.
fn stat(id: u32) -> Option<(String, u32)> {
    let stat = fs::read_to_string(format!("/proc/{id}/stat")).ok()?;
    let (_, from_the_third) = stat.rsplit_once(") ")?;
    let mut fields = from_the_third.split(' ');
    Some((fields.next()?.to_owned(), fields.next()?.parse().ok()?))
}

fn name(id: u32) -> String {
    fs::read_to_string(format!("/proc/{id}/comm")).unwrap_or_default().trim().to_owned()
}
