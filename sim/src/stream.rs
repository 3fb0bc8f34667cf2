//! What both kinds of stream do, and both kinds of listener, and what all simulated objects have.

use std::io::{self, ErrorKind};
use std::mem;
use std::net::{Shutdown, SocketAddr};
use std::os::fd::{AsRawFd, RawFd};
use std::time::Duration;

use crate::descriptor::Descriptor;
use crate::kernel::{FileId, Kernel, Settings};

/// Methods of both kinds of stream.
macro_rules! stream {
    ($stream:ident) => {
        impl $stream {
            /// Ends the writing, so that the peer reads an end, or the reading, or both.
            ///
            /// # Errors
            ///
            /// `NotConnected`.
            pub fn shutdown(&self, how: std::net::Shutdown) -> std::io::Result<()> {
                $crate::stream::shut_down(&self.0, how)
            }

            /// Makes calls fail with `WouldBlock` instead of blocking.
            ///
            /// # Errors
            ///
            /// It never fails: the signature is that of `std`.
            pub fn set_nonblocking(&self, nonblocking: bool) -> std::io::Result<()> {
                $crate::stream::set_nonblocking(&self.0, nonblocking)
            }

            /// Makes a blocked read fail with `WouldBlock` after this time.
            ///
            /// # Errors
            ///
            /// `InvalidInput` for zero.
            pub fn set_read_timeout(
                &self,
                timeout: Option<std::time::Duration>,
            ) -> std::io::Result<()> {
                $crate::stream::set_timeout(&self.0, timeout, |settings| &mut settings.read_timeout)
            }

            /// Makes a blocked write fail with `WouldBlock` after this time.
            ///
            /// # Errors
            ///
            /// `InvalidInput` for zero.
            pub fn set_write_timeout(
                &self,
                timeout: Option<std::time::Duration>,
            ) -> std::io::Result<()> {
                $crate::stream::set_timeout(&self.0, timeout, |settings| {
                    &mut settings.write_timeout
                })
            }

            /// The error that is pending, which is none afterwards.
            ///
            /// # Errors
            ///
            /// It never fails: the signature is that of `std`.
            pub fn take_error(&self) -> std::io::Result<Option<std::io::Error>> {
                $crate::stream::take_error(&self.0)
            }

            /// Another descriptor of the same end of the connection.
            ///
            /// # Errors
            ///
            /// `EMFILE` at the limit of descriptors.
            pub fn try_clone(&self) -> std::io::Result<Self> {
                self.0.try_clone().map(Self)
            }
        }

        impl std::io::Read for &$stream {
            fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
                $crate::stream::read(&self.0, buffer)
            }
        }

        impl std::io::Read for $stream {
            fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
                $crate::stream::read(&self.0, buffer)
            }
        }

        impl std::io::Write for &$stream {
            fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
                $crate::stream::write(&self.0, bytes)
            }

            fn flush(&mut self) -> std::io::Result<()> {
                Ok(())
            }
        }

        impl std::io::Write for $stream {
            fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
                $crate::stream::write(&self.0, bytes)
            }

            fn flush(&mut self) -> std::io::Result<()> {
                Ok(())
            }
        }

        $crate::stream::descriptor!($stream);
    };
}

/// Methods of both kinds of listener, whose `accept` returns a stream.
macro_rules! listener {
    ($listener:ident, $stream:ident) => {
        #[doc = concat!("The connections that a listener accepts: see [`", stringify!($listener), "::incoming`].")]
        #[derive(Debug)]
        pub struct Incoming<'a>(&'a $listener);

        impl Iterator for Incoming<'_> {
            type Item = std::io::Result<$stream>;

            fn next(&mut self) -> Option<Self::Item> {
                Some(self.0.accept().map(|(stream, _)| stream))
            }
        }

        impl $listener {
            /// [`accept`](Self::accept), again and again.
            #[must_use]
            pub fn incoming(&self) -> Incoming<'_> {
                Incoming(self)
            }

            /// Makes calls fail with `WouldBlock` instead of blocking.
            ///
            /// # Errors
            ///
            /// It never fails: the signature is that of `std`.
            pub fn set_nonblocking(&self, nonblocking: bool) -> std::io::Result<()> {
                $crate::stream::set_nonblocking(&self.0, nonblocking)
            }

            /// Another descriptor of the same listener.
            ///
            /// # Errors
            ///
            /// `EMFILE` at the limit of descriptors.
            pub fn try_clone(&self) -> std::io::Result<Self> {
                self.0.try_clone().map(Self)
            }

            /// The error that is pending: none.
            ///
            /// # Errors
            ///
            /// It never fails: the signature is that of `std`.
            pub fn take_error(&self) -> std::io::Result<Option<std::io::Error>> {
                Ok(None)
            }
        }

        $crate::stream::descriptor!($listener);
    };
}

/// The descriptor of a simulated object.
macro_rules! descriptor {
    ($object:ident) => {
        impl std::os::fd::AsRawFd for $object {
            fn as_raw_fd(&self) -> std::os::fd::RawFd {
                std::os::fd::AsRawFd::as_raw_fd(&self.0)
            }
        }

        impl pollio::ForeignSource for $object {
            fn foreign_fd(&self) -> std::os::fd::RawFd {
                std::os::fd::AsRawFd::as_raw_fd(&self.0)
            }
        }

        impl $crate::os::fd::AsFd for $object {
            fn as_fd(&self) -> $crate::os::fd::BorrowedFd<'_> {
                $crate::os::fd::BorrowedFd(&self.0)
            }
        }

        impl std::fmt::Debug for $object {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.debug_struct(stringify!($object)).field("fd", &self.0).finish()
            }
        }
    };
}

pub(crate) use {descriptor, listener, stream};

/// Accepts by a call of the kernel that returns a descriptor, and `A`: the client's address, if it has one.
pub(crate) fn accept<A>(
    listener: &Descriptor,
    mut accept: impl FnMut(&mut Kernel, FileId) -> io::Result<(RawFd, A)>,
) -> io::Result<(Descriptor, A)> {
    let mut has_room = false;
    let accept = |kernel: &mut Kernel, file| {
        if !has_room {
            kernel.check_accept()?;
            has_room = true;
        }
        let (fd, client) = accept(kernel, file)?;
        Ok((Descriptor::new(listener.machine(), fd), client))
    };
    let show = |kernel: &Kernel, (stream, _): &(Descriptor, A)| {
        format!(" gives {}", kernel.label(stream.as_raw_fd()))
    };
    listener.blocking_call("accept", |settings| settings.read_timeout, accept, show)
}

pub(crate) fn read(stream: &Descriptor, buffer: &mut [u8]) -> io::Result<usize> {
    let read = |kernel: &mut Kernel, file| kernel.read(file, buffer);
    stream.blocking_call("read", |settings| settings.read_timeout, read, show_count)
}

pub(crate) fn peek(stream: &Descriptor, buffer: &mut [u8]) -> io::Result<usize> {
    let peek = |kernel: &mut Kernel, file| kernel.peek(file, buffer);
    stream.blocking_call("peek", |settings| settings.read_timeout, peek, show_count)
}

fn show_count(_: &Kernel, count: &usize) -> String {
    format!(" gives {count}")
}

pub(crate) fn write(stream: &Descriptor, bytes: &[u8]) -> io::Result<usize> {
    let mut is_first = true;
    let write = |kernel: &mut Kernel, file| {
        let is_first = mem::take(&mut is_first);
        if is_first { kernel.write(file, bytes) } else { kernel.resume_write(file, bytes) }
    };
    let show = |_: &Kernel, count: &usize| format!(" takes {count} of {}", bytes.len());
    // A blocking write of the kernel goes on until it has taken everything, this one until it has taken
    // something: `write_all` makes no difference.
    stream.blocking_call("write", |settings| settings.write_timeout, write, show)
}

pub(crate) fn take_error(socket: &Descriptor) -> io::Result<Option<io::Error>> {
    socket.call("take error of", |kernel, file| Ok(kernel.take_error(file)))
}

pub(crate) fn shut_down(stream: &Descriptor, how: Shutdown) -> io::Result<()> {
    stream.call("shut down", |kernel, file| kernel.shut_down(file, how))
}

pub(crate) fn set_nonblocking(socket: &Descriptor, nonblocking: bool) -> io::Result<()> {
    socket.set(|settings| settings.is_nonblocking = nonblocking)
}

pub(crate) fn set_timeout(
    socket: &Descriptor,
    timeout: Option<Duration>,
    place: impl FnOnce(&mut Settings) -> &mut Option<Duration>,
) -> io::Result<()> {
    if timeout == Some(Duration::ZERO) {
        return Err(ErrorKind::InvalidInput.into());
    }
    set_option(socket, false, |kernel, file| {
        *place(kernel.settings_mut(file)?) = timeout;
        Ok(())
    })
}

/// Sets an option: one of TCP, or of any socket.
pub(crate) fn set_option(
    socket: &Descriptor,
    is_of_tcp: bool,
    set: impl FnOnce(&mut Kernel, FileId) -> io::Result<()>,
) -> io::Result<()> {
    socket.call("set option of", |kernel, file| {
        kernel.check_option(file, is_of_tcp)?;
        set(kernel, file)
    })
}

pub(crate) fn local_addr(socket: &Descriptor) -> io::Result<SocketAddr> {
    let unspecified = SocketAddr::from(([0, 0, 0, 0], 0));
    socket.call("address of", |kernel, file| Ok(kernel.local_address(file).unwrap_or(unspecified)))
}
