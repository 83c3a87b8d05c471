//! The header of a record batch of format 2: 61 bytes, big-endian.
//!
//! `encode(decode(x)) == x`. The checksum covers bytes 21 to the end, so base offset, length and leader epoch can be
//! set without computing it again. It judges nothing but the format number: rules are in `validate`.

use crate::compress::Codec;
use crate::error::LogError;

/// Length of a batch header in bytes.
pub const BATCH_HEADER_LEN: usize = 61;
/// Bytes before the first that the length field counts: base offset and the length field itself.
pub const BATCH_LENGTH_OVERHEAD: usize = 12;
/// The checksum covers the batch from here to its end.
pub(crate) const CRC_START: usize = 21;

const _: () = assert!(BATCH_HEADER_LEN == 8 + 4 + 4 + 1 + 4 + 2 + 4 + 8 + 8 + 8 + 2 + 4 + 4);
const _: () = assert!(CRC_START == 8 + 4 + 4 + 1 + 4);

/// Whose clock the timestamps of a batch are of.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum TimestampType {
    /// Each record has the time its producer gave it.
    CreateTime,
    /// Every record has the time of the append, which stands in the maximum timestamp of the batch.
    LogAppendTime,
}

/// The attribute bits of a batch.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Attributes(i16);

impl Attributes {
    const CODEC: i16 = 0x07;
    const LOG_APPEND_TIME: i16 = 0x08;
    const TRANSACTIONAL: i16 = 0x10;
    const CONTROL: i16 = 0x20;
    const DELETE_HORIZON: i16 = 0x40;

    /// Wraps the bits.
    pub const fn new(bits: i16) -> Self {
        Self(bits)
    }

    /// The bits.
    pub const fn get(self) -> i16 {
        self.0
    }

    /// The codec of the records.
    pub fn codec(self) -> Result<Codec, LogError> {
        Codec::from_bits((self.0 & Self::CODEC) as u8)
    }

    /// Whose clock the timestamps are of.
    pub const fn timestamp_type(self) -> TimestampType {
        if self.0 & Self::LOG_APPEND_TIME == 0 {
            TimestampType::CreateTime
        } else {
            TimestampType::LogAppendTime
        }
    }

    /// Whether the batch is part of a transaction.
    pub const fn is_transactional(self) -> bool {
        self.0 & Self::TRANSACTIONAL != 0
    }

    /// Whether the batch holds a marker instead of data.
    pub const fn is_control(self) -> bool {
        self.0 & Self::CONTROL != 0
    }

    /// Whether the base timestamp is the time after which tombstones may go.
    pub const fn has_delete_horizon(self) -> bool {
        self.0 & Self::DELETE_HORIZON != 0
    }

    pub(crate) const fn with_log_append_time(self) -> Self {
        Self(self.0 | Self::LOG_APPEND_TIME)
    }

    pub(crate) const fn with_transactional(self) -> Self {
        Self(self.0 | Self::TRANSACTIONAL)
    }

    pub(crate) const fn with_control(self) -> Self {
        Self(self.0 | Self::CONTROL)
    }

    pub(crate) const fn with_delete_horizon(self) -> Self {
        Self(self.0 | Self::DELETE_HORIZON)
    }

    pub(crate) const fn without_delete_horizon(self) -> Self {
        Self(self.0 & !Self::DELETE_HORIZON)
    }

    pub(crate) const fn with_codec(self, codec: Codec) -> Self {
        Self(self.0 & !Self::CODEC | codec as i16)
    }
}

/// The header of a record batch.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct BatchHeader {
    /// Offset of the first record; 0 from a client.
    pub base_offset: i64,
    /// Bytes of the batch after this field.
    pub batch_length: i32,
    /// Epoch of the leader that appended it.
    pub partition_leader_epoch: i32,
    /// Crc32c of everything from the attributes on.
    pub crc: u32,
    /// Codec, timestamp type, transactional, control, delete horizon.
    pub attributes: Attributes,
    /// The last offset of the batch less its base offset. Survives compaction, unlike `records_count`.
    pub last_offset_delta: i32,
    /// What the timestamps of the records are relative to, in milliseconds.
    pub base_timestamp: i64,
    /// The largest timestamp of the records, or of all of them when they have the time of the append.
    pub max_timestamp: i64,
    /// -1 for none.
    pub producer_id: i64,
    /// -1 for none.
    pub producer_epoch: i16,
    /// -1 for none.
    pub base_sequence: i32,
    /// How many records follow. Never to be trusted for an allocation.
    pub records_count: i32,
}

impl BatchHeader {
    /// Reads a header of format 2. What follows the header is not looked at.
    pub fn decode(bytes: &[u8; BATCH_HEADER_LEN]) -> Result<Self, LogError> {
        let magic = bytes[16] as i8;
        match magic {
            2 => {}
            0 | 1 => {
                return Err(LogError::UnsupportedFormat(format!(
                    "record format {magic}, only 2 is served"
                )));
            }
            _ => return Err(LogError::Corrupt(format!("record format {magic}"))),
        }
        Ok(Self {
            base_offset: i64::from_be_bytes(field(bytes, 0)),
            batch_length: i32::from_be_bytes(field(bytes, 8)),
            partition_leader_epoch: i32::from_be_bytes(field(bytes, 12)),
            crc: u32::from_be_bytes(field(bytes, 17)),
            attributes: Attributes(i16::from_be_bytes(field(bytes, 21))),
            last_offset_delta: i32::from_be_bytes(field(bytes, 23)),
            base_timestamp: i64::from_be_bytes(field(bytes, 27)),
            max_timestamp: i64::from_be_bytes(field(bytes, 35)),
            producer_id: i64::from_be_bytes(field(bytes, 43)),
            producer_epoch: i16::from_be_bytes(field(bytes, 51)),
            base_sequence: i32::from_be_bytes(field(bytes, 53)),
            records_count: i32::from_be_bytes(field(bytes, 57)),
        })
    }

    /// The header's bytes.
    pub fn encode(&self) -> [u8; BATCH_HEADER_LEN] {
        let mut out = [0; BATCH_HEADER_LEN];
        out[0..8].copy_from_slice(&self.base_offset.to_be_bytes());
        out[8..12].copy_from_slice(&self.batch_length.to_be_bytes());
        out[12..16].copy_from_slice(&self.partition_leader_epoch.to_be_bytes());
        out[16] = 2;
        out[17..21].copy_from_slice(&self.crc.to_be_bytes());
        out[21..23].copy_from_slice(&self.attributes.0.to_be_bytes());
        out[23..27].copy_from_slice(&self.last_offset_delta.to_be_bytes());
        out[27..35].copy_from_slice(&self.base_timestamp.to_be_bytes());
        out[35..43].copy_from_slice(&self.max_timestamp.to_be_bytes());
        out[43..51].copy_from_slice(&self.producer_id.to_be_bytes());
        out[51..53].copy_from_slice(&self.producer_epoch.to_be_bytes());
        out[53..57].copy_from_slice(&self.base_sequence.to_be_bytes());
        out[57..61].copy_from_slice(&self.records_count.to_be_bytes());
        out
    }

    /// The offset of the last record, also when compaction removed that record.
    pub fn last_offset(&self) -> i64 {
        self.base_offset
            .saturating_add(i64::from(self.last_offset_delta))
    }

    /// The time after which tombstones of the batch, or the marker in it, may go; `None` until compaction has set it.
    pub(crate) fn delete_horizon(&self) -> Option<i64> {
        let is_set = self.attributes.has_delete_horizon();
        is_set.then_some(self.base_timestamp)
    }

    /// Size of the batch, header included.
    pub(crate) fn size(&self) -> u64 {
        self.batch_length as u64 + BATCH_LENGTH_OVERHEAD as u64
    }

    /// The timestamp of a record with this delta, as every Kafka client computes it (wrapping).
    pub fn record_timestamp(&self, timestamp_delta: i64) -> i64 {
        match self.attributes.timestamp_type() {
            TimestampType::CreateTime => self.base_timestamp.wrapping_add(timestamp_delta),
            TimestampType::LogAppendTime => self.max_timestamp,
        }
    }

    /// The checksum of a batch with this header and these records.
    pub(crate) fn checksum(&self, records: &[u8]) -> u32 {
        crc32c::crc32c_append(crc32c::crc32c(&self.encode()[CRC_START..]), records)
    }
}

fn field<const LEN: usize>(bytes: &[u8; BATCH_HEADER_LEN], at: usize) -> [u8; LEN] {
    let mut out = [0; LEN];
    out.copy_from_slice(&bytes[at..at + LEN]);
    out
}
