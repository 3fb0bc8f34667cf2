//! A program on a runtime of its own: an echo server that reminds.
//!
//! `cargo run --release --example async_runtime [ADDRESS:PORT]` echoes what clients send, on
//! 127.0.0.1:7777 unless told otherwise, and reminds: type `1500 tea`, and it says so after 1,500 ms.
//! The end of the input (Ctrl-D) ends it, after the last reminder.

mod runtime;
mod socket;

use std::collections::VecDeque;
use std::future::poll_fn;
use std::io::{self, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::task::{Poll, Waker};
use std::{env, process, rc::Rc, thread, time::Duration};

use runtime::Runtime;
use socket::Async;

fn main() {
    let address = env::args().nth(1).unwrap_or_else(|| "127.0.0.1:7777".into());
    run(&address).unwrap_or_else(|error| {
        eprintln!("async_runtime: cannot serve {address}: {error}");
        process::exit(1)
    });
}

fn run(address: &str) -> io::Result<()> {
    let runtime = Runtime::new()?;
    let listener = Async::new(&runtime, TcpListener::bind(address)?)?;
    writeln!(io::stdout(), "listening on {}", listener.io.local_addr()?)?;
    runtime.spawn(serve(Rc::clone(&runtime), listener));

    // To read the input blocks, so a thread of its own does.
    let lines = Channel::new();
    let sender = Arc::clone(&lines);
    thread::spawn(move || {
        io::stdin().lines().map_while(Result::ok).for_each(|line| sender.send(Some(line)));
        sender.send(None);
    });
    runtime.block_on(remind(Rc::clone(&runtime), lines))
}

async fn serve(runtime: Rc<Runtime>, listener: Async<TcpListener>) {
    loop {
        match listener.accept().await {
            Ok(stream) => runtime.spawn(echo(Rc::clone(&runtime), stream)),
            // Out of descriptors, as a rule. The client stays in the queue until one is free.
            Err(_) => runtime.sleep(Duration::from_millis(100)).await,
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

async fn remind(runtime: Rc<Runtime>, lines: Arc<Channel<Option<String>>>) {
    let (reminded, mut reminders) = (Channel::new(), 0);
    while let Some(line) = lines.receive().await {
        let milliseconds = line.split(' ').next().and_then(|word| word.parse().ok());
        let sleep = runtime.sleep(Duration::from_millis(milliseconds.unwrap_or(0)));
        let reminded = Arc::clone(&reminded);
        runtime.spawn(async move {
            sleep.await;
            let _ = writeln!(io::stdout(), "{line}");
            reminded.send(());
        });
        reminders += 1;
    }
    for _ in 0..reminders {
        reminded.receive().await;
    }
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
