//! Keeps commands running: each that ends is started again after a delay.
//!
//! `cargo run --release -p pollio --example supervise 0.5 'sleep 3' 'date; exit 1'`. `--help` says
//! more.
//!
//! A command is its whole process group: when its first process ends, the rest of the group is killed. Ctrl-C, or any
//! other signal that would end the supervisor, asks the commands to end, by SIGTERM, and ends with the last of them; a
//! second one kills those that go on. A process that has left its group, as by `setsid`, escapes.

mod shared;

use std::ffi::OsString;
use std::io::{self, Read};
use std::os::fd::AsRawFd;
use std::os::unix::process::CommandExt;
use std::process::{self, Command, ExitCode, Stdio};
use std::{fs, time::Duration};

use lexopt::{Arg, ValueExt};
use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;
use pollio::{ChildExit, EventObject, Mode, OsPoller, Poller, Registered, Registry, Timer};
use shared::Log;
use signal_hook::consts::{
    SIGABRT, SIGALRM, SIGCHLD, SIGHUP, SIGINT, SIGIO, SIGPROF, SIGQUIT, SIGSYS, SIGTERM, SIGTRAP,
    SIGUSR1, SIGUSR2, SIGVTALRM, SIGXCPU, SIGXFSZ,
};

/// The signals that would end this process without a word to its commands, and can be handled. SIGKILL cannot, nor
/// those of a fault.
const ENDING: [i32; 14] = [
    SIGABRT, SIGALRM, SIGINT, SIGIO, SIGPROF, SIGQUIT, SIGSYS, SIGTERM, SIGTRAP, SIGUSR1, SIGUSR2,
    SIGVTALRM, SIGXCPU, SIGXFSZ,
];

fn supervise(arguments: &Arguments, log: &Log) -> io::Result<()> {
    let mut poller = OsPoller::new()?;
    let registry = poller.registry().clone();
    let watch =
        |signals: &[i32]| Registered::new(&registry, shared::signals(signals)?, EventObject::new);
    // The parent of this process may have ignored SIGCHLD, and then the kernel reaps children unasked. Any handler ends
    // that, and no command inherits it.
    let children = watch(&[SIGCHLD])?;
    let asked = watch(&ENDING)?;
    // `nohup` ignores it, so that its command outlives the terminal.
    let mut hang_up = if is_ignored(SIGHUP) { None } else { Some(watch(&[SIGHUP])?) };
    let commands = (0..).zip(&arguments.commands);
    let services = commands.map(|(token, command)| Service::new(command, token, &registry));
    let mut services = services.collect::<io::Result<Vec<_>>>()?;

    // The signal that ends the commands, once they shall end.
    let (mut signal, mut has_begun) = (None, false);
    while signal.is_none() || services.iter().any(|service| service.process.is_some()) {
        for event in poller.wait(-1)? {
            if event.fd == children.as_raw_fd() {
                children.get_ref().read_exact(&mut [0])?;
            } else if event.fd == asked.as_raw_fd() {
                asked.get_ref().read_exact(&mut [0])?;
                let next = signal.map_or(Signal::SIGTERM, |_| Signal::SIGKILL);
                signal = Some(next);
                services.iter().try_for_each(|service| service.end(next))?;
            } else if let Some(hang_up) = hang_up.take_if(|hang_up| hang_up.as_raw_fd() == event.fd)
            {
                // Once: a terminal that ends may say so twice.
                drop(hang_up);
                signal = signal.or(Some(Signal::SIGTERM));
                services.iter().try_for_each(|service| service.end(Signal::SIGTERM))?;
            } else {
                let service = &mut services[event.token as usize];
                service.go_on(event.fd, &registry, log)?;
                if signal.is_none() && service.process.is_none() {
                    service.timer.get_ref().set(arguments.delay)?;
                }
                // Without its first line, it does not begin.
                if !has_begun {
                    log.flush()?;
                    has_begun = true;
                }
            }
        }
        reap_adopted(&services);
    }
    Ok(())
}

/// A command, and the process that runs it at the moment, unless it has to wait.
struct Service {
    command: OsString,
    token: u32,
    timer: Registered<Timer>,
    process: Option<(Group, Registered<ChildExit>)>,
}

impl Service {
    /// One that starts as soon as there is a wait.
    fn new(command: &OsString, token: u32, registry: &Registry) -> io::Result<Self> {
        let timer = Timer::new()?;
        timer.set(Duration::ZERO)?;
        let object = |fd| EventObject::new(fd).with_token(token);
        let timer = Registered::new(registry, timer, object)?;
        Ok(Self { command: command.clone(), token, timer, process: None })
    }

    /// Its timer has expired, or its process ended.
    fn go_on(&mut self, fd: i32, registry: &Registry, log: &Log) -> io::Result<()> {
        if fd == self.timer.as_raw_fd() && self.timer.get_ref().clear()? == 0 {
            // It was disarmed since the poller reported it.
            return Ok(());
        }
        if self.process.is_some() {
            return self.ended(log);
        }
        if fd != self.timer.as_raw_fd() {
            return Ok(());
        }
        if let Err(error) = self.start(registry, log) {
            log.print(format!("cannot start: {error}: {}", self.command.to_string_lossy()));
        }
        Ok(())
    }

    fn start(&mut self, registry: &Registry, log: &Log) -> io::Result<()> {
        let mut command = Command::new("sh");
        command.arg("-c").arg(&self.command).stdin(Stdio::null());
        // Ctrl-C reaches only the supervisor, which passes it on to the whole group.
        let group = Group { process: command.process_group(0).spawn()?, is_reaped: false };
        let end = Registered::new(registry, ChildExit::new(&group.process)?, |fd| {
            EventObject::new(fd).with_token(self.token).with_mode(Mode::Oneshot)
        })?;
        let (id, command) = (group.process.id(), self.command.to_string_lossy());
        log.print(format!("started {id}: {command}"));
        self.process = Some((group, end));
        Ok(())
    }

    /// Ends the rest of the group, then takes the status of its first process: until then no other group can have its
    /// number.
    fn ended(&mut self, log: &Log) -> io::Result<()> {
        let Some((group, _)) = &mut self.process else { return Ok(()) };
        group.end(Signal::SIGKILL);
        // A traced process is reported before its debugger lets go of it. Waiting for that would hold up the others.
        let Some(status) = group.process.try_wait()? else {
            return self.timer.get_ref().set(Duration::from_millis(100));
        };
        group.is_reaped = true;
        let id = group.process.id();
        self.process = None;
        log.print(format!("ended {id}, {status}: {}", self.command.to_string_lossy()));
        Ok(())
    }

    /// Ends the running process, and starts it no more.
    fn end(&self, signal: Signal) -> io::Result<()> {
        let Some((group, _)) = &self.process else { return self.timer.get_ref().disarm() };
        group.end(signal);
        // A stopped process has to continue to get the signal.
        group.end(Signal::SIGCONT);
        Ok(())
    }
}

/// A process and its group.
struct Group {
    process: process::Child,
    is_reaped: bool,
}

impl Group {
    fn end(&self, signal: Signal) {
        if let Ok(id) = self.process.id().try_into() {
            let _ = killpg(Pid::from_raw(id), signal);
        }
    }
}

impl Drop for Group {
    /// However the supervisor ends, it leaves no process behind, except after SIGKILL.
    fn drop(&mut self) {
        if !self.is_reaped {
            self.end(Signal::SIGKILL);
        }
    }
}

/// As process 1 of a container, it is the parent of every process whose parent has ended. These stay zombies until it
/// takes their status.
#[cfg(any(target_os = "linux", target_os = "android"))]
fn reap_adopted(services: &[Service]) {
    use nix::sys::wait::{Id, WaitPidFlag, waitid, waitpid};
    let ended = WaitPidFlag::WEXITED | WaitPidFlag::WNOHANG;
    while let Ok(Some(id)) =
        waitid(Id::All, ended | WaitPidFlag::WNOWAIT).map(|status| status.pid())
    {
        let mut processes = services.iter().filter_map(|service| service.process.as_ref());
        // One of ours has an event of its own.
        if processes.any(|(group, _)| group.process.id() == id.as_raw().unsigned_abs()) {
            return;
        }
        let _ = waitpid(id, Some(WaitPidFlag::WNOHANG));
    }
}

#[cfg(not(any(target_os = "linux", target_os = "android")))]
fn reap_adopted(_services: &[Service]) {}

/// Whether this program inherited that a signal is ignored: proc_pid_status(5), of Linux.
fn is_ignored(signal: i32) -> bool {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let ignored = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    let ignored = ignored.and_then(|set| u64::from_str_radix(set.trim(), 16).ok());
    ignored.is_some_and(|set| set >> (signal - 1) & 1 == 1)
}

const HELP: &str = "\
Keeps commands running: each that ends is started again after a delay.

Usage: supervise SECONDS COMMAND...

  SECONDS       how long a command that has ended waits for its next start, such as 0.5
  COMMAND       a line for the shell
  -h, --help    print this

For instance: supervise 0.5 'sleep 3' 'date; exit 1'
Ctrl-C, or any other signal that would end it, asks the commands to end, and ends with the last of
them; a second one kills those that go on. SIGHUP does not where it is ignored, as under nohup. A
command ends with its first process, and all of its process group with that: what leaves the group,
as by setsid, escapes.
";

struct Arguments {
    delay: Duration,
    commands: Vec<OsString>,
}

fn parse(arguments: &mut shared::Arguments) -> Result<Arguments, lexopt::Error> {
    let (mut delay, mut commands) = (None, Vec::new());
    while let Some(argument) = arguments.next()? {
        match argument {
            Arg::Value(value) if delay.is_none() => delay = Some(value.parse_with(seconds)?),
            Arg::Value(command) => commands.push(command),
            option => return Err(option.unexpected()),
        }
    }
    match delay {
        None => Err("SECONDS is missing".into()),
        Some(_) if commands.is_empty() => Err("COMMAND is missing".into()),
        Some(delay) => Ok(Arguments { delay, commands }),
    }
}

fn seconds(text: &str) -> Result<Duration, &'static str> {
    let seconds = text.parse().ok();
    let delay = seconds.and_then(|seconds| Duration::try_from_secs_f64(seconds).ok());
    delay.ok_or("SECONDS is a number such as 0.5")
}

fn main() -> ExitCode {
    shared::run(HELP, parse, |_| "go on".into(), supervise)
}
