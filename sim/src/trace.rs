//! What happened in a world, for a person to read and for two runs to be compared by.

use std::time::Duration;

use crate::world::State;

/// A line for each call and each event until the world ends, if it was asked for: to write it takes longer
/// than the call.
#[derive(Default)]
pub(super) struct Trace {
    lines: Option<Vec<String>>,
    /// The name of the thread that runs.
    pub(super) thread: String,
}

impl Trace {
    pub(super) fn new(is_kept: bool) -> Self {
        Self { lines: is_kept.then(Vec::new), thread: String::new() }
    }

    pub(super) const fn is_kept(&self) -> bool {
        self.lines.is_some()
    }

    pub(super) fn take(&mut self) -> Vec<String> {
        self.lines.take().unwrap_or_default()
    }
}

impl State {
    /// Notes what happens in the world.
    #[inline]
    pub(super) fn note(&mut self, text: impl FnOnce() -> String) {
        self.call_by(false, text);
    }

    /// Notes what the thread does that runs.
    #[inline]
    pub(super) fn call(&mut self, text: impl FnOnce() -> String) {
        self.call_by(true, text);
    }

    /// [`call`](Self::call), or [`note`](Self::note) where no thread of the world makes it.
    #[inline]
    pub(super) fn call_by(&mut self, is_thread: bool, text: impl FnOnce() -> String) {
        let is_ending = self.is_ending();
        let Trace { lines, thread } = &mut self.trace;
        if let Some(lines) = lines.as_mut().filter(|_| !is_ending) {
            lines.push(line(self.now, if is_thread { thread } else { "-" }, &text()));
        }
    }
}

fn line(now: Duration, who: &str, text: &str) -> String {
    format!("{:>4}.{:09} {who:<12} {text}", now.as_secs(), now.subsec_nanos())
}
