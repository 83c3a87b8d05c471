//! A topic's configuration: what its creator chose, checked against the table of keys, and what the log makes of it.
//!
//! Keys, values and defaults are Kafka's. Only overrides are kept. A value whose effect is not provided is refused, unless
//! it concerns how a Kafka broker uses its local disk: those are checked and have nothing to act on here.

use std::collections::BTreeMap;

use segment_adapter::{Codec, LogConfig, TimestampType};

/// What a value may be.
#[derive(Debug)]
enum Kind {
    Number(i64, i64),
    Ratio,
    Bool,
    OneOf(&'static [&'static str]),
    ListOf(&'static [&'static str]),
    /// Replicas to throttle: there is nothing to throttle, any list will do.
    Any,
}

/// A key that topics may be given.
#[derive(Debug)]
pub(crate) struct Key {
    pub(crate) name: &'static str,
    pub(crate) default: &'static str,
    kind: Kind,
}

const fn key(name: &'static str, default: &'static str, kind: Kind) -> Key {
    Key {
        name,
        default,
        kind,
    }
}

const INT: i64 = i32::MAX as i64;
const LONG: i64 = i64::MAX;

/// Every key, by name. Numbers are bytes or milliseconds as the key's last word says; ranges are Kafka's.
pub(crate) static KEYS: [Key; 31] = [
    key(
        "cleanup.policy",
        "delete",
        Kind::ListOf(&["compact", "delete"]),
    ),
    key("compression.gzip.level", "-1", Kind::Number(-1, 9)),
    key("compression.lz4.level", "9", Kind::Number(1, 17)),
    key(
        "compression.type",
        "producer",
        Kind::OneOf(&["uncompressed", "zstd", "lz4", "snappy", "gzip", "producer"]),
    ),
    key("compression.zstd.level", "3", Kind::Number(-131_072, 22)),
    key("delete.retention.ms", "86400000", Kind::Number(0, LONG)),
    key("file.delete.delay.ms", "60000", Kind::Number(0, LONG)),
    key(
        "flush.messages",
        "9223372036854775807",
        Kind::Number(1, LONG),
    ),
    key("flush.ms", "9223372036854775807", Kind::Number(0, LONG)),
    key("follower.replication.throttled.replicas", "", Kind::Any),
    key("index.interval.bytes", "4096", Kind::Number(0, INT)),
    key("leader.replication.throttled.replicas", "", Kind::Any),
    key("local.retention.bytes", "-2", Kind::Number(-2, LONG)),
    key("local.retention.ms", "-2", Kind::Number(-2, LONG)),
    key(
        "max.compaction.lag.ms",
        "9223372036854775807",
        Kind::Number(1, LONG),
    ),
    key("max.message.bytes", "1048588", Kind::Number(0, INT)),
    key(
        "message.timestamp.after.max.ms",
        "3600000",
        Kind::Number(0, LONG),
    ),
    key(
        "message.timestamp.before.max.ms",
        "9223372036854775807",
        Kind::Number(0, LONG),
    ),
    key(
        "message.timestamp.type",
        "CreateTime",
        Kind::OneOf(&["CreateTime", "LogAppendTime"]),
    ),
    key("min.cleanable.dirty.ratio", "0.5", Kind::Ratio),
    key("min.compaction.lag.ms", "0", Kind::Number(0, LONG)),
    key("min.insync.replicas", "1", Kind::Number(1, INT)),
    key("preallocate", "false", Kind::Bool),
    // Every segment is in the bucket already.
    key("remote.storage.enable", "false", Kind::OneOf(&["false"])),
    key("retention.bytes", "-1", Kind::Number(-1, LONG)),
    key("retention.ms", "604800000", Kind::Number(-1, LONG)),
    key("segment.bytes", "1073741824", Kind::Number(1_048_576, INT)),
    key("segment.index.bytes", "10485760", Kind::Number(4, INT)),
    key("segment.jitter.ms", "0", Kind::Number(0, LONG)),
    key("segment.ms", "604800000", Kind::Number(1, LONG)),
    key("unclean.leader.election.enable", "false", Kind::Bool),
];

/// What a topic's creator chose.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(crate) struct TopicConfig {
    overrides: BTreeMap<String, String>,
}

impl TopicConfig {
    /// Checks every key and value alone, then together; the error is for the client.
    pub(crate) fn new(
        overrides: impl IntoIterator<Item = (String, Option<String>)>,
    ) -> Result<Self, String> {
        let mut checked = BTreeMap::new();
        for (name, value) in overrides {
            let key = find(&name).ok_or_else(|| format!("unknown topic config name: {name}"))?;
            let value = value.ok_or_else(|| format!("null value not supported for: {name}"))?;
            let value = value.trim().to_owned();
            key.kind
                .accepts(&value)
                .map_err(|expected| format!("invalid value {value:?} for {name}: {expected}"))?;
            if checked.insert(name.clone(), value).is_some() {
                return Err(format!("{name} is given twice"));
            }
        }
        let config = Self { overrides: checked };
        config.log().validate().map_err(|error| error.to_string())?;
        Ok(config)
    }

    /// The value of a key, and whether it was chosen.
    pub(crate) fn get(&self, key: &'static Key) -> (&str, bool) {
        match self.overrides.get(key.name) {
            Some(value) => (value, true),
            None => (key.default, false),
        }
    }

    /// What was chosen, by key.
    pub(crate) fn overrides(&self) -> &BTreeMap<String, String> {
        &self.overrides
    }

    /// What the log acts on.
    pub(crate) fn log(&self) -> LogConfig {
        let text = |name: &str| self.overrides.get(name).map(String::as_str);
        // Every value was checked when it was taken in; the log's own default stands for a key that was not chosen.
        let number = |name, default: i64| {
            text(name)
                .and_then(|value| value.parse().ok())
                .unwrap_or(default)
        };
        let bytes = |name, default: u64| {
            text(name)
                .and_then(|value| value.parse().ok())
                .unwrap_or(default)
        };
        let defaults = LogConfig::default();
        let policy = text("cleanup.policy").unwrap_or("delete");
        let has = |word| policy.split(',').any(|part| part.trim() == word);
        LogConfig {
            segment_bytes: bytes("segment.bytes", defaults.segment_bytes),
            segment_ms: number("segment.ms", defaults.segment_ms),
            segment_jitter_ms: number("segment.jitter.ms", defaults.segment_jitter_ms),
            retention_ms: number("retention.ms", defaults.retention_ms),
            retention_bytes: number("retention.bytes", defaults.retention_bytes),
            delete: has("delete"),
            compact: has("compact"),
            min_cleanable_dirty_ratio: text("min.cleanable.dirty.ratio")
                .and_then(|value| value.parse().ok())
                .unwrap_or(defaults.min_cleanable_dirty_ratio),
            min_compaction_lag_ms: number("min.compaction.lag.ms", defaults.min_compaction_lag_ms),
            max_compaction_lag_ms: number("max.compaction.lag.ms", defaults.max_compaction_lag_ms),
            delete_retention_ms: number("delete.retention.ms", defaults.delete_retention_ms),
            max_message_bytes: bytes("max.message.bytes", defaults.max_message_bytes),
            compression: match text("compression.type") {
                Some("uncompressed") => Some(Codec::None),
                Some("gzip") => Some(Codec::Gzip),
                Some("snappy") => Some(Codec::Snappy),
                Some("lz4") => Some(Codec::Lz4),
                Some("zstd") => Some(Codec::Zstd),
                _ => None,
            },
            timestamp_type: match text("message.timestamp.type") {
                Some("LogAppendTime") => TimestampType::LogAppendTime,
                _ => TimestampType::CreateTime,
            },
            timestamp_before_max_ms: number(
                "message.timestamp.before.max.ms",
                defaults.timestamp_before_max_ms,
            ),
            timestamp_after_max_ms: number(
                "message.timestamp.after.max.ms",
                defaults.timestamp_after_max_ms,
            ),
            ..defaults
        }
    }
}

fn find(name: &str) -> Option<&'static Key> {
    KEYS.iter().find(|key| key.name == name)
}

impl Kind {
    fn accepts(&self, value: &str) -> Result<(), String> {
        let accepted = match self {
            Self::Number(least, most) => value
                .parse::<i64>()
                .is_ok_and(|number| (*least..=*most).contains(&number)),
            Self::Ratio => value
                .parse::<f64>()
                .is_ok_and(|ratio| (0.0..=1.0).contains(&ratio)),
            Self::Bool => ["true", "false"].contains(&value),
            Self::OneOf(words) => words.contains(&value),
            Self::ListOf(words) => value.split(',').all(|word| words.contains(&word.trim())),
            Self::Any => true,
        };
        if accepted {
            return Ok(());
        }
        Err(match self {
            Self::Number(least, most) => format!("expected a number from {least} to {most}"),
            Self::Ratio => "expected a number from 0 to 1".into(),
            Self::Bool => "expected true or false".into(),
            Self::OneOf(words) => format!("expected one of {}", words.join(", ")),
            Self::ListOf(words) => format!("expected a list of {}", words.join(", ")),
            Self::Any => "expected a list".into(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(pairs: &[(&str, &str)]) -> Result<TopicConfig, String> {
        TopicConfig::new(
            pairs
                .iter()
                .map(|(key, value)| (key.to_string(), Some(value.to_string()))),
        )
    }

    #[test]
    fn the_table_is_sorted_and_accepts_its_own_defaults() {
        assert!(KEYS.is_sorted_by_key(|key| key.name));
        for key in &KEYS {
            key.kind.accepts(key.default).unwrap();
        }
    }

    #[test]
    fn without_overrides_the_log_has_its_defaults_and_they_are_the_tables() {
        let log = TopicConfig::default().log();
        assert_eq!(log, LogConfig::default());
        let chosen: Vec<_> = KEYS.iter().map(|key| (key.name, key.default)).collect();
        assert_eq!(config(&chosen).unwrap().log(), log);
    }

    #[test]
    fn overrides_reach_the_log() {
        let log = config(&[
            ("cleanup.policy", "compact, delete"),
            ("segment.bytes", "2097152"),
            ("retention.ms", "-1"),
            ("max.message.bytes", "50000"),
            ("message.timestamp.type", "LogAppendTime"),
            ("min.cleanable.dirty.ratio", "0.25"),
            ("min.compaction.lag.ms", "1"),
            ("max.compaction.lag.ms", "2"),
            ("delete.retention.ms", "3"),
        ])
        .unwrap()
        .log();
        assert!(log.compact && log.delete);
        assert_eq!(log.segment_bytes, 2_097_152);
        assert_eq!(log.retention_ms, -1);
        assert_eq!(log.min_cleanable_dirty_ratio, 0.25);
        assert_eq!(log.min_compaction_lag_ms, 1);
        assert_eq!(log.max_compaction_lag_ms, 2);
        assert_eq!(log.delete_retention_ms, 3);
        assert_eq!(log.max_message_bytes, 50_000);
        assert_eq!(log.timestamp_type, TimestampType::LogAppendTime);
        for (name, codec) in [
            ("producer", None),
            ("uncompressed", Some(Codec::None)),
            ("gzip", Some(Codec::Gzip)),
            ("snappy", Some(Codec::Snappy)),
            ("lz4", Some(Codec::Lz4)),
            ("zstd", Some(Codec::Zstd)),
        ] {
            let log = config(&[("compression.type", name)]).unwrap().log();
            assert_eq!(log.compression, codec, "{name}");
        }
    }

    #[test]
    fn settings_that_kafka_takes_together_are_taken() {
        config(&[
            ("max.message.bytes", "2147483647"),
            ("segment.ms", "1000"),
            ("segment.jitter.ms", "9223372036854775807"),
        ])
        .unwrap();
    }

    #[test]
    fn what_cannot_be_is_refused_and_named() {
        for (key, value) in [
            ("no.such.key", "1"),
            ("retention.ms", "a week"),
            ("retention.ms", "-2"),
            ("cleanup.policy", "shred"),
            ("cleanup.policy", ""),
            ("compression.type", "brotli"),
            ("preallocate", "yes"),
            ("min.cleanable.dirty.ratio", "NaN"),
            ("segment.bytes", "2147483648"),
            ("max.compaction.lag.ms", "0"),
        ] {
            let message = config(&[(key, value)]).unwrap_err();
            assert!(message.contains(key), "{message}");
        }
        let null = TopicConfig::new([("retention.ms".to_owned(), None)]);
        assert!(null.unwrap_err().contains("null"));
        let twice = config(&[("retention.ms", "1"), ("retention.ms", "2")]);
        assert!(twice.unwrap_err().contains("twice"));
    }
}
