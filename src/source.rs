//! Sources: objects that are themselves a descriptor, so that any poller can watch them.
//!
//! A source knows no poller. It is `Send + AsFd + AsRawFd`, all but `Receiver` are `Sync`; it is registered like any other
//! descriptor, and closes its own when it is dropped.

mod channel;
mod child_exit;
mod timer;
mod waker;

use crate::fd;
use crate::sys::{Arc, mpsc};

pub use channel::{Receiver, Sender, SyncSender, TryIter, channel, sync_channel};
pub use child_exit::ChildExit;
pub use timer::Timer;
pub use waker::Waker;
