//! Another thread sends to a loop that serves sockets.

use std::io;
use std::os::fd::AsRawFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::thread;
use std::time::{Duration, Instant};

use indicatif::ProgressBar;

use super::Plan;
use crate::machine::{cores, pin};
use crate::method::{Case, Figures, Row, Turn, compare_with};
use crate::peer::US;
use crate::receiver::{RECEIVERS, Receive, Received};
use crate::sockets::{Pairs, write};

pub(crate) const COUNTS: &str = "A loop on one core serves 8 Unix sockets and receives messages, which a \
    thread on another core sends as fast as it can: by pollio's channel; by crossbeam-channel, with a wake of \
    mio's waker after each message; by async-channel, with polling's `notify` after each; by tokio's mpsc, to \
    a runtime of one thread. The sockets are quiet, or busy: each has a byte in it, which is read and written \
    again. The loop takes up to 256 messages before it looks for sockets again; tokio has its own budget. \
    Counted: messages a second, and the bytes of the sockets in that time, both compared with pollio without \
    spinning. Their system calls are in counts.";

const SOCKETS: usize = 8;

pub(crate) fn run(plan: Plan, progress: &ProgressBar) -> io::Result<Vec<Row>> {
    let cores = cores()?;
    let count = plan.of([20_000, 200_000]);
    let mut rows = Vec::new();
    for (name, busy) in [("quiet sockets", 0), ("busy sockets", SOCKETS)] {
        let case = Case { workload: "send", name: name.to_owned(), rounds: plan.of([3, 11]) };
        let turn = |(peer, receive)| Turn {
            peer,
            run: Ok(Box::new(move || messages(receive, busy, count, cores)) as _),
        };
        rows.extend(compare_with(US, case, RECEIVERS.map(turn).into(), progress));
    }
    Ok(rows)
}

/// Receives `count` messages, after a tenth of them to warm up.
#[expect(clippy::cast_precision_loss, reason = "figures of a bench have few digits")]
fn messages(
    receive: Receive,
    busy: usize,
    count: usize,
    [here, there]: [usize; 2],
) -> io::Result<Figures> {
    let pairs = Pairs::new(SOCKETS)?;
    pairs.0.iter().take(busy).try_for_each(|(_, far)| write(far.as_raw_fd(), b"x"))?;
    let warm_up = count / 10;
    thread::scope(|scope| {
        let receiver = scope.spawn(|| {
            pin(there)?;
            let (mut received, mut bytes) = (0, 0_usize);
            let (mut start, mut sender) = (Instant::now(), None);
            let mut start_sender = |send: Box<dyn Fn() + Send>| {
                sender = Some(scope.spawn(move || {
                    pin(here)?;
                    (0..warm_up + count).for_each(|_| send());
                    Ok::<_, io::Error>(())
                }));
            };
            receive(&pairs, &mut start_sender, &mut |what| {
                match what {
                    Received::Byte => bytes += 1,
                    Received::Message => received += 1,
                }
                if matches!(what, Received::Message) && received == warm_up {
                    (start, bytes) = (Instant::now(), 0);
                }
                received < warm_up + count
            })?;
            let time = start.elapsed().as_secs_f64();
            sender.expect("it was handed out").join().expect("it does not panic")?;
            Ok(vec![
                ("messages/s", count as f64 / time),
                ("bytes of the sockets/s", bytes as f64 / time),
            ])
        });
        receiver.join().expect("it does not panic")
    })
}

/// Sends `count` messages at once, and receives them, in one thread.
pub(crate) fn while_awake(receive: Receive, count: usize) -> io::Result<()> {
    let mut received = 0;
    receive(&Pairs::new(SOCKETS)?, &mut |send| (0..count).for_each(|_| send()), &mut |_| {
        received += 1;
        received < count
    })
}

/// Sends `count` messages, each after the loop had time to fall asleep.
pub(crate) fn while_asleep(receive: Receive, count: usize) -> io::Result<()> {
    const FALLS_ASLEEP: Duration = Duration::from_millis(2);

    let received = Arc::new(AtomicUsize::new(0));
    let mut start_sender = |send: Box<dyn Fn() + Send>| {
        let received = Arc::clone(&received);
        thread::spawn(move || {
            for sent in 0..count {
                // Without a system call, since these are counted.
                while received.load(Relaxed) < sent {}
                let start = Instant::now();
                while start.elapsed() < FALLS_ASLEEP {}
                send();
            }
        });
    };
    receive(&Pairs::new(SOCKETS)?, &mut start_sender, &mut |_| {
        received.fetch_add(1, Relaxed) + 1 < count
    })
}
