//! Cases that only a model of kqueue can produce.

use std::io::{self, ErrorKind, Read, Write};
use std::iter;
use std::net::{Shutdown, TcpListener, TcpStream};
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::net::UnixStream;
use std::thread;
use std::time::Duration;

use allocation_counter::measure;
use nix::errno::Errno;
use nix::time::{ClockId, clock_gettime};
use pollio::{Connections, EventObject, Interest, Mode, Poller, Readiness, Registry};
use socket2::SockRef;

use super::kevent;
use crate::conformance::mode::MODES;
use crate::conformance::sharing::{Share, beside_waits};
use crate::support::descriptors::{drain, fill, pair, pipe, tcp_pair};
use crate::support::expect::Expect;
use crate::support::kernel::{Kernel, On};

/// Makes a test of each case, over one model.
macro_rules! modelled {
    ($poller:ty) => {
        modelled! { @each $poller;
            a_oneshot_is_reported_once_by_a_buffer_of_one,
            a_poller_that_spins_uses_the_processor,
            a_failed_modify_is_never_reported_and_undoes_nothing,
            a_dropped_filter_is_noted_without_an_allocation,
            a_level_that_became_a_oneshot_lets_waits_sleep,
            a_oneshot_that_lost_a_filter_is_reported_once_after_modify,
            a_poll_finds_what_is_ready_behind_false_alarms,
            a_re_arming_that_fails_takes_the_longer_way,
            an_add_that_fails_leaves_nothing_registered,
            a_connection_that_could_not_be_modified_stays_in_its_table,
            a_number_that_is_not_open_takes_no_memory,
            a_pipe_whose_reader_left_is_still_registered,
            no_interest_is_never_reported_beside_waits,
            a_full_buffer_is_no_out_of_band_data,
            a_client_that_waits_is_no_out_of_band_data,
            an_interrupted_poll_polls_again,
            each_verb_and_each_wait_is_as_many_calls_as_promised,
            nothing_is_allocated_in_steady_waits,
        }
    };
    (@each $poller:ty; $($case:ident,)*) => {
        $(#[test]
        fn $case() {
            $crate::support::subprocess::in_subprocess!($crate::linux::kqueue_model::modelled::$case::<$poller>);
        })*
    };
}
pub(crate) use modelled;

/// Two ends of a connection. The first has a byte to read.
fn ready() -> (UnixStream, UnixStream) {
    let (near, mut far) = pair();
    far.write_all(b"x").unwrap();
    (near, far)
}

/// C4, C9: the two filters of a descriptor come in different batches, if at all.
pub(crate) fn a_oneshot_is_reported_once_by_a_buffer_of_one<P: Share + AsFd>() {
    for (capacity, bound) in [(0, usize::MAX), (1, usize::MAX), (1, 1), (32, 1)] {
        let pairs: Vec<_> = (0..10).map(|_| pair()).collect();
        let mut poller = P::with_capacity(capacity).unwrap();
        poller.set_max_events(bound);
        for (token, (near, far)) in (0..).zip(&pairs) {
            (&*far).write_all(b"x").unwrap();
            let object = EventObject::client(near.as_raw_fd()).with_interest(Interest::BOTH);
            poller.add(object.with_mode(Mode::Oneshot).with_token(token)).unwrap();
        }
        let mut seen = Vec::new();
        while let events @ [_, ..] = poller.wait(0).unwrap() {
            seen.extend(events.iter().map(|event| event.token));
        }
        seen.sort_unstable();
        assert_eq!(seen, Vec::from_iter(0..10));
        poller.expect_none();
        // The other interest is not lost: `modify` reports it.
        for (token, (near, _)) in (0..).zip(&pairs) {
            drain(near);
            let object = EventObject::client(near.as_raw_fd()).with_interest(Interest::BOTH);
            poller.modify(object.with_mode(Mode::Oneshot).with_token(token)).unwrap();
            let event = poller.expect_one();
            assert_eq!((event.token, event.readiness()), (token, Readiness::WRITABLE));
        }
    }
}

/// C17: it polls for as long as it waits; without a spin it sleeps.
pub(crate) fn a_poller_that_spins_uses_the_processor<P: Share + AsFd>() {
    let processor_time = |spin, timeout_ms| {
        let mut poller = P::new().unwrap();
        poller.set_spin(spin);
        let now = || clock_gettime(ClockId::CLOCK_THREAD_CPUTIME_ID).unwrap();
        let start = now();
        assert!(poller.wait(timeout_ms).unwrap().is_empty());
        Duration::from(now() - start)
    };
    // A busy machine leaves it a small share of a core.
    let spins = [100, 1_000, 10_000].into_iter().any(|timeout_ms| {
        let spun = processor_time(Duration::MAX, timeout_ms);
        let slept = processor_time(Duration::ZERO, timeout_ms);
        spun > 2 * slept && spun > Duration::from_millis(4)
    });
    assert!(spins, "it sleeps");
}

/// C10, C12: registrations of one descriptor take turns.
pub(crate) fn a_failed_modify_is_never_reported_and_undoes_nothing<P: Share + AsFd>() {
    let (near, _far) = ready();
    let object = EventObject::client(near.as_raw_fd());
    let mut poller = P::new().unwrap();
    let registry = poller.registry().clone();
    thread::scope(|scope| {
        let modifying = scope.spawn(|| {
            for _ in 0..1_000 {
                let _ = registry.modify(object.with_token(2));
            }
        });
        while !modifying.is_finished() {
            assert_eq!(poller.wait(0).unwrap(), [], "nothing is registered");
            poller.add(object.with_token(1)).unwrap();
            poller.delete(object.fd).expect("it was added");
        }
    });
}

/// C10: the kernel has no memory for the new knotes. The registration that they were to replace is no longer reported.
pub(crate) fn an_add_that_fails_leaves_nothing_registered<P: Share + AsFd>() {
    let (near, _far) = ready();
    let object = EventObject::client(near.as_raw_fd())
        .with_interest(Interest::BOTH)
        .with_mode(Mode::Oneshot);
    let mut poller = P::new().unwrap();
    let verbs: [fn(&P, EventObject) -> io::Result<()>; 2] = [P::add, P::modify];
    for verb in verbs {
        poller.add(object).unwrap();
        kevent::fail_next(poller.as_fd(), kevent::EV_ADD, Errno::ENOMEM);
        let error = verb(&poller, object.with_interest(Interest::READABLE)).unwrap_err();
        assert_eq!(error.raw_os_error(), Some(Errno::ENOMEM as i32));
        poller.expect_none();
        assert_eq!(poller.delete(object.fd).unwrap_err().kind(), ErrorKind::NotFound);
    }
}

/// C10: though its registration is gone.
pub(crate) fn a_connection_that_could_not_be_modified_stays_in_its_table<P: Share + AsFd>() {
    let ((near, mut far), (second, _far)) = (pair(), pair());
    far.write_all(b"x").unwrap();
    let mut poller = P::new().unwrap();
    let mut table = Connections::new(poller.registry());
    let key = table.insert(near, EventObject::client, 1).unwrap();
    kevent::fail_next(poller.as_fd(), kevent::EV_ADD, Errno::ENOMEM);
    let error = table.modify(key, EventObject::server).unwrap_err();
    assert_eq!(error.raw_os_error(), Some(Errno::ENOMEM as i32));
    poller.expect_none();
    assert_eq!(table.get(key).map(|(_, data)| *data), Some(1));
    let error = table.modify(key, EventObject::server).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotFound);
    assert_eq!(table.remove(key).map(|(_, data)| data), Some(1));

    kevent::fail_next(poller.as_fd(), kevent::EV_ADD, Errno::ENOMEM);
    table.insert(second, EventObject::client, 2).unwrap_err();
    assert!(table.is_empty());
}

/// C4, C10: after any error of the single call, the two calls that follow return it again, or succeed.
pub(crate) fn a_re_arming_that_fails_takes_the_longer_way<P: Share + AsFd>() {
    let (near, _far) = ready();
    let object = EventObject::client(near.as_raw_fd())
        .with_interest(Interest::BOTH)
        .with_mode(Mode::Oneshot);
    let mut poller = P::new().unwrap();
    poller.add(object).unwrap();
    for token in 1..4 {
        poller.expect_one();
        kevent::fail_next(poller.as_fd(), kevent::EV_ENABLE, Errno::ENOMEM);
        poller.modify(object.with_token(token)).unwrap();
        let event = poller.expect_one();
        assert!(
            event.token == token && event.readiness() == Readiness::READABLE | Readiness::WRITABLE
        );
        poller.expect_none();
        poller.modify(object).unwrap();
    }
}

/// C4, C7: the filters of a level can be enabled too. They would then stay level-triggered, and no wait would report
/// them.
pub(crate) fn a_level_that_became_a_oneshot_lets_waits_sleep<P: Share>() {
    let (near, _far) = ready();
    let level = EventObject::client(near.as_raw_fd()).with_interest(Interest::BOTH);
    let oneshot = level.with_mode(Mode::Oneshot);
    let verbs: [fn(&P, EventObject) -> io::Result<()>; 2] = [P::add, P::modify];
    for verb in verbs {
        let mut poller = P::new().unwrap();
        poller.add(oneshot).unwrap();
        verb(&poller, level).unwrap();
        poller.modify(oneshot).unwrap();
        poller.expect_one();
        let (calls, _) = kevent::calls(|| assert_eq!(poller.wait(20).unwrap(), []));
        assert!(calls < 5, "{calls} calls");
    }
}

/// C4, C12, C18: one of its two knotes is deleted, which takes other code that calls kevent(2) on the poller's
/// descriptor. `modify` arms the other knote, notices, and adds both.
pub(crate) fn a_oneshot_that_lost_a_filter_is_reported_once_after_modify<P: Share + AsFd>() {
    const ROUNDS: u32 = 500;
    for filter in [kevent::EVFILT_READ, kevent::EVFILT_WRITE] {
        let (near, mut far) = pair();
        far.write_all(b"x").unwrap();
        let object = EventObject::client(near.as_raw_fd())
            .with_interest(Interest::BOTH)
            .with_mode(Mode::Oneshot);
        let poller = P::new().unwrap();
        poller.add(object).unwrap();
        let number = usize::try_from(object.fd).unwrap();
        let deletion = kevent::Kevent::new(number, filter, kevent::EV_DELETE);
        let seen = beside_waits(&poller, ROUNDS, |reported| {
            reported(0);
            for token in 1..ROUNDS {
                kevent::kevent(poller.as_fd(), &[deletion], &mut [], Some(Duration::ZERO)).unwrap();
                poller.modify(object.with_token(token)).unwrap();
                reported(token);
            }
        });
        let wrong = seen.iter().filter(|times| **times != 1).count();
        assert_eq!(wrong, 0, "of {ROUNDS}");
    }
}

/// C9: false alarms of levels fill the buffer, and come back.
pub(crate) fn a_poll_finds_what_is_ready_behind_false_alarms<P: Share>() {
    let rooms = [(1, 1), (1, 3), (2, 3), (4, 4), (32, 70)];
    for ((capacity, alarms), bound) in
        rooms.into_iter().flat_map(|room| [(room, usize::MAX), (room, room.0)])
    {
        let pairs: Vec<_> = (0..alarms).map(|_| pair()).collect();
        let mut poller = P::with_capacity(capacity).unwrap();
        // The buffer may grow, or not.
        poller.set_max_events(bound);
        for (near, far) in &pairs {
            let object = EventObject::client(near.as_raw_fd()).with_interest(Interest::PRIORITY);
            poller.add(object).unwrap();
            fill(far);
        }
        // With false alarms only, the poll ends.
        assert_eq!(poller.wait(0).unwrap(), []);
        let (near, mut far) = pair();
        far.write_all(b"x").unwrap();
        poller.add(EventObject::client(near.as_raw_fd()).with_token(1)).unwrap();
        for _ in 0..5 {
            let tokens: Vec<_> = poller.wait(0).unwrap().iter().map(|event| event.token).collect();
            assert_eq!(tokens, [1], "{alarms} with room for {capacity}, {bound}");
        }
        drain(&near);
        assert_eq!(poller.wait(0).unwrap(), []);
    }
}

/// C13: FreeBSD's kernel drops the filter of a pipe whose reader is gone.
pub(crate) fn a_dropped_filter_is_noted_without_an_allocation<P: Share>() {
    let (reader, writer) = pipe();
    let object = EventObject::client(writer.as_raw_fd()).with_interest(Interest::WRITABLE);
    let mut poller = P::new().unwrap();
    poller.add(object).unwrap();
    poller.expect_one();
    drop(reader);
    let mut is_closed = false;
    let taken = measure(|| {
        while let [event] = poller.wait(100).unwrap() {
            is_closed = event.is_write_closed();
            if is_closed {
                break;
            }
        }
    });
    assert_eq!(taken.count_total, 0);
    assert!(is_closed);
    poller.delete(object.fd).unwrap();
}

/// A number that is not open allocates no table of all numbers up to it.
pub(crate) fn a_number_that_is_not_open_takes_no_memory<P: Share + AsFd>() {
    let poller = P::new().unwrap();
    for fd in [-1, 1 << 29, i32::MAX] {
        let object = EventObject::client(fd).with_interest(Interest::BOTH).with_mode(Mode::Oneshot);
        let taken = measure(|| {
            for _ in 0..10 {
                let error = poller.add(object).unwrap_err();
                assert_eq!(error.raw_os_error(), Some(Errno::EBADF as i32));
                poller.modify(object).unwrap_err();
            }
        });
        assert!(taken.bytes_max < 100_000, "{fd}: {} bytes", taken.bytes_max);
    }
}

/// C10, C16: FreeBSD drops the filter of a pipe whose reader is gone, but the registration stays.
pub(crate) fn a_pipe_whose_reader_left_is_still_registered<P: Share + On>() {
    let (reader, writer) = pipe();
    let object = EventObject::client(writer.as_raw_fd()).with_interest(Interest::WRITABLE);
    let mut poller = P::new().unwrap();
    poller.add(object.with_token(1)).unwrap();
    poller.expect_one();
    drop(reader);
    let event = poller.expect_one();
    assert!(event.token == 1 && event.is_write_closed(), "{event:?}");
    let again = poller.wait(0).unwrap().len();
    assert_eq!(again, usize::from(P::KERNEL != Kernel::FreeBsd), "FreeBSD reports it once");
    poller.delete(object.fd).unwrap();
    assert_eq!(poller.delete(object.fd).unwrap_err().kind(), ErrorKind::NotFound);

    // Closed without a delete, and its number used again: the new file is not registered.
    for verb in [|poller: &P, object: EventObject| poller.delete(object.fd), P::modify] {
        let (reader, writer) = pipe();
        let object = EventObject::client(writer.as_raw_fd()).with_interest(Interest::WRITABLE);
        poller.add(object).unwrap();
        drop(reader);
        while !poller.expect_one().is_write_closed() {}
        drop(writer);
        let again = pair();
        assert!([&again.0, &again.1].iter().any(|end| end.as_raw_fd() == object.fd));
        assert_eq!(verb(&poller, object).unwrap_err().kind(), ErrorKind::NotFound);
        assert_eq!(verb(&poller, object).unwrap_err().kind(), ErrorKind::NotFound);
    }

    let (reader, writer) = pipe();
    let object = EventObject::client(writer.as_raw_fd()).with_interest(Interest::WRITABLE);
    poller.add(object).unwrap();
    drop(reader);
    while !poller.expect_one().is_write_closed() {}
    match poller.modify(object.with_token(2)) {
        Ok(()) => assert_eq!(poller.expect_one().token, 2),
        Err(error) => {
            let errno = if P::KERNEL == Kernel::NetBsd { Errno::EBADF } else { Errno::EPIPE };
            assert_eq!(error.raw_os_error(), Some(errno as i32));
            assert_eq!(poller.delete(object.fd).unwrap_err().kind(), ErrorKind::NotFound);
        }
    }
}

/// C5, C12: NetBSD activates a disabled filter for a moment, while another thread waits.
pub(crate) fn no_interest_is_never_reported_beside_waits<P: Share>() {
    let (near, _far) = ready();
    let object = EventObject::client(near.as_raw_fd()).with_interest(Interest::NONE);
    let mut poller = P::new().unwrap();
    let registry = poller.registry().clone();
    thread::scope(|scope| {
        let adding = scope.spawn(|| {
            for _ in 0..500 {
                registry.add(object).unwrap();
                registry.modify(object).unwrap();
                registry.delete(object.fd).unwrap();
            }
        });
        while !adding.is_finished() {
            assert_eq!(poller.wait(1).unwrap(), []);
        }
    });
}

/// C4, C6: on Apple systems the filter for out-of-band data also fires on a full buffer. This hides no later event.
pub(crate) fn a_full_buffer_is_no_out_of_band_data<P: Share + On>() {
    for (mode, interest) in MODES.into_iter().flat_map(|mode| {
        // The other interest is not ready.
        [Interest::PRIORITY, Interest::PRIORITY | Interest::WRITABLE].map(|one| (mode, one))
    }) {
        let asking = |fd| EventObject::client(fd).with_interest(interest).with_mode(mode);
        let mut poller = P::new().unwrap();
        let (near, far) = pair();
        let object = asking(near.as_raw_fd());
        fill(&near);
        fill(&far);
        poller.add(object).unwrap();
        poller.expect_none();
        poller.modify(object).unwrap();
        poller.expect_none();
        drain(&near);
        poller.expect_none();
        far.shutdown(Shutdown::Write).unwrap();
        match P::KERNEL {
            Kernel::Apple => assert!(poller.expect_one().is_read_closed(), "{object:?}"),
            _ => poller.expect_none(),
        }

        let mut poller = P::new().unwrap();
        let (mut near, far) = tcp_pair();
        let object = asking(near.as_raw_fd());
        fill(&near);
        poller.add(object).unwrap();
        let sent = iter::from_fn(|| (&far).write(&[0; 4096]).ok()).sum();
        poller.expect_none();
        near.set_nonblocking(false).unwrap();
        near.read_exact(&mut vec![0; sent]).unwrap();
        SockRef::from(&far).send_out_of_band(b"!").unwrap();
        if P::KERNEL.has_priority() {
            assert!(poller.expect_one().is_priority(), "{object:?}");
        }
        if mode == Mode::Oneshot {
            poller.expect_none();
        }
    }
}

/// C6: a connection to accept fires it, too.
pub(crate) fn a_client_that_waits_is_no_out_of_band_data<P: Share + On>() {
    for mode in MODES {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let object = EventObject::server(listener.as_raw_fd()).with_mode(mode);
        let mut poller = P::new().unwrap();
        poller.add(object.with_interest(Interest::PRIORITY)).unwrap();
        let _client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        poller.expect_none();
        poller.modify(object.with_interest(Interest::PRIORITY | Interest::READABLE)).unwrap();
        assert_eq!(poller.expect_one().readiness(), Readiness::READABLE);
    }
}

/// C7: polls that sleep are interrupted too.
pub(crate) fn an_interrupted_poll_polls_again<P: Share>() {
    let (near, mut far) = pair();
    let mut poller = P::new().unwrap();
    poller.add(EventObject::client(near.as_raw_fd())).unwrap();
    for _ in 0..20 {
        assert_eq!(poller.wait(0).unwrap(), []);
    }
    far.write_all(b"x").unwrap();
    for _ in 0..20 {
        assert_eq!(poller.wait(0).unwrap().len(), 1);
    }
}

/// The number of calls of kevent(2) that the page on kernels promises, and of their changes.
pub(crate) fn each_verb_and_each_wait_is_as_many_calls_as_promised<P: Share + On>() {
    // The filters that a descriptor can have. They are deleted before others are added.
    const DELETIONS: usize = 3;
    let (near, _far) = ready();
    let mut poller = P::new().unwrap();
    let wait = |poller: &mut P, object: EventObject| {
        if !object.interest().is_empty() {
            let wait = || assert_eq!(poller.wait(-1).unwrap().len(), 1);
            assert_eq!(kevent::calls(wait), (1, 0), "{object:?}");
        }
    };
    let all = Interest::BOTH | Interest::PRIORITY;
    for mode in MODES {
        // Without an interest, a disabled filter keeps the place.
        for (interest, filters) in
            [(Interest::NONE, 1), (Interest::READABLE, 1), (Interest::BOTH, 2), (all, 3)]
        {
            let object = EventObject::client(near.as_raw_fd()).with_interest(interest);
            let object = object.with_mode(mode);
            let (added, replaced) = ((1, DELETIONS + filters), (2, DELETIONS + filters));
            assert_eq!(kevent::calls(|| poller.add(object).unwrap()), added, "{object:?}");
            wait(&mut poller, object);
            let is_re_armed =
                P::KERNEL.can_rearm() && mode == Mode::Oneshot && !interest.is_empty();
            let modified = if is_re_armed { (1, filters) } else { replaced };
            // After its report, and while it is armed, with another token and another kind.
            let server = EventObject::server(object.fd).with_interest(interest).with_mode(mode);
            for object in [object, object.with_token(7), server] {
                let modify = || poller.modify(object).unwrap();
                assert_eq!(kevent::calls(modify), modified, "{object:?}");
            }
            wait(&mut poller, object);
            for other in [Interest::WRITABLE, interest] {
                let modify = || poller.modify(object.with_interest(other)).unwrap();
                let filters = if other == interest { filters } else { 1 };
                assert_eq!(kevent::calls(modify), (2, DELETIONS + filters), "{object:?}");
            }
            let delete = || poller.delete(object.fd).unwrap();
            assert_eq!(kevent::calls(delete), (1, DELETIONS), "{object:?}");
        }
    }
}

/// C13: the model's own allocations are not counted.
pub(crate) fn nothing_is_allocated_in_steady_waits<P: Share + On>() {
    let pairs: Vec<_> = (0..230).map(|_| pair()).collect();
    for capacity in [1, 32, 224, 1_000] {
        for mode in MODES {
            let mut poller = P::with_capacity(capacity).unwrap();
            let registry = poller.registry().clone();
            let object = |token: usize| {
                EventObject::client(pairs[token].0.as_raw_fd())
                    .with_interest(Interest::BOTH)
                    .with_mode(mode)
                    .with_token(u32::try_from(token).unwrap())
            };
            (0..pairs.len()).for_each(|token| registry.add(object(token)).unwrap());
            let mut seen = 0;
            while seen < 3 * pairs.len() {
                seen += wait_and_modify(&mut poller, &registry, object);
            }
            let steady = measure(|| {
                for _ in 0..5 {
                    wait_and_modify(&mut poller, &registry, object);
                }
            });
            assert_eq!(steady.count_total, 0, "{mode:?} with room for {capacity}");
        }
    }
}

fn wait_and_modify<P: Poller>(
    poller: &mut P,
    registry: &Registry,
    object: impl Fn(usize) -> EventObject,
) -> usize {
    let events = poller.wait(0).unwrap();
    events.iter().for_each(|event| registry.modify(object(event.token as usize)).unwrap());
    events.len()
}
