//! The pictures and tables of the page: their rows of the data, and the names of these.

use super::page::{Data, digits, ratio, unit, with_unit, without_unit};
use super::picture::{self, Bar, Group, Scale};
use crate::method::Row;
use crate::peer::{BASE, BASE_SPINNING, US, US_SPINNING};

/// A picture and a table for one question. Peers and rows that the data lacks are left out.
pub(crate) struct Exhibit {
    pub(crate) name: &'static str,
    pub(crate) title: &'static str,
    scale: Scale,
    /// The others are compared with the first, if at all.
    peers: &'static [&'static str],
    drawn: &'static [Line],
    listed: &'static [Line],
}

/// The name of a row on the page, then its workload, case and metric.
type Line = [&'static str; 4];

const PEERS: &[&str] = &[
    BASE,
    US,
    US_SPINNING,
    BASE_SPINNING,
    "mio",
    "polling",
    "libevent",
    "libev",
    "libuv",
    "tokio",
    "async-io",
];

const WAKES: &[Line] = &[
    ["a wake of a busy loop, in a burst", "wake", "awake", "a wake of a burst [ns]"],
    ["a wake and the wait for it, one thread", "wake", "awake", "a wake and the wait for it [ns]"],
    ["a sleeper: the call that wakes it", "wake", "a sleeper", "the call, p50 [µs]"],
    ["a sleeper: until its wait returns", "wake", "a sleeper", "until the wait returns, p50 [µs]"],
    ["a wake and the wake back, two cores", "wake", "two cores", "p50 [µs]"],
    ["a wake and the wake back, one core", "wake", "one core", "p50 [µs]"],
];

const ON_BUSY_CORES: Line =
    ["a wake and the wake back, two busy cores", "wake", "two busy cores", "p50 [µs]"];

const SERVERS: &[Line] = &[
    ["1 client: messages a second", "echo", "1", "messages/s"],
    ["16 clients: messages a second", "echo", "16", "messages/s"],
    ["256 clients: messages a second", "echo", "256", "messages/s"],
    ["8,000 clients: messages a second", "echo", "8000", "messages/s"],
];

pub(crate) const EXHIBITS: &[Exhibit] = &[
    Exhibit {
        name: "costs",
        title: "Costs next to the bare calls, mio and polling",
        scale: Scale::Own,
        peers: &[BASE, US, "mio", "polling"],
        drawn: &[
            ["a wake of a busy loop", "wake", "awake", "a wake of a burst [ns]"],
            ["a wake of a sleeper", "wake", "a sleeper", "until the wait returns, p50 [µs]"],
            [
                "an event, with its write and read",
                "ready_events",
                "edge, 1 of 1000",
                "an event [ns]",
            ],
            ["a registration: add and delete", "add_delete", "add and delete", "both calls [ns]"],
        ],
        listed: &[],
    },
    Exhibit {
        name: "events",
        title: "An event, with the write and the read that go with it",
        scale: Scale::Own,
        peers: PEERS,
        drawn: &[EVENTS[0], EVENTS[1], EVENTS[3], EVENTS[4]],
        listed: EVENTS,
    },
    Exhibit {
        name: "echo",
        title: "An echo server: messages a second",
        scale: Scale::Own,
        peers: PEERS,
        drawn: SERVERS,
        listed: &[
            SERVERS[0],
            SERVERS[1],
            SERVERS[2],
            ["1,000 clients: messages a second", "echo", "1000", "messages/s"],
            SERVERS[3],
            ["1 client: an answer, p50", "echo", "1", "p50 [µs]"],
            ["1 client: an answer, p99", "echo", "1", "p99 [µs]"],
            ["256 clients: an answer, p99", "echo", "256", "p99 [µs]"],
        ],
    },
    Exhibit {
        name: "counts",
        title: "System calls and instructions",
        scale: Scale::Own,
        peers: &[BASE, US, "mio", "polling"],
        drawn: &[],
        listed: &[
            ["an event: system calls", "counts", "an event, edge, 1 at once", "system calls"],
            ["add and delete: system calls", "counts", "add and delete", "system calls"],
            ["modify: system calls", "counts", "modify", "system calls"],
            [
                "a wake and the wait for it: system calls",
                "counts",
                "wake, and the wait for it",
                "system calls",
            ],
            [
                "a wait that times out: system calls",
                "counts",
                "a wait of 500 µs that times out",
                "system calls",
            ],
            ["an event: instructions", "counts", "an event, edge, 1 at once", "instructions"],
            ["add and delete: instructions", "counts", "add and delete", "instructions"],
            ["modify: instructions", "counts", "modify", "instructions"],
            [
                "a wake and the wait for it: instructions",
                "counts",
                "wake, and the wait for it",
                "instructions",
            ],
            [
                "a wait that times out: instructions",
                "counts",
                "a wait of 500 µs that times out",
                "instructions",
            ],
        ],
    },
    Exhibit {
        name: "wake",
        title: "A wake",
        scale: Scale::Own,
        peers: PEERS,
        drawn: WAKES,
        listed: &[
            WAKES[0],
            WAKES[1],
            WAKES[2],
            WAKES[3],
            WAKES[4],
            WAKES[5],
            ON_BUSY_CORES,
            ["an event, without a waker", "wake", "an event", "without a waker [ns]"],
            ["an event, with a waker", "wake", "an event", "with a waker [ns]"],
        ],
    },
    Exhibit {
        name: "spin",
        title: "With and without spinning",
        scale: Scale::Own,
        peers: &[BASE, US, US_SPINNING],
        drawn: &[
            WAKES[4],
            WAKES[5],
            ["one client: messages a second", "echo", "1", "messages/s"],
            SERVERS[2],
        ],
        listed: &[
            WAKES[4],
            ON_BUSY_CORES,
            WAKES[5],
            SERVERS[0],
            [
                "1 client, two busy cores: messages a second",
                "echo",
                "1, two busy cores",
                "messages/s",
            ],
            [
                "1 client, 20 µs between: messages a second",
                "echo",
                "1, 20 µs between",
                "messages/s",
            ],
            ["– time on a core for each", "echo", "1, 20 µs between", "core of the server [µs]"],
            [
                "1 client, 100 µs between: messages a second",
                "echo",
                "1, 100 µs between",
                "messages/s",
            ],
            ["– time on a core for each", "echo", "1, 100 µs between", "core of the server [µs]"],
            [
                "4 clients, 20 µs between: messages a second",
                "echo",
                "4, 20 µs between",
                "messages/s",
            ],
            ["– time on a core for each", "echo", "4, 20 µs between", "core of the server [µs]"],
            SERVERS[2],
            ["a loop that wakes up every 10 ms", "idle", "every 10 ms", "time [% of a core]"],
        ],
    },
    Exhibit {
        name: "limits",
        title: "Spinning, by limit",
        scale: Scale::Own,
        peers: &[BASE_SPINNING, US, "20 µs", "50 µs", "100 µs", "1,000 µs"],
        drawn: &[],
        listed: &[
            ["a wake and the wake back, two cores: p50", "spin", "two cores", "p50 [µs]"],
            ["a wake and the wake back, two cores: p99", "spin", "two cores", "p99 [µs]"],
            ["– on one core: mean, next to no spinning", "spin", "one core", "mean [µs]"],
            [
                "rounds until in step, after a start 10 ms late",
                "spin",
                "recovery",
                "after a late start [rounds]",
            ],
            [
                "rounds until in step, after a pause of 10 ms",
                "spin",
                "recovery",
                "after a pause [rounds]",
            ],
            [
                "rounds until in step, after sharing a core",
                "spin",
                "recovery",
                "after sharing a core [rounds]",
            ],
        ],
    },
    Exhibit {
        name: "share",
        title: "Several threads: one poller, or a poller each; the time for a byte",
        scale: Scale::Shared,
        peers: &[BASE, US, US_SPINNING],
        drawn: SHARED,
        listed: SHARED,
    },
    Exhibit {
        name: "registering",
        title: "A registration with epoll",
        scale: Scale::Own,
        peers: PEERS,
        drawn: REGISTERING,
        listed: REGISTERING,
    },
    Exhibit {
        name: "kqueue",
        title: "Registering READABLE with FreeBSD's kqueue: time, modify is 1",
        scale: Scale::Shared,
        peers: &["pollio", "mio's calls", "polling's calls"],
        drawn: &[
            ["add, edge", "kqueue", "add, edge", "READABLE: time"],
            ["add, oneshot", "kqueue", "add, oneshot", "READABLE: time"],
            ["modify, edge", "kqueue", "modify, edge", "READABLE: time"],
            ["re-arm, oneshot", "kqueue", "re-arm, oneshot", "READABLE: time"],
            ["delete", "kqueue", "delete", "READABLE: time"],
        ],
        listed: &[
            ["add, edge: time", "kqueue", "add, edge", "READABLE: time"],
            ["– changes", "kqueue", "add, edge", "READABLE: changes"],
            ["add, oneshot: time", "kqueue", "add, oneshot", "READABLE: time"],
            ["– changes", "kqueue", "add, oneshot", "READABLE: changes"],
            ["modify, edge: time", "kqueue", "modify, edge", "READABLE: time"],
            ["– changes", "kqueue", "modify, edge", "READABLE: changes"],
            ["re-arm, oneshot: time", "kqueue", "re-arm, oneshot", "READABLE: time"],
            ["– changes", "kqueue", "re-arm, oneshot", "READABLE: changes"],
            ["delete: time", "kqueue", "delete", "READABLE: time"],
            ["– changes", "kqueue", "delete", "READABLE: changes"],
        ],
    },
    Exhibit {
        name: "send",
        title: "A producer into a loop: messages a second",
        scale: Scale::Own,
        peers: &[US, US_SPINNING, "mio, crossbeam-channel", "polling, async-channel", "tokio"],
        drawn: &[
            ["to a loop whose sockets are quiet", "send", "quiet sockets", "messages/s"],
            ["to a loop whose sockets are busy", "send", "busy sockets", "messages/s"],
        ],
        listed: &[
            ["messages a second, quiet sockets", "send", "quiet sockets", "messages/s"],
            ["messages a second, busy sockets", "send", "busy sockets", "messages/s"],
            ["– the sockets' bytes a second", "send", "busy sockets", "bytes of the sockets/s"],
            [
                "system calls a message, loop awake",
                "counts",
                "a message to a loop that is awake",
                "system calls",
            ],
            [
                "system calls a message, loop asleep",
                "counts",
                "a message to a loop that sleeps",
                "system calls",
            ],
        ],
    },
    Exhibit {
        name: "memory",
        title: "The heap of a poller, in bytes",
        scale: Scale::Own,
        peers: PEERS,
        drawn: HEAP,
        listed: HEAP,
    },
    Exhibit {
        name: "timeout",
        title: "How late a wait ends that nothing else ends",
        scale: Scale::Own,
        peers: PEERS,
        drawn: &[LATE[0], LATE[2]],
        listed: LATE,
    },
    Exhibit {
        name: "look_up",
        title: "Finding a connection by its event",
        scale: Scale::Own,
        peers: &["HashMap", "Connections"],
        drawn: &[],
        listed: &[
            ["of 10", "look_up", "of 10", "a look-up [ns]"],
            ["of 1,000", "look_up", "of 1000", "a look-up [ns]"],
            ["of 4,000", "look_up", "of 4000", "a look-up [ns]"],
        ],
    },
];

const EVENTS: &[Line] = &[
    ["level, 1 of 1,000 is ready", "ready_events", "level, 1 of 1000", "an event [ns]"],
    ["edge, 1 of 1,000 is ready", "ready_events", "edge, 1 of 1000", "an event [ns]"],
    ["oneshot, 1 of 1,000 is ready", "ready_events", "oneshot, 1 of 1000", "an event [ns]"],
    ["level, 256 of 1,000 are ready", "ready_events", "level, 256 of 1000", "an event [ns]"],
    ["edge, 256 of 1,000 are ready", "ready_events", "edge, 256 of 1000", "an event [ns]"],
    ["oneshot, 256 of 1,000 are ready", "ready_events", "oneshot, 256 of 1000", "an event [ns]"],
    ["a chain of 100 beside 1,000 idle", "many_idle", "1000", "an event [ns]"],
    ["a chain of 100 beside 18,000 idle", "many_idle", "18000", "an event [ns]"],
];

const LATE: &[Line] = &[
    ["after 50 µs: late by, p50", "timeout", "50µs", "late, p50 [µs]"],
    ["after 500 µs: late by, p50", "timeout", "500µs", "late, p50 [µs]"],
    ["after 5 ms: late by, p50", "timeout", "5ms", "late, p50 [µs]"],
    ["after 5 ms: late by, p99", "timeout", "5ms", "late, p99 [µs]"],
];

const SHARED: &[Line] = &[
    ["2 threads, one poller", "share", "2 threads, one poller", "a byte [ns]"],
    ["2 threads, a poller each", "share", "2 threads, a poller each", "a byte [ns]"],
    ["4 threads, one poller", "share", "4 threads, one poller", "a byte [ns]"],
    ["4 threads, a poller each", "share", "4 threads, a poller each", "a byte [ns]"],
    ["8 threads, one poller", "share", "8 threads, one poller", "a byte [ns]"],
    ["8 threads, a poller each", "share", "8 threads, a poller each", "a byte [ns]"],
];

const REGISTERING: &[Line] = &[
    ["add and delete", "add_delete", "add and delete", "both calls [ns]"],
    ["modify", "modify", "modify", "a call [ns]"],
];

const HEAP: &[Line] = &[
    ["a poller", "memory", "heap", "a poller [bytes]"],
    ["a registration", "memory", "heap", "a registration [bytes]"],
];

impl Exhibit {
    pub(crate) fn is_drawn(&self) -> bool {
        !self.drawn.is_empty()
    }

    pub(crate) fn picture(&self, data: &Data) -> String {
        picture::svg(self.title, self.scale, &groups(&found(self.drawn, data), self.peers))
    }

    pub(crate) fn table(&self, data: &Data) -> String {
        table(&found(self.listed, data), self.peers)
    }
}

/// The rows of the data, with their names.
type Found<'a> = Vec<(&'static str, &'a Row)>;

fn found<'a>(lines: &[Line], data: &'a Data) -> Found<'a> {
    let row = |[name, workload, case, metric]: &Line| {
        let is_it =
            |row: &&Row| row.workload == *workload && row.case == *case && row.metric == *metric;
        Some((*name, data.all_rows().find(is_it)?))
    };
    lines.iter().filter_map(row).collect()
}

/// A picture of all rows with a rate per second.
pub(crate) fn picture_of(title: &str, rows: &[Row]) -> String {
    let groups = rows.iter().filter(|row| row.metric.ends_with("/s")).map(|row| {
        let peers: Vec<_> = row.cells.iter().map(|cell| &*cell.peer).collect();
        group(&format!("{}, {}", row.workload, row.case), row, &peers)
    });
    picture::svg(title, Scale::Own, &groups.collect::<Vec<_>>())
}

/// A table for each workload, with a line for each case: the first metric of the first peer, and each metric of the
/// others as a multiple of the first peer's.
pub(crate) fn tables_of(rows: &[Row]) -> String {
    let of_workload = rows.chunk_by(|one, other| one.workload == other.workload);
    of_workload.map(table_of_cases).collect::<Vec<_>>().join("\n\n")
}

fn table_of_cases(rows: &[Row]) -> String {
    let cases: Vec<_> = rows.chunk_by(|one, other| one.case == other.case).collect();
    let first = &rows[0];
    let mut heads =
        vec![first.workload.clone(), format!("{}: {}", first.cells[0].peer, first.metric)];
    for row in cases[0] {
        let others = row.cells.iter().skip(1);
        heads.extend(others.map(|cell| format!("{}: {}", cell.peer, without_unit(&row.metric))));
    }
    let mut lines =
        vec![format!("| {} |", heads.join(" | ")), format!("|{}", "---|".repeat(heads.len()))];
    for rows in cases {
        let base = rows[0].cell(&rows[0].cells[0].peer);
        let mut cells = vec![rows[0].case.clone()];
        cells.push(base.map_or("–".to_owned(), |figure| with_unit(&rows[0], figure.median)));
        for row in rows {
            let ratios = row.cells.iter().skip(1).map(|cell| row.ratio(&cell.peer));
            cells.extend(ratios.map(|times| {
                times.map_or("–".to_owned(), |times| format!("×{}", ratio(times.median)))
            }));
        }
        lines.push(format!("| {} |", cells.join(" | ")));
    }
    lines.join("\n")
}

fn groups(rows: &Found<'_>, peers: &[&str]) -> Vec<Group> {
    rows.iter().map(|(heading, row)| group(heading, row, peers)).collect()
}

fn group(heading: &str, row: &Row, peers: &[&str]) -> Group {
    let bar = |peer: &&str| {
        let figure = row.cell(peer)?;
        Some(Bar { peer: (*peer).to_owned(), figure, text: with_unit(row, figure.median) })
    };
    Group { heading: heading.to_owned(), bars: peers.iter().filter_map(bar).collect() }
}

/// The first peer has figures, and the others are multiples of it. All have figures in a row that compares nothing or
/// counts something. A row whose name begins with the unit has bare numbers.
fn table(rows: &Found<'_>, peers: &[&str]) -> String {
    let is_there = |peer: &&&str| rows.iter().any(|(_, row)| row.cell(peer).is_some());
    let there: Vec<&str> = peers.iter().filter(is_there).copied().collect();
    let mut lines = vec![
        format!("| | {} |", there.join(" | ")),
        format!("|---|{}", "---|".repeat(there.len())),
    ];
    for (name, row) in rows {
        let cell = |peer: &&str| match (row.cell(peer), row.ratio(peer)) {
            (None, _) => "–".to_owned(),
            (Some(_), Some(times)) if *peer != peers[0] && row.workload != "counts" => {
                format!("×{}", ratio(times.median))
            }
            (Some(figure), _) => match unit(&row.metric) {
                Some(unit) if name.starts_with(unit) => digits(figure.median),
                _ => with_unit(row, figure.median),
            },
        };
        let cells: Vec<_> = there.iter().map(cell).collect();
        lines.push(format!("| {name} | {} |", cells.join(" | ")));
    }
    lines.join("\n")
}
