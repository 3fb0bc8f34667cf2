//! Sockets whose operations wait without blocking the thread.

use std::future::poll_fn;
use std::io::{self, ErrorKind, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::fd::{AsFd, AsRawFd};
use std::{rc::Rc, task::Poll};

use pollio::{EventObject, Interest, Mode, Poller, Registered};
use socket2::SockRef;

use crate::runtime::Runtime;
use crate::shared;

pub(crate) struct Async<T: AsFd> {
    io: Registered<T>,
    runtime: Rc<Runtime>,
}

const READING: usize = 0;
const WRITING: usize = 1;

impl<T: AsFd> Async<T> {
    /// Registers `io` once, for both directions: when either one is no longer blocked, an event reports it.
    pub(crate) fn new(runtime: &Rc<Runtime>, io: T) -> io::Result<Self> {
        SockRef::from(&io).set_nonblocking(true)?;
        let io = Registered::new(runtime.poller.borrow().registry(), io, |fd| {
            EventObject::client(fd).with_interest(Interest::BOTH).with_mode(Mode::Edge)
        })?;
        Ok(Self { io, runtime: Rc::clone(runtime) })
    }

    pub(crate) fn get_ref(&self) -> &T {
        self.io.get_ref()
    }

    /// Tries `operation`, and again after each edge, until it does not block.
    async fn complete<R>(
        &self,
        direction: usize,
        mut operation: impl FnMut(&T) -> io::Result<R>,
    ) -> io::Result<R> {
        poll_fn(|context| match operation(self.get_ref()) {
            Err(error) if error.kind() == ErrorKind::WouldBlock => {
                let mut blocked = self.runtime.blocked.borrow_mut();
                let wakers = blocked.entry(self.get_ref().as_fd().as_raw_fd()).or_default();
                wakers[direction] = Some(context.waker().clone());
                Poll::Pending
            }
            result => Poll::Ready(result),
        })
        .await
    }
}

impl Async<TcpListener> {
    pub(crate) async fn accept(&self) -> io::Result<Async<TcpStream>> {
        let (stream, _) = self.complete(READING, TcpListener::accept).await?;
        shared::prepare(&stream)?;
        Async::new(&self.runtime, stream)
    }
}

impl<T: AsFd> Async<T>
where
    for<'a> &'a T: Read,
{
    pub(crate) async fn read(&self, buffer: &mut [u8]) -> io::Result<usize> {
        self.complete(READING, |mut stream| stream.read(buffer)).await
    }
}

impl Async<TcpStream> {
    pub(crate) async fn write_all(&self, mut bytes: &[u8]) -> io::Result<()> {
        while !bytes.is_empty() {
            let count = self.complete(WRITING, |mut stream| stream.write(bytes)).await?;
            bytes = &bytes[count..];
        }
        Ok(())
    }
}

impl<T: AsFd> Drop for Async<T> {
    /// Deletes before the descriptor is closed, since another one may get its number then.
    fn drop(&mut self) {
        let fd = self.get_ref().as_fd().as_raw_fd();
        self.runtime.blocked.borrow_mut().remove(&fd);
    }
}
