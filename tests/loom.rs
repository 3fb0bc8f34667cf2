//! `Waker` in every order that its threads can run in: its own file, with the `sys` of this one
//! below it, checked by loom. A program of its own, because that is the root of a crate.
#![cfg(target_os = "linux")]

#[path = "../src/source/waker.rs"]
#[allow(
    unreachable_pub,
    dead_code,
    reason = "public in its crate, and only half of it is asked for"
)]
mod waker;

use loom::sync::Arc;
use loom::sync::atomic::{AtomicUsize, Ordering};
use loom::thread;
use waker::Waker;

/// Each thread announces its work, then wakes; the poller clears when the waker is readable, then
/// takes what work there is. Work that is left when all have come to rest, with a waker that is not
/// readable, would be a lost wake.
#[test]
fn no_wake_is_lost() {
    loom::model(|| {
        let waker = Arc::new(Waker::new().unwrap());
        let is_readable = sys::last_made();
        let work = Arc::new(AtomicUsize::new(0));
        let threads: Vec<_> = (0..2)
            .map(|_| {
                let (waker, work) = (Arc::clone(&waker), Arc::clone(&work));
                thread::spawn(move || {
                    work.fetch_add(1, Ordering::Relaxed);
                    waker.wake().unwrap();
                })
            })
            .collect();

        let mut done = 0;
        let mut look = || {
            if is_readable.load(Ordering::Relaxed) {
                waker.clear().unwrap();
                done += work.swap(0, Ordering::Relaxed);
            }
        };
        look();
        for thread in threads {
            look();
            thread.join().unwrap();
        }
        // One clear may be for nothing: its wake was taken by an earlier one.
        look();
        look();
        assert_eq!(done, 2, "work was announced, and the waker is not readable");

        waker.wake().unwrap();
        assert!(is_readable.load(Ordering::Relaxed), "a later wake is told as well");
    });
}

/// The same for an edge-triggered poller, which is told of each write, and takes the telling with it,
/// while the descriptor stays readable.
#[test]
fn no_wake_is_lost_by_rearming() {
    loom::model(|| {
        let waker = Arc::new(Waker::new().unwrap());
        let has_arrival = sys::last_made();
        let work = Arc::new(AtomicUsize::new(0));
        let threads: Vec<_> = (0..2)
            .map(|_| {
                let (waker, work) = (Arc::clone(&waker), Arc::clone(&work));
                thread::spawn(move || {
                    work.fetch_add(1, Ordering::Relaxed);
                    waker.wake().unwrap();
                })
            })
            .collect();

        let mut done = 0;
        let mut look = || {
            if has_arrival.swap(false, Ordering::Relaxed) {
                waker.rearm();
                done += work.swap(0, Ordering::Relaxed);
            }
        };
        look();
        for thread in threads {
            look();
            thread.join().unwrap();
        }
        look();
        assert_eq!(done, 2, "work was announced, and the waker has no arrival");
    });
}

/// What was written before a wake is there after the clear that took it, though the waker's
/// descriptor orders nothing between the threads.
#[test]
fn what_was_written_before_a_wake_is_there_after_the_clear() {
    loom::model(|| {
        let waker = Arc::new(Waker::new().unwrap());
        let is_readable = sys::last_made();
        let written = Arc::new(AtomicUsize::new(0));
        let thread = {
            let (waker, written) = (Arc::clone(&waker), Arc::clone(&written));
            thread::spawn(move || {
                written.store(1, Ordering::Relaxed);
                waker.wake().unwrap();
            })
        };
        if is_readable.load(Ordering::Relaxed) {
            waker.clear().unwrap();
            assert_eq!(written.load(Ordering::Relaxed), 1);
        }
        thread.join().unwrap();
    });
}

/// What a waker finds below it.
mod sys {
    use std::cell::RefCell;
    use std::io;
    use std::os::fd::{AsFd, BorrowedFd};

    use loom::sync::Arc;
    pub(crate) use loom::sync::atomic::AtomicBool;
    use loom::sync::atomic::Ordering::Relaxed;

    thread_local! {
        /// Loom runs all its threads in this one.
        static LAST_MADE: RefCell<Option<Arc<AtomicBool>>> = const { RefCell::new(None) };
    }

    /// Whether the waker that was made last is readable, as a poller would find.
    pub(crate) fn last_made() -> Arc<AtomicBool> {
        LAST_MADE.take().expect("a waker was made")
    }

    /// A descriptor that orders nothing between threads, so that all the order there is comes from
    /// the waker.
    #[derive(Debug)]
    pub(crate) struct WakerFd {
        is_readable: Arc<AtomicBool>,
    }

    impl WakerFd {
        pub(crate) fn new() -> io::Result<Self> {
            let is_readable = Arc::new(AtomicBool::new(false));
            LAST_MADE.set(Some(Arc::clone(&is_readable)));
            Ok(Self { is_readable })
        }

        pub(crate) fn wake(&self) -> io::Result<()> {
            // A store could come to stand before the swap that did not see it: the kernel has a lock.
            self.is_readable.swap(true, Relaxed);
            Ok(())
        }

        pub(crate) fn clear(&self) -> io::Result<()> {
            self.is_readable.swap(false, Relaxed);
            Ok(())
        }
    }

    impl AsFd for WakerFd {
        fn as_fd(&self) -> BorrowedFd<'_> {
            unreachable!("no kernel looks at it")
        }
    }
}
