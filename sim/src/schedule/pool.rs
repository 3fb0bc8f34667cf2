//! Threads of the operating system that run simulated ones, one after another: to create one takes
//! longer than most worlds last.

use std::sync::{Arc, Mutex, PoisonError};
use std::thread;

use super::baton::Baton;

pub(crate) type Job<'a> = Box<dyn FnOnce() + Send + 'a>;

/// A thread of the pool: it runs a job whenever it is given the baton.
pub(crate) struct Worker {
    baton: Arc<Baton>,
    /// None at the end of the pool.
    job: Mutex<Option<Job<'static>>>,
}

/// The workers that have nothing to do.
#[derive(Clone, Default)]
pub(crate) struct Pool(Arc<Idle>);

#[derive(Default)]
struct Idle(Mutex<Vec<Arc<Worker>>>);

impl Pool {
    /// A worker that runs `job` once it is given its baton, and returns here afterwards.
    pub(crate) fn assign(&self, job: Job<'static>) -> Arc<Worker> {
        let idle = self.idle().pop();
        let worker = idle.unwrap_or_else(Self::create);
        *worker.job() = Some(job);
        worker
    }

    /// Takes a worker back whose job has ended, or is about to without anything else to do.
    pub(crate) fn release(&self, worker: Arc<Worker>) {
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
    pub(crate) fn baton(&self) -> Arc<Baton> {
        self.baton.clone()
    }

    fn job(&self) -> std::sync::MutexGuard<'_, Option<Job<'static>>> {
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
        let worker = pool.assign(Box::new(move || runs.send(()).unwrap()));
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
