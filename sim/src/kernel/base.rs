//! The base of every part of the kernel: the schedule, the files with their waiting threads and pollers, the faults.

use std::io;
use std::time::Duration;

use pollio::{Event as PollerEvent, Interest, Readiness};

use super::errno::errno;
use super::event::Event;
use super::faults::Faults;
use super::files::{File, Files, Kind};
use super::ids::FileId;
use super::interests::{Batch, Candidate, InterestList, Key};
use super::patience::Patience;
use super::rules::{Rule, Rules};
use crate::conditions::{self, Conditions};
use crate::kernels;
use crate::schedule::{Action, QueueId, Random, Schedule, When};

pub(crate) struct Base {
    schedule: Schedule<Event>,
    rules: Rules,
    files: Files,
    faults: Faults,
    patience: Patience,
}

impl Base {
    pub(super) fn new(kernel: kernels::Kernel, seed: u64, is_traced: bool) -> Self {
        let mut random = Random::new(seed);
        let faults = Faults::draw(Conditions::default(), &mut random);
        let mut schedule = Schedule::new(seed, random, is_traced);
        schedule.set_pauses(faults.conditions().has(conditions::Kind::Pauses));
        let (rules, files, patience) = (Rules::new(kernel), Files::default(), Patience::default());
        Self { schedule, rules, files, faults, patience }
    }

    pub(super) const fn schedule(&self) -> &Schedule<Event> {
        &self.schedule
    }

    pub(super) const fn schedule_mut(&mut self) -> &mut Schedule<Event> {
        &mut self.schedule
    }

    pub(super) const fn now(&self) -> Duration {
        self.schedule.now()
    }

    pub(super) const fn random(&mut self) -> &mut Random {
        self.schedule.random()
    }

    pub(super) fn add_event(&mut self, time: Duration, event: Event) -> When {
        self.schedule.add(time, Action::Event(event))
    }

    pub(super) fn note(&mut self, text: impl FnOnce() -> String) {
        self.schedule.note(text);
    }
}

/// Rules.
impl Base {
    pub(super) const fn rules(&self) -> &Rules {
        &self.rules
    }

    pub(super) const fn rules_mut(&mut self) -> &mut Rules {
        &mut self.rules
    }

    /// Whether the kernel has this rule. Asked where it makes a difference, which is noted.
    #[inline]
    pub(super) fn applies(&mut self, rule: Rule) -> bool {
        let applies = self.rules.has(rule);
        if applies {
            self.rules.set_applied(rule);
            let kernel = self.rules.kernel();
            self.note(|| format!("{kernel}: {}", rule.text()));
        }
        applies
    }
}

/// Faults.
impl Base {
    pub(super) fn set_conditions(&mut self, conditions: Conditions) {
        self.faults = Faults::draw(conditions, self.schedule.random());
        self.schedule.set_pauses(self.conditions().has(conditions::Kind::Pauses));
    }

    pub(super) const fn conditions(&self) -> &Conditions {
        self.faults.conditions()
    }

    /// Draws whether a fault occurs here.
    pub(super) fn draw_fault(&mut self, kind: conditions::Kind) -> bool {
        self.faults.draw_fault(kind, self.schedule.random())
    }

    /// Draws whether an accept fails, as without a descriptor. Not on kernels that would lose the client, since no
    /// server could prevent that.
    pub(super) fn draw_failing_accept(&mut self) -> bool {
        !self.rules.has(Rule::AcceptLosesClient)
            && self.draw_fault(conditions::Kind::FailingAccepts)
    }

    /// Draws from a range of the conditions.
    pub(super) fn draw<T>(&mut self, draw: impl FnOnce(&Conditions, &mut Random) -> T) -> T {
        draw(self.faults.conditions(), self.schedule.random())
    }
}

/// Files.
impl Base {
    pub(super) fn add_file(&mut self, kind: Kind) -> FileId {
        let queue = self.schedule.add_queue();
        self.files.add(kind, queue)
    }

    pub(super) fn file(&self, id: FileId) -> Option<&File> {
        self.files.get(id)
    }

    pub(super) fn file_mut(&mut self, id: FileId) -> Option<&mut File> {
        self.files.get_mut(id)
    }

    pub(super) const fn files(&self) -> &Files {
        &self.files
    }

    pub(super) const fn files_mut(&mut self) -> &mut Files {
        &mut self.files
    }

    pub(super) fn queue_of(&self, id: FileId) -> Option<QueueId> {
        self.files.get(id).map(File::queue)
    }

    /// Reports an arrival at a file to the threads and pollers that wait for it.
    pub(super) fn notify(&mut self, id: FileId, arrival: Readiness) {
        self.files.notify(id, arrival, &mut self.schedule);
    }

    /// Reports the clients that an accept has left in a queue, on kernels where that is an edge.
    pub(super) fn notify_of_next_client(&mut self, listener: FileId) {
        if self.files.has_edges(listener, Interest::READABLE) && self.applies(Rule::AcceptIsEdge) {
            self.notify(listener, Readiness::READABLE);
        }
    }

    /// Queues a registration that asks for `arrival` for the next wait of a poller.
    pub(super) fn queue(&mut self, poller: FileId, key: Key, arrival: Readiness) {
        self.files.queue(poller, key, arrival, &mut self.schedule);
    }

    /// Makes the events of a wait, and wakes another thread if more are ready.
    pub(super) fn collect(
        &mut self,
        poller: FileId,
        ready: Vec<Candidate>,
        batch: Batch,
        events: &mut Vec<PollerEvent>,
    ) {
        let Some(list) = self.files.list_mut(poller) else { return };
        let random = self.schedule.random();
        let is_more = list.collect(ready, batch, random, events);
        let applied = list.take_applied();
        if !applied.is_empty() {
            for rule in self.rules.of(applied) {
                self.applies(rule);
            }
        }
        if is_more {
            self.queue_of(poller).into_iter().for_each(|queue| {
                self.schedule.wake_one(queue);
            });
        }
    }

    /// Wakes one thread that waits for a poller, or else ends its next wait.
    pub(super) fn wake(&mut self, poller: FileId) -> io::Result<()> {
        self.list_mut(poller)?.set_woken();
        self.queue_of(poller).into_iter().for_each(|queue| {
            self.schedule.wake_one(queue);
        });
        Ok(())
    }

    /// The interests of a poller.
    pub(super) fn list_mut(&mut self, poller: FileId) -> io::Result<&mut InterestList> {
        self.files.list_mut(poller).ok_or_else(|| errno(libc::EBADF))
    }
}

/// Forgotten bytes and clients.
impl Base {
    pub(super) const fn patience(&self) -> &Patience {
        &self.patience
    }

    pub(super) const fn set_patience(&mut self, limit: Duration) {
        self.patience.set_limit(limit);
    }

    /// Notes that something was taken from a file, or arrived at an empty one.
    pub(super) fn touch(&mut self, file: FileId) {
        self.patience.touch(file, self.schedule.now());
    }

    /// Schedules a check whether an arrival at a file has been taken.
    pub(super) fn check_later(&mut self, file: FileId) {
        if let Some(limit) = self.patience.limit() {
            let now = self.schedule.now();
            self.schedule.add_check(now + limit, Event::Patience(file, now));
        }
    }
}
