//! What `__consumer_offsets` has: committed offsets and groups, in Kafka's format. Those of consumer groups are in
//! [`consumer`].
//!
//! A key begins with its kind (int16): 0 and 1 an offset, 2 a classic group. A value begins with its version (int16).
//! Every version that Kafka writes is read; written are those of Kafka 4.1: offsets in version 3, or 1 if they have a time
//! of their own to expire at, groups in version 3. Other kinds are passed over. Bytes are not trusted: a length is checked
//! before it is followed, and a count is never an allocation.

use bytes::{Buf, BufMut, Bytes};

use super::consumer;
use crate::coordinator::{Stored, StoredError};

const KIND_GROUP: i16 = 2;
const KIND_OFFSET: i16 = 1;
const OFFSET_VERSION: i16 = 3;
const OFFSET_VERSION_WITH_EXPIRY: i16 = 1;
const GROUP_VERSION: i16 = 3;

/// A record of the topic; without a value it deletes.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Record {
    Offset {
        group: String,
        topic: String,
        partition: i32,
        value: Option<Committed>,
    },
    Group {
        group: String,
        value: Option<GroupValue>,
    },
    Consumer(consumer::Record),
}

/// A committed offset.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(crate) struct Committed {
    pub(crate) offset: i64,
    /// -1 if it is not known.
    pub(crate) leader_epoch: i32,
    pub(crate) metadata: String,
    pub(crate) committed_ms: i64,
    /// If whoever committed it has said so.
    pub(crate) expires_ms: Option<i64>,
}

/// A classic group between two rebalances.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(crate) struct GroupValue {
    pub(crate) protocol_type: String,
    pub(crate) generation: i32,
    pub(crate) protocol: Option<String>,
    pub(crate) leader: Option<String>,
    /// Since when it is empty or stable, -1 if that is not known.
    pub(crate) since_ms: i64,
    pub(crate) members: Vec<MemberValue>,
}

/// A member of a group.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(crate) struct MemberValue {
    pub(crate) id: String,
    pub(crate) instance: Option<String>,
    pub(crate) client_id: String,
    pub(crate) client_host: String,
    pub(crate) rebalance_ms: i32,
    pub(crate) session_ms: i32,
    pub(crate) subscription: Bytes,
    pub(crate) assignment: Bytes,
}

/// A record that is not larger is taken by the log: its topic takes batches of 1,048,588 bytes.
const WRITTEN_BYTES_MAX: usize = 1_000_000;

impl Record {
    /// Whether the log takes it, as far as that depends on what it says.
    pub(super) fn can_be_written(&self) -> bool {
        self.encode()
            .is_ok_and(|stored| stored.len() <= WRITTEN_BYTES_MAX)
    }

    pub(super) fn encode(&self) -> Result<Stored, StoredError> {
        let mut key = Vec::new();
        let mut to = Writer(&mut key);
        let value = match self {
            Self::Offset {
                group,
                topic,
                partition,
                value,
            } => {
                to.0.put_i16(KIND_OFFSET);
                to.text(group)?;
                to.text(topic)?;
                to.0.put_i32(*partition);
                value.as_ref().map(encode_offset).transpose()?
            }
            Self::Group { group, value } => {
                to.0.put_i16(KIND_GROUP);
                to.text(group)?;
                value.as_ref().map(encode_group).transpose()?
            }
            Self::Consumer(record) => return record.encode(),
        };
        Ok(Stored {
            key: key.into(),
            value: value.map(Bytes::from),
        })
    }

    pub(super) fn decode(stored: &Stored) -> Result<Option<Self>, StoredError> {
        let mut from = Reader::new("key", stored.key.clone(), false);
        let kind = from.int16()?;
        let value = stored.value.clone();
        Ok(match kind {
            0 | KIND_OFFSET => Some(Self::Offset {
                group: from.text()?,
                topic: from.text()?,
                partition: from.int32()?,
                value: value.map(decode_offset).transpose()?,
            }),
            KIND_GROUP => Some(Self::Group {
                group: from.text()?,
                value: value.map(decode_group).transpose()?,
            }),
            kind => consumer::Record::decode(kind, &mut from, value)?.map(Self::Consumer),
        })
    }
}

fn encode_offset(value: &Committed) -> Result<Vec<u8>, StoredError> {
    let mut bytes = Vec::new();
    let to = &mut Writer(&mut bytes);
    match value.expires_ms {
        None => {
            to.0.put_i16(OFFSET_VERSION);
            to.0.put_i64(value.offset);
            to.0.put_i32(value.leader_epoch);
            to.text(&value.metadata)?;
            to.0.put_i64(value.committed_ms);
        }
        Some(expires_ms) => {
            to.0.put_i16(OFFSET_VERSION_WITH_EXPIRY);
            to.0.put_i64(value.offset);
            to.text(&value.metadata)?;
            to.0.put_i64(value.committed_ms);
            to.0.put_i64(expires_ms);
        }
    }
    Ok(bytes)
}

fn decode_offset(bytes: Bytes) -> Result<Committed, StoredError> {
    let mut from = Reader::new("offset", bytes, false);
    let version = from.version(4)?;
    from.flexible = version >= 4;
    let offset = from.int64()?;
    let leader_epoch = if version >= 3 { from.int32()? } else { -1 };
    let metadata = from.text()?;
    let committed_ms = from.int64()?;
    let expires_ms = if version == 1 { from.int64()? } else { -1 };
    // What follows, the topic's id in version 4, is not needed.
    Ok(Committed {
        offset,
        leader_epoch,
        metadata,
        committed_ms,
        expires_ms: Some(expires_ms).filter(|at| *at >= 0),
    })
}

fn encode_group(value: &GroupValue) -> Result<Vec<u8>, StoredError> {
    let mut bytes = Vec::new();
    let to = &mut Writer(&mut bytes);
    to.0.put_i16(GROUP_VERSION);
    to.text(&value.protocol_type)?;
    to.0.put_i32(value.generation);
    to.nullable(value.protocol.as_deref())?;
    to.nullable(value.leader.as_deref())?;
    to.0.put_i64(value.since_ms);
    to.len(value.members.len())?;
    for member in &value.members {
        to.text(&member.id)?;
        to.nullable(member.instance.as_deref())?;
        to.text(&member.client_id)?;
        to.text(&member.client_host)?;
        to.0.put_i32(member.rebalance_ms);
        to.0.put_i32(member.session_ms);
        to.blob(&member.subscription)?;
        to.blob(&member.assignment)?;
    }
    Ok(bytes)
}

fn decode_group(bytes: Bytes) -> Result<GroupValue, StoredError> {
    let mut from = Reader::new("group", bytes, false);
    let version = from.version(4)?;
    from.flexible = version >= 4;
    let mut value = GroupValue {
        protocol_type: from.text()?,
        generation: from.int32()?,
        protocol: from.nullable()?,
        leader: from.nullable()?,
        since_ms: if version >= 2 { from.int64()? } else { -1 },
        members: Vec::new(),
    };
    for _ in 0..from.count()? {
        let id = from.text()?;
        let instance = if version >= 3 { from.nullable()? } else { None };
        let (client_id, client_host) = (from.text()?, from.text()?);
        let rebalance_ms = if version >= 1 {
            Some(from.int32()?)
        } else {
            None
        };
        let session_ms = from.int32()?;
        value.members.push(MemberValue {
            id,
            instance,
            client_id,
            client_host,
            rebalance_ms: rebalance_ms.unwrap_or(session_ms),
            session_ms,
            subscription: from.blob()?,
            assignment: from.blob()?,
        });
        from.tags()?;
    }
    Ok(value)
}

/// The topics of a consumer's subscription, which begins with a version (int16) and their names in every version.
pub(super) fn subscribed(subscription: &Bytes) -> Option<Vec<String>> {
    let mut from = Reader::new("subscription", subscription.clone(), false);
    from.int16().ok()?;
    let count = from.count().ok()?;
    (0..count).map(|_| from.text().ok()).collect()
}

struct Writer<'a>(&'a mut Vec<u8>);

impl Writer<'_> {
    fn text(&mut self, text: &str) -> Result<(), StoredError> {
        let len = i16::try_from(text.len()).map_err(|_| too_long(text.len()))?;
        self.0.put_i16(len);
        self.0.extend_from_slice(text.as_bytes());
        Ok(())
    }

    fn nullable(&mut self, text: Option<&str>) -> Result<(), StoredError> {
        match text {
            Some(text) => self.text(text),
            None => {
                self.0.put_i16(-1);
                Ok(())
            }
        }
    }

    fn len(&mut self, len: usize) -> Result<(), StoredError> {
        self.0
            .put_i32(i32::try_from(len).map_err(|_| too_long(len))?);
        Ok(())
    }

    fn blob(&mut self, blob: &[u8]) -> Result<(), StoredError> {
        self.len(blob.len())?;
        self.0.extend_from_slice(blob);
        Ok(())
    }
}

pub(super) fn too_long(len: usize) -> StoredError {
    StoredError {
        what: "record",
        reason: format!("{len} bytes do not fit a field"),
    }
}

/// Reads fields of either encoding.
pub(super) struct Reader {
    what: &'static str,
    bytes: Bytes,
    flexible: bool,
}

impl Reader {
    pub(super) fn new(what: &'static str, bytes: Bytes, flexible: bool) -> Self {
        Self {
            what,
            bytes,
            flexible,
        }
    }

    pub(super) fn wrong(&self, reason: impl Into<String>) -> StoredError {
        StoredError {
            what: self.what,
            reason: reason.into(),
        }
    }

    fn ends_early(&self) -> StoredError {
        self.wrong("ends within a field")
    }

    pub(super) fn version(&mut self, newest: i16) -> Result<i16, StoredError> {
        match self.int16()? {
            version if (0..=newest).contains(&version) => Ok(version),
            version => Err(self.wrong(format!("version {version} is not known"))),
        }
    }

    pub(super) fn int16(&mut self) -> Result<i16, StoredError> {
        self.bytes.try_get_i16().map_err(|_| self.ends_early())
    }

    pub(super) fn int32(&mut self) -> Result<i32, StoredError> {
        self.bytes.try_get_i32().map_err(|_| self.ends_early())
    }

    pub(super) fn int64(&mut self) -> Result<i64, StoredError> {
        self.bytes.try_get_i64().map_err(|_| self.ends_early())
    }

    fn varint(&mut self) -> Result<u32, StoredError> {
        let mut value = 0u64;
        for shift in (0..35).step_by(7) {
            let byte = self.bytes.try_get_u8().map_err(|_| self.ends_early())?;
            value |= u64::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return u32::try_from(value).map_err(|_| self.wrong("number of more than 32 bits"));
            }
        }
        Err(self.wrong("number of more than 5 bytes"))
    }

    /// A compact length, which is one more than it says; 0 is null.
    fn compact(&mut self) -> Result<Option<usize>, StoredError> {
        Ok((self.varint()? as usize).checked_sub(1))
    }

    fn take(&mut self, len: usize) -> Result<Bytes, StoredError> {
        if len > self.bytes.len() {
            return Err(self.ends_early());
        }
        Ok(self.bytes.split_to(len))
    }

    pub(super) fn nullable(&mut self) -> Result<Option<String>, StoredError> {
        let len = if self.flexible {
            self.compact()?
        } else {
            usize::try_from(self.int16()?).ok()
        };
        let Some(len) = len else {
            return Ok(None);
        };
        let bytes = self.take(len)?;
        let text = String::from_utf8(bytes.to_vec());
        text.map(Some).map_err(|_| self.wrong("text is not UTF-8"))
    }

    pub(super) fn text(&mut self) -> Result<String, StoredError> {
        self.nullable()?
            .ok_or_else(|| self.wrong("null where text must be"))
    }

    fn blob(&mut self) -> Result<Bytes, StoredError> {
        let len = if self.flexible {
            self.compact()?
        } else {
            usize::try_from(self.int32()?).ok()
        };
        // A copy: a slice would keep the whole batch in memory.
        let bytes = self.take(len.unwrap_or(0))?;
        Ok(Bytes::copy_from_slice(&bytes))
    }

    /// A count of things of at least a byte.
    pub(super) fn count(&mut self) -> Result<usize, StoredError> {
        let count = if self.flexible {
            self.compact()?
        } else {
            usize::try_from(self.int32()?).ok()
        };
        let count = count.unwrap_or(0);
        if count > self.bytes.len() {
            return Err(self.wrong("more elements than bytes"));
        }
        Ok(count)
    }

    pub(super) fn int8(&mut self) -> Result<i8, StoredError> {
        self.bytes.try_get_i8().map_err(|_| self.ends_early())
    }

    pub(super) fn uint128(&mut self) -> Result<u128, StoredError> {
        self.bytes.try_get_u128().map_err(|_| self.ends_early())
    }

    /// Passes over tagged fields.
    pub(super) fn tags(&mut self) -> Result<(), StoredError> {
        self.each_tag(|_, _| Ok(()))
    }

    /// Gives every tagged field, as a reader of its own.
    pub(super) fn each_tag(
        &mut self,
        mut field: impl FnMut(u32, &mut Self) -> Result<(), StoredError>,
    ) -> Result<(), StoredError> {
        if !self.flexible {
            return Ok(());
        }
        for _ in 0..self.varint()? {
            let tag = self.varint()?;
            let len = self.varint()? as usize;
            let bytes = self.take(len)?;
            field(tag, &mut Self::new(self.what, bytes, true))?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
