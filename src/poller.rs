//! The contract: what every poller promises, whatever the kernel below it is.

use std::io;
use std::os::fd::RawFd;
use std::time::Duration;

use crate::event::Event;
use crate::object::EventObject;
use crate::registry::Registry;

/// Waits for registered descriptors to become ready.
///
/// [`OsPoller`](crate::OsPoller) is the one of the operating system. The trait is object-safe, so a loop
/// can be written over `&mut dyn Poller`. A backend provides [`new`](Self::new),
/// [`registry`](Self::registry) and [`wait_timeout`](Self::wait_timeout).
///
/// # The contract
///
/// Each clause has tests, and all but those about costs run over every backend. Where a kernel gives less,
/// [`kernels`](crate::kernels) says so.
///
/// **What comes back**
///
/// - **C1** `fd`, `kind` and `token` of an event are those of the last `add` or `modify`, for
///   every `u32` and every valid descriptor.
/// - **C2** [`Level`](crate::Mode::Level) is reported by every wait while the condition holds.
///   ([FreeBSD](crate::kernels#freebsd) reports a pipe whose reader is gone only once.)
/// - **C3** [`Edge`](crate::Mode::Edge) is reported once for each new arrival. Adding or modifying a
///   descriptor that is already ready counts as an arrival. (Some
///   [kernels](crate::kernels) have more arrivals than others: an `accept`, a partial read.)
/// - **C4** [`Oneshot`](crate::Mode::Oneshot) is reported once, for all its interests together; then not
///   again until `modify`. It stays registered: a second `add` is not needed. (If another thread waits while
///   it is registered, or the buffer ends there, [kqueue](crate::kernels#epoll-and-kqueue) may report one of its
///   interests; `modify` reports the rest.)
/// - **C5** [`Interest::NONE`](crate::Interest::NONE) keeps the registration, and reports only errors and
///   hang-ups, on kqueue nothing.
/// - **C6** The peer's half-close is [`is_read_closed`](Event::is_read_closed) together
///   with [`is_readable`](Event::is_readable); a full hang-up is also
///   [`is_write_closed`](Event::is_write_closed); a refused or reset connection is
///   [`is_error`](Event::is_error). On epoll, hang-ups and errors need no interest; the
///   half-close needs `READABLE` everywhere.
///
/// **When a wait ends**
///
/// - **C7** A wait without a timeout returns only with events. Signal handlers, and a stop and continue, do
///   not end a wait; it resumes with the remaining time.
/// - **C8** A timeout is never early, and late by no more than the kernel's slack: on Linux 50 µs, unless
///   [`PR_SET_TIMERSLACK`](https://man7.org/linux/man-pages/man2/PR_SET_TIMERSLACK.2const.html) says
///   otherwise, or a thousandth of a longer timeout, a 200th in a process with a positive `nice` value. A
///   timeout is exact to the nanosecond if the kernel can, else it is rounded up to milliseconds. Zero
///   polls. An empty slice means that nothing was ready when the wait ended, whatever interrupted it and
///   however late that was: a wait that is interrupted past its deadline polls once more.
/// - **C9** No descriptor is lost or starved. If more are ready than the buffer holds, the next waits
///   report the rest, and the buffer grows. With [`set_max_events`](crate::OsPoller::set_max_events), no wait
///   returns more events than the bound.
///
/// **Registering**
///
/// - **C10** `modify` or `delete` of what is not registered is `NotFound`. Adding what is already
///   registered is `AlreadyExists` on epoll; kqueue replaces the registration. All other errors are the
///   kernel's own, as [`Registry::add`] lists them; [kernels](crate::kernels) differ in some.
/// - **C11** pollio never closes a registered descriptor. Its own are close-on-exec, and are closed when
///   the poller, its other handles, every clone of its registry and all its wakers and channels are dropped.
/// - **C12** A wait that is already blocked sees a registration that another thread makes.
///
/// **What it costs**
///
/// - **C13** A wait does not allocate once its buffer has grown, nor do `add`, `modify`, `delete` and
///   `wake`. (On kqueue, the first registrations allocate a table of four bytes for each number.)
/// - **C14** On epoll each wait, `add`, `modify` and `delete` is one system call, for any number of events.
///   A wait that finds wakes is one as well: a poll. (A signal that interrupts a wait costs it another, and
///   so does a wake-up whose wakes another handle has returned.) A `wake` is none while no thread is blocked
///   in a wait, else one for all wakes until a wait returns them. The first waker of a poller
///   [costs more](crate::guide::threads#what-a-wake-costs), and so does a poller that
///   [another loop watches](crate::guide::threads#a-poller-inside-another-loop).
///
/// **Around it**
///
/// - **C15** [`Waker::wake`](crate::Waker::wake) is never lost and never blocks. The wait that is blocked, or
///   else the next one, returns it as an event. All wakes of a waker before a wait returns are one event.
///   There is nothing to clear. If more wakers were woken than there is room for, the next waits return the
///   rest.
/// - **C16** A program that deletes a descriptor before it closes it behaves the same everywhere. See
///   [below](#closing) for one that does not. (On Apple systems, a terminal that was
///   [revoked](crate::kernels#apple-systems) cannot be registered again.)
/// - **C17** With [`set_spin`](crate::OsPoller::set_spin), a wait polls for at most the limit before it
///   blocks. If that has lately caught nothing, it does not poll at all: an idle loop soon stops spinning.
///   Once events arrive within the limit again, it spins again, some waits later. Spinning changes when a
///   wait ends, never what it returns. A zero timeout polls once, and other timeouts stay as exact as C8
///   says. Without it, C14 holds.
/// - **C18** [`OsPoller::try_clone`](crate::OsPoller::try_clone) creates another handle on the same
///   registrations, so that several threads wait on one poller. A oneshot goes to exactly one of them. An
///   edge usually goes to one; while that one still reads, new data goes to another. A level goes to each
///   thread that waits while the condition lasts, on [NetBSD](crate::kernels#netbsd) to some. A wake goes to
///   exactly one: if one handle is blocked in a wait while another is busy with its events, the blocked one
///   returns it.
///
/// # Closing
///
/// Closing a descriptor deletes its registration as well: on kqueue at once, on epoll when its last
/// duplicate is closed. While a duplicate is open, epoll keeps reporting the number that was closed, and
/// `delete` of it is `EBADF`: so delete first, then close. Duplicates are made by `dup`, by `try_clone`, by
/// a fork, and by sending the descriptor over a Unix socket (`SCM_RIGHTS`), even before it is received.
///
/// An event can also be stale within one slice: the program handles one event by closing another
/// descriptor, whose event comes later in the slice, and by then a new connection may have its number. Give
/// each registration a [`token`](EventObject::token) that counts up, and drop an event whose `fd` and
/// `token` are not those of a live connection.
///
/// # I/O safety
///
/// [`add`](Self::add) takes a number, and the kernel looks up the file behind it. If you pass a number that
/// is not yours, or close the descriptor while it is registered, you can get
///
/// - an event of a file that belongs to another part of the program;
/// - a stale event, [as above](#closing): of a file that is gone, or of the one that now has the number;
/// - an error: `EBADF` if nothing has the number, `AlreadyExists` if another part registered it with this
///   poller;
/// - a change, by your `modify` or `delete`, to a registration of another part.
///
/// Memory is never at risk: pollio reads, writes and closes nothing under that number, and follows no
/// pointer. So `add` is not `unsafe`. The standard library's [I/O safety](std::io#io-safety) asks for more:
/// only the owner or a borrower of a descriptor uses it. [`Registered`](crate::Registered) keeps that rule: it
/// holds a source that is [`AsFd`](std::os::fd::AsFd) for as long as it is registered, and deletes it before
/// it closes it. If you register only with `Registered`, each event is of a file of yours, and the only stale
/// ones are those that a wait returned before the drop.
///
/// # Forking
///
/// An exec closes all descriptors of pollio. A forked child that does not exec must create its own pollers
/// and sources, and neither use nor drop those of its parent. End it with `_exit`, which drops nothing.
/// Returning from `main` drops what it owns, and so does a panic that unwinds;
/// [`forget`](std::mem::forget) what they would drop.
///
/// - On epoll, parent and child share the registrations. Adding, modifying or deleting affects both, and the
///   parent receives events for descriptors that only the child has open. An edge or a oneshot that the child
///   takes is not reported to the parent. A [`Waker`](crate::Waker) or a [`channel`](crate::channel()) does
///   not work between the two: a wake in the child reaches no wait of the parent.
///   - Dropping a [`Registered`](crate::Registered) in the child deletes the registration of the parent, which
///     gets no error, and no event from then on.
///   - A `wake` in the child, or dropping the last sender of a channel there, can wake up a wait of the
///     parent, which goes on without an event.
///   - Dropping anything else of pollio in the child changes nothing for the parent.
/// - On kqueue the child has no poller, no [`Timer`](crate::Timer) and no [`ChildExit`](crate::ChildExit):
///   dropping what looks like one closes a number that may belong to something else by then, such as a file or
///   a new poller. Dropping a `Registered` deletes from whatever has the number of its poller. A `wake`, or
///   dropping the last sender of a channel, can make a call on that number, which fails unless it is a
///   kqueue.
///
/// # Where kernels differ
///
/// [`kernels`](crate::kernels) lists what the contract leaves to the kernel, system by system, and how each
/// line is known.
pub trait Poller {
    /// Creates a poller with nothing registered.
    ///
    /// # Errors
    ///
    /// The kernel's own, from
    /// [epoll_create1(2)](https://man7.org/linux/man-pages/man2/epoll_create1.2.html) or
    /// [kqueue(2)](https://man.freebsd.org/cgi/man.cgi?query=kqueue): `EMFILE` or `ENFILE` when the
    /// process or the system has too many descriptors, `ENOMEM`.
    fn new() -> io::Result<Self>
    where
        Self: Sized;

    /// The handle that registers. Clone it to register while events are borrowed, or from another
    /// thread.
    fn registry(&self) -> &Registry;

    /// Waits until a registered descriptor is ready, for at most `timeout`; `None` waits indefinitely.
    ///
    /// The events are in a buffer that the poller owns and reuses. They are in the kernel's order, with
    /// each descriptor at most once. (On [kqueue](crate::kernels#epoll-and-kqueue), a registration that another
    /// thread replaces during the wait can be reported twice: as it was, and as it is.) Wakes come after them, unless
    /// the last wait had no room for some: these come first.
    ///
    /// A zero timeout polls. One beyond what the clock can count, such as [`Duration::MAX`], waits
    /// indefinitely.
    ///
    /// # Errors
    ///
    /// The kernel's own, from
    /// [epoll_wait(2)](https://man7.org/linux/man-pages/man2/epoll_wait.2.html) or
    /// [kevent(2)](https://man.freebsd.org/cgi/man.cgi?query=kevent), all but `EINTR`. It fails only if other
    /// code closed the poller's descriptor: with `EBADF`, or on epoll with `EINVAL` once another descriptor
    /// has that number. On epoll, a wait that is already blocked goes on. Dropping the poller then closes
    /// whatever has the number by now. If nothing has, the standard library aborts in debug builds.
    #[doc(alias("poll", "epoll_wait"))]
    fn wait_timeout(&mut self, timeout: Option<Duration>) -> io::Result<&[Event]>;

    /// Registers a descriptor: [`Registry::add`].
    ///
    /// # Errors
    ///
    /// See [`Registry::add`].
    #[doc(alias = "register")]
    #[inline]
    fn add(&self, object: EventObject) -> io::Result<()> {
        self.registry().add(object)
    }

    /// Replaces a registration: [`Registry::modify`].
    ///
    /// # Errors
    ///
    /// See [`Registry::modify`].
    #[doc(alias = "reregister")]
    fn modify(&self, object: EventObject) -> io::Result<()> {
        self.registry().modify(object)
    }

    /// Deletes a registration: [`Registry::delete`].
    ///
    /// # Errors
    ///
    /// See [`Registry::delete`].
    #[doc(alias = "deregister")]
    fn delete(&self, fd: RawFd) -> io::Result<()> {
        self.registry().delete(fd)
    }

    /// Waits as [`wait_timeout`](Self::wait_timeout) does, for milliseconds: any negative number waits
    /// indefinitely, zero polls.
    ///
    /// # Errors
    ///
    /// See [`wait_timeout`](Self::wait_timeout).
    #[doc(alias = "poll")]
    fn wait(&mut self, timeout_ms: i32) -> io::Result<&[Event]> {
        self.wait_timeout(u64::try_from(timeout_ms).ok().map(Duration::from_millis))
    }
}
