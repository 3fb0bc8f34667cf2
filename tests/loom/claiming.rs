//! Waits over kqueue. A oneshot with two interests is two knotes there, and the kernel adds and fires each one
//! separately.

use loom::thread;
use pollio::{EventObject, Interest, Mode, Poller};

use crate::os_poller::OsPoller as KqueuePoller;
use crate::sys::kevent;

const FD: i32 = 3;

fn oneshot(token: u32) -> EventObject {
    EventObject::client(FD).with_interest(Interest::BOTH).with_mode(Mode::Oneshot).with_token(token)
}

/// The tokens of a poll's events.
fn poll(poller: &mut KqueuePoller) -> Vec<u32> {
    poller.wait(0).unwrap().iter().map(|event| event.token).collect()
}

/// C4, C12, C18
#[test]
fn of_two_waits_beside_an_addition_one_reports_it() {
    loom::model(|| {
        let mut poller = KqueuePoller::new().unwrap();
        let mut other = poller.try_clone().unwrap();
        let registry = poller.registry().clone();
        let adding = thread::spawn(move || registry.add(oneshot(1)).unwrap());
        let waiting = thread::spawn(move || poll(&mut other));
        let mut seen = poll(&mut poller);
        seen.extend(waiting.join().unwrap());
        adding.join().unwrap();
        seen.extend(poll(&mut poller));
        assert_eq!(seen, [1]);
    });
}

/// C4, C9, C12
#[test]
fn a_wait_beside_modifications_reports_the_last_one() {
    loom::model(|| {
        let mut poller = KqueuePoller::new().unwrap();
        let registry = poller.registry().clone();
        registry.add(oneshot(1)).unwrap();
        let modifying = thread::spawn(move || registry.modify(oneshot(2)).unwrap());
        let mut seen = poll(&mut poller);
        modifying.join().unwrap();
        seen.extend(poll(&mut poller));
        assert!(seen == [1, 2] || seen == [2], "{seen:?}");
    });
}

/// C4, C12, C18: it is re-armed, its knotes stay.
#[test]
fn of_two_waits_during_a_re_arming_one_reports_it() {
    loom::model(|| {
        let mut poller = KqueuePoller::new().unwrap();
        let mut other = poller.try_clone().unwrap();
        let registry = poller.registry().clone();
        registry.add(oneshot(1)).unwrap();
        assert_eq!(poll(&mut poller), [1]);
        let modifying = thread::spawn(move || registry.modify(oneshot(2)).unwrap());
        let waiting = thread::spawn(move || poll(&mut other));
        let mut seen = poll(&mut poller);
        seen.extend(waiting.join().unwrap());
        modifying.join().unwrap();
        seen.extend(poll(&mut poller));
        assert_eq!(seen, [2]);
    });
}

/// C4, C9, C12: another interest, for which its knotes are replaced.
#[test]
fn a_wait_during_a_change_of_the_interest_reports_the_new_one() {
    loom::model(|| {
        let mut poller = KqueuePoller::new().unwrap();
        let registry = poller.registry().clone();
        registry.add(oneshot(1)).unwrap();
        let reading = oneshot(2).with_interest(Interest::READABLE);
        let modifying = thread::spawn(move || registry.modify(reading).unwrap());
        let mut seen = poll(&mut poller);
        modifying.join().unwrap();
        seen.extend(poll(&mut poller));
        assert!(seen == [1, 2] || seen == [2], "{seen:?}");
    });
}

/// C4, C12: `modify` arms the other knote before it notices that this one is gone.
#[test]
fn a_oneshot_that_lost_a_knote_is_reported_once_after_modify() {
    loom::model(|| {
        let mut poller = KqueuePoller::new().unwrap();
        let registry = poller.registry().clone();
        registry.add(oneshot(1)).unwrap();
        assert_eq!(poll(&mut poller), [1]);
        kevent::lose(kevent::EVFILT_WRITE);
        let modifying = thread::spawn(move || registry.modify(oneshot(2)).unwrap());
        let mut seen = poll(&mut poller);
        modifying.join().unwrap();
        seen.extend(poll(&mut poller));
        assert_eq!(seen, [2]);
    });
}
