//! A simulated poller whose script is what real descriptors do, so that the contract's cases hold
//! it to what they hold the real ones to.
//!
//! Two real pollers watch each descriptor. What one tells by edges is scripted as arrivals; what
//! the other, level-triggered, no longer tells of is scripted as gone. All else, who is told what
//! and how often, is the simulation's.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, ErrorKind};
use std::os::fd::RawFd;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use pollio::sim::{SimPoller, World};
use pollio::{EventObject, Interest, Mode, OsPoller, Poller, Readiness, Register, Registry};

/// A simulation that tells at most `BATCH` events in a wait.
pub(crate) struct Following<const BATCH: usize> {
    sim: SimPoller,
    registry: Registry,
    edges: OsPoller,
    levels: OsPoller,
    watched: Arc<Watched>,
}

/// More descriptors than a case has, so that one wait tells of them all.
const ALL: usize = 1_000;

/// How long a wait lets the kernel deliver what a case has sent. TCP takes its time.
const GRACE: Duration = Duration::from_millis(10);

impl<const BATCH: usize> Following<BATCH> {
    /// Scripts what became of the watched descriptors.
    fn follow(&mut self, grace: Duration) -> io::Result<()> {
        let world = self.sim.world();
        for event in self.edges.wait_timeout(Some(grace))? {
            world.ready(event.fd, event.readiness());
        }
        let levels = self.levels.wait(0)?;
        assert!(levels.len() < ALL);
        let levels: BTreeMap<_, _> = levels.iter().map(|at| (at.fd, at.readiness())).collect();
        for fd in self.watched.fds.lock().unwrap().iter() {
            let readiness = levels.get(fd).copied().unwrap_or(Readiness::empty());
            world.unready(*fd, !readiness);
        }
        Ok(())
    }
}

impl<const BATCH: usize> Poller for Following<BATCH> {
    fn new() -> io::Result<Self> {
        let sim = SimPoller::new()?;
        sim.world().set_batch(BATCH);
        let (edges, levels) = (OsPoller::with_capacity(ALL)?, OsPoller::with_capacity(ALL)?);
        let watched = Arc::new(Watched {
            fds: Mutex::default(),
            edges: edges.registry().clone(),
            levels: levels.registry().clone(),
            world: sim.world().clone(),
            sim: sim.registry().clone(),
        });
        let registry = Registry::new(watched.clone());
        Ok(Self { sim, registry, edges, levels, watched })
    }

    fn registry(&self) -> &Registry {
        &self.registry
    }

    fn wait_timeout(&mut self, timeout: Option<Duration>) -> io::Result<&[EventObject]> {
        self.follow(timeout.unwrap_or(GRACE).min(GRACE))?;
        self.sim.wait_timeout(timeout)
    }
}

/// The descriptors that the real pollers watch, and those who register them.
struct Watched {
    fds: Mutex<BTreeSet<RawFd>>,
    edges: Registry,
    levels: Registry,
    world: World,
    sim: Registry,
}

impl Watched {
    /// Has the descriptor be watched and open in the simulation, if it is open.
    fn watch(&self, fd: RawFd) {
        let everything = EventObject::client(fd).with_interest(Interest::all());
        match self.levels.modify(everything) {
            Ok(()) => {}
            Err(error) if error.kind() == ErrorKind::NotFound => {
                self.world.open(fd);
                self.levels.add(everything).unwrap();
                self.edges.add(everything.with_mode(Mode::Edge)).unwrap();
                self.fds.lock().unwrap().insert(fd);
            }
            Err(_) => self.world.close(fd),
        }
    }
}

impl Register for Watched {
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
            // A closed one is gone already.
            let _ = (self.levels.delete(fd), self.edges.delete(fd));
        }
        answer
    }
}
