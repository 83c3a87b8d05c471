//! Groups from outside: every version of every request, librdkafka's consumers, and kills in between.

use std::{
    collections::{BTreeMap, BTreeSet},
    thread,
    time::{Duration, Instant},
};

use broker::{Config, Coordinator};
use bytes::Bytes;
use kafka_protocol::{
    messages::{
        ApiKey, CreateTopicsRequest, CreateTopicsResponse, DeleteTopicsRequest,
        DeleteTopicsResponse, FindCoordinatorRequest, FindCoordinatorResponse, GroupId,
        create_topics_request::CreatableTopic,
    },
    protocol::StrBytes,
};

use super::support::{Client, Running, memory, topic_name};

mod consumers;
mod kills;
mod requests;
mod server_side;
mod staged;

const SOON: Duration = Duration::from_secs(30);

/// Groups that do not wait for others, with few partitions of their topic.
fn quick() -> Config {
    Config {
        coordinator: Coordinator {
            partitions: 4,
            group_initial_rebalance_delay_ms: 0,
            group_session_min_ms: 100,
            ..Coordinator::default()
        },
        ..memory()
    }
}

fn text(text: &str) -> StrBytes {
    StrBytes::from_string(text.to_owned())
}

fn group(name: &str) -> GroupId {
    GroupId(text(name))
}

/// Asks until a coordinator is found and its partition is loaded.
fn find(client: &mut Client, group: &str) -> FindCoordinatorResponse {
    let request = FindCoordinatorRequest::default().with_key(text(group));
    let found: FindCoordinatorResponse = client.call(ApiKey::FindCoordinator, 3, &request);
    assert_eq!(found.error_code, 0, "{found:?}");
    found
}

#[test]
fn the_coordinator_of_everything_is_this_broker() {
    let running = Running::start(quick());
    let mut client = running.client();
    let port = i32::from(running.address().port());
    for version in 0..=3 {
        let mut request = FindCoordinatorRequest::default().with_key(text("group"));
        for kind in 0..=i8::from(version >= 1) {
            request.key_type = kind;
            let answer: FindCoordinatorResponse =
                client.call(ApiKey::FindCoordinator, version, &request);
            let found = (answer.error_code, answer.host.as_str(), answer.port);
            assert_eq!(found, (0, "127.0.0.1", port), "{version}");
        }
    }
    for version in 4..=6 {
        let mut request = FindCoordinatorRequest::default();
        request.coordinator_keys = vec![text("one"), text("two")];
        let answer: FindCoordinatorResponse =
            client.call(ApiKey::FindCoordinator, version, &request);
        let found = answer.coordinators.iter();
        let found: Vec<_> = found
            .map(|found| (found.key.as_str(), found.error_code, found.port))
            .collect();
        assert_eq!(found, [("one", 0, port), ("two", 0, port)], "{version}");
        // Shares are not served.
        request.key_type = 2;
        let answer: FindCoordinatorResponse =
            client.call(ApiKey::FindCoordinator, version, &request);
        assert_eq!(answer.coordinators[0].error_code, 42, "{version}");
    }
}

/// F7.
#[test]
fn internal_topics_are_made_by_the_broker_and_are_its_own() {
    let running = Running::start(quick());
    let mut client = running.client();
    let name = "__consumer_offsets";
    let create = CreateTopicsRequest::default().with_topics(vec![
        CreatableTopic::default()
            .with_name(topic_name(name))
            .with_num_partitions(1)
            .with_replication_factor(1),
    ]);
    let answer: CreateTopicsResponse = client.call(ApiKey::CreateTopics, 5, &create);
    assert_eq!(answer.topics[0].error_code, 17);
    assert!(client.metadata(9, None).topics.is_empty());
    find(&mut client, "group");
    let topics = client.metadata(9, None).topics;
    assert_eq!(topics.len(), 1);
    assert!(topics[0].is_internal);
    assert_eq!(topics[0].partitions.len(), 4);
    let mut delete = DeleteTopicsRequest::default();
    delete.topic_names = vec![topic_name(name)];
    let answer: DeleteTopicsResponse = client.call(ApiKey::DeleteTopics, 5, &delete);
    assert_eq!(answer.responses[0].error_code, 17);
    // Being asked for makes it as it must be, too.
    let other = "__transaction_state";
    let topics = client.metadata(9, Some(&[other])).topics;
    assert_eq!((topics[0].error_code, topics[0].partitions.len()), (0, 4));
    assert!(topics[0].is_internal);
}

/// Waits until it is so.
fn until(what: &str, mut is_so: impl FnMut() -> bool) {
    let deadline = Instant::now() + SOON;
    while !is_so() {
        assert!(Instant::now() < deadline, "not in time: {what}");
        thread::sleep(Duration::from_millis(20));
    }
}

/// Whose partitions are whose, each once.
fn disjoint(held: &[BTreeSet<i32>]) -> BTreeSet<i32> {
    let mut all = BTreeMap::new();
    for (consumer, partitions) in held.iter().enumerate() {
        for partition in partitions {
            let before = all.insert(*partition, consumer);
            assert_eq!(before, None, "partition {partition} is held twice");
        }
    }
    all.into_keys().collect()
}

fn metadata_of(topic: &str) -> Bytes {
    let mut bytes = vec![0, 0, 0, 0, 0, 1, 0, topic.len() as u8];
    bytes.extend_from_slice(topic.as_bytes());
    bytes.extend_from_slice(&[0xff; 4]);
    bytes.into()
}
