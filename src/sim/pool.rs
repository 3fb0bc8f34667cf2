//! Threads of the operating system that run simulated ones, one after another: to create one takes
//! longer than most worlds last.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, Thread};

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
    pub(super) fn take(&self) {
        while !self.is_here.swap(false, Ordering::Acquire) {
            thread::park();
        }
    }
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
