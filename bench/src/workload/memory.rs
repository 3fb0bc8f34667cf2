//! The memory that a poller keeps on the heap.
#![allow(unsafe_code, reason = "the C library is asked what it has given out")]

use std::io;
use std::os::fd::AsRawFd;

use indicatif::ProgressBar;
use socket2::Socket;

use super::Plan;
use crate::method::{Case, Row, Turn, compare};
use crate::peer::{Asked, Peer, of_each_peer};
use crate::sockets::idle;

pub(crate) const COUNTS: &str = "What the C library's malloc has given out, which Rust allocates \
    from as well. Counted: the bytes of a poller with nothing registered, and for each of 1,000 \
    registrations. What the kernel keeps is the same for all.";

const REGISTERED: usize = 1_000;

pub(crate) fn run(_plan: Plan, progress: &ProgressBar) -> io::Result<Vec<Row>> {
    let sockets = idle(REGISTERED)?;
    let case = Case { workload: "memory", name: "heap".to_owned(), rounds: 1 };
    Ok(compare(case, of_each_peer!(turn(&sockets)), progress))
}

#[expect(clippy::cast_precision_loss, reason = "a heap is not that large")]
fn turn<P: Peer>(sockets: &[Socket]) -> Turn<'_> {
    let run = move || {
        let before = allocated();
        let mut poller = P::new()?;
        let idle = allocated();
        let asked = Asked::naturally::<P>();
        sockets.iter().try_for_each(|socket| poller.add(socket.as_raw_fd(), asked))?;
        let registered = allocated();
        Ok(vec![
            ("a poller [bytes]", (idle - before) as f64),
            ("a registration [bytes]", (registered - idle) as f64 / REGISTERED as f64),
        ])
    };
    Turn { peer: P::NAME, run: Ok(Box::new(run)) }
}

fn allocated() -> usize {
    // SAFETY: the call takes nothing.
    let info = unsafe { libc::mallinfo2() };
    info.uordblks + info.hblkhd
}
