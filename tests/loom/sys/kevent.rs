//! The part of kqueue(2) that registering needs: a table of knotes. Its changes are made one by one, so that other
//! threads come in between.

use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::time::Duration;

#[allow(dead_code, reason = "the model of the other tests needs more of it")]
#[path = "../../it/linux/kqueue_model/kevent/entry.rs"]
mod entry;
pub(crate) use entry::Kevent;
use loom::sync::Mutex;

pub(crate) type Filter = i16;
pub(crate) type Flags = u16;

pub(crate) const EVFILT_READ: Filter = 1;
pub(crate) const EVFILT_WRITE: Filter = 2;
pub(crate) const EVFILT_EXCEPT: Option<Filter> = Some(3);
pub(crate) const EVFILT_USER: Filter = 4;

pub(crate) const EV_ADD: Flags = 1 << 0;
pub(crate) const EV_DELETE: Flags = 1 << 1;
pub(crate) const EV_ENABLE: Flags = 1 << 2;
pub(crate) const EV_DISABLE: Flags = 1 << 3;
pub(crate) const EV_CLEAR: Flags = 1 << 4;
pub(crate) const EV_DISPATCH: Flags = 1 << 5;
pub(crate) const EV_ONESHOT: Flags = 1 << 9;
pub(crate) const EV_RECEIPT: Flags = 1 << 6;
pub(crate) const EV_EOF: Flags = 1 << 7;
pub(crate) const EV_ERROR: Flags = 1 << 8;

pub(crate) const NOTE_LOWAT: u32 = 1 << 0;
pub(crate) const NOTE_OOB: u32 = 1 << 1;
pub(crate) const NOTE_TRIGGER: u32 = 1 << 2;

loom::lazy_static! {
    /// The registered kevent of each knote. There is one kqueue.
    static ref KNOTES: Mutex<BTreeMap<(usize, Filter), Kevent>> = Mutex::default();
}

/// EV_ENABLE replaces the user data here.
pub(crate) fn can_rearm() -> bool {
    true
}

/// The filter and the user data of every knote.
pub(crate) fn knotes() -> Vec<(Filter, u64)> {
    let knotes = KNOTES.lock().unwrap();
    knotes.values().map(|knote| (knote.filter, knote.udata)).collect()
}

/// Deletes the knotes of a filter, unknown to the thread that registered them.
pub(crate) fn lose(filter: Filter) {
    KNOTES.lock().unwrap().retain(|(_, one), _| *one != filter);
}

pub(crate) fn kqueue() -> io::Result<OwnedFd> {
    // Any descriptor will do: it is never used.
    File::open("/dev/null").map(OwnedFd::from)
}

pub(crate) fn kevent(
    _kqueue: BorrowedFd<'_>,
    changes: &[Kevent],
    events: &mut [Kevent],
    _timeout: Option<Duration>,
) -> io::Result<usize> {
    if changes.is_empty() {
        return Ok(fire(events));
    }
    for (change, receipt) in changes.iter().zip(events) {
        let key = (change.ident, change.filter);
        let mut knotes = KNOTES.lock().unwrap();
        let is_done = if change.flags & EV_DELETE != 0 {
            knotes.remove(&key).is_some()
        } else if change.flags & EV_ADD != 0 {
            knotes.insert(key, *change);
            true
        } else if let Some(knote) = knotes.get_mut(&key) {
            // EV_ENABLE
            *knote = Kevent { flags: knote.flags & !EV_DISABLE, udata: change.udata, ..*knote };
            true
        } else {
            false
        };
        let errno = if is_done { 0 } else { libc::ENOENT };
        *receipt = Kevent { flags: change.flags | EV_ERROR, data: errno.into(), ..*change };
    }
    Ok(changes.len())
}

/// Reports every knote that is enabled, and disables those that dispatch: each is always ready.
fn fire(events: &mut [Kevent]) -> usize {
    let mut knotes = KNOTES.lock().unwrap();
    let enabled = knotes.values_mut().filter(|knote| knote.flags & EV_DISABLE == 0);
    let mut written = 0;
    for (knote, event) in enabled.zip(events) {
        *event = *knote;
        if knote.flags & EV_DISPATCH != 0 {
            knote.flags |= EV_DISABLE;
        }
        written += 1;
    }
    written
}
