//! The start of a program: its arguments, its help, and its end if it cannot continue.

use std::ffi::OsString;
use std::io::{self, ErrorKind, Write};
use std::process::{self, ExitCode};

use lexopt::{Arg, Parser, ValueExt};

use super::{Log, unblock_all};

const NAME: &str = env!("CARGO_CRATE_NAME");

/// Parses the arguments, then serves. A failure is one line: `cannot serve …`, if that is the task.
pub(crate) fn run<A>(
    help: &'static str,
    parse: impl FnOnce(&mut Arguments) -> Result<A, lexopt::Error>,
    task: fn(&A) -> String,
    serve: impl FnOnce(&A, &Log) -> io::Result<()>,
) -> ExitCode {
    let mut arguments = Arguments { parser: Parser::from_env(), help };
    let arguments = match parse(&mut arguments) {
        Ok(arguments) => arguments,
        Err(error) => {
            let _ = writeln!(io::stderr(), "{NAME}: {error}; try --help");
            return ExitCode::from(2);
        }
    };
    let complaint = |error| format!("{NAME}: cannot {}: {error}", task(&arguments));
    // Before there are threads, which inherit it.
    let log = match unblock_all().and_then(|()| Log::new()) {
        Ok(log) => log,
        Err(error) => {
            let _ = writeln!(io::stderr(), "{}", complaint(error));
            return ExitCode::FAILURE;
        }
    };
    let code = match serve(&arguments, &log) {
        // The reader of the standard output left before the first line, as after `| head`.
        Err(error) if error.kind() != ErrorKind::BrokenPipe => {
            log.complain(complaint(error));
            ExitCode::FAILURE
        }
        _ => ExitCode::SUCCESS,
    };
    let _ = log.flush();
    code
}

/// As [`run`], for a server whose only argument is where it listens.
pub(crate) fn run_on(
    address: &str,
    help: &'static str,
    serve: fn(&str, &Log) -> io::Result<()>,
) -> ExitCode {
    let task = |address: &String| format!("serve {address}");
    let serve = |address: &String, log: &Log| serve(address, log);
    run(help, |arguments| arguments.address_or(address), task, serve)
}

pub(crate) struct Arguments {
    parser: Parser,
    help: &'static str,
}

impl Arguments {
    /// The next argument. `--help` prints the help, and ends the program.
    pub(crate) fn next(&mut self) -> Result<Option<Arg<'_>>, lexopt::Error> {
        match self.parser.next()? {
            Some(Arg::Short('h') | Arg::Long("help")) => {
                let _ = io::stdout().write_all(self.help.as_bytes());
                process::exit(0);
            }
            argument => Ok(argument),
        }
    }

    /// The value of the option that came last.
    pub(crate) fn value(&mut self) -> Result<OsString, lexopt::Error> {
        self.parser.value()
    }

    /// The address where to listen, if it is the only argument.
    fn address_or(&mut self, default: &str) -> Result<String, lexopt::Error> {
        let mut address = None;
        while let Some(argument) = self.next()? {
            match argument {
                Arg::Value(value) if address.is_none() => {
                    address = Some(value.parse_with(address_and_port)?);
                }
                surplus => return Err(surplus.unexpected()),
            }
        }
        Ok(address.unwrap_or_else(|| default.into()))
    }
}

/// Checks the form. A name is looked up when it is used.
pub(crate) fn address_and_port(text: &str) -> Result<String, &'static str> {
    match text.rsplit_once(':') {
        Some((address, port)) if !address.is_empty() && port.parse::<u16>().is_ok() => {
            Ok(text.into())
        }
        _ => Err("not ADDRESS:PORT with a port of 0 to 65535"),
    }
}
