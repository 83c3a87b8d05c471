//! Memory that a device takes without a copy: block-aligned buffers, made without unsafe code by starting at the first aligned address.
//!
//! - The address of what is returned is a multiple of [`BLOCK`]; cutting at multiples of it keeps that true of every piece.

use std::collections::VecDeque;

use bytes::{Buf, BytesMut};

use super::ring::BLOCK;

/// An empty buffer with room for `len` bytes from an aligned address.
pub(crate) fn with_capacity(len: usize) -> BytesMut {
    let block = BLOCK as usize;
    // One byte less than a block more: wherever the allocator puts it, as many whole blocks fit, so that how frames are
    // cut does not depend on an address.
    let mut buffer = BytesMut::with_capacity(len + block - 1);
    align(&mut buffer);
    buffer
}

/// An empty buffer begins at the next aligned address.
fn align(buffer: &mut BytesMut) {
    let block = BLOCK as usize;
    let skip = buffer.as_ptr().addr().wrapping_neg() % block;
    buffer.resize(skip, 0);
    buffer.advance(skip);
}

/// Slabs of one size, used again when nothing holds a piece of them any more: memory that was touched before costs no page fault.
#[derive(Debug)]
pub(crate) struct Slabs {
    len: usize,
    /// Filled ones, in that order.
    filled: VecDeque<BytesMut>,
    /// Whether the slab that was handed out last is of that size.
    regular: bool,
}

/// Filled slabs that are looked after: what nobody holds of them stays allocated.
const SLABS_MAX: usize = 8;

impl Slabs {
    pub(crate) fn of(len: usize) -> Self {
        Self {
            len,
            filled: VecDeque::new(),
            regular: false,
        }
    }

    /// An empty slab with room for `needed` bytes from an aligned address; `last` is what is left of the one before.
    pub(crate) fn next(&mut self, last: BytesMut, needed: usize) -> BytesMut {
        if self.regular {
            self.filled.push_back(last);
        }
        self.regular = needed <= self.len;
        if !self.regular {
            return with_capacity(needed);
        }
        if let Some(mut slab) = self.filled.pop_front() {
            if slab.try_reclaim(self.len + BLOCK as usize - 1) {
                align(&mut slab);
                return slab;
            }
            if self.filled.len() < SLABS_MAX {
                self.filled.push_front(slab);
            }
        }
        with_capacity(self.len)
    }
}

/// `len` zero bytes from an aligned address.
pub(crate) fn zeroed(len: usize) -> BytesMut {
    let mut buffer = with_capacity(len);
    buffer.resize(len, 0);
    buffer
}

/// Whether a device with aligned memory takes it.
pub(crate) fn is_aligned(data: &[u8]) -> bool {
    data.as_ptr().addr().is_multiple_of(BLOCK as usize)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Fills a slab, and says where it began and what holds it.
    fn fill(slab: &mut BytesMut) -> (usize, bytes::Bytes) {
        let at = slab.as_ptr().addr();
        slab.resize(8192, 7);
        (at, slab.split_to(8192).freeze())
    }

    #[test]
    fn a_slab_is_used_again_when_nothing_holds_a_piece_of_it() {
        let mut slabs = Slabs::of(8192);
        let mut slab = slabs.next(BytesMut::new(), 100);
        let (first, held) = fill(&mut slab);
        let mut slab = slabs.next(slab, 8192);
        let (second, also_held) = fill(&mut slab);
        assert_ne!(first, second);
        drop(held);
        let mut slab = slabs.next(slab, 8192);
        assert!(slab.capacity() >= 8192 && is_aligned(&slab));
        let (third, _) = fill(&mut slab);
        assert_eq!(third, first);
        assert_eq!(also_held[..], [7; 8192]);
    }

    #[test]
    fn a_few_slabs_are_looked_after_and_none_of_another_size() {
        let mut slabs = Slabs::of(4096);
        let mut slab = BytesMut::new();
        let mut held = Vec::new();
        for _ in 0..3 * SLABS_MAX {
            slab = slabs.next(slab, 4096);
            slab.resize(4096, 1);
            held.push(slab.split_to(4096).freeze());
            assert!(slabs.filled.len() <= SLABS_MAX);
        }
        let large = slabs.next(slab, 1 << 20);
        assert!(large.capacity() >= 1 << 20);
        let filled = slabs.filled.len();
        slabs.next(large, 4096);
        assert_eq!(slabs.filled.len(), filled.min(SLABS_MAX));
    }

    #[test]
    fn buffers_start_aligned_and_stay_so_when_cut_at_blocks() {
        for len in [1, 4096, 4097, 1 << 20] {
            let mut buffer = with_capacity(len);
            assert!(buffer.capacity() >= len);
            assert!(buffer.capacity() < len + BLOCK as usize);
            buffer.resize(len, 7);
            assert!(is_aligned(&buffer), "{len}");
            if len > 4096 {
                let head = buffer.split_to(4096).freeze();
                assert!(is_aligned(&head) && is_aligned(&buffer));
            }
        }
    }
}
