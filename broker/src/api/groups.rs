//! What the APIs of groups have in common: text that outlives its request, and codes.

use std::collections::BTreeMap;

use kafka_protocol::{error::ResponseError, protocol::StrBytes};

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
