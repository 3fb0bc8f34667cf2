//! Worlds with a kernel that is not Linux.

use std::io::{self, ErrorKind, Read, Write};
use std::os::fd::AsRawFd;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use pollio::{EventObject, Interest, Mode, Poller, Readiness, Waker};
use pollio_sim::net::{TcpListener, TcpStream};
use pollio_sim::os::unix::net::UnixStream;
use pollio_sim::socket2::{Domain, Socket, Type};
use pollio_sim::{Conditions, Kernel, SimPoller, Timer, World, check, check_on, thread};

use crate::checks::report_of;

const SECOND: Duration = Duration::from_secs(1);

/// Reads from a client that a non-blocking listener has accepted, and that has sent nothing yet.
fn read_from_an_accepted_client(world: &World) -> io::Result<()> {
    world.set_conditions(Conditions::calm());
    let listener = TcpListener::bind("10.0.0.1:7")?;
    let client = TcpStream::connect("10.0.0.1:7")?;
    thread::sleep(SECOND);
    listener.set_nonblocking(true)?;
    let (mut accepted, _) = listener.accept()?;
    world.schedule(SECOND, move |_| drop(client));
    accepted.read(&mut [0]).map(drop)
}

#[test]
fn each_kernel_has_as_many_seeds_as_the_others() {
    let seen = Arc::new(Mutex::new(Vec::new()));
    let all = seen.clone();
    check_on(Kernel::ALL, 60, move |world| {
        all.lock().unwrap().push((world.kernel(), world.seed()));
        assert!(format!("{world:?}").contains(&format!("kernel: {:?}", world.kernel())));
        Ok(())
    });
    let seen = seen.lock().unwrap();
    for kernel in Kernel::ALL {
        assert_eq!(seen.iter().filter(|(drawn, _)| drawn == kernel).count(), 10);
    }
    for (kernel, seed) in seen.iter() {
        assert_eq!(World::run_on(*kernel, *seed, |_| Ok(())).kernel, *kernel);
    }
}

#[test]
fn a_world_is_linux_unless_it_says_otherwise() {
    assert_eq!(World::run(7, read_from_an_accepted_client).kernel, Kernel::Linux);
    check(10, |world| {
        assert_eq!(world.kernel(), Kernel::Linux);
        read_from_an_accepted_client(world)
    });
}

#[test]
fn a_failure_names_the_kernel_and_the_rules_that_made_a_difference() {
    const RULE: &str = "an accepted socket is non-blocking if its listener is";
    let report =
        report_of(|| check_on(&[Kernel::Linux, Kernel::Apple], 10, read_from_an_accepted_client))
            .unwrap();
    assert!(report.starts_with("seed 1 on apple fails: it returned an error: "), "{report}");
    assert!(report.contains(&format!("\n  unlike Linux: {RULE}\n")), "{report}");
    assert!(report.contains(&format!("-            apple: {RULE}\n")), "{report}");

    let outcome = World::run_on(Kernel::Apple, 0, read_from_an_accepted_client);
    assert_eq!(outcome.rules, [RULE]);
    let untouched = World::run_on(Kernel::Apple, 0, |_| Ok(()));
    assert!(untouched.rules.is_empty());
}

#[test]
#[should_panic(expected = "no kernel to run on")]
fn a_check_on_no_kernel_is_refused() {
    check_on(&[], 1, |_| Ok(()));
}

const KQUEUES: [Kernel; 5] =
    [Kernel::Apple, Kernel::FreeBsd, Kernel::NetBsd, Kernel::OpenBsd, Kernel::DragonFly];

fn run_on(kernel: Kernel, body: impl FnOnce(&World) -> io::Result<()>) -> Vec<&'static str> {
    let outcome = World::run_on(kernel, 0, |world| {
        world.set_conditions(Conditions::calm());
        world.set_batch(usize::MAX);
        body(world)
    });
    assert_eq!(outcome.failure, None, "{kernel}: {:#?}", outcome.trace);
    outcome.rules
}

/// A timer is a kqueue there: `kqueue_kqfilter`.
#[test]
fn a_timer_modified_to_both_interests_is_refused_and_deleted() {
    for kernel in KQUEUES {
        let rules = run_on(kernel, |_| {
            let (mut poller, timer) = (SimPoller::new()?, Timer::new()?);
            let object = EventObject::new(timer.as_raw_fd());
            timer.set(SECOND)?;
            let asked = [
                (Interest::BOTH, true),
                (Interest::PRIORITY, !matches!(kernel, Kernel::FreeBsd | Kernel::NetBsd)),
            ];
            for (interest, is_refused) in asked {
                poller.add(object)?;
                let answer = poller.modify(object.with_interest(interest));
                assert_eq!(answer.is_err(), is_refused, "{kernel}, {interest:?}");
                if !is_refused {
                    continue;
                }
                let errno = match kernel {
                    Kernel::NetBsd => libc::EPERM,
                    Kernel::DragonFly => libc::EOPNOTSUPP,
                    _ => libc::EINVAL,
                };
                assert_eq!(answer.unwrap_err().raw_os_error(), Some(errno), "{kernel}");
                assert!(poller.wait_timeout(Some(2 * SECOND))?.is_empty());
                assert_eq!(poller.delete(object.fd).unwrap_err().kind(), ErrorKind::NotFound);
            }
            Ok(())
        });
        assert!(rules.contains(&"an add or a modify that fails deletes the registration"));
    }
    run_on(Kernel::Linux, |_| {
        let (poller, timer) = (SimPoller::new()?, Timer::new()?);
        poller.add(EventObject::new(timer.as_raw_fd()).with_interest(Interest::BOTH))
    });
}

/// The same, scripted by a test.
#[test]
fn an_add_that_fails_deletes_the_old_registration() {
    for kernel in Kernel::ALL {
        run_on(*kernel, |world| {
            let (near, mut far) = UnixStream::pair()?;
            let mut poller = SimPoller::new()?;
            let object = EventObject::client(near.as_raw_fd());
            poller.add(object)?;
            world.fail_add(io::Error::from_raw_os_error(libc::ENOMEM));
            poller.add(object).unwrap_err();
            far.write_all(b"x")?;
            let events = poller.wait_timeout(Some(SECOND))?;
            assert_eq!(events.is_empty(), *kernel != Kernel::Linux, "{kernel}");
            Ok(())
        });
    }
}

/// An eventfd, nothing, or a pair of sockets.
#[test]
fn wakers_take_as_many_descriptors_as_on_each_kernel() {
    for kernel in Kernel::ALL {
        run_on(*kernel, |world| {
            let mut poller = SimPoller::new()?;
            let count = match kernel {
                Kernel::Linux => 1,
                Kernel::NetBsd => 2,
                _ => 0,
            };
            let before = world.descriptors();
            world.set_descriptor_limit(before + count);
            let waker = Waker::new(poller.registry(), 1)?;
            assert_eq!(world.descriptors(), before + count, "{kernel}");
            waker.wake()?;
            assert!(poller.wait(-1)?[0].is_wake());
            drop((waker, poller));
            assert_eq!(world.descriptors(), before - 1, "{kernel}");
            Ok(())
        });
    }
}

#[test]
fn a_socket_that_was_never_connected_is_not_ready_on_kqueue() {
    for kernel in Kernel::ALL {
        run_on(*kernel, |_| {
            let socket = Socket::new(Domain::IPV4, Type::STREAM, None)?;
            let mut poller = SimPoller::new()?;
            poller.add(EventObject::client(socket.as_raw_fd()).with_interest(Interest::BOTH))?;
            let events = poller.wait_timeout(Some(SECOND))?;
            assert_eq!(events.is_empty(), *kernel != Kernel::Linux, "{kernel}");
            Ok(())
        });
    }
}

/// `sowwakeup` with every acknowledgement; Linux has an edge only where a write found no room.
#[test]
fn each_acknowledgement_is_an_edge_of_room_on_apple_and_freebsd() {
    for kernel in Kernel::ALL {
        run_on(*kernel, |_| {
            let listener = TcpListener::bind("10.0.0.1:7")?;
            let mut near = TcpStream::connect("10.0.0.1:7")?;
            let (mut far, _) = listener.accept()?;
            let object = EventObject::client(near.as_raw_fd()).with_interest(Interest::WRITABLE);
            let mut poller = SimPoller::new()?;
            poller.add(object.with_mode(Mode::Edge))?;
            assert!(poller.wait(-1)?[0].is_writable());
            for _ in 0..2 {
                near.write_all(b"x")?;
                assert!(poller.wait_timeout(Some(SECOND))?.is_empty());
                far.read_exact(&mut [0])?;
                let events = poller.wait_timeout(Some(SECOND))?;
                let is_edge = matches!(kernel, Kernel::Apple | Kernel::FreeBsd);
                assert_eq!(events.len(), usize::from(is_edge), "{kernel}");
            }
            Ok(())
        });
    }
}

/// C4, C9: each interest takes room, and the first one claims a oneshot.
#[test]
fn a_bound_counts_interests_on_kqueue() {
    for kernel in Kernel::ALL {
        for mode in [Mode::Level, Mode::Edge, Mode::Oneshot] {
            run_on(*kernel, |_| {
                let (near, mut far) = UnixStream::pair()?;
                let object = EventObject::client(near.as_raw_fd()).with_interest(Interest::BOTH);
                let mut poller = SimPoller::new()?;
                poller.set_max_events(1);
                far.write_all(b"x")?;
                poller.add(object.with_mode(mode))?;
                let both = Readiness::READABLE | Readiness::WRITABLE;
                let first = poller.wait(0)?[0].readiness();
                assert_eq!(first == both, *kernel == Kernel::Linux, "{kernel}, {mode:?}");
                let second = poller.wait(0)?.first().map(|event| event.readiness());
                let expected = match (mode, *kernel) {
                    (Mode::Level, Kernel::Linux) => Some(both),
                    (_, Kernel::Linux) | (Mode::Oneshot, _) => None,
                    _ => Some(both - first),
                };
                assert_eq!(second, expected, "{kernel}, {mode:?}");
                Ok(())
            });
        }
    }
}
