//! `Connections` compared with a naive map, and with numbers that no kernel returns.

use std::collections::{BTreeMap, BTreeSet};
use std::io::ErrorKind;
use std::os::fd::RawFd;

use allocation_counter::measure;
use pollio::{Connections, EventObject, Key, OsPoller, Poller};
use proptest::prelude::{ProptestConfig, Strategy};
use proptest::test_runner::TestCaseError;
use proptest::{collection::vec, prop_assert, prop_assert_eq, prop_oneof, proptest};

use crate::suites::foreign::{AlwaysReady, Stream};

/// Numbers on one page of the table and on several.
const NUMBERS: [RawFd; 8] = [0, 1, 511, 512, 10_000, 10_001, 1 << 20, (1 << 20) + 1];

#[derive(Debug, Clone, Copy)]
enum Step {
    /// One of the numbers, with its own object or another's.
    Insert(usize, bool),
    /// One of all keys so far, present or removed, as in the two below.
    Remove(usize),
    Modify(usize),
    Change(usize),
    /// Those whose data has this remainder by three.
    Retain(usize),
}

fn step() -> impl Strategy<Value = Step> {
    let number = 0..NUMBERS.len();
    prop_oneof![
        6 => number.clone().prop_map(|number| Step::Insert(number, true)),
        1 => number.prop_map(|number| Step::Insert(number, false)),
        4 => (0..100_usize).prop_map(Step::Remove),
        1 => (0..100_usize).prop_map(Step::Modify),
        2 => (0..100_usize).prop_map(Step::Change),
        1 => (0..3_usize).prop_map(Step::Retain),
    ]
}

fn run(steps: &[Step]) -> Result<(), TestCaseError> {
    let mut poller = AlwaysReady::new().unwrap();
    let mut table = Connections::new(poller.registry());
    // The entries of the table, and all keys that it ever had.
    let mut naive = BTreeMap::new();
    let mut keys = Vec::new();
    for (data, &step) in steps.iter().enumerate() {
        let key_of = |index: usize| keys.get(index % keys.len().max(1)).copied();
        match step {
            Step::Insert(number, is_right) => {
                let fd = NUMBERS[number];
                let is_there = naive.values().any(|(number, _)| *number == fd);
                let object = |fd| EventObject::client(if is_right { fd } else { fd ^ 1 });
                match table.insert(Stream(fd), object, data) {
                    Ok(key) => {
                        prop_assert!(is_right && !is_there && !keys.contains(&key));
                        keys.push(key);
                        naive.insert(key, (fd, data));
                    }
                    Err(error) if is_there => {
                        prop_assert_eq!(error.kind(), ErrorKind::AlreadyExists);
                    }
                    Err(error) => {
                        prop_assert_eq!((error.kind(), is_right), (ErrorKind::InvalidInput, false));
                    }
                }
            }
            Step::Remove(index) => {
                let Some(key) = key_of(index) else { continue };
                let removed = table.remove(key).map(|(stream, data)| (stream.0, data));
                prop_assert_eq!(removed, naive.remove(&key));
            }
            Step::Modify(index) => {
                let Some(key) = key_of(index) else { continue };
                prop_assert_eq!(
                    table.modify(key, EventObject::server).is_ok(),
                    naive.contains_key(&key)
                );
            }
            Step::Change(index) => {
                let Some(key) = key_of(index) else { continue };
                let changed = table.get_mut(key).map(|(_, old)| *old = data);
                prop_assert_eq!(changed, naive.get_mut(&key).map(|(_, old)| *old = data));
            }
            Step::Retain(rest) => {
                table.retain(|_, _, data| *data % 3 == rest);
                naive.retain(|_, (_, data)| *data % 3 == rest);
            }
        }
        for key in &keys {
            let found = table.get(*key).map(|(stream, data)| (stream.0, *data));
            prop_assert_eq!(found, naive.get(key).copied());
        }
        let all: BTreeMap<_, _> =
            table.iter().map(|(key, stream, data)| (key, (stream.0, *data))).collect();
        prop_assert_eq!((&all, table.len()), (&naive, naive.len()));
        // The registrations match the table, with its keys as tokens.
        let registered: BTreeSet<Key> = poller.wait(0).unwrap().iter().map(Key::from).collect();
        prop_assert_eq!(registered, naive.keys().copied().collect());
    }
    drop(table);
    prop_assert!(poller.wait(0).unwrap().is_empty());
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]
    #[test]
    fn a_table_of_connections_is_a_map(steps in vec(step(), 0..100)) {
        run(&steps)?;
    }
}

#[test]
fn a_negative_number_is_refused() {
    let mut poller = AlwaysReady::new().unwrap();
    let mut table = Connections::new(poller.registry());
    let key = table.insert(Stream(1), EventObject::client, ()).unwrap();
    for fd in [-1, RawFd::MIN] {
        let error = table.insert(Stream(fd), EventObject::client, ()).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidInput);
    }
    assert_eq!(poller.wait(0).unwrap().iter().map(Key::from).collect::<Vec<_>>(), [key]);
}

/// By the docs of `Connections`: a page of 512 numbers, and the list of pages up to it.
#[test]
fn a_high_number_takes_the_promised_memory() {
    let poller = AlwaysReady::new().unwrap();
    let page = 512 * i64::try_from(size_of::<usize>()).unwrap();
    for (fd, pages) in [(3, 0), (1 << 20, 2 << 10), (i32::MAX, 4 << 20)] {
        let promised = page + pages * page / 512;
        let mut table = Connections::new(poller.registry());
        let taken = measure(|| {
            table.insert(Stream(fd), EventObject::client, ()).unwrap();
        });
        let rest = taken.bytes_current - promised;
        assert!((0..2_000).contains(&rest), "{fd}: {rest} bytes more");
    }
}

#[test]
fn a_number_that_is_refused_takes_no_memory() {
    let poller = OsPoller::new().unwrap();
    let mut table = Connections::new(poller.registry());
    let taken = measure(|| {
        for fd in [1 << 29, i32::MAX] {
            table.insert(Stream(fd), EventObject::client, ()).unwrap_err();
        }
    });
    assert!(taken.bytes_max < 4_096, "{} bytes", taken.bytes_max);
}
