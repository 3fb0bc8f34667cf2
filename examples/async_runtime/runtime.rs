//! An async runtime on one thread: its tasks, and the events that they wait for.
//!
//! It needs three things of its poller: an edge when an operation that would have blocked is worth another try; a
//! timeout until the next sleep is over; and a wake-up from other threads.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, HashMap};
use std::os::fd::RawFd;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Wake, Waker};
use std::time::{Duration, Instant};
use std::{io, mem, pin::Pin, rc::Rc};

use pollio::{OsPoller, Poller};

type Task = Pin<Box<dyn Future<Output = ()>>>;

pub(crate) struct Runtime {
    pub(crate) poller: RefCell<OsPoller>,
    woken: Arc<Woken>,
    tasks: RefCell<HashMap<u64, Task>>,
    /// The task that wants to read from a descriptor, and the one that wants to write.
    pub(crate) blocked: RefCell<HashMap<RawFd, [Option<Waker>; 2]>>,
    sleeping: RefCell<BTreeMap<(Instant, u64), Waker>>,
    /// The next number of a task or a sleep. No number is used twice: at one a nanosecond, 64 bits last for 500 years.
    next_number: Cell<u64>,
}

/// The tasks to poll, which other threads can add to.
struct Woken {
    numbers: Mutex<Vec<u64>>,
    way_in: pollio::Waker,
}

struct TaskWaker(u64, Arc<Woken>);

impl Wake for TaskWaker {
    fn wake(self: Arc<Self>) {
        self.1.numbers.lock().unwrap().push(self.0);
        // No system call unless the poller sleeps, which it does not while a task runs.
        let _ = self.1.way_in.wake();
    }
}

impl Runtime {
    pub(crate) fn new() -> io::Result<Rc<Self>> {
        let poller = OsPoller::new()?;
        let way_in = pollio::Waker::new(poller.registry(), 0)?;
        Ok(Rc::new(Self {
            poller: RefCell::new(poller),
            woken: Arc::new(Woken { numbers: Mutex::default(), way_in }),
            tasks: RefCell::default(),
            blocked: RefCell::default(),
            sleeping: RefCell::default(),
            next_number: Cell::new(0),
        }))
    }

    fn next_number(&self) -> u64 {
        self.next_number.replace(self.next_number.get() + 1)
    }

    /// Starts a task.
    pub(crate) fn spawn(&self, future: impl Future<Output = ()> + 'static) {
        let number = self.next_number();
        self.tasks.borrow_mut().insert(number, Box::pin(future));
        self.woken.numbers.lock().unwrap().push(number);
    }

    /// Runs all tasks until `future` is ready. The other tasks end with it.
    pub(crate) fn block_on<T: 'static>(
        &self,
        future: impl Future<Output = T> + 'static,
    ) -> io::Result<T> {
        let result = Rc::new(Cell::new(None));
        let to_set = Rc::clone(&result);
        self.spawn(async move { to_set.set(Some(future.await)) });
        loop {
            self.wait()?;
            let numbers = mem::take(&mut *self.woken.numbers.lock().unwrap());
            for number in numbers {
                // A task is not among the others while it runs, for it may spawn some.
                let Some(mut task) = self.tasks.borrow_mut().remove(&number) else { continue };
                let waker = Waker::from(Arc::new(TaskWaker(number, Arc::clone(&self.woken))));
                if task.as_mut().poll(&mut Context::from_waker(&waker)).is_pending() {
                    self.tasks.borrow_mut().insert(number, task);
                }
            }
            if let Some(result) = result.take() {
                // Breaks the cycle: they hold the runtime, which holds them.
                drop(self.tasks.take());
                return Ok(result);
            }
        }
    }

    /// Wakes the tasks that can go on, if need be after a while.
    fn wait(&self) -> io::Result<()> {
        let next = self.sleeping.borrow().keys().next().copied();
        let timeout = next.map(|(end, _)| end.saturating_duration_since(Instant::now()));
        let is_idle = self.woken.numbers.lock().unwrap().is_empty();
        let timeout = if is_idle { timeout } else { Some(Duration::ZERO) };
        let mut blocked = self.blocked.borrow_mut();
        for event in self.poller.borrow_mut().wait_timeout(timeout)? {
            // A stale event wakes a task without need: it tries, and is blocked again.
            if let Some([reader, writer]) = blocked.get_mut(&event.fd) {
                let reader = reader.take_if(|_| event.is_readable());
                let writer = writer.take_if(|_| event.is_writable());
                reader.into_iter().chain(writer).for_each(Waker::wake);
            }
        }
        let mut sleeping = self.sleeping.borrow_mut();
        let still_sleeping = sleeping.split_off(&(Instant::now(), u64::MAX));
        mem::replace(&mut *sleeping, still_sleeping).into_values().for_each(Waker::wake);
        Ok(())
    }

    /// Even a sleep of zero lets the other tasks take their turn.
    pub(crate) fn sleep(self: &Rc<Self>, duration: Duration) -> Sleep {
        let (runtime, end) = (Rc::clone(self), (Instant::now() + duration, self.next_number()));
        Sleep { runtime, end, has_waited: false }
    }
}

pub(crate) struct Sleep {
    runtime: Rc<Runtime>,
    end: (Instant, u64),
    has_waited: bool,
}

impl Future for Sleep {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        if mem::replace(&mut self.has_waited, true) && Instant::now() >= self.end.0 {
            return Poll::Ready(());
        }
        self.runtime.sleeping.borrow_mut().insert(self.end, context.waker().clone());
        Poll::Pending
    }
}

impl Drop for Sleep {
    /// A sleep that is dropped would otherwise stay until its end.
    fn drop(&mut self) {
        self.runtime.sleeping.borrow_mut().remove(&self.end);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As timeouts drop theirs.
    #[test]
    fn a_sleep_that_is_dropped_early_leaves_nothing_behind() {
        let runtime = Runtime::new().unwrap();
        for _ in 0..3 {
            let mut hour = Box::pin(runtime.sleep(Duration::from_secs(3_600)));
            let _ = hour.as_mut().poll(&mut Context::from_waker(Waker::noop()));
            assert_eq!(runtime.sleeping.borrow().len(), 1);
        }
        assert_eq!(runtime.sleeping.borrow().len(), 0);
    }

    /// A server that runs for long has more tasks than 32 bits can number.
    #[test]
    fn a_task_is_itself_after_four_billion_others() {
        let runtime = Runtime::new().unwrap();
        let is_done = Rc::new(Cell::new(false));
        let to_set = Rc::clone(&is_done);
        let sleep = runtime.sleep(Duration::from_millis(20));
        let number = runtime.next_number.get();
        runtime.spawn(async move {
            sleep.await;
            to_set.set(true);
        });
        // As if all other numbers of 32 bits had been used since.
        runtime.next_number.set(number + (1 << 32));
        runtime.spawn(async {});
        runtime.block_on(runtime.sleep(Duration::from_millis(50))).unwrap();
        assert!(is_done.get(), "another task took its place");
    }
}
