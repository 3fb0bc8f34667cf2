//! Exact figures: system calls and instructions, counted by strace and valgrind.
//!
//! The bench runs itself twice under each tool, the second time with twice the operations. The difference of the two
//! runs is the cost of the operations, without everything around them.

use std::io::{self, ErrorKind};
use std::os::fd::AsRawFd;
use std::process::{Command, Stdio};
use std::time::Duration;
use std::{env, fs};

use indicatif::ProgressBar;
use socket2::Socket;

use crate::method::{Cell, Outcome, Row, Spread};
use crate::peer::{Asked, BASE, Mode, Peer, TimesOut, US_SPINNING, Wakes, all};
use crate::receiver::RECEIVERS;
use crate::sockets::{Pairs, idle};
use crate::workload::ready_events::{Batches, handle_without};
use crate::workload::{Plan, send};

pub(crate) const COUNTS: &str = "System calls of an operation by strace, and its instructions in \
    user space by valgrind, which has no `epoll_pwait2`. A waker is woken and waited for by one \
    thread; of an event, the write and the read that make it are not counted. Messages are those of send, with \
    quiet sockets: a thousand that one thread sends and then receives; and one after the other, each sent by \
    another thread 2 ms after the last was received.";

/// An operation that is done a number of times.
type Operation = dyn Fn(usize) -> io::Result<()>;

const OPERATIONS: [&str; 8] = [
    "an event, edge, 1 at once",
    "an event, edge, 256 at once",
    "add and delete",
    "modify",
    "wake, and the wait for it",
    "a wait of 500 µs that times out",
    "a message to a loop that is awake",
    "a message to a loop that sleeps",
];

/// The first of the operations that are messages, which have peers of their own.
const MESSAGES: usize = 6;

/// The number of the first operations that are events. Each event needs a write and a read.
const EVENTS: usize = 2;

/// The peers of an operation, each with its code.
fn peers(operation: usize) -> Vec<(&'static str, Box<Operation>)> {
    fn of<P: Wakes + TimesOut>(operation: usize) -> (&'static str, Box<Operation>) {
        let operations: [fn(usize) -> io::Result<()>; MESSAGES] = [
            events::<P, 1>,
            events::<P, 256>,
            add_and_delete::<P>,
            modify::<P>,
            wake::<P>,
            time_out::<P>,
        ];
        (P::NAME, Box::new(operations[operation]))
    }
    if operation < MESSAGES {
        return vec![
            of::<all::Bare>(operation),
            of::<all::Pollio<0>>(operation),
            of::<all::Mio>(operation),
            of::<all::Polling>(operation),
        ];
    }
    let send = if operation == MESSAGES { send::while_awake } else { send::while_asleep };
    // A loop that spins polls for as long as the sender takes.
    let receivers = RECEIVERS.into_iter().filter(|(peer, _)| *peer != US_SPINNING);
    receivers
        .map(|(peer, receive)| (peer, Box::new(move |times| send(receive, times)) as _))
        .collect()
}

/// The peer of [`run_operation`] for only the write and the read of an event.
const NOBODY: &str = "nobody";

/// Runs an operation, in the counted process.
pub(crate) fn run_operation(peer: &str, operation: usize, times: usize) -> io::Result<()> {
    if peer == NOBODY {
        let active = if operation == 0 { 1 } else { 256 };
        return handle_without(&Pairs::new(256)?, active, times);
    }
    let (_, run) =
        peers(operation).into_iter().find(|(name, _)| *name == peer).ok_or(ErrorKind::NotFound)?;
    run(times)
}

/// The number of the first operations whose instructions are counted. In the last one, a thread polls until the loop is
/// asleep.
const COUNTED: usize = OPERATIONS.len() - 1;

/// The number of cases. The quick plan leaves out the instructions.
pub(crate) const CASES: [u64; 2] = [OPERATIONS.len() as u64, (OPERATIONS.len() + COUNTED) as u64];

pub(crate) fn run(plan: Plan, progress: &ProgressBar) -> io::Result<Vec<Row>> {
    let mut rows = Vec::new();
    let counts: [(&str, Count, usize); 2] =
        [("system calls", system_calls, OPERATIONS.len()), ("instructions", instructions, COUNTED)];
    for &(metric, count, operations) in &counts[..plan.of([1, 2])] {
        for (operation, name) in OPERATIONS.into_iter().take(operations).enumerate() {
            progress.set_message(format!("counts: {metric}, {name}"));
            let around = if operation < EVENTS { each(count, NOBODY, operation)? } else { 0.0 };
            let mut cells = Vec::new();
            for (peer, _) in peers(operation) {
                cells.push((peer, each(count, peer, operation)? - around));
            }
            progress.inc(1);
            let base = cells.iter().find(|(peer, _)| *peer == BASE).map(|(_, count)| *count);
            let cell = |(peer, count): (&str, f64)| Cell {
                peer: peer.to_owned(),
                outcome: reported(count, base),
            };
            rows.push(Row {
                workload: "counts".to_owned(),
                case: name.to_owned(),
                metric: metric.to_owned(),
                cells: cells.into_iter().map(cell).collect(),
            });
        }
    }
    Ok(rows)
}

fn reported(count: f64, base: Option<f64>) -> Outcome {
    let exact = |value| Spread { low: value, median: value, high: value };
    let base = base.filter(|base| *base > 0.0);
    Outcome::Figure { figure: exact(count), ratio: base.map(|base| exact(count / base)) }
}

/// Counts a run of an operation: its peer, its number, and how many times.
type Count = fn(&str, usize, usize) -> io::Result<u64>;

/// The cost of one operation.
#[expect(clippy::cast_precision_loss, reason = "figures of a bench have few digits")]
fn each(count: Count, peer: &str, operation: usize) -> io::Result<f64> {
    let (times, events) = match operation {
        // All events of a batch are reported at once.
        1 => (10, 10 * 256),
        MESSAGES => (1_000, 1_000),
        _ => (100, 100),
    };
    let once = count(peer, operation, times)?;
    let twice = count(peer, operation, 2 * times)?;
    Ok(twice.saturating_sub(once) as f64 / events as f64)
}

fn system_calls(peer: &str, operation: usize, times: usize) -> io::Result<u64> {
    let path = env::temp_dir().join(format!("pollio-bench-{}", std::process::id()));
    let mut strace = Command::new("strace");
    strace.args(["-f", "-qq", "-o"]).arg(&path);
    below(&mut strace, peer, operation, times)?;
    // A call that another thread interrupts has a second line, for its end.
    let output = fs::read_to_string(&path)?;
    let calls = output.lines().filter(|line| !line.contains(" resumed>")).count();
    fs::remove_file(&path)?;
    Ok(calls as u64)
}

fn instructions(peer: &str, operation: usize, times: usize) -> io::Result<u64> {
    let mut valgrind = Command::new("valgrind");
    valgrind.args(["--tool=callgrind", "--callgrind-out-file=/dev/null"]);
    let said = below(&mut valgrind, peer, operation, times)?;
    let collected = said.lines().find_map(|line| line.split("Collected : ").nth(1));
    collected
        .and_then(|count| count.trim().parse().ok())
        .ok_or_else(|| io::Error::other("valgrind printed no count"))
}

/// Runs an operation under a tool, and returns the tool's output.
fn below(tool: &mut Command, peer: &str, operation: usize, times: usize) -> io::Result<String> {
    let output = tool
        .arg(env::current_exe()?)
        .args(["operation", peer, &operation.to_string(), &times.to_string()])
        .stdout(Stdio::null())
        .output()?;
    if !output.status.success() {
        return Err(io::Error::other(String::from_utf8_lossy(&output.stderr)));
    }
    Ok(String::from_utf8_lossy(&output.stderr).into_owned())
}

fn events<P: Peer, const ACTIVE: usize>(times: usize) -> io::Result<()> {
    Batches::<P>::new(&Pairs::new(256)?, Mode::Edge, ACTIVE)?.handle(times)
}

fn add_and_delete<P: Peer>(times: usize) -> io::Result<()> {
    with_socket(|socket| {
        let mut poller = P::new()?;
        let fd = socket.as_raw_fd();
        for _ in 0..times {
            poller.add(fd, Asked::in_mode(Mode::Edge))?;
            poller.delete(fd)?;
        }
        Ok(())
    })
}

fn modify<P: Peer>(times: usize) -> io::Result<()> {
    with_socket(|socket| {
        let mut poller = P::new()?;
        let fd = socket.as_raw_fd();
        let asked = Asked::in_mode(Mode::Edge);
        poller.add(fd, asked)?;
        (0..times).try_for_each(|_| poller.modify(fd, Asked { writable_too: true, ..asked }))
    })
}

fn wake<P: Wakes>(times: usize) -> io::Result<()> {
    let (mut poller, waker) = P::with_waker()?;
    for _ in 0..times {
        P::wake(&waker)?;
        poller.wait_for_wake()?;
    }
    Ok(())
}

fn time_out<P: TimesOut>(times: usize) -> io::Result<()> {
    let mut poller = P::new()?;
    (0..times).try_for_each(|_| poller.wait_for(Duration::from_micros(500)))
}

fn with_socket(run: impl FnOnce(&Socket) -> io::Result<()>) -> io::Result<()> {
    run(&idle(1)?[0])
}
