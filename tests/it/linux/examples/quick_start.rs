//! The front page's quick start: it is the example, and it runs on a real listening socket.

use std::net::{TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::process::{Command, Stdio};
use std::thread::sleep;
use std::time::Duration;

use crate::linux::support::example::{Running, eventually, example};

#[test]
fn the_front_page_shows_the_example() {
    let readme = include_str!("../../../../README.md");
    let (_head, program) =
        include_str!("../../../../examples/quick_start.rs").split_once("\n\n").unwrap();
    assert!(readme.contains(&format!("```rust,no_run\n{program}```\n")));
}

/// The quick start accepts nothing, so after the first client each of its waits ends at once. It sleeps before, and is
/// busy afterwards.
#[test]
fn the_example_waits_for_clients() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let mut command = Command::new(example("quick_start"));
    let mut quick_start = Running::spawn(command.stdin(Stdio::from(OwnedFd::from(listener))));

    sleep(Duration::from_millis(300));
    assert!(quick_start.is_running(), "it goes on");
    quick_start.expect_idle();

    let _client = TcpStream::connect(address).unwrap();
    let busy = quick_start.processor_time() + Duration::from_millis(100);
    eventually("a client is reported", || quick_start.processor_time() >= busy);
    assert!(quick_start.is_running(), "it goes on");
}
