//! A program's output, from a thread of its own.
//!
//! A write to standard output blocks while nobody reads the pipe behind it, or while its terminal is paused,
//! and it can fail at any time. Neither may stop a loop that others depend on. A non-blocking descriptor is no way out:
//! every process that has it open shares that flag.

use std::collections::BTreeSet;
use std::io::{self, Write};
use std::mem;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::mpsc::{self, Receiver, Sender};
use std::sync::{Arc, Mutex, PoisonError};
use std::{fmt::Display, net::SocketAddr, thread, time::Duration};

use nix::sys::signal::SigSet;
use socket2::{Domain, Socket, Type};

/// The most bytes that may wait to be written. Further lines are lost.
const MOST: usize = 1 << 20;

/// The time that a program waits for its first and its last line to be written.
const PATIENCE: Duration = Duration::from_secs(2);

/// Prints lines, and never blocks. A line that cannot be written is lost.
#[derive(Clone)]
pub(crate) struct Log {
    lines: Sender<Line>,
    /// The number of bytes that wait to be written.
    waiting: Arc<AtomicUsize>,
    /// The reasons, printed so far, why clients were not served.
    reasons: Arc<Mutex<BTreeSet<String>>>,
}

enum Line {
    Output(Vec<u8>),
    Complaint(String),
    /// Asks whether the lines before it were written.
    Flush(Sender<io::Result<()>>),
}

impl Log {
    pub(crate) fn new() -> io::Result<Self> {
        let (lines, queue) = mpsc::channel();
        let waiting = Arc::new(AtomicUsize::new(0));
        let of_thread = Arc::clone(&waiting);
        spawn(move || write(&queue, &of_thread))?;
        Ok(Self { lines, waiting, reasons: Arc::new(Mutex::new(BTreeSet::new())) })
    }

    /// Prints the line that a server is ready. Fails if it cannot be printed, or if there is no descriptor for a first
    /// client: clients would wait in the queue indefinitely.
    pub(crate) fn listening(&self, address: SocketAddr) -> io::Result<()> {
        drop(Socket::new(Domain::for_address(address), Type::STREAM, None)?);
        self.print(format!("listening on {address}"));
        self.flush()
    }

    /// Prints a line, and its end.
    pub(crate) fn print(&self, line: impl Into<Vec<u8>>) {
        let mut line = line.into();
        line.push(b'\n');
        self.send(line.len(), Line::Output(line));
    }

    /// Prints a line to standard error.
    pub(crate) fn complain(&self, line: String) {
        self.send(line.len(), Line::Complaint(line));
    }

    /// Says why a client was not served: each reason once, whatever the number of clients.
    pub(crate) fn not_served(&self, reason: impl Display) {
        let line = format!("{}: a client was not served: {reason}", env!("CARGO_CRATE_NAME"));
        let mut reasons = self.reasons.lock().unwrap_or_else(PoisonError::into_inner);
        if reasons.insert(line.clone()) {
            self.complain(line);
        }
    }

    /// Waits until all lines are written, but not for long. Returns the first error of standard output since the last
    /// call.
    pub(crate) fn flush(&self) -> io::Result<()> {
        let (sender, result) = mpsc::channel();
        self.send(0, Line::Flush(sender));
        result.recv_timeout(PATIENCE).unwrap_or(Ok(()))
    }

    fn send(&self, length: usize, line: Line) {
        if self.waiting.fetch_add(length, Relaxed) > MOST {
            self.waiting.fetch_sub(length, Relaxed);
        } else {
            // The thread lives as long as this sender.
            let _ = self.lines.send(line);
        }
    }
}

fn write(queue: &Receiver<Line>, waiting: &AtomicUsize) {
    // A write from the background of a terminal is SIGTTOU, one beyond the limit of a file SIGXFSZ. With both blocked,
    // the first write succeeds and the second fails.
    let _ = SigSet::all().thread_block();
    let mut result = Ok(());
    for line in queue.iter() {
        let (length, written) = match line {
            Line::Output(bytes) => (bytes.len(), io::stdout().write_all(&bytes)),
            Line::Complaint(line) => {
                // There is no output left for the error.
                let _ = writeln!(io::stderr(), "{line}");
                (line.len(), Ok(()))
            }
            Line::Flush(sender) => {
                let _ = sender.send(mem::replace(&mut result, Ok(())));
                continue;
            }
        };
        waiting.fetch_sub(length, Relaxed);
        result = result.and(written);
    }
}

/// Starts a thread, or says that there is none.
pub(crate) fn spawn(body: impl FnOnce() + Send + 'static) -> io::Result<()> {
    match thread::Builder::new().spawn(body) {
        Ok(_) => Ok(()),
        Err(error) => Err(io::Error::new(error.kind(), format!("no thread can be had: {error}"))),
    }
}
