//! Keeps commands running: each that ends is started again after a delay.
//!
//! `cargo run --release --example supervise SECONDS COMMAND...`, where each `COMMAND` is a line for
//! the shell. For instance: `supervise 0.5 'sleep 3' 'date; exit 1'`.
//!
//! A command is all that it starts: when its first process ends, what is left of its process group is
//! killed. Ctrl-C or SIGTERM asks the commands to end, by SIGTERM, and ends with the last of them; a second
//! one kills those that go on.

use std::io::{self, Read, Write};
use std::os::fd::AsRawFd;
use std::os::unix::{net::UnixStream, process::CommandExt};
use std::process::{self, Command, ExitStatus, Stdio};
use std::{env, sync::Arc, time::Duration};

use nix::{sys::signal::Signal, sys::signal::killpg, unistd::Pid};
use pollio::{ChildExit, EventObject, OsPoller, Poller, Registry, Timer};
use signal_hook::consts::{SIGCHLD, SIGINT, SIGTERM};
use signal_hook::{flag, low_level::pipe};

fn main() {
    let mut arguments = env::args().skip(1);
    let seconds = arguments.next().and_then(|seconds| seconds.parse().ok());
    let delay = seconds.and_then(|seconds| Duration::try_from_secs_f64(seconds).ok());
    let (Some(delay), true) = (delay, arguments.len() > 0) else {
        eprintln!("supervise: usage: supervise SECONDS COMMAND...");
        process::exit(1)
    };
    supervise(delay, arguments).unwrap_or_else(|error| {
        eprintln!("supervise: cannot go on: {error}");
        process::exit(1)
    });
}

fn supervise(delay: Duration, commands: impl Iterator<Item = String>) -> io::Result<()> {
    // Whoever started this may have ignored SIGCHLD, and then the kernel reaps what nobody has waited for.
    // A handler, of whatever kind, ends that, and no command inherits it.
    flag::register(SIGCHLD, Arc::default())?;
    let (mut signals, signal_writer) = UnixStream::pair()?;
    pipe::register(SIGINT, signal_writer.try_clone()?)?;
    pipe::register(SIGTERM, signal_writer)?;
    let mut poller = OsPoller::new()?;
    let registry = poller.registry().clone();
    registry.add(EventObject::client(signals.as_raw_fd()))?;
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
                // It was disarmed since the poller told of it.
                continue;
            } else if let Err(error) = service.start(&registry) {
                writeln!(io::stdout(), "cannot start: {error}: {}", service.command)?;
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
    command: String,
    token: u32,
    timer: Timer,
    process: Option<(Group, ChildExit)>,
}

impl Service {
    /// One that starts as soon as there is a wait.
    fn new(command: String, token: u32, registry: &Registry) -> io::Result<Self> {
        let timer = Timer::new()?;
        timer.set(Duration::ZERO)?;
        registry.add(EventObject::client(timer.as_raw_fd()).with_token(token))?;
        Ok(Self { command, token, timer, process: None })
    }

    fn start(&mut self, registry: &Registry) -> io::Result<()> {
        let mut command = Command::new("sh");
        command.arg("-c").arg(&self.command).stdin(Stdio::null());
        // Ctrl-C reaches the supervisor alone, and from here the whole of the group.
        let group = Group { process: command.process_group(0).spawn()?, is_reaped: false };
        let end = ChildExit::new(&group.process)?;
        registry.add(EventObject::client(end.as_raw_fd()).with_token(self.token))?;
        writeln!(io::stdout(), "started {}: {}", group.process.id(), self.command)?;
        self.process = Some((group, end));
        Ok(())
    }

    fn ended(&mut self, registry: &Registry) -> io::Result<()> {
        let Some((mut group, end)) = self.process.take() else { return Ok(()) };
        registry.delete(end.as_raw_fd())?;
        let (id, status) = (group.process.id(), group.finish()?);
        writeln!(io::stdout(), "ended {id}, {status}: {}", self.command)
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
