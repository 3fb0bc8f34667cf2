//! An async runtime on one thread, and a program that needs one.
//!
//! `cargo run --release --example async_runtime [ADDRESS:PORT]` echoes what clients send, on
//! 127.0.0.1:7777 unless told otherwise, and reminds: type `1500 tea`, and it says so after 1,500 ms.
//! The end of the input (Ctrl-D) ends it, after the last reminder.
//!
//! A runtime asks three things of its poller: an edge, when an operation that would have blocked is
//! worth another try; a timeout, until the next sleep is over; and a way in from other threads.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, HashMap, VecDeque};
use std::future::poll_fn;
use std::io::{self, ErrorKind, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::fd::{AsFd, AsRawFd};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Wake, Waker};
use std::thread::{self, ThreadId};
use std::time::{Duration, Instant};
use std::{env, mem, pin::Pin, process::ExitCode, rc::Rc};

use pollio::{EventObject, Interest, Mode, OsPoller, Poller};
use socket2::SockRef;

fn main() -> ExitCode {
    let argument = env::args_os().nth(1).unwrap_or_else(|| "127.0.0.1:7777".into());
    let address = argument.to_string_lossy();
    if let Err(error) = run(&address) {
        eprintln!("async_runtime: cannot serve {address}: {error}");
        return ExitCode::FAILURE;
    }
    ExitCode::SUCCESS
}

fn run(address: &str) -> io::Result<()> {
    let runtime = Runtime::new()?;
    let listener = Async::new(&runtime, TcpListener::bind(address)?)?;
    writeln!(io::stdout(), "listening on {}", listener.io.local_addr()?)?;
    runtime.spawn(serve(Rc::clone(&runtime), listener));

    // To read the input blocks, so a thread of its own does.
    let lines = Arc::new(Channel::default());
    let sender = Arc::clone(&lines);
    thread::spawn(move || {
        io::stdin().lines().map_while(Result::ok).for_each(|line| sender.send(Some(line)));
        sender.send(None);
    });
    runtime.block_on(remind(Rc::clone(&runtime), lines))?
}

async fn serve(runtime: Rc<Runtime>, listener: Async<TcpListener>) {
    loop {
        match listener.accept().await {
            Ok(stream) => drop(runtime.spawn(echo(stream))),
            // Out of descriptors, as a rule. The client stays in the queue until one is free.
            Err(_) => runtime.sleep(Duration::from_millis(100)).await,
        }
    }
}

async fn echo(stream: Async<TcpStream>) -> io::Result<()> {
    let mut buffer = vec![0; 16 * 1024];
    loop {
        let count = stream.read(&mut buffer).await?;
        if count == 0 {
            return Ok(());
        }
        stream.write_all(&buffer[..count]).await?;
        // A client that is always ready would leave no turn to the others.
        yield_now().await;
    }
}

async fn remind(runtime: Rc<Runtime>, lines: Arc<Channel<Option<String>>>) -> io::Result<()> {
    let mut reminders = Vec::new();
    while let Some(line) = lines.receive().await {
        let number = line.split(' ').next().and_then(|word| word.parse().ok());
        let sleep = runtime.sleep(Duration::from_millis(number.unwrap_or(0)));
        reminders.push(runtime.spawn(async move {
            sleep.await;
            writeln!(io::stdout(), "{line}")
        }));
    }
    for reminder in reminders {
        reminder.receive().await?;
    }
    Ok(())
}

/// Runs tasks and knows what they wait for: readiness, a moment, or someone who wakes them.
struct Runtime {
    poller: RefCell<OsPoller>,
    woken: Arc<Woken>,
    tasks: RefCell<HashMap<u32, Task>>,
    /// By token: who wants to read from a socket, and who to write to it.
    blocked: RefCell<HashMap<u32, [Option<Waker>; 2]>>,
    sleeping: RefCell<BTreeMap<(Instant, u32), Waker>>,
    /// For tasks, tokens and sleeps.
    next_number: Cell<u32>,
}

struct Task {
    future: Pin<Box<dyn Future<Output = ()>>>,
    waker: Waker,
}

impl Runtime {
    fn new() -> io::Result<Rc<Self>> {
        let (poller, way_in) = (OsPoller::new()?, pollio::Waker::new()?);
        poller.add(EventObject::client(way_in.as_raw_fd()))?;
        let (numbers, home) = (Mutex::default(), thread::current().id());
        Ok(Rc::new(Self {
            poller: RefCell::new(poller),
            woken: Arc::new(Woken { numbers, home, way_in }),
            tasks: RefCell::default(),
            blocked: RefCell::default(),
            sleeping: RefCell::default(),
            next_number: Cell::new(0),
        }))
    }

    fn next_number(&self) -> u32 {
        self.next_number.replace(self.next_number.get().wrapping_add(1))
    }

    /// Begins a task of its own. Its result can be received, or left alone.
    fn spawn<T: 'static>(&self, future: impl Future<Output = T> + 'static) -> Arc<Channel<T>> {
        let (number, result) = (self.next_number(), Arc::new(Channel::default()));
        let sender = Arc::clone(&result);
        let future = Box::pin(async move { sender.send(future.await) });
        let waker = Waker::from(Arc::new(TaskWaker { number, woken: Arc::clone(&self.woken) }));
        waker.wake_by_ref();
        self.tasks.borrow_mut().insert(number, Task { future, waker });
        result
    }

    /// Runs all tasks until `future` has its result. The others end with it.
    fn block_on<T: 'static>(&self, future: impl Future<Output = T> + 'static) -> io::Result<T> {
        let result = self.spawn(future);
        loop {
            self.poll_woken();
            if let Some(value) = result.try_receive() {
                // They hold the runtime, which holds them.
                drop(self.tasks.take());
                return Ok(value);
            }
            self.wait()?;
        }
    }

    fn poll_woken(&self) {
        let numbers = mem::take(&mut *self.woken.numbers.lock().unwrap());
        for number in numbers {
            // A task is not among the others while it runs, for it may spawn some.
            let Some(mut task) = self.tasks.borrow_mut().remove(&number) else { continue };
            let mut context = Context::from_waker(&task.waker);
            if task.future.as_mut().poll(&mut context).is_pending() {
                self.tasks.borrow_mut().insert(number, task);
            }
        }
    }

    /// Wakes the tasks that can go on, if need be after a while.
    fn wait(&self) -> io::Result<()> {
        let timeout = if self.woken.numbers.lock().unwrap().is_empty() {
            let next = self.sleeping.borrow().keys().next().copied();
            next.map(|(moment, _)| moment.saturating_duration_since(Instant::now()))
        } else {
            Some(Duration::ZERO)
        };
        let mut blocked = self.blocked.borrow_mut();
        for event in self.poller.borrow_mut().wait_timeout(timeout)? {
            if event.fd == self.woken.way_in.as_raw_fd() {
                self.woken.way_in.clear()?;
            } else if let Some([reader, writer]) = blocked.get_mut(&event.token) {
                let reader = reader.take_if(|_| event.is_readable());
                let writer = writer.take_if(|_| event.is_writable());
                reader.into_iter().chain(writer).for_each(Waker::wake);
            }
        }
        let mut sleeping = self.sleeping.borrow_mut();
        let still_sleeping = sleeping.split_off(&(Instant::now(), u32::MAX));
        mem::replace(&mut *sleeping, still_sleeping).into_values().for_each(Waker::wake);
        Ok(())
    }

    fn sleep(self: &Rc<Self>, duration: Duration) -> impl Future<Output = ()> + use<> {
        let (runtime, end) = (Rc::clone(self), (Instant::now() + duration, self.next_number()));
        poll_fn(move |context| {
            if Instant::now() >= end.0 {
                return Poll::Ready(());
            }
            runtime.sleeping.borrow_mut().insert(end, context.waker().clone());
            Poll::Pending
        })
    }
}

/// The tasks that shall be polled: where other threads reach the runtime.
struct Woken {
    numbers: Mutex<Vec<u32>>,
    home: ThreadId,
    way_in: pollio::Waker,
}

struct TaskWaker {
    number: u32,
    woken: Arc<Woken>,
}

impl Wake for TaskWaker {
    fn wake(self: Arc<Self>) {
        self.woken.numbers.lock().unwrap().push(self.number);
        // At home, the poller is not waiting, and will not without a look at the numbers.
        if thread::current().id() != self.woken.home {
            let _ = self.woken.way_in.wake();
        }
    }
}

/// Lets the other tasks have their turn.
async fn yield_now() {
    let mut has_yielded = false;
    poll_fn(|context| {
        if mem::replace(&mut has_yielded, true) {
            return Poll::Ready(());
        }
        context.waker().wake_by_ref();
        Poll::Pending
    })
    .await;
}

/// A socket whose operations wait without blocking the thread.
struct Async<T: AsFd> {
    io: T,
    token: u32,
    runtime: Rc<Runtime>,
}

const READING: usize = 0;
const WRITING: usize = 1;

impl<T: AsFd> Async<T> {
    fn new(runtime: &Rc<Runtime>, io: T) -> io::Result<Self> {
        SockRef::from(&io).set_nonblocking(true)?;
        let this = Self { io, token: runtime.next_number(), runtime: Rc::clone(runtime) };
        let object = EventObject::client(this.io.as_fd().as_raw_fd()).with_token(this.token);
        let object = object.with_interest(Interest::READABLE | Interest::WRITABLE);
        runtime.poller.borrow().add(object.with_mode(Mode::Edge))?;
        Ok(this)
    }

    /// Tries `operation`, and again after each edge, until it does not block.
    async fn complete<R>(
        &self,
        direction: usize,
        mut operation: impl FnMut(&T) -> io::Result<R>,
    ) -> io::Result<R> {
        poll_fn(|context| match operation(&self.io) {
            Err(error) if error.kind() == ErrorKind::WouldBlock => {
                let mut blocked = self.runtime.blocked.borrow_mut();
                blocked.entry(self.token).or_default()[direction] = Some(context.waker().clone());
                Poll::Pending
            }
            result => Poll::Ready(result),
        })
        .await
    }
}

impl Async<TcpListener> {
    async fn accept(&self) -> io::Result<Async<TcpStream>> {
        let (stream, _) = self.complete(READING, TcpListener::accept).await?;
        let _ = stream.set_nodelay(true);
        Async::new(&self.runtime, stream)
    }
}

impl Async<TcpStream> {
    async fn read(&self, buffer: &mut [u8]) -> io::Result<usize> {
        self.complete(READING, |mut stream| stream.read(buffer)).await
    }

    async fn write_all(&self, mut bytes: &[u8]) -> io::Result<()> {
        while !bytes.is_empty() {
            let count = self.complete(WRITING, |mut stream| stream.write(bytes)).await?;
            bytes = &bytes[count..];
        }
        Ok(())
    }
}

impl<T: AsFd> Drop for Async<T> {
    fn drop(&mut self) {
        let _ = self.runtime.poller.borrow().delete(self.io.as_fd().as_raw_fd());
        self.runtime.blocked.borrow_mut().remove(&self.token);
    }
}

/// Values on their way from one task or thread to a task that waits for them.
struct Channel<T> {
    state: Mutex<(VecDeque<T>, Option<Waker>)>,
}

impl<T> Default for Channel<T> {
    fn default() -> Self {
        Self { state: Mutex::new((VecDeque::new(), None)) }
    }
}

impl<T> Channel<T> {
    fn send(&self, value: T) {
        let mut state = self.state.lock().unwrap();
        state.0.push_back(value);
        state.1.take().into_iter().for_each(Waker::wake);
    }

    fn try_receive(&self) -> Option<T> {
        self.state.lock().unwrap().0.pop_front()
    }

    async fn receive(&self) -> T {
        poll_fn(|context| {
            let mut state = self.state.lock().unwrap();
            state.1 = Some(context.waker().clone());
            state.0.pop_front().map_or(Poll::Pending, Poll::Ready)
        })
        .await
    }
}
