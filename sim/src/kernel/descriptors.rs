//! The open numbers, and their files.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::os::fd::RawFd;

use super::errno::errno;
use super::ids::FileId;

/// The first number, so high that one that strays into a real system call is `EBADF`.
pub(super) const FIRST_FD: RawFd = 1 << 20;

#[derive(Default)]
pub(super) struct Descriptors {
    open: BTreeMap<RawFd, FileId>,
    /// Closed numbers: the lowest is used again.
    free: BTreeSet<RawFd>,
    given_out: RawFd,
    /// The number of descriptors of pollers and of their wakers, which count towards the limit. No call asks for their
    /// numbers here.
    of_pollers: usize,
    /// The limit of open descriptors, if there is one.
    limit: Option<usize>,
}

impl Descriptors {
    pub(super) fn file(&self, fd: RawFd) -> io::Result<FileId> {
        self.open.get(&fd).copied().ok_or_else(|| errno(libc::EBADF))
    }

    pub(super) fn count(&self) -> usize {
        self.open.len() + self.of_pollers
    }

    pub(super) const fn set_limit(&mut self, limit: usize) {
        self.limit = Some(limit);
    }

    /// Fails if there is no room for as many more.
    pub(super) fn check_limit(&self, count: usize) -> io::Result<()> {
        match self.limit {
            Some(limit) if self.count() + count > limit => Err(errno(libc::EMFILE)),
            _ => Ok(()),
        }
    }

    /// As many more of a poller.
    pub(super) const fn add_of_poller(&mut self, count: usize) {
        self.of_pollers += count;
    }

    pub(super) const fn remove_of_poller(&mut self, count: usize) {
        self.of_pollers -= count;
    }

    /// The lowest number that is free.
    pub(super) fn free_number(&mut self) -> RawFd {
        loop {
            let fd = self.free.pop_first().unwrap_or_else(|| {
                self.given_out += 1;
                FIRST_FD + self.given_out - 1
            });
            if !self.open.contains_key(&fd) {
                return fd;
            }
        }
    }

    pub(super) fn insert(&mut self, fd: RawFd, file: FileId) {
        self.open.insert(fd, file);
    }

    pub(super) fn remove(&mut self, fd: RawFd) -> Option<FileId> {
        let file = self.open.remove(&fd)?;
        if fd >= FIRST_FD {
            self.free.insert(fd);
        }
        Some(file)
    }
}
