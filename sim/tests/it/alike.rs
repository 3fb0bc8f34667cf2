//! The same calls to real sockets and to simulated ones, and the results of both, for cases that random scripts do not
//! reach.

mod real;
mod simulated;

use std::fmt::Debug;
use std::io;

use pollio_sim::{Conditions, World};

/// The results of a case's calls, in order.
#[derive(Default)]
pub(super) struct Log(Vec<String>);

impl Log {
    fn result<T: Debug>(&mut self, what: &str, result: io::Result<T>) {
        let result = result.map_err(|error| error.raw_os_error().ok_or(error.kind()));
        self.value(what, result);
    }

    fn value(&mut self, what: &str, value: impl Debug) {
        self.0.push(format!("{what}: {value:?}"));
    }
}

#[test]
fn the_simulation_answers_as_the_kernel_does() {
    let real = real::cases::CASES.iter().chain(real::datagrams::CASES).chain(real::unix::CASES);
    let simulated = simulated::cases::CASES.iter().chain(simulated::datagrams::CASES);
    let simulated = simulated.chain(simulated::unix::CASES);
    for ((name, real), (_, simulated)) in real.zip(simulated) {
        let mut expected = Log::default();
        real(&mut expected);
        for seed in 0..3 {
            let mut log = Log::default();
            let outcome = World::run(seed, |world| {
                world.set_conditions(Conditions::calm());
                world.set_batch(usize::MAX);
                simulated(&mut log);
                Ok(())
            });
            assert_eq!(outcome.failure, None, "{name}, seed {seed}: {:#?}", outcome.trace);
            assert_eq!(log.0, expected.0, "{name}, seed {seed}: {:#?}", outcome.trace);
        }
    }
}
