//! Wake-ups that programs get wrong, and channels, which rule such mistakes out.

use std::collections::VecDeque;

use pollio::{Event, Poller, Waker};
use pollio_sim::sync::{Arc, Mutex};
use pollio_sim::{self as sim, SimPoller, World, thread};

const SENDERS: u32 = 3;
const VALUES: u32 = 3;
const TOTAL: usize = (SENDERS * VALUES) as usize;

type Queue = Mutex<VecDeque<u32>>;

/// A queue of the program's own, and a waker.
struct Program {
    what: &'static str,
    send: fn(&Queue, &Waker, u32),
    /// The loop's handler for the events of a wait.
    receive: fn(&Queue, &[Event], &mut Vec<u32>),
}

fn push_and_wake(queue: &Queue, waker: &Waker, value: u32) {
    queue.lock().unwrap().push_back(value);
    waker.wake().unwrap();
}

fn take_all(queue: &Queue, events: &[Event], values: &mut Vec<u32>) {
    if events.iter().any(Event::is_wake) {
        values.extend(queue.lock().unwrap().drain(..));
    }
}

impl Program {
    /// Ends with all values, or in a deadlock.
    fn run(&self, world: &World) {
        let (send, receive) = (self.send, self.receive);
        let mut poller = SimPoller::new().unwrap();
        let waker = Waker::new(poller.registry(), 0).unwrap();
        let queue = Arc::new(Queue::default());
        for _ in 0..SENDERS {
            let (queue, waker) = (queue.clone(), waker.clone());
            world
                .spawn("sender", move || (0..VALUES).for_each(|value| send(&queue, &waker, value)));
        }
        let mut values = Vec::new();
        while values.len() < TOTAL {
            receive(&queue, poller.wait(-1).unwrap(), &mut values);
        }
    }

    /// The first seed that fails, and why.
    fn first_failure(&self) -> Option<(u64, String)> {
        (0..1_000).find_map(|seed| {
            let outcome = World::run(seed, |world| {
                self.run(world);
                Ok(())
            });
            outcome.failure.map(|why| (seed, why))
        })
    }
}

const RIGHT: &[Program] = &[
    Program { what: "all is taken at each wake", send: push_and_wake, receive: take_all },
    Program {
        what: "all is taken after each wait",
        send: push_and_wake,
        receive: |queue, _, values| values.extend(queue.lock().unwrap().drain(..)),
    },
    Program {
        what: "only the first value wakes",
        send: |queue, waker, value| {
            let mut values = queue.lock().unwrap();
            let was_empty = values.is_empty();
            values.push_back(value);
            drop(values);
            if was_empty {
                waker.wake().unwrap();
            }
        },
        receive: take_all,
    },
    Program {
        what: "a wake too many",
        send: |queue, waker, value| {
            waker.wake().unwrap();
            push_and_wake(queue, waker, value);
        },
        receive: take_all,
    },
];

const WRONG: &[Program] = &[
    Program {
        what: "the wake comes before the value",
        send: |queue, waker, value| {
            waker.wake().unwrap();
            queue.lock().unwrap().push_back(value);
        },
        receive: take_all,
    },
    Program {
        what: "one value is taken for each event",
        send: push_and_wake,
        receive: |queue, events, values| {
            values.extend(events.iter().filter_map(|_| queue.lock().unwrap().pop_front()));
        },
    },
    Program {
        what: "wakes are ignored",
        send: push_and_wake,
        receive: |queue, events, values| {
            if events.iter().any(|event| !event.is_wake()) {
                values.extend(queue.lock().unwrap().drain(..));
            }
        },
    },
    Program {
        what: "the queue may have been emptied since it was looked at",
        send: |queue, waker, value| {
            let was_empty = queue.lock().unwrap().is_empty();
            queue.lock().unwrap().push_back(value);
            if was_empty {
                waker.wake().unwrap();
            }
        },
        receive: take_all,
    },
];

#[test]
fn a_wake_is_never_lost() {
    for program in RIGHT {
        assert_eq!(program.first_failure(), None, "{}", program.what);
    }
}

#[test]
fn a_lost_wake_up_is_found() {
    for program in WRONG {
        let (seed, why) = program.first_failure().unwrap_or_else(|| panic!("{}", program.what));
        println!("{}: seed {seed}: {why}", program.what);
        assert!(why.starts_with("deadlock") && why.contains("a poller of\n    wakers"), "{why}");
    }
}

/// Any handling of a channel's events gets all values.
#[test]
fn a_channel_cannot_be_received_wrong() {
    type Receive = fn(&sim::Receiver<u32>, &mut u32) -> Vec<u32>;
    let ways: [(&str, Receive); 4] = [
        ("all values", |receiver, _| receiver.try_iter().collect()),
        ("one value for each event", |receiver, _| receiver.try_recv().into_iter().collect()),
        ("until somebody else has a turn", |receiver, count| {
            *count += 1;
            receiver.try_iter().take((*count % 3) as usize + 1).collect()
        }),
        // As if the handler of another event panicked.
        ("not at the first event", |receiver, count| {
            *count += 1;
            if *count % 2 == 1 { Vec::new() } else { receiver.try_iter().collect() }
        }),
    ];
    for (what, receive) in ways {
        for seed in 0..200 {
            let outcome = World::run(seed, |world| {
                let mut poller = SimPoller::new()?;
                let (sender, receiver) = sim::channel(poller.registry(), 0)?;
                for _ in 0..SENDERS {
                    let sender = sender.clone();
                    world.spawn("sender", move || {
                        (0..VALUES).for_each(|value| sender.send(value).unwrap());
                    });
                }
                drop(sender);
                let (mut values, mut count) = (0, 0);
                while values < TOTAL || !receiver.is_disconnected() {
                    assert!(poller.wait(-1)?.iter().all(Event::is_wake));
                    values += receive(&receiver, &mut count).len();
                    thread::yield_now();
                }
                Ok(())
            });
            assert_eq!(outcome.failure, None, "{what}, seed {seed}: {:#?}", outcome.trace);
        }
    }
}
