//! Calls that fail, and their errors.

use std::io::{ErrorKind, Write};
use std::os::fd::{AsRawFd, RawFd};

use nix::errno::Errno;
use pollio::{EventObject, Interest, Poller};

use crate::support::descriptors::pair;
use crate::support::expect::Expect;
use crate::support::kernel::{Kernel, On};

/// C10
pub(crate) fn delete_of_unknown_fd_is_not_found<P: Poller>() {
    let (near, _far) = pair();
    let poller = P::new().unwrap();
    assert_eq!(poller.delete(near.as_raw_fd()).unwrap_err().kind(), ErrorKind::NotFound);
}

/// C10
pub(crate) fn modify_of_unknown_fd_is_not_found<P: Poller>() {
    let (near, mut far) = pair();
    let mut poller = P::new().unwrap();
    far.write_all(b"x").unwrap();
    for interest in [Interest::READABLE, Interest::WRITABLE, Interest::NONE] {
        let object = EventObject::client(near.as_raw_fd()).with_interest(interest);
        assert_eq!(poller.modify(object).unwrap_err().kind(), ErrorKind::NotFound);
        assert_eq!(poller.delete(object.fd).unwrap_err().kind(), ErrorKind::NotFound);
    }
    poller.expect_none();
}

/// C10
pub(crate) fn a_second_delete_is_not_found<P: Poller>() {
    let (near, _far) = pair();
    let poller = P::new().unwrap();
    for interest in [Interest::READABLE, Interest::WRITABLE, Interest::NONE] {
        poller.add(EventObject::client(near.as_raw_fd()).with_interest(interest)).unwrap();
        poller.delete(near.as_raw_fd()).unwrap();
        assert_eq!(poller.delete(near.as_raw_fd()).unwrap_err().kind(), ErrorKind::NotFound);
    }
}

/// C10
pub(crate) fn a_descriptor_can_be_added_again_after_delete<P: Poller>() {
    let (near, mut far) = pair();
    let mut poller = P::new().unwrap();
    far.write_all(b"x").unwrap();
    for token in 0..3 {
        poller.add(EventObject::client(near.as_raw_fd()).with_token(token)).unwrap();
        assert_eq!(poller.expect_one().token, token);
        poller.delete(near.as_raw_fd()).unwrap();
        poller.expect_none();
    }
}

/// C10
pub(crate) fn a_bad_descriptor_is_the_kernels_own_error<P: Poller + On>() {
    let poller = P::new().unwrap();
    let bad = Some(Errno::EBADF as i32);
    for fd in [-1, RawFd::MIN, RawFd::MAX] {
        assert_eq!(poller.add(EventObject::client(fd)).unwrap_err().raw_os_error(), bad);
        // macOS looks only for the registration: `knote_fdfind`.
        let unknown = if P::KERNEL == Kernel::Apple { Some(Errno::ENOENT as i32) } else { bad };
        let error = poller.modify(EventObject::client(fd)).unwrap_err();
        assert_eq!(error.raw_os_error(), unknown);
        assert_eq!(poller.delete(fd).unwrap_err().raw_os_error(), unknown);
    }
}

/// C10
pub(crate) fn a_failed_call_leaves_the_registration_as_it_was<P: Poller>() {
    let (near, mut far) = pair();
    let (unknown, _) = pair();
    let mut poller = P::new().unwrap();
    poller.add(EventObject::client(near.as_raw_fd()).with_token(1)).unwrap();
    poller.modify(EventObject::client(unknown.as_raw_fd()).with_token(2)).unwrap_err();
    poller.delete(unknown.as_raw_fd()).unwrap_err();
    poller.add(EventObject::client(-1).with_token(3)).unwrap_err();
    far.write_all(b"x").unwrap();
    assert_eq!(poller.expect_one().token, 1);
}
