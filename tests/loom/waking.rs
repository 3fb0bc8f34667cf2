//! `Wakers`: the marks and the sleepers, over a kernel that wakes one thread for each kick.

use std::sync::Arc;
use std::time::Duration;

use loom::model::Builder;
use loom::sync::atomic::AtomicU32;
use loom::sync::atomic::Ordering::Relaxed;
use loom::sync::{Condvar, Mutex};
use loom::thread;
use pollio::{Backend, EventObject};

use crate::registry::Registry;
use crate::waker::Waker;
use crate::wakers::Wakeups;

/// A kernel whose kick is an edge: it stays until one wait takes it.
pub(crate) struct Kernel {
    is_kicked: Mutex<bool>,
    kicked: Condvar,
}

impl Kernel {
    /// Blocks until a kick, or polls, if there is a timeout. Returns whether there was one.
    fn wait(&self, timeout: Option<Duration>) -> bool {
        let mut is_kicked = self.is_kicked.lock().unwrap();
        while !*is_kicked && timeout.is_none() {
            is_kicked = self.kicked.wait(is_kicked).unwrap();
        }
        std::mem::take(&mut *is_kicked)
    }
}

impl Backend for Kernel {
    fn add(&self, _: EventObject) -> std::io::Result<()> {
        unreachable!("nothing is registered")
    }

    fn modify(&self, _: EventObject) -> std::io::Result<()> {
        unreachable!("nothing is registered")
    }

    fn delete(&self, _: i32) -> std::io::Result<()> {
        unreachable!("nothing is registered")
    }

    fn wake(&self) -> std::io::Result<()> {
        *self.is_kicked.lock().unwrap() = true;
        self.kicked.notify_one();
        Ok(())
    }
}

/// A handle of a poller, as `OsPoller` waits on it.
pub(crate) struct Handle {
    kernel: Arc<Kernel>,
    pub(crate) registry: Registry,
    wakeups: Wakeups,
    room: usize,
}

impl Handle {
    pub(crate) fn new() -> Self {
        let kernel = Arc::new(Kernel { is_kicked: Mutex::new(false), kicked: Condvar::new() });
        let registry = Registry::new(kernel.clone());
        let wakeups = registry.wakeups();
        Self { kernel, registry, wakeups, room: usize::MAX }
    }

    /// Another handle, as of `try_clone`.
    fn share(&self) -> Self {
        self.wakeups.share();
        let (kernel, registry) = (self.kernel.clone(), self.registry.clone());
        let wakeups = registry.wakeups();
        Self { kernel, registry, wakeups, room: usize::MAX }
    }

    fn waker(&self, token: u32) -> Waker {
        Waker::new(&self.registry, token).unwrap()
    }

    /// Calls the kernel once, and takes the wakes.
    pub(crate) fn attempt(&mut self, timeout: Option<Duration>) -> Vec<u32> {
        let Self { kernel, wakeups, .. } = self;
        if wakeups.is_used() {
            wakeups.block(timeout, |timeout| kernel.wait(timeout));
        } else {
            kernel.wait(timeout);
        }
        let mut tokens = Vec::new();
        self.wakeups.take(self.room, |token| tokens.push(token));
        tokens
    }

    /// Waits without a timeout. If a wake is lost, no thread can go on, and loom says so.
    fn wait(&mut self) -> Vec<u32> {
        loop {
            let tokens = self.attempt(None);
            if !tokens.is_empty() {
                return tokens;
            }
        }
    }

    pub(crate) fn poll(&mut self) -> Vec<u32> {
        self.attempt(Some(Duration::ZERO))
    }
}

/// Runs `body` in every order with at most `preemptions` preemptions: without a bound, three threads take hours.
pub(crate) fn model(preemptions: usize, body: impl Fn() + Send + Sync + 'static) {
    let mut builder = Builder::new();
    builder.preemption_bound = Some(preemptions);
    builder.check(body);
}

/// C15: two threads wake one that sleeps. Each one's earlier writes are visible with its wake.
#[test]
fn no_wake_is_lost_and_earlier_writes_are_visible() {
    model(3, || {
        let mut handle = Handle::new();
        let work = [(); 2].map(|()| Arc::new(AtomicU32::new(0)));
        let threads = [0, 1].map(|token: u32| {
            let (waker, work) = (handle.waker(token), work[token as usize].clone());
            thread::spawn(move || {
                work.store(1, Relaxed);
                waker.wake().unwrap();
            })
        });
        let mut seen = Vec::new();
        while seen.len() < 2 {
            for token in handle.wait() {
                assert_eq!(work[token as usize].load(Relaxed), 1);
                seen.push(token);
            }
        }
        threads.into_iter().for_each(|thread| thread.join().unwrap());
        seen.sort_unstable();
        assert_eq!(seen, [0, 1]);
        assert_eq!(handle.poll(), []);
    });
}

/// C15: two clones of a waker. The second of two wakes may join the first, and still makes earlier writes visible.
#[test]
fn a_wake_that_joins_another_is_not_lost() {
    model(3, || {
        let mut handle = Handle::new();
        let waker = handle.waker(7);
        let work = Arc::new(AtomicU32::new(0));
        let threads = [(); 2].map(|()| {
            let (waker, work) = (waker.clone(), work.clone());
            thread::spawn(move || {
                work.fetch_add(1, Relaxed);
                waker.wake().unwrap();
            })
        });
        let mut done = 0;
        while done < 2 {
            assert_eq!(handle.wait(), [7]);
            done += work.swap(0, Relaxed);
        }
        threads.into_iter().for_each(|thread| thread.join().unwrap());
    });
}

/// C15, C18: two handles sleep, and two threads wake. Each wake goes to exactly one handle. The handle that takes the
/// last one also ends the other's wait.
#[test]
fn each_wake_goes_to_one_of_two_sleepers() {
    model(2, || {
        let handle = Handle::new();
        let left = Arc::new(AtomicU32::new(2));
        let wakers = [0, 1].map(|token| handle.waker(token));
        let last = handle.waker(9);
        let other = {
            let (handle, left, last) = (handle.share(), left.clone(), last.clone());
            thread::spawn(move || take_all(handle, &left, &last))
        };
        let waking = thread::spawn(move || wakers.map(|waker| waker.wake().unwrap()));
        let here = take_all(handle, &left, &last);
        waking.join().unwrap();
        let mut all = [here, other.join().unwrap()].concat();
        all.retain(|token| *token != 9);
        all.sort_unstable();
        assert_eq!(all, [0, 1]);
    });
}

fn take_all(mut handle: Handle, left: &AtomicU32, last: &Waker) -> Vec<u32> {
    let mut seen = Vec::new();
    while left.load(Relaxed) > 0 {
        let tokens = handle.wait();
        let count = tokens.iter().filter(|token| **token != 9).count();
        left.fetch_sub(u32::try_from(count).unwrap(), Relaxed);
        seen.extend(tokens);
    }
    last.wake().unwrap();
    seen
}

/// C15, C18: one handle polls, with room for one of two wakes, and is then busy. The handle that sleeps gets the other
/// wake.
#[test]
fn a_sleeper_is_woken_though_another_handle_polls() {
    model(2, || {
        let mut handle = Handle::new();
        let mut polling = handle.share();
        // It has room for one, and leaves the other to the sleeper.
        polling.room = 1;
        let wakers = [0, 1].map(|token| handle.waker(token));
        let polling = thread::spawn(move || polling.poll());
        let waking = thread::spawn(move || wakers.map(|waker| waker.wake().unwrap()));
        let mut seen = handle.wait();
        waking.join().unwrap();
        seen.extend(polling.join().unwrap());
        seen.extend(handle.poll());
        seen.sort_unstable();
        assert_eq!(seen, [0, 1]);
    });
}

/// C15: a waker is woken and dropped while another thread takes its wake, and another waker gets its slot at once.
#[test]
fn the_wake_of_a_dropped_waker_has_its_own_token() {
    model(3, || {
        let mut handle = Handle::new();
        let first = handle.waker(1);
        assert_eq!(handle.poll(), []);
        let registry = handle.registry.clone();
        let thread = thread::spawn(move || {
            first.wake().unwrap();
            drop(first);
            let second = Waker::new(&registry, 2).unwrap();
            second.wake().unwrap();
        });
        let mut seen = handle.poll();
        thread.join().unwrap();
        seen.extend(handle.poll());
        assert_eq!(seen, [1, 2]);
    });
}

/// C15, C12: a wait that began before there was a waker does not count itself as a sleeper.
#[test]
fn a_wait_that_began_before_the_first_waker_is_woken() {
    model(3, || {
        let mut handle = Handle::new();
        let registry = handle.registry.clone();
        let thread = thread::spawn(move || Waker::new(&registry, 1).unwrap().wake().unwrap());
        assert_eq!(handle.wait(), [1]);
        thread.join().unwrap();
    });
}

/// C15: after the descriptor was handed out, and all threads have ended, a wake has left a pending kick.
#[test]
fn an_outer_poller_sees_a_wake() {
    model(3, || {
        let mut handle = Handle::new();
        let waker = handle.waker(1);
        assert_eq!(handle.poll(), []);
        let thread = thread::spawn(move || waker.wake().unwrap());
        handle.wakeups.watch();
        let seen = handle.poll();
        thread.join().unwrap();
        let is_ready = *handle.kernel.is_kicked.lock().unwrap();
        assert!(is_ready || seen == [1]);
        if seen.is_empty() {
            assert_eq!(handle.poll(), [1]);
        }
    });
}
