//! Marks: what a place says of itself, as a chain of small objects under consecutive numbers. `docs/format.md`, "Object log".
//!
//! - A mark is made with put-if-absent after the one before it; the highest counts. None is ever deleted: whoever was slow must not find a number free
//!   that others have passed.
//! - That a log was made is marked before anything is recorded of it, an epoch's start before its first commit; its close directly after its own
//!   start, or not at all.
//!
//! A mark guards against mistakes (a wrong place, a forgotten state); it fences nobody.

use bytes::{Buf, BufMut, Bytes, BytesMut};

use crate::{Identity, LogEpoch, LogUuid, admission::Claim};

const LEN: usize = 96;
const VERSION: u32 = 1;
const MAGIC: [u8; 8] = *b"S3WALMK\n";
const CRC_AT: usize = LEN - 4;

const _: () = assert!(8 + 4 + 1 + 3 + 16 + 16 + 3 * 8 + 16 + 4 + 4 == LEN);

/// What a mark says.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Event {
    /// The log was made; nothing was started.
    Made,
    /// The epoch was started.
    Started,
    /// The epoch was closed, and owes nothing.
    Closed,
}

/// One mark.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Mark {
    pub(crate) event: Event,
    pub(crate) identity: Identity,
    /// 0 if none was started.
    pub(crate) epoch: LogEpoch,
    /// Where the epoch began, or where it ended if it was closed.
    pub(crate) position: u64,
    pub(crate) incarnation: u128,
}

/// Why bytes are no mark.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Unreadable {
    Damaged(String),
    Version(u32),
}

impl Mark {
    pub(crate) const VERSION: u32 = VERSION;

    pub(crate) fn encode(&self) -> Bytes {
        let mut to = BytesMut::with_capacity(LEN);
        to.put_slice(&MAGIC);
        to.put_u32(VERSION);
        to.put_u8(match self.event {
            Event::Started => 1,
            Event::Closed => 2,
            Event::Made => 3,
        });
        to.put_bytes(0, 3);
        to.put_u128(self.identity.cluster);
        to.put_u128(self.identity.log.get());
        to.put_u64(self.identity.node);
        to.put_u64(self.epoch.get());
        to.put_u64(self.position);
        to.put_u128(self.incarnation);
        to.put_u32(0);
        let crc = crc32c::crc32c(&to);
        to.put_u32(crc);
        to.freeze()
    }

    pub(crate) fn decode(bytes: &[u8]) -> Result<Self, Unreadable> {
        let Some((bytes, [])) = bytes.split_first_chunk::<LEN>() else {
            let what = format!("a mark of {} bytes", bytes.len());
            return Err(Unreadable::Damaged(what));
        };
        let (covered, mut crc) = bytes.split_at(CRC_AT);
        let mut from = covered;
        let mut magic = [0; 8];
        from.copy_to_slice(&mut magic);
        if magic != MAGIC || crc32c::crc32c(covered) != crc.get_u32() {
            return Err(Unreadable::Damaged("not a mark of a log".to_owned()));
        }
        let version = from.get_u32();
        if version != VERSION {
            return Err(Unreadable::Version(version));
        }
        let contradiction = || Unreadable::Damaged("a mark that contradicts itself".to_owned());
        let event = match from.get_u32() {
            0x0100_0000 => Event::Started,
            0x0200_0000 => Event::Closed,
            0x0300_0000 => Event::Made,
            _ => return Err(contradiction()),
        };
        let mark = Self {
            event,
            identity: Identity {
                cluster: from.get_u128(),
                log: LogUuid::new(from.get_u128()),
                node: from.get_u64(),
            },
            epoch: LogEpoch::new(from.get_u64()),
            position: from.get_u64(),
            incarnation: from.get_u128(),
        };
        let blank = mark.epoch.get() == 0 && mark.position == 0;
        let sound = mark.position < 1 << 62 && (event != Event::Made || blank);
        if from.get_u32() != 0 || !sound {
            return Err(contradiction());
        }
        Ok(mark)
    }

    pub(crate) fn claim(&self) -> Claim {
        Claim {
            identity: self.identity.clone(),
            epoch: (self.event != Event::Made).then_some(self.epoch),
            closed: self.event != Event::Started,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mark() -> Mark {
        Mark {
            event: Event::Started,
            identity: Identity {
                cluster: 1,
                log: LogUuid::new(2),
                node: 3,
            },
            epoch: LogEpoch::new(4),
            position: 5 << 26,
            incarnation: 6,
        }
    }

    #[test]
    fn a_mark_is_the_bytes_of_the_table() {
        let bytes = mark().encode();
        let expected: Vec<u8> = [
            &b"S3WALMK\n\0\0\0\x01\x01\0\0\0"[..],
            &1u128.to_be_bytes(),
            &2u128.to_be_bytes(),
            &3u64.to_be_bytes(),
            &4u64.to_be_bytes(),
            &(5u64 << 26).to_be_bytes(),
            &6u128.to_be_bytes(),
            &[0; 4],
            &[0x14, 0xb5, 0x12, 0xf0],
        ]
        .concat();
        assert_eq!(&bytes[..], &expected[..]);
        assert_eq!(Mark::decode(&bytes), Ok(mark()));
        let closed = Mark {
            event: Event::Closed,
            ..mark()
        };
        assert_eq!(closed.encode()[12], 2);
        assert_eq!(Mark::decode(&closed.encode()), Ok(closed));
        let made = Mark {
            event: Event::Made,
            epoch: LogEpoch::new(0),
            position: 0,
            ..mark()
        };
        assert_eq!(made.encode()[12], 3);
        assert_eq!(Mark::decode(&made.encode()), Ok(made));
    }

    #[test]
    fn every_flipped_bit_and_every_cut_is_noticed() {
        let bytes = mark().encode();
        for bit in 0..bytes.len() * 8 {
            let mut bad = bytes.to_vec();
            bad[bit / 8] ^= 1 << (bit % 8);
            assert!(Mark::decode(&bad).is_err(), "bit {bit}");
        }
        for len in 0..bytes.len() {
            assert!(Mark::decode(&bytes[..len]).is_err(), "{len} bytes");
        }
    }
}
