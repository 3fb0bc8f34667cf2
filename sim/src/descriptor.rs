//! What each simulated object owns: a descriptor, which is closed with it.

use std::fmt;
use std::io;
use std::os::fd::{AsRawFd, RawFd};
use std::time::Duration;

use crate::kernel::{File, FileId, Kind, errno};
use crate::network::EndId;
use crate::world::{State, World};

/// An open descriptor of a world, which it keeps alive.
pub(super) struct Descriptor {
    pub(super) world: World,
    fd: RawFd,
}

impl Descriptor {
    pub(super) fn open(world: &World, kind: Kind) -> io::Result<Self> {
        let mut state = world.state();
        state.files.check_limit(1)?;
        let (fd, _) = state.open(kind);
        Ok(Self { world: world.clone(), fd })
    }

    /// A descriptor of a file, for which there is room.
    pub(super) fn of(world: &World, state: &mut State, file: FileId) -> Self {
        Self { world: world.clone(), fd: state.files.open(file) }
    }

    pub(super) fn try_clone(&self) -> io::Result<Self> {
        let mut state = self.world.enter();
        let file = state.files.of(self.fd)?;
        state.files.check_limit(1)?;
        Ok(Self::of(&self.world, &mut state, file))
    }

    /// Makes a call that does not block.
    pub(super) fn call<T>(
        &self,
        what: &'static str,
        call: impl FnOnce(&mut State, FileId) -> io::Result<T>,
    ) -> io::Result<T> {
        let mut state = self.world.enter();
        let file = state.files.of(self.fd)?;
        let result = call(&mut state, file);
        state.trace_call(what, self.fd, &result, |_| String::new());
        result
    }

    /// Makes a call that blocks until it does not fail with `WouldBlock`, unless the descriptor does not
    /// block.
    pub(super) fn blocking_call<T>(
        &self,
        what: &'static str,
        timeout: impl FnOnce(&File) -> Option<Duration>,
        mut call: impl FnMut(&mut State, FileId) -> io::Result<T>,
        show: impl FnOnce(&T) -> String,
    ) -> io::Result<T> {
        let state = self.world.enter();
        let id = state.files.of(self.fd)?;
        let Some(file) = state.files.get(id) else { return Err(errno(libc::EBADF)) };
        let is_nonblocking = file.is_nonblocking;
        let deadline = timeout(file).and_then(|time| state.now.checked_add(time));
        let (mut state, result) =
            self.world.block(state, Some(id), what, deadline, |state| match call(state, id) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock && !is_nonblocking => None,
                result => Some(result),
            });
        let result = result.unwrap_or_else(|| Err(errno(libc::EAGAIN)));
        state.trace_call(what, self.fd, &result, show);
        result
    }
}

impl State {
    fn trace_call<T>(
        &mut self,
        what: &str,
        fd: RawFd,
        result: &io::Result<T>,
        show: impl FnOnce(&T) -> String,
    ) {
        self.call(|| match result {
            Ok(value) => format!("{what} {fd} {}", show(value)),
            Err(error) => format!("{what} {fd}: {error}"),
        });
    }

    /// The end of a connection that a file is.
    pub(super) fn stream(&self, file: FileId) -> io::Result<EndId> {
        match self.files.get(file).map(|file| &file.kind) {
            Some(Kind::Stream(end)) => Ok(*end),
            _ => Err(errno(libc::ENOTCONN)),
        }
    }
}

impl AsRawFd for Descriptor {
    fn as_raw_fd(&self) -> RawFd {
        self.fd
    }
}

impl fmt::Debug for Descriptor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.fd.fmt(f)
    }
}

impl Drop for Descriptor {
    fn drop(&mut self) {
        let mut state = self.world.state();
        let is_thread = self.world.me().is_some();
        state.call_by(is_thread, || format!("close {}", self.fd));
        state.close(self.fd);
    }
}
