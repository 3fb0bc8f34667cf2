//! The texts of the trace and of reports for descriptors, files, and threads that wait for them.

use std::os::fd::RawFd;

use super::base::Base;
use super::descriptors::{Descriptors, FIRST_FD};
use super::files::Kind;
use super::ids::FileId;
use super::tcp::Tcp;
use super::udp::Udp;
use super::unix::Pairs;
use super::unix_listeners::UnixListeners;
use crate::schedule::Reason;

pub(super) struct Report<'a> {
    pub(super) base: &'a Base,
    pub(super) descriptors: &'a Descriptors,
    pub(super) tcp: &'a Tcp,
    pub(super) udp: &'a Udp,
    pub(super) pairs: &'a Pairs,
    pub(super) unix_listeners: &'a UnixListeners,
}

impl Report<'_> {
    /// The name of what a descriptor refers to: sockets by their addresses.
    pub(super) fn label(&self, fd: RawFd) -> String {
        let number = if fd >= FIRST_FD { fd - FIRST_FD } else { fd };
        match self.descriptors.file(fd).ok().and_then(|id| self.base.files().kind(id)) {
            Some(Kind::Tcp(socket)) => self.tcp.label(*socket),
            Some(Kind::Udp(socket)) => self.udp.label(*socket),
            Some(Kind::Unix(end)) => format!("{} {number}", self.pairs.noun(*end)),
            Some(Kind::UnixListener(id)) => self.unix_listeners.label(*id),
            Some(Kind::Timer(_)) => format!("timer {number}"),
            _ => format!("descriptor {number}"),
        }
    }

    /// The kind of a file, and its state.
    pub(super) fn describe(&self, id: FileId) -> String {
        match self.base.files().kind(id) {
            Some(Kind::Tcp(socket)) => self.tcp.describe(*socket),
            Some(Kind::Udp(socket)) => self.udp.describe(*socket),
            Some(Kind::Unix(end)) => self.pairs.noun(*end).to_owned() + &self.pairs.describe(*end),
            Some(Kind::UnixListener(id)) => self.unix_listeners.describe(*id),
            Some(Kind::Timer(_)) => "a timer".into(),
            Some(Kind::Scripted(_)) => "a scripted descriptor".into(),
            Some(Kind::Poller(list)) => {
                let watched = list.registered().map(|(_, file)| self.describe(file));
                let wakers = list.has_wakers().then(|| "wakers".into());
                let watched: Vec<_> = watched.chain(wakers).collect();
                match watched.len() {
                    0 => "a poller with nothing registered".into(),
                    _ => format!("a poller of\n    {}", watched.join("\n    ")),
                }
            }
            None => "a file that is closed".into(),
        }
    }

    /// The reason of each waiting thread, a line each.
    pub(super) fn waits(&self) -> String {
        let mut text = String::new();
        for (name, reason) in self.base.schedule().waits() {
            let what = match reason {
                Reason::Computes => "computes".into(),
                Reason::Sleeps => "sleeps".into(),
                Reason::Parked => "is parked".into(),
                Reason::Scope(_) => "waits for the threads of a scope".into(),
                Reason::Thread(what, _) => what.to_owned(),
                Reason::File(what, queue) => {
                    let file = self.base.files().of_queue(queue).map(|file| self.describe(file));
                    format!("{what} {}", file.unwrap_or_else(|| "a file that is closed".into()))
                }
            };
            text += &format!("\n  {name}: {what}");
        }
        text
    }
}
