//! Panics of simulated threads: they end up in the report of a run, and are not printed on their own.
#![allow(
    clippy::missing_const_for_thread_local,
    reason = "they are, which clippy does not see for Android"
)]

use std::any::Any;
use std::backtrace::{Backtrace, BacktraceStatus};
use std::cell::{Cell, RefCell};
use std::panic::{self, AssertUnwindSafe, PanicHookInfo};
use std::sync::Once;
use std::thread;

/// Why a call of [`catch`] did not return.
pub(crate) enum Caught {
    /// By [`end_unless_unwinding`].
    Ended,
    Panicked(Panic),
}

pub(crate) struct Panic {
    /// What it said, and where.
    pub(crate) message: String,
    /// If `RUST_BACKTRACE` asks for one.
    pub(crate) backtrace: Option<String>,
}

/// What a thread unwinds with when its world has ended.
struct Ended;

thread_local! {
    /// Whether a panic of this thread is kept for a report.
    static IS_KEPT: Cell<bool> = const { Cell::new(false) };
    /// Where the last one was, and its backtrace.
    static LAST: RefCell<Option<(String, Option<String>)>> = const { RefCell::new(None) };
}

/// Ends the thread that calls this up to its [`catch`]. It goes on if it is unwinding already.
pub(crate) fn end_unless_unwinding() {
    if !thread::panicking() {
        panic::resume_unwind(Box::new(Ended));
    }
}

/// What a panic said. None for the end of a thread with its world.
pub(crate) fn message_of(payload: &(dyn Any + Send)) -> Option<String> {
    (!payload.is::<Ended>()).then(|| message(payload))
}

/// Runs `body`, and prints nothing if it panics.
pub(crate) fn catch<T>(body: impl FnOnce() -> T) -> Result<T, Caught> {
    static HOOK: Once = Once::new();
    HOOK.call_once(|| {
        let print = panic::take_hook();
        panic::set_hook(Box::new(move |info| {
            if !keep(info) {
                print(info);
            }
        }));
    });
    let before = IS_KEPT.replace(true);
    let outcome = panic::catch_unwind(AssertUnwindSafe(body));
    IS_KEPT.set(before);
    outcome.map_err(|payload| {
        if payload.is::<Ended>() {
            return Caught::Ended;
        }
        let (place, backtrace) = LAST.take().unzip();
        let place = place.map(|place| format!(", at {place}")).unwrap_or_default();
        let message = message(&*payload) + &place;
        Caught::Panicked(Panic { message, backtrace: backtrace.flatten() })
    })
}

/// Keeps what a report needs of a panic. Returns whether that is enough: a second one may be of a destructor, and
/// then the process ends without a report.
fn keep(info: &PanicHookInfo<'_>) -> bool {
    if !IS_KEPT.get() {
        return false;
    }
    let place = info.location().map(ToString::to_string).unwrap_or_default();
    let backtrace = Backtrace::capture();
    let has_backtrace = backtrace.status() == BacktraceStatus::Captured;
    let backtrace = has_backtrace.then(|| backtrace.to_string());
    LAST.replace(Some((place, backtrace))).is_none()
}

fn message(payload: &(dyn Any + Send)) -> String {
    let text = payload.downcast_ref::<&str>().copied();
    let text = text.or_else(|| payload.downcast_ref::<String>().map(String::as_str));
    text.unwrap_or("with something that is no text").to_owned()
}
