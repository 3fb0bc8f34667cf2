//! `Waker`.

use loom::sync::Arc;
use loom::sync::atomic::{AtomicUsize, Ordering};
use loom::thread;

use crate::sys;
use crate::waker::Waker;

/// Each thread announces its work, then wakes; the poller clears when the waker is readable, then
/// takes what work there is. Work that is left when all have come to rest, with a waker that is not
/// readable, would be a lost wake.
#[test]
fn no_wake_is_lost() {
    loom::model(|| {
        let waker = Arc::new(Waker::new().unwrap());
        let is_readable = sys::last_made();
        let work = Arc::new(AtomicUsize::new(0));
        let threads = announce(&waker, &work);

        let mut done = 0;
        let mut look = || {
            if is_readable.load(Ordering::Relaxed) {
                waker.clear().unwrap();
                done += work.swap(0, Ordering::Relaxed);
            }
        };
        look_and_join(threads, &mut look);
        // One clear may be for nothing: its wake was taken by an earlier one.
        look();
        look();
        assert_eq!(done, 2, "work was announced, and the waker is not readable");

        waker.wake().unwrap();
        assert!(is_readable.load(Ordering::Relaxed), "a later wake is reported as well");
    });
}

/// Two threads, each of which announces a piece of work, then wakes.
fn announce(waker: &Arc<Waker>, work: &Arc<AtomicUsize>) -> [thread::JoinHandle<()>; 2] {
    [(); 2].map(|()| {
        let (waker, work) = (Arc::clone(waker), Arc::clone(work));
        thread::spawn(move || {
            work.fetch_add(1, Ordering::Relaxed);
            waker.wake().unwrap();
        })
    })
}

/// Looks before, between and during the ends of the threads.
fn look_and_join(threads: [thread::JoinHandle<()>; 2], look: &mut impl FnMut()) {
    look();
    for thread in threads {
        look();
        thread.join().unwrap();
    }
}

/// The same for an edge-triggered poller, which reports each write, and takes it with it,
/// while the descriptor stays readable.
#[test]
fn no_wake_is_lost_by_rearming() {
    loom::model(|| {
        let waker = Arc::new(Waker::new().unwrap());
        let has_arrival = sys::last_made();
        let work = Arc::new(AtomicUsize::new(0));
        let threads = announce(&waker, &work);

        let mut done = 0;
        let mut look = || {
            if has_arrival.swap(false, Ordering::Relaxed) {
                waker.rearm();
                done += work.swap(0, Ordering::Relaxed);
            }
        };
        look_and_join(threads, &mut look);
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
