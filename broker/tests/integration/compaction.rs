//! A topic that is compacted by a running broker, in the background.

use std::time::{Duration, Instant};

use broker::{Cleaner, Config};
use bytes::Bytes;
use kafka_protocol::{
    messages::{
        ApiKey, CreateTopicsRequest, CreateTopicsResponse,
        create_topics_request::{CreatableTopic, CreatableTopicConfig},
    },
    protocol::StrBytes,
};
use segment_adapter::{BatchBuilder, Batches, Codec};

use super::support::{Client, Running, now_ms, on_disk, topic_name};

fn create(client: &mut Client, name: &str, configs: &[(&str, &str)]) {
    let text = |text: &str| StrBytes::from_string(text.to_owned());
    let configs = configs.iter().map(|(name, value)| {
        CreatableTopicConfig::default()
            .with_name(text(name))
            .with_value(Some(text(value)))
    });
    let topic = CreatableTopic::default()
        .with_name(topic_name(name))
        .with_num_partitions(1)
        .with_replication_factor(1)
        .with_configs(configs.collect());
    let request = CreateTopicsRequest::default().with_topics(vec![topic]);
    let answer: CreateTopicsResponse = client.call(ApiKey::CreateTopics, 7, &request);
    assert_eq!(answer.topics[0].error_code, 0, "{answer:?}");
}

fn keyed(timestamp: i64, key: &str, value: &str) -> Bytes {
    BatchBuilder::new(Codec::None)
        .record(timestamp, Some(key.as_bytes()), Some(value.as_bytes()))
        .build()
        .unwrap()
}

/// Offsets of the batches that a reader from the start gets.
fn offsets(client: &mut Client, topic: &str) -> Vec<i64> {
    let mut offsets = Vec::new();
    loop {
        let from = offsets.last().map_or(0, |last| last + 1);
        let answer = client.fetch(topic, 0, from);
        let answer = &answer.responses[0].partitions[0];
        assert_eq!(answer.error_code, 0, "{answer:?}");
        let records = answer.records.clone().unwrap_or_default();
        if records.is_empty() {
            return offsets;
        }
        for batch in Batches::new(records) {
            offsets.push(batch.unwrap().header().base_offset);
        }
    }
}

#[test]
fn a_topic_is_compacted_in_the_background_and_reads_the_same_after_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let config = Config {
        cleaner: Cleaner {
            backoff_ms: 20,
            ..Cleaner::default()
        },
        ..on_disk(dir.path())
    };
    let running = Running::start(config.clone());
    let mut client = running.client();
    // A segment ends when record time has gone on by more than a millisecond.
    let segments = ("segment.ms", "1");
    create(&mut client, "kept", &[segments]);
    let compact = ("cleanup.policy", "compact");
    let eager = ("min.cleanable.dirty.ratio", "0.01");
    create(&mut client, "compacted", &[segments, compact, eager]);
    let now = now_ms();
    for round in 0..10 {
        for (index, key) in ["a", "b", "c"].iter().enumerate() {
            let timestamp = now + 2 * (3 * round + index as i64);
            for topic in ["kept", "compacted"] {
                client.produce(topic, 0, keyed(timestamp, key, &round.to_string()));
            }
        }
    }
    // All but the last of each key; the newest is in the active segment, where nothing is removed.
    let deadline = Instant::now() + Duration::from_secs(20);
    let left = loop {
        let left = offsets(&mut client, "compacted");
        if left.len() <= 4 || Instant::now() > deadline {
            break left;
        }
        std::thread::sleep(Duration::from_millis(20));
    };
    assert_eq!(left, [26, 27, 28, 29]);
    let all: Vec<i64> = (0..30).collect();
    assert_eq!(offsets(&mut client, "kept"), all);
    running.stop();

    let running = Running::start(config);
    let mut client = running.client();
    assert_eq!(offsets(&mut client, "compacted"), [26, 27, 28, 29]);
    assert_eq!(offsets(&mut client, "kept"), all);
    let next = keyed(now + 100, "d", "1");
    assert_eq!(client.produce("compacted", 0, next), 30);
    running.crash();
}
