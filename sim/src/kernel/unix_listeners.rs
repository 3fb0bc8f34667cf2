//! Unix listeners, by the rules of Linux: the files that they are bound to, and the clients in their queues.

use std::collections::{BTreeMap, VecDeque};
use std::io::{self, ErrorKind};
use std::mem;
use std::path::{Path, PathBuf};

use pollio::Readiness;

use super::base::Base;
use super::errno::errno;
use super::files::Kind;
use super::ids::{EndId, FileId, SocketId};
use super::rules::Rule;
use super::unix::Pairs;

/// The length of the queue that the standard library asks for: as long as Linux allows.
const BACKLOG: usize = 4096;

/// A path with as many bytes is too long where [`Rule::UnixPathsAreShort`] applies.
const SHORT_PATH: usize = 104;

#[derive(Default)]
pub(super) struct UnixListeners {
    list: Vec<Listener>,
    /// The files, each with the listener that was bound to it last. A file outlives its listener.
    names: BTreeMap<PathBuf, SocketId>,
}

struct Listener {
    /// None after it is closed.
    file: Option<FileId>,
    path: PathBuf,
    queue: VecDeque<EndId>,
    backlog: usize,
    /// The sockets that wait for room in the queue.
    connecting: Vec<FileId>,
}

impl UnixListeners {
    /// Listens at a path, which becomes the name of a file.
    pub(super) fn bind(&mut self, path: &Path, base: &mut Base) -> io::Result<FileId> {
        check_length(path, base)?;
        if self.names.contains_key(path) {
            return Err(errno(libc::EADDRINUSE));
        }
        let id = SocketId(self.list.len());
        let file = base.add_file(Kind::UnixListener(id));
        self.names.insert(path.to_owned(), id);
        self.list.push(Listener {
            file: Some(file),
            path: path.to_owned(),
            queue: VecDeque::new(),
            backlog: BACKLOG,
            connecting: Vec::new(),
        });
        Ok(file)
    }

    /// Removes the name of a file. A listener that has it goes on, and nobody can connect to it.
    pub(super) fn remove_file(&mut self, path: &Path) -> io::Result<()> {
        self.names.remove(path).map(drop).ok_or_else(|| errno(libc::ENOENT))
    }

    pub(super) fn path(&self, id: SocketId) -> &Path {
        &self.list[id.0].path
    }

    /// Changes the length of the queue.
    pub(super) fn listen(&mut self, id: SocketId, backlog: usize, base: &mut Base) {
        let listener = &mut self.list[id.0];
        listener.backlog = backlog.min(BACKLOG);
        listener.wake_connecting(base);
    }

    /// Connects an end, and puts its peer into the queue of the listener at `path`. If the queue is full, the file of
    /// the end is notified when it may have room, or has no listener any more.
    pub(super) fn connect(
        &mut self,
        (file, end): (FileId, EndId),
        path: &Path,
        pairs: &mut Pairs,
        base: &mut Base,
    ) -> io::Result<()> {
        check_length(path, base)?;
        let id = *self.names.get(path).ok_or_else(|| errno(libc::ENOENT))?;
        let listener = &mut self.list[id.0];
        let Some(listening) = listener.file else { return Err(errno(libc::ECONNREFUSED)) };
        if listener.queue.len() > listener.backlog {
            if base.applies(Rule::FullUnixQueueRefuses) {
                return Err(errno(libc::ECONNREFUSED));
            }
            if !listener.connecting.contains(&file) {
                listener.connecting.push(file);
            }
            return Err(errno(libc::EAGAIN));
        }
        if listener.queue.is_empty() {
            base.touch(listening);
        }
        pairs.set_path(end.peer(), &listener.path);
        listener.queue.push_back(end.peer());
        // Linux reports it as a possible PRIORITY too, as it does data.
        base.notify(listening, Readiness::READABLE | Readiness::PRIORITY);
        base.check_later(listening);
        Ok(())
    }

    /// Takes a connection from the queue of a listener, if there is a descriptor for it.
    pub(super) fn accept(
        &mut self,
        id: SocketId,
        has_room: bool,
        pairs: &mut Pairs,
        base: &mut Base,
    ) -> io::Result<FileId> {
        let listener = &mut self.list[id.0];
        let listening = listener.file.ok_or_else(|| errno(libc::EINVAL))?;
        let end = *listener.queue.front().ok_or_else(|| errno(libc::EAGAIN))?;
        base.touch(listening);
        let loses_client = !has_room && base.applies(Rule::AcceptLosesClient);
        if base.draw_failing_accept() {
            return Err(errno(libc::EMFILE));
        }
        listener.queue.pop_front();
        listener.wake_connecting(base);
        if loses_client {
            pairs.close(end, base);
            return Err(errno(libc::EMFILE));
        }
        let file = base.add_file(Kind::Unix(end));
        pairs.attach(end, file, base);
        if !listener.queue.is_empty() {
            base.notify_of_next_client(listening);
        }
        Ok(file)
    }

    /// What closing the last descriptor of a listener does: its file stays.
    pub(super) fn close(&mut self, id: SocketId, pairs: &mut Pairs, base: &mut Base) {
        let listener = &mut self.list[id.0];
        listener.file = None;
        for end in mem::take(&mut listener.queue) {
            pairs.abort(end, base);
        }
        listener.wake_connecting(base);
    }

    pub(super) fn has_clients(&self, id: SocketId) -> bool {
        !self.list[id.0].queue.is_empty()
    }

    /// Its name, for a report.
    pub(super) fn label(&self, id: SocketId) -> String {
        format!("listener {}", self.path(id).display())
    }

    /// Its name, and what it is like.
    pub(super) fn describe(&self, id: SocketId) -> String {
        match self.list[id.0].queue.len() {
            0 => self.label(id),
            count => format!("{}, {count} in its queue", self.label(id)),
        }
    }
}

impl Listener {
    /// Lets those who wait for room try again.
    fn wake_connecting(&mut self, base: &mut Base) {
        for file in mem::take(&mut self.connecting) {
            base.notify(file, Readiness::NONE);
        }
    }
}

fn check_length(path: &Path, base: &mut Base) -> io::Result<()> {
    if path.as_os_str().len() >= SHORT_PATH && base.applies(Rule::UnixPathsAreShort) {
        return Err(io::Error::new(ErrorKind::InvalidInput, "path must be shorter than SUN_LEN"));
    }
    Ok(())
}
