//! Programs that are right on Linux, and wrong by one rule of another kernel, each with the first seed that finds it.

use std::io::{self, ErrorKind, Read, Write};
use std::time::Duration;

use pollio::{Event, EventObject, Interest, Mode, Poller, Waker};
use pollio_sim::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use pollio_sim::os::fd::AsRawFd;
use pollio_sim::os::unix::net::UnixStream;
use pollio_sim::socket2::{Domain, SockRef, Socket, Type};
use pollio_sim::{Conditions, Kernel, SimPoller, Timer, World, check, check_on, thread};

use crate::checks::{first_seed, report_of, seeds};

const ADDRESS: &str = "10.0.0.1:7";
const SECOND: Duration = Duration::from_secs(1);
const MINUTE: Duration = Duration::from_secs(60);

struct Program {
    /// The row continues "a program that".
    what: &'static str,
    kernel: Kernel,
    /// The words of a report for the rule that it breaks.
    rule: &'static str,
    body: fn(&World) -> io::Result<()>,
}

const PROGRAMS: &[Program] = &[
    Program {
        what: "expects a second add to change nothing",
        kernel: Kernel::NetBsd,
        rule: "an add replaces an existing registration",
        body: adds_twice,
    },
    Program {
        what: "modifies everything to both interests, a timer too",
        kernel: Kernel::DragonFly,
        rule: "an add or a modify that fails deletes the registration",
        body: modifies_a_timer_to_both_interests,
    },
    Program {
        what: "reads a duplicate by the registration of a closed number",
        kernel: Kernel::OpenBsd,
        rule: "a closed number is deleted, though a duplicate is open",
        body: closes_the_registered_duplicate,
    },
    Program {
        what: "expects EBADF for a number that is not open",
        kernel: Kernel::Apple,
        rule: "modify and delete of a number that is not open are ENOENT",
        body: expects_a_bad_descriptor,
    },
    Program {
        what: "holds a client back without interest, and expects a report when it leaves",
        kernel: Kernel::FreeBsd,
        rule: "without interest nothing is reported",
        body: holds_back_without_interest,
    },
    Program {
        what: "reads until a full hang-up",
        kernel: Kernel::NetBsd,
        rule: "a hang-up is reported in the directions asked for",
        body: reads_until_a_full_hang_up,
    },
    Program {
        what: "expects PRIORITY alone to report a reset",
        kernel: Kernel::FreeBsd,
        rule: "there is no filter for out-of-band data",
        body: watches_for_priority_alone,
    },
    Program {
        what: "expects PRIORITY to report urgent data only",
        kernel: Kernel::Apple,
        rule: "PRIORITY reports the end",
        body: ignores_all_but_priority,
    },
    Program {
        what: "expects a oneshot to report both interests at once",
        kernel: Kernel::DragonFly,
        rule: "a oneshot reports one of its interests",
        body: serves_in_one_event,
    },
    Program {
        what: "expects an edge of data to report room as well",
        kernel: Kernel::OpenBsd,
        rule: "the interests of one descriptor are several events",
        body: echoes_where_both_are_ready,
    },
    Program {
        what: "has shut down reading, and expects an edge of a reset",
        kernel: Kernel::FreeBsd,
        rule: "no edge of a reset after a shutdown of reading",
        body: stops_reading,
    },
    Program {
        what: "expects a waker to take one descriptor",
        kernel: Kernel::NetBsd,
        rule: "wakers take two descriptors",
        body: has_room_for_one_descriptor,
    },
    Program {
        what: "expects only the peer to cause write-closed",
        kernel: Kernel::FreeBsd,
        rule: "a shutdown of writing is write-closed at once",
        body: asks_and_half_closes,
    },
    Program {
        what: "connects a socket after its hang-up is reported",
        kernel: Kernel::OpenBsd,
        rule: "a socket that was never connected is not ready",
        body: connects_a_hung_up_socket,
    },
    Program {
        what: "expects an edge of room once",
        kernel: Kernel::Apple,
        rule: "every acknowledgement is an edge of room",
        body: greets_with_every_edge_of_room,
    },
];

/// Two ends of a connection, in a network of any latency without faults.
fn connected(world: &World) -> io::Result<(TcpStream, TcpStream)> {
    let latency = Duration::from_micros(1)..=Duration::from_millis(100);
    world.set_conditions(Conditions::calm().with_latency(latency).with_fragments(true));
    let listener = TcpListener::bind(ADDRESS)?;
    let far = TcpStream::connect(ADDRESS)?;
    let (near, _) = listener.accept()?;
    near.set_nonblocking(true)?;
    Ok((near, far))
}

fn client(of: &impl AsRawFd) -> EventObject {
    EventObject::client(of.as_raw_fd())
}

/// Waits until `handle` says that it is done. A minute of silence is an error.
fn wait_until(
    poller: &mut SimPoller,
    mut handle: impl FnMut(&Event) -> io::Result<bool>,
) -> io::Result<()> {
    loop {
        let events = poller.wait_timeout(Some(MINUTE))?;
        if events.is_empty() {
            return Err(ErrorKind::TimedOut.into());
        }
        for event in events {
            if handle(event)? {
                return Ok(());
            }
        }
    }
}

/// Closes a stream later, by a reset.
fn reset_later(stream: TcpStream) {
    thread::spawn(move || {
        thread::sleep(SECOND);
        SockRef::from(&stream).set_linger(Some(Duration::ZERO))
    });
}

fn adds_twice(world: &World) -> io::Result<()> {
    let (mut near, mut far) = connected(world)?;
    let mut poller = SimPoller::new()?;
    poller.add(client(&near).with_token(1))?;
    let unless_it_is = client(&near).with_token(2).with_interest(Interest::WRITABLE);
    match poller.add(unless_it_is) {
        Err(error) if error.kind() != ErrorKind::AlreadyExists => return Err(error),
        _ => {}
    }
    far.write_all(b"x")?;
    wait_until(&mut poller, |event| Ok(event.token == 1 && near.read(&mut [0])? == 1))
}

fn modifies_a_timer_to_both_interests(_: &World) -> io::Result<()> {
    let mut poller = SimPoller::new()?;
    let timer = Timer::new()?;
    let object = EventObject::new(timer.as_raw_fd());
    poller.add(object)?;
    let _ = poller.modify(object.with_interest(Interest::BOTH));
    timer.set(SECOND)?;
    wait_until(&mut poller, |event| Ok(event.is_readable()))
}

fn closes_the_registered_duplicate(world: &World) -> io::Result<()> {
    let (near, mut far) = connected(world)?;
    let mut poller = SimPoller::new()?;
    poller.add(client(&near))?;
    let mut duplicate = near.try_clone()?;
    drop(near);
    far.write_all(b"x")?;
    wait_until(&mut poller, |_| Ok(duplicate.read(&mut [0])? == 1))
}

fn expects_a_bad_descriptor(world: &World) -> io::Result<()> {
    let (near, _far) = connected(world)?;
    let poller = SimPoller::new()?;
    let object = client(&near);
    poller.add(object)?;
    drop(near);
    match poller.delete(object.fd) {
        Err(error) if error.raw_os_error() == Some(libc::EBADF) => Ok(()),
        other => other,
    }
}

fn holds_back_without_interest(world: &World) -> io::Result<()> {
    let (near, far) = connected(world)?;
    let mut poller = SimPoller::new()?;
    poller.add(client(&near).with_interest(Interest::NONE))?;
    reset_later(far);
    wait_until(&mut poller, |event| Ok(event.is_error()))
}

fn reads_until_a_full_hang_up(_: &World) -> io::Result<()> {
    let (mut near, far) = UnixStream::pair()?;
    near.set_nonblocking(true)?;
    let mut poller = SimPoller::new()?;
    poller.add(client(&near).with_mode(Mode::Edge))?;
    thread::spawn(move || {
        far.shutdown(Shutdown::Write)?;
        thread::sleep(SECOND);
        drop(far);
        io::Result::Ok(())
    });
    // The half-close is no reason to close: the client may still read.
    wait_until(&mut poller, |event| Ok(near.read(&mut [0])? == 0 && event.is_write_closed()))
}

fn watches_for_priority_alone(world: &World) -> io::Result<()> {
    let (near, far) = connected(world)?;
    let mut poller = SimPoller::new()?;
    poller.add(client(&near).with_interest(Interest::PRIORITY))?;
    reset_later(far);
    wait_until(&mut poller, |event| Ok(event.is_error()))
}

fn ignores_all_but_priority(world: &World) -> io::Result<()> {
    let (near, far) = connected(world)?;
    let mut poller = SimPoller::new()?;
    let timer = Timer::new()?;
    poller.add(client(&near).with_interest(Interest::PRIORITY).with_token(1))?;
    poller.add(EventObject::new(timer.as_raw_fd()).with_token(2))?;
    far.shutdown(Shutdown::Write)?;
    timer.set(10 * MINUTE)?;
    loop {
        for event in poller.wait(-1)? {
            match event.token {
                1 if event.is_priority() => return Err(ErrorKind::Unsupported.into()),
                2 => return Ok(()),
                _ => {}
            }
        }
    }
}

fn serves_in_one_event(world: &World) -> io::Result<()> {
    let (mut near, mut far) = connected(world)?;
    far.write_all(b"x")?;
    thread::sleep(SECOND);
    let mut poller = SimPoller::new()?;
    poller.add(client(&near).with_interest(Interest::BOTH).with_mode(Mode::Oneshot))?;
    wait_until(&mut poller, |event| {
        let mut request = [0];
        if event.is_readable() {
            near.read_exact(&mut request)?;
        }
        Ok(event.is_writable() && near.write(&request)? == 1 && request == *b"x")
    })
}

fn echoes_where_both_are_ready(world: &World) -> io::Result<()> {
    let (mut near, mut far) = connected(world)?;
    let mut poller = SimPoller::new()?;
    poller.add(client(&near).with_interest(Interest::BOTH).with_mode(Mode::Edge))?;
    let asking = world.spawn("client", move || {
        far.write_all(b"x")?;
        far.read_exact(&mut [0])
    });
    wait_until(&mut poller, |event| {
        let mut byte = [0];
        Ok(event.is_readable()
            && event.is_writable()
            && near.read(&mut byte)? == 1
            && near.write(&byte)? == 1)
    })?;
    asking.join().unwrap()
}

fn stops_reading(world: &World) -> io::Result<()> {
    let (near, far) = connected(world)?;
    let mut poller = SimPoller::new()?;
    poller.add(client(&near).with_mode(Mode::Edge))?;
    near.shutdown(Shutdown::Read)?;
    reset_later(far);
    wait_until(&mut poller, |event| Ok(event.is_error()))
}

fn has_room_for_one_descriptor(world: &World) -> io::Result<()> {
    let mut poller = SimPoller::new()?;
    world.set_descriptor_limit(world.descriptors() + 1);
    let waker = Waker::new(poller.registry(), 1)?;
    waker.wake()?;
    wait_until(&mut poller, |event| Ok(event.is_wake()))
}

fn asks_and_half_closes(world: &World) -> io::Result<()> {
    let (mut near, mut far) = connected(world)?;
    world.spawn("server", move || {
        far.read_to_end(&mut Vec::new())?;
        far.write_all(b"the answer")
    });
    near.write_all(b"a question")?;
    near.shutdown(Shutdown::Write)?;
    let mut poller = SimPoller::new()?;
    poller.add(client(&near).with_interest(Interest::BOTH).with_mode(Mode::Edge))?;
    let mut answer = Vec::new();
    wait_until(&mut poller, |event| {
        while event.is_readable() {
            let mut buffer = [0; 64];
            match near.read(&mut buffer) {
                Ok(0) => break,
                Ok(count) => answer.extend_from_slice(&buffer[..count]),
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) => return Err(error),
            }
        }
        Ok(event.is_write_closed())
    })?;
    assert_eq!(answer, b"the answer");
    Ok(())
}

fn connects_a_hung_up_socket(world: &World) -> io::Result<()> {
    world.set_conditions(Conditions::calm());
    let listener = TcpListener::bind(ADDRESS)?;
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None)?;
    let mut poller = SimPoller::new()?;
    poller.add(client(&socket).with_interest(Interest::WRITABLE))?;
    wait_until(&mut poller, |event| Ok(event.is_write_closed()))?;
    socket.connect(&ADDRESS.parse::<SocketAddr>().unwrap().into())?;
    listener.accept().map(drop)
}

fn greets_with_every_edge_of_room(world: &World) -> io::Result<()> {
    let (mut near, mut far) = connected(world)?;
    world.spawn("client", move || {
        let mut poller = SimPoller::new()?;
        poller.add(client(&near).with_interest(Interest::WRITABLE).with_mode(Mode::Edge))?;
        wait_until(&mut poller, |_| near.write(b"hello").map(|_| false))
    });
    far.read_exact(&mut [0; 5])?;
    far.set_read_timeout(Some(SECOND))?;
    match far.read(&mut [0]) {
        Err(error) if error.kind() == ErrorKind::WouldBlock => Ok(()),
        Ok(_) => Err(io::Error::other("it greets again")),
        Err(error) => Err(error),
    }
}

#[test]
fn each_program_is_right_on_linux() {
    for Program { body, .. } in PROGRAMS {
        check(seeds(), *body);
    }
}

/// Prints the table of sim/FINDS.md with `--nocapture`.
#[test]
fn each_program_is_found_on_another_kernel_by_the_rule_that_it_breaks() {
    let mut missed = Vec::new();
    for Program { what, kernel, rule, body } in PROGRAMS {
        let names_rule = |line: &str| line.contains("unlike") && line.contains(rule);
        match report_of(|| check_on(&[*kernel], 10_000, *body)) {
            Some(report) if report.lines().skip(1).any(names_rule) => {
                println!("| {kernel} | {rule} | {what} | {} |", first_seed(&report));
            }
            report => missed.push(format!("{what}: {}", report.unwrap_or_default())),
        }
    }
    assert!(missed.is_empty(), "not found: {missed:#?}");
}
