//! An async runtime on one thread: tasks, and what they wait for.
//!
//! It asks three things of its poller: an edge, when an operation that would have blocked is worth
//! another try; a timeout, until the next sleep is over; and a way in from other threads.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, HashMap};
use std::future::poll_fn;
use std::os::fd::{AsRawFd, RawFd};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Wake, Waker};
use std::thread::{self, ThreadId};
use std::time::{Duration, Instant};
use std::{io, mem, pin::Pin, rc::Rc};

use pollio::{EventObject, OsPoller, Poller};

type Task = Pin<Box<dyn Future<Output = ()>>>;

pub(crate) struct Runtime {
    pub(crate) poller: RefCell<OsPoller>,
    woken: Arc<Woken>,
    tasks: RefCell<HashMap<u32, Task>>,
    /// Who wants to read from a descriptor, and who to write to it.
    pub(crate) blocked: RefCell<HashMap<RawFd, [Option<Waker>; 2]>>,
    sleeping: RefCell<BTreeMap<(Instant, u32), Waker>>,
    /// For tasks and sleeps.
    next_number: Cell<u32>,
}

/// The tasks that shall be polled: where other threads reach the runtime.
struct Woken {
    numbers: Mutex<Vec<u32>>,
    home: ThreadId,
    way_in: pollio::Waker,
}

struct TaskWaker(u32, Arc<Woken>);

impl Wake for TaskWaker {
    fn wake(self: Arc<Self>) {
        self.1.numbers.lock().unwrap().push(self.0);
        // At home, the poller is not waiting, and will not without a look at the numbers.
        if thread::current().id() != self.1.home {
            let _ = self.1.way_in.wake();
        }
    }
}

impl Runtime {
    pub(crate) fn new() -> io::Result<Rc<Self>> {
        let (poller, way_in) = (OsPoller::new()?, pollio::Waker::new()?);
        poller.add(EventObject::client(way_in.as_raw_fd()))?;
        let (numbers, home) = (Mutex::default(), thread::current().id());
        Ok(Rc::new(Self {
            poller: RefCell::new(poller),
            woken: Arc::new(Woken { numbers, home, way_in }),
            tasks: RefCell::default(),
            blocked: RefCell::default(),
            sleeping: RefCell::default(),
            next_number: Cell::new(0),
        }))
    }

    fn next_number(&self) -> u32 {
        self.next_number.replace(self.next_number.get().wrapping_add(1))
    }

    /// Begins a task of its own.
    pub(crate) fn spawn(&self, future: impl Future<Output = ()> + 'static) {
        let number = self.next_number();
        self.tasks.borrow_mut().insert(number, Box::pin(future));
        self.woken.numbers.lock().unwrap().push(number);
    }

    /// Runs all tasks until `future` has come to its end. The others end with it.
    pub(crate) fn block_on(&self, future: impl Future<Output = ()> + 'static) -> io::Result<()> {
        let number = self.next_number.get();
        self.spawn(future);
        while self.tasks.borrow().contains_key(&number) {
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
        }
        // They hold the runtime, which holds them.
        drop(self.tasks.take());
        Ok(())
    }

    /// Wakes the tasks that can go on, if need be after a while.
    fn wait(&self) -> io::Result<()> {
        let next = self.sleeping.borrow().keys().next().copied();
        let timeout = next.map(|(end, _)| end.saturating_duration_since(Instant::now()));
        let is_idle = self.woken.numbers.lock().unwrap().is_empty();
        let timeout = if is_idle { timeout } else { Some(Duration::ZERO) };
        let mut blocked = self.blocked.borrow_mut();
        for event in self.poller.borrow_mut().wait_timeout(timeout)? {
            if event.fd == self.woken.way_in.as_raw_fd() {
                self.woken.way_in.clear()?;
            }
            // Woken in vain, by a stale event, a task tries and is blocked again.
            if let Some([reader, writer]) = blocked.get_mut(&event.fd) {
                let reader = reader.take_if(|_| event.is_readable());
                let writer = writer.take_if(|_| event.is_writable());
                reader.into_iter().chain(writer).for_each(Waker::wake);
            }
        }
        let mut sleeping = self.sleeping.borrow_mut();
        let still_sleeping = sleeping.split_off(&(Instant::now(), u32::MAX));
        mem::replace(&mut *sleeping, still_sleeping).into_values().for_each(Waker::wake);
        Ok(())
    }

    /// Even a sleep of no time leaves the other tasks their turn.
    pub(crate) fn sleep(self: &Rc<Self>, duration: Duration) -> impl Future<Output = ()> + use<> {
        let (runtime, end) = (Rc::clone(self), (Instant::now() + duration, self.next_number()));
        let mut has_waited = false;
        poll_fn(move |context| {
            if mem::replace(&mut has_waited, true) && Instant::now() >= end.0 {
                return Poll::Ready(());
            }
            runtime.sleeping.borrow_mut().insert(end, context.waker().clone());
            Poll::Pending
        })
    }
}
