//! Pairs of Unix sockets, and descriptors, under the names of `std::os`.

/// In place of `std::os::unix`.
pub mod unix {
    /// In place of [`std::os::unix::net`].
    pub mod net {
        pub use crate::os::UnixStream;
    }
}

/// In place of [`std::os::fd`].
///
/// A simulated descriptor is a number from 1,048,576 up that no real call knows, so it is no
/// [`std::os::fd::BorrowedFd`], and these have traits of their own.
pub mod fd {
    #[doc(no_inline)]
    pub use std::os::fd::{AsRawFd, RawFd};

    use std::rc::Rc;
    use std::sync::Arc;

    use super::Descriptor;
    use pollio::{ForeignSource, Registered};

    /// A simulated object that has a descriptor, in place of [`std::os::fd::AsFd`]. A type of yours that
    /// implements it implements [`ForeignSource`] too.
    pub trait AsFd: ForeignSource {
        /// Its descriptor.
        fn as_fd(&self) -> BorrowedFd<'_>;
    }

    macro_rules! as_fd_through {
        ($($pointer:ty),*) => {
            $(impl<T: AsFd + ?Sized> AsFd for $pointer {
                fn as_fd(&self) -> BorrowedFd<'_> {
                    T::as_fd(self)
                }
            })*
        };
    }

    as_fd_through!(&T, &mut T, Box<T>, Rc<T>, Arc<T>);

    impl<T: AsFd> AsFd for Registered<T> {
        fn as_fd(&self) -> BorrowedFd<'_> {
            self.get_ref().as_fd()
        }
    }

    /// A simulated descriptor that somebody else owns, in place of [`std::os::fd::BorrowedFd`].
    #[derive(Debug, Clone, Copy)]
    pub struct BorrowedFd<'a>(pub(crate) &'a Descriptor);

    impl AsRawFd for BorrowedFd<'_> {
        fn as_raw_fd(&self) -> RawFd {
            self.0.as_raw_fd()
        }
    }
}

use std::fmt;
use std::io::{self, Read, Write};
use std::net::Shutdown;
use std::time::Duration;

use crate::descriptor::Descriptor;
use crate::net::{
    descriptor, read, set_nonblocking, set_timeout, shut_down, stream, take_error, write,
};
use crate::world::World;
use fd::{AsFd, AsRawFd, BorrowedFd, RawFd};

/// One end of a simulated pair, in place of [`std::os::unix::net::UnixStream`]. What is written to the
/// other end is there at once.
pub struct UnixStream(pub(super) Descriptor);

impl UnixStream {
    /// Two that are connected to each other.
    ///
    /// # Errors
    ///
    /// `EMFILE` at the limit of descriptors.
    pub fn pair() -> io::Result<(Self, Self)> {
        let world = World::current();
        let mut state = world.enter();
        state.files.check_limit(2)?;
        let [near, far] =
            state.connect_pair().map(|file| Self(Descriptor::of(&world, &mut state, file)));
        Ok((near, far))
    }
}

stream!(UnixStream);
