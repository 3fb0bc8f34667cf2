//! Writes the examples over simulated sockets (the same text with other `use` lines), their mutants, each with one
//! change, and the cases of the contract that apply to simulated sockets.

use std::env;
use std::fmt::Write;
use std::fs;
use std::path::{Path, PathBuf};

#[path = "mutants.rs"]
mod mutants;

pub(crate) fn write_all() {
    println!("cargo::rerun-if-changed=programs");
    println!("cargo::rerun-if-changed=../examples");
    println!("cargo::rerun-if-changed=../sim/src/net/udp.md");
    let out = PathBuf::from(env::var_os("OUT_DIR").expect("cargo sets it"));
    let mut modules = String::new();
    let mut table = String::new();
    for program in PROGRAMS {
        let mut text = source(&Path::new("..").join(program.path));
        if program.name == "idle_server_before" {
            text = text.replace(TIMEOUTS, include_str!("timeouts_before.rs"));
        }
        let timeouts = fs::read_to_string(out.join("timeouts.rs")).expect("it is written first");
        let text = simulated(program, &text.replace(TIMEOUTS, &timeouts));
        write_module(&out, &mut modules, program.name, &text);
    }
    for (number, mutant) in mutants::MUTANTS.iter().enumerate() {
        let program = PROGRAMS.iter().find(|program| program.name == mutant.program);
        let program = program.unwrap_or_else(|| panic!("no program {}", mutant.program));
        let text = source(&Path::new("..").join(program.path));
        let mutated = text.replacen(mutant.old, mutant.new, 1);
        assert!(text != mutated, "{}: not found: {}", mutant.what, mutant.old);
        let name = format!("mutant_{number}");
        write_module(&out, &mut modules, &name, &simulated(program, &mutated));
        let (what, program) = (mutant.what, mutant.program);
        let _ = writeln!(table, "({program:?}, {what:?}, {name}::start),");
    }
    let kind = "(&'static str, &'static str, fn() -> std::io::Result<()>)";
    let _ = writeln!(modules, "pub(super) const MUTANTS: &[{kind}] = &[{table}];");
    fs::write(out.join("programs.rs"), modules).expect("the output folder is writable");
    fs::write(out.join("cases.rs"), cases()).expect("the output folder is writable");
}

/// The cases of the contract that need only simulated sockets, and a table of them.
fn cases() -> String {
    println!("cargo::rerun-if-changed=it/conformance");
    let (mut text, mut of_all, mut of_kqueue) = (String::new(), String::new(), String::new());
    for file in
        ["closing", "connections", "errors", "identity", "interest", "kqueue", "load", "mode"]
    {
        let table = if file == "kqueue" { &mut of_kqueue } else { &mut of_all };
        let source =
            fs::read_to_string(format!("it/conformance/{file}.rs")).expect("a file of cases");
        for (start, _) in source.match_indices("pub(crate) fn ") {
            let item = &source[start..];
            let item = &item[..item.find("\n}\n").expect("the end of a function") + 3];
            let name = item["pub(crate) fn ".len()..].split(['<', '(']).next().expect("a name");
            let is_case = item.contains("<P: Poller>()") || item.contains("<P: Poller + On>()");
            if is_case && !NOT_SIMULATED.iter().any(|word| item.contains(word)) {
                text += &format!("{item}\n");
                let _ = writeln!(table, "({name:?}, {name}::<P>),");
            }
        }
    }
    assert!(of_all.lines().count() > 30, "the cases are not where they were");
    for (name, table) in [("of_all", of_all), ("of_kqueue", of_kqueue)] {
        let kind = "Vec<(&'static str, fn())>";
        let _ =
            writeln!(text, "pub(super) fn {name}<P: Poller + On>() -> {kind} {{ vec![{table}] }}");
    }
    text
}

/// Words in a case that needs a real kernel.
const NOT_SIMULATED: &[&str] = &[
    "pipe()",
    "Command::new",
    "openpty",
    "UnixDatagram",
    "udp_pair",
    "sockets()",
    "for_each_listener",
    "thread::",
    "out_of_band",
    "dup2",
    "File",
];

/// The sample of the guide that programs include.
const TIMEOUTS: &str = "include!(concat!(env!(\"OUT_DIR\"), \"/timeouts.rs\"));\n";

struct Program {
    name: &'static str,
    /// Relative to the repository.
    path: &'static str,
    /// The code by which a test starts it.
    start: &'static str,
}

const PROGRAMS: &[Program] = &[
    Program {
        name: "echo_server",
        path: "examples/echo_server.rs",
        start: "serve(\"10.0.0.1:7\", &shared::Log::new()?)",
    },
    Program {
        name: "proxy",
        path: "examples/proxy.rs",
        start: "serve(&Arguments { listen: \"10.0.0.1:7\".into(), upstream: \"10.0.0.2:7\".into(), \
                timeout: Duration::from_secs(5) }, &shared::Log::new()?)",
    },
    Program {
        name: "http_server",
        path: "examples/http_server/main.rs",
        start: "serve(&Arguments { address: \"10.0.0.1:7\".into(), idle: Duration::from_secs(10), \
                is_shared: false }, &shared::Log::new()?)",
    },
    Program {
        name: "http_server_shared",
        path: "examples/http_server/main.rs",
        start: "serve(&Arguments { address: \"10.0.0.1:7\".into(), idle: Duration::from_secs(10), \
                is_shared: true }, &shared::Log::new()?)",
    },
    Program {
        name: "async_runtime",
        path: "examples/async_runtime/main.rs",
        start: "serve(\"10.0.0.1:7\", &shared::Log::new()?)",
    },
    Program {
        name: "graceful_shutdown",
        path: "examples/graceful_shutdown.rs",
        start: "serve(\"10.0.0.1:7\", &shared::Log::new()?)",
    },
    Program {
        name: "resp_server",
        path: "examples/resp_server.rs",
        start: "serve(\"10.0.0.1:7\", &shared::Log::new()?)",
    },
    Program {
        name: "idle_server",
        path: "tests/programs/idle_server.rs",
        start: "serve(\"10.0.0.1:7\")",
    },
    Program {
        name: "idle_server_before",
        path: "tests/programs/idle_server.rs",
        start: "serve(\"10.0.0.1:7\")",
    },
    Program {
        name: "proxy_before",
        path: "tests/programs/proxy_before.rs",
        start: "serve(\"10.0.0.1:7\", \"10.0.0.2:7\")",
    },
    // The sample in the docs of `UdpSocket`, which asks and answers.
    Program { name: "resolver", path: "sim/src/net/udp.md", start: "ask_all()" },
];

/// The whole text of a program, with its modules inlined.
fn source(path: &Path) -> String {
    let text = fs::read_to_string(path).unwrap_or_else(|error| panic!("{path:?}: {error}"));
    let text = match text.split_once("```rust\n") {
        Some((_, sample)) => sample.split("```").next().unwrap_or_default(),
        None => &text,
    };
    let (mut whole, mut at) = (String::new(), None);
    for line in text.lines().skip_while(|line| line.starts_with("//!")) {
        let between = |start, end| line.strip_prefix(start)?.strip_suffix(end);
        if let Some(file) = between("#[path = \"", "\"]") {
            at = Some(path.with_file_name(file));
        } else if let Some(module) = between("mod ", ";") {
            let files = [format!("{module}.rs"), format!("{module}/mod.rs")];
            let mut files = files.map(|file| path.with_file_name(file)).into_iter();
            let file = at.take().or_else(|| files.find(|file| file.exists())).expect(module);
            let text = source(&file).replace("crate::", "super::");
            let _ = writeln!(whole, "mod {module} {{\n{text}}}");
        } else {
            let _ = writeln!(whole, "{line}");
        }
    }
    whole
}

/// The program over the simulation, and a function that starts it.
fn simulated(program: &Program, text: &str) -> String {
    let mut simulated = String::new();
    let mut lines = text.lines().filter(|line| !line.starts_with("//!"));
    while let Some(line) = lines.next() {
        let mut line = line.to_owned();
        while line.trim_start().starts_with("use ") && !line.ends_with(';') {
            line += lines.next().expect("the end of a use").trim_start();
        }
        let (indent, item) = line.split_at(line.len() - line.trim_start().len());
        if let Some(items) = item.strip_prefix("use std::{").and_then(|i| i.strip_suffix("};")) {
            for item in items.split(", ") {
                simulated += &replaced(&format!("{indent}use std::{item};\n"));
            }
        } else if let Some(items) =
            item.strip_prefix("use pollio::{").and_then(|i| i.strip_suffix("};"))
        {
            for item in items.split(',').map(str::trim).filter(|item| !item.is_empty()) {
                let path = match item {
                    "OsPoller" => "pollio_sim::SimPoller as OsPoller".into(),
                    "Timer" | "channel" | "sync_channel" | "Sender" | "SyncSender" | "Receiver" => {
                        format!("pollio_sim::{item}")
                    }
                    _ => format!("pollio::{item}"),
                };
                let _ = writeln!(simulated, "{indent}use {path};");
            }
        } else {
            simulated += &replaced(&format!("{line}\n"));
        }
    }
    let simulated = simulated.replace("\nfn ", "\npub(super) fn ");
    let start = program.start;
    format!("{simulated}\npub(super) fn start() -> std::io::Result<()> {{ {start} }}\n")
}

/// Texts of a program, and their replacements over the simulation.
const REPLACEMENTS: &[(&str, &str)] = &[
    ("std::net", "pollio_sim::net"),
    ("std::os::", "pollio_sim::os::"),
    ("std::time", "pollio_sim::time"),
    ("std::thread", "pollio_sim::thread"),
    ("std::sync", "pollio_sim::sync"),
    ("socket2::", "pollio_sim::socket2::"),
    ("signal_hook::", "pollio_sim::signal_hook::"),
    ("io::stdout()", "io::sink()"),
    ("io::stderr()", "io::sink()"),
    // Its unit tests run with the example.
    ("#[cfg(test)]", "#[cfg(any())]"),
    // A simulated signal has no mask, and any thread may get it.
    ("nix::sys::signal::SigSet", "crate::linux::sim::programs::SigSet"),
    ("io::stdin()", "crate::linux::sim::programs::stdin()"),
    ("eprintln!(", "let _ = format!("),
];

fn replaced(line: &str) -> String {
    let replace = |line: String, (real, simulated): &(&str, &str)| line.replace(real, simulated);
    REPLACEMENTS.iter().fold(line.to_owned(), replace)
}

fn write_module(out: &Path, modules: &mut String, name: &str, text: &str) {
    let file = out.join(format!("{name}.rs"));
    fs::write(&file, text).expect("the output folder is writable");
    let lints = "dead_code, private_interfaces, unused_imports, unused_variables, \
                 unused_must_use, unreachable_patterns, unused_mut, clippy::all, \
                 clippy::cast_possible_truncation";
    let _ = writeln!(
        modules,
        "#[allow({lints}, reason = \"a program as it is\")]\nmod {name} {{ include!({file:?}); }}"
    );
}
