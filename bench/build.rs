//! Records the version of the compiler, and links the peers that are written in C.

use std::env;
use std::process::Command;

fn main() {
    let rustc = env::var_os("RUSTC").unwrap_or_else(|| "rustc".into());
    let version = Command::new(rustc).arg("--version").output();
    let version = version.map(|output| String::from_utf8_lossy(&output.stdout).trim().to_owned());
    println!("cargo::rustc-env=RUSTC_VERSION={}", version.unwrap_or_default());
    println!("cargo::rerun-if-changed=build.rs");
    if cfg!(feature = "c-peers") {
        // In this order: libev has calls named like libevent's, and the first library wins.
        for library in ["event_core", "event_pthreads", "ev", "uv"] {
            println!("cargo::rustc-link-lib=dylib={library}");
        }
    }
}
