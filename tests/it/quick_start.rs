//! The front page's quick start: it is what runs, and it runs on a real listening socket.

use std::net::{TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::process::{Child, Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use crate::example::{example, processor_ticks};

#[test]
fn the_front_page_shows_the_example() {
    let readme = include_str!("../../README.md");
    let (_head, program) =
        include_str!("../../examples/quick_start.rs").split_once("\n\n").unwrap();
    assert!(readme.contains(&format!("```rust,no_run\n{program}```\n")));
}

/// The quick start accepts nothing, so once a client has come, each of its waits ends at once: it
/// sleeps before, and is busy afterwards.
#[test]
fn the_example_waits_for_clients() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let child = Command::new(example("quick_start"))
        .stdin(Stdio::from(OwnedFd::from(listener)))
        .spawn()
        .unwrap();
    let mut quick_start = Ended(child);

    sleep(Duration::from_millis(300));
    assert!(quick_start.0.try_wait().unwrap().is_none(), "it goes on for ever");
    let ticks = processor_ticks(&quick_start.0);
    sleep(Duration::from_millis(300));
    let busy = processor_ticks(&quick_start.0) - ticks;
    assert!(busy < 4, "it was busy for {busy} of 30 ticks while nobody came");

    let _client = TcpStream::connect(address).unwrap();
    let start = Instant::now();
    while processor_ticks(&quick_start.0) < ticks + 10 {
        assert!(start.elapsed() < Duration::from_secs(20), "it was not told of a client");
        sleep(Duration::from_millis(10));
    }
    assert!(quick_start.0.try_wait().unwrap().is_none(), "it goes on for ever");
}

/// A child that ends with the test.
struct Ended(Child);

impl Drop for Ended {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
