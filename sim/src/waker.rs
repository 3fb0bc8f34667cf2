//! Ends a wait from another thread.

use std::io;
use std::sync::atomic::{AtomicBool, Ordering::AcqRel};

use crate::descriptor::Descriptor;
use crate::kernel::Kernel;
use crate::machine::Machine;
use crate::stream::descriptor;

/// Ends a wait from another thread, in place of [`pollio::Waker`].
pub struct Waker(Descriptor, AtomicBool);

descriptor!(Waker);

impl Waker {
    /// See [`pollio::Waker::new`].
    ///
    /// # Errors
    ///
    /// `EMFILE` at the limit of descriptors.
    pub fn new() -> io::Result<Self> {
        let descriptor = Descriptor::open(&Machine::current(), Kernel::open_waker)?;
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
        self.0.call("wake", |kernel, file| {
            kernel.wake(file);
            Ok(())
        })
    }

    /// See [`pollio::Waker::clear`].
    ///
    /// # Errors
    ///
    /// It never fails: the signature is that of the real one.
    pub fn clear(&self) -> io::Result<()> {
        let cleared = self.0.call("clear", |kernel, file| {
            kernel.clear_waker(file);
            Ok(())
        });
        self.rearm();
        cleared
    }

    /// See [`pollio::Waker::rearm`].
    pub fn rearm(&self) {
        // No system call, and yet a place where another thread may come first.
        drop(self.0.machine().enter());
        self.1.swap(false, AcqRel);
    }
}
