//! When a wait ends.

use std::io::{Read, Write};
use std::net::Shutdown;
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixStream;
use std::os::unix::thread::JoinHandleExt;
use std::process::{Child, ChildStdout, Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::mpsc;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use nix::sys::pthread::{Pthread, pthread_kill};
use nix::sys::signal::{SaFlags, SigAction, SigHandler, SigSet, Signal, sigaction};
use pollio::{EventObject, Mode, OsPoller, Poller, Timer};

use crate::conformance::sharing::Share;
use crate::support::descriptors::pair;
use crate::support::expect::Expect;

/// A wait that does not end by itself is ended after this time, and fails.
const LATE: Duration = Duration::from_secs(10);

const MS: Duration = Duration::from_millis(1);

/// C8
pub(crate) fn zero_polls<P: Poller>() {
    let (near, mut far) = pair();
    let mut poller = P::new().unwrap();
    poller.add(EventObject::client(near.as_raw_fd()).with_mode(Mode::Edge)).unwrap();
    let start = Instant::now();
    for _ in 0..100 {
        assert!(poller.wait(0).unwrap().is_empty());
        assert!(poller.wait_timeout(Some(Duration::ZERO)).unwrap().is_empty());
    }
    assert!(start.elapsed() < LATE);
    far.write_all(b"x").unwrap();
    assert_eq!(poller.wait(0).unwrap().len(), 1);
    assert!(poller.wait(0).unwrap().is_empty());
}

/// C8
pub(crate) fn a_timeout_is_never_early<P: Poller>() {
    let mut poller = P::new().unwrap();
    for nanoseconds in [1, 999, 50_000, 999_999, 1_000_000, 1_000_001, 1_999_999, 12_345_678] {
        for _ in 0..10 {
            let timeout = Duration::from_nanos(nanoseconds);
            let start = Instant::now();
            assert!(poller.wait_timeout(Some(timeout)).unwrap().is_empty());
            let elapsed = start.elapsed();
            assert!(elapsed >= timeout, "{timeout:?} ended after {elapsed:?}");
            assert!(elapsed < LATE);
        }
    }
    for timeout_ms in [1, 7, 20] {
        let start = Instant::now();
        assert!(poller.wait(timeout_ms).unwrap().is_empty());
        assert!(start.elapsed() >= MS * timeout_ms.unsigned_abs());
    }
}

/// C8
pub(crate) fn a_wait_ends_when_an_event_comes<P: Poller>() {
    let start = Instant::now();
    outlasts(|poller: &mut P| poller.wait_timeout(Some(2 * LATE)).unwrap().len());
    assert!(start.elapsed() < LATE);
}

/// C7, C8
pub(crate) fn any_negative_timeout_is_infinite<P: Poller>() {
    for timeout_ms in [-1, -2, i32::MIN] {
        outlasts(|poller: &mut P| poller.wait(timeout_ms).unwrap().len());
    }
}

/// C8
pub(crate) fn a_timeout_beyond_every_clock_is_infinite<P: Poller>() {
    let ms_overflow = Duration::from_millis(u64::from(u32::MAX));
    for timeout in [
        Duration::MAX,
        Duration::from_secs(u64::MAX),
        Duration::from_secs(i64::MAX.unsigned_abs()),
        Duration::new(i64::MAX.unsigned_abs(), 1),
        Duration::new(u64::from(u32::MAX), 999_999_999),
        ms_overflow,
        ms_overflow + Duration::from_nanos(1),
    ] {
        outlasts(|poller: &mut P| poller.wait_timeout(Some(timeout)).unwrap().len());
    }
    outlasts(|poller: &mut P| poller.wait(i32::MAX).unwrap().len());
    outlasts(|poller: &mut P| poller.wait_timeout(None).unwrap().len());
}

/// Checks that a wait without a ready descriptor lasts until an event comes, 30 ms later.
fn outlasts<P: Poller>(wait: impl FnOnce(&mut P) -> usize) {
    let (near, mut far) = pair();
    let mut poller = P::new().unwrap();
    poller.add(EventObject::client(near.as_raw_fd())).unwrap();
    let start = Instant::now();
    thread::scope(|scope| {
        scope.spawn(|| {
            thread::sleep(30 * MS);
            far.write_all(b"x").unwrap();
        });
        assert_eq!(wait(&mut poller), 1);
    });
    assert!(start.elapsed() >= 30 * MS);
}

/// C8
pub(crate) fn a_wait_works_through_a_trait_object<P: Poller>() {
    let (near, mut far) = pair();
    let mut poller = P::new().unwrap();
    let poller: &mut dyn Poller = &mut poller;
    poller.add(EventObject::client(near.as_raw_fd())).unwrap();
    poller.modify(EventObject::client(near.as_raw_fd()).with_token(5)).unwrap();
    far.write_all(b"x").unwrap();
    assert_eq!(poller.expect_one().token, 5);
    poller.delete(near.as_raw_fd()).unwrap();
    poller.expect_none();
    assert!(poller.wait_timeout(Some(MS)).unwrap().is_empty());
}

/// C7
pub(crate) fn a_signal_does_not_end_a_wait<P: Poller + 'static>() {
    let (near, mut far) = pair();
    catch_signals(count_signal);
    let waiter = thread::spawn(move || {
        let mut poller = P::new().unwrap();
        poller.add(EventObject::client(near.as_raw_fd()).with_token(6)).unwrap();
        poller.wait(-1).unwrap().iter().map(|event| event.token).collect::<Vec<_>>()
    });
    for _ in 0..20 {
        thread::sleep(3 * MS);
        signal(&waiter);
    }
    assert!(!waiter.is_finished());
    far.write_all(b"x").unwrap();
    assert_eq!(waiter.join().unwrap(), [6]);
    assert_ne!(SIGNALS.load(Ordering::Relaxed), 0);
}

/// C7, C8
pub(crate) fn a_signal_does_not_change_a_timeout<P: Poller + 'static>() {
    catch_signals(count_signal);
    for timeout in [200 * MS, Duration::from_nanos(200_000_001)] {
        let start = Instant::now();
        let waiter = thread::spawn(move || wait_for_nothing::<P>(timeout));
        // A wait that restarted its timeout at each signal would last until the last of these.
        while start.elapsed() < LATE && !waiter.is_finished() {
            thread::sleep(10 * MS);
            signal(&waiter);
        }
        let elapsed = waiter.join().unwrap();
        assert!(elapsed >= timeout && elapsed < LATE, "ended after {elapsed:?}");
    }
    assert_ne!(SIGNALS.load(Ordering::Relaxed), 0);
}

/// C7, C8: the handler runs for longer than the timeout, which is over when it returns.
pub(crate) fn a_deadline_that_passes_in_a_handler_ends_the_wait<P: Poller + 'static>() {
    const TIMEOUT: Duration = Duration::from_secs(2);
    extern "C" fn outlast_the_timeout(_signal: i32) {
        SIGNALS.fetch_add(1, Ordering::Relaxed);
        thread::sleep(TIMEOUT);
    }

    catch_signals(outlast_the_timeout);
    let waiter = thread::spawn(|| wait_for_nothing::<P>(TIMEOUT));
    thread::sleep(TIMEOUT / 4);
    signal(&waiter);
    let elapsed = waiter.join().unwrap();
    assert_eq!(SIGNALS.load(Ordering::Relaxed), 1);
    assert!(elapsed >= TIMEOUT, "ended after {elapsed:?}");
    // The handler returns at 1.25 times the timeout. A wait that continued for the 0.75 that were left when the handler
    // began, or for the whole timeout again, would end at 2 or later.
    assert!(elapsed < TIMEOUT * 7 / 4, "ended after {elapsed:?}");
}

/// C7, C8: an empty slice means that nothing was ready, however late it comes.
pub(crate) fn an_arrival_during_a_handler_is_reported_past_the_deadline<
    P: Poller + Send + 'static,
>() {
    for timeout in [40 * MS, Duration::from_nanos(40_000_001)] {
        assert_eq!(outlast_in_a_handler(timeout, || P::new().unwrap()), 1, "{timeout:?}");
    }
}

/// C17: the same for a wait that spins, at any point of interruption.
pub(crate) fn an_arrival_during_a_handler_is_reported_past_a_spin<P: Share + 'static>() {
    let spinning = || {
        let mut poller = P::new().unwrap();
        poller.set_spin(Duration::MAX);
        poller
    };
    for round in 0..60 {
        assert_eq!(outlast_in_a_handler(4 * MS, spinning), 1, "round {round}");
    }
}

/// The number of events of a wait if a byte arrives while a signal handler outlasts `timeout`.
fn outlast_in_a_handler<P: Poller + Send + 'static>(timeout: Duration, new: fn() -> P) -> usize {
    static IS_ENTERED: AtomicBool = AtomicBool::new(false);
    static IS_OVER: AtomicBool = AtomicBool::new(false);
    extern "C" fn wait_for_the_byte(_signal: i32) {
        IS_ENTERED.store(true, Ordering::SeqCst);
        while !IS_OVER.load(Ordering::SeqCst) {
            thread::sleep(MS / 10);
        }
    }

    catch_signals(wait_for_the_byte);
    loop {
        IS_ENTERED.store(false, Ordering::SeqCst);
        IS_OVER.store(false, Ordering::SeqCst);
        let (near, mut far) = pair();
        let mut poller = new();
        poller.add(EventObject::client(near.as_raw_fd())).unwrap();
        let (begins, began) = mpsc::channel();
        let waiter = thread::spawn(move || {
            begins.send(Instant::now()).unwrap();
            let count = poller.wait_timeout(Some(timeout)).unwrap().len();
            // Closed only after the wait has checked it.
            drop(near);
            count
        });
        let began = began.recv().unwrap();
        thread::sleep(timeout / 4);
        // It may have ended already, on a busy machine.
        let _ = try_signal(&waiter);
        while !waiter.is_finished() && !IS_ENTERED.load(Ordering::SeqCst) {
            thread::yield_now();
        }
        if began.elapsed() >= timeout {
            // Perhaps the handler began after the wait, or while the thread ends.
            IS_OVER.store(true, Ordering::SeqCst);
            waiter.join().unwrap();
            continue;
        }
        far.write_all(b"x").unwrap();
        thread::sleep((timeout + MS).saturating_sub(began.elapsed()));
        IS_OVER.store(true, Ordering::SeqCst);
        return waiter.join().unwrap();
    }
}

/// C7, C8: no wait is early, and one at least is hardly late.
pub(crate) fn ten_thousand_signals_a_second_change_no_timeout<P: Poller + 'static>() {
    // On kernels that count in ticks, every timeout is late by one.
    let timeouts = [Duration::from_micros(150), 20 * MS, Duration::from_nanos(20_000_001)]
        .map(|timeout| (timeout, (0..3).map(|_| wait_for_nothing::<P>(timeout)).min().unwrap()));
    under_signals(move || {
        for ((timeout, usual), signals) in timeouts.into_iter().zip([500, 1_000, 1_500]) {
            let mut elapsed = Vec::new();
            while SIGNALS.load(Ordering::Relaxed) < signals {
                elapsed.push(wait_for_nothing::<P>(timeout));
            }
            let shortest = *elapsed.iter().min().unwrap();
            assert!(shortest >= timeout, "{timeout:?} ended after {shortest:?}");
            assert!(shortest < usual + 5 * MS, "{timeout:?} took {elapsed:?}");
        }
    });
}

/// C7, C3: each event is reported once, while the other side waits for the answer.
pub(crate) fn ten_thousand_signals_a_second_lose_no_event<P: Poller + 'static>() {
    let answer = |end: UnixStream, goes_on: fn() -> bool| {
        let object = EventObject::client(end.as_raw_fd()).with_mode(Mode::Edge);
        let mut poller = P::new().unwrap();
        poller.add(object).unwrap();
        while goes_on() {
            poller.expect_one();
            if (&end).read(&mut [0]).unwrap() == 0 {
                break;
            }
            // Signals do not disturb registrations either.
            poller.delete(object.fd).unwrap();
            poller.add(object.with_mode(Mode::Level)).unwrap();
            poller.modify(object).unwrap();
            (&end).write_all(b"x").unwrap();
        }
        end.shutdown(Shutdown::Write).unwrap();
        end
    };
    let (near, mut far) = pair();
    far.write_all(b"x").unwrap();
    let other = thread::spawn(move || answer(far, || true));
    // Open until the other side has read the last bytes.
    let _near = under_signals(move || answer(near, || SIGNALS.load(Ordering::Relaxed) < 1_000));
    other.join().unwrap();
}

/// Runs `body` in a thread that gets ten thousand signals a second. A busy machine handles fewer: signals that come
/// before the last one is handled merge with it. So `body` counts [`SIGNALS`].
pub(crate) fn under_signals<T: Send + 'static>(body: impl FnOnce() -> T + Send + 'static) -> T {
    catch_signals(count_signal);
    let timer = Timer::new().unwrap();
    let mut poller = OsPoller::new().unwrap();
    poller.add(EventObject::new(timer.as_raw_fd())).unwrap();
    timer.set_interval(MS / 10).unwrap();
    let thread = thread::spawn(body);
    while !thread.is_finished() {
        poller.expect_one();
        for _ in 0..timer.clear().unwrap() {
            signal(&thread);
        }
    }
    thread.join().unwrap()
}

/// The duration of a wait without a ready descriptor.
fn wait_for_nothing<P: Poller>(timeout: Duration) -> Duration {
    let mut poller = P::new().unwrap();
    let start = Instant::now();
    assert!(poller.wait_timeout(Some(timeout)).unwrap().is_empty());
    start.elapsed()
}

/// Sends `SIGUSR1` to a thread that has not been joined.
pub(crate) fn signal<T>(thread: &JoinHandle<T>) {
    try_signal(thread).unwrap();
}

#[allow(clippy::unnecessary_cast, reason = "std and libc differ about musl's pthread_t")]
fn try_signal<T>(thread: &JoinHandle<T>) -> nix::Result<()> {
    pthread_kill(thread.as_pthread_t() as Pthread, Signal::SIGUSR1)
}

/// C7
pub(crate) fn a_stop_and_continue_does_not_end_a_wait<P: Poller>() {
    let mut poller = P::new().unwrap();
    let mut stopper =
        Stopper::of_this_process("sleep 1 && kill -CONT $PPID && sleep 0.1 && echo done");
    poller.add(EventObject::client(stopper.done.as_raw_fd()).with_token(8)).unwrap();
    let events = poller.wait(-1).unwrap();
    assert_eq!(events.len(), 1);
    assert_eq!(events[0].token, 8);
    assert!(stopper.succeeded());
}

/// C7, C8
pub(crate) fn a_stop_and_continue_does_not_change_a_timeout<P: Poller>() {
    let timeout = 2_000 * MS;
    let mut poller = P::new().unwrap();
    let start = Instant::now();
    let mut stopper =
        Stopper::of_this_process("sleep 1 && kill -CONT $PPID && sleep 0.1 && echo done");
    assert!(poller.wait_timeout(Some(timeout)).unwrap().is_empty());
    let elapsed = start.elapsed();
    assert!(stopper.succeeded());
    assert!(elapsed >= timeout, "ended after {elapsed:?}");
    // The stop ends after 1.1 s. A wait that restarted its timeout then would end at 3.1 s.
    assert!(elapsed < timeout * 3 / 2, "ended after {elapsed:?}");
}

/// C7, C8: what arrives while the process is stopped is reported, although the time is up.
pub(crate) fn an_arrival_during_a_stop_is_reported_past_the_deadline<P: Poller>() {
    for timeout in [300 * MS, Duration::from_nanos(300_000_001)] {
        let mut poller = P::new().unwrap();
        let mut stopper =
            Stopper::of_this_process("sleep 0.6 && echo done && sleep 0.1 && kill -CONT $PPID");
        poller.add(EventObject::client(stopper.done.as_raw_fd())).unwrap();
        assert_eq!(poller.wait_timeout(Some(timeout)).unwrap().len(), 1);
        assert!(stopper.succeeded());
    }
}

/// A shell that stops this process after 0.1 s, continues it, and writes a line.
struct Stopper {
    shell: Child,
    done: ChildStdout,
}

impl Stopper {
    fn of_this_process(and_then: &str) -> Self {
        let script = format!("sleep 0.1 && kill -STOP $PPID && {and_then}");
        let mut shell =
            Command::new("sh").args(["-c", &script]).stdout(Stdio::piped()).spawn().unwrap();
        let done = shell.stdout.take().unwrap();
        Self { shell, done }
    }

    fn succeeded(&mut self) -> bool {
        let mut said = String::new();
        self.done.read_to_string(&mut said).unwrap();
        self.shell.wait().unwrap().success() && said == "done\n"
    }
}

static SIGNALS: AtomicU32 = AtomicU32::new(0);

extern "C" fn count_signal(_signal: i32) {
    SIGNALS.fetch_add(1, Ordering::Relaxed);
}

/// Handles `SIGUSR1` without `SA_RESTART`.
#[expect(unsafe_code, reason = "a handler must be async-signal-safe, which no type says")]
fn catch_signals(handler: extern "C" fn(i32)) {
    let action = SigAction::new(SigHandler::Handler(handler), SaFlags::empty(), SigSet::empty());
    // SAFETY: the handlers here use atomics and sleep, both of which are safe in a handler.
    unsafe { sigaction(Signal::SIGUSR1, &action) }.unwrap();
}
