//! The behaviour of each kernel, with the function of its source: in XNU's bsd/kern/kern_event.c, and in
//! kern/kern_event.c of FreeBSD, NetBSD, OpenBSD and DragonFly, unless another file is named.

use std::io::{Read, Seek, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::os::unix::net::UnixDatagram;
use std::process::{Command, Stdio};
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering::SeqCst;

use nix::sys::stat::Mode;
use nix::sys::wait::{Id, WaitPidFlag, waitid};
use nix::unistd::{Pid, mkfifo};
use socket2::SockRef;

use super::tests::{Kq, errno, ident, read, ready_on, user, write};
use super::*;
use crate::support::descriptors::{drain, fill, pair, pipe, tcp_pair};
use Kernel::{Apple, DragonFly, FreeBsd, NetBsd, OpenBsd};

const ALL: [Kernel; 5] = [Apple, FreeBsd, NetBsd, OpenBsd, DragonFly];
const MS: Duration = Duration::from_millis(1);

fn except(of: &impl AsRawFd, flags: Flags) -> Kevent {
    let mark = NOTE_OOB | NOTE_LOWAT;
    Kevent::new(ident(of), EXCEPT, flags).with_fflags(mark).with_data(i64::MAX)
}

/// No kernel has a lock over the list: `kevent_register`, `kqueue_register`.
#[test]
fn another_thread_waits_between_two_changes_of_a_list() {
    for kernel in ALL {
        let (kq, near, _far) = ready_on(kernel);
        let both = [read(&near, EV_ADD | EV_DISPATCH), write(&near, EV_ADD | EV_DISPATCH)];
        let is_split = || {
            thread::scope(|scope| {
                let waiting = scope.spawn(|| kq.events_up_to(2, 100 * MS).len());
                kevent(kq.fd(), &both, &mut [], None).unwrap();
                let count = waiting.join().unwrap();
                kq.pending();
                kq.change(read(&near, EV_DELETE));
                kq.change(write(&near, EV_DELETE));
                count == 1
            })
        };
        assert!((0..1_000).any(|_| is_split()), "{kernel:?}");
    }
}

/// `filt_timerprocess`: the elapsed time divided by the period, also for a timer that goes off once.
#[test]
fn a_timer_that_goes_off_once_counts_more_than_one_on_apple() {
    for kernel in ALL {
        let kq = Kq::on(kernel);
        let once = Kevent::new(1, EVFILT_TIMER, EV_ADD | EV_ONESHOT).with_data(2);
        kq.change(once);
        thread::sleep(20 * MS);
        let event = kq.one();
        assert!(event.has(EV_ONESHOT));
        assert_eq!(event.data() >= 10, kernel == Apple, "{kernel:?}: {}", event.data());
    }
}

/// `kqueue_scan_continue`, for a timeout of zero without KEVENT_FLAG_IMMEDIATE.
#[test]
fn an_empty_poll_can_be_interrupted_on_apple() {
    for kernel in ALL {
        let kq = Kq::on(kernel);
        let mut polls = (0..20).map(|_| {
            kevent(kq.fd(), &[], &mut [Kevent::NONE], Some(Duration::ZERO)).map_err(|e| errno(&e))
        });
        assert_eq!(polls.any(|poll| poll == Err(Errno::EINTR)), kernel == Apple, "{kernel:?}");
    }
}

/// NetBSD's `kqueue_scan` tests EV_DISPATCH only without EV_CLEAR.
#[test]
fn clear_hides_dispatch_on_netbsd() {
    for kernel in ALL {
        let (near, mut far) = pair();
        let kq = Kq::on(kernel);
        kq.change(read(&near, EV_ADD | EV_CLEAR | EV_DISPATCH));
        for count in [1, usize::from(kernel == NetBsd)] {
            far.write_all(b"x").unwrap();
            assert_eq!(kq.pending().len(), count, "{kernel:?}");
        }
    }
}

/// FreeBSD's `filt_procattach` accepts a zombie; macOS's `proc_find` and OpenBSD's `prfind` do not.
#[test]
fn a_process_that_has_ended_is_found_on_freebsd() {
    for kernel in ALL {
        let mut child = Command::new("true").stdin(Stdio::null()).spawn().unwrap();
        let pid = child.id() as usize;
        let is_over = WaitPidFlag::WEXITED | WaitPidFlag::WNOWAIT;
        waitid(Id::Pid(Pid::from_raw(pid.try_into().unwrap())), is_over).unwrap();
        let kq = Kq::on(kernel);
        let added = kq.try_change(Kevent::new(pid, EVFILT_PROC, EV_ADD).with_fflags(NOTE_EXIT));
        if kernel == FreeBsd {
            assert_eq!((added, kq.one().fflags()), (Ok(()), NOTE_EXIT));
        } else {
            assert_eq!(added, Err(Errno::ESRCH), "{kernel:?}");
        }
        child.wait().unwrap();
    }
}

/// `filt_soread_common` in bsd/kern/uipc_socket.c: the mark is at most the size of the buffer.
#[test]
fn except_fires_without_its_note_on_a_full_buffer_on_apple() {
    for kernel in [Apple, OpenBsd, DragonFly] {
        let (near, far) = tcp_pair();
        let kq = Kq::on(kernel);
        kq.change(except(&near, EV_ADD));
        (&far).write_all(b"in band").unwrap();
        assert!(kq.events_up_to(1, 20 * MS).is_empty(), "{kernel:?}");
        fill(&far);
        let events = kq.events_up_to(1, 50 * MS);
        assert_eq!(events.len(), usize::from(kernel == Apple), "{kernel:?}");
        assert!(events.iter().all(|event| event.fflags() & NOTE_OOB == 0));
    }
}

/// `filt_soread_common`: it checks for connections to accept before the mark.
#[test]
fn except_fires_without_its_note_on_a_listener_with_a_client_on_apple() {
    for kernel in [Apple, OpenBsd, DragonFly] {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let kq = Kq::on(kernel);
        kq.change(except(&listener, EV_ADD | EV_CLEAR));
        let _client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let events = kq.events_up_to(1, 50 * MS);
        assert_eq!(events.len(), usize::from(kernel == Apple), "{kernel:?}");
        assert!(events.iter().all(|event| event.fflags() & NOTE_OOB == 0));
    }
}

/// `knote_process` disables a knote that dispatches, even if its filter found nothing.
#[test]
fn a_full_buffer_uses_up_an_except_that_dispatches_on_apple() {
    for (flags, is_used_up) in [(EV_DISPATCH, true), (EV_CLEAR, false)] {
        let (near, far) = pair();
        let kq = Kq::on(Apple);
        kq.change(except(&near, EV_ADD | flags));
        fill(&far);
        assert_eq!(kq.one().fflags() & NOTE_OOB, 0);
        drain(&near);
        far.shutdown(Shutdown::Write).unwrap();
        assert_eq!(kq.pending().is_empty(), is_used_up);
    }
}

/// `filt_soread_common` sets the note, and only EV_CLEAR takes it away (`knote_fill_kevent_with_sdata`).
#[test]
fn the_note_of_except_stays_with_a_level_on_apple() {
    for (flags, stays) in [(0, true), (EV_CLEAR, false)] {
        let (mut near, far) = tcp_pair();
        let kq = Kq::on(Apple);
        kq.change(except(&near, EV_ADD | flags));
        SockRef::from(&far).send_out_of_band(b"!").unwrap();
        assert!(kq.one().fflags() & NOTE_OOB != 0);
        (&far).write_all(b"in band").unwrap();
        while near.read(&mut [0; 64]).is_ok() {}
        fill(&far);
        let events = kq.events_up_to(1, 50 * MS);
        assert!(!events.is_empty());
        assert_eq!(events.iter().all(|event| event.fflags() & NOTE_OOB != 0), stays);
    }
}

/// `filt_soread_common` reports the end; OpenBSD's `filt_soexcept` and DragonFly's `filt_soread` do not.
#[test]
fn except_reports_the_end_on_apple() {
    for kernel in [Apple, OpenBsd, DragonFly] {
        let (near, far) = tcp_pair();
        let kq = Kq::on(kernel);
        kq.change(except(&near, EV_ADD));
        far.shutdown(Shutdown::Write).unwrap();
        let events = kq.events_up_to(1, 50 * MS);
        assert_eq!(events.len(), usize::from(kernel == Apple), "{kernel:?}");
    }
}

/// FreeBSD's `pipeclose` in kern/sys_pipe.c, `knlist_clear`.
#[test]
fn the_writer_of_a_pipe_loses_its_knote_with_the_reader_on_freebsd() {
    for kernel in [Apple, FreeBsd, OpenBsd, DragonFly] {
        let (reader, writer) = pipe();
        let kq = Kq::on(kernel);
        kq.change(write(&writer, EV_ADD));
        drop(reader);
        let event = kq.one();
        assert!(event.has(EV_EOF));
        assert_eq!(event.has(EV_ONESHOT), kernel == FreeBsd, "{kernel:?}");
        let deleted = kq.try_change(write(&writer, EV_DELETE));
        assert_eq!(deleted == Err(Errno::ENOENT), kernel == FreeBsd, "{kernel:?}");
    }
}

/// NetBSD's `pipeclose` in kern/sys_pipe.c wakes no knote for room.
#[test]
fn the_writer_of_a_full_pipe_gets_no_event_of_the_reader_on_netbsd() {
    for kernel in ALL {
        let (reader, writer) = pipe();
        let kq = Kq::on(kernel);
        fill(&writer);
        kq.change(write(&writer, EV_ADD));
        drop(reader);
        let events = kq.events_up_to(1, 50 * MS);
        assert_eq!(events.len(), usize::from(kernel != NetBsd), "{kernel:?}");
    }
}

/// `pipe_kqfilter`: macOS registers it since 10.15; FreeBSD returns EPIPE and NetBSD EBADF, for either end. Only the
/// filter for reading is accepted, and reports the end.
#[test]
fn a_pipe_without_its_other_end_is_writable_on_apple_and_refused_by_others() {
    for kernel in ALL {
        for is_writer in [false, true] {
            let (reader, writer) = pipe();
            let (left, other) = if is_writer { (writer, reader) } else { (reader, writer) };
            drop(other);
            let kq = Kq::on(kernel);
            let expected = match kernel {
                Apple => Ok(()),
                NetBsd => Err(Errno::EBADF),
                _ => Err(Errno::EPIPE),
            };
            assert_eq!(kq.try_change(write(&left, EV_ADD)), expected, "{kernel:?}, {is_writer}");
            kq.change(read(&left, EV_ADD));
            let events = kq.events_up_to(8, MS);
            assert!(events.iter().all(|event| event.has(EV_EOF)), "{kernel:?}, {is_writer}");
            assert_eq!(events.len(), 1 + usize::from(kernel == Apple), "{kernel:?}, {is_writer}");
        }
    }
}

/// FreeBSD's `pipe_kqfilter` attaches the filter to the other end of a pipe that goes both ways. NetBSD's does too, but
/// its reading end has no room.
#[test]
fn the_reading_end_of_a_pipe_is_writable_on_freebsd_until_the_writer_leaves() {
    for kernel in ALL {
        for flags in [0, EV_CLEAR] {
            let (reader, writer) = pipe();
            let kq = Kq::on(kernel);
            kq.change(write(&reader, EV_ADD | flags));
            assert_eq!(kq.pending().len(), usize::from(kernel == FreeBsd), "{kernel:?}");
            let again = usize::from(kernel == FreeBsd && flags == 0);
            assert_eq!(kq.pending().len(), again, "{kernel:?}");
            drop(writer);
            let events = kq.events_up_to(8, 20 * MS);
            assert_eq!(events.len(), usize::from(kernel != NetBsd), "{kernel:?}");
            let is_last = |event: &Kevent| event.has(EV_EOF) && event.has(EV_ONESHOT);
            assert_eq!(events.iter().any(is_last), kernel == FreeBsd, "{kernel:?}");
        }
    }
}

/// `kqueue_register` before NetBSD 10.
#[test]
fn a_knote_that_is_added_as_disabled_is_active_for_a_moment_on_netbsd() {
    for kernel in ALL {
        let (kq, near, _far) = ready_on(kernel);
        let is_active = || {
            thread::scope(|scope| {
                let waiting = scope.spawn(|| kq.events_up_to(1, 20 * MS).len());
                thread::sleep(MS);
                kq.change(read(&near, EV_ADD | EV_DISABLE));
                let count = waiting.join().unwrap();
                kq.change(read(&near, EV_DELETE));
                count == 1
            })
        };
        assert_eq!((0..50).any(|_| is_active()), kernel == NetBsd, "{kernel:?}");
    }
}

/// `filt_vnode_common` in bsd/vfs/vfs_vnops.c.
#[test]
fn a_named_pipe_has_no_end_on_apple() {
    let path = env::temp_dir().join(format!("pollio-fifo-{}", std::process::id()));
    for kernel in [Apple, FreeBsd] {
        mkfifo(&path, Mode::S_IRWXU).unwrap();
        let both = || File::options().read(true).write(true).open(&path).unwrap();
        let keep = both();
        let reader = File::open(&path).unwrap();
        let mut writer = File::options().write(true).open(&path).unwrap();
        drop(keep);
        fs::remove_file(&path).unwrap();
        let kq = Kq::on(kernel);
        kq.change(read(&reader, EV_ADD));
        writer.write_all(b"x").unwrap();
        kq.one();
        assert_eq!((&reader).read(&mut [0; 8]).unwrap(), 1);
        drop(writer);
        let events = kq.events_up_to(1, 50 * MS);
        assert_eq!(events.len(), usize::from(kernel != Apple), "{kernel:?}");
    }
}

/// `knote_fdfind`: without EV_ADD it never looks at the descriptor.
#[test]
fn a_number_that_is_not_open_is_unknown_on_apple() {
    for kernel in ALL {
        let kq = Kq::on(kernel);
        let expected = if kernel == Apple { Errno::ENOENT } else { Errno::EBADF };
        for flags in [EV_DELETE, EV_ENABLE, EV_DISABLE] {
            let change = Kevent::new(1 << 30, EVFILT_READ, flags);
            assert_eq!(kq.try_change(change), Err(expected), "{kernel:?}");
        }
        assert_eq!(kq.try_change(Kevent::new(1 << 30, EVFILT_READ, EV_ADD)), Err(Errno::EBADF));
    }
}

/// `pipe_read` and `pipe_write` in bsd/kern/sys_pipe.c wake both ends. FreeBSD and NetBSD ran it.
#[test]
fn a_pipe_has_edges_of_partial_reads_and_own_writes_on_apple_freebsd_and_netbsd() {
    for kernel in ALL {
        let (mut reader, mut writer) = pipe();
        let kq = Kq::on(kernel);
        writer.write_all(b"some").unwrap();
        kq.change(read(&reader, EV_ADD | EV_CLEAR));
        kq.change(write(&writer, EV_ADD | EV_CLEAR));
        assert_eq!(kq.pending().len(), 2);
        kq.pending();
        assert_eq!(kq.pending(), []);
        reader.read_exact(&mut [0; 2]).unwrap();
        let is_read = kq.pending().contains(&(ident(&reader), EVFILT_READ));
        writer.write_all(b"more").unwrap();
        let is_written = kq.pending().contains(&(ident(&writer), EVFILT_WRITE));
        let expected = matches!(kernel, Apple | FreeBsd | NetBsd);
        assert_eq!((is_read, is_written), (expected, expected), "{kernel:?}");
    }
}

/// The filters of vnodes: `filt_vnode_common`, `filt_vfsread`, `filt_ufsread`.
#[test]
fn a_file_is_silent_at_its_end() {
    for kernel in ALL {
        let mut file = tempfile();
        file.write_all(b"some").unwrap();
        file.rewind().unwrap();
        let kq = Kq::on(kernel);
        kq.change(read(&file, EV_ADD));
        kq.one();
        kq.one();
        file.read_exact(&mut [0; 4]).unwrap();
        assert_eq!(kq.pending(), [], "{kernel:?}");
    }
}

fn tempfile() -> File {
    let path = env::temp_dir().join(format!("pollio-file-{}", std::process::id()));
    let file = File::options().read(true).write(true).create(true).truncate(true).open(&path);
    fs::remove_file(path).unwrap();
    file.unwrap()
}

/// `kern_accept4` in kern/uipc_syscalls.c ends in KNOTE.
#[test]
fn an_accept_is_an_edge_while_others_wait_on_freebsd_and_netbsd() {
    for kernel in ALL {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let kq = Kq::on(kernel);
        kq.change(read(&listener, EV_ADD | EV_CLEAR));
        let connect = |_| TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let _clients: Vec<_> = (0..3).map(connect).collect();
        kq.one();
        while !kq.events_up_to(8, 20 * MS).is_empty() {}
        let is_edge = matches!(kernel, FreeBsd | NetBsd);
        for left in [2, 1, 0] {
            listener.accept().unwrap();
            let expected = usize::from(is_edge && left > 0);
            assert_eq!(kq.pending().len(), expected, "{kernel:?}, {left} left");
        }
    }
}

/// `sorflush` in kern/uipc_socket.c clears SB_KNOTE. FreeBSD and NetBSD ran it.
#[test]
fn an_edge_of_a_reset_is_lost_after_the_own_shutdown_of_reading_on_freebsd_and_netbsd() {
    for (kernel, is_heard) in [(FreeBsd, false), (NetBsd, false), (OpenBsd, true)] {
        let (near, far) = tcp_pair();
        let kq = Kq::on(kernel);
        kq.change(read(&near, EV_ADD | EV_CLEAR));
        near.shutdown(Shutdown::Read).unwrap();
        assert!(kq.one().has(EV_EOF));
        SockRef::from(&far).set_linger(Some(Duration::ZERO)).unwrap();
        drop(far);
        assert_eq!(!kq.events_up_to(1, 50 * MS).is_empty(), is_heard, "{kernel:?}");
    }
}

/// Apple's and FreeBSD's `sowwakeup` runs at every read of the peer, like Linux's `unix_write_space`.
#[test]
fn a_read_of_the_peer_is_an_edge_of_room() {
    for kernel in [Apple, FreeBsd] {
        let (near, mut far) = pair();
        let kq = Kq::on(kernel);
        kq.change(write(&near, EV_ADD | EV_CLEAR));
        kq.one();
        (&near).write_all(b"x").unwrap();
        kq.pending();
        far.read_exact(&mut [0]).unwrap();
        assert_eq!(kq.pending().len(), 1, "{kernel:?}");
    }
}

/// `filt_sowrite_common` since macOS 13 looks at the peer's buffer, and `uipc_rcvd` before 15 wakes nobody.
#[test]
fn a_full_unix_datagram_socket_gets_no_event_of_its_peers_reads_on_apple() {
    for kernel in ALL {
        for flags in [0, EV_CLEAR, EV_DISPATCH] {
            let (near, far) = UnixDatagram::pair().unwrap();
            near.set_nonblocking(true).unwrap();
            far.set_nonblocking(true).unwrap();
            while near.send(&[0; 1_000]).is_ok() {}
            let kq = Kq::on(kernel);
            kq.change(write(&near, EV_ADD | flags));
            assert_eq!(kq.pending(), [], "{kernel:?}");
            while far.recv(&mut [0; 1_000]).is_ok() {}
            let events = kq.events_up_to(1, 20 * MS);
            assert_eq!(events.is_empty(), kernel == Apple, "{kernel:?}, {flags:#x}");
            kq.change(write(&near, EV_ADD | EV_ENABLE));
            assert_eq!(kq.one().filter(), EVFILT_WRITE, "{kernel:?}");
        }
    }
}

/// `filt_pipe_draincommon` in bsd/kern/sys_pipe.c.
#[test]
fn each_end_of_a_pipe_has_both_ends_on_apple() {
    let (reader, writer) = pipe();
    let (other_reader, other_writer) = pipe();
    let kq = Kq::on(Apple);
    kq.change(write(&reader, EV_ADD));
    kq.change(read(&other_writer, EV_ADD));
    assert_eq!(kq.pending(), []);
    drop((writer, other_reader));
    let events = kq.events_up_to(8, 20 * MS);
    assert!(events.iter().all(|event| event.has(EV_EOF) && event.fflags() == 0));
    assert_eq!(events.len(), 2);
}

/// `filt_soread_common` looks at the mark first.
#[test]
fn data_behind_out_of_band_data_is_out_of_band_again_on_apple() {
    let (near, far) = tcp_pair();
    let kq = Kq::on(Apple);
    kq.change(except(&near, EV_ADD | EV_CLEAR));
    SockRef::from(&far).send_out_of_band(b"!").unwrap();
    assert!(kq.one().fflags() & NOTE_OOB != 0);
    assert_eq!(kq.pending(), []);
    (&far).write_all(b"in band").unwrap();
    assert!(kq.one().fflags() & NOTE_OOB != 0);
}

/// `filt_kqueue` and `kqueue_poll` count queued knotes, and a reported level is queued again. Apple, FreeBSD and NetBSD
/// ran it.
#[test]
fn a_kqueue_is_readable_after_a_level_until_it_is_waited_on_again() {
    for kernel in ALL {
        let (inner, mut near, _far) = ready_on(kernel);
        let outer = Kq::on(kernel);
        outer.change(read(inner.owned(), EV_ADD));
        let stays = matches!(kernel, Apple | FreeBsd | NetBsd);
        for is_deleted in [false, true] {
            inner.change(read(&near, EV_ADD));
            if is_deleted {
                inner.change(read(&near, EV_DELETE));
                assert!(!inner.is_readable(), "{kernel:?}");
                continue;
            }
            inner.one();
            drain(&mut near);
            assert_eq!(inner.is_readable(), stays, "{kernel:?}");
            assert_eq!(outer.pending().len(), usize::from(stays), "{kernel:?}");
            assert_eq!(inner.pending(), [], "{kernel:?}");
            assert!(!inner.is_readable(), "{kernel:?}");
            outer.pending();
            assert_eq!(outer.pending(), [], "{kernel:?}");
        }
    }
}

/// `kqueue_kqfilter`, or its counterpart.
#[test]
fn a_kqueue_cannot_be_written_and_the_errors_differ() {
    for kernel in ALL {
        let (outer, inner) = (Kq::on(kernel), Kq::on(kernel));
        let expected = match kernel {
            NetBsd => Errno::EPERM,
            DragonFly => Errno::EOPNOTSUPP,
            _ => Errno::EINVAL,
        };
        assert_eq!(outer.try_change(write(inner.owned(), EV_ADD)), Err(expected), "{kernel:?}");
    }
}

/// The systems with EVFILT_USER.
const WITH_USER: [Kernel; 4] = [Apple, FreeBsd, OpenBsd, DragonFly];

/// A kqueue of each system with EVFILT_USER, and a user event in it with EV_CLEAR.
fn each_with_a_user_event() -> impl Iterator<Item = (Kernel, Kq)> {
    WITH_USER.into_iter().map(|kernel| {
        let kq = Kq::on(kernel);
        kq.change(user(EV_ADD | EV_CLEAR, 0).with_udata(1));
        (kernel, kq)
    })
}

/// NetBSD 7.99 ran it: `kfilter_byfilter` finds no such filter.
#[test]
fn there_are_no_user_events_on_netbsd() {
    for flags in [EV_ADD, EV_ADD | EV_CLEAR, 0] {
        assert_eq!(Kq::on(NetBsd).try_change(user(flags, NOTE_TRIGGER)), Err(Errno::EINVAL));
    }
}

/// Apple and FreeBSD ran it: all waits wake up in the kernel, and all but one sleep again.
#[test]
fn a_user_event_goes_to_one_of_several_waits() {
    const WAITS: usize = 4;
    const TRIGGERS: usize = 50;
    for (kernel, kq) in each_with_a_user_event() {
        let reported = AtomicUsize::new(0);
        thread::scope(|scope| {
            for _ in 0..WAITS {
                scope.spawn(|| {
                    while reported.load(SeqCst) < TRIGGERS {
                        reported.fetch_add(kq.events_up_to(8, 20 * MS).len(), SeqCst);
                    }
                });
            }
            for triggered in 0..TRIGGERS {
                while reported.load(SeqCst) < triggered {
                    thread::yield_now();
                }
                kq.change(user(0, NOTE_TRIGGER).with_udata(1));
            }
        });
        assert_eq!(reported.into_inner(), TRIGGERS, "{kernel:?}");
    }
}

/// Apple and FreeBSD ran it.
#[test]
fn triggers_before_a_wait_are_one_user_event() {
    for (kernel, kq) in each_with_a_user_event() {
        for _ in 0..3 {
            for _ in 0..100 {
                kq.change(user(0, NOTE_TRIGGER).with_udata(1));
            }
            assert_eq!(kq.pending().len(), 1, "{kernel:?}");
            assert_eq!(kq.pending(), [], "{kernel:?}");
        }
    }
}

/// Apple and FreeBSD ran it, with poll(2) and with another kqueue.
#[test]
fn a_kqueue_is_readable_from_a_trigger_until_its_user_event_is_taken() {
    for (kernel, inner) in each_with_a_user_event() {
        let outer = Kq::on(kernel);
        outer.change(read(inner.owned(), EV_ADD));
        assert!(!inner.is_readable(), "{kernel:?}");
        inner.change(user(0, NOTE_TRIGGER).with_udata(1));
        for _ in 0..2 {
            assert!(inner.is_readable(), "{kernel:?}");
            assert_eq!(outer.pending().len(), 1, "{kernel:?}");
        }
        assert_eq!(inner.pending().len(), 1, "{kernel:?}");
        assert!(!inner.is_readable(), "{kernel:?}");
        assert_eq!(outer.pending(), [], "{kernel:?}");
    }
}

/// `filt_usertouch` of FreeBSD and DragonFly BSD and OpenBSD's `filt_usermodify` check EV_CLEAR last, that of macOS
/// never.
#[test]
fn clear_in_a_later_change_of_a_user_event_takes_its_trigger_back_but_on_apple() {
    for (kernel, kq) in each_with_a_user_event() {
        let expected = usize::from(kernel == Apple);
        kq.change(user(EV_CLEAR, NOTE_TRIGGER).with_udata(1));
        assert_eq!(kq.pending().len(), expected, "{kernel:?}: in the trigger");
        kq.change(user(0, NOTE_TRIGGER).with_udata(1));
        kq.change(user(EV_ADD | EV_CLEAR, 0).with_udata(1));
        assert_eq!(kq.pending().len(), expected, "{kernel:?}: added again");
    }
}

/// `kevent_register` and FreeBSD's `kqueue_register`, OpenBSD's `filt_usermodify`; DragonFly's `filt_usertouch` does
/// not.
#[test]
fn a_trigger_overwrites_the_udata_of_a_user_event() {
    for (kernel, kq) in each_with_a_user_event() {
        kq.change(user(0, NOTE_TRIGGER));
        let expected = u64::from(kernel == DragonFly);
        assert_eq!(kq.one().udata(), expected, "{kernel:?}");
    }
}

/// FreeBSD's `kqueue_register` clears the fflags before `filt_userattach` looks at them.
#[test]
fn a_user_event_is_not_triggered_by_its_add_on_freebsd() {
    for kernel in WITH_USER {
        let kq = Kq::on(kernel);
        kq.change(user(EV_ADD, NOTE_TRIGGER));
        assert_eq!(kq.pending().len(), usize::from(kernel != FreeBsd), "{kernel:?}");
    }
}

/// FreeBSD's `kqueue_kevent`.
#[test]
fn filter_0_is_skipped_without_a_receipt_on_freebsd() {
    for kernel in ALL {
        let (kq, near, _far) = ready_on(kernel);
        let changes = [Kevent::new(ident(&near), 0, EV_ADD), read(&near, EV_ADD)]
            .map(|change| change.with_flags(EV_ADD | EV_RECEIPT));
        let mut receipts = [Kevent::NONE; 2];
        let count = kevent(kq.fd(), &changes, &mut receipts, None).unwrap();
        assert_eq!(count, if kernel == FreeBsd { 1 } else { 2 }, "{kernel:?}");
        assert_eq!(receipts[count - 1].filter(), EVFILT_READ);
    }
}

/// FreeBSD's `kqueue_kevent` returns its last error, 0, instead of the count. NetBSD ran it as well.
#[test]
fn too_little_room_for_receipts_is_a_count_of_0_on_freebsd_and_netbsd() {
    for kernel in ALL {
        let (kq, near, _far) = ready_on(kernel);
        let changes = [read(&near, EV_ADD | EV_RECEIPT), write(&near, EV_ADD | EV_RECEIPT)];
        let count = kevent(kq.fd(), &changes, &mut [Kevent::NONE], None).unwrap();
        assert_eq!(count, usize::from(!matches!(kernel, FreeBsd | NetBsd)), "{kernel:?}");
        assert_eq!(kq.pending().len(), 2, "both are applied");
    }
}

/// `kqueue_register`: OpenBSD and NetBSD take udata from EV_ADD only.
#[test]
fn enabling_and_disabling_overwrite_udata_on_apple_freebsd_and_dragonfly() {
    for kernel in ALL {
        let (kq, near, _far) = ready_on(kernel);
        kq.change(read(&near, EV_ADD).with_udata(1));
        kq.change(read(&near, EV_DISABLE).with_udata(2));
        kq.change(read(&near, EV_ENABLE).with_udata(3));
        let expected = if matches!(kernel, OpenBsd | NetBsd) { 1 } else { 3 };
        assert_eq!(kq.one().udata(), expected, "{kernel:?}");
    }
}

/// `kevent_register` and `kqueue_register` run the filter after every change, except on NetBSD and OpenBSD.
#[test]
fn enabling_an_enabled_knote_reports_it_again_on_apple_and_freebsd() {
    for kernel in [Apple, FreeBsd, NetBsd, OpenBsd] {
        let (kq, near, _far) = ready_on(kernel);
        kq.change(read(&near, EV_ADD | EV_CLEAR));
        kq.one();
        assert_eq!(kq.pending(), [], "{kernel:?}");
        kq.change(read(&near, EV_ENABLE));
        assert_eq!(kq.pending().len(), usize::from(kernel.can_rearm()), "{kernel:?}");
        assert_eq!(kq.pending(), [], "{kernel:?}");
    }
}

/// Apple and FreeBSD ran it: each change is independent.
#[test]
fn of_two_knotes_the_one_that_is_there_is_enabled() {
    for kernel in [Apple, FreeBsd] {
        let (kq, near, _far) = ready_on(kernel);
        kq.change(read(&near, EV_ADD | EV_DISPATCH).with_udata(1));
        kq.one();
        let changes = [write(&near, 0), read(&near, 0)]
            .map(|change| change.with_flags(EV_ENABLE | EV_RECEIPT).with_udata(2));
        let mut receipts = [Kevent::NONE; 2];
        assert_eq!(kevent(kq.fd(), &changes, &mut receipts, None).unwrap(), 2);
        let errnos = receipts.map(|receipt| receipt.data());
        assert_eq!(errnos, [Errno::ENOENT as i64, 0], "{kernel:?}");
        assert_eq!(kq.one().udata(), 2, "{kernel:?}");
    }
}

/// NetBSD's `kqueue_register` has no such check.
#[test]
fn enable_and_disable_together_are_accepted_on_netbsd() {
    for kernel in ALL {
        let (kq, near, _far) = ready_on(kernel);
        let both = kq.try_change(read(&near, EV_ADD | EV_ENABLE | EV_DISABLE));
        assert_eq!(both.is_ok(), kernel == NetBsd, "{kernel:?}");
    }
}

/// `kevent_legacy_get_deadline` before macOS 10.15; FreeBSD and NetBSD ran it.
#[test]
fn a_timeout_of_years_is_invalid_on_apple() {
    for kernel in ALL {
        let (kq, near, _far) = ready_on(kernel);
        kq.change(read(&near, EV_ADD));
        let years = Some(2 * LONGEST_TIMEOUT);
        let polled = kevent(kq.fd(), &[], &mut [Kevent::NONE], years);
        assert_eq!(polled.is_err(), kernel == Apple, "{kernel:?}");
    }
}

/// On every system, a level is silent after its descriptor is drained.
#[test]
fn a_level_ends_with_its_condition() {
    for kernel in ALL {
        let (kq, mut near, _far) = ready_on(kernel);
        kq.change(read(&near, EV_ADD));
        kq.one();
        drain(&mut near);
        assert_eq!(kq.pending(), [], "{kernel:?}");
    }
}
