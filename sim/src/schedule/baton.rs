//! The right to run, which is handed from thread to thread.

use std::cell::Cell;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, Thread};
use std::time::{Duration, Instant};

/// The right to run, of which a world has one. A thread that passes it on stops.
pub(crate) struct Baton {
    thread: Thread,
    is_here: AtomicBool,
}

impl Baton {
    /// For the thread that calls this, which has not got the right to run.
    pub(crate) fn of_this_thread() -> Arc<Self> {
        Arc::new(Self { thread: thread::current(), is_here: AtomicBool::new(false) })
    }

    pub(crate) const fn thread(&self) -> &Thread {
        &self.thread
    }

    /// Lets the thread of this baton run.
    pub(crate) fn pass(&self) {
        self.is_here.store(true, Ordering::Release);
        self.thread.unpark();
    }

    /// Blocks until this thread may run.
    ///
    /// It first yields the core to the thread that was given the baton: that takes two thirds of what it takes
    /// to park one and to wake up the other. But where other programs want the core, they get it for
    /// thousands of times as long.
    pub(crate) fn take(&self) {
        for _ in 0..YIELDS {
            if self.is_here() {
                return;
            }
            if !yields_shortly() {
                break;
            }
        }
        while !self.is_here() {
            thread::park();
        }
    }

    /// Whether it was passed to this thread, which has it then.
    fn is_here(&self) -> bool {
        self.is_here.swap(false, Ordering::Acquire)
    }
}

/// A thread yields at most this often before it parks.
const YIELDS: u32 = 4;

/// Other programs want the core if a thread that yields gets it back only after so long.
const LONGEST_YIELD: Duration = Duration::from_micros(100);

/// For this many times what such a yield took, the thread parks at once.
const PARKS_FOR: u32 = 16;

/// A thread parks at first: a world that runs alone is over by then.
const FIRST: Duration = Duration::from_millis(10);

thread_local! {
    /// Until when this thread does not yield.
    static PARKS_UNTIL: Cell<Instant> = Cell::new(Instant::now() + FIRST);
}

/// Yields the core, unless others kept it for long lately. Returns whether it did and had it back soon.
fn yields_shortly() -> bool {
    let begin = Instant::now();
    if begin < PARKS_UNTIL.get() {
        return false;
    }
    thread::yield_now();
    let took = begin.elapsed();
    if took > LONGEST_YIELD {
        PARKS_UNTIL.set(begin + took * (1 + PARKS_FOR));
    }
    took <= LONGEST_YIELD
}
