//! The example `resp_server` as a process, with well and badly behaved clients. The answers are those of redis-server
//! 7.0.15, byte by byte, unless a comment says otherwise.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};
use std::{thread, time::Duration};

use crate::linux::support::example::{
    Running, eventually, read_to_end, reset, with_descriptors, write_until_stuck,
};

/// The longest command that the example takes.
const LONGEST: usize = 64 * 1024;

/// Commands, and the answers to them, in words.
const TALK: [(&[&str], &str); 8] = [
    (&["PING", "ping", "PING hello", "ECHO hello"], "+PONG +PONG $5 hello $5 hello"),
    (&["GET a", "SET a 1", "GET a", "SET a 23", "get a"], "$-1 +OK $1 1 +OK $2 23"),
    (&["EXISTS a b a", "DEL a b a", "DEL a", "EXISTS a", "GET a"], ":2 :1 :0 :0 $-1"),
    (&["INCR n", "incr n", "GET n", "SET n -1", "INCR n"], ":1 :2 $1 2 +OK :0"),
    (&["SET n 9223372036854775806", "INCR n"], "+OK :9223372036854775807"),
    // Redis has many of each.
    (&["COMMAND", "COMMAND DOCS", "CONFIG GET nonsense"], "*0 *0 *0"),
    (&["config get AppendOnly"], "*2 $10 appendonly $2 no"),
    (&["CONFIG GET save"], "*2 $4 save $0 "),
];

#[test]
fn commands_are_answered_as_redis_answers_them() {
    for form in [typed, sent] {
        let server = start();
        let mut client = server.connect();
        for (commands, answers) in TALK {
            let answers = answers.replace(' ', "\r\n") + "\r\n";
            let commands: Vec<_> = commands.iter().flat_map(|command| form(command)).collect();
            ask(&mut client, &commands, answers.as_bytes());
        }
    }
}

#[test]
fn a_command_that_cannot_be_executed_is_an_error_and_no_end() {
    let server = start();
    let mut client = server.connect();
    let not_a_number = "ERR value is not an integer or out of range";
    for (before, command, error) in [
        ("", "get", "ERR wrong number of arguments for 'get' command"),
        ("", "GET a b", "ERR wrong number of arguments for 'get' command"),
        ("", "Set a", "ERR wrong number of arguments for 'set' command"),
        ("", "SET a 1 NX", "ERR syntax error"),
        ("", "DEL", "ERR wrong number of arguments for 'del' command"),
        ("", "PING a b", "ERR wrong number of arguments for 'ping' command"),
        ("SET a abc", "INCR a", not_a_number),
        ("SET a 01", "INCR a", not_a_number),
        ("SET a +1", "INCR a", not_a_number),
        ("SET a -0", "INCR a", not_a_number),
        ("SET a 9223372036854775808", "INCR a", not_a_number),
        ("SET a 9223372036854775807", "INCR a", "ERR increment or decrement would overflow"),
        // Redis also prints the arguments.
        ("", "nonsense a", "ERR unknown command 'nonsense'"),
        ("", "\u{1}\"", "ERR unknown command '\\x01\\\"'"),
    ] {
        for form in [typed, sent] {
            if !before.is_empty() {
                ask(&mut client, &form(before), b"+OK\r\n");
            }
            let commands = [form(command), form("PING")].concat();
            ask(&mut client, &commands, format!("-{error}\r\n+PONG\r\n").as_bytes());
        }
    }
    let long = "x".repeat(1_000);
    let error = format!("-ERR unknown command '{}'\r\n", &long[..128]);
    ask(&mut client, &sent(&long), error.as_bytes());
}

#[test]
fn a_key_and_a_value_are_any_bytes() {
    let server = start();
    let mut client = server.connect();
    let bytes: Vec<_> = (0..=255).collect();
    for value in [&bytes[..], b"", b"\r\n", b"$-1\r\n"] {
        ask(&mut client, &resp(&[b"SET", &bytes, value]), b"+OK\r\n");
        let answer = [format!("${}\r\n", value.len()).as_bytes(), value, b"\r\n"].concat();
        ask(&mut client, &resp(&[b"GET", &bytes]), &answer);
    }
    ask(&mut client, &resp(&[b"EXISTS", b"", &bytes]), b":1\r\n");
}

#[test]
fn a_malformed_command_is_refused_and_the_connection_ended() {
    let server = start();
    let mut other = server.connect();
    for (refused, why) in [
        ("*x\r\n", "invalid multibulk length"),
        ("*\r\n", "invalid multibulk length"),
        ("*+1\r\n", "invalid multibulk length"),
        ("*01\r\n", "invalid multibulk length"),
        ("*99999999999999999999\r\n", "invalid multibulk length"),
        // Redis takes 1,048,576 words.
        ("*1025\r\n", "invalid multibulk length"),
        ("*1\r\nPING\r\n", "expected '$', got 'P'"),
        ("*2\r\n$4\r\nPING\r\n\r\n", "expected '$', got ' '"),
        ("*1\r\n$x\r\n", "invalid bulk length"),
        ("*1\r\n$-1\r\n", "invalid bulk length"),
        // Redis takes half a gigabyte.
        ("*1\r\n$65537\r\n", "invalid bulk length"),
    ] {
        let mut client = server.connect();
        client.write_all(["PING\r\n", refused, "PING\r\n"].concat().as_bytes()).unwrap();
        let answers = format!("+PONG\r\n-ERR Protocol error: {why}\r\n");
        assert_eq!(text(read_to_end(&mut client)), answers, "{refused:?}");
        ask(&mut other, b"PING\r\n", b"+PONG\r\n");
    }
}

#[test]
fn an_empty_command_has_no_answer() {
    let server = start();
    let mut client = server.connect();
    for empty in ["\r\n", "\n", "  \r\n", "*0\r\n", "*-1\r\n", "*-5\r\n"] {
        ask(&mut client, format!("{empty}PING\r\n").as_bytes(), b"+PONG\r\n");
    }
}

#[test]
fn commands_may_be_split_anywhere() {
    let server = start();
    let mut client = server.connect();
    client.set_nodelay(true).unwrap();
    let commands =
        [sent("SET key value"), typed("GET key"), sent("GET key"), sent("DEL key")].concat();
    let answers = b"+OK\r\n$5\r\nvalue\r\n$5\r\nvalue\r\n:1\r\n";
    for middle in 1..commands.len() {
        client.write_all(&commands[..middle]).unwrap();
        thread::sleep(Duration::from_millis(1));
        ask(&mut client, &commands[middle..], answers);
    }
    for byte in &commands {
        client.write_all(&[*byte]).unwrap();
        thread::sleep(Duration::from_millis(1));
    }
    expect(&mut client, answers);
}

#[test]
fn commands_in_one_write_are_answered_in_order() {
    let server = start();
    let mut client = server.connect();
    let (mut commands, mut answers) = (Vec::new(), String::new());
    for n in 0..20_000 {
        commands.extend(if n % 3 == 0 { typed("INCR n") } else { sent("INCR n") });
        commands.extend(sent(&format!("ECHO {n}")));
        answers += &format!(":{}\r\n${}\r\n{n}\r\n", n + 1, n.to_string().len());
    }
    ask(&mut client, &commands, answers.as_bytes());
    // And with the end right behind them: a partial command is ignored.
    let mut client = server.connect();
    client.write_all(&[&typed("SET n 0"), &*commands, b"*1\r\n$4\r\nPIN"].concat()).unwrap();
    client.shutdown(Shutdown::Write).unwrap();
    assert!(text(read_to_end(&mut client)) == "+OK\r\n".to_owned() + &answers, "other answers");
}

#[test]
fn a_command_has_a_limit() {
    let server = start();
    let mut client = server.connect();
    let longest = |words: &[&[u8]]| {
        let room = LONGEST - resp(&[words, &[&[b'x'; 10_000]]].concat()).len() + 10_000;
        [words, &[&vec![b'x'; room]]].concat().iter().map(|word| word.to_vec()).collect::<Vec<_>>()
    };
    let set = longest(&[b"SET", b"key"]);
    let value = &set[2];
    let set = resp(&set.iter().map(|word| &word[..]).collect::<Vec<_>>());
    assert_eq!(set.len(), LONGEST);
    let answer = [format!("${}\r\n", value.len()).as_bytes(), value, b"\r\n"].concat();
    ask(&mut client, &[&set[..], &sent("GET key")].concat(), &[b"+OK\r\n", &answer[..]].concat());

    let words: Vec<_> = std::iter::once(&b"EXISTS"[..]).chain([&b"key"[..]; 1_023]).collect();
    ask(&mut client, &resp(&words), b":1023\r\n");

    // Input after a refusal is still read: otherwise a reset could take the refusal away.
    let key = [b'x'; 1_000];
    let endless = resp(&[&[&b"DEL"[..]], &[&key[..]; 1_000][..]].concat());
    for command in [endless, vec![b'x'; 8 << 20]] {
        let mut client = server.connect();
        client.write_all(&command).unwrap();
        let answer = "-ERR Protocol error: too big request\r\n";
        assert_eq!(text(read_to_end(&mut client)), answer);
    }
}

/// It asks for far more than it sends.
#[test]
fn a_client_that_never_reads_takes_its_buffers_and_stalls_nobody() {
    let server = start();
    let mut other = server.connect();
    let value = "v".repeat(60_000);
    ask(&mut other, &sent(&format!("SET key {value}")), b"+OK\r\n");
    let memory_before = server.memory_kb();

    let commands = typed("GET key").repeat(1 << 20);
    let slow = server.connect();
    let sent = write_until_stuck(&slow, &commands);
    assert!(sent < commands.len(), "the server took {sent} bytes from a client that reads nothing");
    let grown = server.memory_kb().saturating_sub(memory_before);
    assert!(grown < 512, "the server grew by {grown} kB");
    ask(&mut other, b"PING\r\n", b"+PONG\r\n");
    server.expect_idle();

    // Whole commands are answered as soon as the client reads. Other clients have their turns.
    let mut slow = slow;
    slow.shutdown(Shutdown::Write).unwrap();
    let answer = format!("$60000\r\n{value}\r\n");
    for n in 0..(sent / b"GET key\r\n".len()).min(10_000) {
        expect(&mut slow, answer.as_bytes());
        if n % 100 == 0 {
            ask(&mut other, b"PING\r\n", b"+PONG\r\n");
        }
    }
    drop(slow);
    ask(&mut other, b"PING\r\n", b"+PONG\r\n");
    server.expect_idle();
}

#[test]
fn clients_that_reset_harm_nobody_else() {
    let server = start();
    let mut other = server.connect();
    ask(&mut other, b"PING\r\n", b"+PONG\r\n");
    let descriptors = server.descriptors();
    let commands = sent("PING").repeat(20_000);
    for bytes in [0, 3, 14, commands.len()].repeat(20) {
        let client = server.connect();
        client.set_nonblocking(true).unwrap();
        let _ = (&client).write(&commands[..bytes]).unwrap();
        reset(client);
        ask(&mut other, b"PING\r\n", b"+PONG\r\n");
    }
    eventually("the clients that reset are forgotten", || server.descriptors() == descriptors);
}

#[test]
fn clients_that_count_together_miss_nothing() {
    let server = start();
    thread::scope(|scope| {
        for pipeline in [1, 2, 16, 50] {
            let mut client = server.connect();
            scope.spawn(move || {
                let commands = sent("INCR n").repeat(pipeline);
                for _ in 0..1_000 / pipeline {
                    client.write_all(&commands).unwrap();
                    let mut bytes = [0; 4096];
                    let mut ends = 0;
                    while ends < pipeline {
                        let count = client.read(&mut bytes).unwrap();
                        assert!(count > 0, "an early end");
                        ends += bytes[..count].iter().filter(|byte| **byte == b'\n').count();
                    }
                }
            });
        }
    });
    let sum = 1_000 + 1_000 + 992 + 1_000;
    ask(&mut server.connect(), &sent("GET n"), format!("$4\r\n{sum}\r\n").as_bytes());
}

/// 256 MiB, with 128 bytes for each pair, which is about what the table takes.
#[test]
fn keys_and_values_have_no_more_room_than_that() {
    let server = start();
    let mut client = server.connect();
    let out_of_memory = b"-OOM command not allowed when used memory > 'maxmemory'.\r\n";
    let value = "v".repeat(60_000);
    let set = |number: usize, value: &str| sent(&format!("SET {number:04} {value}"));
    let fitting = (256 << 20) / (128 + 4 + 60_000);
    for number in 0..fitting {
        ask(&mut client, &set(number, &value), b"+OK\r\n");
    }
    ask(&mut client, &set(fitting, &value), out_of_memory);
    // Existing keys can still be replaced, deleted and counted.
    ask(&mut client, &set(0, &value), b"+OK\r\n");
    ask(&mut client, &sent("DEL 0001 0002"), b":2\r\n");
    ask(&mut client, &set(fitting, &value), b"+OK\r\n");
    ask(&mut client, &sent(&format!("EXISTS 0000 0001 {fitting:04}")), b":2\r\n");
    ask(&mut client, &set(1, &value), b"+OK\r\n");
    ask(&mut client, &set(2, &value), out_of_memory);
}

#[test]
fn hundreds_of_clients_at_once_are_answered() {
    let server = start();
    let mut clients: Vec<_> = (0..256).map(|_| server.connect()).collect();
    for count in [1, 2, 50, 1, 7, 100] {
        let commands = sent("PING").repeat(count);
        clients.iter_mut().for_each(|client| client.write_all(&commands).unwrap());
        clients.iter_mut().for_each(|client| expect(client, &b"+PONG\r\n".repeat(count)));
    }
    server.expect_idle();
}

#[test]
fn clients_beyond_the_last_descriptor_wait_for_one_that_leaves() {
    let mut command = with_descriptors("resp_server", 40);
    let server = Running::spawn(command.arg("127.0.0.1:0")).listening();
    let clients: Vec<_> = (0..60).map(|_| server.connect()).collect();
    server.expect_idle();
    // The first clients are served, and leave, so that each has its turn.
    for mut client in clients {
        ask(&mut client, b"PING\r\n", b"+PONG\r\n");
    }
}

fn start() -> Running {
    Running::start("resp_server", &["127.0.0.1:0"]).listening()
}

/// A command as a person types it.
fn typed(command: &str) -> Vec<u8> {
    format!("{command}\r\n").into()
}

/// A command as a library sends it.
fn sent(command: &str) -> Vec<u8> {
    resp(&command.split(' ').map(str::as_bytes).collect::<Vec<_>>())
}

fn resp(words: &[&[u8]]) -> Vec<u8> {
    let mut bytes = format!("*{}\r\n", words.len()).into_bytes();
    for word in words {
        write!(bytes, "${}\r\n", word.len()).unwrap();
        bytes.extend([word, &b"\r\n"[..]].concat());
    }
    bytes
}

/// Writes and reads at once, so that neither side waits for the other indefinitely.
#[track_caller]
fn ask(client: &mut TcpStream, commands: &[u8], answers: &[u8]) {
    if commands.len() < 100_000 {
        client.write_all(commands).unwrap();
        return expect(client, answers);
    }
    thread::scope(|scope| {
        let mut writer = &*client;
        scope.spawn(move || writer.write_all(commands).unwrap());
        expect(&mut &*client, answers);
    });
}

#[track_caller]
fn expect(client: &mut impl Read, answers: &[u8]) {
    let mut bytes = vec![0; answers.len()];
    client.read_exact(&mut bytes).unwrap();
    if let Some(at) = bytes.iter().zip(answers).position(|(a, b)| a != b) {
        let [got, meant] = [&bytes, answers].map(|all| &all[at..all.len().min(at + 100)]);
        let [got, meant] = [got, meant].map(<[u8]>::escape_ascii);
        panic!("from byte {at} of {} on, {got}, not {meant}", answers.len());
    }
}

fn text(bytes: Vec<u8>) -> String {
    String::from_utf8(bytes).unwrap()
}
