//! Files, to which descriptors refer, and the threads and pollers that wait for them.

use std::mem;
use std::os::fd::RawFd;
use std::time::Duration;

use pollio::{Interest, Mode, Readiness};

use super::event::Event;
use super::ids::{EndId, FileId, SocketId};
use super::interests::{InterestList, Key};
use super::timer::Timer;
use crate::schedule::{QueueId, Schedule};

/// The target of a descriptor, like an open file description.
pub(crate) struct File {
    kind: Kind,
    /// The number of its descriptors.
    descriptors: usize,
    settings: Settings,
    /// The threads that it blocks.
    queue: QueueId,
    /// The pollers that watch it, each with the number that it has there.
    watchers: Vec<(FileId, RawFd)>,
}

pub(crate) enum Kind {
    /// A scripted descriptor.
    Scripted(Readiness),
    Tcp(SocketId),
    Udp(SocketId),
    /// One end of a pair, or of a connection that a Unix listener accepts.
    Unix(EndId),
    UnixListener(SocketId),
    Timer(Timer),
    Poller(InterestList),
}

/// The settings of a file.
#[derive(Debug, Default, Clone, Copy)]
pub(crate) struct Settings {
    pub(crate) is_nonblocking: bool,
    pub(crate) read_timeout: Option<Duration>,
    pub(crate) write_timeout: Option<Duration>,
}

impl File {
    pub(super) const fn kind(&self) -> &Kind {
        &self.kind
    }

    pub(super) const fn kind_mut(&mut self) -> &mut Kind {
        &mut self.kind
    }

    pub(super) const fn settings(&self) -> Settings {
        self.settings
    }

    pub(super) const fn settings_mut(&mut self) -> &mut Settings {
        &mut self.settings
    }

    pub(super) const fn queue(&self) -> QueueId {
        self.queue
    }

    pub(super) fn watchers(&self) -> &[(FileId, RawFd)] {
        &self.watchers
    }

    pub(super) const fn add_descriptor(&mut self) {
        self.descriptors += 1;
    }

    /// Returns whether it was the last one.
    pub(super) const fn remove_descriptor(&mut self) -> bool {
        self.descriptors -= 1;
        self.descriptors == 0
    }
}

#[derive(Default)]
pub(super) struct Files(Vec<Option<File>>);

impl Files {
    pub(super) fn add(&mut self, kind: Kind, queue: QueueId) -> FileId {
        let settings = Settings::default();
        let file = File { kind, descriptors: 0, settings, queue, watchers: Vec::new() };
        self.0.push(Some(file));
        FileId(self.0.len() - 1)
    }

    pub(super) fn get(&self, id: FileId) -> Option<&File> {
        self.0.get(id.0)?.as_ref()
    }

    pub(super) fn get_mut(&mut self, id: FileId) -> Option<&mut File> {
        self.0.get_mut(id.0)?.as_mut()
    }

    pub(super) fn kind(&self, id: FileId) -> Option<&Kind> {
        self.get(id).map(File::kind)
    }

    /// The file that blocks the threads of this queue.
    pub(super) fn of_queue(&self, queue: QueueId) -> Option<FileId> {
        let index =
            self.0.iter().position(|file| file.as_ref().is_some_and(|file| file.queue == queue));
        index.map(FileId)
    }

    pub(super) fn list(&self, poller: FileId) -> Option<&InterestList> {
        match self.kind(poller) {
            Some(Kind::Poller(list)) => Some(list),
            _ => None,
        }
    }

    pub(super) fn list_mut(&mut self, poller: FileId) -> Option<&mut InterestList> {
        match self.get_mut(poller).map(File::kind_mut) {
            Some(Kind::Poller(list)) => Some(list),
            _ => None,
        }
    }

    /// Removes a file, also from the pollers that watch it and, if it is a poller, from the files that it watches.
    pub(super) fn remove(&mut self, id: FileId) -> Option<Kind> {
        let file = self.0.get_mut(id.0)?.take()?;
        for (poller, fd) in file.watchers {
            if let Some(list) = self.list_mut(poller) {
                list.forget((fd, id));
            }
        }
        if let Kind::Poller(list) = &file.kind {
            for (_, watched) in list.registered() {
                if let Some(file) = self.get_mut(watched) {
                    file.watchers.retain(|(poller, _)| *poller != id);
                }
            }
        }
        Some(file.kind)
    }

    /// Removes a closed number of a file that stays open from the pollers that watch it. Returns whether there were
    /// any.
    pub(super) fn unwatch_number(&mut self, fd: RawFd, file: FileId) -> bool {
        let Some(watched) = self.get_mut(file) else { return false };
        let watchers = mem::take(&mut watched.watchers).into_iter();
        let (removed, left): (Vec<_>, _) = watchers.partition(|(_, number)| *number == fd);
        watched.watchers = left;
        for (poller, _) in &removed {
            if let Some(list) = self.list_mut(*poller) {
                list.forget((fd, file));
            }
        }
        !removed.is_empty()
    }

    /// Whether a poller watches a file for edges of `interest`.
    pub(super) fn has_edges(&self, id: FileId, interest: Interest) -> bool {
        self.get(id).is_some_and(|file| {
            file.watchers.iter().any(|(poller, fd)| {
                let object = self.list(*poller).and_then(|list| list.object((*fd, id)));
                object.is_some_and(|object| {
                    object.mode() == Mode::Edge && object.interest().contains(interest)
                })
            })
        })
    }

    pub(super) fn watch(&mut self, poller: FileId, (fd, file): Key) {
        if let Some(file) = self.get_mut(file) {
            file.watchers.push((poller, fd));
        }
    }

    pub(super) fn unwatch(&mut self, poller: FileId, (fd, file): Key) {
        if let Some(file) = self.get_mut(file) {
            file.watchers.retain(|watcher| *watcher != (poller, fd));
        }
    }

    /// Reports an arrival at a file to the threads that it blocks, and to the pollers whose registration asks for it.
    pub(super) fn notify(
        &mut self,
        id: FileId,
        arrival: Readiness,
        schedule: &mut Schedule<Event>,
    ) {
        let Some(file) = self.get(id) else { return };
        schedule.wake_all(file.queue);
        match file.watchers[..] {
            [] => {}
            [(poller, fd)] => {
                self.queue(poller, (fd, id), arrival, schedule);
            }
            _ => self.notify_watchers(id, arrival, schedule),
        }
    }

    /// Notifies all registrations that are not exclusive, and one waiting one of those that are.
    fn notify_watchers(&mut self, id: FileId, arrival: Readiness, schedule: &mut Schedule<Event>) {
        let Some(file) = self.get(id) else { return };
        let mut watchers = file.watchers.clone();
        let start = schedule.random().index(watchers.len());
        watchers.rotate_left(start);
        let mut has_woken = false;
        for (poller, fd) in watchers {
            let Some(list) = self.list(poller) else { continue };
            if list.is_exclusive((fd, id)) {
                has_woken = has_woken || self.queue(poller, (fd, id), arrival, schedule);
            } else {
                self.queue(poller, (fd, id), arrival, schedule);
            }
        }
    }

    /// Queues a registration for the next wait, if it asks for `arrival`. Returns whether that woke a thread.
    pub(super) fn queue(
        &mut self,
        poller: FileId,
        key: Key,
        arrival: Readiness,
        schedule: &mut Schedule<Event>,
    ) -> bool {
        let Some(file) = self.get_mut(poller) else { return false };
        let queue = file.queue;
        let Kind::Poller(list) = &mut file.kind else { return false };
        list.queue(key, arrival) && schedule.wake_one(queue)
    }
}
