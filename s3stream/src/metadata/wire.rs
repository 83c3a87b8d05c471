//! The bytes of metadata: a bounded reader, a writer, and one trait for everything that is kept. `docs/format.md` §Metadata.
//!
//! `decode(encode(x)) == x`, and `encode(decode(b)) == b`: every value has one form (numbers are shortest varints, options one byte).
//! A reader never allocates more than the bytes that remain could hold. It does not know versions: each artifact carries its own.

#![cfg_attr(not(test), deny(clippy::indexing_slicing))]

use bytes::Bytes;

use crate::{ClusterId, GroupId, NodeEpoch, NodeId, ObjectId, StreamEpoch, StreamId};

/// Why bytes are not what they should be.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub(crate) enum WireError {
    /// The bytes end within a value.
    #[error("{needed} more bytes needed, {left} left")]
    Short {
        /// Bytes the value needs.
        needed: u64,
        /// Bytes that remain.
        left: usize,
    },
    /// Bytes remain after the last value.
    #[error("{0} bytes too many")]
    Trailing(usize),
    /// A tag that this version does not know: written by a newer one (M7).
    #[error("unknown {what} with tag {tag}")]
    UnknownTag {
        /// What the tag chooses.
        what: &'static str,
        /// The tag.
        tag: u64,
    },
    /// A value that cannot be.
    #[error("impossible {0}")]
    Impossible(&'static str),
}

/// Something with a byte form.
pub(crate) trait Wire: Sized {
    /// The fewest bytes a value takes: what a count may promise is checked against it.
    const LEAST: usize = 1;

    fn put(&self, out: &mut Writer);
    fn get(from: &mut Reader<'_>) -> Result<Self, WireError>;
}

/// Collects bytes.
#[derive(Default)]
pub(crate) struct Writer {
    bytes: Vec<u8>,
}

impl Writer {
    pub(crate) fn raw(&mut self, bytes: &[u8]) {
        self.bytes.extend_from_slice(bytes);
    }

    /// LEB128: seven bits a byte, lowest first, the high bit says that more follow.
    pub(crate) fn varint(&mut self, mut value: u64) {
        while value >= 0x80 {
            self.bytes.push((value as u8 & 0x7f) | 0x80);
            value >>= 7;
        }
        self.bytes.push(value as u8);
    }

    pub(crate) fn len(&self) -> usize {
        self.bytes.len()
    }

    pub(crate) fn into_vec(self) -> Vec<u8> {
        self.bytes
    }
}

/// Takes bytes from the front.
pub(crate) struct Reader<'a> {
    left: &'a [u8],
}

impl<'a> Reader<'a> {
    pub(crate) fn new(bytes: &'a [u8]) -> Self {
        Self { left: bytes }
    }

    pub(crate) fn raw(&mut self, len: usize) -> Result<&'a [u8], WireError> {
        match self.left.split_at_checked(len) {
            Some((taken, left)) => {
                self.left = left;
                Ok(taken)
            }
            None => Err(WireError::Short {
                needed: len as u64,
                left: self.left.len(),
            }),
        }
    }

    pub(crate) fn array<const N: usize>(&mut self) -> Result<[u8; N], WireError> {
        match self.left.split_first_chunk::<N>() {
            Some((taken, left)) => {
                self.left = left;
                Ok(*taken)
            }
            None => Err(WireError::Short {
                needed: N as u64,
                left: self.left.len(),
            }),
        }
    }

    pub(crate) fn varint(&mut self) -> Result<u64, WireError> {
        let mut value = 0u64;
        for shift in (0..64).step_by(7) {
            let [byte] = self.array::<1>()?;
            let bits = u64::from(byte & 0x7f);
            if shift == 63 && bits > 1 {
                return Err(WireError::Impossible("number above 64 bits"));
            }
            value |= bits << shift;
            if byte & 0x80 == 0 {
                if byte == 0 && shift > 0 {
                    return Err(WireError::Impossible("number longer than needed"));
                }
                return Ok(value);
            }
        }
        Err(WireError::Impossible("number above 64 bits"))
    }

    /// A count of things of at least `least` bytes each: refused when the rest cannot hold them.
    pub(crate) fn count(&mut self, least: usize) -> Result<usize, WireError> {
        let count = self.varint()?;
        let needed = count.saturating_mul(least.max(1) as u64);
        if needed > self.left.len() as u64 {
            return Err(WireError::Short {
                needed,
                left: self.left.len(),
            });
        }
        Ok(count as usize)
    }

    pub(crate) fn finish(self) -> Result<(), WireError> {
        match self.left.len() {
            0 => Ok(()),
            left => Err(WireError::Trailing(left)),
        }
    }
}

/// The whole of `bytes` as one value.
pub(crate) fn decode<T: Wire>(bytes: &[u8]) -> Result<T, WireError> {
    let mut reader = Reader::new(bytes);
    let value = T::get(&mut reader)?;
    reader.finish()?;
    Ok(value)
}

impl Wire for u64 {
    fn put(&self, out: &mut Writer) {
        out.varint(*self);
    }
    fn get(from: &mut Reader<'_>) -> Result<Self, WireError> {
        from.varint()
    }
}

impl Wire for u32 {
    fn put(&self, out: &mut Writer) {
        out.varint(u64::from(*self));
    }
    fn get(from: &mut Reader<'_>) -> Result<Self, WireError> {
        u32::try_from(from.varint()?).map_err(|_| WireError::Impossible("number above 32 bits"))
    }
}

/// Fixed: these are random or hashes, and a varint would be longer.
impl Wire for u128 {
    const LEAST: usize = 16;
    fn put(&self, out: &mut Writer) {
        out.raw(&self.to_be_bytes());
    }
    fn get(from: &mut Reader<'_>) -> Result<Self, WireError> {
        Ok(u128::from_be_bytes(from.array()?))
    }
}

impl Wire for bool {
    fn put(&self, out: &mut Writer) {
        out.raw(&[u8::from(*self)]);
    }
    fn get(from: &mut Reader<'_>) -> Result<Self, WireError> {
        match from.array()? {
            [0] => Ok(false),
            [1] => Ok(true),
            _ => Err(WireError::Impossible("truth value")),
        }
    }
}

impl<const N: usize> Wire for [u8; N] {
    const LEAST: usize = N;
    fn put(&self, out: &mut Writer) {
        out.raw(self);
    }
    fn get(from: &mut Reader<'_>) -> Result<Self, WireError> {
        from.array()
    }
}

impl Wire for Bytes {
    fn put(&self, out: &mut Writer) {
        out.varint(self.len() as u64);
        out.raw(self);
    }
    fn get(from: &mut Reader<'_>) -> Result<Self, WireError> {
        let len = from.count(1)?;
        Ok(Bytes::copy_from_slice(from.raw(len)?))
    }
}

impl Wire for String {
    fn put(&self, out: &mut Writer) {
        out.varint(self.len() as u64);
        out.raw(self.as_bytes());
    }
    fn get(from: &mut Reader<'_>) -> Result<Self, WireError> {
        let len = from.count(1)?;
        match std::str::from_utf8(from.raw(len)?) {
            Ok(text) => Ok(text.to_owned()),
            Err(_) => Err(WireError::Impossible("text that is not UTF-8")),
        }
    }
}

impl<T: Wire> Wire for Vec<T> {
    fn put(&self, out: &mut Writer) {
        out.varint(self.len() as u64);
        for item in self {
            item.put(out);
        }
    }
    fn get(from: &mut Reader<'_>) -> Result<Self, WireError> {
        let count = from.count(T::LEAST)?;
        // A decoded item may be larger than its bytes: grow as they really come, from a modest start.
        let mut items = Vec::with_capacity(count.min(1024));
        for _ in 0..count {
            items.push(T::get(from)?);
        }
        Ok(items)
    }
}

impl<T: Wire> Wire for Option<T> {
    fn put(&self, out: &mut Writer) {
        self.is_some().put(out);
        if let Some(value) = self {
            value.put(out);
        }
    }
    fn get(from: &mut Reader<'_>) -> Result<Self, WireError> {
        Ok(match bool::get(from)? {
            true => Some(T::get(from)?),
            false => None,
        })
    }
}

impl<T: Wire, E: Wire> Wire for Result<T, E> {
    fn put(&self, out: &mut Writer) {
        self.is_ok().put(out);
        match self {
            Ok(value) => value.put(out),
            Err(error) => error.put(out),
        }
    }
    fn get(from: &mut Reader<'_>) -> Result<Self, WireError> {
        Ok(match bool::get(from)? {
            true => Ok(T::get(from)?),
            false => Err(E::get(from)?),
        })
    }
}

impl<A: Wire, B: Wire> Wire for (A, B) {
    const LEAST: usize = A::LEAST + B::LEAST;
    fn put(&self, out: &mut Writer) {
        self.0.put(out);
        self.1.put(out);
    }
    fn get(from: &mut Reader<'_>) -> Result<Self, WireError> {
        Ok((A::get(from)?, B::get(from)?))
    }
}

/// Start, then length: an inverted range has no form, and is written as the empty one that it amounts to.
impl Wire for std::ops::Range<u64> {
    const LEAST: usize = 2;
    fn put(&self, out: &mut Writer) {
        out.varint(self.start);
        out.varint(self.end.saturating_sub(self.start));
    }
    fn get(from: &mut Reader<'_>) -> Result<Self, WireError> {
        let start = from.varint()?;
        match start.checked_add(from.varint()?) {
            Some(end) => Ok(start..end),
            None => Err(WireError::Impossible("range above 64 bits")),
        }
    }
}

macro_rules! wire_newtype {
    ($($name:ty as $repr:ty),+ $(,)?) => {
        $(impl Wire for $name {
            const LEAST: usize = <$repr as Wire>::LEAST;
            fn put(&self, out: &mut Writer) {
                <$repr as Wire>::put(&self.get(), out);
            }
            fn get(from: &mut Reader<'_>) -> Result<Self, WireError> {
                Ok(Self::new(<$repr as Wire>::get(from)?))
            }
        })+
    };
}

wire_newtype! {
    ClusterId as u128,
    NodeId as u64,
    NodeEpoch as u64,
    GroupId as u64,
    StreamId as u64,
    StreamEpoch as u64,
    ObjectId as u64,
    wal::Position as u64,
    wal::LogUuid as u128,
}

/// The fields in the order given: the order is the format.
macro_rules! wire_struct {
    ($name:ident { $($field:ident),* $(,)? }) => {
        impl $crate::metadata::wire::Wire for $name {
            #[allow(unused_variables)]
            fn put(&self, out: &mut $crate::metadata::wire::Writer) {
                $($crate::metadata::wire::Wire::put(&self.$field, out);)*
            }
            #[allow(unused_variables)]
            fn get(from: &mut $crate::metadata::wire::Reader<'_>) -> Result<Self, $crate::metadata::wire::WireError> {
                Ok(Self { $($field: $crate::metadata::wire::Wire::get(from)?),* })
            }
        }
    };
}

/// A tag byte, then the fields of the variant in the order given. Tags are persisted: never renumber, never reuse.
macro_rules! wire_enum {
    ($name:ident as $what:literal { $($tag:literal => $variant:ident $(($value:ident))? $({ $($field:ident),* $(,)? })?),+ $(,)? }) => {
        impl $crate::metadata::wire::Wire for $name {
            fn put(&self, out: &mut $crate::metadata::wire::Writer) {
                match self {
                    $(Self::$variant $(($value))? $({ $($field),* })? => {
                        out.varint($tag);
                        $($crate::metadata::wire::Wire::put($value, out);)?
                        $($($crate::metadata::wire::Wire::put($field, out);)*)?
                    })+
                }
            }
            fn get(from: &mut $crate::metadata::wire::Reader<'_>) -> Result<Self, $crate::metadata::wire::WireError> {
                Ok(match from.varint()? {
                    $($tag => {
                        $(let $value = $crate::metadata::wire::Wire::get(from)?;)?
                        $($(let $field = $crate::metadata::wire::Wire::get(from)?;)*)?
                        Self::$variant $(($value))? $({ $($field),* })?
                    })+
                    tag => return Err($crate::metadata::wire::WireError::UnknownTag { what: $what, tag }),
                })
            }
        }
    };
}

pub(crate) use {wire_enum, wire_struct};

#[cfg(test)]
mod tests {
    use super::*;

    fn encode<T: Wire>(value: &T) -> Vec<u8> {
        let mut out = Writer::default();
        value.put(&mut out);
        out.into_vec()
    }

    #[test]
    fn every_number_has_one_form_and_comes_back() {
        for value in [
            0,
            1,
            127,
            128,
            300,
            u64::from(u32::MAX),
            u64::MAX - 1,
            u64::MAX,
        ] {
            let bytes = encode(&value);
            assert_eq!(decode::<u64>(&bytes), Ok(value), "{bytes:02x?}");
        }
        assert_eq!(encode(&300u64), [0xac, 0x02]);
        assert_eq!(
            decode::<u64>(&[0x80, 0x00]),
            Err(WireError::Impossible("number longer than needed"))
        );
        assert_eq!(
            decode::<u64>(&[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x02]),
            Err(WireError::Impossible("number above 64 bits"))
        );
        assert_eq!(
            decode::<u64>(&[0xff; 11]),
            Err(WireError::Impossible("number above 64 bits"))
        );
    }

    #[test]
    fn a_count_that_the_rest_cannot_hold_allocates_nothing() {
        let mut bytes = Vec::new();
        bytes.extend_from_slice(&encode(&u64::MAX));
        assert!(matches!(
            decode::<Vec<u128>>(&bytes),
            Err(WireError::Short { .. })
        ));
        assert!(matches!(
            decode::<Bytes>(&[5, 1, 2]),
            Err(WireError::Short { needed: 5, left: 2 })
        ));
    }

    #[test]
    fn a_range_that_overflows_and_bytes_that_remain_are_refused() {
        let mut out = Writer::default();
        out.varint(u64::MAX);
        out.varint(1);
        assert_eq!(
            decode::<std::ops::Range<u64>>(&out.into_vec()),
            Err(WireError::Impossible("range above 64 bits"))
        );
        assert_eq!(decode::<bool>(&[1, 0]), Err(WireError::Trailing(1)));
        assert_eq!(
            decode::<bool>(&[2]),
            Err(WireError::Impossible("truth value"))
        );
    }
}
