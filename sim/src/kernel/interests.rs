//! The registrations of one poller, and those that the next wait examines. Reports follow the rules of [`epoll`] or
//! [`kqueue`].

use std::collections::BTreeMap;
use std::mem;
use std::os::fd::RawFd;

use pollio::{Event, EventObject, Interest, Mode, Readiness};

use super::epoll;
use super::ids::FileId;
use super::kqueue::{self, FILTERS, Truth};
use super::rules::{Rule, RuleSet};
use crate::schedule::Random;

/// The key of a registration, as in epoll: a number that is closed while its file stays open stays registered.
pub(super) type Key = (RawFd, FileId);

pub(crate) struct InterestList {
    rules: RuleSet,
    items: BTreeMap<Key, Item>,
    /// The parts that the next wait examines: those with a round, in any order.
    ready: Vec<Candidate>,
    /// The number of waits that have returned events.
    round: u64,
    /// If it has a waker: whether a wake is pending.
    waker: Option<bool>,
    /// The rules that made a difference, and are not noted yet.
    applied: RuleSet,
}

/// A part of a registration that a wait examines, with its round and the state of its file during the wait.
pub(super) struct Candidate {
    key: Key,
    part: usize,
    round: u64,
    truth: Truth,
    reported: Readiness,
}

impl Candidate {
    pub(super) const fn file(&self) -> FileId {
        self.key.1
    }

    pub(super) const fn set_truth(&mut self, truth: Truth) {
        self.truth = truth;
    }
}

/// The most events of a wait.
#[derive(Clone, Copy)]
pub(super) struct Batch {
    /// As set by a test, without a limit if none.
    pub(super) size: Option<usize>,
    /// As set by the program.
    pub(super) max_events: usize,
}

struct Item {
    object: EventObject,
    /// Not a oneshot that was reported.
    is_armed: bool,
    /// With epoll, one part is all; with kqueue there is one for each of [`FILTERS`].
    parts: [Part; 3],
}

#[derive(Clone, Copy, Default)]
struct Part {
    /// The round in which it was put on the ready list.
    queued_in: Option<u64>,
    /// Spurious readiness, which is reported once.
    spurious: Readiness,
    /// Nothing is an arrival any more.
    is_deaf: bool,
}

impl InterestList {
    pub(super) const fn new(rules: RuleSet) -> Self {
        Self {
            rules,
            items: BTreeMap::new(),
            ready: Vec::new(),
            round: 0,
            waker: None,
            applied: RuleSet::NONE,
        }
    }

    pub(super) fn object(&self, key: Key) -> Option<EventObject> {
        self.items.get(&key).map(|item| item.object)
    }

    /// Whether a wait reports it to only one of several pollers.
    pub(super) fn is_exclusive(&self, key: Key) -> bool {
        !self.rules.is_kqueue() && self.object(key).is_some_and(|object| object.is_exclusive())
    }

    /// Whether it has, or had, a waker.
    pub(super) const fn has_wakers(&self) -> bool {
        self.waker.is_some()
    }

    /// As a write to its eventfd, which is created by the first one.
    pub(super) const fn set_woken(&mut self) {
        self.waker = Some(true);
    }

    /// Whether a wait is woken up: one for each wake.
    pub(super) fn take_wake_up(&mut self) -> bool {
        self.waker.as_mut().is_some_and(mem::take)
    }

    pub(super) fn registered(&self) -> impl Iterator<Item = Key> {
        self.items.keys().copied()
    }

    /// The rules that made a difference since the last call.
    pub(super) const fn take_applied(&mut self) -> RuleSet {
        mem::replace(&mut self.applied, RuleSet::NONE)
    }

    /// Adds a registration, or replaces one with the same key.
    pub(super) fn insert(&mut self, key: Key, object: EventObject) {
        self.forget(key);
        let parts = [Part::default(); 3];
        self.items.insert(key, Item { object, is_armed: true, parts });
    }

    /// Returns whether it was registered.
    pub(super) fn forget(&mut self, key: Key) -> bool {
        let Some(item) = self.items.remove(&key) else { return false };
        if item.parts.iter().any(|part| part.queued_in.is_some()) {
            self.ready.retain(|candidate| candidate.key != key);
        }
        true
    }

    /// Puts it on the ready list, if it is armed and asks for `arrival`. Returns whether it does.
    pub(super) fn queue(&mut self, key: Key, arrival: Readiness) -> bool {
        let (rules, round) = (self.rules, self.round);
        let Some(item) = self.items.get_mut(&key).filter(|item| item.is_armed) else {
            return false;
        };
        let (mut is_asked, mut is_deaf) = (false, false);
        for number in 0..if rules.is_kqueue() { FILTERS.len() } else { 1 } {
            if item.reported(number, Truth::of(arrival), rules).is_empty() {
                continue;
            }
            let part = &mut item.parts[number];
            if part.is_deaf {
                self.applied.insert(Rule::ResetIsUnheard);
                is_deaf = true;
                continue;
            }
            is_asked = true;
            if part.queued_in.is_none() {
                part.queued_in = Some(round);
                self.ready.push(Candidate::new(key, number));
            }
        }
        let is_hang_up = rules.is_kqueue() && arrival.contains(Readiness::WRITE_CLOSED);
        if is_hang_up && !is_asked && !is_deaf && item.parts[0].queued_in.is_none() {
            // Nothing is reported. The next wait notes that epoll would report it.
            item.parts[0].queued_in = Some(round);
            self.ready.push(Candidate::new(key, 0));
        }
        is_asked
    }

    /// Makes one wait report `readiness`, though it is not true.
    pub(super) fn report_once(&mut self, key: Key, readiness: Readiness) {
        if let Some(item) = self.items.get_mut(&key) {
            item.parts.iter_mut().for_each(|part| part.spurious |= readiness);
        }
    }

    /// Takes the parts that the next wait examines: [`collect`](Self::collect) takes them back, with the state of each
    /// file.
    pub(super) fn take_ready(&mut self) -> Vec<Candidate> {
        mem::take(&mut self.ready)
    }

    /// Makes the events of a wait: first the parts that have waited longest, otherwise in any order. Returns whether
    /// more are ready.
    pub(super) fn collect(
        &mut self,
        mut candidates: Vec<Candidate>,
        batch: Batch,
        random: &mut Random,
        events: &mut Vec<Event>,
    ) -> bool {
        // Half of all calls find nothing: those before a wait blocks.
        if candidates.is_empty() {
            self.ready = candidates;
            return false;
        }
        let (rules, is_kqueue) = (self.rules, self.rules.is_kqueue());
        candidates.retain_mut(|candidate| {
            let Some(item) = self.items.get_mut(&candidate.key) else { return false };
            let part = &item.parts[candidate.part];
            candidate.truth.readiness |= part.spurious;
            candidate.reported = item.reported(candidate.part, candidate.truth, rules);
            if is_kqueue {
                self.applied.add(item.differences(candidate, rules));
            }
            match part.queued_in {
                Some(round) if item.is_armed && !candidate.reported.is_empty() => {
                    candidate.round = round;
                    true
                }
                // It came and went before a wait.
                _ => {
                    item.parts[candidate.part].queued_in = None;
                    false
                }
            }
        });
        let count = candidates.len();
        if count > 1 {
            // In a fixed order first, so that only the seed shuffles it.
            candidates.sort_unstable_by_key(|candidate| (candidate.key, candidate.part));
            candidates.sort_by_cached_key(|candidate| (candidate.round, random.next()));
        }
        let size = match batch.size {
            Some(size) => size,
            None if count <= 1 => 1,
            None => random.index(count) + 1,
        };
        let mut left = size.min(batch.max_events);
        self.round += u64::from(count > 0);
        // With kqueue: what epoll's one event of a descriptor would report.
        let mut whole = Vec::new();
        candidates.retain(|candidate| {
            let is_of = |event: &&mut Event| is_kqueue && event.fd == candidate.key.0;
            let merged = events.iter_mut().find(is_of);
            if left == 0 {
                return true;
            }
            left -= 1;
            let Some(item) = self.items.get_mut(&candidate.key) else { return false };
            if is_kqueue && merged.is_none() {
                whole.push(item.reported_by_all(candidate.truth, rules));
            }
            let event = item.report(candidate, self.round, rules);
            match merged {
                Some(merged) => {
                    let readiness = merged.readiness() | event.readiness();
                    *merged = Event::new(event.fd, event.kind, event.token, readiness);
                }
                None => events.push(event),
            }
            item.parts[candidate.part].queued_in.is_some()
        });
        if events.iter().zip(whole).any(|(event, whole)| event.readiness() != whole) {
            self.applied.insert(Rule::InterestsComeApart);
        }
        self.ready = candidates;
        !self.ready.is_empty()
    }
}

impl Candidate {
    const fn new(key: Key, part: usize) -> Self {
        let (truth, reported) = (Truth::of(Readiness::NONE), Readiness::NONE);
        Self { key, part, round: 0, truth, reported }
    }
}

impl Item {
    /// The report of one part.
    fn reported(&self, part: usize, truth: Truth, rules: RuleSet) -> Readiness {
        if !rules.is_kqueue() {
            return epoll::reported_by(self.object, truth.readiness);
        }
        let filter = FILTERS[part];
        if self.object.interest().contains(filter) {
            kqueue::reported(filter, truth, rules)
        } else {
            Readiness::NONE
        }
    }

    /// The report of all its parts.
    fn reported_by_all(&self, truth: Truth, rules: RuleSet) -> Readiness {
        let reported = (0..FILTERS.len()).map(|part| self.reported(part, truth, rules));
        reported.fold(Readiness::NONE, Readiness::union)
    }

    /// Makes the event of a part, and decides by the mode whether the next wait examines it again.
    fn report(&mut self, candidate: &Candidate, round: u64, rules: RuleSet) -> Event {
        let mode = self.object.mode();
        let part = &mut self.parts[candidate.part];
        part.spurious = Readiness::NONE;
        part.queued_in = (mode == Mode::Level).then_some(round);
        // `sorflush` clears SB_KNOTE with the buffer.
        part.is_deaf = rules.has(Rule::ResetIsUnheard)
            && mode == Mode::Edge
            && FILTERS[candidate.part] == Interest::READABLE
            && candidate.reported.contains(Readiness::READ_CLOSED)
            && candidate.truth.is_established;
        self.is_armed = mode != Mode::Oneshot;
        let EventObject { fd, kind, token, .. } = self.object;
        Event::new(fd, kind, token, candidate.reported)
    }

    /// The rules because of which epoll's report would differ.
    fn differences(&self, candidate: &Candidate, rules: RuleSet) -> RuleSet {
        let mut differences = RuleSet::NONE;
        if !self.is_armed {
            if !candidate.reported.is_empty() {
                differences.insert(Rule::OneshotReportsOne);
            }
            return differences;
        }
        let (truth, interest) = (candidate.truth, self.object.interest());
        let all = self.reported_by_all(truth, rules);
        let of_epoll = epoll::reported_by(self.object, truth.readiness);
        let is_more = |closed| all.contains(closed) && !of_epoll.contains(closed);
        if all == of_epoll {
            return differences;
        }
        differences.insert(if interest.is_empty() {
            Rule::NoneIsSilent
        } else if interest == Interest::PRIORITY && rules.has(Rule::NoPriority) {
            Rule::NoPriority
        } else if is_more(Readiness::WRITE_CLOSED) {
            Rule::OwnShutdownIsEnd
        } else if is_more(Readiness::READ_CLOSED) {
            Rule::PriorityReportsEnd
        } else {
            Rule::HangUpsAreAskedFor
        });
        differences
    }
}
