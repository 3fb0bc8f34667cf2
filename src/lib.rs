// The links of the front page, as they are in the docs: a label's first definition counts. README.md has those for
// the repository.
//! [guide]: crate::guide
//! [kernels]: crate::kernels
//! [contract]: crate::Poller#the-contract
//! [`Connections`]: crate::Connections
//! [`try_clone`]: crate::OsPoller::try_clone
//! [`Waker`]: crate::Waker
//! [`channel`]: crate::channel()
//! [`Timer`]: crate::Timer
//! [`ChildExit`]: crate::ChildExit
//! [`set_spin`]: crate::OsPoller::set_spin
//! [RESULTS]: https://docs.rs/crate/pollio/latest/source/bench/RESULTS.md
//! [costs]: https://docs.rs/crate/pollio/latest/source/bench/plots/costs.svg
//! [COMPARE]: https://docs.rs/crate/pollio/latest/source/COMPARE.md
//! [CHANGELOG]: https://docs.rs/crate/pollio/latest/source/CHANGELOG.md
//! [ARCHITECTURE]: https://docs.rs/crate/pollio/latest/source/ARCHITECTURE.md
//! [TESTING]: https://docs.rs/crate/pollio/latest/source/TESTING.md
//! [examples]: https://docs.rs/crate/pollio/latest/source/examples/
#![doc = include_str!("../README.md")]

mod backend;
mod bits;
mod channel;
mod chunks;
mod connections;
mod event;
mod foreign;
mod interest;
mod object;
mod os_poller;
mod poller;
mod readiness;
mod registered;
mod registry;
mod selector;
mod source;
mod spin;
mod sys;
mod wait;
mod waker;
mod wakers;

pub use backend::Backend;
pub use channel::{Receiver, Sender, SyncSender, TryIter, channel, sync_channel};
pub use connections::{Connections, Key};
pub use event::Event;
pub use foreign::{ForeignSource, Source};
pub use interest::{Interest, Mode};
pub use object::{EventKind, EventObject};
pub use os_poller::OsPoller;
pub use poller::Poller;
pub use readiness::Readiness;
pub use registered::Registered;
pub use registry::Registry;
pub use source::{ChildExit, Timer};
pub use waker::Waker;
pub use wakers::Wakeups;

#[doc = include_str!("guide.md")]
pub mod guide {
    #[doc = include_str!("guide/first_server.md")]
    pub mod first_server {}

    #[doc = include_str!("guide/descriptors.md")]
    pub mod descriptors {}

    #[doc = include_str!("guide/threads.md")]
    pub mod threads {}

    #[doc = include_str!("guide/porting.md")]
    pub mod porting {}
}

#[doc = include_str!("kernels.md")]
pub mod kernels {}
