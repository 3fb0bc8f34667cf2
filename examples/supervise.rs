//! Keeps commands running: each that ends is started again after a delay.
//!
//! `cargo run --release -p pollio --example supervise 0.5 'sleep 3' 'date; exit 1'`. `--help` says
//! more.
//!
//! A command is all that it starts: when its first process ends, what is left of its process group is
//! killed. Ctrl-C or SIGTERM asks the commands to end, by SIGTERM, and ends with the last of them; a second
//! one kills those that go on.

use std::ffi::OsString;
use std::io::{self, ErrorKind, Read, Write};
use std::os::fd::AsRawFd;
use std::os::unix::{net::UnixStream, process::CommandExt};
use std::process::{self, Command, ExitCode, ExitStatus, Stdio};
use std::{sync::Arc, time::Duration};

use lexopt::{Arg, ValueExt};
use nix::{sys::signal::Signal, sys::signal::killpg, unistd::Pid};
use pollio::{ChildExit, EventObject, OsPoller, Poller, Registry, Timer};
use signal_hook::consts::{SIGCHLD, SIGINT, SIGTERM};
use signal_hook::{flag, low_level::pipe};

const HELP: &str = "\
Keeps commands running: each that ends is started again after a delay.

Usage: supervise SECONDS COMMAND...

  SECONDS       how long a command that has ended waits for its next start, such as 0.5
  COMMAND       a line for the shell
  -h, --help    print this

For instance: supervise 0.5 'sleep 3' 'date; exit 1'
Ctrl-C or SIGTERM asks the commands to end, and ends with the last of them; a second one kills those
that go on.
";

fn main() -> ExitCode {
    let (delay, commands) = match arguments() {
        Ok(Some(arguments)) => arguments,
        Ok(None) => {
            let _ = io::stdout().write_all(HELP.as_bytes());
            return ExitCode::SUCCESS;
        }
        Err(error) => {
            let _ = writeln!(io::stderr(), "supervise: {error}; try --help");
            return ExitCode::from(2);
        }
    };
    match supervise(delay, commands) {
        // A broken pipe is the standard output's: its reader has left, as after `| head`.
        Err(error) if error.kind() != ErrorKind::BrokenPipe => {
            let _ = writeln!(io::stderr(), "supervise: cannot go on: {error}");
            ExitCode::FAILURE
        }
        _ => ExitCode::SUCCESS,
    }
}

/// The delay and the commands, or `None` for the help.
fn arguments() -> Result<Option<(Duration, Vec<OsString>)>, lexopt::Error> {
    let (mut parser, mut delay, mut commands) = (lexopt::Parser::from_env(), None, Vec::new());
    while let Some(argument) = parser.next()? {
        match argument {
            Arg::Short('h') | Arg::Long("help") => return Ok(None),
            Arg::Value(value) if delay.is_none() => delay = Some(value.parse_with(seconds)?),
            Arg::Value(command) => commands.push(command),
            option => return Err(option.unexpected()),
        }
    }
    match delay {
        None => Err("SECONDS is missing".into()),
        Some(_) if commands.is_empty() => Err("COMMAND is missing".into()),
        Some(delay) => Ok(Some((delay, commands))),
    }
}

fn seconds(text: &str) -> Result<Duration, &'static str> {
    let seconds = text.parse().ok();
    let delay = seconds.and_then(|seconds| Duration::try_from_secs_f64(seconds).ok());
    delay.ok_or("SECONDS is a number such as 0.5")
}

fn supervise(delay: Duration, commands: Vec<OsString>) -> io::Result<()> {
    // The process that started this may have ignored SIGCHLD, and then the kernel reaps what nobody has waited for.
    // A handler, of whatever kind, ends that, and no command inherits it.
    flag::register(SIGCHLD, Arc::default())?;
    let (mut signals, signal_writer) = UnixStream::pair()?;
    pipe::register(SIGINT, signal_writer.try_clone()?)?;
    pipe::register(SIGTERM, signal_writer)?;
    let mut poller = OsPoller::new()?;
    let registry = poller.registry().clone();
    registry.add(EventObject::new(signals.as_raw_fd()))?;
    let services = (0..).zip(commands);
    let services = services.map(|(token, command)| Service::new(command, token, &registry));
    let mut services = services.collect::<io::Result<Vec<_>>>()?;

    // What ends the commands, once they shall end.
    let mut signal = None;
    while signal.is_none() || services.iter().any(|service| service.process.is_some()) {
        for event in poller.wait(-1)? {
            if event.fd == signals.as_raw_fd() {
                signals.read_exact(&mut [0])?;
                signal = signal.map_or(Some(Signal::SIGTERM), |_| Some(Signal::SIGKILL));
                for service in &services {
                    service.timer.disarm()?;
                    service.process.iter().for_each(|(group, _)| group.end(signal));
                }
                continue;
            }
            let service = &mut services[event.token as usize];
            if event.fd != service.timer.as_raw_fd() {
                service.ended(&registry)?;
            } else if service.timer.clear()? == 0 {
                // It was disarmed since the poller reported it.
                continue;
            } else if let Err(error) = service.start(&registry) {
                writeln!(
                    io::stdout(),
                    "cannot start: {error}: {}",
                    service.command.to_string_lossy()
                )?;
            }
            if signal.is_none() && service.process.is_none() {
                service.timer.set(delay)?;
            }
        }
    }
    Ok(())
}

/// A command, and the process that runs it at the moment, unless it has to wait.
struct Service {
    command: OsString,
    token: u32,
    timer: Timer,
    process: Option<(Group, ChildExit)>,
}

impl Service {
    /// One that starts as soon as there is a wait.
    fn new(command: OsString, token: u32, registry: &Registry) -> io::Result<Self> {
        let timer = Timer::new()?;
        timer.set(Duration::ZERO)?;
        registry.add(EventObject::new(timer.as_raw_fd()).with_token(token))?;
        Ok(Self { command, token, timer, process: None })
    }

    fn start(&mut self, registry: &Registry) -> io::Result<()> {
        let mut command = Command::new("sh");
        command.arg("-c").arg(&self.command).stdin(Stdio::null());
        // Ctrl-C reaches only the supervisor, and from here the whole of the group.
        let group = Group { process: command.process_group(0).spawn()?, is_reaped: false };
        let end = ChildExit::new(&group.process)?;
        registry.add(EventObject::client(end.as_raw_fd()).with_token(self.token))?;
        let (id, command) = (group.process.id(), self.command.to_string_lossy());
        writeln!(io::stdout(), "started {id}: {command}")?;
        self.process = Some((group, end));
        Ok(())
    }

    fn ended(&mut self, registry: &Registry) -> io::Result<()> {
        let Some((mut group, end)) = self.process.take() else { return Ok(()) };
        registry.delete(end.as_raw_fd())?;
        let (id, status) = (group.process.id(), group.finish()?);
        writeln!(io::stdout(), "ended {id}, {status}: {}", self.command.to_string_lossy())
    }
}

/// A process, and all that it starts.
struct Group {
    process: process::Child,
    is_reaped: bool,
}

impl Group {
    fn end(&self, signal: Option<Signal>) {
        if let Ok(id) = self.process.id().try_into() {
            let _ = killpg(Pid::from_raw(id), signal);
        }
    }

    /// Ends what is left of the group, then takes the status of its first process: as long as nobody
    /// has, the number of the group cannot belong to another one.
    fn finish(&mut self) -> io::Result<ExitStatus> {
        self.end(Some(Signal::SIGKILL));
        self.is_reaped = true;
        self.process.wait()
    }
}

impl Drop for Group {
    /// However the supervisor ends itself, it leaves nothing behind. (SIGKILL ends it unasked.)
    fn drop(&mut self) {
        if !self.is_reaped {
            let _ = self.finish();
        }
    }
}
