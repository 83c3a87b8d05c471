//! What the APIs of groups have in common: text that outlives its request, names, and codes.

use std::{
    collections::BTreeMap,
    hash::{BuildHasher, RandomState},
};

use kafka_protocol::{error::ResponseError, protocol::StrBytes};
use uuid::Uuid;

/// A copy: text of a request would keep its frame in memory.
pub(super) fn owned(text: Option<&StrBytes>) -> Option<String> {
    text.map(|text| text.to_string())
}

/// Text of an answer.
pub(super) fn text(text: String) -> StrBytes {
    StrBytes::from_string(text)
}

/// The code of what was done or not.
pub(super) fn code(done: Result<(), ResponseError>) -> i16 {
    done.err().map_or(0, |error| error.code())
}

/// Never the same twice, and nothing that another client could guess.
pub(super) fn fresh() -> Uuid {
    let keys = RandomState::new();
    Uuid::from_u64_pair(keys.hash_one(0u8), keys.hash_one(1u8))
}

/// What belongs to partitions, by topic, in the order in which topics came first.
pub(super) fn by_topic<T>(
    partitions: impl IntoIterator<Item = (String, T)>,
) -> Vec<(String, Vec<T>)> {
    let mut places: BTreeMap<String, usize> = BTreeMap::new();
    let mut topics: Vec<(String, Vec<T>)> = Vec::new();
    for (topic, partition) in partitions {
        let place = *places.entry(topic.clone()).or_insert_with(|| {
            topics.push((topic, Vec::new()));
            topics.len() - 1
        });
        topics[place].1.push(partition);
    }
    topics
}
