//! Echo servers, one for each peer, each in a process of its own.

use std::collections::HashMap;
use std::convert::Infallible;
use std::io::{self, BufRead, BufReader, ErrorKind};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::{AsRawFd, RawFd};
use std::process::{Child, Command, Stdio};

use futures_lite::{AsyncReadExt, AsyncWriteExt};

use crate::machine::pin;
use crate::peer::{Asked, Peer, of_each_peer};
use crate::sockets::{listener, prepare, read, write};

/// The server of a peer, by its name.
type Serve = fn(TcpListener) -> io::Result<Infallible>;

pub(crate) fn all() -> Vec<(&'static str, Serve)> {
    fn of<P: Peer>() -> (&'static str, Serve) {
        (P::NAME, serve::<P>)
    }
    let mut all = of_each_peer!(of());
    all.push(("tokio", serve_by_tokio));
    all.push(("async-io", serve_by_async_io));
    all
}

/// Serves on `core` until the process is killed.
pub(crate) fn run(peer: &str, core: usize) -> io::Result<Infallible> {
    pin(core)?;
    let listener = listener()?;
    println!("{}", listener.local_addr()?);
    let (_, serve) =
        all().into_iter().find(|(name, _)| *name == peer).ok_or(ErrorKind::NotFound)?;
    serve(listener)
}

/// A server that ends when this is dropped.
pub(crate) struct Server {
    process: Child,
    pub(crate) address: SocketAddr,
}

impl Server {
    pub(crate) fn start(peer: &str, core: usize) -> io::Result<Self> {
        let mut process = Command::new(std::env::current_exe()?)
            .args(["serve", peer, &core.to_string()])
            .stdout(Stdio::piped())
            .spawn()?;
        let mut line = String::new();
        if let Some(stdout) = process.stdout.take() {
            BufReader::new(stdout).read_line(&mut line)?;
        }
        let address = line.trim().parse().map_err(|_| ErrorKind::ConnectionRefused);
        let mut server = Self { process, address: ([0; 4], 0).into() };
        server.address = address?;
        Ok(server)
    }

    pub(crate) fn id(&self) -> u32 {
        self.process.id()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // An error says that it has already ended.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn serve<P: Peer>(listener: TcpListener) -> io::Result<Infallible> {
    listener.set_nonblocking(true)?;
    let asked = Asked::naturally::<P>();
    let mut poller = P::new()?;
    poller.add(listener.as_raw_fd(), asked)?;
    let mut connections: HashMap<RawFd, TcpStream> = HashMap::new();
    let (mut is_called, mut gone) = (false, Vec::new());
    let mut buffer = [0; 4096];
    loop {
        poller.wait(|fd| {
            if fd == listener.as_raw_fd() {
                is_called = true;
            } else if !echo(fd, &mut buffer) {
                gone.push(fd);
            }
        })?;
        for fd in gone.drain(..) {
            poller.delete(fd)?;
            connections.remove(&fd);
        }
        while is_called {
            match listener.accept() {
                Ok((stream, _)) => {
                    prepare(&stream)?;
                    poller.add(stream.as_raw_fd(), asked)?;
                    connections.insert(stream.as_raw_fd(), stream);
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => is_called = false,
                Err(error) => return Err(error),
            }
        }
    }
}

/// Answers, and returns whether the connection stays open. A short read has drained the socket, so an edge-triggered
/// peer needs no second read either.
fn echo(fd: RawFd, buffer: &mut [u8]) -> bool {
    loop {
        match read(fd, buffer) {
            Ok(0) => return false,
            // A client waits for each answer, so there is always room for it.
            Ok(count) if write(fd, &buffer[..count]).is_err() => return false,
            Ok(count) if count < buffer.len() => return true,
            Ok(_) => {}
            Err(error) => return error.kind() == ErrorKind::WouldBlock,
        }
    }
}

fn serve_by_tokio(listener: TcpListener) -> io::Result<Infallible> {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    listener.set_nonblocking(true)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build()?;
    runtime.block_on(async {
        let listener = tokio::net::TcpListener::from_std(listener)?;
        loop {
            let (mut stream, _) = listener.accept().await?;
            stream.set_nodelay(true)?;
            tokio::spawn(async move {
                let mut buffer = [0; 4096];
                while let Ok(count @ 1..) = stream.read(&mut buffer).await {
                    if stream.write_all(&buffer[..count]).await.is_err() {
                        return;
                    }
                }
            });
        }
    })
}

fn serve_by_async_io(listener: TcpListener) -> io::Result<Infallible> {
    let executor = async_executor::LocalExecutor::new();
    async_io::block_on(executor.run(async {
        let listener = async_io::Async::new(listener)?;
        loop {
            let (mut stream, _) = listener.accept().await?;
            stream.get_ref().set_nodelay(true)?;
            let connection = async move {
                let mut buffer = [0; 4096];
                while let Ok(count @ 1..) = stream.read(&mut buffer).await {
                    if stream.write_all(&buffer[..count]).await.is_err() {
                        return;
                    }
                }
            };
            executor.spawn(connection).detach();
        }
    }))
}
