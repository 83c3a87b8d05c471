//! What whoever runs a broker may choose: plain data, the same keys in a file and in `docs/config.toml`.
//!
//! `docs/config.toml` says what each key means, its unit, its default and when to change it; a test holds it equal to
//! [`Config::default`]. Unknown keys are refused. [`Config::validate`] reports every problem and changes nothing.

use std::{fmt, path::Path};

use serde::{Deserialize, Serialize};

mod cleaner;
mod coordinator;
mod limits;
mod transactions;

pub use cleaner::Cleaner;
pub use coordinator::Coordinator;
pub use limits::Limits;
pub use transactions::Transactions;

/// A broker's configuration.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// Address to listen on, `host:port`; port 0 takes a free one.
    pub listen: String,
    /// Address that clients are told to connect to, `host:port`; empty: the address a client has connected to.
    pub advertise: String,
    /// Address of the status page, `host:port`; empty: there is none.
    pub metrics_listen: String,
    /// This node's number in the cluster, kept over restarts.
    pub node_id: u32,
    /// How many nodes clients see: each has a port of its own, numbers and ports being in a row, and serves everything.
    pub nodes: u32,
    /// Where the data is: a bucket's URL.
    pub bucket: String,
    /// Where the write-ahead log is: a log's URL.
    pub wal: String,
    /// Where the metadata is: `bucket:` is in the bucket.
    pub metadata: String,
    /// How long a stop may take before what is left is left to recovery, in milliseconds.
    pub shutdown_timeout_ms: u64,
    /// Topics.
    pub topics: TopicDefaults,
    /// Groups and transactions.
    pub coordinator: Coordinator,
    /// Compaction of topics.
    pub cleaner: Cleaner,
    /// Transactions.
    pub transactions: Transactions,
    /// What clients may use.
    pub limits: Limits,
    /// The engine: its memory, and how it writes to the bucket.
    pub engine: s3stream::Config,
}

/// What holds for topics that do not say otherwise.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct TopicDefaults {
    /// Whether a client that asks for an unknown topic creates it.
    pub auto_create: bool,
    /// Partitions of a topic whose creator does not say.
    pub partitions_default: u32,
    /// Most partitions of one topic.
    pub partitions_max: u32,
    /// How often old segments are looked for, in milliseconds.
    pub retention_check_interval_ms: u64,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            listen: "127.0.0.1:9092".into(),
            advertise: String::new(),
            metrics_listen: String::new(),
            node_id: 1,
            nodes: 1,
            bucket: "file:s3stream-data/bucket".into(),
            wal: "block:s3stream-data/wal?capacity=256MiB".into(),
            metadata: "bucket:".into(),
            shutdown_timeout_ms: 30_000,
            topics: TopicDefaults::default(),
            coordinator: Coordinator::default(),
            cleaner: Cleaner::default(),
            transactions: Transactions::default(),
            limits: Limits::default(),
            engine: s3stream::Config::default(),
        }
    }
}

impl Default for TopicDefaults {
    fn default() -> Self {
        Self {
            auto_create: true,
            partitions_default: 1,
            partitions_max: 10_000,
            retention_check_interval_ms: 300_000,
        }
    }
}

/// One thing that is wrong with a configuration.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Problem {
    /// The key, as in the file.
    pub key: String,
    /// What is wrong with it, with the value.
    pub what: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.key, self.what)
    }
}

/// Why there is no configuration.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("config file {path}: {source}")]
    Read {
        /// The file.
        path: String,
        /// Why.
        source: std::io::Error,
    },
    /// The file is not TOML, or has a key that does not exist.
    #[error("config file {path}, line {line}: {message}")]
    Parse {
        /// The file.
        path: String,
        /// The line, from 1.
        line: usize,
        /// What is wrong.
        message: String,
    },
    /// Values that cannot be.
    #[error("configuration: {}", list(.0))]
    Invalid(Vec<Problem>),
}

fn list(problems: &[Problem]) -> String {
    let lines: Vec<String> = problems.iter().map(Problem::to_string).collect();
    lines.join("; ")
}

impl Config {
    /// Reads a file. Keys that it does not have keep their defaults; [`Config::validate`] is the caller's.
    pub fn load(path: &Path) -> Result<Self, ConfigError> {
        let name = || path.display().to_string();
        let text = std::fs::read_to_string(path).map_err(|source| ConfigError::Read {
            path: name(),
            source,
        })?;
        toml::from_str(&text).map_err(|error| ConfigError::Parse {
            path: name(),
            line: error.span().map_or(1, |span| {
                1 + text
                    .bytes()
                    .take(span.start)
                    .filter(|byte| *byte == b'\n')
                    .count()
            }),
            message: error.message().to_owned(),
        })
    }

    /// Every problem, not only the first.
    pub fn validate(&self) -> Result<(), ConfigError> {
        let mut problems = Vec::new();
        let mut check = |ok: bool, key: &'static str, what: String| {
            if !ok {
                let key = String::from(key);
                problems.push(Problem { key, what });
            }
        };
        self.validate_addresses(&mut check);
        check(
            i32::try_from(self.node_id).is_ok(),
            "node_id",
            format!(
                "{} is above {}, the protocol's largest",
                self.node_id,
                i32::MAX
            ),
        );
        self.validate_nodes(&mut check);
        for (key, value) in [
            ("bucket", &self.bucket),
            ("wal", &self.wal),
            ("metadata", &self.metadata),
        ] {
            check(!value.is_empty(), key, "empty; give a URL".into());
        }
        let topics = &self.topics;
        check(
            (1..=topics.partitions_max).contains(&topics.partitions_default),
            "topics.partitions_default",
            format!(
                "{} is not within 1..={} (topics.partitions_max)",
                topics.partitions_default, topics.partitions_max
            ),
        );
        check(
            topics.partitions_max <= PARTITIONS_LIMIT,
            "topics.partitions_max",
            format!("{} is above {PARTITIONS_LIMIT}", topics.partitions_max),
        );
        check(
            topics.retention_check_interval_ms > 0,
            "topics.retention_check_interval_ms",
            "0 would never rest".into(),
        );
        self.coordinator.validate(&mut check);
        self.cleaner.validate(&mut check);
        self.transactions.validate(&mut check);
        self.limits.validate(&mut check);
        if let Err(engine) = self.engine.validate() {
            problems.extend(engine.into_iter().map(|problem| Problem {
                key: format!("engine.{}", problem.field),
                what: problem.what,
            }));
        }
        if problems.is_empty() {
            Ok(())
        } else {
            Err(ConfigError::Invalid(problems))
        }
    }

    fn validate_addresses(&self, check: &mut impl FnMut(bool, &'static str, String)) {
        check(
            split_address(&self.listen).is_some(),
            "listen",
            format!("{:?} is not host:port", self.listen),
        );
        check(
            self.advertise.is_empty()
                || split_address(&self.advertise).is_some_and(|(_, port)| port != 0),
            "advertise",
            format!("{:?} is not host:port", self.advertise),
        );
        check(
            self.metrics_listen.is_empty() || split_address(&self.metrics_listen).is_some(),
            "metrics_listen",
            format!("{:?} is not host:port", self.metrics_listen),
        );
    }

    /// Whether there are numbers and ports for every node.
    fn validate_nodes(&self, check: &mut impl FnMut(bool, &'static str, String)) {
        let nodes = self.nodes;
        check(
            (1..=NODES_LIMIT).contains(&nodes),
            "nodes",
            format!("{nodes} is not within 1..={NODES_LIMIT}"),
        );
        let more = nodes.saturating_sub(1);
        let ids = self.node_id.saturating_add(more);
        check(
            i32::try_from(ids).is_ok() || i32::try_from(self.node_id).is_err(),
            "nodes",
            format!("{nodes} nodes from node_id {} on", self.node_id),
        );
        for (key, address) in [("listen", &self.listen), ("advertise", &self.advertise)] {
            let port = split_address(address).map_or(0, |(_, port)| port);
            check(
                u32::from(port).saturating_add(more) <= u32::from(u16::MAX),
                key,
                format!("{nodes} ports from {port} on end above {}", u16::MAX),
            );
        }
    }
}

/// Nodes that one process may show: clients' tests want three.
const NODES_LIMIT: u32 = 100;

/// A topic's description is one value in the metadata; this many partitions keep it well under a megabyte.
const PARTITIONS_LIMIT: u32 = 50_000;

/// Host and port of `host:port` or `[v6]:port`.
pub(crate) fn split_address(address: &str) -> Option<(&str, u16)> {
    let (host, port) = address.rsplit_once(':')?;
    let bare = host
        .strip_prefix('[')
        .map_or(Some(host), |inside| inside.strip_suffix(']'))?;
    let is_v6 = bare.contains(':');
    if bare.is_empty() || is_v6 != host.starts_with('[') {
        return None;
    }
    Some((bare, port.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    const REFERENCE: &str = include_str!("../../docs/config.toml");

    #[test]
    fn the_reference_is_the_defaults_key_by_key() {
        let reference: toml::Value = toml::from_str(REFERENCE).unwrap();
        let defaults = toml::Value::try_from(Config::default()).unwrap();
        assert_eq!(reference, defaults);
        assert_eq!(
            toml::from_str::<Config>(REFERENCE).unwrap(),
            Config::default()
        );
    }

    #[test]
    fn every_key_of_the_reference_is_explained_right_above_it() {
        let mut above = "";
        for line in REFERENCE.lines() {
            if line.contains(" = ") && !line.starts_with('#') {
                assert!(above.starts_with("# "), "no comment above: {line}");
            }
            above = line;
        }
    }

    #[test]
    fn the_defaults_are_valid() {
        Config::default().validate().unwrap();
    }

    #[test]
    fn every_problem_is_reported_at_once() {
        let config = Config {
            listen: "9092".into(),
            advertise: "host:0".into(),
            metrics_listen: "9644".into(),
            node_id: u32::MAX,
            wal: String::new(),
            topics: TopicDefaults {
                partitions_default: 0,
                ..TopicDefaults::default()
            },
            cleaner: Cleaner {
                backoff_ms: 0,
                ..Cleaner::default()
            },
            limits: Limits {
                connections_max: 0,
                ..Limits::default()
            },
            ..Config::default()
        };
        let Err(ConfigError::Invalid(problems)) = config.validate() else {
            panic!("accepted");
        };
        let keys: Vec<_> = problems
            .iter()
            .map(|problem| problem.key.as_str())
            .collect();
        let expected = [
            "listen",
            "advertise",
            "metrics_listen",
            "node_id",
            "wal",
            "topics.partitions_default",
            "cleaner.backoff_ms",
            "limits.connections_max",
        ];
        assert_eq!(keys, expected);
    }

    #[test]
    fn an_unknown_key_is_refused_by_name() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("broker.toml");
        std::fs::write(&path, "[limits]\nconections_max = 3\n").unwrap();
        let error = Config::load(&path).unwrap_err().to_string();
        assert!(error.contains("conections_max"), "{error}");
        assert!(error.contains("broker.toml, line 2"), "{error}");
    }

    #[test]
    fn addresses_are_split_at_the_port() {
        assert_eq!(split_address("host:1"), Some(("host", 1)));
        assert_eq!(split_address("[::1]:9092"), Some(("::1", 9092)));
        for bad in [
            "",
            "host",
            ":1",
            "host:",
            "host:70000",
            "::1:9092",
            "[::1:1",
        ] {
            assert_eq!(split_address(bad), None, "{bad}");
        }
    }
}
