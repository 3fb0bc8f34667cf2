//! The descriptor that each simulated object owns, and that is closed with it, and the calls on it.

use std::fmt;
use std::io;
use std::mem;
use std::os::fd::{AsRawFd, RawFd};
use std::time::Duration;

use crate::kernel::{FileId, Kernel, Settings};
use crate::machine::Machine;

/// In place of a number that is not closed here.
const GONE: RawFd = -1;

/// An open descriptor of a machine, which it keeps alive.
pub(crate) struct Descriptor {
    machine: Machine,
    fd: RawFd,
}

impl Descriptor {
    /// The descriptor that `open` opens.
    pub(crate) fn open(
        machine: &Machine,
        open: impl FnOnce(&mut Kernel) -> io::Result<RawFd>,
    ) -> io::Result<Self> {
        let fd = open(&mut machine.kernel())?;
        Ok(Self::new(machine, fd))
    }

    /// Owns a descriptor that was just opened.
    pub(crate) fn new(machine: &Machine, fd: RawFd) -> Self {
        Self { machine: machine.clone(), fd }
    }

    pub(crate) const fn machine(&self) -> &Machine {
        &self.machine
    }

    pub(crate) fn try_clone(&self) -> io::Result<Self> {
        let fd = self.machine.enter().duplicate(self.fd)?;
        Ok(Self::new(&self.machine, fd))
    }

    /// Makes a call that does not block.
    pub(crate) fn call<T>(
        &self,
        what: &'static str,
        call: impl FnOnce(&mut Kernel, FileId) -> io::Result<T>,
    ) -> io::Result<T> {
        let mut kernel = self.machine.enter();
        let file = kernel.file(self.fd)?;
        let result = call(&mut kernel, file);
        self.note_call(&mut kernel, what, &result, |_, _| String::new());
        result
    }

    /// Makes a call that blocks until it does not fail with `WouldBlock`, unless the descriptor is non-blocking. `show`
    /// writes its result into the trace.
    pub(crate) fn blocking_call<T>(
        &self,
        what: &'static str,
        timeout: impl FnOnce(Settings) -> Option<Duration>,
        mut call: impl FnMut(&mut Kernel, FileId) -> io::Result<T>,
        show: impl FnOnce(&Kernel, &T) -> String,
    ) -> io::Result<T> {
        let kernel = self.machine.enter();
        let file = kernel.file(self.fd)?;
        let timeout = timeout(kernel.settings(file)?);
        let deadline = timeout.and_then(|time| kernel.now().checked_add(time));
        let attempt = |kernel: &mut Kernel| call(kernel, file);
        let (mut kernel, result) =
            self.machine.block_on_file(kernel, file, what, deadline, attempt);
        self.note_call(&mut kernel, what, &result, show);
        result
    }

    /// Changes the settings of its file.
    pub(crate) fn set(&self, change: impl FnOnce(&mut Settings)) -> io::Result<()> {
        let mut kernel = self.machine.enter();
        let file = kernel.file(self.fd)?;
        kernel.settings_mut(file).map(change)
    }

    /// Leaves it open, for the kernel: returns its number.
    pub(crate) fn into_raw_fd(mut self) -> RawFd {
        mem::replace(&mut self.fd, GONE)
    }

    fn note_call<T>(
        &self,
        kernel: &mut Kernel,
        what: &str,
        result: &io::Result<T>,
        show: impl FnOnce(&Kernel, &T) -> String,
    ) {
        if !kernel.schedule().is_traced() {
            return;
        }
        let label = kernel.label(self.fd);
        let outcome = match result {
            Ok(value) => show(kernel, value),
            Err(error) => format!(": {error}"),
        };
        kernel.schedule_mut().note_call(|| format!("{what} {label}{outcome}"));
    }
}

impl AsRawFd for Descriptor {
    fn as_raw_fd(&self) -> RawFd {
        self.fd
    }
}

impl fmt::Debug for Descriptor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.fd.fmt(f)
    }
}

impl Drop for Descriptor {
    fn drop(&mut self) {
        if self.fd == GONE {
            return;
        }
        let mut kernel = self.machine.kernel();
        if kernel.schedule().is_traced() {
            let text = format!("close {}", kernel.label(self.fd));
            match self.machine.current_thread() {
                Some(_) => kernel.schedule_mut().note_call(|| text),
                None => kernel.schedule_mut().note(|| text),
            }
        }
        kernel.close(self.fd);
    }
}
