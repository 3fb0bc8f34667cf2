//! The behaviour of sockets that differs from kernel to kernel.

use std::io::{self, Read, Write};
use std::net::Shutdown;
use std::time::Duration;

use pollio_sim::Kernel::{Apple, DragonFly, FreeBsd, Linux, NetBsd, OpenBsd};
use pollio_sim::net::{TcpListener, TcpStream, UdpSocket};
use pollio_sim::os::unix::net::{UnixListener, UnixStream};
use pollio_sim::socket2::{Domain, SockRef, Socket, Type};
use pollio_sim::{Conditions, Kernel, World, thread};

const SERVER: &str = "10.0.0.1:7";
const BSDS: &[Kernel] = &[FreeBsd, NetBsd, OpenBsd, DragonFly];

/// Until all has arrived.
fn pause() {
    thread::sleep(Duration::from_secs(1));
}

fn pair() -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind(SERVER).unwrap();
    let client = TcpStream::connect(SERVER).unwrap();
    let (server, _) = listener.accept().unwrap();
    client.set_nonblocking(true).unwrap();
    server.set_nonblocking(true).unwrap();
    (client, server)
}

/// Closes a stream with a reset.
fn reset(stream: TcpStream) {
    SockRef::from(&stream).set_linger(Some(Duration::ZERO)).unwrap();
    drop(stream);
    pause();
}

fn nonblocking() -> Socket {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    socket.set_nonblocking(true).unwrap();
    socket
}

/// The name of a call's result: its error, or its value.
fn name<T: ToString>(result: io::Result<T>) -> String {
    let error = match result {
        Ok(value) => return value.to_string(),
        Err(error) => error,
    };
    match error.raw_os_error() {
        Some(libc::EAGAIN) => "EAGAIN".into(),
        Some(libc::EALREADY) => "EALREADY".into(),
        Some(libc::ECONNABORTED) => "ECONNABORTED".into(),
        Some(libc::ECONNREFUSED) => "ECONNREFUSED".into(),
        Some(libc::ECONNRESET) => "ECONNRESET".into(),
        Some(libc::EADDRINUSE) => "EADDRINUSE".into(),
        Some(libc::EINPROGRESS) => "EINPROGRESS".into(),
        Some(libc::EINVAL) => "EINVAL".into(),
        Some(libc::EISCONN) => "EISCONN".into(),
        Some(libc::EMSGSIZE) => "EMSGSIZE".into(),
        Some(libc::EMFILE) => "EMFILE".into(),
        Some(libc::ENOTCONN) => "ENOTCONN".into(),
        Some(libc::EPIPE) => "EPIPE".into(),
        _ => format!("{error:?}"),
    }
}

fn ok<T>(result: io::Result<T>) -> String {
    name(result.map(|_| "Ok"))
}

fn read(stream: &TcpStream) -> String {
    name((&*stream).read(&mut [0; 100]))
}

fn write(stream: &TcpStream) -> String {
    name((&*stream).write(b"x"))
}

fn error_of(socket: io::Result<Option<io::Error>>) -> String {
    socket.unwrap().map_or("none".into(), |error| name(Err::<u8, _>(error)))
}

/// The results of a case on some kernels.
type Answers = (&'static [Kernel], &'static [&'static str]);

/// Runs a case on every kernel. Each kernel needs an expected answer.
#[track_caller]
fn compare(case: impl Fn(&World) -> Vec<String> + Copy, answers: &[Answers]) {
    for kernel in Kernel::ALL {
        let mut given = Vec::new();
        let outcome = World::run_on(*kernel, 0, |world| {
            world.set_conditions(Conditions::calm());
            given = case(world);
            Ok(())
        });
        assert_eq!(outcome.failure, None, "{kernel}: {:#?}", outcome.trace);
        let mut expected = answers.iter().filter(|(kernels, _)| kernels.contains(kernel));
        let (_, expected) = expected.next().unwrap_or_else(|| panic!("{kernel} is missing"));
        assert_eq!(given, *expected, "{kernel}: {:#?}", outcome.trace);
        let is_as_linux = answers[0].1 == *expected;
        assert!(is_as_linux || !outcome.rules.is_empty(), "{kernel} names no rule");
    }
}

#[test]
fn accepted_sockets_block_as_the_listener_does_on_apple_systems_only() {
    let case = |_: &World| {
        let listener = TcpListener::bind(SERVER).unwrap();
        listener.set_nonblocking(true).unwrap();
        let _client = TcpStream::connect(SERVER).unwrap();
        pause();
        let (stream, _) = listener.accept().unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
        let begin = pollio_sim::time::Instant::now();
        let _ = read(&stream);
        vec![format!("{:?}", begin.elapsed())]
    };
    compare(
        case,
        &[(&[Linux, FreeBsd, NetBsd, OpenBsd, DragonFly], &["5s"]), (&[Apple], &["0ns"])],
    );
}

#[test]
fn accept_without_a_descriptor_loses_the_client_on_apple_systems() {
    let case = |world: &World| {
        let listener = TcpListener::bind(SERVER).unwrap();
        listener.set_nonblocking(true).unwrap();
        let client = TcpStream::connect(SERVER).unwrap();
        client.set_nonblocking(true).unwrap();
        pause();
        world.set_descriptor_limit(world.descriptors());
        let full = ok(listener.accept());
        world.set_descriptor_limit(usize::MAX);
        pause();
        vec![full, read(&client), ok(listener.accept())]
    };
    compare(
        case,
        &[
            (&[Linux, FreeBsd, NetBsd, OpenBsd, DragonFly], &["EMFILE", "EAGAIN", "Ok"]),
            (&[Apple], &["EMFILE", "0", "EAGAIN"]),
        ],
    );
}

#[test]
fn accept_of_a_client_that_was_reset_fails_on_the_bsds() {
    let case = |_: &World| {
        let listener = TcpListener::bind(SERVER).unwrap();
        listener.set_nonblocking(true).unwrap();
        let client = TcpStream::connect(SERVER).unwrap();
        pause();
        reset(client);
        let accepted = listener.accept();
        let result = match accepted {
            Ok((stream, _)) => read(&stream),
            Err(error) => name(Err::<u8, _>(error)),
        };
        vec![result, ok(listener.accept())]
    };
    compare(
        case,
        &[(&[Linux, Apple], &["ECONNRESET", "EAGAIN"]), (BSDS, &["ECONNABORTED", "EAGAIN"])],
    );
}

#[test]
fn a_full_queue_resets_clients_on_freebsd_and_netbsd() {
    let case = |_: &World| {
        let listener = TcpListener::bind(SERVER).unwrap();
        SockRef::from(&listener).listen(0).unwrap();
        let _first = TcpStream::connect(SERVER).unwrap();
        pause();
        let second = nonblocking();
        let _ = second.connect(&SERVER.parse::<std::net::SocketAddr>().unwrap().into());
        pause();
        let _served = listener.accept().unwrap();
        thread::sleep(Duration::from_secs(5));
        let second = TcpStream::from(second);
        vec![read(&second)]
    };
    compare(
        case,
        &[
            (&[Linux, Apple, OpenBsd, DragonFly], &["EAGAIN"]),
            (&[FreeBsd, NetBsd], &["ECONNRESET"]),
        ],
    );
}

const PATH: &str = "/run/server";

#[test]
fn a_full_queue_of_a_unix_listener_makes_clients_wait_on_linux_only() {
    let case = |world: &World| {
        let listener = UnixListener::bind(PATH).unwrap();
        SockRef::from(&listener).listen(0).unwrap();
        let _first = UnixStream::connect(PATH).unwrap();
        let second = world.spawn("second", || ok(UnixStream::connect(PATH)));
        pause();
        let is_waiting = !second.is_finished();
        let _served = listener.accept().unwrap();
        vec![is_waiting.to_string(), second.join().unwrap()]
    };
    compare(
        case,
        &[
            (&[Linux], &["true", "Ok"]),
            (&[Apple, FreeBsd, NetBsd, OpenBsd, DragonFly], &["false", "ECONNREFUSED"]),
        ],
    );
}

#[test]
fn a_unix_listener_that_closes_resets_its_queue_on_linux_and_freebsd() {
    let case = |_: &World| {
        let listener = UnixListener::bind(PATH).unwrap();
        let mut client = UnixStream::connect(PATH).unwrap();
        drop(listener);
        vec![name(client.read(&mut [0])), name(client.read(&mut [0])), name(client.write(b"x"))]
    };
    compare(
        case,
        &[
            (&[Linux, FreeBsd], &["ECONNRESET", "0", "EPIPE"]),
            (&[Apple, NetBsd, OpenBsd, DragonFly], &["0", "0", "EPIPE"]),
        ],
    );
}

#[test]
fn a_path_of_104_bytes_is_too_long_but_not_on_linux() {
    let case = |_: &World| {
        let answers = [103, 104].map(|length| {
            let path = format!("{PATH:x<length$}");
            let kind = |error: io::Error| error.kind();
            let connected = UnixStream::connect(&path).map(drop).map_err(kind);
            format!("{connected:?}, {:?}", UnixListener::bind(&path).map(drop).map_err(kind))
        });
        answers.to_vec()
    };
    const FITS: &str = "Err(NotFound), Ok(())";
    compare(
        case,
        &[
            (&[Linux], &[FITS, FITS]),
            (
                &[Apple, FreeBsd, NetBsd, OpenBsd, DragonFly],
                &[FITS, "Err(InvalidInput), Err(InvalidInput)"],
            ),
        ],
    );
}

#[test]
fn unix_listeners_accept_as_others_do_on_apple_systems() {
    let case = |world: &World| {
        let listener = UnixListener::bind(PATH).unwrap();
        listener.set_nonblocking(true).unwrap();
        let mut client = UnixStream::connect(PATH).unwrap();
        world.set_descriptor_limit(world.descriptors());
        let full = ok(listener.accept());
        world.set_descriptor_limit(usize::MAX);
        client.set_nonblocking(true).unwrap();
        let lost = name(client.read(&mut [0]));
        let _other = UnixStream::connect(PATH).unwrap();
        let (mut stream, _) = listener.accept().unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
        let begin = pollio_sim::time::Instant::now();
        let _ = stream.read(&mut [0]);
        vec![full, lost, format!("{:?}", begin.elapsed())]
    };
    compare(
        case,
        &[
            (&[Linux, FreeBsd, NetBsd, OpenBsd, DragonFly], &["EMFILE", "EAGAIN", "5s"]),
            (&[Apple], &["EMFILE", "0", "0ns"]),
        ],
    );
}

#[test]
fn accept_of_a_unix_socket_fails_by_a_fault_and_leaves_the_client() {
    let mut failed = 0;
    for seed in 0..100 {
        let outcome = World::run(seed, |world| {
            world.set_conditions(Conditions::calm().with_failing_accepts(true).with_max_faults(3));
            let listener = UnixListener::bind(PATH)?;
            let mut client = UnixStream::connect(PATH)?;
            client.write_all(b"x")?;
            let (mut stream, _) = loop {
                match listener.accept() {
                    Err(error) if error.raw_os_error() == Some(libc::EMFILE) => failed += 1,
                    result => break result?,
                }
            };
            stream.read_exact(&mut [0])
        });
        assert_eq!(outcome.failure, None, "{:#?}", outcome.trace);
    }
    assert!(failed > 0);
}

#[test]
fn a_report_names_a_unix_listener_and_who_waits_for_it() {
    let outcome = World::run(0, |world| {
        world.set_conditions(Conditions::calm());
        let listener = UnixListener::bind(PATH)?;
        SockRef::from(&listener).listen(0)?;
        let _first = UnixStream::connect(PATH)?;
        world.spawn("second", || UnixStream::connect(PATH).map(drop)).join().unwrap()
    });
    let failure = outcome.failure.unwrap();
    assert!(failure.contains("second: connect Unix socket"), "{failure}");
    let outcome = World::run(0, |_| UnixListener::bind(PATH)?.accept().map(drop));
    let failure = outcome.failure.unwrap();
    assert!(failure.contains("main: accept listener /run/server"), "{failure}");
}

#[test]
fn connect_says_once_that_it_has_connected_on_linux_only() {
    let case = |_: &World| {
        let _listener = TcpListener::bind(SERVER).unwrap();
        let address = SERVER.parse::<std::net::SocketAddr>().unwrap().into();
        let client = nonblocking();
        let mut answers = vec![ok(client.connect(&address))];
        pause();
        answers.extend((0..2).map(|_| ok(client.connect(&address))));
        answers
    };
    compare(
        case,
        &[
            (&[Linux], &["EINPROGRESS", "Ok", "EISCONN"]),
            (&[Apple, FreeBsd, NetBsd, OpenBsd, DragonFly], &["EINPROGRESS", "EISCONN", "EISCONN"]),
        ],
    );
}

#[test]
fn a_socket_that_could_not_be_connected_tries_again_on_linux_only() {
    let case = |_: &World| {
        let address = SERVER.parse::<std::net::SocketAddr>().unwrap().into();
        let client = nonblocking();
        let mut answers = vec![ok(client.connect(&address))];
        pause();
        let _listener = TcpListener::bind(SERVER).unwrap();
        for _ in 0..3 {
            answers.push(ok(client.connect(&address)));
            pause();
        }
        answers.push(error_of(client.take_error()));
        answers
    };
    compare(
        case,
        &[
            (&[Linux], &["EINPROGRESS", "ECONNREFUSED", "EINPROGRESS", "Ok", "none"]),
            (&[Apple], &["EINPROGRESS", "ECONNREFUSED", "EINVAL", "EINVAL", "none"]),
            (&[FreeBsd], &["EINPROGRESS", "ECONNREFUSED", "ECONNREFUSED", "ECONNREFUSED", "none"]),
            (&[NetBsd, OpenBsd], &["EINPROGRESS", "EINVAL", "EINVAL", "EINVAL", "ECONNREFUSED"]),
            (&[DragonFly], &["EINPROGRESS", "EINPROGRESS", "EINPROGRESS", "EINPROGRESS", "EINVAL"]),
        ],
    );
}

#[test]
fn a_blocking_connect_that_failed_cannot_be_repeated_elsewhere() {
    let case = |_: &World| {
        let address = SERVER.parse::<std::net::SocketAddr>().unwrap().into();
        let client = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
        let first = ok(client.connect(&address));
        let _listener = TcpListener::bind(SERVER).unwrap();
        vec![first, ok(client.connect(&address))]
    };
    compare(
        case,
        &[
            (&[Linux], &["ECONNREFUSED", "Ok"]),
            (&[FreeBsd], &["ECONNREFUSED", "ECONNREFUSED"]),
            (&[Apple, NetBsd, OpenBsd, DragonFly], &["ECONNREFUSED", "EINVAL"]),
        ],
    );
}

#[test]
fn a_write_before_the_connection_is_made_is_not_connected_elsewhere() {
    let case = |_: &World| {
        let _listener = TcpListener::bind(SERVER).unwrap();
        let new = TcpStream::from(nonblocking());
        let client = nonblocking();
        let _ = client.connect(&SERVER.parse::<std::net::SocketAddr>().unwrap().into());
        let client = TcpStream::from(client);
        let early = write(&client);
        let early_read = read(&client);
        pause();
        vec![write(&new), early, early_read, write(&client)]
    };
    compare(
        case,
        &[
            (&[Linux], &["EPIPE", "EAGAIN", "EAGAIN", "1"]),
            (
                &[Apple, FreeBsd, NetBsd, OpenBsd, DragonFly],
                &["ENOTCONN", "ENOTCONN", "EAGAIN", "1"],
            ),
        ],
    );
}

#[test]
fn a_write_after_a_reset_leaves_the_error_elsewhere() {
    let case = |_: &World| {
        let (client, server) = pair();
        reset(server);
        vec![write(&client), write(&client), read(&client), read(&client)]
    };
    compare(
        case,
        &[
            (&[Linux], &["ECONNRESET", "EPIPE", "0", "0"]),
            (&[Apple, FreeBsd, NetBsd, OpenBsd, DragonFly], &["EPIPE", "EPIPE", "ECONNRESET", "0"]),
        ],
    );
}

#[test]
fn a_blocked_write_leaves_the_error_elsewhere() {
    let case = |world: &World| {
        let (client, server) = pair();
        SockRef::from(&server).set_linger(Some(Duration::ZERO)).unwrap();
        while (&client).write(&[0; 4096]).is_ok() {}
        client.set_nonblocking(false).unwrap();
        world.schedule(Duration::from_secs(1), move |_| drop(server));
        vec![write(&client), write(&client)]
    };
    compare(
        case,
        &[
            (&[Linux], &["ECONNRESET", "EPIPE"]),
            (&[Apple], &["EPIPE", "EPIPE"]),
            (BSDS, &["EPIPE", "EPIPE"]),
        ],
    );
}

#[test]
fn a_reset_after_the_peers_end_is_read_elsewhere() {
    let case = |_: &World| {
        let (client, server) = pair();
        server.shutdown(Shutdown::Write).unwrap();
        pause();
        let end = read(&client);
        reset(server);
        vec![end, read(&client), read(&client), write(&client)]
    };
    compare(
        case,
        &[
            (&[Linux], &["0", "0", "0", "EPIPE"]),
            (&[Apple, FreeBsd, NetBsd, OpenBsd, DragonFly], &["0", "ECONNRESET", "0", "EPIPE"]),
        ],
    );
}

#[test]
fn a_close_with_unread_bytes_is_an_end_on_the_bsds() {
    let case = |_: &World| {
        let (client, server) = pair();
        write(&client);
        pause();
        drop(server);
        pause();
        let ended = vec![read(&client), write(&client)];
        pause();
        [ended, vec![read(&client)]].concat()
    };
    compare(
        case,
        &[
            (&[Linux], &["ECONNRESET", "EPIPE", "0"]),
            (&[Apple], &["ECONNRESET", "EPIPE", "0"]),
            (BSDS, &["0", "1", "ECONNRESET"]),
        ],
    );
}

#[test]
fn a_close_of_a_unix_socket_with_unread_bytes_is_an_end_elsewhere() {
    let case = |_: &World| {
        let (near, far) = UnixStream::pair().unwrap();
        (&near).write_all(b"unread").unwrap();
        drop(far);
        vec![name((&near).read(&mut [0])), name((&near).write(b"x"))]
    };
    compare(
        case,
        &[
            (&[Linux], &["ECONNRESET", "EPIPE"]),
            (&[Apple, FreeBsd, NetBsd, OpenBsd, DragonFly], &["0", "EPIPE"]),
        ],
    );
}

#[test]
fn a_shutdown_of_reading_throws_bytes_away_elsewhere() {
    let case = |_: &World| {
        let (client, server) = pair();
        write(&server);
        pause();
        client.shutdown(Shutdown::Read).unwrap();
        let unread = read(&client);
        let more = write(&server);
        pause();
        let answers = vec![unread, more, read(&client), write(&client)];
        pause();
        [answers, vec![read(&server)]].concat()
    };
    compare(
        case,
        &[
            (&[Linux], &["1", "1", "1", "1", "1"]),
            (&[Apple], &["0", "1", "0", "EPIPE", "ECONNRESET"]),
            (&[FreeBsd, NetBsd, DragonFly], &["0", "1", "0", "1", "1"]),
            (&[OpenBsd], &["0", "1", "1", "1", "1"]),
        ],
    );
}

#[test]
fn bytes_that_nobody_will_read_make_no_writer_wait() {
    for kernel in [FreeBsd, NetBsd, DragonFly] {
        let outcome = World::run_on(kernel, 0, |world| {
            world.set_conditions(Conditions::calm());
            let (client, server) = pair();
            server.set_nonblocking(false)?;
            client.shutdown(Shutdown::Read)?;
            (&server).write_all(&[0; 1 << 20])
        });
        assert_eq!(outcome.failure, None, "{kernel}");
    }
}

#[test]
fn a_second_shutdown_fails_on_apple_systems() {
    let case = |_: &World| {
        let (client, _server) = pair();
        let how = [Shutdown::Write, Shutdown::Write, Shutdown::Read, Shutdown::Read];
        how.map(|how| ok(client.shutdown(how))).to_vec()
    };
    compare(
        case,
        &[
            (&[Linux, FreeBsd, NetBsd, OpenBsd, DragonFly], &["Ok", "Ok", "Ok", "Ok"]),
            (&[Apple], &["Ok", "ENOTCONN", "Ok", "ENOTCONN"]),
        ],
    );
}

#[test]
fn a_shutdown_of_both_after_the_peers_end_sends_no_end_on_apple_systems() {
    let case = |_: &World| {
        let (client, server) = pair();
        server.shutdown(Shutdown::Write).unwrap();
        pause();
        let both = ok(client.shutdown(Shutdown::Both));
        pause();
        let end = read(&server);
        vec![both, end, ok(client.shutdown(Shutdown::Write))]
    };
    compare(
        case,
        &[
            (&[Linux, FreeBsd], &["Ok", "0", "ENOTCONN"]),
            (&[Apple], &["ENOTCONN", "EAGAIN", "Ok"]),
            (&[NetBsd, OpenBsd, DragonFly], &["Ok", "0", "EINVAL"]),
        ],
    );
}

#[test]
fn a_shutdown_after_a_reset_differs() {
    let case = |_: &World| {
        let (client, server) = pair();
        reset(server);
        [Shutdown::Read, Shutdown::Write].map(|how| ok(client.shutdown(how))).to_vec()
    };
    compare(
        case,
        &[
            (&[Linux, Apple, FreeBsd], &["ENOTCONN", "ENOTCONN"]),
            (&[NetBsd, OpenBsd, DragonFly], &["Ok", "EINVAL"]),
        ],
    );
}

#[test]
fn a_shutdown_of_a_unix_socket_needs_its_peer_on_apple_systems_and_freebsd() {
    let case = |_: &World| {
        let (near, far) = UnixStream::pair().unwrap();
        drop(far);
        vec![ok(near.shutdown(Shutdown::Write))]
    };
    compare(
        case,
        &[(&[Linux, NetBsd, OpenBsd, DragonFly], &["Ok"]), (&[Apple, FreeBsd], &["ENOTCONN"])],
    );
}

#[test]
fn the_peer_of_an_ended_connection_has_no_address() {
    let case = |_: &World| {
        let (client, server) = pair();
        reset(server);
        vec![name(client.peer_addr())]
    };
    compare(
        case,
        &[(&[Linux, FreeBsd, NetBsd, OpenBsd, DragonFly], &["ENOTCONN"]), (&[Apple], &["EINVAL"])],
    );
}

#[test]
fn options_of_an_ended_connection_fail_elsewhere() {
    let case = |_: &World| {
        let (client, server) = pair();
        reset(server);
        let nodelay = ok(client.set_nodelay(true));
        vec![nodelay, ok(client.set_read_timeout(None)), ok(client.set_nonblocking(true))]
    };
    compare(
        case,
        &[
            (&[Linux], &["Ok", "Ok", "Ok"]),
            (&[Apple], &["EINVAL", "EINVAL", "Ok"]),
            (BSDS, &["ECONNRESET", "Ok", "Ok"]),
        ],
    );
    let case = |_: &World| {
        let (near, far) = UnixStream::pair().unwrap();
        drop(far);
        vec![ok(near.set_read_timeout(None))]
    };
    compare(
        case,
        &[(&[Linux, FreeBsd, NetBsd, OpenBsd, DragonFly], &["Ok"]), (&[Apple], &["EINVAL"])],
    );
}

#[test]
fn one_of_several_listeners_takes_all_clients() {
    for kernel in Kernel::ALL {
        let mut takers = Vec::new();
        let outcome = World::run_on(*kernel, 0, |world| {
            world.set_conditions(Conditions::calm());
            let address: std::net::SocketAddr = SERVER.parse().unwrap();
            let listeners = [(); 2].map(|()| {
                let socket = nonblocking();
                socket.set_reuse_port(true).unwrap();
                socket.bind(&address.into()).unwrap();
                socket.listen(100).unwrap();
                TcpListener::from(socket)
            });
            let _clients: Vec<_> = (0..20).map(|_| TcpStream::connect(SERVER)).collect();
            pause();
            for listener in &listeners {
                let count = listener.incoming().take_while(Result::is_ok).count();
                takers.push(count);
            }
            Ok(())
        });
        assert_eq!(outcome.failure, None, "{kernel}");
        let spreads = [Linux, OpenBsd, DragonFly].contains(kernel);
        assert_eq!(!takers.contains(&0), spreads, "{kernel}: {takers:?}");
        assert_eq!(outcome.rules.is_empty(), spreads, "{kernel}: {:?}", outcome.rules);
    }
}

#[test]
fn a_listener_at_one_address_leaves_all_addresses_free_elsewhere() {
    let case = |_: &World| {
        let one = TcpListener::bind(SERVER).unwrap();
        let all = TcpListener::bind("0.0.0.0:7");
        let same = ok(TcpListener::bind(SERVER));
        one.set_nonblocking(true).unwrap();
        let _client = TcpStream::connect(SERVER).unwrap();
        pause();
        vec![ok(all), same, ok(one.accept())]
    };
    compare(
        case,
        &[
            (&[Linux], &["EADDRINUSE", "EADDRINUSE", "Ok"]),
            (&[Apple, FreeBsd, NetBsd, OpenBsd, DragonFly], &["Ok", "EADDRINUSE", "Ok"]),
        ],
    );
}

#[test]
fn a_listener_of_ipv6_takes_ipv4_too_on_linux_and_apple_systems() {
    let case = |_: &World| {
        let _listener = TcpListener::bind("[::]:7").unwrap();
        let connect = |address| ok(TcpStream::connect(address));
        vec![connect("127.0.0.1:7"), connect("[::1]:7")]
    };
    compare(case, &[(&[Linux, Apple], &["Ok", "Ok"]), (BSDS, &["ECONNREFUSED", "Ok"])]);
    let case = |_: &World| {
        let _listener = TcpListener::bind("[::]:7").unwrap();
        vec![ok(TcpListener::bind("0.0.0.0:7"))]
    };
    compare(case, &[(&[Linux, Apple], &["EADDRINUSE"]), (BSDS, &["Ok"])]);
}

#[test]
fn a_connected_udp_socket_sends_to_its_peer_only_elsewhere() {
    let case = |_: &World| {
        let (near, far) =
            (UdpSocket::bind(SERVER).unwrap(), UdpSocket::bind("10.0.0.1:8").unwrap());
        let before = ok(near.send_to(b"x", far.local_addr().unwrap()));
        near.connect(far.local_addr().unwrap()).unwrap();
        vec![before, ok(near.send_to(b"x", far.local_addr().unwrap())), ok(near.send(b"x"))]
    };
    compare(
        case,
        &[
            (&[Linux, OpenBsd], &["Ok", "Ok", "Ok"]),
            (&[Apple, FreeBsd, NetBsd, DragonFly], &["Ok", "EISCONN", "Ok"]),
        ],
    );
}

#[test]
fn a_datagram_has_up_to_9216_bytes_elsewhere() {
    let case = |_: &World| {
        let (near, far) =
            (UdpSocket::bind(SERVER).unwrap(), UdpSocket::bind("10.0.0.1:8").unwrap());
        near.connect(far.local_addr().unwrap()).unwrap();
        [9_216, 9_217, 65_507, 65_508].map(|length| ok(near.send(&vec![0; length]))).to_vec()
    };
    compare(
        case,
        &[
            (&[Linux, OpenBsd], &["Ok", "Ok", "Ok", "EMSGSIZE"]),
            (&[Apple, FreeBsd, NetBsd, DragonFly], &["Ok", "EMSGSIZE", "EMSGSIZE", "EMSGSIZE"]),
        ],
    );
}
