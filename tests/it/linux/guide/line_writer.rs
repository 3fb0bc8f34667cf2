//! Writing to stdout, of the section "Terminals, stdin and pipes".

use std::fs::File;
use std::io::{BufRead, BufReader};
use std::sync::mpsc::TrySendError;

use nix::fcntl::{FcntlArg, fcntl};

// As it stands in the guide, with its imports: the build script takes it from there.
include!(concat!(env!("OUT_DIR"), "/line_writer.rs"));

fn blocking_pipe() -> (File, File) {
    let (reader, writer) = nix::unistd::pipe().unwrap();
    (reader.into(), writer.into())
}

#[test]
fn a_reader_that_is_slow_blocks_only_the_thread() {
    let (reader, mut writer) = blocking_pipe();
    let room = fcntl(&writer, FcntlArg::F_SETPIPE_SZ(4_096)).unwrap();
    writer.write_all(&b"\n".repeat(room.try_into().unwrap())).unwrap();
    let lines = line_writer(writer);
    let mut sent = 0;
    let why = loop {
        match lines.try_send(sent.to_string()) {
            Ok(()) => sent += 1,
            Err(why) => break why,
        }
    };
    assert!(matches!(why, TrySendError::Full(_)) && sent >= 1_000, "{why:?} after {sent}");
    drop(lines);
    let read = BufReader::new(reader).lines().map(Result::unwrap).filter(|line| !line.is_empty());
    assert!(read.eq((0..sent).map(|number| number.to_string())));
}

#[test]
fn a_reader_that_has_left_is_an_error() {
    let (reader, writer) = blocking_pipe();
    let lines = line_writer(writer);
    drop(reader);
    while !matches!(lines.try_send(String::new()), Err(TrySendError::Disconnected(_))) {
        thread::yield_now();
    }
}
