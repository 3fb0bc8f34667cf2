//! Sets `included` in this package: the unit tests of files that it includes from `src/` run in the crate itself.
//! Writes samples of the guide to files of their own, so that tests can include them, and [programs](programs) for the
//! simulation.

#[path = "programs/write.rs"]
mod programs;

use std::path::Path;
use std::{env, fs};

/// The pages with samples that tests include.
const GUIDE: [&str; 2] = ["../src/guide/descriptors.md", "../src/guide/threads.md"];

/// Samples of the guide: the file that each becomes, and an item in it.
const SAMPLES: [(&str, &str); 7] = [
    ("connecting.rs", "fn is_connected("),
    ("expiring.rs", "fn expire("),
    ("line_writer.rs", "fn line_writer("),
    ("listener.rs", "struct Listener {"),
    ("output.rs", "fn output("),
    ("table.rs", "struct Table<T> {"),
    ("timeouts.rs", "struct Timeouts<K> {"),
];

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    for page in GUIDE {
        println!("cargo::rerun-if-changed={page}");
    }
    println!("cargo::rustc-cfg=included");

    let guide = GUIDE.map(|page| fs::read_to_string(page).unwrap()).concat();
    for (name, item) in SAMPLES {
        write(name, &sample_with(&guide, item));
    }
    let table = sample_with(&guide, "struct Table<T> {");
    write("table_over_loom.rs", &table.replace("std::sync", "loom::sync"));
    programs::write_all();
}

fn write(name: &str, text: &str) {
    fs::write(Path::new(&env::var_os("OUT_DIR").unwrap()).join(name), text).unwrap();
}

/// The sample that has this item, without the lines that rustdoc hides.
fn sample_with(guide: &str, item: &str) -> String {
    let mut samples =
        guide.split("```rust\n").skip(1).map(|rest| rest.split("```").next().unwrap());
    let sample = samples.find(|sample| sample.contains(item)).expect(item);
    let shown = sample.lines().filter(|line| !line.starts_with("# "));
    shown.flat_map(|line| [line, "\n"]).collect()
}
