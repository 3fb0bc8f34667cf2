//! Programs that are right on Linux and wrong elsewhere, one for each rule of sockets that a program can get wrong,
//! with their corrections.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr};
use std::time::Duration;

use pollio_sim::Kernel::{Apple, DragonFly, FreeBsd, Linux, NetBsd, OpenBsd};
use pollio_sim::net::{TcpListener, TcpStream, UdpSocket};
use pollio_sim::os::unix::net::{UnixListener, UnixStream};
use pollio_sim::socket2::{Domain, SockRef, Socket, Type};
use pollio_sim::{Conditions, Kernel, World, check_on, thread};

use crate::checks::{first_seed, report_of, seeds};

const SERVER: &str = "10.0.0.1:7";
const SECOND: Duration = Duration::from_secs(1);

/// Runs in a world: as written on Linux, or corrected.
type Program = fn(&World, bool) -> io::Result<()>;

/// The mistake, the kernels on which it fails, and the program.
const PROGRAMS: &[(&str, &[Kernel], Program)] = &[
    ("reads block, because accepted sockets do", &[Apple], reads_block),
    ("a client stays in the queue while there is no descriptor", &[Apple], the_queue_keeps_clients),
    ("an accept that fails ends the server", &[FreeBsd, NetBsd, OpenBsd, DragonFly], accepts_work),
    ("a reset means that the server is down", &[FreeBsd, NetBsd], full_queues_are_patient),
    (
        "a full queue makes clients of a Unix listener wait",
        &[Apple, FreeBsd, NetBsd, OpenBsd, DragonFly],
        full_unix_queues_are_patient,
    ),
    (
        "a Unix listener that closes resets who waits in its queue",
        &[Apple, NetBsd, OpenBsd, DragonFly],
        a_closed_queue_is_no_answer,
    ),
    (
        "a path of a Unix socket has up to 107 bytes",
        &[Apple, FreeBsd, NetBsd, OpenBsd, DragonFly],
        binds_a_long_path,
    ),
    (
        "connect says that it has connected",
        &[Apple, FreeBsd, NetBsd, OpenBsd, DragonFly],
        connect_tells,
    ),
    (
        "a socket connects again and again",
        &[Apple, FreeBsd, NetBsd, OpenBsd, DragonFly],
        reconnects,
    ),
    (
        "a write blocks until the socket is connected",
        &[Apple, FreeBsd, NetBsd, OpenBsd, DragonFly],
        writes_early,
    ),
    (
        "a client that is gone is ConnectionReset",
        &[Apple, FreeBsd, NetBsd, OpenBsd, DragonFly],
        names_the_gone,
    ),
    (
        "what came before an end is whole",
        &[Apple, FreeBsd, NetBsd, OpenBsd, DragonFly],
        reads_to_the_end,
    ),
    ("an end means that all was taken", &[FreeBsd, NetBsd, OpenBsd, DragonFly], an_end_is_success),
    (
        "an end of a Unix socket means that all was taken",
        &[Apple, FreeBsd, NetBsd, OpenBsd, DragonFly],
        an_end_of_a_pair_is_success,
    ),
    (
        "shutdown stops the reading, then the rest is read",
        &[Apple, FreeBsd, NetBsd, OpenBsd, DragonFly],
        drains_after_shutdown,
    ),
    ("shutdown of reading spares the answers", &[Apple], ignores_answers),
    ("shutdown of both directions ends the connection", &[Apple], shuts_down_both),
    ("a shutdown fails with NotConnected only", &[NetBsd, OpenBsd, DragonFly], shuts_down_the_gone),
    ("a shutdown of a Unix socket cannot fail", &[Apple, FreeBsd], shuts_down_a_pair),
    ("an address is missing with NotConnected only", &[Apple], names_its_peer),
    ("an option cannot fail", &[Apple, FreeBsd, NetBsd, OpenBsd, DragonFly], sets_an_option),
    ("each of two listeners gets clients", &[Apple, FreeBsd, NetBsd], shares_a_port),
    (
        "an address in use means that a server runs",
        &[Apple, FreeBsd, NetBsd, OpenBsd, DragonFly],
        runs_once,
    ),
    ("a listener of IPv6 takes IPv4 too", &[FreeBsd, NetBsd, OpenBsd, DragonFly], listens_to_all),
    (
        "a connected UDP socket sends to any address",
        &[Apple, FreeBsd, NetBsd, DragonFly],
        sends_where_it_likes,
    ),
    ("a datagram is as long as IPv4 allows", &[Apple, FreeBsd, NetBsd, DragonFly], sends_a_lot),
];

fn address() -> SocketAddr {
    SERVER.parse().unwrap()
}

fn socket() -> io::Result<Socket> {
    Socket::new(Domain::IPV4, Type::STREAM, None)
}

fn nonblocking() -> io::Result<Socket> {
    let socket = socket()?;
    socket.set_nonblocking(true)?;
    Ok(socket)
}

fn failure(what: &str) -> io::Result<()> {
    Err(io::Error::other(what))
}

/// Closes with a reset, like a client that is killed with unread bytes.
fn reset(stream: TcpStream) -> io::Result<()> {
    SockRef::from(&stream).set_linger(Some(Duration::ZERO))
}

/// Asks, and waits for the answer.
fn ask(mut stream: TcpStream) -> io::Result<()> {
    stream.write_all(b"?")?;
    stream.read_exact(&mut [0])
}

/// Waits for a question, and answers.
fn answer(mut stream: &TcpStream) -> io::Result<()> {
    stream.read_exact(&mut [0])?;
    stream.write_all(b"!")
}

/// Ignores a client that is gone.
fn unless_gone<T>(result: io::Result<T>) -> io::Result<()> {
    match result {
        Err(error)
            if ![ErrorKind::ConnectionReset, ErrorKind::BrokenPipe].contains(&error.kind()) =>
        {
            Err(error)
        }
        _ => Ok(()),
    }
}

fn reads_block(world: &World, is_mended: bool) -> io::Result<()> {
    let listener = TcpListener::bind(SERVER)?;
    listener.set_nonblocking(true)?;
    let client = world.spawn("client", || {
        let stream = TcpStream::connect(SERVER)?;
        thread::sleep(SECOND);
        ask(stream)
    });
    let stream = loop {
        match listener.accept() {
            Ok((stream, _)) => break stream,
            Err(error) if error.kind() == ErrorKind::WouldBlock => thread::sleep(SECOND / 1_000),
            Err(error) => return Err(error),
        }
    };
    if is_mended {
        stream.set_nonblocking(false)?;
    }
    answer(&stream)?;
    client.join().unwrap()
}

fn the_queue_keeps_clients(world: &World, is_mended: bool) -> io::Result<()> {
    let listener = TcpListener::bind(SERVER)?;
    let clients = [(); 3].map(|()| world.spawn("client", || ask(TcpStream::connect(SERVER)?)));
    thread::sleep(10 * SECOND);
    world.set_descriptor_limit(world.descriptors() + 1);
    let (mut served, mut waiting) = (0, Vec::new());
    while served < clients.len() {
        // The corrected program knows how many it can have.
        let may_accept = waiting.is_empty() || !is_mended && served + waiting.len() < clients.len();
        let accepted = if may_accept { listener.accept().ok() } else { None };
        if let Some((stream, _)) = accepted {
            waiting.push(stream);
            continue;
        }
        for stream in waiting.drain(..) {
            answer(&stream)?;
            served += 1;
        }
    }
    clients.into_iter().try_for_each(|client| client.join().unwrap())
}

fn accepts_work(world: &World, is_mended: bool) -> io::Result<()> {
    let listener = TcpListener::bind(SERVER)?;
    reset(TcpStream::connect(SERVER)?)?;
    let client = world.spawn("client", || ask(TcpStream::connect(SERVER)?));
    thread::sleep(10 * SECOND);
    for _ in 0..2 {
        match listener.accept() {
            Ok((stream, _)) => unless_gone(answer(&stream))?,
            Err(error) if is_mended && error.kind() == ErrorKind::ConnectionAborted => {}
            Err(error) => return Err(error),
        }
    }
    client.join().unwrap()
}

fn full_queues_are_patient(world: &World, is_mended: bool) -> io::Result<()> {
    let listener = TcpListener::bind(SERVER)?;
    SockRef::from(&listener).listen(0)?;
    world.spawn("server", move || {
        loop {
            thread::sleep(SECOND / 2);
            unless_gone(answer(&listener.accept()?.0))?;
        }
        #[allow(unreachable_code, reason = "it names the type")]
        io::Result::Ok(())
    });
    let client = || {
        world.spawn("client", move || {
            loop {
                match TcpStream::connect(SERVER).and_then(ask) {
                    Err(_) if is_mended => thread::sleep(SECOND),
                    result => return result,
                }
            }
        })
    };
    [(); 4].map(|()| client()).into_iter().try_for_each(|client| client.join().unwrap())
}

const PATH: &str = "/run/server";

fn full_unix_queues_are_patient(world: &World, is_mended: bool) -> io::Result<()> {
    let listener = UnixListener::bind(PATH)?;
    SockRef::from(&listener).listen(0)?;
    world.spawn("server", move || {
        loop {
            thread::sleep(SECOND / 2);
            let (mut stream, _) = listener.accept()?;
            stream.write_all(b"!")?;
        }
        #[allow(unreachable_code, reason = "it names the type")]
        io::Result::Ok(())
    });
    let client = || {
        world.spawn("client", move || {
            loop {
                match UnixStream::connect(PATH) {
                    Ok(mut stream) => return stream.read_exact(&mut [0]),
                    Err(error) if is_mended && error.kind() == ErrorKind::ConnectionRefused => {
                        thread::sleep(SECOND);
                    }
                    Err(error) => return Err(error),
                }
            }
        })
    };
    [(); 4].map(|()| client()).into_iter().try_for_each(|client| client.join().unwrap())
}

/// The server stops before it accepts. Its answer ends with the connection, and may be empty.
fn a_closed_queue_is_no_answer(_: &World, is_mended: bool) -> io::Result<()> {
    let listener = UnixListener::bind(PATH)?;
    let mut client = UnixStream::connect(PATH)?;
    client.write_all(b"?")?;
    drop(listener);
    let mut answer = Vec::new();
    match client.read_to_end(&mut answer) {
        Err(error) if error.kind() == ErrorKind::ConnectionReset => Ok(()),
        // An answer has at least a line.
        Ok(0) if is_mended => Ok(()),
        Ok(_) => failure("an empty answer is taken for whole"),
        Err(error) => Err(error),
    }
}

fn binds_a_long_path(_: &World, is_mended: bool) -> io::Result<()> {
    let length = if is_mended { 100 } else { 105 };
    UnixListener::bind(format!("{PATH:x<length$}")).map(drop)
}

fn connect_tells(_: &World, is_mended: bool) -> io::Result<()> {
    let _listener = TcpListener::bind(SERVER)?;
    let client = nonblocking()?;
    loop {
        match client.connect(&address().into()) {
            Ok(()) => return Ok(()),
            Err(error) => match error.raw_os_error() {
                Some(libc::EINPROGRESS | libc::EALREADY) => thread::sleep(SECOND / 1_000),
                Some(libc::EISCONN) if is_mended => return Ok(()),
                _ => return Err(error),
            },
        }
    }
}

fn reconnects(world: &World, is_mended: bool) -> io::Result<()> {
    world.schedule(3 * SECOND, |world| {
        world.spawn("server", || {
            let listener = TcpListener::bind(SERVER)?;
            thread::sleep(60 * SECOND);
            drop(listener);
            io::Result::Ok(())
        });
    });
    let mut client = socket()?;
    for _ in 0..10 {
        match client.connect(&address().into()) {
            Ok(()) => return Ok(()),
            Err(error) if error.kind() == ErrorKind::ConnectionRefused => thread::sleep(SECOND),
            Err(error) => return Err(error),
        }
        if is_mended {
            client = socket()?;
        }
    }
    failure("it never connects")
}

fn writes_early(_: &World, is_mended: bool) -> io::Result<()> {
    let _listener = TcpListener::bind(SERVER)?;
    let client = nonblocking()?;
    let _ = client.connect(&address().into());
    let mut stream = TcpStream::from(client);
    loop {
        match stream.write(b"?") {
            Ok(_) => return Ok(()),
            Err(error) if error.kind() == ErrorKind::WouldBlock => thread::sleep(SECOND / 1_000),
            Err(error) if is_mended && error.kind() == ErrorKind::NotConnected => {
                thread::sleep(SECOND / 1_000);
            }
            Err(error) => return Err(error),
        }
    }
}

/// A client asks, and is gone before the answer.
fn gone() -> io::Result<TcpStream> {
    let listener = TcpListener::bind(SERVER)?;
    let mut client = TcpStream::connect(SERVER)?;
    client.write_all(b"?")?;
    let (mut stream, _) = listener.accept()?;
    stream.read_exact(&mut [0])?;
    reset(client)?;
    thread::sleep(SECOND);
    Ok(stream)
}

fn names_the_gone(_: &World, is_mended: bool) -> io::Result<()> {
    match gone()?.write_all(b"!") {
        Err(error) if error.kind() == ErrorKind::ConnectionReset => Ok(()),
        Err(error) if is_mended && error.kind() == ErrorKind::BrokenPipe => Ok(()),
        result => result,
    }
}

fn reads_to_the_end(_: &World, is_mended: bool) -> io::Result<()> {
    let listener = TcpListener::bind(SERVER)?;
    let mut client = TcpStream::connect(SERVER)?;
    let (mut stream, _) = listener.accept()?;
    client.write_all(b"a line\n")?;
    client.shutdown(Shutdown::Write)?;
    thread::sleep(SECOND);
    reset(client)?;
    thread::sleep(SECOND);
    let mut text = Vec::new();
    match stream.read_to_end(&mut text) {
        // The corrected program knows by the text whether it is whole.
        Err(_) if is_mended && text.ends_with(b"\n") => Ok(()),
        result => result.map(drop),
    }
}

fn an_end_is_success(_: &World, is_mended: bool) -> io::Result<()> {
    let listener = TcpListener::bind(SERVER)?;
    let mut client = TcpStream::connect(SERVER)?;
    client.write_all(&[0; 1_000])?;
    client.shutdown(Shutdown::Write)?;
    let (mut server, _) = listener.accept()?;
    thread::sleep(SECOND);
    // It has no room for more, and gives up.
    server.read_exact(&mut [0; 10])?;
    drop(server);
    let mut answer = Vec::new();
    let result = client.read_to_end(&mut answer);
    let believes = if is_mended { answer == b"taken" } else { result.is_ok() };
    if believes { failure("it takes an upload for done that was not read") } else { Ok(()) }
}

fn an_end_of_a_pair_is_success(_: &World, is_mended: bool) -> io::Result<()> {
    let (mut near, mut far) = UnixStream::pair()?;
    near.write_all(&[0; 1_000])?;
    far.read_exact(&mut [0; 10])?;
    drop(far);
    let mut answer = Vec::new();
    let result = near.read_to_end(&mut answer);
    let believes = if is_mended { answer == b"taken" } else { result.is_ok() };
    if believes { failure("it takes a job for done that was not read") } else { Ok(()) }
}

fn drains_after_shutdown(_: &World, is_mended: bool) -> io::Result<()> {
    let listener = TcpListener::bind(SERVER)?;
    let mut client = TcpStream::connect(SERVER)?;
    let (mut stream, _) = listener.accept()?;
    client.write_all(b"a line\n")?;
    thread::sleep(SECOND);
    if !is_mended {
        stream.shutdown(Shutdown::Read)?;
    }
    stream.set_nonblocking(true)?;
    let mut text = Vec::new();
    let _ = stream.read_to_end(&mut text);
    if text == b"a line\n" { Ok(()) } else { failure("a line is lost") }
}

fn ignores_answers(_: &World, is_mended: bool) -> io::Result<()> {
    let listener = TcpListener::bind(SERVER)?;
    let mut client = TcpStream::connect(SERVER)?;
    let (server, _) = listener.accept()?;
    if !is_mended {
        client.shutdown(Shutdown::Read)?;
    }
    for _ in 0..3 {
        client.write_all(b"?")?;
        answer(&server)?;
        thread::sleep(SECOND);
    }
    Ok(())
}

fn shuts_down_both(world: &World, is_mended: bool) -> io::Result<()> {
    let listener = TcpListener::bind(SERVER)?;
    let client = world.spawn("client", || {
        let mut stream = TcpStream::connect(SERVER)?;
        stream.write_all(b"?")?;
        stream.shutdown(Shutdown::Write)?;
        stream.read_to_end(&mut Vec::new()).map(drop)
    });
    let (mut stream, _) = listener.accept()?;
    let in_a_table = stream.try_clone()?;
    stream.read_to_end(&mut Vec::new())?;
    let _ = stream.shutdown(if is_mended { Shutdown::Write } else { Shutdown::Both });
    drop(stream);
    client.join().unwrap()?;
    drop(in_a_table);
    Ok(())
}

fn shuts_down_the_gone(_: &World, is_mended: bool) -> io::Result<()> {
    match gone()?.shutdown(Shutdown::Write) {
        Err(error) if !is_mended && error.kind() != ErrorKind::NotConnected => Err(error),
        _ => Ok(()),
    }
}

fn shuts_down_a_pair(_: &World, is_mended: bool) -> io::Result<()> {
    let (near, far) = UnixStream::pair()?;
    drop(far);
    let result = near.shutdown(Shutdown::Write);
    if is_mended { Ok(()) } else { result }
}

fn names_its_peer(_: &World, is_mended: bool) -> io::Result<()> {
    match gone()?.peer_addr() {
        Err(error) if !is_mended && error.kind() != ErrorKind::NotConnected => Err(error),
        _ => Ok(()),
    }
}

fn sets_an_option(_: &World, is_mended: bool) -> io::Result<()> {
    let stream = gone()?;
    let result = stream.set_nodelay(true);
    if !is_mended {
        result?;
    }
    unless_gone((&stream).write_all(b"!"))
}

fn shares_a_port(world: &World, is_mended: bool) -> io::Result<()> {
    let workers = [(); 2].map(|()| {
        world.spawn("worker", || {
            let socket = socket()?;
            socket.set_reuse_port(true)?;
            socket.bind(&address().into())?;
            socket.listen(128)?;
            thread::sleep(SECOND);
            io::Result::Ok((socket.accept().map(drop), socket))
        })
    });
    thread::sleep(SECOND / 2);
    let _clients: Vec<_> = (0..40).map(|_| TcpStream::connect(SERVER)).collect();
    let mut workers = workers.into_iter();
    if is_mended {
        // One client in the queue is enough.
        world.set_patience(Duration::MAX);
        return Ok(());
    }
    workers.try_for_each(|worker| worker.join().unwrap()?.0)
}

fn runs_once(_: &World, is_mended: bool) -> io::Result<()> {
    let _first = TcpListener::bind(SERVER)?;
    // The second listener of the same program, as configured on other systems.
    let runs = is_mended && TcpStream::connect(SERVER).is_ok();
    match TcpListener::bind("0.0.0.0:7") {
        Ok(_) if !runs => failure("it runs twice"),
        _ => Ok(()),
    }
}

fn listens_to_all(_: &World, is_mended: bool) -> io::Result<()> {
    let _listener = TcpListener::bind("[::]:7")?;
    // `AddrInUse` where the first one has IPv4 too.
    let _second = is_mended.then(|| TcpListener::bind("0.0.0.0:7"));
    TcpStream::connect("127.0.0.1:7")?;
    TcpStream::connect("[::1]:7").map(drop)
}

/// Two UDP sockets, of which the first is connected to the second.
fn datagrams() -> io::Result<(UdpSocket, UdpSocket)> {
    let (near, far) = (UdpSocket::bind("10.0.0.1:8")?, UdpSocket::bind(SERVER)?);
    near.connect(SERVER)?;
    Ok((near, far))
}

fn sends_where_it_likes(_: &World, is_mended: bool) -> io::Result<()> {
    let (near, far) = datagrams()?;
    if is_mended { near.send(b"?") } else { near.send_to(b"?", SERVER) }?;
    far.recv(&mut [0]).map(drop)
}

fn sends_a_lot(_: &World, is_mended: bool) -> io::Result<()> {
    let (near, far) = datagrams()?;
    near.send(&vec![0; if is_mended { 1_200 } else { 20_000 }])?;
    far.recv(&mut [0]).map(drop)
}

fn check(kernels: &[Kernel], count: u64, program: Program, is_mended: bool) {
    check_on(kernels, count, move |world| {
        let latency = Duration::from_micros(1)..=Duration::from_millis(100);
        world.set_conditions(Conditions::calm().with_latency(latency));
        program(world, is_mended)
    });
}

#[test]
fn the_programs_are_right_on_linux() {
    for (_, _, program) in PROGRAMS {
        check(&[Linux], seeds(), *program, false);
    }
}

#[test]
fn the_mended_programs_are_right_on_every_kernel() {
    for (_, _, program) in PROGRAMS {
        check(Kernel::ALL, seeds(), *program, true);
    }
}

/// Prints the first seed of each with `--nocapture`.
#[test]
fn the_programs_are_found_on_each_kernel_where_they_are_wrong() {
    let mut missed = Vec::new();
    for (what, kernels, program) in PROGRAMS {
        for kernel in *kernels {
            let check = || check(&[*kernel], 10_000, *program, false);
            match report_of(check) {
                Some(report) => println!("| {what} | {kernel} | {} |", first_seed(&report)),
                None => missed.push(format!("{kernel}: {what}")),
            }
        }
    }
    assert!(missed.is_empty(), "not found: {missed:#?}");
}

/// On kernels where no rule matters, they are right too.
#[test]
fn the_programs_are_right_on_every_other_kernel() {
    for (_, wrong_on, program) in PROGRAMS {
        let others = Kernel::ALL.iter().filter(|kernel| !wrong_on.contains(kernel));
        check(&others.copied().collect::<Vec<_>>(), seeds(), *program, false);
    }
}
