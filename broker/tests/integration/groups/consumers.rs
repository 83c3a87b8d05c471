//! librdkafka's consumers, unchanged.

use rdkafka::{
    ClientConfig, Message, Offset, TopicPartitionList,
    consumer::{BaseConsumer, CommitMode, Consumer},
};

use super::*;
use crate::{
    clients::{Acknowledged, create_topic, producer, send},
    support::memory,
};

pub(super) fn consumer(bootstrap: &str, group: &str, more: &[(&str, &str)]) -> BaseConsumer {
    let mut config = ClientConfig::new();
    config
        .set("bootstrap.servers", bootstrap)
        .set("group.id", group)
        .set("enable.auto.commit", "false")
        .set("auto.offset.reset", "earliest")
        .set("session.timeout.ms", "6000")
        .set("heartbeat.interval.ms", "200")
        .set("reconnect.backoff.max.ms", "200")
        .set("topic.metadata.refresh.interval.ms", "1000");
    for (key, value) in more {
        config.set(*key, *value);
    }
    config.create().unwrap()
}

/// The partitions that a consumer holds.
pub(super) fn held(consumer: &BaseConsumer) -> BTreeSet<i32> {
    let assignment = consumer.assignment().unwrap();
    let elements = assignment.elements();
    elements.iter().map(|element| element.partition()).collect()
}

pub(super) fn fill(bootstrap: &str, topic: &str, partitions: i32, records: i32) {
    create_topic(bootstrap, topic, partitions);
    let acks = Acknowledged::default();
    let producer = producer(bootstrap, "none", &acks);
    for index in 0..records {
        let value = format!("{index}");
        send(&producer, topic, index % partitions, value.as_bytes()).unwrap();
    }
    rdkafka::producer::Producer::flush(&producer, SOON).unwrap();
}

/// Lets every consumer work until what they hold is as wanted.
pub(super) fn settle(consumers: &[&BaseConsumer], is_so: impl Fn(&[BTreeSet<i32>]) -> bool) {
    until("an assignment", || {
        for consumer in consumers {
            let _ = consumer.poll(Duration::from_millis(10));
        }
        let held: Vec<_> = consumers.iter().map(|consumer| held(consumer)).collect();
        is_so(&held)
    });
}

pub(super) fn all(held: &[BTreeSet<i32>], partitions: usize) -> bool {
    held.iter().map(BTreeSet::len).sum::<usize>() == partitions
        && held.iter().all(|held| !held.is_empty())
        && disjoint(held).len() == partitions
}

/// F36, F44: a second consumer takes a part, and gives it back when it leaves or is gone.
fn consumers_share(strategy: &str) {
    let running = Running::start(quick());
    let bootstrap = running.bootstrap();
    fill(&bootstrap, "t", 6, 60);
    let more = [("partition.assignment.strategy", strategy)];
    let first = consumer(&bootstrap, "g", &more);
    first.subscribe(&["t"]).unwrap();
    settle(&[&first], |held| held[0].len() == 6);
    let second = consumer(&bootstrap, "g", &more);
    second.subscribe(&["t"]).unwrap();
    settle(&[&first, &second], |held| all(held, 6));
    let third = consumer(&bootstrap, "g", &more);
    third.subscribe(&["t"]).unwrap();
    settle(&[&first, &second, &third], |held| all(held, 6));
    drop(second);
    settle(&[&first, &third], |held| all(held, 6));
    third.unsubscribe();
    settle(&[&first], |held| held[0].len() == 6);
}

#[test]
fn consumers_share_partitions_by_range() {
    consumers_share("range");
}

#[test]
fn consumers_share_partitions_cooperatively() {
    consumers_share("cooperative-sticky");
}

#[test]
fn a_consumer_goes_on_where_its_group_has_committed() {
    let running = Running::start(quick());
    let bootstrap = running.bootstrap();
    fill(&bootstrap, "t", 1, 100);
    let read = |count: usize, commit: bool| -> Vec<i64> {
        let consumer = consumer(&bootstrap, "g", &[]);
        consumer.subscribe(&["t"]).unwrap();
        let mut offsets = Vec::new();
        until("records", || {
            if let Some(record) = consumer.poll(Duration::from_millis(100)) {
                let record = record.unwrap();
                offsets.push(record.offset());
                if commit && offsets.len() == count {
                    consumer.commit_message(&record, CommitMode::Sync).unwrap();
                }
            }
            offsets.len() == count
        });
        offsets
    };
    assert_eq!(read(40, true), (0..40).collect::<Vec<_>>());
    assert_eq!(read(10, false), (40..50).collect::<Vec<_>>());
    assert_eq!(read(60, true), (40..100).collect::<Vec<_>>());
    // F33: what is noted with an offset comes back.
    let consumer = consumer(&bootstrap, "g", &[]);
    let mut list = TopicPartitionList::new();
    list.add_partition_offset("t", 0, Offset::Offset(7))
        .unwrap();
    let mut element = list.find_partition("t", 0).unwrap();
    element.set_metadata("a note");
    consumer.commit(&list, CommitMode::Sync).unwrap();
    let mut asked = TopicPartitionList::new();
    asked.add_partition("t", 0);
    let found = consumer.committed_offsets(asked, SOON).unwrap();
    let found = found.find_partition("t", 0).unwrap();
    assert_eq!(
        (found.offset(), found.metadata()),
        (Offset::Offset(7), "a note")
    );
}

/// F39: a static member that begins anew has what it had, and the others do not hear of it.
#[test]
fn a_static_member_comes_back_without_a_rebalance() {
    let running = Running::start(quick());
    let bootstrap = running.bootstrap();
    fill(&bootstrap, "t", 4, 4);
    let of = |instance| consumer(&bootstrap, "g", &[("group.instance.id", instance)]);
    let (first, second) = (of("one"), of("two"));
    first.subscribe(&["t"]).unwrap();
    second.subscribe(&["t"]).unwrap();
    settle(&[&first, &second], |held| all(held, 4));
    let (kept, had) = (held(&first), held(&second));
    let generation = |running: &Running| {
        let mut client = running.client();
        let groups = kafka_protocol::messages::DescribeGroupsRequest::default();
        let request = groups.with_groups(vec![group("g")]);
        let answer: kafka_protocol::messages::DescribeGroupsResponse =
            client.call(ApiKey::DescribeGroups, 5, &request);
        assert_eq!(answer.groups[0].group_state.as_str(), "Stable");
        answer.groups[0].members.len()
    };
    assert_eq!(generation(&running), 2);
    drop(second);
    let second = of("two");
    second.subscribe(&["t"]).unwrap();
    settle(&[&first, &second], |held| held[1] == had);
    assert_eq!((held(&first), generation(&running)), (kept, 2));
}

#[test]
fn the_default_delay_gathers_consumers_that_come_together() {
    // F35.
    let running = Running::start(memory());
    let bootstrap = running.bootstrap();
    fill(&bootstrap, "t", 4, 4);
    let begun = Instant::now();
    let (first, second) = (
        consumer(&bootstrap, "g", &[]),
        consumer(&bootstrap, "g", &[]),
    );
    first.subscribe(&["t"]).unwrap();
    second.subscribe(&["t"]).unwrap();
    settle(&[&first, &second], |held| {
        // Nobody ever had all of it.
        assert!(held.iter().all(|held| held.len() < 4));
        all(held, 4)
    });
    assert!(begun.elapsed() >= Duration::from_secs(3));
}
