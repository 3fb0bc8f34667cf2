//! A simulated poller whose script follows real descriptors, so that the contract's cases hold for it as for the real
//! pollers.
//!
//! Real pollers watch each descriptor. Their edges are scripted as arrivals; readiness that a level-triggered one no
//! longer reports is scripted as gone. The simulation decides everything else: what it reports, and how often.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, ErrorKind};
use std::os::fd::RawFd;
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use pollio::{Backend, Event, EventObject, Interest, Mode, OsPoller, Poller, Readiness, Registry};
use pollio_sim::{SimPoller, World};

/// A simulation that reports at most `BATCH` events in a wait.
pub(crate) struct Following<const BATCH: usize> {
    sim: SimPoller,
    registry: Registry,
    /// One for each interest: an edge does not say which readiness is new.
    edges: [OsPoller; 3],
    levels: OsPoller,
    watched: Arc<Watched>,
    events: Vec<Event>,
}

const INTERESTS: [Interest; 3] = [Interest::READABLE, Interest::WRITABLE, Interest::PRIORITY];

const EVERYTHING: Readiness = Readiness::READABLE
    .union(Readiness::WRITABLE)
    .union(Readiness::PRIORITY)
    .union(Readiness::READ_CLOSED)
    .union(Readiness::WRITE_CLOSED)
    .union(Readiness::ERROR);

/// More than the descriptors of a case, so that one wait reports them all.
const ALL: usize = 1_000;

/// Time for the kernel to deliver data that a case has sent over TCP.
const GRACE: Duration = Duration::from_millis(10);

impl<const BATCH: usize> Following<BATCH> {
    /// Scripts the changes of the watched descriptors.
    fn follow(&mut self) -> io::Result<()> {
        let world = self.sim.world();
        for edges in &mut self.edges {
            for event in edges.wait(0)? {
                world.set_ready(event.fd, event.readiness());
            }
        }
        let levels = self.levels.wait(0)?;
        assert!(levels.len() < ALL);
        let levels: BTreeMap<_, _> = levels.iter().map(|at| (at.fd, at.readiness())).collect();
        for fd in self.watched.fds.lock().unwrap().iter() {
            let readiness = levels.get(fd).copied().unwrap_or(Readiness::NONE);
            world.clear_ready(*fd, EVERYTHING - readiness);
        }
        Ok(())
    }
}

impl<const BATCH: usize> Poller for Following<BATCH> {
    fn new() -> io::Result<Self> {
        let poller = || OsPoller::with_capacity(ALL);
        let (edges, levels) = ([poller()?, poller()?, poller()?], poller()?);
        let sim = SimPoller::new()?;
        sim.world().set_batch(BATCH);
        let watched = Arc::new(Watched {
            fds: Mutex::default(),
            edges: edges.each_ref().map(|edges| edges.registry().clone()),
            levels: levels.registry().clone(),
            world: sim.world().clone(),
            sim: sim.registry().clone(),
        });
        let registry = Registry::new(watched.clone());
        Ok(Self { sim, registry, edges, levels, watched, events: Vec::new() })
    }

    fn registry(&self) -> &Registry {
        &self.registry
    }

    fn wait_timeout(&mut self, timeout: Option<Duration>) -> io::Result<&[Event]> {
        self.follow()?;
        self.events = self.sim.wait(0)?.to_vec();
        if self.events.is_empty() && timeout != Some(Duration::ZERO) {
            thread::sleep(GRACE);
            self.follow()?;
            self.events = self.sim.wait_timeout(timeout)?.to_vec();
        }
        Ok(&self.events)
    }
}

/// The descriptors that the real pollers watch, and the threads that register them.
struct Watched {
    fds: Mutex<BTreeSet<RawFd>>,
    edges: [Registry; 3],
    levels: Registry,
    world: World,
    sim: Registry,
}

impl Watched {
    /// Watches the descriptor, and opens it in the simulation, if it is open.
    fn watch(&self, fd: RawFd) {
        let object = EventObject::client(fd);
        let everything = object.with_interest(Interest::BOTH | Interest::PRIORITY);
        match self.levels.modify(everything) {
            Ok(()) => {}
            Err(error) if error.kind() == ErrorKind::NotFound => {
                self.world.open(fd);
                self.levels.add(everything).unwrap();
                for (edges, interest) in self.edges.iter().zip(INTERESTS) {
                    edges.add(object.with_interest(interest).with_mode(Mode::Edge)).unwrap();
                }
                self.fds.lock().unwrap().insert(fd);
            }
            Err(_) => self.world.close(fd),
        }
    }
}

impl Backend for Watched {
    fn add(&self, object: EventObject) -> io::Result<()> {
        self.watch(object.fd);
        self.sim.add(object)
    }

    fn modify(&self, object: EventObject) -> io::Result<()> {
        self.watch(object.fd);
        self.sim.modify(object)
    }

    fn delete(&self, fd: RawFd) -> io::Result<()> {
        self.watch(fd);
        let answer = self.sim.delete(fd);
        if self.fds.lock().unwrap().remove(&fd) {
            // A closed descriptor is gone already.
            for registry in self.edges.iter().chain([&self.levels]) {
                let _ = registry.delete(fd);
            }
        }
        answer
    }

    fn wake(&self) -> io::Result<()> {
        unreachable!("it has no waker")
    }
}
