//! Objects with a number to register: the descriptors of the kernel, and those of a backend from elsewhere.

use std::os::fd::{AsFd, AsRawFd, RawFd};
use std::rc::Rc;
use std::sync::Arc;

/// An object that [`Registered`](crate::Registered) and [`Connections`](crate::Connections) take: every [`AsFd`], and
/// every [`ForeignSource`].
///
/// You neither implement it nor name its parameter: `By` keeps the two cases apart for the compiler, which
/// infers it. Without `By`, a type that is both would have two implementations, so that no crate could
/// implement either for a pointer such as [`Arc`].
#[diagnostic::on_unimplemented(
    message = "`{Self}` is not a source that can be registered",
    label = "has no descriptor",
    note = "a source is `AsFd`, or `pollio::ForeignSource` for a backend from elsewhere"
)]
pub trait Source<By: ?Sized> {
    /// The number to register.
    fn source_fd(&self) -> RawFd;
}

impl<T: AsFd + ?Sized> Source<dyn AsFd> for T {
    fn source_fd(&self) -> RawFd {
        self.as_fd().as_raw_fd()
    }
}

impl<T: ForeignSource + ?Sized> Source<dyn ForeignSource> for T {
    fn source_fd(&self) -> RawFd {
        self.foreign_fd()
    }
}

/// A source whose number is not a descriptor of the kernel, so that it cannot be [`AsFd`].
///
/// A network stack in user space, or a simulation, implements this trait for its sockets, next to
/// [`Backend`](crate::Backend) for its poller. [`Registered`](crate::Registered) then takes them, and references, boxes
/// and shared pointers to them.
///
/// ```
/// use std::os::fd::RawFd;
/// use std::sync::Arc;
///
/// use pollio::{EventObject, ForeignSource, Registered, Registry};
///
/// /// A connection of a network stack in user space.
/// struct Stream {
///     number: RawFd,
/// }
///
/// impl ForeignSource for Stream {
///     fn foreign_fd(&self) -> RawFd {
///         self.number
///     }
/// }
///
/// fn register(
///     registry: &Registry,
///     stream: &Arc<Stream>,
/// ) -> std::io::Result<Registered<Arc<Stream>>> {
///     Registered::new(registry, Arc::clone(stream), EventObject::client)
/// }
/// ```
pub trait ForeignSource {
    /// The number by which its backend knows it. It stays the same, and no other open object of the backend has it.
    fn foreign_fd(&self) -> RawFd;
}

/// The pointers through which the standard library's types are [`AsFd`] as well.
macro_rules! foreign_through {
    ($($pointer:ty),*) => {
        $(impl<T: ForeignSource + ?Sized> ForeignSource for $pointer {
            fn foreign_fd(&self) -> RawFd {
                T::foreign_fd(self)
            }
        })*
    };
}

foreign_through!(&T, &mut T, Box<T>, Rc<T>, Arc<T>);
