//! The example `http_server` as a process, with well and badly behaved clients.

use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::time::{Duration, Instant};
use std::{iter, mem, thread};

use nix::sys::signal::Signal;

use crate::linux::support::example::{
    Running, eventually, expect_failure, read_to_end, reset, with_descriptors, write_until_stuck,
};

const GET: &str = "GET / HTTP/1.1\r\nHost: here\r\n\r\n";
const GET_OTHER: &str = "GET /other?way HTTP/1.1\r\nHost: here\r\n\r\n";
const ANSWER: &str =
    "HTTP/1.1 200 OK\r\nContent-Length: 16\r\nConnection: keep-alive\r\n\r\nYou asked for /\n";
const OTHER_ANSWER: &str = "HTTP/1.1 200 OK\r\nContent-Length: 25\r\nConnection: keep-alive\r\n\r\n\
    You asked for /other?way\n";
const LAST_ANSWER: &str =
    "HTTP/1.1 200 OK\r\nContent-Length: 16\r\nConnection: close\r\n\r\nYou asked for /\n";

/// The longest head that the example takes.
const LONGEST: usize = 8 * 1024;

#[test]
fn a_connection_is_kept_for_one_request_after_the_other() {
    let server = start(&[]);
    let mut client = server.connect();
    for _ in 0..200 {
        ask(&mut client, GET, ANSWER);
        ask(&mut client, GET_OTHER, OTHER_ANSWER);
    }
    server.expect_idle();
    ask(&mut client, GET, ANSWER);
}

#[test]
fn requests_in_one_write_are_answered_in_order() {
    let server = start(&[]);
    let mut client = server.connect();
    let (mut requests, mut answers) = (String::new(), String::new());
    for n in 0..5_000_u32 {
        // A pattern that does not repeat soon: the number of bits of n, odd or even.
        let is_get = n.count_ones() % 2 == 0;
        requests += if is_get { GET } else { GET_OTHER };
        answers += if is_get { ANSWER } else { OTHER_ANSWER };
    }
    ask(&mut client, &requests, &answers);
    // And once more, with the end right behind them.
    client.write_all(requests.as_bytes()).unwrap();
    client.shutdown(Shutdown::Write).unwrap();
    assert!(read_to_end(&mut client) == answers.as_bytes(), "other answers than to the requests");
}

#[test]
fn a_request_may_come_byte_by_byte() {
    let server = start(&[]);
    let mut client = server.connect();
    client.set_nodelay(true).unwrap();
    for (request, answer) in [(GET, ANSWER), (GET_OTHER, OTHER_ANSWER)] {
        let (last, before) = request.as_bytes().split_last().unwrap();
        for byte in before {
            client.write_all(&[*byte]).unwrap();
            thread::sleep(Duration::from_millis(1));
        }
        expect_nothing_yet(&client);
        client.write_all(&[*last]).unwrap();
        expect(&mut client, answer);
    }
}

#[test]
fn a_request_may_be_split_anywhere() {
    let server = start(&[]);
    let mut client = server.connect();
    client.set_nodelay(true).unwrap();
    let (requests, answers) = ([GET, GET_OTHER, GET].concat(), [ANSWER, OTHER_ANSWER, ANSWER]);
    for middle in 1..requests.len() {
        client.write_all(&requests.as_bytes()[..middle]).unwrap();
        thread::sleep(Duration::from_millis(1));
        ask(&mut client, &requests[middle..], &answers.concat());
    }
}

#[test]
fn the_last_request_ends_the_connection() {
    let server = start(&[]);
    for last in [
        "GET / HTTP/1.1\r\nHost: here\r\nConnection: close\r\n\r\n",
        "GET / HTTP/1.1\r\nhost:here\r\nCONNECTION:TE ,\tClose\r\n\r\n",
        "GET / HTTP/1.0\r\n\r\n",
    ] {
        let mut client = server.connect();
        // Requests after the last are not answered.
        client.write_all([GET, last, GET].concat().as_bytes()).unwrap();
        assert_eq!(text(read_to_end(&mut client)), [ANSWER, LAST_ANSWER].concat(), "{last}");
    }
}

/// As for `curl -I`: only a head, with the length that the body would have.
#[test]
fn head_is_answered_without_a_body() {
    let server = start(&[]);
    let mut client = server.connect();
    let (head, _) = ANSWER.split_once("\r\n\r\n").unwrap();
    let answers = format!("{head}\r\n\r\n{OTHER_ANSWER}");
    for _ in 0..3 {
        let requests = ["HEAD / HTTP/1.1\r\nHost: here\r\n\r\n", GET_OTHER].concat();
        ask(&mut client, &requests, &answers);
    }
    client.write_all(b"HEAD / HTTP/1.0\r\n\r\n").unwrap();
    let (head, _) = LAST_ANSWER.split_once("\r\n\r\n").unwrap();
    assert_eq!(text(read_to_end(&mut client)), format!("{head}\r\n\r\n"));
}

/// As for `ab -k`.
#[test]
fn http_1_0_keeps_a_connection_if_it_asks_for_that() {
    let server = start(&[]);
    let mut client = server.connect();
    for keep in ["Keep-Alive", "keep-alive", "TE, keep-alive"] {
        let get = format!("GET / HTTP/1.0\r\nConnection: {keep}\r\n\r\n");
        ask(&mut client, &get.repeat(10), &ANSWER.repeat(10));
    }
    let both = "GET / HTTP/1.0\r\nConnection: keep-alive, close\r\n\r\n";
    client.write_all(both.as_bytes()).unwrap();
    assert_eq!(text(read_to_end(&mut client)), LAST_ANSWER);
}

#[test]
fn a_request_has_one_host() {
    let server = start(&[]);
    for (version, hosts) in [
        ("1.1", &[][..]),
        ("1.1", &["here", "here"]),
        ("1.1", &["here", "there"]),
        ("1.1", &["here, there"]),
        ("1.1", &["here there"]),
        ("1.1", &["here/there"]),
        ("1.1", &["me@here"]),
        ("1.0", &["here", "there"]),
    ] {
        expect_refusal(&server, &with("GET", "/", version, "Host", hosts), "400 Bad Request");
    }
    let mut client = server.connect();
    for host in ["here", "here:80", "[::1]:80", "127.0.0.1", "a-b.c_d", ""] {
        ask(&mut client, &with("GET", "/", "1.1", "Host", &[host]), ANSWER);
    }
}

/// The absolute form, which a proxy gets, and targets that GET does not have.
#[test]
fn a_target_is_a_path_or_a_url() {
    let server = start(&[]);
    let mut client = server.connect();
    for (target, path) in [
        ("/a/b?c=d", "/a/b?c=d"),
        ("//a", "//a"),
        ("http://there", "/"),
        ("http://there:8080/a?b", "/a?b"),
        ("HTTPS://there/http://a", "/http://a"),
        ("http://there?b", "/?b"),
    ] {
        let body = format!("You asked for {path}\n");
        let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n", body.len());
        let answer = format!("{head}Connection: keep-alive\r\n\r\n{body}");
        ask(&mut client, &with("GET", target, "1.1", "Host", &["here"]), &answer);
    }
    for target in ["*", "there:80", "there", "ftp://there/", "http:///a", "http://", "://a"] {
        let request = with("GET", target, "1.1", "Host", &["here"]);
        expect_refusal(&server, &request, "400 Bad Request");
    }
}

/// A request must be refused if two readers could disagree about its end.
#[test]
fn a_request_that_could_smuggle_another_in_is_refused() {
    let server = start(&[]);
    for headers in [
        "Content-Length: 30\r\nTransfer-Encoding: chunked",
        "Transfer-Encoding: chunked\r\nContent-Length: 0",
        "Content-Length: 0\r\nContent-Length: 30",
        "Content-Length: 0, 30",
        "Content-Length: +0",
        "Content-Length: -1",
        "Content-Length: 0x0",
        "Content-Length: 0 0",
        "Content-Length:",
        "Content-Length : 0",
        "Transfer-Encoding : chunked",
        " Content-Length: 0",
        "X: y\r\n Content-Length: 30",
        "Content-Length: \0",
        "X: y\rContent-Length: 30",
        "Content\u{a0}Length: 30",
    ] {
        for method in ["GET", "POST"] {
            let request = format!("{method} / HTTP/1.1\r\nHost: here\r\n{headers}\r\n\r\n");
            expect_refusal(&server, &(request + "0\r\n\r\n"), "400 Bad Request");
        }
    }
    let old = "GET / HTTP/1.0\r\nConnection: keep-alive\r\nTransfer-Encoding: chunked\r\n\r\n";
    expect_refusal(&server, old, "400 Bad Request");
    for headers in [
        "Transfer-Encoding: chunked",
        "Transfer-Encoding: xchunked",
        "Transfer-Encoding: chunked, identity",
        "Transfer-Encoding:",
        "Content-Length: 99999999999999999999999999",
        "Content-Length: 5, 5",
    ] {
        let request = format!("GET / HTTP/1.1\r\nHost: here\r\n{headers}\r\n\r\n");
        expect_refusal(&server, &request, "413 Content Too Large");
    }
    // A request without a body may say so.
    let mut client = server.connect();
    for lengths in [&["0"][..], &["00"], &["0", "0"], &["0,0"]] {
        let request = with("GET", "/", "1.1", "Content-Length", lengths);
        ask(&mut client, &request.replace("1.1\r\n", "1.1\r\nHost: here\r\n"), ANSWER);
    }
}

/// A client that waits for `100 Continue` before its body, as curl does for a large one, is answered at once.
#[test]
fn a_client_that_expects_to_be_asked_for_a_body_is_answered_without_it() {
    let server = start(&[]);
    let expecting = "HTTP/1.1\r\nHost: here\r\nExpect: 100-continue\r\n";
    for (method, status) in [("GET", "413 Content Too Large"), ("POST", "501 Not Implemented")] {
        let request = format!("{method} / {expecting}Content-Length: 2000000\r\n\r\n");
        let mut client = server.connect();
        client.write_all(request.as_bytes()).unwrap();
        assert_eq!(text(read_to_end(&mut client)), refusal(status));
    }
    let mut client = server.connect();
    ask(&mut client, &[&format!("GET / {expecting}\r\n"), GET].concat(), &ANSWER.repeat(2));
}

/// A body that is refused is read all the same: a reset could take the answer away.
#[test]
fn a_client_that_sends_a_large_body_gets_the_answer() {
    let server = start(&[]);
    let mut client = server.connect();
    let head = "POST / HTTP/1.1\r\nHost: here\r\nContent-Length: 8000000\r\n\r\n";
    client.write_all(head.as_bytes()).unwrap();
    client.write_all(&[b'x'; 8_000_000]).unwrap();
    assert_eq!(text(read_to_end(&mut client)), refusal("501 Not Implemented"));
}

#[test]
fn a_port_that_another_server_listens_on_is_refused() {
    for first in [&[][..], &["--shared"]] {
        let server = start(first);
        let address = server.address().to_string();
        for second in [&[][..], &["--shared"]] {
            let complaint = format!("cannot serve {address}: Address already in use");
            expect_failure("http_server", &[second, &[&address]].concat(), &complaint);
        }
        // The refused server took no client away.
        let clients: Vec<_> = (0..50).map(|_| server.connect()).collect();
        for mut client in clients {
            ask(&mut client, GET, ANSWER);
        }
        drop(server);
        // It is free again at once, though connections linger.
        Running::start("http_server", &[first, &[&address]].concat()).listening();
    }
}

#[test]
fn a_malformed_request_is_refused_and_the_connection_ended() {
    let server = start(&[]);
    let mut other = server.connect();
    let too_many = "A: b\r\n".repeat(65);
    for (refused, status) in [
        ("nonsense\r\n\r\n", "400 Bad Request"),
        ("GET / HTTP/1.1\r\nHost here\r\n\r\n", "400 Bad Request"),
        ("GET / HTTP/3.1\r\nHost: here\r\n\r\n", "400 Bad Request"),
        ("\0\0\0\0", "400 Bad Request"),
        (&format!("GET / HTTP/1.1\r\n{too_many}\r\n"), "431 Request Header Fields Too Large"),
        ("GET / HTTP/1.1\r\nHost: here\r\nContent-Length: 5\r\n\r\nhello", "413 Content Too Large"),
        (
            "GET / HTTP/1.1\r\nHost: here\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
            "413 Content Too Large",
        ),
        ("POST / HTTP/1.1\r\nHost: here\r\nContent-Length: 1\r\n\r\nx", "501 Not Implemented"),
    ] {
        let mut client = server.connect();
        client.write_all([GET, refused, GET].concat().as_bytes()).unwrap();
        let answers = text(read_to_end(&mut client));
        assert_eq!(answers, [ANSWER, &refusal(status)].concat(), "{refused:?}");
        ask(&mut other, GET, ANSWER);
    }
}

#[test]
fn a_head_that_is_too_long_is_refused() {
    let server = start(&[]);
    let mut client = server.connect();
    ask(&mut client, &head_of(LONGEST), ANSWER);
    let both = [GET, &head_of(LONGEST)].concat();
    ask(&mut client, &both, &[ANSWER, ANSWER].concat());

    for length in [LONGEST + 1, 100_000, 4 << 20] {
        let mut client = server.connect();
        client.write_all(head_of(length).as_bytes()).unwrap();
        let answer = text(read_to_end(&mut client));
        assert_eq!(answer, refusal("431 Request Header Fields Too Large"), "{length} bytes");
    }
    for length in [LONGEST, 4 << 20] {
        let mut client = server.connect();
        client.write_all(format!("GET /{}", "x".repeat(length)).as_bytes()).unwrap();
        assert_eq!(text(read_to_end(&mut client)), refusal("414 URI Too Long"), "{length} bytes");
    }
}

#[test]
fn a_half_close_is_answered_with_everything_and_then_the_end() {
    let server = start(&[]);
    for (requests, answers) in [
        ("", ""),
        (GET, ANSWER),
        (&GET.repeat(3_000), &ANSWER.repeat(3_000)),
        (&[GET, "GET / HT"].concat(), ANSWER),
    ] {
        let mut client = server.connect();
        client.write_all(requests.as_bytes()).unwrap();
        client.shutdown(Shutdown::Write).unwrap();
        assert!(read_to_end(&mut client) == answers.as_bytes(), "after {} bytes", requests.len());
    }
}

#[test]
fn a_client_that_never_reads_takes_its_buffers_and_stalls_nobody() {
    let server = start(&[]);
    // A client on every core, so that one shares a core with the other client.
    let mut others: Vec<_> = (0..16).map(|_| server.connect()).collect();
    others.iter_mut().for_each(|client| ask(client, GET, ANSWER));
    let memory_before = server.memory_kb();

    let requests = GET.repeat(1 << 21);
    let slow = server.connect();
    let sent = write_until_stuck(&slow, requests.as_bytes());
    assert!(sent < requests.len(), "the server took {sent} bytes from a client that reads nothing");

    let grown = server.memory_kb().saturating_sub(memory_before);
    assert!(grown < 512, "the server grew by {grown} kB");
    others.iter_mut().for_each(|client| ask(client, GET, ANSWER));
    server.expect_idle();

    // Each whole request is answered, as soon as the client reads.
    let mut slow = slow;
    slow.shutdown(Shutdown::Write).unwrap();
    let answers = ANSWER.repeat(sent / GET.len());
    assert!(read_to_end(&mut slow) == answers.as_bytes(), "other answers than to the requests");
}

#[test]
fn clients_that_reset_harm_nobody_else() {
    let server = start(&[]);
    let mut other = server.connect();
    ask(&mut other, GET, ANSWER);
    let descriptors = server.descriptors();
    let requests = GET.repeat(20_000);
    for bytes in [0, 10, GET.len(), requests.len()].repeat(20) {
        let client = server.connect();
        client.set_nonblocking(true).unwrap();
        let _ = (&client).write(&requests.as_bytes()[..bytes]).unwrap();
        reset(client);
        ask(&mut other, GET, ANSWER);
    }
    eventually("the clients that reset are forgotten", || server.descriptors() == descriptors);
}

#[test]
fn connections_that_are_idle_are_closed() {
    const IDLE: Duration = Duration::from_secs(1);
    let begin = Instant::now();
    let server = Running::start("http_server", &["127.0.0.1:0", "1"]).listening();
    let mut idle: Vec<_> = (0..20).map(|_| server.connect()).collect();
    // Neither an endless request nor bytes after a refusal keep a connection open.
    let (endless, mut refused) = (server.connect(), server.connect());
    refused.write_all(b"nonsense\r\n\r\n").unwrap();
    for mut client in [&endless, &refused] {
        let mut drips = "GET / HTTP/1.1\r\nX: ".bytes().chain(iter::repeat(b'x'));
        eventually("the connection is closed", || client.write(&[drips.next().unwrap()]).is_err());
        assert!(begin.elapsed() >= IDLE, "closed after {:?}", begin.elapsed());
    }
    // These end without a reset.
    idle.iter_mut().for_each(|client| assert_eq!(read_to_end(client), b""));

    let mut served: Vec<_> = (0..20).map(|_| server.connect()).collect();
    let begin = Instant::now();
    for client in &mut served {
        // On a busy machine the first may have been closed before the last was connected.
        let is_late = begin.elapsed() >= IDLE / 2;
        let mut answer = String::new();
        let asked = client.write_all(GET.as_bytes());
        let ended = asked.and_then(|()| client.read_to_string(&mut answer));
        assert!(is_late || ended.is_ok() && answer == ANSWER, "{ended:?} {answer:?}");
    }
    assert!(begin.elapsed() >= IDLE, "closed after {:?}", begin.elapsed());
    server.expect_idle();
}

/// Requests that came in time, while the server was stopped, from more clients than one wait reports.
#[test]
fn a_request_from_before_the_limit_is_answered_after_a_stop() {
    let server = Running::start("http_server", &["127.0.0.1:0", "2"]).listening();
    let begin = Instant::now();
    let mut clients: Vec<_> = (0..400).map(|_| server.connect()).collect();
    let mut last = server.connect();
    ask(&mut last, GET, ANSWER);
    thread::sleep(Duration::from_millis(300).saturating_sub(begin.elapsed()));
    server.signal(Signal::SIGSTOP);
    thread::sleep(Duration::from_secs(1));
    let is_in_time = begin.elapsed() < Duration::from_secs(2);
    clients.iter_mut().for_each(|client| client.write_all(GET.as_bytes()).unwrap());
    thread::sleep(Duration::from_millis(3_500).saturating_sub(begin.elapsed()));
    server.signal(Signal::SIGCONT);
    for client in &mut clients {
        let mut answer = vec![0; ANSWER.len()];
        let read = client.read_exact(&mut answer);
        assert!(!is_in_time || read.is_ok() && answer == ANSWER.as_bytes(), "{read:?}");
    }
}

#[test]
fn a_connection_in_use_is_not_closed() {
    const IDLE: Duration = Duration::from_secs(2);
    let server = Running::start("http_server", &["127.0.0.1:0", "2"]).listening();
    let is_kept = || {
        let mut client = server.connect();
        let (begin, mut last) = (Instant::now(), Instant::now());
        while begin.elapsed() < 2 * IDLE {
            let answered = client.write_all(GET.as_bytes()).and_then(|()| {
                let mut answer = [0; ANSWER.len()];
                client.read_exact(&mut answer)
            });
            let gap = mem::replace(&mut last, Instant::now()).elapsed();
            match answered {
                Ok(()) if gap < IDLE / 2 => thread::sleep(IDLE / 20),
                Ok(()) => return false,
                Err(error) => {
                    assert!(gap >= IDLE / 2, "closed {gap:?} after the last answer: {error}");
                    return false;
                }
            }
        }
        true
    };
    // A busy machine may delay a client until it looks idle.
    eventually("a client is in use for twice the time", is_kept);
}

#[test]
fn hundreds_of_clients_at_once_are_answered() {
    for mode in [&[][..], &["--shared"]] {
        let server = start(mode);
        let mut clients: Vec<_> = (0..256).map(|_| server.connect()).collect();
        thread::scope(|scope| {
            for clients in clients.chunks_mut(64) {
                scope.spawn(|| {
                    for count in [1, 2, 50, 1, 7, 100] {
                        let (requests, answers) = (GET.repeat(count), ANSWER.repeat(count));
                        for client in &mut *clients {
                            client.write_all(requests.as_bytes()).unwrap();
                        }
                        clients.iter_mut().for_each(|client| expect(client, &answers));
                    }
                });
            }
        });
        server.expect_idle();
    }
}

#[test]
fn every_core_has_a_listener_or_they_share_one() {
    let cores = thread::available_parallelism().unwrap().get();
    for (mode, listeners) in [(&[][..], cores), (&["--shared"], 1)] {
        let server = start(mode);
        let port = format!(":{:04X}", server.address().port());
        let sockets = std::fs::read_to_string("/proc/net/tcp").unwrap();
        let listening = sockets.lines().filter(|line| {
            let fields: Vec<_> = line.split_whitespace().collect();
            // The local address, and the state: TCP_LISTEN.
            fields[1].ends_with(&port) && fields[3] == "0A"
        });
        assert_eq!(listening.count(), listeners, "{mode:?}");
    }
}

#[test]
fn clients_beyond_the_last_descriptor_wait_for_one_that_leaves() {
    let mut command = with_descriptors("http_server", 40);
    let server = Running::spawn(command.args(["--shared", "127.0.0.1:0", "600"])).listening();
    let clients: Vec<_> = (0..60).map(|_| server.connect()).collect();
    server.expect_idle();
    // The first clients are served, and leave, so that each has its turn.
    for mut client in clients {
        ask(&mut client, GET, ANSWER);
    }
}

fn start(mode: &[&str]) -> Running {
    // No connection is idle long enough to be closed.
    Running::start("http_server", &[mode, &["127.0.0.1:0", "600"]].concat()).listening()
}

/// A request with a head of `length` bytes.
fn head_of(length: usize) -> String {
    let beginning = "GET / HTTP/1.1\r\nHost: here\r\nX: ";
    format!("{beginning}{}\r\n\r\n", "x".repeat(length - beginning.len() - 4))
}

/// A request with such a header for each of `values`, and no other.
fn with(method: &str, target: &str, version: &str, header: &str, values: &[&str]) -> String {
    let headers: String = values.iter().map(|value| format!("{header}: {value}\r\n")).collect();
    format!("{method} {target} HTTP/{version}\r\n{headers}\r\n")
}

/// Sends `request` between other requests. Those after it are not answered.
#[track_caller]
fn expect_refusal(server: &Running, request: &str, status: &str) {
    let mut client = server.connect();
    client.write_all([GET, request, GET].concat().as_bytes()).unwrap();
    let answers = text(read_to_end(&mut client));
    assert_eq!(answers, [ANSWER, &refusal(status)].concat(), "{request:?}");
}

fn refusal(status: &str) -> String {
    format!("HTTP/1.1 {status}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
}

/// Writes and reads at once, so that neither side waits for the other indefinitely.
#[track_caller]
fn ask(client: &mut TcpStream, requests: &str, answers: &str) {
    if requests.len() < 64 * 1024 {
        client.write_all(requests.as_bytes()).unwrap();
        return expect(client, answers);
    }
    thread::scope(|scope| {
        let mut writer = &*client;
        scope.spawn(move || writer.write_all(requests.as_bytes()).unwrap());
        expect(&mut &*client, answers);
    });
}

#[track_caller]
fn expect(client: &mut impl Read, answers: &str) {
    let mut bytes = vec![0; answers.len()];
    client.read_exact(&mut bytes).unwrap();
    if bytes != answers.as_bytes() {
        let at = bytes.iter().zip(answers.as_bytes()).position(|(a, b)| a != b).unwrap();
        let got = String::from_utf8_lossy(&bytes[at..]).chars().take(100).collect::<String>();
        panic!("another answer, from byte {at} of {} on: {got:?}", answers.len());
    }
}

#[track_caller]
fn expect_nothing_yet(client: &TcpStream) {
    client.set_nonblocking(true).unwrap();
    let read = client.peek(&mut [0]).map_err(|error| error.kind());
    assert_eq!(read, Err(ErrorKind::WouldBlock));
    client.set_nonblocking(false).unwrap();
}

fn text(bytes: Vec<u8>) -> String {
    String::from_utf8(bytes).unwrap()
}
