//! Records of consumer groups in `__consumer_offsets`, as Kafka 4.1 writes them. Keys have plain lengths, values compact
//! ones and tagged fields; those that are not known are passed over.
//!
//! 3 the group's epoch, 5 what a member has said, 6 the epoch of the target, 7 what a member is to have, 8 what it has
//! been told, 16 an expression with its topics. Kind 4, the topics of a group, is what Kafka wrote before 4.1: it is
//! passed over, as the topics are looked up anew.

use bytes::{BufMut, Bytes};
use uuid::Uuid;

use super::{
    Partitions, Resolved, Subscription,
    member::{Current, MemberState},
};
use crate::coordinator::{
    Stored, StoredError,
    groups::record::{Reader, too_long},
};

/// Tag of the topics' fingerprint.
const TAG_FINGERPRINT: u32 = 0;
/// Of all values.
const VERSION: i16 = 0;

/// A record of a consumer group. Without a value it deletes.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Record {
    pub(crate) group: String,
    pub(crate) change: Change,
}

/// What a record says.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Change {
    Epoch(Option<Epoch>),
    Member(String, Option<Subscription>),
    TargetEpoch(Option<i32>),
    Target(String, Option<Partitions>),
    Current(String, Option<Current>),
    Regex(String, Option<Resolved>),
}

/// The epoch of a group.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) struct Epoch {
    pub(crate) epoch: i32,
    /// Of the topics that it reads.
    pub(crate) fingerprint: i64,
}

impl Change {
    fn kind(&self) -> i16 {
        match self {
            Self::Epoch(_) => 3,
            Self::Member(..) => 5,
            Self::TargetEpoch(_) => 6,
            Self::Target(..) => 7,
            Self::Current(..) => 8,
            Self::Regex(..) => 16,
        }
    }
}

impl Record {
    pub(crate) fn encode(&self) -> Result<Stored, StoredError> {
        let mut key = Vec::new();
        key.put_i16(self.change.kind());
        put_key_text(&mut key, &self.group)?;
        let mut bytes = Vec::new();
        bytes.put_i16(VERSION);
        let is_there = match &self.change {
            Change::Epoch(value) => value.map(|value| put_epoch(&mut bytes, value)).is_some(),
            Change::TargetEpoch(value) => value
                .map(|epoch| {
                    bytes.put_i32(epoch);
                    put_tags(&mut bytes);
                })
                .is_some(),
            Change::Member(member, value) => {
                put_key_text(&mut key, member)?;
                let value = value.as_ref();
                value.map(|value| put_member(&mut bytes, value)).is_some()
            }
            Change::Target(member, value) => {
                put_key_text(&mut key, member)?;
                let value = value.as_ref();
                value
                    .map(|value| {
                        put_partitions(&mut bytes, value);
                        put_tags(&mut bytes);
                    })
                    .is_some()
            }
            Change::Current(member, value) => {
                put_key_text(&mut key, member)?;
                let value = value.as_ref();
                value.map(|value| put_current(&mut bytes, value)).is_some()
            }
            Change::Regex(regex, value) => {
                put_key_text(&mut key, regex)?;
                let value = value.as_ref();
                value.map(|value| put_resolved(&mut bytes, value)).is_some()
            }
        };
        Ok(Stored {
            key: key.into(),
            value: is_there.then(|| bytes.into()),
        })
    }

    /// Given the kind, and a reader of the key behind it. `None` for what no consumer group needs.
    pub(in crate::coordinator::groups) fn decode(
        kind: i16,
        key: &mut Reader,
        value: Option<Bytes>,
    ) -> Result<Option<Self>, StoredError> {
        if !matches!(kind, 3 | 5..=8 | 16) {
            return Ok(None);
        }
        let group = key.text()?;
        let change = match kind {
            3 => Change::Epoch(value.map(read_epoch).transpose()?),
            6 => Change::TargetEpoch(value.map(read_target_epoch).transpose()?),
            5 => Change::Member(key.text()?, value.map(read_member).transpose()?),
            7 => Change::Target(key.text()?, value.map(read_target).transpose()?),
            8 => Change::Current(key.text()?, value.map(read_current).transpose()?),
            _ => Change::Regex(key.text()?, value.map(read_resolved).transpose()?),
        };
        Ok(Some(Self { group, change }))
    }
}

fn put_key_text(to: &mut Vec<u8>, text: &str) -> Result<(), StoredError> {
    to.put_i16(i16::try_from(text.len()).map_err(|_| too_long(text.len()))?);
    to.put_slice(text.as_bytes());
    Ok(())
}

fn put_varint(to: &mut Vec<u8>, mut value: usize) {
    while value >= 0x80 {
        to.put_u8(value as u8 | 0x80);
        value >>= 7;
    }
    to.put_u8(value as u8);
}

fn put_tags(to: &mut Vec<u8>) {
    put_varint(to, 0);
}

fn put_text(to: &mut Vec<u8>, text: &str) {
    put_varint(to, text.len() + 1);
    to.put_slice(text.as_bytes());
}

fn put_nullable(to: &mut Vec<u8>, text: Option<&str>) {
    match text {
        Some(text) => put_text(to, text),
        None => put_varint(to, 0),
    }
}

fn put_texts<'a>(to: &mut Vec<u8>, texts: impl ExactSizeIterator<Item = &'a String>) {
    put_varint(to, texts.len() + 1);
    texts.for_each(|text| put_text(to, text));
}

fn put_partitions(to: &mut Vec<u8>, partitions: &Partitions) {
    put_varint(to, partitions.len() + 1);
    for (topic, partitions) in partitions {
        to.put_slice(topic.as_bytes());
        put_varint(to, partitions.len() + 1);
        partitions.iter().for_each(|index| to.put_i32(*index));
        put_tags(to);
    }
}

fn put_epoch(to: &mut Vec<u8>, value: Epoch) {
    to.put_i32(value.epoch);
    if value.fingerprint == 0 {
        return put_tags(to);
    }
    put_varint(to, 1);
    put_varint(to, TAG_FINGERPRINT as usize);
    put_varint(to, size_of::<i64>());
    to.put_i64(value.fingerprint);
}

fn put_member(to: &mut Vec<u8>, value: &Subscription) {
    put_nullable(to, value.instance.as_deref());
    put_nullable(to, value.rack.as_deref());
    put_text(to, &value.client_id);
    put_text(to, &value.client_host);
    put_texts(to, value.topics.iter());
    put_nullable(to, value.regex.as_deref());
    to.put_i32(value.rebalance_ms);
    put_nullable(to, value.assignor.as_deref());
    put_tags(to);
}

fn put_current(to: &mut Vec<u8>, value: &Current) {
    to.put_i32(value.epoch);
    to.put_i32(value.previous_epoch);
    to.put_i8(match value.state {
        MemberState::Stable => 0,
        MemberState::Unrevoked => 1,
        MemberState::Unreleased => 2,
    });
    put_partitions(to, &value.assigned);
    put_partitions(to, &value.revoking);
    put_tags(to);
}

fn put_resolved(to: &mut Vec<u8>, value: &Resolved) {
    put_texts(to, value.topics.iter());
    to.put_i64(value.version);
    to.put_i64(value.resolved_ms);
    put_tags(to);
}

/// A reader behind the version of a value.
fn open(what: &'static str, value: Bytes) -> Result<Reader, StoredError> {
    let mut from = Reader::new(what, value, true);
    from.version(VERSION)?;
    Ok(from)
}

fn read_epoch(value: Bytes) -> Result<Epoch, StoredError> {
    let mut from = open("epoch of a consumer group", value)?;
    let epoch = from.int32()?;
    let mut fingerprint = 0;
    from.each_tag(|tag, field| {
        if tag == TAG_FINGERPRINT {
            fingerprint = field.int64()?;
        }
        Ok(())
    })?;
    Ok(Epoch { epoch, fingerprint })
}

fn read_target_epoch(value: Bytes) -> Result<i32, StoredError> {
    open("epoch of a target assignment", value)?.int32()
}

fn read_member(value: Bytes) -> Result<Subscription, StoredError> {
    let mut from = open("member of a consumer group", value)?;
    Ok(Subscription {
        instance: from.nullable()?,
        rack: from.nullable()?,
        client_id: from.text()?,
        client_host: from.text()?,
        topics: read_texts(&mut from)?,
        regex: from.nullable()?.filter(|regex| !regex.is_empty()),
        rebalance_ms: from.int32()?,
        assignor: from.nullable()?,
    })
}

fn read_target(value: Bytes) -> Result<Partitions, StoredError> {
    read_partitions(&mut open("target assignment", value)?)
}

fn read_current(value: Bytes) -> Result<Current, StoredError> {
    let mut from = open("assignment of a member", value)?;
    Ok(Current {
        epoch: from.int32()?,
        previous_epoch: from.int32()?,
        state: match from.int8()? {
            0 => MemberState::Stable,
            1 => MemberState::Unrevoked,
            2 => MemberState::Unreleased,
            other => return Err(from.wrong(format!("state {other} is not known"))),
        },
        assigned: read_partitions(&mut from)?,
        revoking: read_partitions(&mut from)?,
    })
}

fn read_resolved(value: Bytes) -> Result<Resolved, StoredError> {
    let mut from = open("regular expression", value)?;
    Ok(Resolved {
        topics: read_texts(&mut from)?,
        version: from.int64()?,
        resolved_ms: from.int64()?,
    })
}

fn read_texts<C: FromIterator<String>>(from: &mut Reader) -> Result<C, StoredError> {
    let count = from.count()?;
    (0..count).map(|_| from.text()).collect()
}

fn read_partitions(from: &mut Reader) -> Result<Partitions, StoredError> {
    let mut all = Partitions::new();
    for _ in 0..from.count()? {
        let topic = Uuid::from_u128(from.uint128()?);
        let partitions = all.entry(topic).or_default();
        for _ in 0..from.count()? {
            partitions.insert(from.int32()?);
        }
        from.tags()?;
    }
    all.retain(|_, partitions| !partitions.is_empty());
    Ok(all)
}

#[cfg(test)]
mod tests;
