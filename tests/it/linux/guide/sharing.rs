//! The table of the section "Several threads on one poller"; `tests/loom/table.rs` has its threads.

use crate::support::descriptors::pair;
use crate::support::expect::Expect;

// As it stands in the guide, with its imports: the build script takes it from there.
#[allow(dead_code, reason = "its server runs where it stands")]
mod sample {
    include!(concat!(env!("OUT_DIR"), "/table.rs"));

    use super::{Expect, pair};

    #[test]
    fn an_add_that_fails_leaves_the_slot_empty() {
        let (near, far) = pair();
        let mut poller = OsPoller::new().unwrap();
        let table = Table::new(poller.registry());
        let object = EventObject::client(near.as_raw_fd());
        // The kernel refuses it: it is registered elsewhere.
        poller.add(object).unwrap();
        let error = table.add(object, Arc::new(1)).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::AlreadyExists);
        poller.delete(object.fd).unwrap();

        table.add(object, Arc::new(2)).unwrap();
        (&far).write_all(b"x").unwrap();
        assert_eq!(table.get(&poller.expect_one()).as_deref(), Some(&2));
        // The table refuses it, and keeps what it has.
        let error = table.add(object, Arc::new(3)).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::AlreadyExists);
        let stale = poller.expect_one();
        assert_eq!(table.get(&stale).as_deref(), Some(&2));

        assert_eq!(table.remove(object.fd).as_deref(), Some(&2));
        poller.expect_none();
        table.add(object, Arc::new(4)).unwrap();
        assert!(table.get(&stale).is_none());
        assert_eq!(table.get(&poller.expect_one()).as_deref(), Some(&4));
    }
}
