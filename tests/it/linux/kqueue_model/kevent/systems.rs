//! The reports of each system that epoll does not have, and the reverse.

use super::knote::Knote;
use super::state;
use super::{EVFILT_READ, EVFILT_WRITE, EXCEPT, NOTE_LOWAT};
use crate::linux::kqueue_model::sys::epoll;
use crate::support::kernel::Kernel;

impl Knote {
    /// Whether this kernel does not report these bits of epoll.
    pub(super) fn is_silent(&mut self, kernel: Kernel, bits: u32) -> bool {
        match (kernel, self.registered.filter) {
            // A vnode's filter is silent at the end of a file.
            (_, EVFILT_READ) if self.is_file() => {
                state::is_at_its_end(self.registered.ident, self.named.as_ref())
            }
            // macOS reports the end of a pipe, but not of a named one: `filt_vnode_common`.
            (Kernel::Apple, EVFILT_READ) if self.is_fifo() && self.is_named() => {
                bits & epoll::EPOLLIN == 0
            }
            (Kernel::Apple, EVFILT_WRITE) if self.is_fifo() && self.is_named() => {
                bits & epoll::EPOLLOUT == 0
            }
            // It has no such filter, and pollio does not use one there.
            (Kernel::FreeBsd | Kernel::NetBsd, EXCEPT) => true,
            // macOS's mark is the size of the buffer. A connection to accept is never below it: `filt_soread_common`.
            (Kernel::Apple, EXCEPT) if self.registered.fflags & NOTE_LOWAT != 0 => {
                let ident = self.registered.ident;
                bits == epoll::EPOLLIN && !state::is_full(ident) && !state::is_listener(ident)
            }
            // `filt_soexcept` and `filt_soread` check only out-of-band data.
            (Kernel::OpenBsd | Kernel::DragonFly, EXCEPT) => bits & epoll::EPOLLPRI == 0,
            // `sorflush` clears SB_KNOTE with the buffer.
            (Kernel::FreeBsd | Kernel::NetBsd, EVFILT_READ)
                if self.is_edge() && self.seen.is_deaf =>
            {
                true
            }
            // `uipc_rcvd` wakes no knote for room.
            (Kernel::Apple, EVFILT_WRITE) => self.seen.was_full,
            // `pipeclose` wakes no knote for room.
            (Kernel::NetBsd, EVFILT_WRITE) if self.is_fifo() => bits & epoll::EPOLLOUT == 0,
            (Kernel::NetBsd, EVFILT_READ) if self.is_pty_master() => bits & epoll::EPOLLIN == 0,
            _ => false,
        }
    }

    /// The edge of this kernel that epoll does not have, if there is one.
    pub(super) fn more_edges(&mut self, kernel: Kernel) -> Option<u32> {
        let is_accept = matches!(kernel, Kernel::FreeBsd | Kernel::NetBsd) && self.seen.is_listener;
        let amount = if is_accept {
            // `kern_accept4` ends in KNOTE.
            state::to_accept(self.named.as_ref())?
        } else if self.is_fifo()
            && matches!(kernel, Kernel::Apple | Kernel::FreeBsd | Kernel::NetBsd)
        {
            // Every write, every partial read and every close wake both ends: `pipe_read`.
            let closed = u64::from(self.is_broken()) << 32;
            state::unread(self.registered.ident)? | closed
        } else {
            return None;
        };
        let before = self.seen.amount.replace(amount)?;
        let ident = self.registered.ident;
        match self.registered.filter {
            EVFILT_READ if (1..before).contains(&amount) => Some(epoll::EPOLLIN),
            EVFILT_WRITE if amount != before && (self.own.is_some() || state::has_room(ident)) => {
                Some(epoll::EPOLLOUT)
            }
            _ => None,
        }
    }

    pub(super) fn look_whether_it_is_full(&mut self) {
        let ident = self.registered.ident;
        self.seen.was_full |= self.registered.filter == EVFILT_WRITE
            && self.is_socket()
            && state::is_unix_datagram(ident)
            && !state::has_room(ident);
    }
}
