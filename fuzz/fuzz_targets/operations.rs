//! Any sequence of operations on real descriptors: a poller has to report the readiness that poll(2) sees.
#![no_main]

use std::collections::{BTreeMap, BTreeSet};
use std::io::{ErrorKind, Read, Write};
use std::net::Shutdown;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use arbitrary::Arbitrary;
use libfuzzer_sys::fuzz_target;
use pollio::{EventKind, EventObject, Interest, Mode, OsPoller, Poller, Readiness, Waker};
use rustix::event::{PollFd, PollFlags, Timespec, poll};

#[derive(Arbitrary, Debug)]
enum Operation {
    Add(Request),
    Modify(Request),
    Delete,
    /// It becomes readable, or all is read.
    Send,
    Receive,
    /// It has no more room to write, or some again.
    Fill,
    Drain,
    /// Its peer sends no more, or goes, or another descriptor takes its place.
    HalfClose,
    HangUp,
    Replace,
    Spin(u8),
    Wait,
}

#[derive(Arbitrary, Debug)]
struct Request {
    interest: u8,
    mode: u8,
    is_server: bool,
    token: u32,
}

fuzz_target!(|input: (u8, Vec<(u8, Operation)>)| {
    let (capacity, operations) = input;
    let mut fixture = Fixture::new(capacity.into());
    for (which, operation) in operations.into_iter().take(200) {
        fixture.run(which.into(), operation);
    }
    fixture.wait();
});

struct Fixture {
    poller: OsPoller,
    watched: [Watched; 5],
}

/// A descriptor and the known state of its registration.
struct Watched {
    what: What,
    registered: Option<Registered>,
}

enum What {
    Pair(UnixStream, Option<UnixStream>),
    Waker(Waker),
}

struct Registered {
    object: EventObject,
    /// It has to be reported if it is ready.
    must: bool,
    /// It may be reported if it is ready.
    may: bool,
}

impl Fixture {
    fn new(capacity: usize) -> Self {
        let poller = OsPoller::with_capacity(capacity).unwrap();
        let watched = std::array::from_fn(|index| {
            let what = if index == 0 { What::Waker(Waker::new().unwrap()) } else { What::pair() };
            Watched { what, registered: None }
        });
        Self { poller, watched }
    }

    fn run(&mut self, which: usize, operation: Operation) {
        let Self { poller, watched } = self;
        let index = which % watched.len();
        let watched = &mut watched[index];
        match operation {
            Operation::Add(request) => {
                let object = request.object(&watched.what);
                let added = poller.add(object);
                if watched.registered.is_some() {
                    assert_eq!(added.unwrap_err().kind(), ErrorKind::AlreadyExists);
                } else {
                    added.unwrap();
                    watched.registered = Some(Registered { object, must: true, may: true });
                }
            }
            Operation::Modify(request) => {
                let object = request.object(&watched.what);
                let modified = poller.modify(object);
                if watched.registered.is_none() {
                    assert_eq!(modified.unwrap_err().kind(), ErrorKind::NotFound);
                } else {
                    modified.unwrap();
                    watched.registered = Some(Registered { object, must: true, may: true });
                }
            }
            Operation::Delete => {
                let deleted = poller.delete(watched.what.as_fd().as_raw_fd());
                match watched.registered.take() {
                    Some(_) => deleted.unwrap(),
                    None => assert_eq!(deleted.unwrap_err().kind(), ErrorKind::NotFound),
                }
            }
            Operation::Send => watched.arrive(What::send),
            // An eventfd reports room at each read.
            Operation::Receive => watched.arrive(What::receive),
            Operation::Fill => watched.what.fill(),
            Operation::Drain => watched.arrive(What::drain),
            Operation::HalfClose => watched.arrive(What::half_close),
            Operation::HangUp => watched.arrive(What::hang_up),
            Operation::Replace => {
                if let What::Pair(..) = watched.what {
                    // The old one is closed, which deletes it.
                    *watched = Watched { what: What::pair(), registered: None };
                }
            }
            Operation::Spin(microseconds) => {
                poller.set_spin(Duration::from_micros(microseconds.into()));
            }
            Operation::Wait => self.wait(),
        }
    }

    /// Collects the reports of the next waits: a buffer of one event grows until it holds all.
    fn wait(&mut self) {
        let mut reported = BTreeMap::new();
        for _ in 0..4 {
            let mut descriptors = BTreeSet::new();
            for event in self.poller.wait(0).unwrap() {
                assert!(descriptors.insert(event.fd), "reported twice in one wait: {event:?}");
                reported.entry(event.fd).or_insert_with(Vec::new).push(*event);
            }
        }
        for Watched { what, registered } in &mut self.watched {
            let events = reported.remove(&what.as_fd().as_raw_fd()).unwrap_or_default();
            let Some(registered) = registered else {
                assert!(events.is_empty(), "not registered: {events:?}");
                continue;
            };
            let Registered { object, must, may } = registered;
            let readiness = what.readiness(object.interest());
            for event in &events {
                assert_eq!((event.kind, event.token), (object.kind, object.token));
                assert_eq!(event.readiness(), readiness, "{object:?}");
            }
            let is_ready = !readiness.is_empty();
            assert!(!events.is_empty() || !*must || !is_ready, "lost: {object:?} {readiness:?}");
            assert!(events.is_empty() || *may && is_ready, "reported for nothing: {events:?}");
            match object.mode() {
                Mode::Level => continue,
                Mode::Edge => assert!(events.len() <= 1, "an edge reported twice: {events:?}"),
                _oneshot => {
                    assert!(events.len() <= 1, "a oneshot reported twice: {events:?}");
                    if events.is_empty() {
                        continue;
                    }
                }
            }
            (*must, *may) = (false, false);
        }
        assert!(reported.is_empty(), "nobody's: {reported:?}");
    }
}

impl Watched {
    /// Makes something happen to the descriptor. The kernel decides whether that is an arrival for an edge, unless it
    /// brings new readiness.
    fn arrive(&mut self, happening: fn(&mut What)) {
        let Some(registered) = &mut self.registered else { return happening(&mut self.what) };
        let interest = registered.object.interest();
        let before = self.what.readiness(interest);
        happening(&mut self.what);
        if registered.object.mode() == Mode::Edge {
            registered.must |= !(self.what.readiness(interest) - before).is_empty();
            registered.may = true;
        }
    }
}

impl What {
    fn pair() -> Self {
        let (near, far) = UnixStream::pair().unwrap();
        near.set_nonblocking(true).unwrap();
        far.set_nonblocking(true).unwrap();
        Self::Pair(near, Some(far))
    }

    fn send(&mut self) {
        match self {
            Self::Pair(_, far) => _ = far.as_mut().map(|far| far.write(b"x")),
            Self::Waker(waker) => {
                waker.wake().unwrap();
                assert!(!self.readiness(Interest::READABLE).is_empty(), "woken, and not readable");
            }
        }
    }

    fn receive(&mut self) {
        match self {
            Self::Pair(near, _) => while near.read(&mut [0; 4096]).is_ok_and(|count| count > 0) {},
            Self::Waker(waker) => {
                waker.clear().unwrap();
                assert!(self.readiness(Interest::READABLE).is_empty(), "cleared, and readable");
            }
        }
    }

    fn fill(&mut self) {
        if let Self::Pair(near, _) = self {
            while near.write(&[0; 1 << 16]).is_ok() {}
        }
    }

    fn drain(&mut self) {
        if let Self::Pair(_, Some(far)) = self {
            while far.read(&mut [0; 1 << 16]).is_ok_and(|count| count > 0) {}
        }
    }

    fn half_close(&mut self) {
        if let Self::Pair(_, Some(far)) = self {
            far.shutdown(Shutdown::Write).unwrap();
        }
    }

    fn hang_up(&mut self) {
        if let Self::Pair(_, far) = self {
            *far = None;
        }
    }

    /// The readiness by poll(2), in the contract's terms.
    fn readiness(&self, interest: Interest) -> Readiness {
        let all = PollFlags::IN | PollFlags::OUT | PollFlags::PRI | PollFlags::RDHUP;
        let mut watched = [PollFd::from_borrowed_fd(self.as_fd(), all)];
        poll(&mut watched, Some(&Timespec::default())).unwrap();
        let sees = |flag| watched[0].revents().contains(flag);
        let lets_no_call_block = sees(PollFlags::HUP) || sees(PollFlags::ERR);
        let reads = interest.contains(Interest::READABLE);
        let writes = interest.contains(Interest::WRITABLE);
        let ends = sees(PollFlags::RDHUP) && reads || sees(PollFlags::HUP);
        [
            (sees(PollFlags::IN) && reads || lets_no_call_block, Readiness::READABLE),
            (sees(PollFlags::OUT) && writes || lets_no_call_block, Readiness::WRITABLE),
            (ends, Readiness::READ_CLOSED),
            (sees(PollFlags::HUP), Readiness::WRITE_CLOSED),
            (sees(PollFlags::ERR), Readiness::ERROR),
        ]
        .into_iter()
        .filter(|(is_true, _)| *is_true)
        .fold(Readiness::NONE, |all, (_, one)| all | one)
    }
}

impl AsFd for What {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Self::Pair(near, _) => near.as_fd(),
            Self::Waker(waker) => waker.as_fd(),
        }
    }
}

impl Request {
    fn object(&self, what: &What) -> EventObject {
        let fd = what.as_fd().as_raw_fd();
        let interests = [Interest::READABLE, Interest::WRITABLE, Interest::PRIORITY];
        let interest = (0..).zip(interests).fold(Interest::NONE, |all, (place, one)| {
            if self.interest >> place & 1 == 0 { all } else { all | one }
        });
        let modes = [Mode::Level, Mode::Edge, Mode::Oneshot];
        let kind = if self.is_server { EventKind::Server } else { EventKind::Client };
        let object = match kind {
            EventKind::Server => EventObject::server(fd),
            EventKind::Client => EventObject::client(fd),
        };
        object
            .with_interest(interest)
            .with_mode(modes[usize::from(self.mode) % modes.len()])
            .with_token(self.token)
    }
}
