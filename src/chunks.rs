//! A table that grows without moving, so that threads read it without a lock.

use std::io;
use std::sync::OnceLock;

/// Entries by index, in chunks: each chunk is as large as all before it together, so no entry ever moves.
///
/// An empty table is small, and allocates nothing.
pub(crate) struct Chunks<T> {
    chunks: OnceLock<Box<[Chunk<T>]>>,
}

type Chunk<T> = OnceLock<Box<[T]>>;

/// How many entries the first chunk has.
const FIRST: usize = 64;

/// Enough for every descriptor number: each chunk after the first doubles them.
const CHUNKS: usize = 1 + (31 - FIRST.ilog2()) as usize;

impl<T> Chunks<T> {
    pub(crate) const fn new() -> Self {
        Self { chunks: OnceLock::new() }
    }

    /// The entry at `index`, if its chunk was reserved.
    #[inline]
    pub(crate) fn get(&self, index: usize) -> Option<&T> {
        let (chunk, place) = locate(index);
        self.chunks.get()?.get(chunk)?.get()?.get(place)
    }

    /// The entry at `index`, which is below 1 << 31. The first call for a chunk creates all its entries.
    pub(crate) fn reserve(&self, index: usize, entry: impl FnMut() -> T) -> io::Result<&T> {
        let (chunk, place) = locate(index);
        let chunks = get_or_try_fill(&self.chunks, CHUNKS, OnceLock::new)?;
        let count = if chunk == 0 { FIRST } else { FIRST << (chunk - 1) };
        Ok(&get_or_try_fill(&chunks[chunk], count, entry)?[place])
    }
}

/// A slice of `count` entries, which is allocated at the first call.
fn get_or_try_fill<T>(
    slice: &OnceLock<Box<[T]>>,
    count: usize,
    entry: impl FnMut() -> T,
) -> io::Result<&[T]> {
    if let Some(slice) = slice.get() {
        return Ok(slice);
    }
    let mut entries = Vec::new();
    entries.try_reserve_exact(count)?;
    entries.resize_with(count, entry);
    Ok(slice.get_or_init(|| entries.into_boxed_slice()))
}

/// The chunk of an index, and its place there.
fn locate(index: usize) -> (usize, usize) {
    let doublings = (usize::BITS - (index / FIRST).leading_zeros()) as usize;
    let before = if doublings == 0 { 0 } else { FIRST << (doublings - 1) };
    (doublings, index - before)
}

// Tests that include this file do not repeat these.
#[cfg(all(test, not(included)))]
mod tests {
    use super::*;

    #[test]
    fn every_index_has_a_place_of_its_own() {
        let mut expected = (0, 0);
        for index in 0..10_000 {
            assert_eq!(locate(index), expected);
            expected.1 += 1;
            if index + 1 == FIRST << expected.0 {
                expected = (expected.0 + 1, 0);
            }
        }
        assert_eq!(locate(i32::MAX as usize), (CHUNKS - 1, (1 << 30) - 1));
    }

    #[test]
    fn an_entry_stays_where_it_is_while_the_table_grows() {
        let table = Chunks::new();
        assert!(table.get(0).is_none());
        for index in [0, 63, 64, 1_000] {
            table.reserve(index, || index).unwrap();
        }
        let first: *const usize = table.get(0).unwrap();
        table.reserve(1_000_000, || 0).unwrap();
        assert_eq!(first, table.get(0).unwrap() as *const usize);
        assert_eq!(
            (table.get(63), table.get(64), table.get(1_000)),
            (Some(&0), Some(&64), Some(&1_000))
        );
        assert!(table.get(500).is_none() && table.get(usize::MAX).is_none());
    }
}
