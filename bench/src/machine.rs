//! The machine: its cores, its other load, and its description.

use std::fs;
use std::hint;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use nix::sched::{CpuSet, sched_getaffinity, sched_setaffinity};
use nix::sys::resource::{UsageWho, getrusage};
use nix::unistd::{Pid, SysconfVar, sysconf};
use serde::{Deserialize, Serialize};

/// The first two cores that this process may use, or the same one twice if there is only one.
pub(crate) fn cores() -> io::Result<[usize; 2]> {
    let allowed = sched_getaffinity(Pid::from_raw(0))?;
    let mut cores = (0..CpuSet::count()).filter(|core| allowed.is_set(*core) == Ok(true));
    let first = cores.next().ok_or(io::ErrorKind::NotFound)?;
    Ok([first, cores.next().unwrap_or(first)])
}

/// Keeps the calling thread, and its new threads and processes, on one core.
pub(crate) fn pin(core: usize) -> io::Result<()> {
    let mut cores = CpuSet::new();
    cores.set(core)?;
    Ok(sched_setaffinity(Pid::from_raw(0), &cores)?)
}

/// Gives each of two cores other work, until this is dropped.
pub(crate) struct Busy {
    stop: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
}

impl Busy {
    pub(crate) fn new() -> io::Result<Self> {
        let stop = Arc::new(AtomicBool::new(false));
        let work = |core| {
            let stop = Arc::clone(&stop);
            thread::spawn(move || {
                // On a machine with one core, its place matters little.
                let _ = pin(core);
                while !stop.load(Relaxed) {
                    hint::black_box(());
                }
            })
        };
        let threads = cores()?.map(work).into();
        Ok(Self { stop, threads })
    }
}

impl Drop for Busy {
    fn drop(&mut self) {
        self.stop.store(true, Relaxed);
        for thread in self.threads.drain(..) {
            // It cannot panic.
            let _ = thread.join();
        }
    }
}

/// The processor time of a process's threads.
pub(crate) fn time_of(process: u32) -> io::Result<Duration> {
    let mut ns = 0;
    for task in fs::read_dir(format!("/proc/{process}/task"))? {
        let schedstat = fs::read_to_string(task?.path().join("schedstat"))?;
        let running = schedstat.split(' ').next().and_then(|ns| ns.parse::<u64>().ok());
        ns += running.ok_or(io::ErrorKind::InvalidData)?;
    }
    Ok(Duration::from_nanos(ns))
}

/// The machine's properties that the figures depend on.
#[derive(Debug, Deserialize, PartialEq, Serialize)]
pub(crate) struct Machine {
    pub(crate) processor: String,
    pub(crate) cores: usize,
    pub(crate) kernel: String,
    pub(crate) rust: String,
}

impl Machine {
    pub(crate) fn this() -> io::Result<Self> {
        let info = fs::read_to_string("/proc/cpuinfo")?;
        let processor = info.lines().find_map(|line| line.strip_prefix("model name"));
        let processor = processor.and_then(|rest| rest.split(": ").nth(1)).unwrap_or("unknown");
        Ok(Self {
            processor: processor.to_owned(),
            cores: thread::available_parallelism()?.get(),
            kernel: fs::read_to_string("/proc/sys/kernel/osrelease")?.trim().to_owned(),
            rust: env!("RUSTC_VERSION").to_owned(),
        })
    }
}

/// The load of others while the bench ran.
pub(crate) struct Noise {
    all: Duration,
    ours: Duration,
    idle: Duration,
}

impl Noise {
    pub(crate) fn now() -> io::Result<Self> {
        let stat = fs::read_to_string("/proc/stat")?;
        let ticks =
            stat.lines().next().into_iter().flat_map(|line| line.split_whitespace().skip(1));
        let ticks: Vec<u32> = ticks.filter_map(|ticks| ticks.parse().ok()).collect();
        let per_second = sysconf(SysconfVar::CLK_TCK)?.and_then(|ticks| u32::try_from(ticks).ok());
        let tick = Duration::from_secs(1) / per_second.unwrap_or(100);
        // user nice system idle iowait irq softirq steal; guests are in user and nice already.
        let [.., idle, iowait, _, _, _] = ticks[..8.min(ticks.len())] else {
            return Err(io::ErrorKind::InvalidData.into());
        };
        let mut ours = Duration::ZERO;
        for who in [UsageWho::RUSAGE_SELF, UsageWho::RUSAGE_CHILDREN] {
            let usage = getrusage(who)?;
            for time in [usage.user_time(), usage.system_time()] {
                ours += Duration::from_micros(
                    u64::try_from(time.tv_sec()).unwrap_or(0) * 1_000_000
                        + u64::try_from(time.tv_usec()).unwrap_or(0),
                );
            }
        }
        Ok(Self { all: tick * ticks[..8].iter().sum(), ours, idle: tick * (idle + iowait) })
    }

    /// The part of the machine that others had since `before`, including the host of a virtual machine.
    pub(crate) fn since(&self, before: &Self) -> f64 {
        let all = self.all.saturating_sub(before.all);
        let known = self.ours.saturating_sub(before.ours) + self.idle.saturating_sub(before.idle);
        if all.is_zero() {
            0.0
        } else {
            all.saturating_sub(known).as_secs_f64() / all.as_secs_f64()
        }
    }
}
