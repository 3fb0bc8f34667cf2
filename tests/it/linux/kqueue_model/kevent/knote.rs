//! A knote: its registration, and the remembered state of its descriptor.

use std::fs::{self, File, Metadata};
use std::os::fd::{AsRawFd, RawFd};
use std::os::unix::fs::MetadataExt;
use std::time::Instant;

use super::state::{self, is_fifo, is_same, is_socket};
use super::{EV_CLEAR, Kevent};

pub(super) struct Knote {
    /// The registered kevent, with the flags of the first EV_ADD.
    pub(super) registered: Kevent,
    pub(super) is_enabled: bool,
    /// The file of the descriptor that it names, at that time.
    pub(super) named: Option<Metadata>,
    /// The file that is readable while the knote is active, if it is not the descriptor that the knote names.
    pub(super) own: Option<File>,
    pub(super) seen: Seen,
}

/// The state of a descriptor that a knote remembers.
pub(super) struct Seen {
    /// It is a filter for reading on a listening socket.
    pub(super) is_listener: bool,
    /// The start of a timer.
    pub(super) since: Instant,
    /// The bytes to read in a pipe, or the connections to accept from a listening socket.
    pub(super) amount: Option<u64>,
    /// Out-of-band data was reported, as a level: macOS's note of it stays.
    pub(super) has_oob: bool,
    /// It reported the end after the program's own shutdown of reading.
    pub(super) is_deaf: bool,
    /// It is a Unix datagram socket that was full at some time since a change last ran the filter.
    pub(super) was_full: bool,
}

impl Default for Seen {
    fn default() -> Self {
        let since = Instant::now();
        Self {
            is_listener: false,
            since,
            amount: None,
            has_oob: false,
            is_deaf: false,
            was_full: false,
        }
    }
}

impl Knote {
    /// Whether the number that it names still has the same file.
    pub(super) fn is_of(&self, named: Option<&Metadata>) -> bool {
        is_same(self.named.as_ref(), named)
    }

    pub(super) fn is_file(&self) -> bool {
        self.named.as_ref().is_some_and(|file| file.file_type().is_file())
    }

    pub(super) fn is_fifo(&self) -> bool {
        self.named.as_ref().is_some_and(is_fifo)
    }

    /// Whether it is a filter for writing on the reading end of a pipe whose other end is closed.
    pub(super) fn is_broken(&self) -> bool {
        let is_one = self.own.is_some() && self.is_fifo();
        is_one
            && state::is_pipe_without_its_other_end(self.registered.ident, self.named.as_ref())
                .unwrap_or(false)
    }

    /// Whether its descriptor has a name in a folder, like the files of mkfifo(2).
    pub(super) fn is_named(&self) -> bool {
        let path = fs::read_link(format!("/proc/self/fd/{}", self.registered.ident));
        path.is_ok_and(|path| path.is_absolute())
    }

    pub(super) fn is_pty_master(&self) -> bool {
        // /dev/ptmx is device 5, 2.
        self.named.as_ref().is_some_and(|file| file.rdev() == 5 << 8 | 2)
    }

    pub(super) fn is_socket(&self) -> bool {
        self.named.as_ref().is_some_and(is_socket)
    }

    pub(super) fn watched(&self) -> RawFd {
        let ident = || RawFd::try_from(self.registered.ident).unwrap_or(-1);
        self.own.as_ref().map_or_else(ident, AsRawFd::as_raw_fd)
    }

    /// Its own file is cleared by reading it, and needs no edge.
    pub(super) fn is_edge(&self) -> bool {
        self.registered.has(EV_CLEAR) && self.named.is_some()
    }
}
