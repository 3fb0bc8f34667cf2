//! The structure of the section "Ten thousand timeouts", compared with a list that is searched from end to end.

use std::io::{ErrorKind, Read};

use pollio::{EventObject, OsPoller, Poller};
use proptest::prelude::{ProptestConfig, Strategy, any};
use proptest::test_runner::TestCaseError;
use proptest::{collection::vec, prop_assert_eq, prop_oneof, proptest};

use crate::support::descriptors::pair;

// As it stands in the guide, with its imports: the build script takes it from there.
include!(concat!(env!("OUT_DIR"), "/timeouts.rs"));

/// The sample's function, also for a connection that is gone.
#[test]
fn expired_connections_are_closed() {
    let poller = OsPoller::new().unwrap();
    let mut clients = Connections::new(poller.registry());
    let (mut timeouts, start) = (Timeouts::new(), Instant::now());
    let (streams, mut fars): (Vec<_>, Vec<_>) = (0..3).map(|_| pair()).unzip();
    let mut keys = Vec::new();
    for (after, stream) in (1..).zip(streams) {
        let key = clients.insert(stream, EventObject::client, ()).unwrap();
        timeouts.set(key, start + after * SECOND);
        keys.push(key);
    }
    clients.remove(keys[0]);
    close_expired(&mut clients, &mut timeouts, start + 2 * SECOND);
    assert_eq!(clients.iter().map(|(key, ..)| key).collect::<Vec<_>>(), [keys[2]]);
    assert_eq!(fars[1].read(&mut [0]).unwrap(), 0);
    assert_eq!(fars[2].read(&mut [0]).unwrap_err().kind(), ErrorKind::WouldBlock);
    assert_eq!(timeouts.time_left(start + 2 * SECOND), Some(SECOND));
}

const SECOND: Duration = Duration::from_secs(1);

#[test]
fn a_timeout_that_was_set_again_expires_at_its_last_deadline() {
    let (mut timeouts, start) = (Timeouts::new(), Instant::now());
    timeouts.set(1, start + 60 * SECOND);
    timeouts.set(1, start + 61 * SECOND);
    for second in 59..=61 {
        timeouts.set(2, start + (second + 60) * SECOND);
    }
    assert_eq!(timeouts.time_left(start + 61 * SECOND), Some(Duration::ZERO));
    assert_eq!(timeouts.next_expired(start + 61 * SECOND), Some(1));
    assert_eq!(timeouts.next_expired(start + 61 * SECOND), None);
    assert_eq!(timeouts.time_left(start + 61 * SECOND), Some(60 * SECOND));
}

#[derive(Debug, Clone, Copy)]
enum Step {
    Set(u32, Duration),
    Remove(u32),
    Pass(Duration),
}

const TOKENS: u32 = 6;

/// Few tokens and few times, so that they meet.
fn step(equal: bool) -> impl Strategy<Value = Step> {
    let token = 0..TOKENS;
    let timeout = if equal { 30..=30_u32 } else { 0..=40 };
    prop_oneof![
        4 => (token.clone(), timeout).prop_map(|(token, after)| Step::Set(token, after * SECOND)),
        1 => token.prop_map(Step::Remove),
        3 => (0..20_u32).prop_map(|seconds| Step::Pass(seconds * SECOND)),
    ]
}

fn run(steps: &[Step]) -> Result<(), TestCaseError> {
    let (mut timeouts, mut now) = (Timeouts::new(), Instant::now());
    let mut naive = HashMap::new();
    for &step in steps {
        match step {
            Step::Set(token, after) => {
                timeouts.set(token, now + after);
                naive.insert(token, now + after);
            }
            Step::Remove(token) => {
                timeouts.remove(token);
                naive.remove(&token);
            }
            Step::Pass(time) => now += time,
        }
        let mut expired: Vec<_> = naive.iter().filter(|(_, deadline)| **deadline <= now).collect();
        expired.sort_by_key(|(token, deadline)| (**deadline, **token));
        let expired: Vec<_> = expired.into_iter().map(|(token, _)| *token).collect();
        naive.retain(|_, deadline| *deadline > now);
        // One more than possible, so that a fault ends the loop.
        let reported = std::iter::from_fn(|| timeouts.next_expired(now)).take(TOKENS as usize + 1);
        let reported: Vec<_> = reported.collect();
        prop_assert_eq!(reported, expired);
        let next = naive.values().min().map(|deadline| *deadline - now);
        prop_assert_eq!(timeouts.time_left(now), next);
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]
    #[test]
    fn timeouts_expire_as_in_a_naive_list(
        steps in any::<bool>().prop_flat_map(|equal| vec(step(equal), 0..200)),
    ) {
        run(&steps)?;
    }
}
