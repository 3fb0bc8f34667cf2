//! The calls of a program on a timer, and its expirations.

use std::mem;
use std::time::Duration;

use pollio::Readiness;

use super::base::Base;
use super::event::Event;
use super::files::{File, Kind};
use super::ids::FileId;
use super::timer::Timer;

/// Sets a timer, and forgets what it was set to before.
pub(super) fn set(
    base: &mut Base,
    id: FileId,
    after: Option<Duration>,
    interval: Option<Duration>,
) {
    let time = after.and_then(|after| base.now().checked_add(after));
    let next = time.map(|time| base.add_event(time, Event::Timer(id)));
    let Some(timer) = timer(base, id) else { return };
    let before = mem::replace(timer, Timer::new(next, interval));
    before.next().into_iter().for_each(|when| base.schedule_mut().cancel(when));
}

/// A timer expires that was due at this time.
pub(super) fn expire(base: &mut Base, id: FileId, due: Duration) {
    let now = base.now();
    let Some(expired) = timer(base, id) else { return };
    let (next, is_arrival) = expired.expire(due, now);
    let next = next.map(|time| base.add_event(time, Event::Timer(id)));
    if let Some(timer) = timer(base, id) {
        timer.set_next(next);
    }
    if is_arrival {
        base.notify(id, Readiness::READABLE);
    }
}

/// Returns the number of expirations since the last call.
pub(super) fn take_expirations(base: &mut Base, id: FileId) -> u64 {
    timer(base, id).map_or(0, Timer::take_expirations)
}

fn timer(base: &mut Base, id: FileId) -> Option<&mut Timer> {
    match base.file_mut(id).map(File::kind_mut) {
        Some(Kind::Timer(timer)) => Some(timer),
        _ => None,
    }
}
