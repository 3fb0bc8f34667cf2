//! A timer of virtual time.

use std::io;
use std::time::Duration;

use crate::descriptor::Descriptor;
use crate::kernel::Kernel;
use crate::machine::Machine;
use crate::stream::descriptor;

/// A timer of virtual time, in place of [`pollio::Timer`].
pub struct Timer(Descriptor);

descriptor!(Timer);

impl Timer {
    /// See [`pollio::Timer::new`].
    ///
    /// # Errors
    ///
    /// `EMFILE` at the limit of descriptors.
    pub fn new() -> io::Result<Self> {
        Descriptor::open(&Machine::current(), Kernel::open_timer).map(Self)
    }

    /// See [`pollio::Timer::set`].
    ///
    /// # Errors
    ///
    /// It never fails: the signature is that of the real one.
    pub fn set(&self, after: Duration) -> io::Result<()> {
        self.0.call("set timer", |kernel, file| {
            kernel.set_timer(file, Some(after), None);
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
        self.0.call("set timer", |kernel, file| {
            kernel.set_timer(file, Some(every), Some(every));
            Ok(())
        })
    }

    /// See [`pollio::Timer::disarm`].
    ///
    /// # Errors
    ///
    /// It never fails: the signature is that of the real one.
    pub fn disarm(&self) -> io::Result<()> {
        self.0.call("disarm timer", |kernel, file| {
            kernel.set_timer(file, None, None);
            Ok(())
        })
    }

    /// See [`pollio::Timer::clear`].
    ///
    /// # Errors
    ///
    /// It never fails: the signature is that of the real one.
    pub fn clear(&self) -> io::Result<u64> {
        self.0.call("clear timer", |kernel, file| Ok(kernel.take_expirations(file)))
    }
}
