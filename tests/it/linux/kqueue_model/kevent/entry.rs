//! The entries that go into kevent(2) and come out of it, for the models of a kernel.

use super::{Filter, Flags};

/// A change, or an event.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Kevent {
    pub(super) ident: usize,
    pub(super) filter: Filter,
    pub(super) flags: Flags,
    pub(super) fflags: u32,
    pub(super) data: i64,
    pub(super) udata: u64,
}

impl Kevent {
    pub(crate) const NONE: Self =
        Self { ident: 0, filter: 0, flags: 0, fflags: 0, data: 0, udata: 0 };

    pub(crate) const fn new(ident: usize, filter: Filter, flags: Flags) -> Self {
        Self { ident, filter, flags, ..Self::NONE }
    }

    pub(crate) fn with_fflags(self, fflags: u32) -> Self {
        Self { fflags, ..self }
    }

    pub(crate) fn with_data(self, data: i64) -> Self {
        Self { data, ..self }
    }

    pub(crate) fn with_udata(self, udata: u64) -> Self {
        Self { udata, ..self }
    }

    pub(crate) fn with_flags(self, flags: Flags) -> Self {
        Self { flags, ..self }
    }

    pub(crate) fn ident(&self) -> usize {
        self.ident
    }

    pub(crate) fn filter(&self) -> Filter {
        self.filter
    }

    pub(crate) fn flags(&self) -> Flags {
        self.flags
    }

    pub(crate) fn fflags(&self) -> u32 {
        self.fflags
    }

    pub(crate) fn data(&self) -> i64 {
        self.data
    }

    pub(crate) fn udata(&self) -> u64 {
        self.udata
    }
}
