//! Unix listeners: calls, and what they return, once of real sockets, once of simulated ones.

use std::io::{ErrorKind, Read, Write};
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};
use std::time::Duration;
use std::{env, process};

use pollio::{EventObject, Interest, Mode, Poller, Readiness};

use super::super::Log;
use super::cases::Case;
use super::{SockRef, UnixListener, UnixStream, Watcher, remove_file, thread};

pub(crate) const CASES: &[Case] = &[
    ("a file outlives its listener", a_file_outlives_its_listener),
    ("paths have a length", paths_have_a_length),
    ("unix addresses", unix_addresses),
    ("a connection precedes its accept", a_connection_precedes_its_accept),
    ("a connect waits for room", a_connect_waits_for_room),
    ("a connect looks for its listener again", a_connect_looks_for_its_listener_again),
    ("a closed listener resets its queue", a_closed_listener_resets_its_queue),
    ("events of a unix listener", events_of_a_unix_listener),
];

/// A path that no other test has, and no file is left at.
struct Name(PathBuf);

impl Name {
    fn new(name: &str) -> Self {
        Self(env::temp_dir().join(format!("pollio-{}-{name}", process::id())))
    }

    fn listener(&self) -> UnixListener {
        let listener = UnixListener::bind(&self.0).unwrap();
        listener.set_nonblocking(true).unwrap();
        listener
    }

    fn connect(&self) -> UnixStream {
        UnixStream::connect(&self.0).unwrap()
    }
}

impl Drop for Name {
    fn drop(&mut self) {
        // It may be gone.
        let _ = remove_file(&self.0);
    }
}

fn pause() {
    thread::sleep(Duration::from_millis(15));
}

fn events(poller: &mut Watcher) -> Vec<Readiness> {
    pause();
    poller.wait(0).unwrap().iter().map(|event| event.readiness()).collect()
}

fn a_file_outlives_its_listener(log: &mut Log) {
    let name = Name::new("file");
    let path = &name.0;
    log.result("nothing to remove", remove_file(path));
    log.result("connect to nothing", UnixStream::connect(path).map(drop));
    let listener = name.listener();
    log.result("twice", UnixListener::bind(path).map(drop));
    let (parent, last) = (path.parent().unwrap(), path.file_name().unwrap());
    log.result("the same file", UnixListener::bind(parent.join(".").join(last)).map(drop));
    drop(listener);
    log.result("still there", UnixListener::bind(path).map(drop));
    log.result("connect to nobody", UnixStream::connect(path).map(drop));
    log.result("remove", remove_file(path));
    log.result("gone", UnixStream::connect(path).map(drop));
    let listener = name.listener();
    let queued = name.connect();
    log.result("remove a listener's", remove_file(path));
    log.result("nobody finds it", UnixStream::connect(path).map(drop));
    log.result("it accepts", listener.accept().map(drop));
    drop(queued);
    let other = name.listener();
    let _client = name.connect();
    log.result("the first has no client", listener.accept().map(drop));
    log.result("the other has", other.accept().map(drop));
    drop(listener);
    log.result("the other's file stays", UnixStream::connect(path).map(drop));
}

fn paths_have_a_length(log: &mut Log) {
    let start = Name::new("").0.to_str().unwrap().to_owned();
    for length in [103, 104, 107, 108, 200] {
        let name = Name(format!("{start:x<length$}").into());
        log.result("connect", UnixStream::connect(&name.0).map(drop));
        log.result("bind", UnixListener::bind(&name.0).map(drop));
    }
    log.result("a NUL", UnixListener::bind(Path::new("/tmp/\0")).map(drop));
}

fn unix_addresses(log: &mut Log) {
    let name = Name::new("address");
    let is_its = |address: std::os::unix::net::SocketAddr| {
        (address.is_unnamed(), address.as_pathname() == Some(&name.0))
    };
    let listener = name.listener();
    log.result("a listener's", listener.local_addr().map(is_its));
    let client = UnixStream::connect_addr(&listener.local_addr().unwrap()).unwrap();
    log.result("its peer's, queued", client.peer_addr().map(is_its));
    let (stream, address) = listener.accept().unwrap();
    log.value("a client's", is_its(address));
    for socket in [&client, &stream] {
        log.result("own", socket.local_addr().map(is_its));
        log.result("its peer's", socket.peer_addr().map(is_its));
    }
    drop(stream);
    log.result("a peer's that is gone", client.peer_addr().map(is_its));
    let (near, _far) = UnixStream::pair().unwrap();
    log.result("of a pair", near.local_addr().map(is_its));
    log.result("its peer's", near.peer_addr().map(is_its));
    let address = listener.local_addr().unwrap();
    log.result("taken", UnixListener::bind_addr(&address).map(drop));
    log.result("its error", listener.take_error().map(|error| error.is_some()));
}

fn a_connection_precedes_its_accept(log: &mut Log) {
    let name = Name::new("early");
    let listener = name.listener();
    log.result("nobody", listener.accept().map(drop));
    let mut client = name.connect();
    log.result("write", client.write(b"early"));
    client.set_nonblocking(true).unwrap();
    log.result("read", client.read(&mut [0]));
    listener.set_nonblocking(false).unwrap();
    let (mut stream, _) = listener.accept().unwrap();
    log.result("read", stream.read(&mut [0; 10]));
    log.result("write", stream.write(b"late"));
    log.result("read", client.read(&mut [0; 10]));

    let mut client = name.connect();
    client.write_all(b"last").unwrap();
    drop(client);
    let mut stream = listener.incoming().next().unwrap().unwrap();
    log.result("who is gone", stream.read(&mut [0; 10]));
    log.result("its end", stream.read(&mut [0; 10]));
    log.result("write", stream.write(b"?"));
    listener.set_nonblocking(true).unwrap();
    log.result("no more", listener.try_clone().unwrap().accept().map(drop));
    let client = name.connect();
    let (mut stream, _) = listener.accept().unwrap();
    let reader = thread::spawn(move || {
        // Accepted sockets block.
        stream.read(&mut [0]).map_err(|error| error.kind())
    });
    pause();
    (&client).write_all(b"!").unwrap();
    log.value("an accepted socket", reader.join().unwrap());
}

/// A thread that connects, once the queue of the listener is full.
fn waiting(name: &Name) -> thread::JoinHandle<Result<UnixStream, ErrorKind>> {
    let path = name.0.clone();
    let thread = thread::spawn(move || UnixStream::connect(path).map_err(|error| error.kind()));
    pause();
    thread
}

fn a_connect_waits_for_room(log: &mut Log) {
    let name = Name::new("room");
    let listener = name.listener();
    SockRef::from(&listener).listen(1).unwrap();
    let _queued = [name.connect(), name.connect()];
    let threads = [waiting(&name), waiting(&name)];
    log.value("two wait", threads.each_ref().map(thread::JoinHandle::is_finished));
    log.result("accept", listener.accept().map(drop));
    pause();
    let finished = threads.iter().filter(|thread| thread.is_finished());
    log.value("one waits", finished.count());
    log.result("accept", listener.accept().map(drop));
    let streams = threads.map(|thread| thread.join().unwrap());
    log.value("all are connected", streams.each_ref().map(Result::is_ok));
    log.result("accept", listener.accept().map(drop));
    log.result("accept", listener.accept().map(drop));
    log.result("accept", listener.accept().map(drop));
}

fn a_connect_looks_for_its_listener_again(log: &mut Log) {
    for what in ["closed", "removed", "replaced"] {
        let name = Name::new(what);
        let listener = name.listener();
        SockRef::from(&listener).listen(0).unwrap();
        let _queued = name.connect();
        let thread = waiting(&name);
        if what != "closed" {
            remove_file(&name.0).unwrap();
        }
        let other = (what == "replaced").then(|| name.listener());
        log.value("waits", !thread.is_finished());
        drop(listener);
        log.value(what, thread.join().unwrap().map(drop));
        let accepted = other.map(|other| other.accept().is_ok());
        log.value("accepted", accepted);
    }
}

fn a_closed_listener_resets_its_queue(log: &mut Log) {
    let name = Name::new("reset");
    for writes in [false, true] {
        let listener = name.listener();
        let mut client = name.connect();
        if writes {
            client.write_all(b"unread").unwrap();
        }
        let mut poller = Watcher::new().unwrap();
        let object = EventObject::client(client.as_raw_fd()).with_interest(Interest::BOTH);
        poller.add(object.with_mode(Mode::Edge)).unwrap();
        log.value("connected", events(&mut poller));
        drop(listener);
        log.value("closed", events(&mut poller));
        log.result("read", client.read(&mut [0]));
        log.result("read", client.read(&mut [0]));
        log.result("write", client.write(b"?"));
        remove_file(&name.0).unwrap();
    }
}

fn events_of_a_unix_listener(log: &mut Log) {
    let name = Name::new("events");
    for mode in [Mode::Level, Mode::Edge, Mode::Oneshot] {
        let listener = name.listener();
        let mut poller = Watcher::new().unwrap();
        let object = EventObject::server(listener.as_raw_fd()).with_mode(mode);
        poller.add(object.with_interest(Interest::BOTH)).unwrap();
        log.value("idle", events(&mut poller));
        let _clients = [(); 2].map(|()| {
            let client = name.connect();
            log.value("a client", events(&mut poller));
            log.value("again", events(&mut poller));
            client
        });
        log.result("accept", listener.accept().map(drop));
        log.value("one is left", events(&mut poller));
        poller.modify(object).unwrap();
        log.value("modified", events(&mut poller));
        log.result("accept", listener.accept().map(drop));
        log.value("none is left", events(&mut poller));
        let _client = name.connect();
        log.value("one more", events(&mut poller));
        remove_file(&name.0).unwrap();
    }
}
