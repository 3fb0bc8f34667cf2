//! The table of the guide's section "Several threads on one poller", over kqueue.

use std::sync::atomic::{AtomicBool, Ordering};

use loom::thread;

use crate::os_poller::OsPoller as KqueuePoller;

const FD: i32 = 3;

// As in the guide, except for loom's `Arc` and `Mutex`.
#[allow(dead_code, reason = "its server runs in the docs")]
mod sample {
    include!(concat!(env!("OUT_DIR"), "/table_over_loom.rs"));

    use super::{AtomicBool, FD, KqueuePoller, Ordering, thread};

    fn poller_and_table() -> (KqueuePoller, Arc<Table<u32>>) {
        let poller = KqueuePoller::new().unwrap();
        let table = Arc::new(Table::new(poller.registry()));
        (poller, table)
    }

    /// C12
    #[test]
    fn an_event_that_precedes_the_end_of_its_add_is_found() {
        static IS_REPORTED: AtomicBool = AtomicBool::new(false);
        loom::model(|| {
            let (mut poller, table) = poller_and_table();
            let adding = Arc::clone(&table);
            let adding = thread::spawn(move || {
                adding.add(EventObject::client(FD), Arc::new(7)).unwrap();
            });
            for event in poller.wait(0).unwrap() {
                IS_REPORTED.store(true, Ordering::Relaxed);
                assert_eq!(table.get(event).map(|entry| *entry), Some(7));
            }
            adding.join().unwrap();
        });
        assert!(IS_REPORTED.load(Ordering::Relaxed), "in no order");
    }

    /// C16
    #[test]
    fn a_stale_event_never_finds_the_new_owner_of_its_number() {
        loom::model(|| {
            let (mut poller, table) = poller_and_table();
            table.add(EventObject::client(FD), Arc::new(1)).unwrap();
            let stale = poller.wait(0).unwrap()[0];
            let replacing = Arc::clone(&table);
            let replacing = thread::spawn(move || {
                assert_eq!(replacing.remove(FD).map(|entry| *entry), Some(1));
                replacing.add(EventObject::client(FD), Arc::new(2)).unwrap();
            });
            let found = table.get(&stale).map(|entry| *entry);
            assert!(found.is_none_or(|entry| entry == 1), "{found:?}");
            replacing.join().unwrap();
            assert!(table.get(&stale).is_none());
            let event = poller.wait(0).unwrap()[0];
            assert_eq!(table.get(&event).map(|entry| *entry), Some(2));
        });
    }
}
