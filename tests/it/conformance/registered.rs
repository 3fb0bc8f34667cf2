//! `Registered`, over any poller.

use std::cell::Cell;
use std::fs::File;
use std::io::{self, ErrorKind, IoSlice, IoSliceMut, Read, Write};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::{Command, Stdio};
use std::rc::Rc;
use std::sync::Arc;
use std::thread;

use pollio::{EventKind, EventObject, Interest, Mode, Poller, Registered, Registry};

use crate::support::descriptors::{pair, pipe};
use crate::support::expect::Expect;
use crate::support::subprocess::spawn;

/// C1
pub(crate) fn a_registered_source_is_reported_as_its_object_says<P: Poller>() {
    let (near, mut far) = pair();
    let mut poller = P::new().unwrap();
    let fd = near.as_raw_fd();
    let near = Registered::new(poller.registry(), near, EventObject::server).unwrap();
    assert_eq!((near.as_raw_fd(), near.as_fd().as_raw_fd()), (fd, fd));
    poller.expect_none();
    far.write_all(b"x").unwrap();
    let event = poller.expect_one();
    assert_eq!((event.fd, event.kind, event.token), (fd, EventKind::Server, 0));

    near.modify(|fd| {
        let object = EventObject::client(fd).with_token(u32::MAX).with_mode(Mode::Oneshot);
        object.with_interest(Interest::WRITABLE)
    })
    .unwrap();
    let event = poller.expect_one();
    assert_eq!((event.fd, event.kind, event.token), (fd, EventKind::Client, u32::MAX));
    assert!(event.is_writable() && !event.is_readable());
    poller.expect_none();
    near.modify(EventObject::client).unwrap();
    assert!(poller.expect_one().is_readable());
    assert_eq!(near.get_ref().read(&mut [0; 2]).unwrap(), 1);
    poller.expect_none();
}

/// C16: on epoll, a close alone would not silence it.
pub(crate) fn a_dropped_source_is_silent_though_a_duplicate_lives<P: Poller>() {
    for mode in [Mode::Level, Mode::Edge, Mode::Oneshot] {
        let (near, mut far) = pair();
        let mut poller = P::new().unwrap();
        let object = |fd| EventObject::client(fd).with_mode(mode);
        let near = Registered::new(poller.registry(), near, object).unwrap();
        let duplicate = near.get_ref().try_clone().unwrap();
        far.write_all(b"x").unwrap();
        drop(near);
        poller.expect_none();
        far.write_all(b"x").unwrap();
        poller.expect_none();
        assert_eq!((&duplicate).read(&mut [0; 3]).unwrap(), 2);
    }
}

/// C16
pub(crate) fn a_source_is_deleted_before_it_is_closed<P: Poller>() {
    /// Finds out in its own drop whether it is still registered.
    struct Witness {
        stream: UnixStream,
        registry: Registry,
        deleted: Rc<Cell<bool>>,
    }
    impl AsFd for Witness {
        fn as_fd(&self) -> BorrowedFd<'_> {
            self.stream.as_fd()
        }
    }
    impl Drop for Witness {
        fn drop(&mut self) {
            let error = self.registry.delete(self.stream.as_raw_fd()).unwrap_err();
            self.deleted.set(error.kind() == ErrorKind::NotFound);
        }
    }
    let poller = P::new().unwrap();
    for keeps in [false, true] {
        let deleted = Rc::new(Cell::new(false));
        let (stream, _far) = pair();
        let registry = poller.registry().clone();
        let witness = Witness { stream, registry, deleted: Rc::clone(&deleted) };
        let registered = Registered::new(poller.registry(), witness, EventObject::client).unwrap();
        if keeps {
            drop(registered.into_inner());
        } else {
            drop(registered);
        }
        assert!(deleted.get());
    }
}

/// C16
pub(crate) fn a_source_that_is_taken_out_is_open_and_deleted<P: Poller>() {
    let (near, mut far) = pair();
    let mut poller = P::new().unwrap();
    let near = Registered::new(poller.registry(), near, EventObject::client).unwrap();
    far.write_all(b"x").unwrap();
    let near: UnixStream = near.into_inner();
    poller.expect_none();
    assert_eq!(poller.delete(near.as_raw_fd()).unwrap_err().kind(), ErrorKind::NotFound);
    let near = Registered::new(poller.registry(), near, EventObject::client).unwrap();
    poller.expect_one();
    assert_eq!(near.get_ref().read(&mut [0; 2]).unwrap(), 1);
}

/// C10
pub(crate) fn an_object_of_another_descriptor_is_refused<P: Poller>() {
    let (near, mut far) = pair();
    let (other, mut other_far) = pair();
    let mut poller = P::new().unwrap();
    let object_of_other = |_| EventObject::client(other.as_raw_fd());

    let error = Registered::new(poller.registry(), &near, object_of_other).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidInput);
    far.write_all(b"x").unwrap();
    other_far.write_all(b"x").unwrap();
    poller.expect_none();

    let object = |fd| EventObject::client(fd).with_token(3);
    let registered = Registered::new(poller.registry(), &near, object).unwrap();
    let error = registered.modify(object_of_other).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidInput);
    assert_eq!(poller.expect_one().token, 3);
}

/// C10, C11
pub(crate) fn a_source_that_is_refused_is_closed<P: Poller>() {
    let (near, mut far) = pair();
    let poller = P::new().unwrap();
    Registered::new(poller.registry(), near, |_| EventObject::client(-1)).unwrap_err();
    assert_eq!(far.read(&mut [0]).unwrap(), 0, "its other end is closed");

    // To keep it, register a reference.
    let (near, mut far) = pair();
    Registered::new(poller.registry(), &near, |_| EventObject::client(-1)).unwrap_err();
    far.write_all(b"x").unwrap();
    assert_eq!((&near).read(&mut [0]).unwrap(), 1);
}

/// C16: a panic of the program's own closure, and one while it is registered.
pub(crate) fn a_panic_leaves_nothing_registered<P: Poller>() {
    let (near, mut far) = pair();
    let mut poller = P::new().unwrap();
    let registry = poller.registry().clone();
    let quiet = |_| -> EventObject { std::panic::resume_unwind(Box::new(())) };
    catch_unwind(AssertUnwindSafe(|| Registered::new(&registry, &near, quiet))).unwrap_err();
    catch_unwind(AssertUnwindSafe(|| {
        let near = Registered::new(&registry, &near, EventObject::client).unwrap();
        near.modify(quiet)
    }))
    .unwrap_err();
    far.write_all(b"x").unwrap();
    poller.expect_none();
    assert_eq!(poller.delete(near.as_raw_fd()).unwrap_err().kind(), ErrorKind::NotFound);
}

/// C16: `modify` and `delete` use the number that was registered.
pub(crate) fn a_source_that_changes_its_descriptor_is_known_by_the_first<P: Poller>() {
    struct Fickle {
        streams: [UnixStream; 2],
        turn: Cell<usize>,
    }
    impl AsFd for Fickle {
        fn as_fd(&self) -> BorrowedFd<'_> {
            self.streams[self.turn.get()].as_fd()
        }
    }
    let ((first, mut far), (second, mut second_far)) = (pair(), pair());
    let first_fd = first.as_raw_fd();
    let mut poller = P::new().unwrap();
    poller.add(EventObject::client(second.as_raw_fd()).with_token(2)).unwrap();
    let fickle = Fickle { streams: [first, second], turn: Cell::new(0) };
    let fickle = Registered::new(poller.registry(), fickle, EventObject::client).unwrap();
    fickle.get_ref().turn.set(1);
    fickle.modify(|fd| EventObject::client(fd).with_token(1)).unwrap();
    assert_eq!(fickle.as_raw_fd(), first_fd);
    far.write_all(b"x").unwrap();
    let event = poller.expect_one();
    assert_eq!((event.fd, event.token), (first_fd, 1));

    let _open = fickle.into_inner();
    poller.expect_none();
    second_far.write_all(b"x").unwrap();
    assert_eq!(poller.expect_one().token, 2);
}

/// C11, C16: in any order.
pub(crate) fn a_registered_source_outlives_its_poller<P: Poller>() {
    let (near, mut far) = pair();
    let poller = P::new().unwrap();
    let near = Registered::new(poller.registry(), near, EventObject::client).unwrap();
    drop(poller);
    near.modify(|fd| EventObject::client(fd).with_token(1)).unwrap();
    far.write_all(b"x").unwrap();
    assert_eq!((&near.into_inner()).read(&mut [0]).unwrap(), 1);
}

/// C16: deleted by its number, not through `Registered`.
pub(crate) fn a_source_that_was_deleted_by_its_number_is_dropped_in_silence<P: Poller>() {
    let (near, mut far) = pair();
    let mut poller = P::new().unwrap();
    let near = Registered::new(poller.registry(), near, EventObject::client).unwrap();
    poller.delete(near.as_raw_fd()).unwrap();
    let error = near.modify(EventObject::client).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotFound);
    drop(near);
    assert_eq!(far.read(&mut [0]).unwrap(), 0);
    poller.expect_none();
}

/// C12
pub(crate) fn a_registered_source_moves_to_another_thread<P: Poller>() {
    let (near, mut far) = pair();
    let mut poller = P::new().unwrap();
    let near = Arc::new(near);
    let source = Arc::clone(&near);
    let registered = Registered::new(poller.registry(), source, EventObject::client).unwrap();
    far.write_all(b"x").unwrap();
    for event in poller.wait(20_000).unwrap() {
        // While `event` is borrowed.
        registered.modify(|fd| EventObject::client(fd).with_token(event.token + 1)).unwrap();
    }
    assert_eq!(poller.expect_one().token, 1);
    thread::spawn(move || {
        registered.modify(|fd| EventObject::client(fd).with_token(5)).unwrap();
        drop(registered);
    })
    .join()
    .unwrap();
    poller.expect_none();
    // The other owner still has it, and nothing else is registered.
    assert_eq!((&*near).read(&mut [0; 2]).unwrap(), 1);
    assert_eq!(poller.delete(near.as_raw_fd()).unwrap_err().kind(), ErrorKind::NotFound);
}

/// C1: two registrations of one source, each with its own end.
pub(crate) fn a_registered_source_is_registered_with_a_second_poller<P: Poller>() {
    let (near, mut far) = pair();
    let (mut poller, mut second) = (P::new().unwrap(), P::new().unwrap());
    let near = Registered::new(poller.registry(), near, EventObject::client).unwrap();
    let near = Registered::new(second.registry(), near, EventObject::server).unwrap();
    far.write_all(b"x").unwrap();
    assert_eq!(poller.expect_one().kind, EventKind::Client);
    assert_eq!(second.expect_one().kind, EventKind::Server);
    let near = near.into_inner();
    second.expect_none();
    poller.expect_one();
    drop(near);
    poller.expect_none();
}

/// C16: through `&mut` like its source, through `&` like a reference to it, and vectored.
pub(crate) fn a_registered_source_reads_and_writes<P: Poller>() {
    fn exchange(mut near: impl Read + Write, mut far: &UnixStream) {
        assert_eq!(near.write_vectored(&[IoSlice::new(b"ab"), IoSlice::new(b"cd")]).unwrap(), 4);
        assert_eq!(near.write(b"e").unwrap(), 1);
        let mut bytes = [0; 5];
        far.read_exact(&mut bytes).unwrap();
        assert_eq!(&bytes, b"abcde");

        far.write_all(&bytes).unwrap();
        let (mut one, mut two) = ([0; 2], [0; 2]);
        let mut buffers = [IoSliceMut::new(&mut one), IoSliceMut::new(&mut two)];
        assert_eq!(near.read_vectored(&mut buffers).unwrap(), 4);
        assert_eq!((&one, &two), (b"ab", b"cd"));
        assert_eq!(near.read(&mut one).unwrap(), 1);
        assert_eq!(near.read(&mut one).unwrap_err().kind(), ErrorKind::WouldBlock);
    }
    let (near, far) = pair();
    let mut poller = P::new().unwrap();
    let near = Registered::new(poller.registry(), near, EventObject::client).unwrap();
    exchange(&near, &far);
    exchange(near, &far);
    poller.expect_none();
}

/// C16: a library that buffers flushes it.
pub(crate) fn a_registered_source_is_flushed<P: Poller>() {
    #[derive(Default)]
    struct Buffered {
        bytes: Vec<u8>,
        stream: Option<UnixStream>,
    }
    impl AsFd for Buffered {
        fn as_fd(&self) -> BorrowedFd<'_> {
            self.stream.as_ref().unwrap().as_fd()
        }
    }
    impl Write for Buffered {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.bytes.write(bytes)
        }
        fn flush(&mut self) -> io::Result<()> {
            self.stream.as_ref().unwrap().write_all(&std::mem::take(&mut self.bytes))
        }
    }
    impl Write for &Buffered {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.stream.as_ref().unwrap().write(bytes)
        }
        fn flush(&mut self) -> io::Result<()> {
            self.stream.as_ref().unwrap().write_all(b".")
        }
    }
    let (near, mut far) = pair();
    let poller = P::new().unwrap();
    let buffered = Buffered { stream: Some(near), ..Buffered::default() };
    let mut near = Registered::new(poller.registry(), buffered, EventObject::client).unwrap();
    near.write_all(b"ab").unwrap();
    assert_eq!(far.read(&mut [0]).unwrap_err().kind(), ErrorKind::WouldBlock);
    near.flush().unwrap();
    (&near).flush().unwrap();
    let mut bytes = [0; 4];
    assert_eq!(far.read(&mut bytes).unwrap(), 3);
    assert_eq!(&bytes, b"ab.\0");
}

/// C16: a child's output, which needs `&mut`, and a file, which does not.
pub(crate) fn a_pipe_is_read_while_it_is_registered<P: Poller>() {
    let mut poller = P::new().unwrap();
    let mut child = spawn(Command::new("echo").arg("hello").stdout(Stdio::piped()));
    let stdout = child.stdout.take().unwrap();
    let mut stdout = Registered::new(poller.registry(), stdout, EventObject::client).unwrap();
    let mut output = String::new();
    stdout.read_to_string(&mut output).unwrap();
    assert_eq!(output, "hello\n");
    child.wait().unwrap();
    drop(stdout);

    let (reader, mut writer) = pipe();
    let reader: Registered<File> =
        Registered::new(poller.registry(), reader, EventObject::client).unwrap();
    writer.write_all(b"xyz").unwrap();
    poller.expect_one();
    assert_eq!((&reader).read(&mut [0; 4]).unwrap(), 3);
    poller.expect_none();
}

/// C16: a library owns its connection, and needs `&mut`.
pub(crate) fn a_library_owns_a_registered_source<P: Poller>() {
    struct Session<S: Read + Write> {
        stream: S,
        key: u8,
    }
    impl<S: Read + Write> Session<S> {
        fn answer(&mut self) -> io::Result<usize> {
            let mut bytes = [0; 16];
            let count = self.stream.read(&mut bytes)?;
            bytes[..count].iter_mut().for_each(|byte| *byte ^= self.key);
            self.stream.write(&bytes[..count])
        }
    }
    let (near, mut far) = pair();
    let mut poller = P::new().unwrap();
    let stream = Registered::new(poller.registry(), near, EventObject::client).unwrap();
    let mut session = Session { stream, key: 1 };
    far.write_all(b"ab").unwrap();
    poller.expect_one();
    assert_eq!(session.answer().unwrap(), 2);
    let mut bytes = [0; 3];
    assert_eq!(far.read(&mut bytes).unwrap(), 2);
    assert_eq!(&bytes[..2], b"`c");
    session.stream.modify(|fd| EventObject::client(fd).with_token(4)).unwrap();
    far.write_all(b"x").unwrap();
    assert_eq!(poller.expect_one().token, 4);
    drop(session);
    poller.expect_none();
}
