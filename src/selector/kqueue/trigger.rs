//! How a wait on a kqueue is woken.

use std::io::{self, Read, Write};
use std::os::fd::{AsRawFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use crate::sys::kevent::{self, Kevent};

/// The user data of a trigger. It has no interest, so a wait does not take it for an event.
pub(super) const UDATA: u64 = 0;

/// A knote that fires for exactly one wait, whenever [`fire`](Self::fire) is called.
pub(super) enum Trigger {
    /// EVFILT_USER, on the kqueue itself.
    User,
    /// A connection to itself: NetBSD before 10 and OpenBSD before 7.8 have no EVFILT_USER.
    Stream { near: UnixStream, far: UnixStream },
}

impl Trigger {
    pub(super) fn add(kqueue: BorrowedFd<'_>) -> io::Result<Self> {
        let flags = kevent::EV_ADD | kevent::EV_CLEAR;
        if apply(kqueue, Kevent::new(0, kevent::EVFILT_USER, flags)).is_ok() {
            return Ok(Self::User);
        }
        let (near, far) = UnixStream::pair()?;
        near.set_nonblocking(true)?;
        far.set_nonblocking(true)?;
        let ident = usize::try_from(near.as_raw_fd()).expect("an open descriptor is not negative");
        apply(kqueue, Kevent::new(ident, kevent::EVFILT_READ, flags))?;
        Ok(Self::Stream { near, far })
    }

    pub(super) fn fire(&self, kqueue: BorrowedFd<'_>) -> io::Result<()> {
        match self {
            // Not with EV_ADD: FreeBSD ignores the note there. Not with EV_CLEAR, which would take the trigger back.
            Self::User => apply(
                kqueue,
                Kevent::new(0, kevent::EVFILT_USER, 0).with_fflags(kevent::NOTE_TRIGGER),
            ),
            Self::Stream { near, far } => match (&*far).write(&[1]) {
                // Full of bytes that no wait has read. Only another byte is an arrival.
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    drain(near)?;
                    (&*far).write(&[1]).map(drop)
                }
                written => written.map(drop),
            },
        }
    }
}

/// Applies one change. Without room for a receipt, its error is that of the call.
fn apply(kqueue: BorrowedFd<'_>, change: Kevent) -> io::Result<()> {
    kevent::kevent(kqueue, &[change], &mut [], Some(Duration::ZERO)).map(drop)
}

fn drain(mut stream: &UnixStream) -> io::Result<()> {
    let mut bytes = [0; 1_024];
    loop {
        match stream.read(&mut bytes) {
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
            Err(error) => return Err(error),
        }
    }
}
