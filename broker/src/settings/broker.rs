//! The settings of the broker: those of Kafka's names that clients and tools ask for.
//!
//! What the configuration file decides is read only. The defaults of topics can be changed while the broker runs and hold at
//! once for topics that do not say otherwise. A few more can be changed and have nothing to act on here: how many threads
//! there are, for one. All nodes of a process share them.

use std::net::SocketAddr;

use super::{
    Described, INT, Key, Kind, LONG, Overrides, Source, Sourced,
    store::{Place, Store},
};
use crate::{config::split_address, node::Node, start_error::redacted, topics};

/// Where the value of a setting comes from if nobody changed it.
enum Origin {
    /// Always the same.
    Fixed(&'static str),
    /// Kafka has none by default.
    Nothing,
    /// This broker's configuration; of the node with this id, for a client at this address.
    Config(fn(&Node, i32, SocketAddr) -> String),
}

struct Row {
    name: &'static str,
    kind: Kind,
    origin: Origin,
    dynamic: bool,
    about: &'static str,
}

const fn row(name: &'static str, kind: Kind, origin: Origin, about: &'static str) -> Row {
    Row {
        name,
        kind,
        origin,
        dynamic: false,
        about,
    }
}

/// A setting that can be changed and acts on nothing.
const fn idle(name: &'static str, default: &'static str, most: i64, about: &'static str) -> Row {
    Row {
        name,
        kind: Kind::Number(1, most),
        origin: Origin::Fixed(default),
        dynamic: true,
        about,
    }
}

/// Those that are no defaults of topics, by name.
static ROWS: &[Row] = &[
    row(
        "advertised.listeners",
        Kind::List,
        Origin::Config(|node, id, local| {
            let endpoint = node.endpoint(id, local);
            listener(&endpoint.host, endpoint.port)
        }),
        "Where clients are told to connect to.",
    ),
    row(
        "auto.create.topics.enable",
        Kind::Bool,
        Origin::Config(|node, _, _| node.config.topics.auto_create.to_string()),
        "Whether a client that asks for an unknown topic creates it.",
    ),
    idle(
        "background.threads",
        "10",
        INT,
        "Threads for work in the background. Kept; there are tasks.",
    ),
    row(
        "broker.id",
        Kind::Number(-1, INT),
        Origin::Config(|_, id, _| id.to_string()),
        "The number of this node.",
    ),
    row(
        "broker.rack",
        Kind::Text,
        Origin::Nothing,
        "Where this node is; nowhere in particular.",
    ),
    row(
        "connections.max.idle.ms",
        Kind::Number(0, LONG),
        Origin::Config(|node, _, _| node.config.limits.idle_timeout_ms.to_string()),
        "How long a connection may be silent.",
    ),
    row(
        "default.replication.factor",
        Kind::Number(1, INT),
        Origin::Fixed("1"),
        "Replicas of a topic whose creator does not say.",
    ),
    row(
        "delete.topic.enable",
        Kind::Bool,
        Origin::Fixed("true"),
        "Whether topics can be deleted.",
    ),
    row(
        "fetch.max.bytes",
        Kind::Number(1024, INT),
        Origin::Config(|node, _, _| node.config.limits.fetch_bytes_max.to_string()),
        "The most records in one answer to a fetch.",
    ),
    idle(
        "follower.replication.throttled.rate",
        "9223372036854775807",
        LONG,
        "How fast followers may copy while they are throttled. Kept; nothing is copied between nodes.",
    ),
    row(
        "group.initial.rebalance.delay.ms",
        Kind::Number(0, INT),
        Origin::Config(|node, _, _| {
            node.config
                .coordinator
                .group_initial_rebalance_delay_ms
                .to_string()
        }),
        "How long the first rebalance of an empty group waits for more members.",
    ),
    row(
        "group.max.session.timeout.ms",
        Kind::Number(1, INT),
        Origin::Config(|node, _, _| node.config.coordinator.group_session_max_ms.to_string()),
        "The longest session that a member of a group may ask for.",
    ),
    row(
        "group.max.size",
        Kind::Number(1, INT),
        Origin::Config(|node, _, _| node.config.coordinator.group_members_max.to_string()),
        "The most members of a group.",
    ),
    row(
        "group.min.session.timeout.ms",
        Kind::Number(1, INT),
        Origin::Config(|node, _, _| node.config.coordinator.group_session_min_ms.to_string()),
        "The shortest session that a member of a group may ask for.",
    ),
    idle(
        "leader.replication.throttled.rate",
        "9223372036854775807",
        LONG,
        "How fast leaders may be copied from while they are throttled. Kept; nothing is copied between nodes.",
    ),
    row(
        "listeners",
        Kind::List,
        Origin::Config(|node, id, local| {
            let host = split_address(&node.config.listen).map_or("", |(host, _)| host);
            listener(host, node.port(id, local))
        }),
        "Where this node listens.",
    ),
    row(
        "log.cleaner.backoff.ms",
        Kind::Number(0, LONG),
        Origin::Config(|node, _, _| node.config.cleaner.backoff_ms.to_string()),
        "How long the cleaner rests when there is nothing to compact.",
    ),
    row(
        "log.cleaner.dedupe.buffer.size",
        Kind::Number(0, LONG),
        Origin::Config(|node, _, _| node.config.cleaner.dedupe_buffer_bytes.to_string()),
        "Memory for the newest offsets of keys while topics are compacted.",
    ),
    row(
        "log.cleaner.enable",
        Kind::Bool,
        Origin::Fixed("true"),
        "Whether topics are compacted.",
    ),
    row(
        "log.cleaner.threads",
        Kind::Number(0, INT),
        Origin::Fixed("1"),
        "How many topics are compacted at one time.",
    ),
    row(
        "log.dir",
        Kind::Text,
        Origin::Config(|node, _, _| redacted(&node.config.bucket)),
        "Where the data is.",
    ),
    row(
        "log.dirs",
        Kind::Text,
        Origin::Config(|node, _, _| redacted(&node.config.bucket)),
        "Where the data is.",
    ),
    row(
        "log.retention.check.interval.ms",
        Kind::Number(1, LONG),
        Origin::Config(|node, _, _| node.config.topics.retention_check_interval_ms.to_string()),
        "How often old segments are looked for.",
    ),
    row(
        "log.retention.hours",
        Kind::Number(i32::MIN as i64, INT),
        Origin::Fixed("168"),
        "The default of retention.ms in hours, unless log.retention.ms is set.",
    ),
    row(
        "log.roll.hours",
        Kind::Number(1, INT),
        Origin::Fixed("168"),
        "The default of segment.ms in hours, unless log.roll.ms is set.",
    ),
    row(
        "max.connections",
        Kind::Number(0, INT),
        Origin::Config(|node, _, _| node.config.limits.connections_max.to_string()),
        "Connections at one time.",
    ),
    row(
        "node.id",
        Kind::Number(0, INT),
        Origin::Config(|_, id, _| id.to_string()),
        "The number of this node.",
    ),
    idle(
        "num.io.threads",
        "8",
        INT,
        "Threads that serve requests. Kept; there are tasks.",
    ),
    idle(
        "num.network.threads",
        "3",
        INT,
        "Threads that read and write requests. Kept; there are tasks.",
    ),
    row(
        "num.partitions",
        Kind::Number(1, INT),
        Origin::Config(|node, _, _| node.config.topics.partitions_default.to_string()),
        "Partitions of a topic whose creator does not say.",
    ),
    idle(
        "num.recovery.threads.per.data.dir",
        "2",
        INT,
        "Threads that open logs. Kept; there are tasks.",
    ),
    idle(
        "num.replica.fetchers",
        "1",
        INT,
        "Threads that copy from leaders. Kept; nothing is copied between nodes.",
    ),
    row(
        "offset.metadata.max.bytes",
        Kind::Number(0, INT),
        Origin::Config(|node, _, _| {
            node.config
                .coordinator
                .offset_metadata_bytes_max
                .to_string()
        }),
        "The most that a client may note with an offset.",
    ),
    row(
        "offsets.retention.check.interval.ms",
        Kind::Number(1, LONG),
        Origin::Config(|node, _, _| {
            node.config
                .coordinator
                .offsets_retention_check_interval_ms
                .to_string()
        }),
        "How often offsets are looked through for old ones.",
    ),
    row(
        "offsets.retention.minutes",
        Kind::Number(1, INT),
        Origin::Config(|node, _, _| {
            node.config
                .coordinator
                .offsets_retention_minutes
                .to_string()
        }),
        "How long an offset is kept after its group was last used.",
    ),
    row(
        "offsets.topic.num.partitions",
        Kind::Number(1, INT),
        Origin::Config(|node, _, _| node.config.coordinator.partitions.to_string()),
        "Partitions of __consumer_offsets when it is made.",
    ),
    row(
        "process.roles",
        Kind::List,
        Origin::Fixed("broker,controller"),
        "What this process is.",
    ),
    idle(
        "replica.alter.log.dirs.io.max.bytes.per.second",
        "9223372036854775807",
        LONG,
        "How fast a replica may move between directories. Kept; there is one.",
    ),
    idle(
        "sasl.kerberos.min.time.before.relogin",
        "60000",
        LONG,
        "How long Kerberos waits between logins. Kept; there is no Kerberos.",
    ),
    row(
        "socket.request.max.bytes",
        Kind::Number(1, INT),
        Origin::Config(|node, _, _| node.config.limits.request_bytes_max.to_string()),
        "The largest request.",
    ),
    row(
        "transaction.max.timeout.ms",
        Kind::Number(1, INT),
        Origin::Config(|node, _, _| node.config.transactions.timeout_max_ms.to_string()),
        "The longest that a producer may let a transaction be open.",
    ),
    row(
        "transaction.state.log.num.partitions",
        Kind::Number(1, INT),
        Origin::Config(|node, _, _| node.config.coordinator.partitions.to_string()),
        "Partitions of __transaction_state when it is made.",
    ),
    row(
        "transactional.id.expiration.ms",
        Kind::Number(1, LONG),
        Origin::Config(|node, _, _| node.config.transactions.id_expiration_ms.to_string()),
        "After what time without use a transactional id is forgotten.",
    ),
];

fn listener(host: &str, port: u16) -> String {
    match host.contains(':') {
        true => format!("PLAINTEXT://[{host}]:{port}"),
        false => format!("PLAINTEXT://{host}:{port}"),
    }
}

/// The setting of a topic whose default is this setting of the broker.
fn topic_key(name: &str) -> Option<&'static Key> {
    let mut keys = topics::config::KEYS.iter();
    keys.find(|key| key.broker_name == Some(name))
}

/// What a broker's setting may be, and its value if nobody changed it.
pub(crate) fn find(name: &str) -> Option<(&'static Kind, String)> {
    if let Some(key) = topic_key(name) {
        return Some((&key.kind, key.default.to_owned()));
    }
    let row = ROWS.iter().find(|row| row.name == name && row.dynamic)?;
    match row.origin {
        Origin::Fixed(value) => Some((&row.kind, value.to_owned())),
        Origin::Nothing | Origin::Config(_) => None,
    }
}

/// Checks what brokers shall have.
pub(crate) fn check(overrides: Overrides) -> Result<Overrides, String> {
    let check = |(name, value): (String, String)| {
        let value = value.trim().to_owned();
        let (kind, _) = find(&name)
            .ok_or_else(|| format!("cannot be changed while the broker runs: {name}"))?;
        let accepted = kind.accepts(&value);
        accepted.map_err(|expected| format!("invalid value {value:?} for {name}: {expected}"))?;
        Ok((name, value))
    };
    overrides.into_iter().map(check).collect()
}

/// Every value of a broker's setting that was changed, the one that holds first.
pub(crate) fn changed(store: &Store, name: &'static str) -> Vec<Sourced> {
    let places = [
        (store.this_broker(), Source::Broker),
        (Place::AllBrokers, Source::AllBrokers),
    ];
    let values = places.into_iter().filter_map(|(place, source)| {
        let value = store.value(&place, name)?;
        Some(Sourced {
            name,
            value,
            source,
        })
    });
    values.collect()
}

/// What topics have that do not say otherwise, by their own names, where brokers were told so; `place` has, or shall have,
/// these overrides.
pub(crate) fn topic_defaults(store: &Store, place: &Place, overrides: &Overrides) -> Overrides {
    let at = |other: Place, name| match &other == place {
        true => overrides.get(name).cloned(),
        false => store.value(&other, name),
    };
    let named = topics::config::KEYS.iter().filter_map(|key| {
        let name = key.broker_name?;
        let value = at(store.this_broker(), name).or_else(|| at(Place::AllBrokers, name))?;
        Some((key.name.to_owned(), value))
    });
    named.collect()
}

/// Every setting of a node, by name.
pub(crate) fn describe(node: &Node, id: i32, local: SocketAddr) -> Vec<Described> {
    let store = &node.topics.settings;
    let of_topics = topics::config::KEYS.iter().filter_map(|key| {
        let name = key.broker_name?;
        let mut values = changed(store, name);
        values.extend(key.default_of_broker());
        Some(Described {
            name,
            fallback: None,
            ..Described::of(key, values)
        })
    });
    let of_broker = ROWS.iter().map(|row| {
        let mut values = changed(store, row.name);
        let origin = match row.origin {
            Origin::Fixed(value) => Some((value.to_owned(), Source::Default)),
            Origin::Nothing => None,
            Origin::Config(value) => Some((value(node, id, local), Source::File)),
        };
        values.extend(origin.map(|(value, source)| Sourced {
            name: row.name,
            value,
            source,
        }));
        Described {
            name: row.name,
            kind: &row.kind,
            about: row.about,
            read_only: !row.dynamic,
            values,
            fallback: None,
        }
    });
    let mut all: Vec<Described> = of_topics.chain(of_broker).collect();
    all.sort_by_key(|described| described.name);
    all
}

/// What was changed for all brokers.
pub(crate) fn describe_all_brokers(node: &Node) -> Vec<Described> {
    let overrides = node.topics.settings.get(&Place::AllBrokers);
    let local = SocketAddr::from(([0, 0, 0, 0], 0));
    let all = describe(node, node.id(), local).into_iter();
    let changed = all.filter(|described| overrides.contains_key(described.name));
    changed
        .map(|mut described| {
            described
                .values
                .retain(|value| value.source != Source::Broker);
            described
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::node::testing;

    #[tokio::test]
    async fn every_setting_is_described_once_and_says_where_its_value_comes_from() {
        let node = testing::node().await;
        let local = SocketAddr::from(([127, 0, 0, 1], 9092));
        let all = describe(&node, 1, local);
        assert!(all.is_sorted_by(|a, b| a.name < b.name));
        let value = |name: &str| {
            let found = all.iter().find(|described| described.name == name).unwrap();
            (found.value(), found.source(), found.read_only)
        };
        let listeners = Some("PLAINTEXT://127.0.0.1:9092");
        assert_eq!(
            value("advertised.listeners"),
            (listeners, Source::File, true)
        );
        assert_eq!(value("listeners"), (listeners, Source::File, true));
        assert_eq!(value("broker.id"), (Some("1"), Source::File, true));
        assert_eq!(value("log.retention.ms"), (None, Source::Default, false));
        assert_eq!(
            value("log.flush.interval.messages"),
            (Some("9223372036854775807"), Source::Default, false)
        );
        for described in &all {
            if let Some(value) = described.value() {
                described.kind.accepts(value).unwrap();
            }
            assert!(!described.about.is_empty(), "{}", described.name);
        }
    }

    #[test]
    fn only_what_can_be_changed_is_taken() {
        let check =
            |name: &str, value: &str| check(Overrides::from([(name.to_owned(), value.to_owned())]));
        check("log.retention.ms", "5").unwrap();
        check("background.threads", "9").unwrap();
        for (name, value) in [
            ("broker.id", "2"),
            ("no.such.setting", "1"),
            ("background.threads", "none"),
            ("log.cleanup.policy", "shred"),
        ] {
            assert!(check(name, value).unwrap_err().contains(name));
        }
    }
}
