//! Where things lie on a device: two superblock areas, then the ring. `docs/format.md`, "Block log".
//!
//! - `0 = copy 0 < copy 1 < ring start`; the copies lie 64 KiB apart, so that one damaged area leaves the other.
//! - `ring start + capacity ≤ device length`; capacity is a multiple of [`BLOCK`].
//! - A position lies at `ring start + position mod capacity`.

use bytes::Bytes;

/// The unit of writing: a frame begins on one and is padded to one.
pub(crate) const BLOCK: u64 = 4096;
/// Where the superblock copies are.
pub(crate) const COPIES: [u64; 2] = [0, 64 * 1024];
/// Where the ring begins.
pub(crate) const RING_START: u64 = 128 * 1024;
/// The smallest ring: what a few commits need to make sense.
pub(crate) const CAPACITY_MIN: u64 = 16 * BLOCK;

/// No position or sequence is above: sums of a position and a length stay far from 64 bits. At 10 GiB/s a log gets there after 13 years.
pub(crate) const POSITION_MAX: u64 = 1 << 62;

/// The next multiple of [`BLOCK`] at or above. Saturates at the last block of the position space, which no device reaches.
pub(crate) const fn block_ceil(position: u64) -> u64 {
    match position.checked_add(BLOCK - 1) {
        Some(p) => p - p % BLOCK,
        None => u64::MAX - (BLOCK - 1),
    }
}

/// The multiple of [`BLOCK`] at or below.
pub(crate) const fn block_floor(position: u64) -> u64 {
    position - position % BLOCK
}

/// The ring of one log.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Ring {
    capacity: u64,
}

/// A contiguous piece of a device.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Extent {
    pub(crate) at: u64,
    pub(crate) len: u64,
}

impl Ring {
    /// A ring of `capacity` bytes, if that is a capacity.
    pub(crate) fn new(capacity: u64) -> Option<Self> {
        let fits =
            capacity.is_multiple_of(BLOCK) && (CAPACITY_MIN..=POSITION_MAX).contains(&capacity);
        fits.then_some(Self { capacity })
    }

    /// The largest ring on a device of `len` bytes.
    pub(crate) fn on(len: u64) -> Option<Self> {
        Self::new(block_floor(len.checked_sub(RING_START)?))
    }

    pub(crate) const fn capacity(self) -> u64 {
        self.capacity
    }

    /// The length a device must have.
    pub(crate) const fn device_len(self) -> u64 {
        RING_START + self.capacity
    }

    /// The pieces that hold `position..position + len`: a second one if the range wraps.
    pub(crate) fn extents(self, position: u64, len: u64) -> (Extent, Option<Extent>) {
        debug_assert!(len <= self.capacity, "a range fits in the ring");
        let offset = position % self.capacity;
        let first = len.min(self.capacity - offset);
        let rest = (first < len).then_some(Extent {
            at: RING_START,
            len: len - first,
        });
        (
            Extent {
                at: RING_START + offset,
                len: first,
            },
            rest,
        )
    }

    /// `data`, whose home is at `position`, cut for the device.
    pub(crate) fn pieces(self, position: u64, data: &Bytes) -> Vec<(u64, Bytes)> {
        let (first, rest) = self.extents(position, data.len() as u64);
        let cut = usize::try_from(first.len)
            .unwrap_or(usize::MAX)
            .min(data.len());
        let mut pieces = vec![(first.at, data.slice(..cut))];
        pieces.extend(rest.map(|rest| (rest.at, data.slice(cut..))));
        pieces
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_range_over_the_rings_end_goes_on_at_its_start() {
        let ring = Ring::new(16 * BLOCK).unwrap();
        let (first, rest) = ring.extents(15 * BLOCK, 3 * BLOCK);
        assert_eq!(
            first,
            Extent {
                at: RING_START + 15 * BLOCK,
                len: BLOCK
            }
        );
        assert_eq!(
            rest,
            Some(Extent {
                at: RING_START,
                len: 2 * BLOCK
            })
        );
        assert_eq!(ring.extents(14 * BLOCK, 2 * BLOCK).1, None);
    }

    #[test]
    fn positions_beyond_32_bits_map_into_the_ring() {
        // Lesson 1: what is narrower than 64 bits overflows one day.
        let ring = Ring::new(16 * BLOCK).unwrap();
        let lap = (1 << 40) * 16 * BLOCK;
        assert_eq!(
            ring.extents(lap + 3 * BLOCK, BLOCK).0.at,
            RING_START + 3 * BLOCK
        );
    }

    #[test]
    fn a_capacity_must_be_blocks_and_enough_of_them() {
        for capacity in [0, BLOCK, CAPACITY_MIN + 1, u64::MAX - u64::MAX % BLOCK] {
            assert_eq!(Ring::new(capacity), None, "{capacity}");
        }
        assert_eq!(Ring::on(RING_START), None);
        assert_eq!(
            Ring::on(RING_START + CAPACITY_MIN + 5).unwrap().capacity(),
            CAPACITY_MIN
        );
    }

    #[test]
    fn rounding_to_blocks_never_overflows() {
        assert_eq!(block_ceil(1), BLOCK);
        assert_eq!(block_ceil(BLOCK), BLOCK);
        assert_eq!(block_ceil(u64::MAX), u64::MAX - (BLOCK - 1));
        assert_eq!(block_floor(BLOCK + 1), BLOCK);
    }
}
