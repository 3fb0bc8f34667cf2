//! Sets `included` in this package: unit tests of what it includes from `src/` run in the crate itself.

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rustc-cfg=included");
}
