//! A program on a runtime of its own: an echo server that reminds.
//!
//! `cargo run --release -p pollio --example async_runtime`, then type `1500 tea`; elsewhere,
//! `nc 127.0.0.1 7777`. `--help` says more.

mod runtime;
mod socket;

use std::collections::{BTreeSet, VecDeque};
use std::future::poll_fn;
use std::io::{self, BufRead, ErrorKind, Write};
use std::net::{TcpListener, TcpStream};
use std::process::ExitCode;
use std::sync::{Arc, Mutex};
use std::task::{Poll, Waker};
use std::{rc::Rc, str, thread, time::Duration};

use lexopt::{Arg, ValueExt};
use runtime::Runtime;
use socket::Async;

const HELP: &str = "\
A TCP server that sends back whatever a client sends, and reminds who types at it.

Usage: async_runtime [ADDRESS:PORT]

  ADDRESS:PORT  where it listens: a name or a number, and port 0 for any that is free
                [default: 127.0.0.1:7777]
  -h, --help    print this

Type `1500 tea`, and it says so after 1,500 ms. Talk to it with: nc 127.0.0.1 7777
The end of the input (Ctrl-D) ends it, after the last reminder.
";

fn main() -> ExitCode {
    let address = match arguments() {
        Ok(Some(address)) => address,
        Ok(None) => {
            let _ = io::stdout().write_all(HELP.as_bytes());
            return ExitCode::SUCCESS;
        }
        Err(error) => {
            let _ = writeln!(io::stderr(), "async_runtime: {error}; try --help");
            return ExitCode::from(2);
        }
    };
    match run(&address) {
        // A broken pipe is the standard output's: its reader has left, as after `| head`.
        Err(error) if error.kind() != ErrorKind::BrokenPipe => {
            let _ = writeln!(io::stderr(), "async_runtime: cannot serve {address}: {error}");
            ExitCode::FAILURE
        }
        _ => ExitCode::SUCCESS,
    }
}

/// Where to listen, or `None` for the help.
fn arguments() -> Result<Option<String>, lexopt::Error> {
    let (mut parser, mut address) = (lexopt::Parser::from_env(), None);
    while let Some(argument) = parser.next()? {
        match argument {
            Arg::Short('h') | Arg::Long("help") => return Ok(None),
            Arg::Value(value) if address.is_none() => {
                address = Some(value.parse_with(address_and_port)?);
            }
            surplus => return Err(surplus.unexpected()),
        }
    }
    Ok(Some(address.unwrap_or_else(|| "127.0.0.1:7777".into())))
}

/// Checks the form. A name is looked up when it is used.
fn address_and_port(text: &str) -> Result<String, &'static str> {
    match text.rsplit_once(':') {
        Some((address, port)) if !address.is_empty() && port.parse::<u16>().is_ok() => {
            Ok(text.into())
        }
        _ => Err("not ADDRESS:PORT with a port of 0 to 65535"),
    }
}

fn run(address: &str) -> io::Result<()> {
    let runtime = Runtime::new()?;
    let listener = Async::new(&runtime, TcpListener::bind(address)?)?;
    writeln!(io::stdout(), "listening on {}", listener.get_ref().local_addr()?)?;
    runtime.spawn(serve(Rc::clone(&runtime), listener));

    // To read the input blocks, so a thread of its own does.
    let news = Channel::new();
    let sender = Arc::clone(&news);
    thread::spawn(move || {
        // A line is any bytes: what is typed need not be UTF-8.
        let mut lines = io::stdin().lock().split(b'\n');
        let end = lines.try_for_each(|line| line.map(|line| sender.send(News::Line(line))));
        sender.send(News::EndOfInput(end));
    });
    runtime.block_on(remind(Rc::clone(&runtime), news))?
}

async fn serve(runtime: Rc<Runtime>, listener: Async<TcpListener>) {
    loop {
        match listener.accept().await {
            Ok(stream) => runtime.spawn(echo(Rc::clone(&runtime), stream)),
            Err(error) if error.kind() == ErrorKind::ConnectionAborted => {}
            // Out of descriptors, as a rule. The client stays in the queue until one is free.
            Err(error) => {
                not_served(&error);
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

/// Says why a client was not served: each reason once, however many clients it meets.
fn not_served(error: &io::Error) {
    static REASONS: Mutex<BTreeSet<String>> = Mutex::new(BTreeSet::new());
    let reason = format!("async_runtime: a client was not served: {error}");
    if REASONS.lock().unwrap().insert(reason.clone()) {
        let _ = writeln!(io::stderr(), "{reason}");
    }
}

/// What `remind` waits for.
enum News {
    Line(Vec<u8>),
    EndOfInput(io::Result<()>),
    Reminded(io::Result<()>),
}

/// Ends with the last reminder after the end of the input, or when one cannot be written.
async fn remind(runtime: Rc<Runtime>, news: Arc<Channel<News>>) -> io::Result<()> {
    let (mut reminders, mut has_input) = (0_u64, true);
    while has_input || reminders > 0 {
        match news.receive().await {
            News::Line(mut line) => {
                let sleep = runtime.sleep(delay(&line).unwrap_or_default());
                let news = Arc::clone(&news);
                line.push(b'\n');
                runtime.spawn(async move {
                    sleep.await;
                    news.send(News::Reminded(io::stdout().write_all(&line)));
                });
                reminders += 1;
            }
            News::EndOfInput(end) => {
                end.map_err(|error| io::Error::other(format!("cannot read the input: {error}")))?;
                has_input = false;
            }
            News::Reminded(written) => {
                written?;
                reminders -= 1;
            }
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
