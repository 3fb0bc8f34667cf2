//! Finds bytes and clients that stay in a file for too long, while every thread that could take them waits for events.

use std::os::fd::RawFd;
use std::time::Duration;

use pollio::Interest;

use super::base::Base;
use super::event::Event;
use super::files::Kind;
use super::ids::FileId;
use super::tcp::Tcp;
use super::udp::Udp;
use super::unix::Pairs;
use super::unix_listeners::UnixListeners;

/// The files whose readiness and state decide.
pub(super) struct Streams<'a> {
    pub(super) tcp: &'a Tcp,
    pub(super) udp: &'a Udp,
    pub(super) pairs: &'a Pairs,
    pub(super) unix_listeners: &'a UnixListeners,
}

impl Streams<'_> {
    /// Whether there is something to take: bytes, a datagram, or a client.
    fn have_something(&self, kind: &Kind) -> bool {
        match kind {
            Kind::Tcp(socket) => self.tcp.has_something(*socket),
            Kind::Udp(socket) => self.udp.has_datagrams(*socket),
            Kind::Unix(end) => self.pairs.has_bytes(*end),
            Kind::UnixListener(id) => self.unix_listeners.has_clients(*id),
            _ => false,
        }
    }

    fn are_held_back(&self, kind: &Kind) -> bool {
        match kind {
            Kind::Tcp(socket) => self.tcp.is_held_back(*socket),
            Kind::Unix(end) => self.pairs.is_held_back(*end),
            _ => false,
        }
    }

    fn is_stream(&self, kind: &Kind) -> bool {
        match kind {
            Kind::Tcp(socket) => self.tcp.is_stream(*socket),
            Kind::Unix(_) => true,
            _ => false,
        }
    }

    /// Whether a file has something to take, and was not touched since `since`, although a thread that could take it
    /// waits for its poller. If that is not certain yet, another check follows.
    pub(super) fn are_forgotten(&self, id: FileId, since: Duration, base: &mut Base) -> bool {
        let Some(patience) = base.patience().limit() else { return false };
        let Some(file) = base.file(id).filter(|file| self.have_something(file.kind())) else {
            return false;
        };
        let (now, last) = (base.now(), base.patience().last_touched(id));
        if last > since {
            // Something was taken since: check again.
            let time = (last + patience).max(now + Duration::from_nanos(1));
            base.schedule_mut().add_check(time, Event::Patience(id, last));
            return false;
        }
        // A program without interest leaves it there on purpose.
        let asks = |(poller, fd): &&(FileId, RawFd)| {
            let object = base.files().list(*poller).and_then(|list| list.object((*fd, id)));
            object.is_some_and(|object| object.interest().contains(Interest::READABLE))
        };
        let pollers: Vec<_> =
            file.watchers().iter().filter(asks).map(|(poller, _)| *poller).collect();
        let waits = |poller: &FileId| {
            base.queue_of(*poller).is_some_and(|queue| base.schedule().has_waiters(queue))
        };
        let all_wait = !pollers.is_empty() && pollers.iter().all(waits);
        // A program that waits for room somewhere has a reason not to read.
        let is_held_back = self.is_stream(file.kind()) && {
            let lists = pollers.iter().filter_map(|poller| base.files().list(*poller));
            let mut watched = lists.flat_map(|list| list.registered().map(|(_, file)| file));
            watched.any(|file| base.files().kind(file).is_some_and(|k| self.are_held_back(k)))
        };
        if !all_wait || is_held_back {
            base.schedule_mut().add_check(now + patience, Event::Patience(id, since));
            return false;
        }
        true
    }
}
