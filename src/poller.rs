//! The contract: what every poller promises, whatever the kernel below it is.

use std::io;
use std::os::fd::RawFd;
use std::time::Duration;

use crate::event::Event;
use crate::object::EventObject;
use crate::registry::Registry;

/// A set of registered descriptors, and the wait for one of them to be ready.
///
/// [`OsPoller`](crate::OsPoller) is the one for the system that the program is built for. The
/// trait is object-safe, so a loop can be written over `&mut dyn Poller`. A backend provides
/// [`new`](Self::new), [`registry`](Self::registry) and [`wait_timeout`](Self::wait_timeout).
///
/// # The contract
///
/// Each clause has tests, and all but those about costs run over every backend.
///
/// **What comes back**
///
/// - **C1** `fd`, `kind` and `token` of an event are those of the last `add` or `modify`, for
///   every `u32` and every valid descriptor.
/// - **C2** [`Level`](crate::Mode::Level) is told at every wait until the condition is gone.
/// - **C3** [`Edge`](crate::Mode::Edge) is told once for each new arrival. Adding or modifying a
///   descriptor that is already ready counts as an arrival.
/// - **C4** [`Oneshot`](crate::Mode::Oneshot) is told once, for all its interests together; then
///   it is silent until `modify`. It stays registered: a second `add` is not needed.
/// - **C5** [`Interest::NONE`](crate::Interest::NONE) keeps the registration and tells of nothing
///   but errors and hang-ups, where the kernel tells of those.
/// - **C6** The peer's half-close is [`is_read_closed`](Event::is_read_closed) together
///   with [`is_readable`](Event::is_readable); a full hang-up is also
///   [`is_write_closed`](Event::is_write_closed); a refused or reset connection is
///   [`is_error`](Event::is_error). On epoll, hang-ups and errors need no interest; the
///   half-close needs `READABLE` everywhere.
///
/// **When a wait ends**
///
/// - **C7** A wait without a timeout returns only with events. A signal handler that runs
///   meanwhile, or a stop and continue, ends neither the wait nor the program: it goes on with
///   the time that is left.
/// - **C8** A timeout is never early, and late by no more than the kernel's slack: on Linux 50 µs,
///   unless
///   [`PR_SET_TIMERSLACK`](https://man7.org/linux/man-pages/man2/PR_SET_TIMERSLACK.2const.html)
///   says otherwise, or a thousandth of a longer timeout, a 200th in a process with a positive `nice`
///   value. Nanoseconds are honoured where the kernel can, else rounded up to milliseconds. Zero polls.
///   An empty slice means that the time is up.
/// - **C9** No descriptor is lost or starved. With more ready than the buffer holds, the rest
///   come at the next waits, and the buffer grows to meet the load.
///
/// **Registering**
///
/// - **C10** `delete` of what is not registered, or `modify` on it, is `NotFound`. Adding what is
///   registered is `AlreadyExists` on epoll; kqueue replaces. All other errors are the kernel's
///   own, as [`Registry::add`] lists them.
/// - **C11** A registered descriptor is never closed by pollio. Its own are close-on-exec, and
///   closed when the poller and every clone of its registry are dropped.
/// - **C12** A registration made from another thread is seen by a wait that is already blocked.
///
/// **What it costs**
///
/// - **C13** Nothing is allocated by a wait once the buffer has its size, nor by `add`, `modify`
///   and `delete`.
/// - **C14** On epoll there is one system call for each wait, `add`, `modify` and `delete`, for
///   any number of events. (A signal that interrupts a wait costs it another.)
///
/// **Around it**
///
/// - **C15** [`Waker::wake`](crate::Waker::wake) is never lost and never blocks. Wakes before the
///   poller looks are one event, and one system call.
/// - **C16** A program that deletes a descriptor before it closes it behaves the same everywhere.
///   See [below](#closing) for one that does not.
///
/// - **C17** With [`set_spin`](crate::OsPoller::set_spin), a wait polls for at most the limit before
///   it blocks, and not at all where that has lately caught nothing: an idle loop soon spins no more.
///   If events arrive within the limit again, some waits later it spins again. It changes when a wait
///   ends, never what it returns. A zero timeout polls once, and other timeouts stay as exact as C8
///   says. Without it, C14 holds.
/// - **C18** [`OsPoller::try_clone`](crate::OsPoller::try_clone) creates another handle on the same
///   registrations, so that several threads wait on one poller. A oneshot goes to exactly one of them.
///   An edge goes to one as a rule; new data goes to another one while the first still reads. A level goes
///   to each thread that waits while the condition lasts. A [`Waker`](crate::Waker) that is registered as
///   an edge or a oneshot ends one wait; as a level that nobody clears, it ends every wait.
///
/// # Closing
///
/// A close deletes as well: on kqueue at once, on epoll when the last duplicate of the descriptor
/// is closed. While one survives, epoll keeps reporting the number that was closed, and `delete` of it is
/// `EBADF`: so delete first, then close. Duplicates are made by `dup`, by `try_clone`, by a fork, and by
/// sending the descriptor over a Unix socket (`SCM_RIGHTS`), even before it is received.
///
/// An event can also be stale within one slice: the program handles an event by closing another
/// descriptor whose event comes further on, and may even have been given its number for a new
/// connection meanwhile. Give each registration a [`token`](EventObject::token) that counts up,
/// and drop an event whose `fd` and `token` are not together those of a connection that lives.
///
/// # I/O safety
///
/// [`add`](Self::add) takes a number, and the kernel looks up what has that number. If you pass one that is
/// not yours, or close the descriptor while it is registered, what can go wrong is
///
/// - an event of a file that is another part's of the program: a foreign one;
/// - an event of a file that is gone, or that now has the number: a stale one, [as above](#closing);
/// - an error: `EBADF` if nothing has the number, `AlreadyExists` if another part registered it with this
///   poller;
/// - a registration of another part that your `modify` or `delete` changes.
///
/// It is never memory: pollio reads, writes and closes nothing under that number, and follows no pointer. This
/// is why `add` is no `unsafe` function. The standard library asks for more: by its
/// [I/O safety](std::io#io-safety), only the owner of a descriptor, or who borrows it, acts on it at all.
/// [`Registered`](crate::Registered) keeps that rule: it takes a source that is
/// [`AsFd`](std::os::fd::AsFd), holds it for as long as it is registered, and deletes it before it closes it. In
/// a program that uses nothing else to register, no event is foreign, and none is stale but those that a
/// wait returned before the drop.
///
/// # Forking
///
/// An exec closes all that is pollio's. A child that was forked and goes on without one makes pollers
/// and sources of its own, and leaves alone what its parent made:
///
/// - On epoll it shares that. What it adds or deletes, it does for both, and a descriptor that it
///   opened itself is told to its parent under a number that means nothing there. An edge or a
///   oneshot that it takes is not told to its parent. A [`Waker`](crate::Waker) does not work across
///   the two. To drop these, or to end, changes nothing for the parent.
/// - On kqueue it has no poller, [`Timer`](crate::Timer) nor [`ChildExit`](crate::ChildExit): a drop of what
///   looks like one closes a number that may have been given to something else.
///
/// # Where kernels differ
///
/// What the contract leaves to the kernel, in one place. The column of epoll has tests. That of
/// kqueue is from manual pages and sources, and from running the backend over a model of kqueue, not
/// from a BSD.
///
/// | | epoll | kqueue |
/// |---|---|---|
/// | adding what is registered | `AlreadyExists` | replaces all of it |
/// | an `add` or a `modify` that fails | changes nothing | deletes |
/// | `delete` of a number that is not open | `EBADF` | `EBADF`; on Apple systems `NotFound` |
/// | a regular file | `PermissionDenied` | is readable up to its end |
/// | a socket that was never connected | is told as a full hang-up: connect first, then add | is not ready |
/// | `Interest::NONE` | tells of hang-ups and errors | tells of nothing |
/// | a full hang-up or an error | is told with any interest, in both directions | is told in the directions that were asked for; an error counts for both |
/// | one's own `shutdown(Write)` | is told with the peer's, as a full hang-up | is `is_write_closed` at once |
/// | a pipe whose reader is gone | `is_error` | `is_write_closed`; adding it is `BrokenPipe` on FreeBSD, `EBADF` on NetBSD |
/// | `Interest::PRIORITY` | whatever `POLLPRI` stands for | out-of-band data of sockets on Apple systems, OpenBSD and DragonFly BSD, where it tells of the peer's half-close as well; nothing on FreeBSD and NetBSD |
/// | [`exclusive`](EventObject::exclusive) | shares wake-ups | has no effect |
/// | a oneshot with several interests | reports all that is ready | may report one of them, if another thread waits while it is registered; `modify` reports the rest. Until the next wait, [the poller's own descriptor](crate::OsPoller) may be readable without an event |
/// | `modify` | is one system call | is two, and registrations take turns |
/// | a closed descriptor with a duplicate | is told of | is deleted |
/// | a [forked child](#forking) | shares the registrations | has no poller |
pub trait Poller {
    /// Makes a poller with nothing registered.
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

    /// The half that registers. Clone it to register while events are borrowed, or from another
    /// thread.
    fn registry(&self) -> &Registry;

    /// Waits until a registered descriptor is ready, at most for `timeout`; `None` is for ever.
    ///
    /// The events are in a buffer that the poller owns and uses again. They come in the order in
    /// which the kernel gave them, each descriptor at most once.
    ///
    /// A zero timeout polls. One that no clock can reach, such as [`Duration::MAX`], is for ever.
    ///
    /// # Errors
    ///
    /// The kernel's own, from
    /// [epoll_wait(2)](https://man7.org/linux/man-pages/man2/epoll_wait.2.html) or
    /// [kevent(2)](https://man.freebsd.org/cgi/man.cgi?query=kevent), all but `EINTR`. None can come
    /// about unless something closed the poller's descriptor behind its back: `EBADF`, on epoll
    /// `EINVAL` once another descriptor has its number. A wait that is blocked meanwhile goes on, on
    /// epoll. A drop closes that number again, whoever has it by then; if nobody has, the standard
    /// library aborts a program that was built with debug assertions.
    fn wait_timeout(&mut self, timeout: Option<Duration>) -> io::Result<&[Event]>;

    /// Registers a descriptor: [`Registry::add`].
    ///
    /// # Errors
    ///
    /// As [`Registry::add`] tells.
    #[inline]
    fn add(&self, object: EventObject) -> io::Result<()> {
        self.registry().add(object)
    }

    /// Replaces a registration: [`Registry::modify`].
    ///
    /// # Errors
    ///
    /// As [`Registry::modify`] tells.
    fn modify(&self, object: EventObject) -> io::Result<()> {
        self.registry().modify(object)
    }

    /// Forgets a descriptor: [`Registry::delete`].
    ///
    /// # Errors
    ///
    /// As [`Registry::delete`] tells.
    fn delete(&self, fd: RawFd) -> io::Result<()> {
        self.registry().delete(fd)
    }

    /// Waits as [`wait_timeout`](Self::wait_timeout) does, for milliseconds: any negative number
    /// is for ever, zero polls.
    ///
    /// # Errors
    ///
    /// As [`wait_timeout`](Self::wait_timeout) tells.
    fn wait(&mut self, timeout_ms: i32) -> io::Result<&[Event]> {
        self.wait_timeout(u64::try_from(timeout_ms).ok().map(Duration::from_millis))
    }
}
