//! The program, as a process, and clients that speak TLS to it.

use std::io::{BufRead, BufReader, ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};
use std::{env, fs, process, thread};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use rustls::pki_types::{CertificateDer, ServerName, pem::PemObject};
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};

type Client = StreamOwned<ClientConnection, TcpStream>;

/// Longer than anything here takes, so that lost data fails a test instead of hanging it.
const LONG: Duration = Duration::from_secs(60);

/// The program, running. It is killed when the test is done with it, or panics.
struct Server {
    process: Child,
    address: SocketAddr,
    config: Arc<ClientConfig>,
}

impl Server {
    fn start(test: &str) -> Self {
        let file = env::temp_dir().join(format!("pollio-test-{test}-{}.pem", process::id()));
        let mut command = Command::new(env!("CARGO_BIN_EXE_tls_server"));
        command.arg("--certificate").arg(&file).arg("127.0.0.1:0").stdout(Stdio::piped());
        let mut process = command.spawn().unwrap();
        let mut line = String::new();
        BufReader::new(process.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let address = line.trim().strip_prefix("listening on ").expect(&line);
        let address = address.parse().unwrap();
        let mut trusted = RootCertStore::empty();
        trusted.add(CertificateDer::from_pem_file(&file).unwrap()).unwrap();
        fs::remove_file(&file).unwrap();
        let config = ClientConfig::builder().with_root_certificates(trusted);
        Self { process, address, config: Arc::new(config.with_no_client_auth()) }
    }

    fn connect(&self) -> Client {
        let name = ServerName::try_from("localhost").unwrap();
        let tls = ClientConnection::new(Arc::clone(&self.config), name).unwrap();
        StreamOwned::new(tls, self.connect_without_tls())
    }

    fn connect_without_tls(&self) -> TcpStream {
        let stream = TcpStream::connect(self.address).unwrap();
        stream.set_read_timeout(Some(LONG)).unwrap();
        stream.set_write_timeout(Some(LONG)).unwrap();
        stream.set_nodelay(true).unwrap();
        stream
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

#[track_caller]
fn ask(client: &mut Client, words: &[u8]) {
    client.write_all(words).unwrap();
    let mut answer = vec![0; words.len()];
    client.read_exact(&mut answer).unwrap();
    assert!(answer == words, "other bytes came back than were sent");
}

#[test]
fn bytes_come_back() {
    let server = Server::start("echo");
    let mut clients: Vec<_> = (0..50).map(|_| server.connect()).collect();
    for n in 1..=20_usize {
        for client in &mut clients {
            ask(client, &vec![b'a' + u8::try_from(n).unwrap(); n * 37]);
        }
    }
}

/// More than a client's share is there at its turn: it is answered to the last record, though no event follows.
#[test]
fn many_records_at_once_are_all_answered() {
    let server = Server::start("records");
    let mut client = server.connect();
    ask(&mut client, b"hello");
    let mut packet = Vec::new();
    for n in 0..40_u8 {
        client.conn.writer().write_all(&[n; 1_000]).unwrap();
        while client.conn.wants_write() {
            client.conn.write_tls(&mut packet).unwrap();
        }
    }
    client.sock.write_all(&packet).unwrap();
    let mut answer = vec![0; 40_000];
    client.read_exact(&mut answer).unwrap();
    assert!(answer.chunks(1_000).zip(0_u8..).all(|(chunk, n)| chunk == [n; 1_000]));
}

#[test]
fn megabytes_both_ways_at_once_come_back() {
    let server = Server::start("megabytes");
    let data: Vec<u8> = (0..8_000_000_u32).map(|n| (n % 251).to_le_bytes()[0]).collect();
    let mut client = server.connect();
    // Less at a time than the buffers of both ends hold.
    data.chunks(50_000).for_each(|chunk| ask(&mut client, chunk));
}

#[test]
fn a_client_that_never_reads_stalls_nobody() {
    let server = Server::start("stuck");
    let (mut stuck, mut other) = (server.connect(), server.connect());
    ask(&mut stuck, b"hello");
    stuck.sock.set_write_timeout(Some(Duration::from_millis(300))).unwrap();
    let block = vec![7; 1 << 20];
    let error = (0..1_000).find_map(|_| stuck.write_all(&block).err()).expect("it is held back");
    assert_eq!(error.kind(), ErrorKind::WouldBlock);
    for _ in 0..100 {
        ask(&mut other, b"other");
    }
}

#[test]
fn an_end_is_answered_with_an_end() {
    let server = Server::start("end");
    let mut client = server.connect();
    client.write_all(b"last words").unwrap();
    client.conn.send_close_notify();
    client.flush().unwrap();
    let mut answer = Vec::new();
    // An end without TLS's own close would be an error.
    client.read_to_end(&mut answer).unwrap();
    assert_eq!(answer, b"last words");
}

#[test]
fn a_client_without_tls_is_closed_and_harms_nobody() {
    let server = Server::start("nonsense");
    let mut other = server.connect();
    for words in [&b"GET / HTTP/1.1\r\n\r\n"[..], &[0; 1_000], &[0xff; 20]] {
        let mut client = server.connect_without_tls();
        client.write_all(words).unwrap();
        client.shutdown(Shutdown::Write).unwrap();
        // An alert may come first, and a reset instead of the end.
        let _ = client.read_to_end(&mut Vec::new());
        ask(&mut other, b"other");
    }
    // A client that breaks off within its handshake.
    drop(server.connect_without_tls());
    ask(&mut other, b"other");
}

#[test]
fn ctrl_c_and_sigterm_end_it() {
    for signal in [Signal::SIGINT, Signal::SIGTERM] {
        let mut server = Server::start("signal");
        ask(&mut server.connect(), b"hello");
        kill(Pid::from_raw(server.process.id().try_into().unwrap()), signal).unwrap();
        let begin = Instant::now();
        let status = loop {
            if let Some(status) = server.process.try_wait().unwrap() {
                break status;
            }
            assert!(begin.elapsed() < LONG, "it goes on after {signal}");
            thread::sleep(Duration::from_millis(5));
        };
        assert_eq!(status.code(), Some(0), "{signal}: {status}");
    }
}
