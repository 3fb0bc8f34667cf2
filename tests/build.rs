//! Sets `included` in this package: unit tests of what it includes from `src/` run in the crate itself.
//! Writes a sample of the guide to a file of its own, so that a test can include it, and
//! [programs](programs) for the simulation.

#[path = "programs/write.rs"]
mod programs;

use std::path::Path;
use std::{env, fs};

const GUIDE: &str = "../src/guide.md";

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-changed={GUIDE}");
    println!("cargo::rustc-cfg=included");

    let guide = fs::read_to_string(GUIDE).unwrap();
    let (_, section) = guide.split_once("\n# Ten thousand timeouts").expect("the section");
    let (_, code) = section.split_once("```rust\n").expect("its code");
    let (code, _) = code.split_once("```").expect("the end of its code");
    // A line that rustdoc hides begins with "# ".
    let shown = code.lines().filter(|line| !line.starts_with("# "));
    let sample: String = shown.flat_map(|line| [line, "\n"]).collect();
    let path = Path::new(&env::var_os("OUT_DIR").unwrap()).join("timeouts.rs");
    fs::write(path, sample).unwrap();
    programs::write_all();
}
