//! In place of [`std::os::fd`].
//!
//! A simulated descriptor is a number from 1,048,576 up that no real call knows, so it is no
//! [`std::os::fd::BorrowedFd`], and these have traits of their own.

#[doc(no_inline)]
pub use std::os::fd::{AsRawFd, RawFd};

use std::rc::Rc;
use std::sync::Arc;

use crate::descriptor::Descriptor;
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
