//! Sources: the cases over this system's kernel. `tests/it/linux/kqueue_model/sources.rs` has them over the model.

use pollio::{ChildExit, OsPoller as AnyPoller, Timer};

mod child_exit;
mod registered;
mod timer;
