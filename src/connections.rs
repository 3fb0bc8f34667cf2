//! Many sources, each with its registration and the program's data, found by an event.

use std::fmt;
use std::io;
use std::os::fd::RawFd;

use crate::event::Event;
use crate::foreign::Source;
use crate::object::EventObject;
use crate::registered::Registered;
use crate::registry::Registry;

/// Owns sources, their registrations and the program's data of each, and finds them by an event.
///
/// The slice of a wait can contain stale events: while you handle it, you close a connection whose event
/// comes later in the slice, and accept another one that gets the same number. Each registration here has a
/// token of its own, so a stale event finds nothing. A removed source is deleted before it is closed (C16).
///
/// ```
/// use std::io::{self, Read, Write};
/// use std::os::unix::net::UnixStream;
/// use pollio::{Connections, EventObject, OsPoller, Poller};
///
/// let mut poller = OsPoller::new()?;
/// let mut clients = Connections::new(poller.registry());
/// let (near, mut far) = UnixStream::pair()?;
/// let key = clients.insert(near, EventObject::client, String::from("Ann"))?;
///
/// far.write_all(b"hello")?;
/// let mut buffer = [0; 16];
/// for event in poller.wait(-1)? {
///     // `None` for an event of anything else, and for a stale one.
///     let Some((mut stream, name)) = clients.get_mut(event) else { continue };
///     let count = stream.read(&mut buffer)?;
///     name.push_str(&String::from_utf8_lossy(&buffer[..count]));
/// }
/// let (_stream, name) = clients.remove(key).expect("it is there");
/// assert_eq!(name, "Annhello");
/// # Ok::<(), io::Error>(())
/// ```
///
/// # Tokens
///
/// The table sets the token of each registration, in place of the one of the object that you pass. No two
/// registrations of a poller's tables have the same until 2^32 sources were inserted. Tell a source that
/// you register elsewhere, such as the listening socket, apart by its number or its kind: its token can
/// equal one of these.
///
/// # Sources
///
/// You get a source only by reference, as from a [`Registered`]. Sockets of the standard library read and
/// write by reference. Put into the data what needs `&mut`, such as a TLS session, or what owns the source:
/// then insert a duplicate of its descriptor, as [`Registered`] shows.
///
/// # Cost
///
/// A look-up by number and a comparison. The table allocates only to grow: room for as many entries as
/// there ever were at a time, eight bytes for each number, in pages of 512, and eight bytes for each
/// possible page up to that of the highest number. So high numbers cost little: 16 KiB for 2^20. On a system of
/// 32 bits, each of these is half of that.
///
/// It is for one thread. See the guide for [several threads on one
/// poller](crate::guide::threads#several-threads-on-one-poller).
pub struct Connections<S, D> {
    registry: Registry,
    /// Dense, in no order.
    entries: Vec<Entry<S, D>>,
    positions: Positions,
}

/// Identifies an entry of [`Connections`]: the number and the token of its registration.
///
/// [`Connections::insert`] returns it, and an [`Event`] can be converted to it. It is small and ordered, so
/// that you can key [timeouts](crate::guide::threads#ten-thousand-timeouts) by it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Key {
    fd: RawFd,
    token: u32,
}

impl From<&Event> for Key {
    /// The key of a [wake](Event::is_wake) finds nothing.
    fn from(event: &Event) -> Self {
        // A wake has the number of its poller, which the table of another poller may contain.
        let fd = if event.is_wake() { -1 } else { event.fd };
        Self { fd, token: event.token }
    }
}

struct Entry<S, D> {
    // Fields are dropped in this order.
    source: Registered<S>,
    data: D,
    key: Key,
}

impl<S, D> Connections<S, D> {
    /// Creates an empty table, which registers with the poller of `registry`.
    #[must_use]
    pub fn new(registry: &Registry) -> Self {
        Self { registry: registry.clone(), entries: Vec::new(), positions: Positions::default() }
    }

    /// Registers `source` with the object that `object` returns for its descriptor, and keeps it with
    /// `data`: pass `EventObject::client`, or a closure. The object's token is replaced.
    ///
    /// If that fails, `source` and `data` are dropped, and nothing stays registered.
    ///
    /// # Errors
    ///
    /// - `AlreadyExists`: the table has a source with this number, on every system. It stays. Either this is
    ///   a second reference to it, or its descriptor was closed elsewhere.
    /// - `InvalidInput`: the object is of another descriptor, or the number is negative.
    /// - Otherwise see [`Registry::add`].
    pub fn insert<By: ?Sized>(
        &mut self,
        source: S,
        object: impl FnOnce(RawFd) -> EventObject,
        data: D,
    ) -> io::Result<Key>
    where
        S: Source<By>,
    {
        let fd = source.source_fd();
        if fd < 0 {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        if self.positions.get(fd).is_some_and(|position| position != NOWHERE) {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        let token = self.registry.next_token();
        let with_token = |fd| object(fd).with_token(token);
        let source = Registered::with_fd(&self.registry, source, fd, with_token)?;
        *self.positions.slot(fd) = self.entries.len();
        let key = Key { fd, token };
        self.entries.push(Entry { source, data, key });
        Ok(key)
    }

    /// The source and the data of a key or of an event. `None` if it is stale, or of something else.
    #[inline]
    #[must_use]
    pub fn get(&self, key: impl Into<Key>) -> Option<(&S, &D)> {
        let entry = &self.entries[self.position(key.into())?];
        Some((entry.source.get_ref(), &entry.data))
    }

    /// As [`get`](Self::get), with the data to change.
    #[inline]
    #[must_use]
    pub fn get_mut(&mut self, key: impl Into<Key>) -> Option<(&S, &mut D)> {
        let position = self.position(key.into())?;
        let entry = &mut self.entries[position];
        Some((entry.source.get_ref(), &mut entry.data))
    }

    /// Replaces interest, mode and kind of the registration of a key or of an event, and re-arms a oneshot;
    /// see [`Registry::modify`]. The token and the key stay; the object's token is ignored.
    ///
    /// If it fails, the entry stays. On kqueue its registration may then be gone, so that no event of it comes: remove
    /// it.
    ///
    /// # Errors
    ///
    /// - `NotFound`: the key is stale, or the registration is gone.
    /// - `InvalidInput`: the object is of another descriptor. The registration stays as it was.
    /// - Otherwise see [`Registry::modify`].
    pub fn modify(
        &self,
        key: impl Into<Key>,
        object: impl FnOnce(RawFd) -> EventObject,
    ) -> io::Result<()> {
        let position = self.position(key.into()).ok_or(io::ErrorKind::NotFound)?;
        let entry = &self.entries[position];
        entry.source.modify(|fd| object(fd).with_token(entry.key.token))
    }

    /// Deletes the registration of a key or of an event, and returns its source and its data. `None` if it
    /// is stale, or of something else.
    pub fn remove(&mut self, key: impl Into<Key>) -> Option<(S, D)> {
        let position = self.position(key.into())?;
        let Entry { source, data, .. } = self.remove_at(position);
        Some((source.into_inner(), data))
    }

    /// Removes all entries for which `keep` returns `false`: each is deleted, then dropped.
    pub fn retain(&mut self, mut keep: impl FnMut(Key, &S, &mut D) -> bool) {
        let mut position = 0;
        while let Some(entry) = self.entries.get_mut(position) {
            if keep(entry.key, entry.source.get_ref(), &mut entry.data) {
                position += 1;
            } else {
                drop(self.remove_at(position));
            }
        }
    }

    /// All entries, in no particular order.
    pub fn iter(&self) -> impl Iterator<Item = (Key, &S, &D)> {
        self.entries.iter().map(|entry| (entry.key, entry.source.get_ref(), &entry.data))
    }

    /// As [`iter`](Self::iter), with the data to change.
    pub fn iter_mut(&mut self) -> impl Iterator<Item = (Key, &S, &mut D)> {
        let entries = self.entries.iter_mut();
        entries.map(|entry| (entry.key, entry.source.get_ref(), &mut entry.data))
    }

    /// How many entries there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    #[inline]
    fn position(&self, key: Key) -> Option<usize> {
        let position = self.positions.get(key.fd)?;
        // Nothing is at `NOWHERE`.
        let entry = self.entries.get(position)?;
        (entry.key == key).then_some(position)
    }

    /// Removes the entry at a position. The last entry takes its place.
    fn remove_at(&mut self, position: usize) -> Entry<S, D> {
        let removed = self.entries.swap_remove(position);
        *self.positions.slot(removed.key.fd) = NOWHERE;
        if let Some(moved) = self.entries.get(position) {
            *self.positions.slot(moved.key.fd) = position;
        }
        removed
    }
}

impl<S: fmt::Debug, D: fmt::Debug> fmt::Debug for Connections<S, D> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map().entries(self.iter().map(|(key, source, data)| (key, (source, data)))).finish()
    }
}

/// The position of each number's entry.
#[derive(Default)]
struct Positions {
    pages: Vec<Option<Box<[usize; PAGE]>>>,
}

/// How many numbers a page has: 4 KiB on 64-bit systems.
const PAGE: usize = 512;

const NOWHERE: usize = usize::MAX;

impl Positions {
    #[inline]
    fn get(&self, fd: RawFd) -> Option<usize> {
        let (page, slot) = place(fd);
        Some(self.pages.get(page)?.as_deref()?[slot])
    }

    /// The position of a number, to change. Creates its page if need be.
    fn slot(&mut self, fd: RawFd) -> &mut usize {
        let (page, slot) = place(fd);
        if page >= self.pages.len() {
            self.pages.resize(page + 1, None);
        }
        &mut self.pages[page].get_or_insert_with(|| Box::new([NOWHERE; PAGE]))[slot]
    }
}

/// The page of a number, and its slot there. No entry has a negative one, so they may share the slots of others.
#[inline]
fn place(fd: RawFd) -> (usize, usize) {
    let number = fd.unsigned_abs() as usize;
    (number / PAGE, number % PAGE)
}
