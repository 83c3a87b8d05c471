//! Where records wait for a put: the open object, and full ones behind it. Pure memory, no I/O.
//!
//! - The copy of an append is the only one: an object's body is slices of slabs, and no record straddles two of them.
//! - Objects are closed in the order of their numbers; a closed one never changes.
//! - `bytes() = header and body of every object here`.
//!
//! An object gets its header when it is put, not here: `durable_through` should be as late as it can be.

use std::{collections::VecDeque, ops::Range};

use bytes::{BufMut, Bytes, BytesMut};

use super::{
    config::Config,
    format::{HEADER_LEN, PREFIX_LEN, position_of},
};

/// An object without its header.
#[derive(Debug, Default)]
pub(crate) struct Unsealed {
    pub(crate) number: u64,
    /// The body's pieces.
    pub(crate) pieces: Vec<Bytes>,
    pub(crate) body_len: usize,
    pub(crate) body_crc: u32,
    /// The records' lengths, in order.
    pub(crate) lens: Vec<u32>,
}

impl Unsealed {
    /// With its header; 0 if it is empty.
    pub(crate) fn len(&self) -> usize {
        match self.body_len {
            0 => 0,
            body => HEADER_LEN + body,
        }
    }
}

/// The waiting objects of a log.
#[derive(Debug)]
pub(crate) struct Gather {
    object_len_max: usize,
    slab_bytes: usize,
    /// The open object's last piece so far, and behind it the free rest of the slab as capacity.
    slab: BytesMut,
    open: Unsealed,
    full: VecDeque<Unsealed>,
    full_bytes: u64,
}

impl Gather {
    /// Nothing waits; the first object will have `number`.
    pub(crate) fn new(config: &Config, number: u64) -> Self {
        Self {
            object_len_max: config.object_len_max(),
            slab_bytes: config.slab_bytes,
            slab: BytesMut::new(),
            open: Unsealed {
                number,
                ..Unsealed::default()
            },
            full: VecDeque::new(),
            full_bytes: 0,
        }
    }

    /// Bytes that wait, headers included.
    pub(crate) fn bytes(&self) -> u64 {
        self.full_bytes + self.open.len() as u64
    }

    /// Objects that wait.
    pub(crate) fn objects(&self) -> usize {
        self.full.len() + usize::from(self.open.body_len > 0)
    }

    /// The number of the next object to put.
    pub(crate) fn next_number(&self) -> u64 {
        self.full.front().map_or(self.open.number, |o| o.number)
    }

    /// Bytes of the next object to put; 0 if nothing waits.
    pub(crate) fn next_bytes(&self) -> usize {
        self.full.front().unwrap_or(&self.open).len()
    }

    /// Bytes that a record of `len` bytes would add, and whether in an object of its own.
    pub(crate) fn needs(&self, len: usize) -> (u64, bool) {
        let joins = self.joins(len);
        let header = if joins { 0 } else { HEADER_LEN };
        ((header + PREFIX_LEN + len) as u64, !joins)
    }

    fn joins(&self, len: usize) -> bool {
        self.open.body_len > 0 && self.open.len() + PREFIX_LEN + len <= self.object_len_max
    }

    /// Adds a record of `len` bytes, gathered from `parts`. The caller has checked the room.
    pub(crate) fn push(&mut self, parts: &[&[u8]], len: usize) -> Range<u64> {
        if !self.joins(len) {
            self.close();
        }
        let needed = PREFIX_LEN + len;
        if self.slab.capacity() - self.slab.len() < needed {
            self.cut();
            self.slab = BytesMut::with_capacity(needed.max(self.slab_bytes));
        }
        let prefix = u32::try_from(len)
            .expect("a record is shorter than an object")
            .to_be_bytes();
        let mut crc = crc32c::crc32c_append(self.open.body_crc, &prefix);
        self.slab.put_slice(&prefix);
        for part in parts {
            crc = crc32c::crc32c_append(crc, part);
            self.slab.put_slice(part);
        }
        self.open.body_crc = crc;
        self.open.lens.push(u32::from_be_bytes(prefix));
        let start = position_of(self.open.number) + (HEADER_LEN + self.open.body_len) as u64;
        self.open.body_len += needed;
        start..start + needed as u64
    }

    /// Ends the piece in the slab.
    fn cut(&mut self) {
        if !self.slab.is_empty() {
            self.open.pieces.push(self.slab.split().freeze());
        }
    }

    /// Closes the open object, if there is one.
    fn close(&mut self) {
        if self.open.body_len == 0 {
            return;
        }
        self.cut();
        let next = Unsealed {
            number: self.open.number + 1,
            ..Unsealed::default()
        };
        let closed = std::mem::replace(&mut self.open, next);
        self.full_bytes += closed.len() as u64;
        self.full.push_back(closed);
    }

    /// The next object, in the order of numbers; the open one is closed if it is its turn.
    pub(crate) fn take(&mut self) -> Option<Unsealed> {
        if self.full.is_empty() {
            self.close();
        }
        let next = self.full.pop_front()?;
        self.full_bytes -= next.len() as u64;
        Some(next)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn gather(commit_bytes_max: usize, slab_bytes: usize) -> Gather {
        let config = Config {
            commit_bytes_max,
            slab_bytes,
            ..Config::default()
        };
        Gather::new(&config, 5)
    }

    #[test]
    fn small_records_share_an_object_and_small_objects_share_a_slab() {
        let mut gather = gather(8 << 20, 1 << 20);
        let at = 5 << 26;
        assert_eq!(gather.push(&[b"ab", b"c"], 3), at + 128..at + 135);
        assert_eq!(gather.push(&[b"d"], 1), at + 135..at + 140);
        assert_eq!((gather.bytes(), gather.objects()), (140, 1));
        let first = gather.take().unwrap();
        assert_eq!(first.lens, [3, 1]);
        assert_eq!(first.pieces, [&b"\0\0\0\x03abc\0\0\0\x01d"[..]]);
        assert_eq!(first.body_crc, crc32c::crc32c(&first.pieces[0]));
        gather.push(&[b"e"], 1);
        let second = gather.take().unwrap();
        assert_eq!(second.number, 6);
        let addresses = [&first, &second].map(|o| o.pieces[0].as_ptr().addr());
        assert_eq!(addresses[1] - addresses[0], 12);
        assert!(gather.take().is_none());
        assert_eq!((gather.bytes(), gather.objects()), (0, 0));
    }

    #[test]
    fn an_object_is_cut_at_its_bound_and_no_record_straddles_two_slabs() {
        let mut gather = gather(300, 100);
        for len in [60, 60, 60, 500, 10] {
            gather.push(&[&vec![7; len]], len);
        }
        let objects: Vec<_> = std::iter::from_fn(|| gather.take()).collect();
        let lens: Vec<_> = objects.iter().map(|o| o.lens.clone()).collect();
        assert_eq!(lens, [vec![60, 60], vec![60], vec![500], vec![10]]);
        let pieces: Vec<_> = objects[0].pieces.iter().map(Bytes::len).collect();
        assert_eq!(pieces, [64, 64]);
        assert_eq!(objects[0].len(), 128 + 128);
    }
}
