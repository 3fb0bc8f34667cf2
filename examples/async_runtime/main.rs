//! A program on a runtime of its own: an echo server that reminds.
//!
//! `cargo run --release -p pollio --example async_runtime`, then type `1500 tea`; elsewhere,
//! `nc 127.0.0.1 7777`. `--help` says more.

mod runtime;
#[path = "../shared/mod.rs"]
mod shared;
mod socket;

use std::collections::VecDeque;
use std::future::poll_fn;
use std::io::{self, BufRead, ErrorKind};
use std::net::{TcpListener, TcpStream};
use std::process::ExitCode;
use std::sync::{Arc, Mutex};
use std::task::{Poll, Waker};
use std::{rc::Rc, str, thread, time::Duration};

use nix::sys::signal::SigSet;
use runtime::Runtime;
use shared::Log;
use signal_hook::consts::{SIGINT, SIGTERM};
use socket::Async;

fn serve(address: &str, log: &Log) -> io::Result<()> {
    let runtime = Runtime::new()?;
    let signals = Async::new(&runtime, shared::signals(&[SIGINT, SIGTERM])?)?;
    let listener = Async::new(&runtime, TcpListener::bind(address)?)?;
    let address = listener.get_ref().local_addr()?;
    let news = Channel::new();
    // Reading the input blocks, so a thread of its own does it.
    let sender = Arc::clone(&news);
    shared::spawn(move || read_lines(&sender))?;
    log.listening(address)?;

    runtime.spawn(accept(Rc::clone(&runtime), listener, log.clone()));
    let sender = Arc::clone(&news);
    runtime.spawn(async move {
        let _ = signals.read(&mut [0]).await;
        sender.send(News::Signal);
    });
    runtime.block_on(remind(Rc::clone(&runtime), news, log.clone()))?
}

async fn accept(runtime: Rc<Runtime>, listener: Async<TcpListener>, log: Log) {
    loop {
        match listener.accept().await {
            Ok(stream) => runtime.spawn(echo(Rc::clone(&runtime), stream)),
            Err(error) if error.kind() == ErrorKind::ConnectionAborted => {}
            // Usually it is out of descriptors. The client stays in the queue until one is free. A task needs no
            // `Interest::NONE` for that: it just does not try for a while.
            Err(error) => {
                log.not_served(&error);
                runtime.sleep(Duration::from_millis(100)).await;
            }
        }
    }
}

/// Ends with the client, in whichever way.
async fn echo(runtime: Rc<Runtime>, stream: Async<TcpStream>) {
    let mut buffer = vec![0; 16 * 1024];
    while let Ok(count @ 1..) = stream.read(&mut buffer).await {
        if stream.write_all(&buffer[..count]).await.is_err() {
            break;
        }
        // A client that is always ready would leave no turn to the others.
        runtime.sleep(Duration::ZERO).await;
    }
}

/// The news that `remind` waits for.
enum News {
    Line(Vec<u8>),
    EndOfInput(io::Result<()>),
    Reminded,
    Signal,
}

fn read_lines(news: &Channel<News>) {
    // In the background of a terminal, a read raises SIGTTIN, which stops the program. With SIGTTIN blocked, the read
    // fails.
    let _ = SigSet::all().thread_block();
    for line in io::stdin().lock().split(b'\n') {
        match line {
            // A line is any bytes: the input need not be UTF-8.
            Ok(line) => news.send(News::Line(line)),
            // It may come to the foreground.
            Err(error) if error.raw_os_error() == Some(libc::EIO) => {
                thread::sleep(Duration::from_secs(1));
            }
            Err(error) => {
                let why = format!("cannot read the input: {error}");
                return news.send(News::EndOfInput(Err(io::Error::other(why))));
            }
        }
    }
    news.send(News::EndOfInput(Ok(())));
}

/// Ends after a signal, or with the last reminder after the end of the input. An input without a line does not count,
/// such as that of a program in the background of a script.
async fn remind(runtime: Rc<Runtime>, news: Arc<Channel<News>>, log: Log) -> io::Result<()> {
    let (mut lines, mut reminders, mut has_ended) = (0_u64, 0_u64, false);
    while !has_ended || lines == 0 || reminders > 0 {
        match news.receive().await {
            News::Line(line) => {
                let sleep = runtime.sleep(delay(&line).unwrap_or_default());
                let (news, log) = (Arc::clone(&news), log.clone());
                runtime.spawn(async move {
                    sleep.await;
                    log.print(line);
                    news.send(News::Reminded);
                });
                lines += 1;
                reminders += 1;
            }
            News::EndOfInput(end) => {
                end?;
                has_ended = true;
            }
            News::Reminded => reminders -= 1,
            News::Signal => break,
        }
    }
    Ok(())
}

/// The first word of a line, in milliseconds.
fn delay(line: &[u8]) -> Option<Duration> {
    let word = str::from_utf8(line.split(u8::is_ascii_whitespace).next()?).ok()?;
    word.parse().ok().map(Duration::from_millis)
}

/// Values on their way from a task, or another thread, to a task that waits for them.
struct Channel<T>(Mutex<(VecDeque<T>, Option<Waker>)>);

impl<T> Channel<T> {
    fn new() -> Arc<Self> {
        Arc::new(Self(Mutex::new((VecDeque::new(), None))))
    }

    fn send(&self, value: T) {
        let mut channel = self.0.lock().unwrap();
        channel.0.push_back(value);
        channel.1.take().into_iter().for_each(Waker::wake);
    }

    async fn receive(&self) -> T {
        poll_fn(|context| {
            let mut channel = self.0.lock().unwrap();
            channel.1 = Some(context.waker().clone());
            channel.0.pop_front().map_or(Poll::Pending, Poll::Ready)
        })
        .await
    }
}

const HELP: &str = "\
A TCP server that sends back whatever a client sends, and reminds who types at it.

Usage: async_runtime [ADDRESS:PORT]

  ADDRESS:PORT  where it listens: a name or a number, and port 0 for any that is free
                [default: 127.0.0.1:7777]
  -h, --help    print this

Type `1500 tea`, and it says so after 1,500 ms. Talk to it with: nc 127.0.0.1 7777
The end of the input (Ctrl-D) ends it, after the last reminder, unless there was no line in it.
Ctrl-C or SIGTERM ends it at once. A client that has vanished is let go after two minutes without a
word (keepalive).
";

fn main() -> ExitCode {
    shared::run_on("127.0.0.1:7777", HELP, serve)
}
