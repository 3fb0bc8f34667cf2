//! Shared code of the programs, so that each one shows only its own subject.
#![allow(dead_code, unused_imports, reason = "each program uses a part of it")]

mod command_line;
mod listener;
mod log;
mod signals;

pub(crate) use command_line::{Arguments, address_and_port, run, run_on};
pub(crate) use listener::{Listener, prepare};
pub(crate) use log::{Log, spawn};
pub(crate) use signals::{signals, unblock_all};
