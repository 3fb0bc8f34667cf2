//! The received bytes of a stream that its reader has not yet taken.

use std::collections::VecDeque;

/// Unread bytes, and the pieces in which they came.
#[derive(Default)]
pub(super) struct Received {
    bytes: VecDeque<u8>,
    /// The pieces: the length of each, and its unread part.
    pieces: VecDeque<(usize, usize)>,
}

impl Received {
    pub(super) fn len(&self) -> usize {
        self.bytes.len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    pub(super) fn push(&mut self, bytes: &[u8]) {
        self.bytes.extend(bytes);
        self.pieces.push_back((bytes.len(), bytes.len()));
    }

    /// Copies what fits, and leaves it there.
    pub(super) fn peek(&self, buffer: &mut [u8]) -> usize {
        let count = buffer.len().min(self.bytes.len());
        let (front, back) = self.bytes.as_slices();
        let middle = count.min(front.len());
        buffer[..middle].copy_from_slice(&front[..middle]);
        buffer[middle..count].copy_from_slice(&back[..count - middle]);
        count
    }

    /// Takes what fits. Returns how many bytes, and the length of the pieces that are used up.
    pub(super) fn take(&mut self, buffer: &mut [u8]) -> (usize, usize) {
        let count = self.peek(buffer);
        self.bytes.drain(..count);
        let (mut rest, mut used_up) = (count, 0);
        while let Some((length, left)) = self.pieces.front_mut() {
            if *left > rest {
                *left -= rest;
                break;
            }
            rest -= *left;
            used_up += *length;
            self.pieces.pop_front();
        }
        (count, used_up)
    }
}
