//! Threads of the operating system that run simulated ones, one after another: to create one takes
//! longer than most worlds last.

use std::cell::Cell;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, Thread};
use std::time::{Duration, Instant};

/// The right to run, of which a world has one. A thread that passes it on stops.
pub(super) struct Baton {
    thread: Thread,
    is_here: AtomicBool,
}

impl Baton {
    /// For the thread that calls this, which has not got the right to run.
    pub(super) fn of_this_thread() -> Arc<Self> {
        Arc::new(Self { thread: thread::current(), is_here: AtomicBool::new(false) })
    }

    /// Lets the thread of this baton run.
    pub(super) fn pass(&self) {
        self.is_here.store(true, Ordering::Release);
        self.thread.unpark();
    }

    /// Blocks until this thread may run.
    ///
    /// It first yields the core to the thread that was given the baton: that takes two thirds of what it takes
    /// to park one and to wake up the other. But where other programs want the core, they get it for
    /// thousands of times as long.
    pub(super) fn take(&self) {
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

/// As often does a thread yield before it parks.
const YIELDS: u32 = 4;

/// Other programs want the core if a thread that yields gets it back only after so long.
const LONGEST_YIELD: Duration = Duration::from_micros(100);

/// For as many times what such a yield took, the thread parks at once.
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

pub(super) type Job = Box<dyn FnOnce() + Send>;

/// A thread of the pool: it runs a job whenever it is given the baton.
pub(super) struct Worker {
    pub(super) baton: Arc<Baton>,
    /// None at the end of the pool.
    job: Mutex<Option<Job>>,
}

/// The workers that have nothing to do.
#[derive(Clone, Default)]
pub(super) struct Pool(Arc<Idle>);

#[derive(Default)]
struct Idle(Mutex<Vec<Arc<Worker>>>);

impl Pool {
    /// A worker that runs `job` once it is given its baton, and returns here afterwards.
    pub(super) fn employ(&self, job: Job) -> Arc<Worker> {
        let idle = self.idle().pop();
        let worker = idle.unwrap_or_else(Self::create);
        *worker.job() = Some(job);
        worker
    }

    /// Takes a worker back whose job has ended, or is about to without anything else to do.
    pub(super) fn release(&self, worker: Arc<Worker>) {
        self.idle().push(worker);
    }

    fn create() -> Arc<Worker> {
        let (sender, receiver) = std::sync::mpsc::sync_channel(1);
        thread::spawn(move || {
            let baton = Baton::of_this_thread();
            let worker = Arc::new(Worker { baton, job: Mutex::default() });
            if sender.send(worker.clone()).is_err() {
                return;
            }
            loop {
                worker.baton.take();
                let Some(job) = worker.job().take() else { return };
                job();
            }
        });
        receiver.recv().expect("the worker sends itself first")
    }

    fn idle(&self) -> std::sync::MutexGuard<'_, Vec<Arc<Worker>>> {
        self.0.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Worker {
    fn job(&self) -> std::sync::MutexGuard<'_, Option<Job>> {
        self.job.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Idle {
    fn drop(&mut self) {
        for worker in self.0.lock().unwrap_or_else(PoisonError::into_inner).drain(..) {
            // Without a job it ends.
            worker.baton.pass();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// It holds itself for as long as it runs.
    #[test]
    fn a_worker_ends_with_its_pool() {
        let pool = Pool::default();
        let (runs, has_run) = std::sync::mpsc::channel();
        let worker = pool.employ(Box::new(move || runs.send(()).unwrap()));
        worker.baton.pass();
        has_run.recv().unwrap();
        let alive = Arc::downgrade(&worker);
        pool.release(worker);
        drop(pool);
        while alive.strong_count() > 0 {
            thread::yield_now();
        }
    }
}
