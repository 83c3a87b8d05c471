//! Records of `__transaction_state`, as Kafka writes them: one per transactional id, the last one counts.
//!
//! Key: version 0, the transactional id. Value: version 0 (what Kafka wrote before 4.0) is read, version 1 is read and
//! written: the same fields with compact lengths, and tagged ones that are left out where they say nothing. A null value
//! forgets the id. What is stored is decoded without trust: typed errors, no count is believed before its bytes are there.

use bytes::{BufMut, Bytes, BytesMut};
use segment_adapter::TransactionVersion;

use super::transaction::{Partitions, Status, Transaction};

const KEY_VERSION: i16 = 0;
const VALUE_VERSION: i16 = 1;
/// The first version with compact lengths and tagged fields.
const FLEXIBLE: i16 = 1;
const TAG_PREVIOUS: u32 = 0;
const TAG_NEXT: u32 = 1;
const TAG_VERSION: u32 = 2;

/// Why a stored record is not understood.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub(crate) enum RecordError {
    #[error("a transaction record of version {0}, which this program does not know")]
    Version(i16),
    #[error("a transaction record that ends early")]
    Short,
    #[error("a transaction record with {0} bytes too many")]
    Long(usize),
    #[error("a transaction record whose {field} is {value}")]
    Field { field: &'static str, value: i64 },
    #[error("a transaction record with a text that is not UTF-8")]
    Text,
    #[error("a transactional id of {0} bytes")]
    Id(usize),
}

/// The key of a transactional id.
pub(crate) fn encode_key(id: &str) -> Result<Bytes, RecordError> {
    let len = i16::try_from(id.len()).map_err(|_| RecordError::Id(id.len()))?;
    let mut bytes = BytesMut::with_capacity(4 + id.len());
    bytes.put_i16(KEY_VERSION);
    bytes.put_i16(len);
    bytes.put_slice(id.as_bytes());
    Ok(bytes.freeze())
}

/// The transactional id of a key.
pub(crate) fn decode_key(key: &[u8]) -> Result<String, RecordError> {
    let mut reader = Reader::new(key);
    let version = reader.i16()?;
    if version != KEY_VERSION {
        return Err(RecordError::Version(version));
    }
    let id = reader.text()?;
    reader.end()?;
    Ok(id)
}

/// The value of a transactional id.
pub(crate) fn encode_value(txn: &Transaction) -> Bytes {
    let mut bytes = BytesMut::new();
    bytes.put_i16(VALUE_VERSION);
    bytes.put_i64(txn.producer_id);
    bytes.put_i16(txn.epoch);
    bytes.put_i32(txn.timeout_ms);
    bytes.put_i8(txn.status as i8);
    match txn.status {
        // Null, as in Kafka.
        Status::Empty => put_varint(&mut bytes, 0),
        _ => {
            put_len(&mut bytes, txn.partitions.len());
            for (topic, indexes) in &txn.partitions {
                put_len(&mut bytes, topic.len());
                bytes.put_slice(topic.as_bytes());
                put_len(&mut bytes, indexes.len());
                indexes.iter().for_each(|index| bytes.put_i32(*index));
                put_varint(&mut bytes, 0);
            }
        }
    }
    bytes.put_i64(txn.updated_ms);
    bytes.put_i64(txn.started_ms);
    put_tagged(&mut bytes, txn);
    bytes.freeze()
}

fn put_tagged(bytes: &mut BytesMut, txn: &Transaction) {
    let ids = [(TAG_PREVIOUS, txn.previous), (TAG_NEXT, txn.next)];
    let ids: Vec<_> = ids
        .into_iter()
        .filter_map(|(tag, id)| Some((tag, id?)))
        .collect();
    let version = level(txn.version);
    put_varint(bytes, ids.len() as u32 + u32::from(version != 0));
    for (tag, id) in ids {
        put_varint(bytes, tag);
        put_varint(bytes, 8);
        bytes.put_i64(id);
    }
    if version != 0 {
        put_varint(bytes, TAG_VERSION);
        put_varint(bytes, 2);
        bytes.put_i16(version);
    }
}

/// The transaction of a value.
pub(crate) fn decode_value(value: &[u8]) -> Result<Transaction, RecordError> {
    let mut reader = Reader::new(value);
    let version = reader.i16()?;
    if !(0..=VALUE_VERSION).contains(&version) {
        return Err(RecordError::Version(version));
    }
    reader.flexible = version >= FLEXIBLE;
    let producer_id = reader.i64()?;
    let epoch = reader.i16()?;
    let timeout_ms = reader.i32()?;
    let status = reader.i8()?;
    let status = Status::of(status).ok_or(RecordError::Field {
        field: "status",
        value: status.into(),
    })?;
    let partitions = reader.partitions()?;
    let mut txn = Transaction {
        producer_id,
        epoch,
        previous: None,
        next: None,
        timeout_ms,
        status,
        partitions,
        updated_ms: reader.i64()?,
        started_ms: reader.i64()?,
        version: TransactionVersion::V0,
    };
    for (tag, value) in reader.tagged()? {
        let mut reader = Reader::new(value);
        match tag {
            TAG_PREVIOUS => txn.previous = known(reader.i64()?),
            TAG_NEXT => txn.next = known(reader.i64()?),
            TAG_VERSION => txn.version = version_of(reader.i16()?)?,
            // Of a later Kafka; tagged so that it may be passed over.
            _ => continue,
        }
        reader.end()?;
    }
    reader.end()?;
    for (field, value) in [("producer id", producer_id), ("epoch", epoch.into())] {
        if value < 0 {
            return Err(RecordError::Field { field, value });
        }
    }
    Ok(txn)
}

fn known(id: i64) -> Option<i64> {
    (id >= 0).then_some(id)
}

/// The number of a version, as `transaction.version` counts.
fn level(version: TransactionVersion) -> i16 {
    match version {
        TransactionVersion::V0 => 0,
        TransactionVersion::V1 => 1,
        TransactionVersion::V2 => 2,
    }
}

fn version_of(level: i16) -> Result<TransactionVersion, RecordError> {
    match level {
        0 => Ok(TransactionVersion::V0),
        1 => Ok(TransactionVersion::V1),
        2 => Ok(TransactionVersion::V2),
        value => Err(RecordError::Field {
            field: "client transaction version",
            value: value.into(),
        }),
    }
}

/// A compact length: one more than the length.
fn put_len(bytes: &mut BytesMut, len: usize) {
    put_varint(bytes, len as u32 + 1);
}

fn put_varint(bytes: &mut BytesMut, mut value: u32) {
    while value >= 0x80 {
        bytes.put_u8(value as u8 | 0x80);
        value >>= 7;
    }
    bytes.put_u8(value as u8);
}

/// Takes fields off the front.
struct Reader<'a> {
    rest: &'a [u8],
    flexible: bool,
}

impl<'a> Reader<'a> {
    fn new(bytes: &'a [u8]) -> Self {
        Self {
            rest: bytes,
            flexible: false,
        }
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], RecordError> {
        let (head, rest) = self
            .rest
            .split_first_chunk::<N>()
            .ok_or(RecordError::Short)?;
        self.rest = rest;
        Ok(*head)
    }

    fn take(&mut self, len: usize) -> Result<&'a [u8], RecordError> {
        let (head, rest) = self.rest.split_at_checked(len).ok_or(RecordError::Short)?;
        self.rest = rest;
        Ok(head)
    }

    fn i8(&mut self) -> Result<i8, RecordError> {
        self.array().map(i8::from_be_bytes)
    }

    fn i16(&mut self) -> Result<i16, RecordError> {
        self.array().map(i16::from_be_bytes)
    }

    fn i32(&mut self) -> Result<i32, RecordError> {
        self.array().map(i32::from_be_bytes)
    }

    fn i64(&mut self) -> Result<i64, RecordError> {
        self.array().map(i64::from_be_bytes)
    }

    fn varint(&mut self) -> Result<u32, RecordError> {
        let mut value = 0;
        for shift in [0, 7, 14, 21, 28] {
            let [byte] = self.array()?;
            value |= u32::from(byte & 0x7f) << shift;
            if byte < 0x80 {
                return Ok(value);
            }
        }
        Err(RecordError::Short)
    }

    fn text(&mut self) -> Result<String, RecordError> {
        let len = match self.flexible {
            true => self.varint()? as usize,
            // One more, as a compact length.
            false => usize::try_from(i32::from(self.i16()?) + 1).unwrap_or(0),
        };
        let text = self.take(len.checked_sub(1).ok_or(RecordError::Short)?)?;
        let text = std::str::from_utf8(text).map_err(|_| RecordError::Text)?;
        Ok(text.to_owned())
    }

    /// The count of an array, null counting as none; its elements have `least` bytes each at least.
    fn count(&mut self, least: usize) -> Result<usize, RecordError> {
        let count = match self.flexible {
            true => (self.varint()? as usize).saturating_sub(1),
            false => usize::try_from(self.i32()?).unwrap_or(0),
        };
        match count.checked_mul(least) {
            Some(bytes) if bytes <= self.rest.len() => Ok(count),
            _ => Err(RecordError::Short),
        }
    }

    fn partitions(&mut self) -> Result<Partitions, RecordError> {
        let mut partitions = Partitions::new();
        for _ in 0..self.count(2)? {
            let topic = self.text()?;
            let indexes = (0..self.count(4)?).map(|_| self.i32());
            let indexes = indexes.collect::<Result<Vec<_>, _>>()?;
            partitions.entry(topic).or_default().extend(indexes);
            self.tagged()?;
        }
        Ok(partitions)
    }

    /// The tagged fields that come next.
    fn tagged(&mut self) -> Result<Vec<(u32, &'a [u8])>, RecordError> {
        if !self.flexible {
            return Ok(Vec::new());
        }
        let count = self.varint()? as usize;
        if count > self.rest.len() {
            return Err(RecordError::Short);
        }
        let mut fields = Vec::new();
        for _ in 0..count {
            let tag = self.varint()?;
            let len = self.varint()? as usize;
            fields.push((tag, self.take(len)?));
        }
        Ok(fields)
    }

    fn end(&self) -> Result<(), RecordError> {
        match self.rest.len() {
            0 => Ok(()),
            more => Err(RecordError::Long(more)),
        }
    }
}

#[cfg(test)]
mod tests;
