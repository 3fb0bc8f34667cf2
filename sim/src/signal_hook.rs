//! Signals that write into a socket, in place of the crate `signal-hook`: [`World::raise`](crate::World::raise)
//! sends one.

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

        /// Lets [`World::raise`](crate::World::raise) write a byte to `stream`.
        ///
        /// # Errors
        ///
        /// It never fails: the signature is that of `signal-hook`.
        pub fn register(signal: i32, stream: UnixStream) -> io::Result<()> {
            let machine = stream.0.machine().clone();
            let fd = stream.0.into_raw_fd();
            machine.kernel().add_signal(signal, fd);
            Ok(())
        }
    }
}
