//! Where records wait for the device: the open frame in its slab, and full frames behind it. Pure memory, no I/O.
//!
//! - A frame's bytes are contiguous in one slab, aligned at both ends, and written to once: the copy of an append is the only one.
//! - Frames are closed in position order; once closed, a frame's length and position never change.
//! - `bytes() = padded bytes of all frames here`.
//!
//! A frame gets its header when it is submitted, not here: `durable_through` should be as late as it can be.

use std::{collections::VecDeque, ops::Range};

use bytes::{BufMut, BytesMut};

use super::{
    aligned::Slabs,
    config::Limits,
    frame::{HEADER_LEN, PREFIX_LEN},
    ring::{BLOCK, block_ceil},
};

/// A frame without its header.
#[derive(Debug)]
pub(crate) struct Unsealed {
    /// Header space, body, padding.
    pub(crate) bytes: BytesMut,
    pub(crate) position: u64,
    pub(crate) body_len: usize,
    pub(crate) body_crc: u32,
    /// The records' lengths, in order.
    pub(crate) lens: Vec<u32>,
}

impl Unsealed {
    /// Where the next frame begins.
    pub(crate) fn end(&self) -> u64 {
        self.position + block_ceil((HEADER_LEN + self.body_len) as u64)
    }
}

/// The waiting frames of a log.
#[derive(Debug)]
pub(crate) struct Gather {
    limits: Limits,
    /// The open frame's bytes so far, and behind them the free rest of the slab as capacity.
    slab: BytesMut,
    slabs: Slabs,
    /// Where the open frame begins; its length so far is the slab's.
    position: u64,
    body_crc: u32,
    lens: Vec<u32>,
    full: VecDeque<Unsealed>,
}

impl Gather {
    /// Nothing waits; the first frame will begin at `position`.
    pub(crate) fn new(limits: Limits, position: u64) -> Self {
        Self {
            limits,
            slab: BytesMut::new(),
            slabs: Slabs::of(limits.slab_bytes),
            position,
            body_crc: 0,
            lens: Vec::new(),
            full: VecDeque::new(),
        }
    }

    /// Where the log ends if a record of `len` bytes is added: the end of its padded frame.
    pub(crate) fn end_with(&self, len: usize) -> u64 {
        let with = if self.joins(len) { self.slab.len() } else { 0 };
        let base = if self.joins(len) {
            self.position
        } else {
            self.end()
        };
        base + block_ceil((with.max(HEADER_LEN) + PREFIX_LEN + len) as u64)
    }

    /// Where the log ends: the end of the last padded frame.
    pub(crate) fn end(&self) -> u64 {
        self.position + block_ceil(self.slab.len() as u64)
    }

    /// Padded bytes that wait.
    pub(crate) fn bytes(&self) -> u64 {
        self.end() - self.full.front().map_or(self.position, |f| f.position)
    }

    /// Bytes of the next frame to submit, unpadded; 0 if nothing waits.
    pub(crate) fn next_bytes(&self) -> usize {
        self.full
            .front()
            .map_or(self.slab.len(), |f| HEADER_LEN + f.body_len)
    }

    /// Where the next frame to submit ends.
    pub(crate) fn next_end(&self) -> u64 {
        self.full.front().map_or_else(|| self.end(), Unsealed::end)
    }

    /// Whether a record of `len` bytes goes in the open frame.
    fn joins(&self, len: usize) -> bool {
        let with = self.slab.len() + PREFIX_LEN + len;
        !self.slab.is_empty()
            && with <= self.limits.commit_bytes_max
            && aligned_len(with) <= self.slab.capacity()
    }

    /// Adds a record of `len` bytes, gathered from `parts`. The caller has checked the room.
    pub(crate) fn push(&mut self, parts: &[&[u8]], len: usize) -> Range<u64> {
        if !self.joins(len) {
            self.close();
            self.begin(len);
        }
        let start = self.position + self.slab.len() as u64;
        let prefix = u32::try_from(len)
            .expect("a record is no longer than a body")
            .to_be_bytes();
        let mut crc = crc32c::crc32c_append(self.body_crc, &prefix);
        self.slab.put_slice(&prefix);
        for part in parts {
            crc = crc32c::crc32c_append(crc, part);
            self.slab.put_slice(part);
        }
        self.body_crc = crc;
        self.lens.push(u32::from_be_bytes(prefix));
        start..self.position + self.slab.len() as u64
    }

    /// Begins a frame that a record of `len` bytes fits in, in a new slab if the old one's rest is too small.
    fn begin(&mut self, len: usize) {
        let needed = aligned_len(HEADER_LEN + PREFIX_LEN + len);
        if self.slab.capacity() < needed {
            let filled = std::mem::take(&mut self.slab);
            self.slab = self.slabs.next(filled, needed);
        }
        self.slab.put_bytes(0, HEADER_LEN);
    }

    /// Closes the open frame, if there is one.
    fn close(&mut self) {
        if self.slab.is_empty() {
            return;
        }
        let body_len = self.slab.len() - HEADER_LEN;
        let len = aligned_len(self.slab.len());
        self.slab.resize(len, 0);
        let frame = Unsealed {
            bytes: self.slab.split_to(len),
            position: self.position,
            body_len,
            body_crc: std::mem::take(&mut self.body_crc),
            lens: std::mem::take(&mut self.lens),
        };
        self.position = frame.end();
        self.full.push_back(frame);
    }

    /// The next frame, in position order; the open one is closed if it is its turn.
    pub(crate) fn take(&mut self) -> Option<Unsealed> {
        if self.full.is_empty() {
            self.close();
        }
        self.full.pop_front()
    }
}

fn aligned_len(len: usize) -> usize {
    len.next_multiple_of(BLOCK as usize)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::block::{Config, ring::Ring};

    fn gather(config: Config) -> Gather {
        Gather::new(config.limits(Ring::new(1 << 30).unwrap()), 8192)
    }

    #[test]
    fn small_records_share_a_frame_and_small_frames_share_a_slab() {
        let mut gather = gather(Config::default());
        assert_eq!(gather.push(&[b"ab", b"c"], 3), 8192 + 80..8192 + 87);
        assert_eq!(gather.push(&[b"d"], 1), 8192 + 87..8192 + 92);
        let first = gather.take().unwrap();
        assert_eq!(first.lens, [3, 1]);
        assert_eq!(first.body_crc, crc32c::crc32c(b"\0\0\0\x03abc\0\0\0\x01d"));
        gather.push(&[b"e"], 1);
        let second = gather.take().unwrap();
        assert_eq!(second.position, first.end());
        let addresses = [first.bytes.as_ptr().addr(), second.bytes.as_ptr().addr()];
        assert_eq!(addresses[1] - addresses[0], 4096);
        assert!(crate::block::aligned::is_aligned(&first.bytes));
        assert!(gather.take().is_none());
    }

    #[test]
    fn a_commit_is_cut_at_its_bound_and_a_larger_record_stands_alone() {
        let mut gather = gather(Config {
            commit_bytes_max: 8192,
            ..Config::default()
        });
        gather.push(&[&[1; 5000]], 5000);
        assert_eq!(gather.end_with(5000), 8192 + 4 * 4096);
        gather.push(&[&[2; 5000]], 5000);
        gather.push(&[&[3; 100_000]], 100_000);
        gather.push(&[&[4; 10]], 10);
        let frames: Vec<_> = std::iter::from_fn(|| gather.take()).collect();
        let lens: Vec<_> = frames.iter().map(|f| f.lens.clone()).collect();
        assert_eq!(lens, [vec![5000], vec![5000], vec![100_000], vec![10]]);
        for pair in frames.windows(2) {
            assert_eq!(pair[0].end(), pair[1].position);
        }
    }

    #[test]
    fn no_frame_outgrows_its_slab() {
        // A reallocation would move bytes that are aligned now, and copy them a second time.
        let mut gather = gather(Config {
            slab_bytes: 16384,
            ..Config::default()
        });
        for len in [3000, 3000, 3000, 9000, 1, 40_000, 1] {
            let end = gather.end_with(len);
            gather.push(&[&vec![7; len]], len);
            assert_eq!(gather.end(), end);
        }
        let mut waiting = gather.bytes();
        while let Some(frame) = gather.take() {
            assert!(crate::block::aligned::is_aligned(&frame.bytes));
            assert_eq!(frame.bytes.len() as u64, frame.end() - frame.position);
            waiting -= frame.bytes.len() as u64;
        }
        assert_eq!(waiting, 0);
    }
}
