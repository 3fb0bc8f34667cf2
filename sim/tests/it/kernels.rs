//! Worlds with a kernel that is not Linux.

use std::io::{self, Read};
use std::panic;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use pollio_sim::net::{TcpListener, TcpStream};
use pollio_sim::{Conditions, Kernel, World, check, check_on, thread};

const SECOND: Duration = Duration::from_secs(1);

/// Reads from a client that was accepted by a non-blocking listener, and has sent nothing yet.
fn read_from_who_was_accepted(world: &World) -> io::Result<()> {
    world.set_conditions(Conditions::calm());
    let listener = TcpListener::bind("10.0.0.1:7")?;
    let client = TcpStream::connect("10.0.0.1:7")?;
    thread::sleep(SECOND);
    listener.set_nonblocking(true)?;
    let (mut accepted, _) = listener.accept()?;
    world.schedule(SECOND, move |_| drop(client));
    accepted.read(&mut [0]).map(drop)
}

/// What a check panics with.
fn report_of(check: impl FnOnce() + panic::UnwindSafe) -> String {
    *panic::catch_unwind(check).unwrap_err().downcast::<String>().unwrap()
}

#[test]
fn each_kernel_has_as_many_seeds_as_the_others() {
    let seen = Arc::new(Mutex::new(Vec::new()));
    let all = seen.clone();
    check_on(Kernel::ALL, 60, move |world| {
        all.lock().unwrap().push((world.kernel(), world.seed()));
        assert!(format!("{world:?}").contains(&format!("kernel: {:?}", world.kernel())));
        Ok(())
    });
    let seen = seen.lock().unwrap();
    for kernel in Kernel::ALL {
        assert_eq!(seen.iter().filter(|(drawn, _)| drawn == kernel).count(), 10);
    }
    for (kernel, seed) in seen.iter() {
        assert_eq!(World::run_on(*kernel, *seed, |_| Ok(())).kernel, *kernel);
    }
}

#[test]
fn a_world_is_linux_unless_it_says_otherwise() {
    assert_eq!(World::run(7, read_from_who_was_accepted).kernel, Kernel::Linux);
    check(10, |world| {
        assert_eq!(world.kernel(), Kernel::Linux);
        read_from_who_was_accepted(world)
    });
}

#[test]
fn a_failure_names_the_kernel_and_the_rules_that_made_a_difference() {
    const RULE: &str = "an accepted socket is non-blocking if its listener is";
    let report =
        report_of(|| check_on(&[Kernel::Linux, Kernel::Apple], 10, read_from_who_was_accepted));
    assert!(report.starts_with("seed 1 on apple fails: it returned an error: "), "{report}");
    assert!(report.contains(&format!("\n  unlike Linux: {RULE}\n")), "{report}");
    assert!(report.contains(&format!("-            apple: {RULE}\n")), "{report}");

    let outcome = World::run_on(Kernel::Apple, 0, read_from_who_was_accepted);
    assert_eq!(outcome.rules, [RULE]);
    let untouched = World::run_on(Kernel::Apple, 0, |_| Ok(()));
    assert!(untouched.rules.is_empty());
}

#[test]
#[should_panic(expected = "no kernel to run on")]
fn a_check_on_no_kernel_is_refused() {
    check_on(&[], 1, |_| Ok(()));
}
