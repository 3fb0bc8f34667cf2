//! How long to spin before sleeping: pure, with the times as arguments.

use std::time::Duration;

/// Whether the next wait spins, by what came of the last ones.
///
/// [KVM's halt polling](https://docs.kernel.org/virt/kvm/halt-polling.html) has the same to decide:
/// it spins longer where an event came soon, shorter and then not at all where none did. Here the
/// spin keeps its length, and an account says whether there is one. The other side may have to be
/// woken first, which takes most of any sensible limit, so that a spin cut short would catch nothing
/// and learn nothing.
///
/// For the same reason a sleep is no evidence. One that an event ends soon can be one that let the
/// other side run on this very core, where no spin would ever see that event.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Spin {
    limit: Duration,
    /// Time to spend: at first, one limit. An event that is caught earns another, a spin in vain
    /// costs what it took, and sleep earns a little.
    balance: Duration,
}

/// How many limits can be saved up: so many spins in vain, one after the other, are the last.
const MOST: u32 = 8;

/// The part of the time slept that goes into spins in vain, when all are.
const PART: u32 = 256;

impl Spin {
    /// Spins for up to `limit`; not at all, if it is zero.
    pub(crate) fn up_to(limit: Duration) -> Option<Self> {
        // So that one more than can be saved up is still a duration.
        let limit = limit.min(Duration::MAX / (MOST + 1));
        (!limit.is_zero()).then_some(Self { limit, balance: limit })
    }

    /// How long the next wait spins at the most: for the limit, or not at all.
    pub(crate) fn window(self) -> Duration {
        if self.balance >= self.limit { self.limit } else { Duration::ZERO }
    }

    /// Learns that an event came after spinning for so long.
    pub(crate) fn caught(&mut self, spun: Duration) {
        if spun > self.limit {
            // Another thread had the core meanwhile. A sleeper would have got it back at once.
            return self.missed(spun, Duration::ZERO);
        }
        self.balance = (self.balance + self.limit).min(MOST * self.limit);
    }

    /// Learns that no event came while spinning for so long, if at all, nor while sleeping then.
    pub(crate) fn missed(&mut self, spun: Duration, slept: Duration) {
        self.balance = self.balance.saturating_sub(spun.min(self.limit));
        // What sleep earns is never more than a probe.
        if self.balance < self.limit {
            self.balance = (self.balance + slept / PART).min(self.limit);
        }
    }
}

// Tests that include this file do not repeat these.
#[cfg(all(test, not(included)))]
mod tests {
    use super::*;

    const LIMIT: Duration = Duration::from_micros(50);
    const US: Duration = Duration::from_micros(1);
    const MS: Duration = Duration::from_millis(1);

    #[test]
    fn zero_is_off() {
        assert!(Spin::up_to(Duration::ZERO).is_none());
    }

    #[test]
    fn the_first_wait_is_a_probe_and_the_next_sleep() {
        let mut spin = Spin::up_to(LIMIT).unwrap();
        assert_eq!(spin.window(), LIMIT);
        spin.missed(LIMIT, MS);
        assert_eq!(spin.window(), Duration::ZERO);
    }

    #[test]
    fn sleep_earns_one_probe_however_long_it_is() {
        for sleep in [LIMIT * PART, Duration::from_secs(3_600), Duration::MAX] {
            let mut spin = Spin::up_to(LIMIT).unwrap();
            spin.missed(LIMIT, LIMIT * PART - Duration::from_nanos(u64::from(PART)));
            assert_eq!(spin.window(), Duration::ZERO);
            spin.missed(Duration::ZERO, sleep);
            assert_eq!(spin.window(), LIMIT);
            spin.missed(LIMIT, Duration::ZERO);
            assert_eq!(spin.window(), Duration::ZERO);
        }
    }

    #[test]
    fn what_was_caught_pays_for_as_many_misses_up_to_a_bound() {
        for (catches, misses) in [(1, 2), (2, 3), (7, 8), (8, 8), (1_000, 8)] {
            let mut spin = Spin::up_to(LIMIT).unwrap();
            (0..catches).for_each(|_| spin.caught(US));
            for _ in 0..misses {
                assert_eq!(spin.window(), LIMIT);
                spin.missed(LIMIT, Duration::ZERO);
            }
            assert_eq!(spin.window(), Duration::ZERO);
        }
    }

    #[test]
    fn what_is_caught_after_the_limit_is_missed() {
        let mut spin = Spin::up_to(LIMIT).unwrap();
        spin.caught(LIMIT + Duration::from_nanos(1));
        assert_eq!(spin.window(), Duration::ZERO);
        let mut spin = Spin::up_to(LIMIT).unwrap();
        spin.caught(LIMIT);
        assert_eq!(spin.window(), LIMIT);
    }

    #[test]
    fn the_longest_limit_overflows_nothing() {
        let mut spin = Spin::up_to(Duration::MAX).unwrap();
        assert!(spin.window() > Duration::from_secs(1 << 60));
        for _ in 0..20 {
            spin.caught(MS);
        }
        for _ in 0..20 {
            spin.missed(Duration::MAX, Duration::MAX);
        }
    }

    /// Every sequence of ten waits.
    #[test]
    fn time_in_vain_is_bounded_by_what_was_caught_and_slept() {
        const OUTCOMES: usize = 4;
        for sequence in 0..OUTCOMES.pow(10) {
            let mut spin = Spin::up_to(LIMIT).unwrap();
            let (mut in_vain, mut paid_for) = (Duration::ZERO, LIMIT);
            for place in 0..10 {
                let window = spin.window();
                let spins = !window.is_zero();
                assert!(!spins || window == LIMIT);
                match sequence / OUTCOMES.pow(place) % OUTCOMES {
                    0 if spins => {
                        spin.caught(LIMIT / 2);
                        paid_for += LIMIT;
                    }
                    1 if spins => {
                        spin.caught(2 * LIMIT);
                        in_vain += LIMIT;
                    }
                    outcome => {
                        let slept = if outcome == 2 { 3 * MS } else { US };
                        spin.missed(window, slept);
                        in_vain += window;
                        paid_for += slept / PART;
                    }
                }
            }
            assert!(in_vain <= paid_for, "{sequence}: {in_vain:?} for {paid_for:?}");
        }
    }

    /// What a pattern of arrivals, each so long after the wait began, comes to in the end: the part
    /// of the events that was caught, for which a sleep and a wake-up were saved, and the part of
    /// the time that was spun in vain, both in thousandths.
    fn simulate(arrivals: &[Duration]) -> (u128, u128) {
        let mut spin = Spin::up_to(LIMIT).unwrap();
        let (mut events, mut caught) = (0, 0);
        let (mut time, mut in_vain) = (Duration::ZERO, Duration::ZERO);
        for &arrival in arrivals.iter().cycle().take(100_000) {
            let window = spin.window();
            if arrival < window {
                spin.caught(arrival);
                caught += 1;
            } else {
                spin.missed(window, arrival - window);
                in_vain += window;
            }
            events += 1;
            time += arrival;
        }
        (caught * 1_000 / events, in_vain.as_nanos() * 1_000 / time.as_nanos())
    }

    #[test]
    fn steady_arrivals_in_reach_are_all_caught_for_nothing() {
        assert_eq!(simulate(&[US]), (1_000, 0));
        assert_eq!(simulate(&[49 * US]), (1_000, 0));
    }

    #[test]
    fn steady_arrivals_out_of_reach_cost_less_than_one_in_two_hundred() {
        for arrival in [51 * US, 100 * US, MS, 20 * MS] {
            let (caught, in_vain) = simulate(&[arrival]);
            assert_eq!(caught, 0);
            assert!(in_vain < 5, "{in_vain} of 1,000 for {arrival:?}");
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
        assert_eq!(simulate(&[10 * US, MS, MS]), (47, 7));
    }

    #[test]
    fn an_idle_hour_between_two_busy_ones_is_slept_through() {
        let busy = [3 * US; 1_000];
        let idle = [20 * MS; 1_000];
        let (caught, in_vain) = simulate(&[busy, idle].concat());
        assert!(caught > 490 && in_vain < 5, "{caught} and {in_vain} of 1,000");
    }
}
