//! What threads wait at for each other, and how the trace names it.

use std::any;
use std::sync::{LockResult, OnceLock, PoisonError};

use crate::machine::Machine;
use crate::schedule::QueueId;

/// A queue of threads, of the machine whose thread first waits in it.
#[derive(Default)]
pub(super) struct Gate(OnceLock<(Machine, QueueId)>);

impl Gate {
    pub(super) const fn new() -> Self {
        Self(OnceLock::new())
    }

    /// None if no thread has waited yet.
    pub(super) fn get(&self) -> Option<(&Machine, QueueId)> {
        self.0.get().map(|(machine, queue)| (machine, *queue))
    }

    /// For a thread that waits.
    pub(super) fn get_or_add(&self) -> (&Machine, QueueId) {
        let (machine, queue) = self.0.get_or_init(|| {
            let machine = Machine::current();
            let queue = machine.kernel().schedule_mut().add_queue();
            (machine, queue)
        });
        (machine, *queue)
    }

    /// Wakes all threads that wait.
    pub(super) fn wake_all(&self) {
        if let Some((machine, queue)) = self.get() {
            machine.kernel().schedule_mut().wake_all(queue);
        }
    }
}

/// Changes what a lock returned, whether or not a thread has panicked that held it.
pub(super) fn map<T, U>(result: LockResult<T>, change: impl FnOnce(T) -> U) -> LockResult<U> {
    match result {
        Ok(value) => Ok(change(value)),
        Err(error) => Err(PoisonError::new(change(error.into_inner()))),
    }
}

/// The name of a type without its paths: what it holds tells one lock or queue from another in a trace.
pub(super) fn type_name<T: ?Sized>() -> String {
    let mut name = String::new();
    for part in any::type_name::<T>().split_inclusive(|c: char| !c.is_alphanumeric() && c != '_') {
        match part.strip_suffix(':') {
            Some(_) => {}
            None => name += part,
        }
    }
    name
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_type_is_named_without_its_paths() {
        assert_eq!(type_name::<u8>(), "u8");
        assert_eq!(type_name::<Vec<Option<String>>>(), "Vec<Option<String>>");
        assert_eq!(type_name::<(&str, [Gate; 2])>(), "(&str, [Gate; 2])");
    }
}
