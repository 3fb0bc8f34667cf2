//! Loss, duplicates and delays of datagrams in a simulated network; the real loopback has none.

use std::io::{self, ErrorKind};
use std::os::fd::AsRawFd;
use std::time::Duration;

use pollio::{EventObject, Mode, Poller};
use pollio_sim::net::{TcpStream, UdpSocket};
use pollio_sim::time::Instant;
use pollio_sim::{Conditions, SimPoller, World, thread};

use crate::world::{failure, run};

const SECOND: Duration = Duration::from_secs(1);
const SERVER: &str = "10.0.0.1:53";

/// Sends twenty datagrams, a second apart, and returns those that arrive.
fn arrivals(seed: u64, conditions: Conditions) -> Vec<u8> {
    let mut arrived = Vec::new();
    run(seed, |world| {
        // Applies to sockets that are created from now on.
        world.set_conditions(conditions);
        let receiver = UdpSocket::bind(SERVER)?;
        receiver.set_read_timeout(Some(60 * SECOND))?;
        world.spawn("sender", || {
            let sender = UdpSocket::bind("10.0.0.2:0").unwrap();
            for number in 0..20 {
                assert_eq!(sender.send_to(&[number], SERVER).unwrap(), 1);
                thread::sleep(SECOND);
            }
        });
        let mut buffer = [0];
        while receiver.recv(&mut buffer).is_ok() {
            arrived.push(buffer[0]);
        }
        Ok(())
    });
    arrived
}

#[test]
fn datagrams_are_lost_doubled_and_late_as_the_conditions_have_it() {
    let calm = Conditions::calm;
    let faulty = |conditions: Conditions| conditions.with_max_faults(5);
    let sent: Vec<u8> = (0..20).collect();
    let all = |conditions: &dyn Fn() -> Conditions| -> Vec<_> {
        (0..50).map(|seed| arrivals(seed, conditions())).collect()
    };
    assert!(all(&calm).iter().all(|arrived| *arrived == sent));
    // No kind of fault occurs without its condition.
    assert!(all(&|| faulty(calm())).iter().all(|arrived| *arrived == sent));

    let lost = all(&|| faulty(calm().with_losses(true)));
    assert!(lost.iter().all(|arrived| arrived.is_sorted() && arrived.len() >= 15));
    assert!(lost.iter().any(|arrived| arrived.len() == 15));
    let doubled = all(&|| faulty(calm().with_duplicates(true)));
    assert!(doubled.iter().all(|arrived| sent.iter().all(|number| arrived.contains(number))));
    assert!(doubled.iter().any(|arrived| arrived.len() == 25));
    let late = all(&|| faulty(calm().with_reordering(true)));
    assert!(late.iter().all(|arrived| arrived.len() == 20));
    assert!(late.iter().any(|arrived| !arrived.is_sorted()));
    let by_default = all(&Conditions::default);
    assert!(by_default.iter().any(|arrived| arrived.len() < 20));
    assert!(by_default.iter().any(|arrived| arrived.len() > 20));
}

#[test]
fn a_datagram_takes_the_latency_of_its_sender() {
    run(0, |world| {
        let latency = Duration::from_millis(70);
        world.set_conditions(Conditions::calm().with_latency(latency..=latency));
        let near = UdpSocket::bind("10.0.0.2:0")?;
        let server = UdpSocket::bind(SERVER)?;
        let begin = Instant::now();
        near.send_to(b"x", SERVER)?;
        let (_, client) = server.recv_from(&mut [0])?;
        assert_eq!(begin.elapsed(), latency);
        server.send_to(b"x", client)?;
        near.recv(&mut [0])?;
        assert_eq!(begin.elapsed(), 2 * latency);
        // A port without a socket answers with an error, a latency later.
        near.connect("10.0.0.1:54")?;
        near.send(b"x")?;
        let refused = near.recv(&mut [0]).unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::ConnectionRefused);
        assert_eq!(begin.elapsed(), 4 * latency);
        Ok(())
    });
}

#[test]
fn a_small_buffer_holds_one_datagram() {
    run(0, |world| {
        world.set_conditions(Conditions::calm().with_buffer(512..=512));
        let (near, server) = (UdpSocket::bind("10.0.0.2:0")?, UdpSocket::bind(SERVER)?);
        for length in [3_000, 1, 2] {
            near.send_to(&vec![7; length], SERVER)?;
        }
        thread::sleep(SECOND);
        server.set_nonblocking(true)?;
        assert_eq!(server.recv(&mut [0; 4_000])?, 3_000);
        assert_eq!(server.recv(&mut [0]).unwrap_err().kind(), ErrorKind::WouldBlock);
        Ok(())
    });
}

#[test]
fn a_forgotten_datagram_fails_the_run() {
    let why = failure(0, |world| {
        world.set_conditions(Conditions::calm());
        world.set_patience(SECOND);
        let near = UdpSocket::bind("10.0.0.2:0")?;
        world.spawn("server", || {
            let server = UdpSocket::bind(SERVER).unwrap();
            let mut poller = SimPoller::new().unwrap();
            poller.add(EventObject::new(server.as_raw_fd()).with_mode(Mode::Edge)).unwrap();
            loop {
                poller.wait(-1).unwrap();
            }
        });
        thread::sleep(SECOND);
        near.send_to(b"x", SERVER)?;
        thread::sleep(10 * SECOND);
        Ok(())
    });
    assert!(why.contains("udp 10.0.0.1:53, 1 datagrams to read has waited"), "{why}");
}

#[test]
fn udp_and_tcp_have_ports_of_their_own() {
    run(0, |world| {
        world.set_conditions(Conditions::calm());
        let _socket = UdpSocket::bind(SERVER)?;
        let refused = TcpStream::connect(SERVER).unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::ConnectionRefused);
        let open = world.descriptors();
        let in_use = UdpSocket::bind(SERVER).unwrap_err();
        assert_eq!(in_use.kind(), ErrorKind::AddrInUse);
        assert_eq!(world.descriptors(), open);
        world.set_descriptor_limit(open);
        let none = UdpSocket::bind("10.0.0.1:54").unwrap_err();
        assert_eq!(none.raw_os_error(), Some(libc::EMFILE));
        Ok(())
    });
}

#[test]
fn faults_of_connections_leave_datagrams_alone() {
    fn exchange(world: &World) -> io::Result<()> {
        world.set_conditions(Conditions::calm());
        let (near, server) = (UdpSocket::bind("10.0.0.2:0")?, UdpSocket::bind(SERVER)?);
        world.stall(&near, SECOND);
        world.reset_after(&near, 0);
        near.send_to(b"x", SERVER)?;
        world.reset(&server);
        let begin = Instant::now();
        assert_eq!(server.recv(&mut [0])?, 1);
        assert!(begin.elapsed() < SECOND);
        Ok(())
    }
    run(0, exchange);
}

#[test]
fn a_seed_replays_the_faults_of_datagrams() {
    fn exchange(world: &World) -> io::Result<()> {
        let (near, server) = (UdpSocket::bind("10.0.0.2:0")?, UdpSocket::bind(SERVER)?);
        server.set_nonblocking(true)?;
        world.spawn("receiver", move || {
            loop {
                let _ = server.recv(&mut [0]);
                thread::sleep(SECOND / 10);
            }
        });
        for _ in 0..20 {
            near.send_to(b"x", SERVER)?;
            thread::sleep(SECOND / 10);
        }
        Ok(())
    }
    for seed in 0..20 {
        assert_eq!(run(seed, exchange), run(seed, exchange));
    }
}
