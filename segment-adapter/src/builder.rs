//! Building record batches: what a producer, a coordinator or a test sends.
//!
//! Offset deltas are dense from 0. A batch holds at least one record and at most what 31 bits of length can say.
//! It does not choose when a batch is full; control batches are `marker`'s.

use std::io;

use bytes::Bytes;

use crate::compress::Codec;
use crate::header::{Attributes, BATCH_HEADER_LEN, BATCH_LENGTH_OVERHEAD, BatchHeader};

/// Gathers records and makes one batch of them.
#[derive(Clone, Debug)]
pub struct BatchBuilder {
    codec: Codec,
    attributes: Attributes,
    base_timestamp: Option<i64>,
    max_timestamp: i64,
    count: i32,
    producer_id: i64,
    producer_epoch: i16,
    base_sequence: i32,
    records: Vec<u8>,
    record: Vec<u8>,
}

impl BatchBuilder {
    /// An empty batch whose records will be compressed with `codec`.
    pub fn new(codec: Codec) -> Self {
        Self {
            codec,
            attributes: Attributes::new(codec as i16),
            base_timestamp: None,
            max_timestamp: -1,
            count: 0,
            producer_id: -1,
            producer_epoch: -1,
            base_sequence: -1,
            records: Vec::new(),
            record: Vec::new(),
        }
    }

    /// Makes it the batch of an idempotent producer whose first record has this sequence number.
    #[must_use]
    pub fn producer(mut self, id: i64, epoch: i16, base_sequence: i32) -> Self {
        self.producer_id = id;
        self.producer_epoch = epoch;
        self.base_sequence = base_sequence;
        self
    }

    /// Makes it a part of its producer's transaction.
    #[must_use]
    pub fn transactional(mut self) -> Self {
        self.attributes = self.attributes.with_transactional();
        self
    }

    /// Makes it a control batch.
    #[must_use]
    pub(crate) fn control(mut self) -> Self {
        self.attributes = self.attributes.with_control();
        self
    }

    /// Adds a record without headers; `timestamp` in milliseconds, -1 for none.
    #[must_use]
    pub fn record(self, timestamp: i64, key: Option<&[u8]>, value: Option<&[u8]>) -> Self {
        self.record_with_headers(timestamp, key, value, &[])
    }

    /// Adds a record.
    #[must_use]
    pub fn record_with_headers(
        mut self,
        timestamp: i64,
        key: Option<&[u8]>,
        value: Option<&[u8]>,
        headers: &[(&str, Option<&[u8]>)],
    ) -> Self {
        let base_timestamp = *self.base_timestamp.get_or_insert(timestamp);
        self.max_timestamp = self.max_timestamp.max(timestamp);
        self.record.clear();
        self.record.push(0);
        put_varlong(&mut self.record, timestamp.wrapping_sub(base_timestamp));
        put_varlong(&mut self.record, i64::from(self.count));
        put_field(&mut self.record, key);
        put_field(&mut self.record, value);
        put_varlong(&mut self.record, headers.len() as i64);
        for (name, value) in headers {
            put_field(&mut self.record, Some(name.as_bytes()));
            put_field(&mut self.record, *value);
        }
        put_varlong(&mut self.records, self.record.len() as i64);
        self.records.extend_from_slice(&self.record);
        self.count += 1;
        self
    }

    /// The batch as a producer sends it: base offset 0, no leader epoch.
    ///
    /// Fails if the codec does, or if the batch is empty or longer than its length field can say.
    pub fn build(self) -> io::Result<Bytes> {
        let invalid = |what: &str| io::Error::new(io::ErrorKind::InvalidInput, what);
        let base_timestamp = self
            .base_timestamp
            .ok_or_else(|| invalid("a batch needs a record"))?;
        let records = self.codec.compress(&self.records)?;
        let length = BATCH_HEADER_LEN - BATCH_LENGTH_OVERHEAD + records.len();
        let mut header = BatchHeader {
            base_offset: 0,
            batch_length: i32::try_from(length)
                .map_err(|_| invalid("the batch is longer than 2 GiB"))?,
            partition_leader_epoch: -1,
            crc: 0,
            attributes: self.attributes,
            last_offset_delta: self.count - 1,
            base_timestamp,
            max_timestamp: self.max_timestamp,
            producer_id: self.producer_id,
            producer_epoch: self.producer_epoch,
            base_sequence: self.base_sequence,
            records_count: self.count,
        };
        header.crc = header.checksum(&records);
        let mut out = Vec::with_capacity(BATCH_HEADER_LEN + records.len());
        out.extend_from_slice(&header.encode());
        out.extend_from_slice(&records);
        Ok(out.into())
    }
}

fn put_field(out: &mut Vec<u8>, field: Option<&[u8]>) {
    match field {
        Some(field) => {
            put_varlong(out, field.len() as i64);
            out.extend_from_slice(field);
        }
        None => put_varlong(out, -1),
    }
}

/// Zig-zag; for values of 32 bits the same bytes as a varint.
pub(crate) fn put_varlong(out: &mut Vec<u8>, value: i64) {
    let mut rest = ((value << 1) ^ (value >> 63)) as u64;
    while rest >= 0x80 {
        out.push(rest as u8 | 0x80);
        rest >>= 7;
    }
    out.push(rest as u8);
}
