//! The part of `Registry` that a waker needs, over wakers that loom checks.

use std::sync::Arc;

use pollio::Backend;

use crate::wakers::{Wakers, Wakeups};

#[derive(Clone)]
pub(crate) struct Registry(Arc<Wakers>);

impl Registry {
    pub(crate) fn new(backend: Arc<dyn Backend>) -> Self {
        Self(Arc::new(Wakers::new(backend)))
    }

    pub(crate) fn wakeups(&self) -> Wakeups {
        Wakeups::new(Arc::clone(&self.0))
    }

    pub(crate) fn wakers(&self) -> &Arc<Wakers> {
        &self.0
    }
}
