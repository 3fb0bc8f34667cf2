//! Keeps commands running: each that ends is started again after a delay.
//!
//! `cargo run --release --example supervise [--delay SECONDS] COMMAND...`, where each `COMMAND` is a
//! line for the shell and the delay is a second unless told otherwise. For instance:
//! `supervise --delay 0.5 'sleep 3' 'date; exit 1'`.
//!
//! Ctrl-C or SIGTERM ends the commands, and then it. A command is asked to end, by SIGTERM, and
//! killed if it goes on for three seconds more, or at the next Ctrl-C.

use std::ffi::OsString;
use std::io::{self, Read, Write};
use std::os::fd::AsRawFd;
use std::os::unix::{net::UnixStream, process::CommandExt};
use std::process::{self, Command, ExitCode, Stdio};
use std::{env, time::Duration};

use nix::{sys::signal::Signal, sys::signal::killpg, unistd::Pid};
use pollio::{Child, EventObject, OsPoller, Poller, Registry, Timer};
use signal_hook::{consts::SIGINT, consts::SIGTERM, low_level::pipe};

/// How long commands may go on that were asked to end.
const PATIENCE: Duration = Duration::from_secs(3);
/// Tokens beside those of services, which count from zero.
const SIGNALS: u32 = u32::MAX;
const PATIENCE_IS_OVER: u32 = u32::MAX - 1;

fn main() -> ExitCode {
    let result = arguments().and_then(|(delay, commands)| {
        supervise(delay, commands).map_err(|error| format!("cannot go on: {error}"))
    });
    if let Err(error) = result {
        eprintln!("supervise: {error}");
        return ExitCode::FAILURE;
    }
    ExitCode::SUCCESS
}

fn arguments() -> Result<(Duration, Vec<OsString>), String> {
    let mut arguments = env::args_os().skip(1).peekable();
    let mut delay = Duration::from_secs(1);
    if arguments.next_if(|argument| argument == "--delay").is_some() {
        let argument = arguments.next().unwrap_or_default();
        let seconds = argument.to_str().and_then(|argument| argument.parse().ok());
        delay = seconds
            .and_then(|seconds| Duration::try_from_secs_f64(seconds).ok())
            .ok_or_else(|| format!("not a number of seconds: {}", argument.to_string_lossy()))?;
    }
    match arguments.peek() {
        Some(first) if !first.as_encoded_bytes().starts_with(b"-") => {
            Ok((delay, arguments.collect()))
        }
        _ => Err("usage: supervise [--delay SECONDS] COMMAND...".into()),
    }
}

fn supervise(delay: Duration, commands: Vec<OsString>) -> io::Result<()> {
    let (signals, signal_writer) = UnixStream::pair()?;
    pipe::register(SIGINT, signal_writer.try_clone()?)?;
    pipe::register(SIGTERM, signal_writer)?;

    let (mut poller, patience) = (OsPoller::new()?, Timer::new()?);
    poller.add(EventObject::client(signals.as_raw_fd()).with_token(SIGNALS))?;
    poller.add(EventObject::client(patience.as_raw_fd()).with_token(PATIENCE_IS_OVER))?;
    let registry = poller.registry().clone();
    let services = (0..).zip(commands).map(|(token, command)| {
        Service::new(command.to_string_lossy().into(), token, delay, registry.clone())
    });
    let services = services.collect::<io::Result<_>>()?;
    Supervisor { services, signals, patience, is_stopping: false }.run(&mut poller)
}

struct Supervisor {
    services: Vec<Service>,
    signals: UnixStream,
    patience: Timer,
    is_stopping: bool,
}

/// A command, and the process that runs it at the moment, unless it has to wait.
struct Service {
    command: String,
    token: u32,
    delay: Duration,
    registry: Registry,
    timer: Timer,
    process: Option<(Group, Child)>,
}

/// A process, and all that it starts.
struct Group(process::Child);

impl Supervisor {
    /// Runs until it is told to stop and all processes have ended.
    fn run(&mut self, poller: &mut OsPoller) -> io::Result<()> {
        while !self.is_stopping || self.services.iter().any(|service| service.process.is_some()) {
            for event in poller.wait_timeout(None)? {
                match event.token {
                    SIGNALS => {
                        let _ = self.signals.read(&mut [0; 64])?;
                        self.stop()?;
                    }
                    PATIENCE_IS_OVER => self.stop()?,
                    token => {
                        let service = &mut self.services[token as usize];
                        if event.fd == service.timer.as_raw_fd() {
                            service.start()?;
                        } else {
                            service.ended(self.is_stopping)?;
                        }
                    }
                }
            }
        }
        Ok(())
    }

    /// Starts nothing any more, and asks the processes to end: at first politely.
    fn stop(&mut self) -> io::Result<()> {
        let signal = if self.is_stopping { Signal::SIGKILL } else { Signal::SIGTERM };
        self.is_stopping = true;
        self.patience.set(PATIENCE)?;
        for service in &self.services {
            service.timer.disarm()?;
            service.process.iter().for_each(|(group, _)| group.signal(signal));
        }
        Ok(())
    }
}

impl Service {
    /// One that starts as soon as there is a wait.
    fn new(command: String, token: u32, delay: Duration, registry: Registry) -> io::Result<Self> {
        let timer = Timer::new()?;
        timer.set(Duration::ZERO)?;
        registry.add(EventObject::client(timer.as_raw_fd()).with_token(token))?;
        Ok(Self { command, token, delay, registry, timer, process: None })
    }

    fn start(&mut self) -> io::Result<()> {
        // One that was disarmed since the poller told of it went off zero times.
        if self.timer.clear()? == 0 {
            return Ok(());
        }
        match self.spawn() {
            Ok(process) => {
                let (group, _) = self.process.insert(process);
                writeln!(io::stdout(), "started {}: {}", group.0.id(), self.command)
            }
            Err(error) => {
                self.timer.set(self.delay)?;
                writeln!(io::stdout(), "cannot start: {error}: {}", self.command)
            }
        }
    }

    fn spawn(&self) -> io::Result<(Group, Child)> {
        let mut command = Command::new("sh");
        command.arg("-c").arg(&self.command).stdin(Stdio::null());
        // Ctrl-C reaches the supervisor alone, and from here the whole of the group.
        let group = Group(command.process_group(0).spawn()?);
        let end = Child::new(&group.0)?;
        self.registry.add(EventObject::client(end.as_raw_fd()).with_token(self.token))?;
        Ok((group, end))
    }

    fn ended(&mut self, is_stopping: bool) -> io::Result<()> {
        let Some((mut group, end)) = self.process.take() else { return Ok(()) };
        self.registry.delete(end.as_raw_fd())?;
        let (id, status) = (group.0.id(), group.0.wait()?);
        if !is_stopping {
            self.timer.set(self.delay)?;
        }
        writeln!(io::stdout(), "ended {id}, {status}: {}", self.command)
    }
}

impl Group {
    fn signal(&self, signal: Signal) {
        if let Ok(id) = self.0.id().try_into() {
            let _ = killpg(Pid::from_raw(id), signal);
        }
    }
}

impl Drop for Group {
    /// Whatever ends the supervisor, it leaves nothing behind.
    fn drop(&mut self) {
        if let Ok(None) = self.0.try_wait() {
            self.signal(Signal::SIGKILL);
            let _ = self.0.wait();
        }
    }
}
