//! The costs of pollio, the bare system calls and its peers, side by side on this machine.

mod counts;
mod machine;
mod method;
mod peer;
mod receiver;
mod report;
mod server;
mod sockets;
mod stats;
mod workload;

use std::io;
use std::path::PathBuf;
use std::process::Command;
use std::time::Instant;

use indicatif::{ProgressBar, ProgressStyle};
use lexopt::{Arg, Parser, ValueExt};

use crate::machine::{Machine, Noise};
use crate::report::{About, NOISY, Report};
use crate::workload::{ALL, Plan};

const HELP: &str = "\
Compares pollio with the bare system calls and with its peers, on this machine.

cargo run --release -p pollio-bench -- [OPTIONS]
    --quick         few rounds of few cases: under a minute, in the place of ten
    --only NAMES    these workloads, with commas between:
                    ready_events, many_idle, add_delete, modify, look_up, wake, send, share, spin, timeout, idle,
                    memory, echo, counts
    --out FOLDER    where the data goes, results.json, and after a run of all workloads what is made from it, RESULTS.md
                    and plots; target/bench otherwise, and bench for what is published
    --page FOLDER   runs nothing: only makes RESULTS.md and plots of FOLDER again, from its data and bench/page.md

counts needs strace and valgrind. libevent, libev and libuv take part with --features c-peers, and
need Debian's libevent-dev, libev-dev and libuv1-dev. Leave the machine alone while it runs.";

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = Parser::from_env();
    let (mut plan, mut only) = (Plan { quick: false }, None);
    let mut folder = PathBuf::from("target/bench");
    while let Some(argument) = arguments.next()? {
        match argument {
            Arg::Long("quick") => plan.quick = true,
            Arg::Long("only") => only = Some(arguments.value()?.string()?),
            Arg::Long("out") => folder = arguments.value()?.into(),
            Arg::Long("page") => return report::write_page(&PathBuf::from(arguments.value()?)),
            Arg::Long("help") => {
                println!("{HELP}");
                return Ok(());
            }
            // By the two below, the bench runs itself.
            Arg::Value(word) if word == "serve" => {
                let peer = arguments.value()?.string()?;
                match server::run(&peer, arguments.value()?.parse()?)? {}
            }
            Arg::Value(word) if word == "operation" => {
                let peer = arguments.value()?.string()?;
                let operation = arguments.value()?.parse()?;
                return Ok(counts::run_operation(&peer, operation, arguments.value()?.parse()?)?);
            }
            other => return Err(other.unexpected().into()),
        }
    }
    let names: Vec<&str> = ALL.iter().map(|workload| workload.name).chain(["counts"]).collect();
    let chosen: Vec<&str> = only.as_deref().map_or(names.clone(), |only| only.split(',').collect());
    if let Some(unknown) = chosen.iter().find(|name| !names.contains(name)) {
        return Err(format!("no workload is called {unknown}: {}", names.join(", ")).into());
    }
    let report = measure(plan, &chosen)?;
    println!("{}", report.tables());
    report.write(&folder)?;
    if chosen.len() == names.len() {
        report::write_page(&folder)?;
    }
    if report.about.noise > NOISY {
        eprintln!("Others had {:.0} % of the machine during this run.", 100.0 * report.about.noise);
    }
    eprintln!("The data is in {}.", folder.display());
    Ok(())
}

fn measure(plan: Plan, chosen: &[&str]) -> io::Result<Report> {
    let workloads: Vec<_> = ALL.iter().filter(|workload| chosen.contains(&workload.name)).collect();
    let counted = if chosen.contains(&"counts") { plan.of(counts::CASES) } else { 0 };
    let cases = workloads.iter().map(|workload| plan.of(workload.cases)).sum::<u64>() + counted;
    let progress = ProgressBar::new(cases);
    let style = ProgressStyle::with_template("{elapsed_precise} {bar:30} {pos} of {len}  {msg}");
    progress.set_style(style.expect("the template is one"));
    let (start, before) = (Instant::now(), Noise::now()?);
    let mut rows = Vec::new();
    for workload in workloads {
        let before = progress.position();
        rows.extend((workload.run)(plan, &progress)?);
        debug_assert_eq!(progress.position() - before, plan.of(workload.cases));
    }
    let noise = Noise::now()?.since(&before);
    if chosen.contains(&"counts") {
        match counts::run(plan, &progress) {
            Ok(counts) => rows.extend(counts),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                progress.println("counts: left out, since strace or valgrind is not there");
            }
            Err(error) => return Err(error),
        }
    }
    progress.finish_and_clear();
    let counted = ALL.iter().map(|workload| (workload.name, workload.counts));
    let counted = counted.chain([("counts", counts::COUNTS)]);
    let about = About {
        date: said_by("date", &["-u", "+%F"])?,
        commit: said_by("git", &["rev-parse", "--short", "HEAD"])?,
        machine: Machine::this()?,
        versions: peer::versions(),
        quick: plan.quick,
        seconds: start.elapsed().as_secs(),
        // In three digits, like the file.
        noise: (1000.0 * noise).round() / 1000.0,
        workloads: counted.map(|(name, counts)| (name.to_owned(), counts.to_owned())).collect(),
    };
    Ok(Report { about, rows })
}

fn said_by(program: &str, arguments: &[&str]) -> io::Result<String> {
    let output = Command::new(program).args(arguments).output()?;
    Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
}
