//! Settings of topics, brokers and groups: described, changed, kept, and in force at once.

use std::collections::BTreeMap;

use kafka_protocol::{
    messages::{
        AlterConfigsRequest, AlterConfigsResponse, ApiKey, DescribeConfigsRequest,
        DescribeConfigsResponse, IncrementalAlterConfigsRequest, IncrementalAlterConfigsResponse,
        ListConfigResourcesRequest, ListConfigResourcesResponse, ProduceResponse,
        alter_configs_request,
        describe_configs_request::DescribeConfigsResource,
        describe_configs_response::{DescribeConfigsResourceResult, DescribeConfigsResult},
        incremental_alter_configs_request,
    },
    protocol::StrBytes,
};
use segment_adapter::{BatchBuilder, Codec};

use super::support::{Client, Running, batch, now_ms, on_disk, produce};

const TOPIC: i8 = 2;
const BROKER: i8 = 4;
const GROUP: i8 = 32;
const SET: i8 = 0;
const DELETE: i8 = 1;
const APPEND: i8 = 2;
const SUBTRACT: i8 = 3;

fn text(text: &str) -> StrBytes {
    StrBytes::from_string(text.to_owned())
}

fn describe(client: &mut Client, version: i16, kind: i8, name: &str) -> DescribeConfigsResult {
    let resource = DescribeConfigsResource::default()
        .with_resource_type(kind)
        .with_resource_name(text(name))
        .with_configuration_keys(None);
    let mut request = DescribeConfigsRequest::default()
        .with_resources(vec![resource])
        .with_include_synonyms(true);
    request.include_documentation = version >= 3;
    let answer: DescribeConfigsResponse = client.call(ApiKey::DescribeConfigs, version, &request);
    answer.results.into_iter().next().unwrap()
}

type Rows = BTreeMap<String, DescribeConfigsResourceResult>;

fn rows(client: &mut Client, kind: i8, name: &str) -> Rows {
    let described = describe(client, 4, kind, name);
    assert_eq!(described.error_code, 0, "{described:?}");
    let rows = described.configs.into_iter();
    rows.map(|row| (row.name.to_string(), row)).collect()
}

/// Value and source.
fn value(rows: &Rows, name: &str) -> (Option<String>, i8) {
    let row = &rows[name];
    (
        row.value.as_ref().map(StrBytes::to_string),
        row.config_source,
    )
}

fn some(value: &str) -> Option<String> {
    Some(value.to_owned())
}

/// Changes settings of one resource; the code.
fn alter(client: &mut Client, kind: i8, name: &str, changes: &[(&str, i8, &str)]) -> i16 {
    alter_or_look(client, kind, name, changes, false)
}

fn alter_or_look(
    client: &mut Client,
    kind: i8,
    name: &str,
    changes: &[(&str, i8, &str)],
    dry: bool,
) -> i16 {
    use incremental_alter_configs_request::{AlterConfigsResource, AlterableConfig};
    let changes = changes.iter().map(|(key, operation, value)| {
        AlterableConfig::default()
            .with_name(text(key))
            .with_config_operation(*operation)
            .with_value(Some(text(value)))
    });
    let resource = AlterConfigsResource::default()
        .with_resource_type(kind)
        .with_resource_name(text(name))
        .with_configs(changes.collect());
    let request = IncrementalAlterConfigsRequest::default()
        .with_resources(vec![resource])
        .with_validate_only(dry);
    let answer: IncrementalAlterConfigsResponse =
        client.call(ApiKey::IncrementalAlterConfigs, 1, &request);
    let answer = &answer.responses[0];
    assert_eq!(answer.error_message.is_some(), answer.error_code != 0);
    answer.error_code
}

fn replace(client: &mut Client, version: i16, topic: &str, configs: &[(&str, &str)]) -> i16 {
    use alter_configs_request::{AlterConfigsResource, AlterableConfig};
    let configs = configs.iter().map(|(key, value)| {
        AlterableConfig::default()
            .with_name(text(key))
            .with_value(Some(text(value)))
    });
    let resource = AlterConfigsResource::default()
        .with_resource_type(TOPIC)
        .with_resource_name(text(topic))
        .with_configs(configs.collect());
    let request = AlterConfigsRequest::default().with_resources(vec![resource]);
    let answer: AlterConfigsResponse = client.call(ApiKey::AlterConfigs, version, &request);
    answer.responses[0].error_code
}

#[test]
fn f54_every_setting_of_a_topic_is_described_with_its_place() {
    let running = Running::in_memory();
    let mut client = running.client();
    client.create("t", 1);
    let change = [("retention.ms", SET, "1000"), ("segment.ms", SET, "2000")];
    assert_eq!(alter(&mut client, TOPIC, "t", &change), 0);
    let rows = rows(&mut client, TOPIC, "t");
    assert_eq!(rows.len(), 33);
    for row in rows.values() {
        assert!(!row.read_only && !row.is_sensitive, "{row:?}");
        assert!(
            row.config_type > 0 && row.documentation.is_some(),
            "{row:?}"
        );
    }
    assert_eq!(value(&rows, "retention.ms"), (some("1000"), 1));
    assert_eq!(value(&rows, "flush.ms"), (some("9223372036854775807"), 5));
    assert_eq!(value(&rows, "max.message.bytes"), (some("1048588"), 5));
    let types = [
        "preallocate",
        "compression.type",
        "segment.bytes",
        "retention.ms",
    ];
    assert_eq!(types.map(|name| rows[name].config_type), [1, 2, 3, 5]);
    let types = ["min.cleanable.dirty.ratio", "cleanup.policy"];
    assert_eq!(types.map(|name| rows[name].config_type), [6, 7]);
    let synonyms = |name: &str| -> Vec<(String, String, i8)> {
        let synonyms = rows[name].synonyms.iter();
        let row = synonyms.map(|one| {
            let value = one.value.as_ref().unwrap().to_string();
            (one.name.to_string(), value, one.source)
        });
        row.collect()
    };
    let own = ("retention.ms".to_owned(), "1000".to_owned(), 1);
    assert_eq!(synonyms("retention.ms"), [own]);
    assert_eq!(synonyms("flush.ms"), []);
    let default = ("message.max.bytes".to_owned(), "1048588".to_owned(), 5);
    assert_eq!(synonyms("max.message.bytes"), [default]);
    for version in 1..=4 {
        let described = describe(&mut client, version, TOPIC, "t");
        assert_eq!((described.error_code, described.configs.len()), (0, 33));
        let row = &described.configs[0];
        assert_eq!(row.config_type > 0, version >= 3);
    }
}

#[test]
fn only_what_is_asked_for_is_described() {
    let running = Running::in_memory();
    let mut client = running.client();
    client.create("t", 1);
    let keys = vec![text("segment.ms"), text("no.such.setting")];
    let resource = DescribeConfigsResource::default()
        .with_resource_type(TOPIC)
        .with_resource_name(text("t"))
        .with_configuration_keys(Some(keys));
    let request = DescribeConfigsRequest::default().with_resources(vec![resource]);
    let answer: DescribeConfigsResponse = client.call(ApiKey::DescribeConfigs, 4, &request);
    let configs = &answer.results[0].configs;
    assert_eq!((configs.len(), configs[0].name.as_str()), (1, "segment.ms"));
    assert!(configs[0].synonyms.is_empty() && configs[0].documentation.is_none());
}

#[test]
fn f54_the_settings_of_the_broker_are_those_that_clients_ask_for() {
    let running = Running::in_memory();
    let mut client = running.client();
    let rows = rows(&mut client, BROKER, "1");
    let listener = format!("PLAINTEXT://{}", running.address());
    assert_eq!(value(&rows, "advertised.listeners"), (some(&listener), 4));
    assert_eq!(value(&rows, "listeners"), (some(&listener), 4));
    assert_eq!(value(&rows, "num.partitions"), (some("1"), 4));
    assert_eq!(value(&rows, "auto.create.topics.enable"), (some("true"), 4));
    assert_eq!(value(&rows, "default.replication.factor"), (some("1"), 5));
    let most = some("9223372036854775807");
    assert_eq!(value(&rows, "log.flush.interval.messages"), (most, 5));
    assert_eq!(value(&rows, "log.retention.ms"), (None, 5));
    assert!(rows["broker.id"].read_only && !rows["log.retention.ms"].read_only);
    for (kind, name, code) in [
        (BROKER, "2", 42),
        (BROKER, "one", 42),
        (TOPIC, "absent", 3),
        (TOPIC, "a/b", 17),
        (GROUP, "", 42),
        (8, "1", 42),
        (99, "x", 42),
    ] {
        let described = describe(&mut client, 4, kind, name);
        assert_eq!(described.error_code, code, "{kind} {name}");
        assert!(described.error_message.is_some() && described.configs.is_empty());
    }
}

#[test]
fn f55_lists_grow_and_shrink_from_the_default_and_other_settings_are_set_and_taken_back() {
    let running = Running::in_memory();
    let mut client = running.client();
    client.create("t", 1);
    let mut after = |changes: &[(&str, i8, &str)], name: &str| {
        assert_eq!(alter(&mut client, TOPIC, "t", changes), 0, "{changes:?}");
        value(&rows(&mut client, TOPIC, "t"), name)
    };
    let append = [("cleanup.policy", APPEND, "compact")];
    let both = (some("delete,compact"), 1);
    assert_eq!(after(&append, "cleanup.policy"), both);
    assert_eq!(after(&append, "cleanup.policy"), both);
    let subtract = [("cleanup.policy", SUBTRACT, "delete")];
    assert_eq!(after(&subtract, "cleanup.policy"), (some("compact"), 1));
    let two = [
        ("cleanup.policy", DELETE, ""),
        ("compression.type", SET, "lz4"),
    ];
    assert_eq!(after(&two, "cleanup.policy"), (some("delete"), 5));
    let nothing = [("retention.ms", DELETE, "")];
    assert_eq!(after(&nothing, "compression.type"), (some("lz4"), 1));
}

#[test]
fn what_cannot_be_is_refused_and_nothing_changes() {
    let running = Running::in_memory();
    let mut client = running.client();
    client.create("t", 1);
    for (changes, code) in [
        (vec![("no.such.setting", SET, "1")], 40),
        (vec![("retention.ms", SET, "a week")], 40),
        (vec![("retention.ms", APPEND, "1")], 40),
        (vec![("retention.ms", 9, "1")], 42),
        (vec![("segment.ms", SET, "1"), ("segment.ms", SET, "2")], 42),
        (
            vec![("segment.ms", SET, "1"), ("segment.bytes", SET, "x")],
            40,
        ),
        (vec![("cleanup.policy", SUBTRACT, "delete")], 40),
        // Together they make no sense.
        (
            vec![
                ("min.compaction.lag.ms", SET, "2"),
                ("max.compaction.lag.ms", SET, "1"),
            ],
            40,
        ),
    ] {
        assert_eq!(
            alter(&mut client, TOPIC, "t", &changes),
            code,
            "{changes:?}"
        );
    }
    assert_eq!(
        alter(&mut client, TOPIC, "absent", &[("segment.ms", SET, "1")]),
        3
    );
    assert_eq!(
        alter(&mut client, BROKER, "1", &[("broker.id", SET, "2")]),
        42
    );
    assert_eq!(
        alter(&mut client, BROKER, "7", &[("log.roll.ms", SET, "2")]),
        42
    );
    assert_eq!(
        alter(&mut client, GROUP, "g", &[("no.such.setting", SET, "1")]),
        40
    );
    let dry = [("segment.ms", SET, "1")];
    assert_eq!(alter_or_look(&mut client, TOPIC, "t", &dry, true), 0);
    let rows = rows(&mut client, TOPIC, "t");
    assert!(rows.values().all(|row| row.config_source == 5));
    // Twice in one request: neither.
    use alter_configs_request::{AlterConfigsResource, AlterableConfig};
    let config = AlterableConfig::default()
        .with_name(text("segment.ms"))
        .with_value(Some(text("1")));
    let resource = AlterConfigsResource::default()
        .with_resource_type(TOPIC)
        .with_resource_name(text("t"))
        .with_configs(vec![config]);
    let request = AlterConfigsRequest::default().with_resources(vec![resource; 2]);
    let answer: AlterConfigsResponse = client.call(ApiKey::AlterConfigs, 2, &request);
    let codes: Vec<_> = answer.responses.iter().map(|one| one.error_code).collect();
    assert_eq!(codes, [42, 42]);
}

#[test]
fn altering_the_old_way_takes_away_what_is_not_named() {
    let running = Running::in_memory();
    let mut client = running.client();
    client.create("t", 1);
    for version in 0..=2 {
        assert_eq!(
            replace(&mut client, version, "t", &[("segment.ms", "1")]),
            0
        );
        assert_eq!(
            replace(&mut client, version, "t", &[("flush.ms", "12345678")]),
            0
        );
        let rows = rows(&mut client, TOPIC, "t");
        assert_eq!(value(&rows, "segment.ms"), (some("604800000"), 5));
        assert_eq!(value(&rows, "flush.ms"), (some("12345678"), 1));
    }
    assert_eq!(replace(&mut client, 2, "t", &[("flush.ms", "x")]), 40);
}

/// What becomes of a batch: the code and the time that it was given.
fn produced(client: &mut Client, batch: bytes::Bytes) -> (i16, i64) {
    let request = produce("t", 0, -1, batch);
    let answer: ProduceResponse = client.call(ApiKey::Produce, 9, &request);
    let answer = &answer.responses[0].partition_responses[0];
    (answer.error_code, answer.log_append_time_ms)
}

#[test]
fn f12_f13_f14_changed_settings_hold_at_once_and_after_a_crash() {
    let dir = tempfile::tempdir().unwrap();
    let running = Running::start(on_disk(dir.path()));
    let mut client = running.client();
    client.create("t", 1);
    let large = || batch(1, &[&[7; 2_000]]);
    assert_eq!(produced(&mut client, large()), (0, -1));
    let set = [("max.message.bytes", SET, "1000")];
    assert_eq!(alter(&mut client, TOPIC, "t", &set), 0);
    assert_eq!(produced(&mut client, large()).0, 10);
    let set = [("cleanup.policy", SET, "compact")];
    assert_eq!(alter(&mut client, TOPIC, "t", &set), 0);
    assert_eq!(produced(&mut client, batch(1, &[b"no key"])).0, 87);
    let keyed = || {
        let built = BatchBuilder::new(Codec::None).record(1, Some(b"k"), Some(b"v"));
        built.build().unwrap()
    };
    assert_eq!(produced(&mut client, keyed()), (0, -1));
    let set = [("message.timestamp.type", SET, "LogAppendTime")];
    let begun = now_ms();
    assert_eq!(alter(&mut client, TOPIC, "t", &set), 0);
    let (code, time) = produced(&mut client, keyed());
    assert_eq!((code, time >= begun), (0, true));
    running.crash();

    let running = Running::start(on_disk(dir.path()));
    let mut client = running.client();
    let rows = rows(&mut client, TOPIC, "t");
    assert_eq!(value(&rows, "max.message.bytes"), (some("1000"), 1));
    assert_eq!(produced(&mut client, large()).0, 10);
    assert_eq!(produced(&mut client, batch(1, &[b"no key"])).0, 87);
    assert!(produced(&mut client, keyed()).1 >= begun);
}

#[test]
fn what_brokers_are_told_holds_for_topics_that_do_not_say_otherwise() {
    let dir = tempfile::tempdir().unwrap();
    let running = Running::start(on_disk(dir.path()));
    let mut client = running.client();
    client.create("t", 1);
    client.create("own", 1);
    let set = [("max.message.bytes", SET, "1048588")];
    assert_eq!(alter(&mut client, TOPIC, "own", &set), 0);
    let large = batch(1, &[&[7; 2_000]]);
    let all = [
        ("message.max.bytes", SET, "100000"),
        ("log.retention.ms", SET, "5"),
    ];
    assert_eq!(alter(&mut client, BROKER, "", &all), 0);
    assert_eq!(produced(&mut client, large.clone()).0, 0);
    let one = [("message.max.bytes", SET, "1000")];
    assert_eq!(alter(&mut client, BROKER, "1", &one), 0);
    for round in 0..2 {
        assert_eq!(produced(&mut client, large.clone()).0, 10, "{round}");
        client.produce("own", 0, large.clone());
        let of_topic = rows(&mut client, TOPIC, "t");
        assert_eq!(value(&of_topic, "max.message.bytes"), (some("1000"), 2));
        assert_eq!(value(&of_topic, "retention.ms"), (some("5"), 3));
        let of_broker = rows(&mut client, BROKER, "1");
        assert_eq!(value(&of_broker, "message.max.bytes"), (some("1000"), 2));
        assert_eq!(of_broker["message.max.bytes"].synonyms.len(), 3);
        let of_all = rows(&mut client, BROKER, "");
        let names: Vec<_> = of_all.keys().map(String::as_str).collect();
        assert_eq!(names, ["log.retention.ms", "message.max.bytes"]);
        assert_eq!(value(&of_all, "message.max.bytes"), (some("100000"), 3));
    }
    running.crash();
    let running = Running::start(on_disk(dir.path()));
    let mut client = running.client();
    assert_eq!(produced(&mut client, large.clone()).0, 10);
    // A topic that is new has them, too.
    client.create("new", 1);
    let of_topic = rows(&mut client, TOPIC, "new");
    assert_eq!(value(&of_topic, "max.message.bytes"), (some("1000"), 2));
    assert_eq!(
        alter(
            &mut client,
            BROKER,
            "1",
            &[("message.max.bytes", DELETE, "")]
        ),
        0
    );
    assert_eq!(produced(&mut client, large).0, 0);
    // What would break a topic is refused.
    let lag = [("min.compaction.lag.ms", SET, "50")];
    assert_eq!(alter(&mut client, TOPIC, "t", &lag), 0);
    let less = [("log.cleaner.max.compaction.lag.ms", SET, "49")];
    assert_eq!(alter(&mut client, BROKER, "1", &less), 40);
}

#[test]
fn settings_of_groups_are_kept_and_listed() {
    let running = Running::in_memory();
    let mut client = running.client();
    let set = [("consumer.session.timeout.ms", SET, "50000")];
    assert_eq!(alter(&mut client, GROUP, "g", &set), 0);
    let of_group = rows(&mut client, GROUP, "g");
    let given = value(&of_group, "consumer.session.timeout.ms");
    assert_eq!(given, (some("50000"), 8));
    let other = rows(&mut client, GROUP, "other");
    let default = value(&other, "consumer.session.timeout.ms");
    assert_eq!(default, (some("45000"), 5));
    client.create("t", 1);
    let list = |client: &mut Client, version, kinds: Vec<i8>| {
        let mut request = ListConfigResourcesRequest::default();
        request.resource_types = kinds;
        let answer: ListConfigResourcesResponse =
            client.call(ApiKey::ListConfigResources, version, &request);
        let all = answer.config_resources.into_iter();
        let all = all.map(|one| (one.resource_type, one.resource_name.to_string()));
        (answer.error_code, all.collect::<Vec<_>>())
    };
    assert_eq!(list(&mut client, 0, vec![]), (0, vec![]));
    let (code, all) = list(&mut client, 1, vec![]);
    let named = |kind, name: &str| (kind, name.to_owned());
    assert_eq!(code, 0);
    assert_eq!(
        all,
        [named(TOPIC, "t"), named(BROKER, "1"), named(GROUP, "g")]
    );
    assert_eq!(
        list(&mut client, 1, vec![GROUP]),
        (0, vec![named(GROUP, "g")])
    );
    assert_eq!(list(&mut client, 1, vec![99]).0, 35);
    assert_eq!(alter(&mut client, GROUP, "g", &[(set[0].0, DELETE, "")]), 0);
    assert_eq!(list(&mut client, 1, vec![GROUP]), (0, vec![]));
}
