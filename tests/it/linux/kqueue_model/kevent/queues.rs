//! The epoll instances of a kqueue, which watch its knotes.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use super::filter::eventfd;
use super::knote::Knote;
use super::{EVFILT_WRITE, EXCEPT, Filter};
use crate::linux::kqueue_model::sys::epoll;
use crate::support::kernel::Kernel;

/// The id of no filter and no knote.
pub(super) const QUEUED_ID: u64 = 0;

/// Ids of knotes are above the ids of the other epoll instances in the kqueue's own.
pub(super) const FIRST_ID: u64 = 1 << 16;

/// The epoll instances of a kqueue: the kqueue itself, and the others by filter.
pub(super) struct Queues {
    kernel: Kernel,
    others: BTreeMap<Filter, OwnedFd>,
}

impl Queues {
    pub(super) fn new(kernel: Kernel) -> Self {
        Self { kernel, others: BTreeMap::new() }
    }

    fn of<'a>(&'a mut self, kq: BorrowedFd<'a>, filter: Filter) -> io::Result<BorrowedFd<'a>> {
        if !matches!(filter, EVFILT_WRITE | EXCEPT) {
            return Ok(kq);
        }
        let queue: &OwnedFd = match self.others.entry(filter) {
            Entry::Occupied(queue) => queue.into_mut(),
            Entry::Vacant(place) => {
                let queue = epoll::create()?;
                epoll::add(kq, queue.as_raw_fd(), epoll::EPOLLIN, queue_id(filter))?;
                place.insert(queue)
            }
        };
        Ok(queue.as_fd())
    }

    /// Makes epoll report the knote: once for each arrival, or once until it is re-armed. If it is ready, epoll reports
    /// it now.
    pub(super) fn arm(&mut self, kq: BorrowedFd<'_>, id: u64, knote: &mut Knote) -> io::Result<()> {
        let filter = knote.registered.filter;
        let bits = match filter {
            EVFILT_WRITE => epoll::EPOLLOUT,
            // macOS reports any data from the low-water mark on, like EVFILT_READ. The mark is at most the size of the
            // buffer.
            EXCEPT if self.kernel == Kernel::Apple => {
                epoll::EPOLLPRI | epoll::EPOLLIN | epoll::EPOLLRDHUP
            }
            EXCEPT => epoll::EPOLLPRI | epoll::EPOLLRDHUP,
            _ => epoll::EPOLLIN | epoll::EPOLLRDHUP,
        };
        // An event that the filter drops must neither repeat nor be lost.
        let is_filtered = filter == EXCEPT && self.kernel == Kernel::Apple;
        let is_edge = knote.is_edge() || is_filtered;
        let often = if is_edge { epoll::EPOLLET } else { epoll::EPOLLONESHOT };
        let queue = self.of(kq, filter)?;
        let armed = match epoll::modify(queue, knote.watched(), bits | often, id) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                epoll::add(queue, knote.watched(), bits | often, id)
            }
            armed => armed,
        };
        match armed {
            // A file that epoll cannot watch, such as a regular one, is always ready.
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
                knote.own = Some(eventfd(true)?);
                self.arm(kq, id, knote)
            }
            armed => armed,
        }
    }

    pub(super) fn disarm(&mut self, kq: BorrowedFd<'_>, knote: &Knote) {
        // It fails for a descriptor that was closed in between, which is fine.
        let _ = self
            .of(kq, knote.registered.filter)
            .and_then(|queue| epoll::delete(queue, knote.watched()));
    }

    /// The ids and bits of up to `room` knotes that are ready.
    pub(super) fn ready(&self, kq: BorrowedFd<'_>, room: usize) -> io::Result<Vec<(u64, u32)>> {
        let wait = |queue, room| {
            let mut events = vec![epoll::NO_EVENT; room];
            let count = if room == 0 { 0 } else { epoll::wait(queue, &mut events, 0)? };
            events.truncate(count);
            Ok::<_, io::Error>(events.into_iter().map(|event| (event.u64, event.events)))
        };
        let (mut ready, queues): (Vec<_>, Vec<_>) =
            wait(kq, room)?.partition(|(id, _)| *id > FIRST_ID);
        for (filter, queue) in &self.others {
            let room = room - ready.len();
            if room > 0 && queues.iter().any(|(id, _)| *id == queue_id(*filter)) {
                ready.extend(wait(queue.as_fd(), room)?);
            }
        }
        Ok(ready)
    }
}

fn queue_id(filter: Filter) -> u64 {
    filter.unsigned_abs().into()
}
