//! Sources of a simulated world, under the names of the crate's own.

use std::fmt;
use std::io;
use std::mem;
use std::os::fd::{AsRawFd, RawFd};
use std::time::Duration;

use crate::descriptor::Descriptor;
use crate::kernel::{File, Kind};
use crate::net::descriptor;
use crate::os::fd::{AsFd, BorrowedFd};
use crate::world::World;
use pollio::Readiness;
use std::sync::atomic::{AtomicBool, Ordering::AcqRel};

/// Ends a wait from another thread, in place of [`pollio::Waker`].
pub struct Waker(Descriptor, AtomicBool);

/// A timer of virtual time, in place of [`pollio::Timer`].
pub struct Timer(Descriptor);

descriptor!(Waker);
descriptor!(Timer);

impl<T> pollio::ForeignSource for crate::Receiver<T> {
    fn foreign_fd(&self) -> RawFd {
        self.as_raw_fd()
    }
}

impl Waker {
    /// See [`pollio::Waker::new`].
    ///
    /// # Errors
    ///
    /// `EMFILE` at the limit of descriptors.
    pub fn new() -> io::Result<Self> {
        let descriptor = Descriptor::open(&World::current(), Kind::Waker(false))?;
        Ok(Self(descriptor, AtomicBool::new(false)))
    }

    /// See [`pollio::Waker::wake`].
    ///
    /// # Errors
    ///
    /// It never fails: the signature is that of the real one.
    pub fn wake(&self) -> io::Result<()> {
        if self.1.swap(true, AcqRel) {
            return Ok(());
        }
        self.0.call("wake", |state, id| {
            if let Some(File { kind: Kind::Waker(is_woken), .. }) = state.files.get_mut(id) {
                *is_woken = true;
            }
            state.notify(id, Readiness::READABLE);
            Ok(())
        })
    }

    /// See [`pollio::Waker::clear`].
    ///
    /// # Errors
    ///
    /// It never fails: the signature is that of the real one.
    pub fn clear(&self) -> io::Result<()> {
        let cleared = self.0.call("clear", |state, id| {
            if let Some(File { kind: Kind::Waker(is_woken), .. }) = state.files.get_mut(id) {
                if mem::replace(is_woken, false) {
                    // There is room in its counter, as `eventfd_read` reports.
                    state.notify(id, Readiness::WRITABLE);
                }
            }
            Ok(())
        });
        self.rearm();
        cleared
    }

    /// See [`pollio::Waker::rearm`].
    pub fn rearm(&self) {
        // No system call, and yet a place where another thread may come first.
        drop(self.0.world.enter());
        self.1.swap(false, AcqRel);
    }
}

impl Timer {
    /// See [`pollio::Timer::new`].
    ///
    /// # Errors
    ///
    /// `EMFILE` at the limit of descriptors.
    pub fn new() -> io::Result<Self> {
        Descriptor::open(&World::current(), Kind::Timer(Default::default())).map(Self)
    }

    /// See [`pollio::Timer::set`].
    ///
    /// # Errors
    ///
    /// It never fails: the signature is that of the real one.
    pub fn set(&self, after: Duration) -> io::Result<()> {
        self.0.call("set timer", |state, id| {
            state.set_timer(id, Some(after), None);
            Ok(())
        })
    }

    /// See [`pollio::Timer::set_interval`].
    ///
    /// # Errors
    ///
    /// `InvalidInput` for zero.
    pub fn set_interval(&self, every: Duration) -> io::Result<()> {
        if every.is_zero() {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        self.0.call("set timer", |state, id| {
            state.set_timer(id, Some(every), Some(every));
            Ok(())
        })
    }

    /// See [`pollio::Timer::disarm`].
    ///
    /// # Errors
    ///
    /// It never fails: the signature is that of the real one.
    pub fn disarm(&self) -> io::Result<()> {
        self.0.call("disarm timer", |state, id| {
            state.set_timer(id, None, None);
            Ok(())
        })
    }

    /// See [`pollio::Timer::clear`].
    ///
    /// # Errors
    ///
    /// It never fails: the signature is that of the real one.
    pub fn clear(&self) -> io::Result<u64> {
        self.0.call("clear timer", |state, id| match state.files.get_mut(id) {
            Some(File { kind: Kind::Timer(timer), .. }) => {
                Ok(std::mem::take(&mut timer.expirations))
            }
            _ => Ok(0),
        })
    }
}
