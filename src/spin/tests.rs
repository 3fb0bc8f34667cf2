//! What the spin policy does with events near, far and in bursts, and with two sides that wake each other.

use super::*;

const LIMIT: Duration = Duration::from_micros(50);
const US: Duration = Duration::from_micros(1);
const MS: Duration = Duration::from_millis(1);

/// One that has used up what it began with.
fn asleep() -> Spin {
    let mut spin = Spin::up_to(LIMIT).unwrap();
    assert_eq!(spin.next_wait(), Next::Spin(LIMIT));
    spin.missed(LIMIT, Duration::ZERO);
    spin
}

/// Sleeps for so long each time until something else is next, and says how often that was, and what.
fn sleep_until_next(spin: &mut Spin, slept: Duration) -> (u32, Next) {
    for sleeps in 0.. {
        match spin.next_wait() {
            Next::Sleep => {}
            Next::TimedSleep => spin.slept(slept),
            next => return (sleeps, next),
        }
    }
    unreachable!()
}

#[test]
fn zero_is_off() {
    assert!(Spin::up_to(Duration::ZERO).is_none());
}

#[test]
fn the_first_wait_spins_and_the_next_sleeps() {
    assert_eq!(asleep().next_wait(), Next::TimedSleep);
}

#[test]
fn a_wait_that_ends_without_an_event_pays_for_nothing() {
    let mut spin = asleep();
    for _ in 0..100_000 {
        assert_eq!(spin.next_wait(), Next::TimedSleep);
    }
}

#[test]
fn long_sleep_pays_for_one_spin_however_long_it_is() {
    for sleep in [LIMIT * 256, Duration::from_secs(3_600), Duration::MAX] {
        let mut spin = asleep();
        spin.slept(LIMIT * 256 - Duration::from_nanos(256));
        assert_eq!(spin.next_wait(), Next::TimedSleep);
        spin.slept(sleep);
        assert_eq!(spin.next_wait(), Next::Spin(LIMIT));
        spin.missed(LIMIT, Duration::ZERO);
        assert_eq!(spin.next_wait(), Next::TimedSleep);
    }
}

#[test]
fn a_catch_pays_for_a_miss_up_to_a_bound() {
    for (catches, misses) in [(1, 2), (2, 3), (7, 8), (8, 8), (1_000, 8)] {
        let mut spin = Spin::up_to(LIMIT).unwrap();
        (0..catches).for_each(|_| spin.caught(US));
        for _ in 0..misses {
            assert_eq!(spin.next_wait(), Next::Spin(LIMIT));
            spin.missed(LIMIT, Duration::ZERO);
        }
        assert_eq!(spin.next_wait(), Next::TimedSleep);
    }
}

#[test]
fn a_sleep_within_the_limit_pays_for_a_probe_as_long() {
    for slept in [US, 5 * US, LIMIT] {
        let mut spin = asleep();
        assert_eq!(sleep_until_next(&mut spin, slept), (1, Next::Probe(slept)));
        spin.caught(slept / 2);
        assert_eq!(spin.next_wait(), Next::Spin(LIMIT));
    }
}

#[test]
fn what_was_pending_was_no_sleep() {
    let mut spin = asleep();
    for _ in 0..1_000 {
        assert_eq!(spin.next_wait(), Next::TimedSleep);
        spin.slept(US - Duration::from_nanos(1));
    }
}

#[test]
fn probes_without_an_event_become_rare_and_a_catch_ends_that() {
    let mut spin = asleep();
    let sleeps: Vec<_> = (0..70)
        .map(|_| {
            let (sleeps, next) = sleep_until_next(&mut spin, 3 * US);
            assert_eq!(next, Next::Probe(3 * US));
            spin.missed(3 * US, US);
            sleeps
        })
        .collect();
    assert_eq!(sleeps[..6], [1, 2, 4, 8, 16, 30]);
    assert!(sleeps[5..55].iter().all(|sleeps| *sleeps == 30));
    assert_eq!(sleeps[55..62], [60, 120, 240, 480, 960, 1_920, 1_920]);
    assert!(sleeps[61..].iter().all(|sleeps| *sleeps == 1_920));
    sleep_until_next(&mut spin, 3 * US);
    spin.caught(US);
    spin.missed(LIMIT, US);
    assert_eq!(sleep_until_next(&mut spin, US), (1, Next::Probe(US)));
}

#[test]
fn what_is_caught_after_the_limit_is_missed() {
    let mut spin = Spin::up_to(LIMIT).unwrap();
    spin.caught(LIMIT + Duration::from_nanos(1));
    assert_eq!(spin.next_wait(), Next::TimedSleep);
    let mut spin = Spin::up_to(LIMIT).unwrap();
    spin.caught(LIMIT);
    assert_eq!(spin.next_wait(), Next::Spin(LIMIT));
}

/// Another thread had the core, and the peer was that thread as like as not.
#[test]
fn what_is_caught_after_the_length_of_a_probe_is_missed() {
    let mut spin = asleep();
    sleep_until_next(&mut spin, 3 * US);
    spin.caught(4 * US);
    assert_eq!(sleep_until_next(&mut spin, 3 * US), (2, Next::Probe(3 * US)));
}

#[test]
fn the_longest_limit_overflows_nothing() {
    let mut spin = Spin::up_to(Duration::MAX).unwrap();
    let Next::Spin(window) = spin.next_wait() else { panic!() };
    assert!(window > Duration::from_secs(1 << 30));
    (0..20).for_each(|_| spin.caught(MS));
    for _ in 0..200 {
        spin.next_wait();
        spin.slept(Duration::MAX);
        spin.missed(Duration::MAX, Duration::MAX);
    }
}

/// Every sequence of eight waits. What the probes take without an event is no more than the sleeps
/// that paid for them, and what the other spins take no more than the catches and the long sleeps.
#[test]
fn time_without_an_event_is_bounded_by_what_was_caught_and_slept() {
    const OUTCOMES: usize = 6;
    const LATE: Duration = Duration::from_micros(60);
    for sequence in 0..OUTCOMES.pow(8) {
        let mut spin = Spin::up_to(LIMIT).unwrap();
        let (mut spun, mut caught_and_slept) = (Duration::ZERO, LIMIT);
        let (mut probed, mut slept) = (Duration::ZERO, Duration::ZERO);
        for place in 0..8 {
            let outcome = sequence / OUTCOMES.pow(place) % OUTCOMES;
            let next = spin.next_wait();
            let length = [3 * MS, 3 * US, 40 * US, Duration::ZERO][outcome.max(2) - 2];
            match next {
                Next::Sleep => {}
                Next::TimedSleep if length.is_zero() => {}
                Next::TimedSleep => {
                    spin.slept(length);
                    slept += if length <= LIMIT { length } else { Duration::ZERO };
                }
                Next::Spin(window) | Next::Probe(window) => {
                    assert!(window <= LIMIT && !window.is_zero());
                    let total = if next == Next::Spin(LIMIT) { &mut spun } else { &mut probed };
                    match outcome {
                        0 => {
                            spin.caught(window / 2);
                            caught_and_slept += LIMIT;
                        }
                        1 => {
                            spin.caught(LATE);
                            *total += window;
                        }
                        _ => {
                            spin.missed(window, length);
                            *total += window;
                        }
                    }
                }
            }
            if length > LIMIT {
                caught_and_slept += length / 256;
            }
        }
        assert!(spun <= caught_and_slept, "{sequence}: {spun:?} for {caught_and_slept:?}");
        assert!(probed <= slept, "{sequence}: {probed:?} for {slept:?}");
    }
}

/// What a pattern of arrivals, each so long after the wait began, comes to in the end: the part
/// of the events that was caught, for which a sleep and a wake-up were saved, and the part of
/// the time that was spun without one, both in thousandths.
fn simulate(arrivals: &[Duration]) -> (u128, u128) {
    let mut spin = Spin::up_to(LIMIT).unwrap();
    let (mut events, mut caught) = (0, 0);
    let (mut time, mut wasted) = (Duration::ZERO, Duration::ZERO);
    for &arrival in arrivals.iter().cycle().take(100_000) {
        match spin.next_wait() {
            Next::Sleep => {}
            Next::TimedSleep => spin.slept(arrival),
            Next::Spin(window) | Next::Probe(window) if arrival > window => {
                spin.missed(window, arrival - window);
                wasted += window;
            }
            Next::Spin(_) | Next::Probe(_) => {
                spin.caught(arrival);
                caught += 1;
            }
        }
        events += 1;
        time += arrival;
    }
    (caught * 1_000 / events, wasted.as_nanos() * 1_000 / time.as_nanos())
}

#[test]
fn steady_arrivals_in_reach_are_all_caught() {
    assert_eq!(simulate(&[US]), (1_000, 0));
    assert_eq!(simulate(&[49 * US]), (1_000, 0));
}

#[test]
fn steady_arrivals_out_of_reach_cost_less_than_one_in_two_hundred() {
    for arrival in [51 * US, 100 * US, MS, 20 * MS] {
        let (caught, wasted) = simulate(&[arrival]);
        assert_eq!(caught, 0);
        assert!(wasted < 5, "{wasted} of 1,000 for {arrival:?}");
    }
}

#[test]
fn bursts_are_caught_and_the_pause_between_them_costs_one_spin() {
    let burst: Vec<_> = [5 * US; 19].into_iter().chain([2 * MS]).collect();
    assert_eq!(simulate(&burst), (950, 23));
}

#[test]
fn alternating_arrivals_are_caught_if_every_second_one_can_be() {
    assert_eq!(simulate(&[10 * US, MS]), (500, 49));
    assert_eq!(simulate(&[MS, 10 * US]), (499, 49));
}

/// One in three does not pay for the other two, each of which costs a limit.
#[test]
fn arrivals_of_which_few_are_in_reach_cost_little() {
    let (_, wasted) = simulate(&[10 * US, MS, MS]);
    assert!(wasted < 30, "{wasted} of 1,000");
}

#[test]
fn an_idle_hour_between_two_busy_ones_is_slept_through() {
    let busy = [3 * US; 1_000];
    let idle = [20 * MS; 1_000];
    let (caught, wasted) = simulate(&[busy, idle].concat());
    assert!(caught > 490 && wasted < 5, "{caught} and {wasted} of 1,000");
}

/// Two sides, each of which wakes the other once it has been woken.
struct Pair {
    sides: [Side; 2],
    now: Duration,
    /// Whether both need the same core.
    share: bool,
}

struct Side {
    spin: Spin,
    /// What its wait does, and when it began.
    next: Next,
    since: Duration,
}

/// From one wake to the next, to wake up a core that sleeps, and to give a core to another thread.
const WORK: Duration = Duration::from_nanos(500);
const WAKE: Duration = Duration::from_micros(3);
const SWITCH: Duration = Duration::from_micros(2);

impl Pair {
    /// Both begin to wait; the first of them is woken at once, or later.
    fn new(limit: Duration) -> Self {
        let side = || {
            let mut spin = Spin::up_to(limit).unwrap();
            Side { next: spin.next_wait(), spin, since: Duration::ZERO }
        };
        Self { sides: [side(), side()], now: Duration::ZERO, share: false }
    }

    /// Has each side woken once, and returns how long that took. The first side works longer by
    /// `pause`.
    fn round(&mut self, pause: Duration) -> Duration {
        let start = self.now;
        for (side, pause) in [(0, pause), (1, Duration::ZERO)] {
            self.end_wait(side);
            self.now += WORK + pause;
            let Side { spin, next, since } = &mut self.sides[side];
            (*next, *since) = (spin.next_wait(), self.now);
            if let (Next::Spin(window) | Next::Probe(window), true) = (*next, self.share) {
                // The other side cannot run.
                self.now += window;
            }
        }
        self.now - start
    }

    /// What a wait comes to whose event arrives now.
    fn end_wait(&mut self, side: usize) {
        let Side { spin, next, since } = &mut self.sides[side];
        let waited = self.now - *since;
        let end = waited + if self.share { SWITCH } else { WAKE };
        match *next {
            Next::Spin(window) | Next::Probe(window) if self.share || waited > window => {
                spin.missed(window, end.saturating_sub(window));
            }
            Next::Spin(_) | Next::Probe(_) => return spin.caught(waited),
            Next::TimedSleep => spin.slept(end),
            Next::Sleep => {}
        }
        self.now = *since + end;
    }

    fn rounds(&mut self, count: usize) -> Duration {
        (0..count).map(|_| self.round(Duration::ZERO)).sum()
    }

    /// How many rounds it takes until both catch everything.
    fn rounds_until_in_step(&mut self) -> usize {
        let times: Vec<_> = (0..3_000).map(|_| self.round(Duration::ZERO)).collect();
        times.iter().rposition(|time| *time > 2 * WORK).map_or(0, |last| last + 1)
    }
}

const LIMITS: [Duration; 4] =
    [Duration::from_micros(20), Duration::from_micros(50), Duration::from_micros(100), MS];

#[test]
fn two_sides_are_soon_in_step_whenever_each_started() {
    for limit in LIMITS {
        for late in [0, 1, 10, 30, 70, 200, 2_000, 10_000, 1_000_000] {
            let mut pair = Pair::new(limit);
            pair.now = late * US;
            let rounds = pair.rounds_until_in_step();
            assert!(rounds <= 8, "{limit:?}, late by {late} µs: {rounds}");
        }
    }
}

#[test]
fn two_sides_are_soon_in_step_after_a_pause() {
    for limit in LIMITS {
        for pause in [30 * US, 200 * US, 10 * MS, 1_000 * MS] {
            let mut pair = Pair::new(limit);
            pair.rounds(100);
            for pauses in 1..20 {
                pair.round(pause);
                let rounds = pair.rounds_until_in_step();
                assert!(rounds <= 8, "{limit:?}, {pauses} of {pause:?}: {rounds}");
            }
        }
    }
}

#[test]
fn two_sides_are_in_step_within_sixty_rounds_once_each_has_its_own_core() {
    for limit in LIMITS {
        for shared in (0..1_500).step_by(19) {
            let mut pair = Pair::new(limit);
            pair.share = true;
            pair.rounds(shared);
            pair.share = false;
            let rounds = pair.rounds_until_in_step();
            assert!(rounds <= 60, "{limit:?} after {shared} rounds on one core: {rounds}");
        }
        let mut pair = Pair::new(limit);
        pair.share = true;
        pair.rounds(1_000_000);
        pair.share = false;
        assert!(pair.rounds_until_in_step() <= 1_922);
    }
}

#[test]
fn spinning_costs_two_sides_on_one_core_next_to_nothing() {
    for limit in LIMITS {
        let mut pair = Pair::new(limit);
        pair.share = true;
        let begin = 2 * limit + 20 * US;
        let asleep = 2 * (WORK + SWITCH);
        for (rounds, percent) in [(20_000, 2), (1_000_000, 1)] {
            let (time, count) = (pair.rounds(rounds), u32::try_from(rounds).unwrap());
            assert!(time <= begin + asleep * count * (100 + percent) / 100, "{limit:?}: {time:?}");
        }
    }
}
