//! A kqueue: its table of knotes, the changes to it, and the events from it.

use std::collections::HashMap;
use std::fs::{File, Metadata};
use std::io::{self, Write};
use std::os::fd::{AsRawFd, BorrowedFd};
use std::time::Duration;

use nix::errno::Errno;

use super::filter::{self, eventfd, expirations};
use super::knote::{Knote, Seen};
use super::queues::{FIRST_ID, QUEUED_ID, Queues};
use super::state::{self, named};
use super::{
    EV_ADD, EV_CLEAR, EV_DELETE, EV_DISABLE, EV_DISPATCH, EV_ENABLE, EV_ONESHOT, EVFILT_PROC,
    EVFILT_READ, EVFILT_TIMER, EVFILT_USER, EVFILT_WRITE, EXCEPT, Filter, Flags, Kevent,
};
use crate::linux::kqueue_model::sys::epoll;
use crate::support::kernel::Kernel;

/// The knotes of one kqueue.
pub(super) struct Kqueue {
    pub(super) kernel: Kernel,
    /// The number of polls so far without an event.
    empty_polls: u32,
    /// The number of threads that wait.
    pub(super) waiting: u32,
    /// The number of reports of knotes that dispatch.
    dispatched: u32,
    queues: Queues,
    knotes: HashMap<u64, Knote>,
    ids: HashMap<(Filter, usize), u64>,
    last_id: u64,
    /// See [`fail_next`].
    pub(super) failing: Option<(Flags, Errno)>,
    /// Readable while a reported level is queued again, until a wait checks whether it still holds. Created with the
    /// first such level.
    queued: Option<File>,
}

impl Kqueue {
    pub(super) fn new(kernel: Kernel) -> Self {
        Self {
            kernel,
            empty_polls: 0,
            waiting: 0,
            dispatched: 0,
            queues: Queues::new(kernel),
            knotes: HashMap::new(),
            ids: HashMap::new(),
            last_id: 0,
            failing: None,
            queued: None,
        }
    }

    /// Whether a signal ends this poll, which found no event: without KEVENT_FLAG_IMMEDIATE macOS sleeps all the same
    /// (`kqueue_scan_continue`). In the model, now and then.
    pub(super) fn is_interrupted(&mut self, timeout: Option<Duration>) -> bool {
        if self.kernel != Kernel::Apple || timeout != Some(Duration::ZERO) {
            return false;
        }
        self.empty_polls += 1;
        self.empty_polls % 5 == 0
    }

    pub(super) fn change(&mut self, kq: BorrowedFd<'_>, change: &Kevent) -> io::Result<()> {
        let key = (change.filter, change.ident);
        let named = match change.filter {
            EVFILT_READ | EVFILT_WRITE | EXCEPT => named(change.ident),
            // NetBSD has had it since 10.
            EVFILT_USER if self.kernel != Kernel::NetBsd => None,
            EVFILT_PROC | EVFILT_TIMER => None,
            _ => return Err(Errno::EINVAL.into()),
        };
        // NetBSD accepts it: `kqueue_register`.
        let is_both = change.has(EV_ENABLE) && change.has(EV_DISABLE);
        if is_both && self.kernel != Kernel::NetBsd {
            return Err(Errno::EINVAL.into());
        }
        let mut id = self.ids.get(&key).copied();
        if let Some(closed) = id.filter(|id| !self.knotes[id].is_of(named.as_ref())) {
            self.forget(closed);
            id = None;
        }
        // macOS checks the descriptor only for EV_ADD, and has no knote of a bad one: `knote_fdfind`.
        let looks = self.kernel != Kernel::Apple || change.has(EV_ADD);
        let is_of_descriptor = matches!(change.filter, EVFILT_READ | EVFILT_WRITE | EXCEPT);
        if looks && is_of_descriptor && named.is_none() {
            return Err(Errno::EBADF.into());
        }
        match id {
            None if change.has(EV_ADD) => self.attach(kq, change, named),
            None => Err(Errno::ENOENT.into()),
            Some(id) if change.has(EV_DELETE) => {
                self.take_off_the_queue();
                if self.knotes[&id].is_enabled {
                    self.queues.disarm(kq, &self.knotes[&id]);
                }
                self.forget(id);
                Ok(())
            }
            Some(id) => self.touch(kq, id, change),
        }
    }

    fn attach(
        &mut self,
        kq: BorrowedFd<'_>,
        change: &Kevent,
        named: Option<Metadata>,
    ) -> io::Result<()> {
        let mut registered = *change;
        let own = filter::attach(self.kernel, &mut registered, named.as_ref())?;
        self.last_id += 1;
        let id = FIRST_ID + self.last_id;
        let is_enabled = !change.has(EV_DISABLE);
        let seen = Seen {
            is_listener: change.filter == EVFILT_READ && state::is_listener(change.ident),
            ..Seen::default()
        };
        let mut knote = Knote { registered, is_enabled, named, own, seen };
        if is_enabled {
            self.queues.arm(kq, id, &mut knote)?;
        }
        self.ids.insert((change.filter, change.ident), id);
        self.knotes.insert(id, knote);
        Ok(())
    }

    /// Changes an existing knote. Its flags stay, so it clears, dispatches or ends as before.
    fn touch(&mut self, kq: BorrowedFd<'_>, id: u64, change: &Kevent) -> io::Result<()> {
        let kernel = self.kernel;
        let knote = self.knotes.get_mut(&id).expect("its id is known");
        // `kqueue_register` of OpenBSD and NetBSD takes these from EV_ADD only, that of the others from every change. A
        // user event takes them from every change (`filt_usermodify`), on DragonFly BSD from none.
        let takes_all = !matches!(kernel, Kernel::OpenBsd | Kernel::NetBsd);
        let takes = match change.filter {
            EVFILT_USER => kernel != Kernel::DragonFly,
            _ => takes_all || change.has(EV_ADD),
        };
        if takes {
            let Kevent { fflags, data, udata, .. } = *change;
            knote.registered = Kevent { fflags, data, udata, ..knote.registered };
        }
        knote.touch(kernel, change)?;
        knote.seen.was_full = false;
        let was_enabled = knote.is_enabled;
        knote.is_enabled = !change.has(EV_DISABLE) && (was_enabled || change.has(EV_ENABLE));
        match (was_enabled, knote.is_enabled) {
            (true, false) => self.queues.disarm(kq, knote),
            (false, true) => self.queues.arm(kq, id, knote)?,
            // A kernel that takes all of a change also runs the filter: `kqueue_register`.
            (true, true) if change.has(EV_ADD) || takes_all => self.queues.arm(kq, id, knote)?,
            _ => {}
        }
        Ok(())
    }

    fn forget(&mut self, id: u64) {
        if let Some(Knote { registered, .. }) = self.knotes.remove(&id) {
            self.ids.remove(&(registered.filter, registered.ident));
        }
    }

    /// Reports active knotes, as many as there is room for: all readable ones before all writable ones, whatever the
    /// number of descriptors.
    pub(super) fn collect(
        &mut self,
        kq: BorrowedFd<'_>,
        events: &mut [Kevent],
    ) -> io::Result<usize> {
        self.take_off_the_queue();
        self.look_for_full_datagram_sockets();
        let mut active = self.more_edges(events.len());
        active.retain(|(id, _)| self.is_there(*id));
        loop {
            let mut found = self.queues.ready(kq, events.len() - active.len())?;
            let count = found.len();
            found.retain(|(id, bits)| self.is_there(*id) && !self.is_silent(*id, *bits));
            let is_done = found.len() == count;
            active.retain(|(id, _)| found.iter().all(|(other, _)| id != other));
            active.append(&mut found);
            if is_done {
                break;
            }
        }
        for (event, (id, bits)) in events.iter_mut().zip(&active) {
            *event = self.report(kq, *id, *bits);
        }
        let is_level = |event: &Kevent| event.flags & (EV_CLEAR | EV_DISPATCH | EV_ONESHOT) == 0;
        if events[..active.len()].iter().any(is_level) {
            self.put_back_on_the_queue(kq)?;
        }
        Ok(active.len())
    }

    /// Queues a reported level again, so that the kqueue is readable: `filt_kqueue`, `kqueue_poll`.
    fn put_back_on_the_queue(&mut self, kq: BorrowedFd<'_>) -> io::Result<()> {
        if !matches!(self.kernel, Kernel::Apple | Kernel::FreeBsd | Kernel::NetBsd) {
            return Ok(());
        }
        let queued = match &mut self.queued {
            Some(queued) => queued,
            none => {
                let queued = none.insert(eventfd(false)?);
                epoll::add(kq, queued.as_raw_fd(), epoll::EPOLLIN, QUEUED_ID)?;
                queued
            }
        };
        queued.write_all(&1_u64.to_ne_bytes())
    }

    fn take_off_the_queue(&mut self) {
        self.queued.as_mut().map(expirations);
    }

    /// Notes the full sockets, on systems where a read of the peer is no edge.
    fn look_for_full_datagram_sockets(&mut self) {
        if self.kernel == Kernel::Apple {
            self.knotes.values_mut().for_each(Knote::look_whether_it_is_full);
        }
    }

    /// The edges of this kernel that epoll does not have, by the changes of the descriptor.
    fn more_edges(&mut self, room: usize) -> Vec<(u64, u32)> {
        let kernel = self.kernel;
        let news = |(id, knote): (&u64, &mut Knote)| {
            let bits = (knote.is_edge() && knote.is_enabled).then(|| knote.more_edges(kernel));
            bits.flatten().map(|bits| (*id, bits))
        };
        self.knotes.iter_mut().filter_map(news).take(room).collect()
    }

    /// Whether this kernel does not report these bits of epoll.
    fn is_silent(&mut self, id: u64, bits: u32) -> bool {
        let kernel = self.kernel;
        self.knotes.get_mut(&id).is_some_and(|knote| knote.is_silent(kernel, bits))
    }

    /// Epoll keeps reporting a closed descriptor while a duplicate is open.
    fn is_there(&mut self, id: u64) -> bool {
        let Some(knote) = self.knotes.get(&id) else { return false };
        let is_there = knote.named.is_none() || knote.is_of(named(knote.registered.ident).as_ref());
        if !is_there {
            self.forget(id);
        }
        is_there
    }

    fn report(&mut self, kq: BorrowedFd<'_>, id: u64, bits: u32) -> Kevent {
        let kernel = self.kernel;
        let knote = self.knotes.get_mut(&id).expect("it is there");
        let event = knote.event(kernel, bits);
        // NetBSD looks at EV_CLEAR first, and then no further: `kqueue_scan`.
        let dispatches =
            event.has(EV_DISPATCH) && !(kernel == Kernel::NetBsd && event.has(EV_CLEAR));
        // It unlocks the queue while it runs the filter, so two waits may report one knote.
        self.dispatched += u32::from(dispatches);
        let is_for_two = kernel == Kernel::NetBsd && self.waiting > 1 && self.dispatched % 8 == 0;
        if event.has(EV_ONESHOT) {
            self.queues.disarm(kq, knote);
            self.forget(id);
        } else if dispatches && !is_for_two {
            knote.is_enabled = false;
            self.queues.disarm(kq, knote);
        } else if !knote.is_edge() && self.queues.arm(kq, id, knote).is_err() {
            self.forget(id);
        }
        event
    }
}
