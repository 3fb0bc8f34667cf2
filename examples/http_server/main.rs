//! An HTTP/1.1 server on all cores: every GET and HEAD is answered with a greeting.
//!
//! `cargo run --release --example http_server -- [--shared] [--idle SECONDS] [ADDRESS:PORT]`
//! listens on 127.0.0.1:8080 unless told otherwise; try `curl -i http://127.0.0.1:8080`.
//!
//! Each core has a thread, a poller, and connections of its own. The kernel spreads the clients over
//! as many listeners on one port, by `SO_REUSEPORT` (BSDs and macOS may not spread them). With
//! `--shared` there is one listener, and a poller that is free takes the next client. A connection
//! that completes no request and takes no answer for so many seconds, 10 by default, is closed.

mod connection;
mod worker;

use std::io::{self, Write};
use std::net::{SocketAddr, TcpListener};
use std::{env, num::NonZero, process::ExitCode, sync::mpsc, thread, time::Duration};

use pollio::{OsPoller, Poller};
use socket2::{Domain, Socket, Type};
use worker::Worker;

fn main() -> ExitCode {
    let served = options().and_then(|options| {
        serve(options).map_err(|error| format!("cannot serve {}: {error}", options.address))
    });
    if let Err(complaint) = served {
        eprintln!("http_server: {complaint}");
        return ExitCode::FAILURE;
    }
    ExitCode::SUCCESS
}

#[derive(Clone, Copy)]
struct Options {
    address: SocketAddr,
    is_shared: bool,
    idle: Duration,
}

fn options() -> Result<Options, String> {
    let (address, idle) = (([127, 0, 0, 1], 8080).into(), Duration::from_secs(10));
    let mut options = Options { address, is_shared: false, idle };
    let mut args = env::args_os().skip(1).map(|arg| arg.to_string_lossy().into_owned());
    while let Some(arg) = args.next() {
        if arg == "--shared" {
            options.is_shared = true;
        } else if arg == "--idle" {
            let seconds = args.next().and_then(|arg| arg.parse::<NonZero<u32>>().ok());
            let seconds = seconds.ok_or("--idle wants a whole number of seconds, from 1 on")?;
            options.idle = Duration::from_secs(seconds.get().into());
        } else {
            options.address = arg.parse().map_err(|_| format!("{arg:?} is no ADDRESS:PORT"))?;
        }
    }
    Ok(options)
}

/// Serves on all cores until one of them fails.
fn serve(options: Options) -> io::Result<()> {
    let (sender, ends) = mpsc::channel();
    for (worker, poller) in workers(options)? {
        let sender = sender.clone();
        thread::spawn(move || sender.send(worker.run(poller)));
    }
    ends.recv().unwrap_or(Ok(()))
}

/// A worker for each core, all of them ready before the first begins: once there are clients, there
/// may be no descriptor left for another poller.
fn workers(Options { address, is_shared, idle }: Options) -> io::Result<Vec<(Worker, OsPoller)>> {
    let first = listen(address, is_shared)?;
    let address = first.local_addr()?;
    let mut workers = Vec::new();
    for n in 0..thread::available_parallelism()?.get() {
        let same = is_shared || n == 0;
        let listener = if same { first.try_clone()? } else { listen(address, false)? };
        let poller = OsPoller::new()?;
        workers.push((Worker::new(&poller, listener, is_shared, idle)?, poller));
    }
    writeln!(io::stdout(), "listening on {address}")?;
    Ok(workers)
}

fn listen(address: SocketAddr, is_shared: bool) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, None)?;
    socket.set_reuse_address(true)?;
    socket.set_reuse_port(!is_shared)?;
    socket.bind(&address.into())?;
    socket.listen(4096)?;
    socket.set_nonblocking(true)?;
    Ok(socket.into())
}
