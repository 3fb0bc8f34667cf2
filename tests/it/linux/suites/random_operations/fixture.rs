//! The descriptors of a sequence, and the model of their registrations.

use std::fs;
use std::io;
use std::net::Shutdown;
use std::os::fd::RawFd;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::poll::{PollFlags, PollTimeout, poll};
use pollio::{Event, EventKind, EventObject, Poller, Readiness, Registry};

use super::ledger::Ledger;
use super::operation::{Amount, Asked, End, Operation, What, Which};
use super::watched::{LONG, Watched, bits};
use crate::support::kernel::Kernel;

/// A slot for a descriptor and its duplicates.
struct Slot {
    what: What,
    watched: Option<Watched>,
    /// The number of the last descriptor here.
    last: Option<RawFd>,
}

/// The descriptors of a sequence, and the model of their registrations.
pub(super) struct Fixture {
    kernel: Kernel,
    registry: Registry,
    slots: Vec<Slot>,
    /// The token of the next registration. No two have the same.
    token: u32,
    /// The least number of events that a wait has room for.
    capacity: usize,
    waits: u32,
    /// The reports of another thread's wait, while this one registers.
    ledger: Option<Arc<Ledger>>,
}

impl Fixture {
    /// A fixture of one thread, which waits in between.
    pub(super) fn of_one_thread(
        kernel: Kernel,
        registry: Registry,
        slots: &[What],
        capacity: usize,
    ) -> Self {
        let slots = slots.iter().map(|what| Slot { what: *what, watched: None, last: None });
        let token = u32::MAX - 8; // it wraps
        let slots = slots.collect();
        Self { kernel, registry, slots, token, capacity, waits: 0, ledger: None }
    }

    /// A fixture of one of several threads, with tokens from `token` on.
    pub(super) fn beside_others(
        kernel: Kernel,
        ledger: Arc<Ledger>,
        slots: &[What],
        token: u32,
    ) -> Self {
        let registry = Registry::new(ledger.clone());
        let fixture = Self::of_one_thread(kernel, registry, slots, 0);
        Self { token, ledger: Some(ledger), ..fixture }
    }

    /// Does every operation but the waits.
    pub(super) fn operate(&mut self, operation: Operation) -> Result<(), String> {
        match operation {
            Operation::Wait | Operation::WaitForAll => Ok(()),
            Operation::Add(which, asked) => {
                self.register(which, |fixture, fd| fixture.add(fd, asked))
            }
            Operation::Modify(which, asked) => {
                self.register(which, |fixture, fd| fixture.modify(fd, asked))
            }
            Operation::Delete(which) => self.register(which, Self::delete),
            Operation::Write(slot, end, amount) => {
                self.act(slot, |watched, kernel| watched.write(kernel, end, amount))
            }
            Operation::Read(slot, end, amount) => self.act(slot, |watched, _| {
                watched.read(end, amount);
                Ok(())
            }),
            Operation::WriteOutOfBand(slot) => self.act(slot, Watched::write_out_of_band),
            // On these kernels a socket that is shut down for reading reports no later reset as an edge: `sorflush`.
            Operation::Shutdown(_, End::Near, how)
                if matches!(self.kernel, Kernel::FreeBsd | Kernel::NetBsd)
                    && how != Shutdown::Write =>
            {
                Ok(())
            }
            Operation::Shutdown(slot, end, how) => {
                self.act(slot, |watched, _| watched.shutdown(end, how))
            }
            Operation::CloseFar(slot) => self.act(slot, |watched, _| watched.close_far(false)),
            Operation::ResetFar(slot) => self.act(slot, |watched, _| watched.close_far(true)),
            Operation::Duplicate(slot) => self.act(slot, |watched, _| {
                watched.duplicate();
                Ok(())
            }),
            Operation::Close(Which(slot, nth)) => self.close(slot, nth),
            Operation::Open(slot, what) => {
                while self.slots[slot].watched.is_some() {
                    self.close(slot, 0)?;
                }
                self.slots[slot].what = what;
                self.slots[slot].last = None;
                self.open(slot);
                Ok(())
            }
        }
    }

    /// Opens a slot that was never opened.
    fn open(&mut self, slot: usize) {
        let Slot { what, watched, last } = &mut self.slots[slot];
        if last.is_none() {
            let new = Watched::open(what.on(self.kernel));
            *last = Some(new.nears[0].number());
            *watched = Some(new);
        }
    }

    /// Acts on the open descriptor of a slot, if there is one.
    fn act(
        &mut self,
        slot: usize,
        act: impl FnOnce(&mut Watched, Kernel) -> Result<(), String>,
    ) -> Result<(), String> {
        self.open(slot);
        let Some(watched) = &mut self.slots[slot].watched else { return Ok(()) };
        if let Some(ledger) = &self.ledger {
            // From here on, a report may be about this action.
            for registration in &mut watched.registrations {
                registration.learn(ledger.reported(registration.object.token));
            }
        }
        let before = watched.bits();
        act(watched, self.kernel)?;
        let after = watched.bits();
        watched.touch(self.kernel, after - before);
        Ok(())
    }

    /// Closes one descriptor of a slot. Deletes it first only if another thread could get its number.
    fn close(&mut self, slot: usize, nth: usize) -> Result<(), String> {
        self.open(slot);
        let Slot { watched: place, last, .. } = &mut self.slots[slot];
        let Some(watched) = place else { return Ok(()) };
        let fd = watched.nears[nth % watched.nears.len()].number();
        if self.ledger.is_some() && watched.is_registered(fd) {
            watched.forget(fd);
            check("delete", EventObject::client(fd), self.registry.delete(fd), Ok(()))?;
        }
        watched.nears.retain(|near| near.number() != fd);
        *last = Some(fd);
        if self.kernel.is_kqueue() {
            watched.forget(fd);
        }
        let may_be_mistaken = watched.what.is_anonymous() || !watched.nears.is_empty();
        if watched.nears.is_empty() {
            *place = None;
        }
        if self.kernel.is_kqueue() && may_be_mistaken && self.ledger.is_none() {
            // The model of kqueue does not see a close, and would take the next file with the number for the same one.
            self.delete(fd)?;
        }
        Ok(())
    }

    /// Registers by number, also a closed one, unless a file outside the slots has the number by now.
    fn register(
        &mut self,
        Which(slot, nth): Which,
        register: impl FnOnce(&mut Self, RawFd) -> Result<(), String>,
    ) -> Result<(), String> {
        self.open(slot);
        let Slot { watched, last, .. } = &self.slots[slot];
        let fd = match watched {
            Some(watched) => watched.nears[nth % watched.nears.len()].number(),
            None if self.ledger.is_some() => return Ok(()),
            None => last.expect("it was opened"),
        };
        let is_foreign = self.holder(fd).is_none() && is_open(fd);
        if is_foreign { Ok(()) } else { register(self, fd) }
    }

    /// The descriptor with this number, if it is in a slot.
    fn holder(&mut self, fd: RawFd) -> Option<&mut Watched> {
        let mut watched = self.slots.iter_mut().filter_map(|slot| slot.watched.as_mut());
        watched.find(|watched| watched.nears.iter().any(|near| near.number() == fd))
    }

    fn object(&mut self, fd: RawFd, asked: Asked) -> EventObject {
        let Asked { kind, interest, mode } = asked;
        let kernel = self.kernel;
        let interest =
            self.holder(fd).map_or(interest, |watched| watched.what.interest(interest, kernel));
        self.token = self.token.wrapping_add(1);
        let object = match kind {
            EventKind::Server => EventObject::server(fd),
            EventKind::Client => EventObject::client(fd),
        };
        object.with_interest(interest).with_mode(mode).with_token(self.token)
    }

    fn add(&mut self, fd: RawFd, asked: Asked) -> Result<(), String> {
        let object = self.object(fd, asked);
        let kernel = self.kernel;
        let expected = match self.holder(fd) {
            None => Err(Errno::EBADF),
            Some(watched) if kernel == Kernel::Epoll && watched.is_registered(fd) => {
                Err(Errno::EEXIST)
            }
            Some(watched) => watched.register(kernel, object),
        };
        check("add", object, self.registry.add(object), expected)
    }

    fn modify(&mut self, fd: RawFd, asked: Asked) -> Result<(), String> {
        let object = self.object(fd, asked);
        let kernel = self.kernel;
        let expected = match self.holder(fd) {
            None => Err(unknown(kernel)),
            Some(watched) if !watched.is_registered(fd) => Err(Errno::ENOENT),
            Some(watched) => watched.register(kernel, object),
        };
        check("modify", object, self.registry.modify(object), expected)
    }

    fn delete(&mut self, fd: RawFd) -> Result<(), String> {
        let kernel = self.kernel;
        let expected = match self.holder(fd) {
            None => Err(unknown(kernel)),
            Some(watched) if !watched.is_registered(fd) => Err(Errno::ENOENT),
            Some(watched) => {
                watched.forget(fd);
                Ok(())
            }
        };
        check("delete", EventObject::client(fd), self.registry.delete(fd), expected)
    }

    /// Writes to every open descriptor.
    pub(super) fn write_to_all(&mut self) -> Result<(), String> {
        for slot in 0..self.slots.len() {
            if self.slots[slot].watched.is_some() {
                self.operate(Operation::Write(slot, End::Far, Amount::One))?;
            }
        }
        Ok(())
    }

    /// Enough waits for a turn of every registration, from any size of the buffer: it doubles.
    pub(super) fn wait_for_all(&mut self, poller: &mut impl Poller) -> Result<(), String> {
        const ENOUGH: u32 = 12;
        for wait in 1..=ENOUGH {
            if self.wait(poller, wait == ENOUGH)? {
                break;
            }
        }
        Ok(())
    }

    /// Waits, and returns whether there was room for more. With `is_all`, there must be room.
    pub(super) fn wait(&mut self, poller: &mut impl Poller, is_all: bool) -> Result<bool, String> {
        let start = Instant::now();
        loop {
            let before = self.bits();
            let reported = poller.wait(0).unwrap().to_vec();
            let after = self.bits();
            let is_all = is_all || self.is_all(reported.len());
            match self.check_reported(&reported, &before, &after, is_all)? {
                Some(lost) if start.elapsed() > LONG => return Err(lost),
                Some(_) => thread::sleep(Duration::from_micros(50)),
                None => return Ok(is_all),
            }
        }
    }

    /// Whether a wait that reported `reported` events had room for more.
    fn is_all(&self, reported: usize) -> bool {
        // On kqueue each interest is a kevent, and one that is dropped because it was reported before takes room too.
        let watched = self.slots.iter().filter_map(|slot| slot.watched.as_ref());
        let registered = watched.map(|watched| watched.registrations.len()).sum::<usize>();
        let taken = if self.kernel.is_kqueue() { registered * 3 } else { reported };
        taken < self.capacity
    }

    /// Waits until the other thread's wait has reported everything that it must.
    pub(super) fn await_reported(&mut self) -> Result<(), String> {
        let Some(ledger) = self.ledger.clone() else { return Ok(()) };
        let start = Instant::now();
        let mut reported = Vec::new();
        loop {
            if let Some(failure) = ledger.failure() {
                return Err(failure);
            }
            let bits = self.bits();
            let mut lost = None;
            for (slot, bits) in self.slots.iter_mut().zip(bits) {
                let Some(watched) = &mut slot.watched else { continue };
                let polled = watched.polled(bits, bits);
                for registration in &mut watched.registrations {
                    let object = registration.object;
                    if registration.learn(ledger.reported(object.token)) {
                        reported.push(object.token);
                    }
                    // A level repeats, so one report is enough.
                    if registration.lost(self.kernel, polled) != Readiness::NONE
                        && !reported.contains(&object.token)
                    {
                        lost = Some(format!("{object:?} is not reported"));
                    }
                }
            }
            match lost {
                Some(lost) if start.elapsed() > LONG => return Err(lost),
                Some(_) => thread::sleep(Duration::from_micros(20)),
                None => return Ok(()),
            }
        }
    }

    /// The bits of poll(2) for each slot.
    fn bits(&self) -> Vec<PollFlags> {
        let watched = || self.slots.iter().filter_map(|slot| slot.watched.as_ref());
        let mut entries: Vec<_> = watched().flat_map(Watched::entries).collect();
        poll(&mut entries, PollTimeout::ZERO).unwrap();
        let mut polled = entries.chunks(2);
        let bits = |slot: &Slot| slot.watched.as_ref().map(|_| bits(polled.next().unwrap()));
        self.slots.iter().map(bits).map(|bits| bits.unwrap_or(PollFlags::empty())).collect()
    }

    /// Checks the reports of a wait. Returns the registrations that may still be reported.
    fn check_reported(
        &mut self,
        reported: &[Event],
        before: &[PollFlags],
        after: &[PollFlags],
        is_all: bool,
    ) -> Result<Option<String>, String> {
        self.waits += 1;
        let (waits, kernel) = (self.waits, self.kernel);
        let mut registrations = Vec::new();
        for (slot, (before, after)) in self.slots.iter_mut().zip(before.iter().zip(after)) {
            let Some(watched) = &mut slot.watched else { continue };
            let polled = watched.polled(*before, *after);
            registrations.extend(watched.registrations.iter_mut().map(|one| (one, polled)));
        }
        for event in reported {
            let registration = registrations
                .iter_mut()
                .find(|(registration, _)| registration.object.token == event.token);
            let Some((registration, polled)) = registration else {
                return Err(format!("{event:?} was reported, which is not registered"));
            };
            if registration.reported_in == waits {
                return Err(format!("{event:?} was reported twice in a wait"));
            }
            registration.reported_in = waits;
            registration.report(kernel, event, *polled, is_all)?;
        }
        let mut late = None;
        for (registration, polled) in registrations {
            if registration.reported_in == waits || !is_all {
                continue;
            }
            let lost = registration.lost(kernel, polled);
            if lost == Readiness::NONE {
                registration.forget_arrivals();
                continue;
            }
            let lost = format!("{:?} was not reported with {lost:?}", registration.object);
            if !polled.takes_its_time {
                return Err(lost);
            }
            late = Some(lost);
        }
        Ok(late)
    }
}

/// The error of `modify` and `delete` for a number that is not open.
fn unknown(kernel: Kernel) -> Errno {
    if kernel == Kernel::Apple { Errno::ENOENT } else { Errno::EBADF }
}

/// Checks that a call had the expected outcome.
fn check(
    verb: &str,
    object: EventObject,
    outcome: io::Result<()>,
    expected: Result<(), Errno>,
) -> Result<(), String> {
    let outcome = outcome.map_err(|error| Errno::from_raw(error.raw_os_error().unwrap()));
    if outcome == expected {
        return Ok(());
    }
    Err(format!("{verb} of {object:?} is {outcome:?}, not {expected:?}"))
}

fn is_open(fd: RawFd) -> bool {
    fs::symlink_metadata(format!("/proc/self/fd/{fd}")).is_ok()
}
