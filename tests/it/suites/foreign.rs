//! A backend from another crate, such as one for a network stack in user space.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::io::{self, ErrorKind};
use std::net::TcpStream;
use std::os::fd::{AsFd, AsRawFd, RawFd};
use std::panic::{AssertUnwindSafe, RefUnwindSafe, UnwindSafe, catch_unwind, resume_unwind};
use std::rc::Rc;
use std::sync::{Arc, Condvar, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use pollio::{
    Backend, Event, EventObject, ForeignSource, Interest, Poller, Readiness, Registered, Registry,
    Source, Waker, Wakeups, channel,
};

use crate::support::descriptors::pair;

/// Reports every registered descriptor as ready for its interest, and waits while there is none.
pub(crate) struct AlwaysReady {
    list: Arc<List>,
    registry: Registry,
    wakeups: Wakeups,
    events: Vec<Event>,
}

#[derive(Default)]
struct List {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    objects: BTreeMap<RawFd, EventObject>,
    is_kicked: bool,
}

impl List {
    fn change<T>(&self, change: impl FnOnce(&mut State) -> T) -> T {
        let changed = change(&mut self.state.lock().unwrap());
        self.changed.notify_all();
        changed
    }
}

impl Backend for List {
    fn add(&self, object: EventObject) -> io::Result<()> {
        self.change(|state| state.objects.insert(object.fd, object));
        Ok(())
    }

    fn modify(&self, object: EventObject) -> io::Result<()> {
        self.change(|state| {
            *state.objects.get_mut(&object.fd).ok_or(ErrorKind::NotFound)? = object;
            Ok(())
        })
    }

    fn delete(&self, fd: RawFd) -> io::Result<()> {
        self.change(|state| state.objects.remove(&fd)).map(drop).ok_or(ErrorKind::NotFound.into())
    }

    fn wake(&self) -> io::Result<()> {
        self.change(|state| state.is_kicked = true);
        Ok(())
    }
}

impl List {
    fn block(&self, timeout: Option<Duration>) -> Vec<EventObject> {
        let is_quiet = |state: &mut State| state.objects.is_empty() && !state.is_kicked;
        let state = self.state.lock().unwrap();
        let timeout = timeout.unwrap_or(Duration::MAX);
        let (mut state, _) = self.changed.wait_timeout_while(state, timeout, is_quiet).unwrap();
        state.is_kicked = false;
        state.objects.values().copied().collect()
    }
}

impl Poller for AlwaysReady {
    fn new() -> io::Result<Self> {
        let list = Arc::new(List::default());
        let registry = Registry::new(list.clone());
        let wakeups = registry.wakeups();
        Ok(Self { list, registry, wakeups, events: Vec::new() })
    }

    fn registry(&self) -> &Registry {
        &self.registry
    }

    fn wait_timeout(&mut self, timeout: Option<Duration>) -> io::Result<&[Event]> {
        let answer = |object: EventObject| {
            let mut readiness = Readiness::NONE;
            if object.interest().contains(Interest::READABLE) {
                readiness |= Readiness::READABLE;
            }
            if object.interest().contains(Interest::WRITABLE) {
                readiness |= Readiness::WRITABLE;
            }
            Event::new(object.fd, object.kind, object.token, readiness)
        };
        let deadline = timeout.and_then(|timeout| Instant::now().checked_add(timeout));
        loop {
            let time_left = deadline.map(|deadline| deadline - Instant::now().min(deadline));
            let ready = self.wakeups.block(time_left, |timeout| self.list.block(timeout));
            self.events = ready.into_iter().map(answer).collect();
            self.wakeups.take(usize::MAX, |token| self.events.push(Event::wake(-1, token)));
            if !self.events.is_empty() || time_left == Some(Duration::ZERO) {
                return Ok(&self.events);
            }
        }
    }
}

/// C15: the crate has the marks, and the backend can be woken.
#[test]
fn a_backend_from_elsewhere_has_wakers_and_channels() {
    let mut poller = AlwaysReady::new().unwrap();
    let waker = Waker::new(poller.registry(), 5).unwrap();
    assert_eq!(poller.wait(0).unwrap(), []);
    waker.wake().unwrap();
    assert_eq!(poller.wait(-1).unwrap(), [Event::wake(-1, 5)]);
    let (sender, receiver) = channel(poller.registry(), 6).unwrap();
    thread::scope(|scope| {
        for (token, send) in [(5, false), (6, true)] {
            let (sender, waker) = (&sender, &waker);
            scope.spawn(move || {
                thread::sleep(Duration::from_millis(20));
                if send { sender.send('a').unwrap() } else { waker.wake().unwrap() }
            });
            assert_eq!(poller.wait(-1).unwrap(), [Event::wake(-1, token)]);
        }
    });
    assert_eq!(receiver.try_iter().collect::<Vec<_>>(), ['a']);
    assert_eq!(poller.wait(20).unwrap(), []);
}

/// C15: the report of one wake panics. No other wake is lost.
#[test]
fn a_panic_while_wakes_are_taken_loses_none_of_the_others() {
    let mut poller = AlwaysReady::new().unwrap();
    let wakers = [0, 1, 2].map(|token| Waker::new(poller.registry(), token).unwrap());
    for _ in 0..3 {
        wakers.iter().for_each(|waker| waker.wake().unwrap());
        let take = || poller.wakeups.take(usize::MAX, |_| resume_unwind(Box::new(())));
        catch_unwind(AssertUnwindSafe(take)).unwrap_err();
        let rest = poller.wait(0).unwrap().iter().map(|event| event.token);
        assert_eq!(Vec::from_iter(rest), [1, 2]);
    }
}

#[test]
fn a_backend_can_be_written_elsewhere() {
    let mut poller = AlwaysReady::new().unwrap();
    let registry = poller.registry().clone();
    poller.add(EventObject::client(3).with_token(u32::MAX)).unwrap();
    registry.add(EventObject::server(4).with_interest(Interest::WRITABLE)).unwrap();
    let events = poller.wait(-1).unwrap();
    assert_eq!((events[0].fd, events[0].token), (3, u32::MAX));
    assert!(events[0].is_readable() && !events[0].is_writable());
    assert!(events[1].is_writable() && !events[1].is_readable());

    assert_eq!(format!("{registry:?}"), "Registry { .. }");
    poller.modify(EventObject::client(3).with_interest(Interest::NONE)).unwrap();
    registry.delete(4).unwrap();
    assert_eq!(registry.delete(4).unwrap_err().kind(), ErrorKind::NotFound);
    assert!(poller.wait(-1).unwrap()[0].readiness().is_empty());
}

/// C16
#[test]
fn a_backend_from_elsewhere_takes_registered_sources() {
    let mut poller = AlwaysReady::new().unwrap();
    let (near, _far) = pair();
    let fd = near.as_raw_fd();
    let near = Registered::new(poller.registry(), near, EventObject::server).unwrap();
    near.modify(|fd| EventObject::client(fd).with_token(9)).unwrap();
    assert_eq!(
        poller.wait(-1).unwrap().iter().map(|event| (event.fd, event.token)).collect::<Vec<_>>(),
        [(fd, 9)]
    );
    assert_eq!(
        format!("{near:?}"),
        format!(
            "Registered {{ registration: Registration {{ registry: Registry {{ .. }}, fd: {fd} }}, source: {:?} }}",
            near.get_ref()
        )
    );
    drop(near);
    assert!(poller.wait(0).unwrap().is_empty());
}

/// Then `catch_unwind` around a handler of events needs no `AssertUnwindSafe`.
#[test]
fn the_state_of_a_loop_is_unwind_safe() {
    fn is_unwind_safe<T: UnwindSafe + RefUnwindSafe>() {}
    is_unwind_safe::<pollio::OsPoller>();
    is_unwind_safe::<Registry>();
    is_unwind_safe::<Waker>();
    is_unwind_safe::<Registered<TcpStream>>();
}

/// If its source is.
#[test]
fn a_registered_source_is_send_and_sync() {
    fn is_send_and_sync<T: Send + Sync>() {}
    fn is_send<T: Send>() {}
    is_send_and_sync::<Registered<TcpStream>>();
    is_send::<Registered<Cell<u8>>>();
}

/// A connection of the program's own network stack.
pub(crate) struct Stream(pub(crate) RawFd);

impl ForeignSource for Stream {
    fn foreign_fd(&self) -> RawFd {
        self.0
    }
}

/// C16: by value, by reference, and through any pointer, like std's types.
#[test]
fn a_source_from_elsewhere_is_registered_through_any_pointer() {
    fn register<T: Source<By>, By: ?Sized>(poller: &mut AlwaysReady, source: T, fd: RawFd) {
        let source = Registered::new(poller.registry(), source, EventObject::client).unwrap();
        assert_eq!((source.as_raw_fd(), poller.wait(0).unwrap()[0].fd), (fd, fd));
        drop(source);
        assert!(poller.wait(0).unwrap().is_empty());
    }
    let poller = &mut AlwaysReady::new().unwrap();
    let mut stream = Stream(1 << 20);
    register(poller, &stream, 1 << 20);
    register(poller, &mut stream, 1 << 20);
    register(poller, stream, 1 << 20);
    register(poller, Box::new(Stream(7)), 7);
    register(poller, Box::new(Stream(8)) as Box<dyn ForeignSource>, 8);
    register(poller, Rc::new(Stream(9)), 9);
    let stream = Arc::new(Stream(10));
    register(poller, &stream, 10);
    register(poller, Arc::clone(&stream), 10);

    let registered = Registered::new(poller.registry(), stream, EventObject::client).unwrap();
    let mut second = AlwaysReady::new().unwrap();
    register(&mut second, &registered, 10);
    drop(registered);
    assert!(poller.wait(0).unwrap().is_empty());
}

/// A program that is generic over both needs no type annotation.
#[test]
fn the_kind_of_a_source_is_inferred() {
    fn of_kernel<T: AsFd>(registry: &Registry, source: Arc<T>) -> Registered<Arc<T>> {
        Registered::new(registry, source, EventObject::client).unwrap()
    }
    fn foreign<T: ForeignSource>(registry: &Registry, source: &T) -> RawFd {
        Registered::new(registry, source, EventObject::client).unwrap().as_raw_fd()
    }
    let poller = AlwaysReady::new().unwrap();
    let (near, _far) = pair();
    let fd = near.as_raw_fd();
    assert_eq!(of_kernel(poller.registry(), Arc::new(near)).as_fd().as_raw_fd(), fd);
    assert_eq!(foreign(poller.registry(), &Rc::new(Stream(4))), 4);
}
