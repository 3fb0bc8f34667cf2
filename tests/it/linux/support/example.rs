//! The examples as programs, and helpers of their clients.

use std::env;
use std::fs;
use std::io::{self, BufRead, BufReader, ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::time::ClockId;
use nix::unistd::Pid;
use socket2::{Domain, SockRef, Socket, Type};

use crate::support::subprocess::spawn;

/// Longer than anything here takes, so that lost data fails a test instead of hanging it.
pub(crate) const LONG: Duration = Duration::from_secs(120);

/// For the buffer of a socket, in bytes.
pub(crate) const LITTLE_ROOM: usize = 32 << 10;

/// The program of the example `name`, which `cargo test` builds next to the tests.
pub(crate) fn example(name: &str) -> PathBuf {
    let tests = env::current_exe().unwrap();
    let program = tests.ancestors().nth(2).unwrap().join("examples").join(name);
    assert!(program.exists(), "no {}: cargo build --examples", program.display());
    program
}

/// The program of the example `name`, limited to `limit` open descriptors. Inherited ones below ten are closed:
/// otherwise another test's pipe could take one.
pub(crate) fn with_descriptors(name: &str, limit: usize) -> Command {
    let close = "exec 3>&- 4>&- 5>&- 6>&- 7>&- 8>&- 9>&-";
    let script = format!("{close}; ulimit -n {limit}; exec \"$0\" \"$@\"");
    let mut shell = Command::new("sh");
    shell.args(["-c", &script]).arg(example(name));
    shell
}

/// An example, running. It is killed when the test is done with it, or panics.
pub(crate) struct Running {
    child: Child,
    stdout: Receiver<String>,
    address: Option<SocketAddr>,
}

impl Running {
    pub(crate) fn start(name: &str, args: &[&str]) -> Self {
        Self::spawn(Command::new(example(name)).args(args))
    }

    /// For commands that `start` cannot build. Takes the program's stdout.
    pub(crate) fn spawn(command: &mut Command) -> Self {
        let mut child = spawn(command.stdout(Stdio::piped()));
        let stdout = lines(child.stdout.take().unwrap());
        Self { child, stdout, address: None }
    }

    /// For a program whose stdout goes somewhere else.
    pub(crate) fn spawn_to(command: &mut Command, stdout: impl Into<Stdio>) -> Self {
        let child = spawn(command.stdout(stdout));
        Self { child, stdout: lines(io::empty()), address: None }
    }

    /// For a program that complains: also returns its complaints.
    pub(crate) fn spawn_with_complaints(command: &mut Command) -> (Self, Complaints) {
        let mut running = Self::spawn(command.stderr(Stdio::piped()));
        let complaints = running.complaints();
        (running, complaints)
    }

    /// The lines of its stderr, if that is piped.
    pub(crate) fn complaints(&mut self) -> Complaints {
        Complaints(lines(self.child.stderr.take().unwrap()))
    }

    /// Waits for the line `listening on ADDRESS`, which a server writes before any other.
    pub(crate) fn listening(mut self) -> Self {
        let line = self.next_line();
        let address = line.strip_prefix("listening on ").expect(&line);
        self.address = Some(address.parse().expect(&line));
        self
    }

    /// The address of the server, after [`listening`](Self::listening).
    pub(crate) fn address(&self) -> SocketAddr {
        self.address.expect("not waited for with `listening`")
    }

    pub(crate) fn connect(&self) -> TcpStream {
        with_timeouts(TcpStream::connect_timeout(&self.address(), LONG).unwrap())
    }

    #[track_caller]
    pub(crate) fn next_line(&self) -> String {
        self.stdout.recv_timeout(LONG).expect("no further line from the program")
    }

    /// The next line, unless the program ends without one.
    #[track_caller]
    pub(crate) fn line_or_end(&self) -> Option<String> {
        match self.stdout.recv_timeout(LONG) {
            Err(RecvTimeoutError::Timeout) => panic!("the program goes on without a line"),
            line => line.ok(),
        }
    }

    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    pub(crate) fn is_running(&mut self) -> bool {
        self.child.try_wait().unwrap().is_none()
    }

    pub(crate) fn signal(&self, signal: Signal) {
        kill(Pid::from_raw(self.child.id().try_into().unwrap()), signal).unwrap();
    }

    /// Sends `signal`, and returns how the program ended and the lines that it still wrote.
    #[track_caller]
    pub(crate) fn stop(self, signal: Signal) -> (ExitStatus, Vec<String>) {
        self.signal(signal);
        self.end()
    }

    /// Waits for the end of the program, and returns how it ended and its unread lines.
    #[track_caller]
    pub(crate) fn end(mut self) -> (ExitStatus, Vec<String>) {
        let mut lines = Vec::new();
        loop {
            match self.stdout.recv_timeout(LONG) {
                Ok(line) => lines.push(line),
                Err(RecvTimeoutError::Disconnected) => break,
                Err(RecvTimeoutError::Timeout) => panic!("the program goes on after {lines:?}"),
            }
        }
        eventually("the program ends", || !self.is_running());
        (self.child.wait().unwrap(), lines)
    }

    /// Fails if the program uses the processor while nothing happens. Under load it may still be busy at first.
    #[track_caller]
    pub(crate) fn expect_idle(&self) {
        eventually("the program is idle", || {
            let before = self.processor_time();
            thread::sleep(Duration::from_millis(500));
            // A program that spins uses more than this, even with a fraction of a core.
            self.processor_time() - before < Duration::from_millis(40)
        });
    }

    /// The processor time that the program has used so far.
    pub(crate) fn processor_time(&self) -> Duration {
        processor_time(self.id())
    }

    /// The memory that the program has allocated, without its code, which is loaded page by page. The kernel's other
    /// count, in the file `status`, is off by up to 32 pages for each core.
    pub(crate) fn memory_kb(&self) -> u64 {
        let pages = fs::read_to_string(self.proc("smaps_rollup")).unwrap();
        let line = pages.lines().find_map(|line| line.strip_prefix("Anonymous:")).unwrap();
        line.trim().trim_end_matches(" kB").parse().unwrap()
    }

    pub(crate) fn descriptors(&self) -> Vec<usize> {
        let entries = fs::read_dir(self.proc("fd")).unwrap();
        entries.map(|entry| entry.unwrap().file_name().to_str().unwrap().parse().unwrap()).collect()
    }

    /// Sets the soft limit of the running program.
    pub(crate) fn limit_descriptors(&self, limit: usize) {
        let status = Command::new("prlimit")
            .args([&format!("--nofile={limit}:"), "--pid", &self.id().to_string()])
            .status()
            .expect("no prlimit (of util-linux) here: leave this test out by name, with --skip");
        assert!(status.success(), "prlimit: {status}");
    }

    fn proc(&self, name: &str) -> String {
        format!("/proc/{}/{name}", self.id())
    }
}

/// The lines that a program writes to stderr.
pub(crate) struct Complaints(Receiver<String>);

impl Complaints {
    #[track_caller]
    pub(crate) fn next_line(&self) -> String {
        self.0.recv_timeout(LONG).expect("no further complaint from the program")
    }

    /// Kills the program, and expects no further complaint.
    #[track_caller]
    pub(crate) fn expect_no_more(self, running: Running) {
        drop(running);
        assert_eq!(self.0.iter().collect::<Vec<_>>(), [""; 0]);
    }
}

fn lines(stream: impl Read + Send + 'static) -> Receiver<String> {
    let lines = BufReader::new(stream).lines();
    let (sender, receiver) = mpsc::channel();
    thread::spawn(move || lines.map_while(Result::ok).try_for_each(|line| sender.send(line)));
    receiver
}

impl Drop for Running {
    fn drop(&mut self) {
        // Killing and waiting fail for a process that has ended, which is fine.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The processor time that all threads of a process have used so far.
pub(crate) fn processor_time(process: u32) -> Duration {
    let process = Pid::from_raw(process.try_into().unwrap());
    ClockId::pid_cpu_clock_id(process).and_then(ClockId::now).unwrap().into()
}

/// Starts the example with arguments that it cannot serve: it prints one line to stderr, which begins with its name and
/// `complaint`, and fails.
#[track_caller]
pub(crate) fn expect_failure(name: &str, args: &[&str], complaint: &str) {
    let stderr = expect_complaint(name, args, 1);
    let beginning = format!("{name}: {complaint}");
    assert!(stderr.starts_with(&beginning), "{args:?}: {stderr:?}, not {beginning:?}");
}

/// Starts the example with wrong arguments: it names the fault, and refers to `--help`.
#[track_caller]
pub(crate) fn expect_usage_error(name: &str, args: &[&str], complaint: &str) {
    let stderr = expect_complaint(name, args, 2);
    assert_eq!(stderr, format!("{name}: {complaint}; try --help"), "{args:?}");
}

#[track_caller]
fn expect_complaint(name: &str, args: &[&str], code: i32) -> String {
    let mut command = Command::new(example(name));
    let (running, complaints) =
        Running::spawn_with_complaints(command.args(args).stdin(Stdio::null()));
    let (status, stdout) = running.end();
    let stderr: Vec<_> = complaints.0.iter().collect();
    assert_eq!(status.code(), Some(code), "{args:?}: {status}: {stderr:?}");
    assert_eq!(stdout, [""; 0], "{args:?}");
    let [stderr] = &stderr[..] else { panic!("{args:?}: {stderr:?}") };
    stderr.clone()
}

#[track_caller]
pub(crate) fn eventually(what: &str, mut is_so: impl FnMut() -> bool) {
    let deadline = Instant::now() + LONG;
    while !is_so() {
        assert!(Instant::now() < deadline, "not within {LONG:?}: {what}");
        thread::sleep(Duration::from_millis(5));
    }
}

#[track_caller]
pub(crate) fn read_to_end(client: &mut TcpStream) -> Vec<u8> {
    let mut bytes = Vec::new();
    client.read_to_end(&mut bytes).unwrap();
    bytes
}

/// Writes until the kernel takes no more, or to the end of `data`, and returns the number of written bytes.
pub(crate) fn write_until_stuck(mut client: &TcpStream, data: &[u8]) -> usize {
    client.set_nonblocking(true).unwrap();
    let (mut sent, mut attempts) = (0, 0);
    // Counts attempts, not time: on a busy machine the other side has few turns, and so has this test.
    while sent < data.len() && attempts < 60 {
        match client.write(&data[sent..]) {
            Ok(count) => (sent, attempts) = (sent + count, 0),
            Err(error) if error.kind() == ErrorKind::WouldBlock => {
                attempts += 1;
                thread::sleep(Duration::from_millis(5));
            }
            Err(error) => panic!("after {sent} bytes: {error}"),
        }
    }
    client.set_nonblocking(false).unwrap();
    sent
}

/// The bytes of a connection that the kernel holds: those that it has yet to send for `stream`, and the unread ones at
/// the other end, if that is open.
pub(crate) fn in_kernel(stream: &TcpStream) -> (u64, Option<u64>) {
    let port = |address: io::Result<SocketAddr>| format!(":{:04X}", address.unwrap().port());
    let (here, there) = (port(stream.local_addr()), port(stream.peer_addr()));
    let table = fs::read_to_string("/proc/net/tcp").unwrap();
    let queues = |local: &str, remote: &str| {
        let mut sockets = table.lines().map(|line| line.split_whitespace().collect::<Vec<_>>());
        let socket =
            sockets.find(|socket| socket[1].ends_with(local) && socket[2].ends_with(remote))?;
        let (to_send, to_read) = socket[4].split_once(':').unwrap();
        Some([to_send, to_read].map(|bytes| u64::from_str_radix(bytes, 16).unwrap()))
    };
    let [to_send, _] = queues(&here, &there).expect("it is open");
    (to_send, queues(&there, &here).map(|[_, to_read]| to_read))
}

/// A client whose kernel takes few bytes before it reads.
pub(crate) fn connect_with_little_room(server: &Running) -> TcpStream {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    socket.set_recv_buffer_size(LITTLE_ROOM).unwrap();
    socket.connect(&server.address().into()).unwrap();
    with_timeouts(socket.into())
}

/// Makes data that never comes, or is never read, fail a test instead of hanging it.
pub(crate) fn with_timeouts(stream: TcpStream) -> TcpStream {
    stream.set_read_timeout(Some(LONG)).unwrap();
    stream.set_write_timeout(Some(LONG)).unwrap();
    stream
}

/// Ends the connection with a reset instead of a close.
pub(crate) fn reset(client: TcpStream) {
    SockRef::from(&client).set_linger(Some(Duration::ZERO)).unwrap();
    drop(client);
}
