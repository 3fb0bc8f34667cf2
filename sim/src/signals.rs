//! Signals that write into a socket, under the names of the crate `signal-hook`.

use crate::world::World;

impl World {
    /// Sends a signal to the program: a byte is written to each stream that was registered for it with
    /// [`pipe::register`](signal_hook::low_level::pipe::register). Without one, it is ignored.
    pub fn raise(&self, signal: i32) {
        let mut state = self.state();
        let files: Vec<_> = state
            .signals
            .iter()
            .filter(|(registered, _)| *registered == signal)
            .filter_map(|(_, stream)| state.files.of(std::os::fd::AsRawFd::as_raw_fd(stream)).ok())
            .collect();
        state.note(|| format!("signal {signal}"));
        for file in files {
            if let Ok(end) = state.stream(file) {
                // A handler cannot wait: what finds no room is lost.
                let _ = state.write(end, b"X");
            }
        }
    }
}

/// In place of the crate `signal-hook`.
pub mod signal_hook {
    /// In place of `signal_hook::consts`.
    pub mod consts {
        pub use libc::{SIGHUP, SIGINT, SIGTERM, SIGUSR1, SIGUSR2};
    }

    /// In place of `signal_hook::low_level`.
    pub mod low_level {
        /// In place of `signal_hook::low_level::pipe`.
        pub mod pipe {
            use std::io;

            use crate::os::unix::net::UnixStream;
            use crate::world::World;

            /// Has [`World::raise`] write a byte to `stream`.
            ///
            /// # Errors
            ///
            /// It never fails: the signature is that of `signal-hook`.
            pub fn register(signal: i32, stream: UnixStream) -> io::Result<()> {
                World::current().state().signals.push((signal, stream));
                Ok(())
            }
        }
    }
}
