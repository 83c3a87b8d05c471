//! A topic's configuration: what its creator chose, checked against the table of keys, and what the log makes of it.
//!
//! Only overrides are kept. A value whose effect is not provided is refused, unless it concerns how a Kafka broker uses its
//! local disk: those are checked and have nothing to act on here.

use std::collections::BTreeMap;

use segment_adapter::{Codec, LogConfig, TimestampType};

use crate::settings::{
    self, Alteration, Described, Key, Overrides, Source, Sourced, broker, store::Store,
};

pub(crate) use self::keys::KEYS;

mod keys;

/// What topics of the broker itself have that is not the default: as in Kafka.
const INTERNAL: [(&str, &str); 2] = [
    ("cleanup.policy", "compact"),
    ("segment.bytes", "104857600"),
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
            let key =
                keys::find(&name).ok_or_else(|| format!("unknown topic config name: {name}"))?;
            let value = value.ok_or_else(|| format!("null value not supported for: {name}"))?;
            let value = key.checked(&value)?;
            if checked.insert(name.clone(), value).is_some() {
                return Err(format!("{name} is given twice"));
            }
        }
        let config = Self { overrides: checked };
        config.log().validate().map_err(|error| error.to_string())?;
        Ok(config)
    }

    /// That of a topic that belongs to the broker itself: every setting is said, so that none of brokers reaches it. Its
    /// log is state: it must load again whatever an operator sets for topics of clients.
    pub(crate) fn internal() -> Self {
        let said = KEYS.iter().filter(|key| key.broker_name.is_some());
        let mut overrides: BTreeMap<_, _> = said
            .map(|key| (key.name.to_owned(), key.default.to_owned()))
            .collect();
        for (name, value) in INTERNAL {
            overrides.insert(name.to_owned(), value.to_owned());
        }
        Self { overrides }
    }

    /// These values and no others, checked.
    pub(crate) fn of(overrides: Overrides) -> Result<Self, String> {
        let given = overrides
            .into_iter()
            .map(|(name, value)| (name, Some(value)));
        Self::new(given)
    }

    /// With these changes, checked.
    pub(crate) fn altered(
        &self,
        alterations: Vec<Alteration>,
        defaults: &Overrides,
    ) -> Result<Self, String> {
        let key_of = |name: &str| {
            let key = keys::find(name)?;
            let default = defaults.get(name).map_or(key.default, String::as_str);
            Some((&key.kind, default.to_owned()))
        };
        let overrides = settings::alter(self.overrides.clone(), alterations, key_of)?;
        Self::of(overrides)
    }

    /// Every setting, of a topic of this broker.
    pub(crate) fn describe(&self, store: &Store) -> Vec<Described> {
        let describe = |key: &'static Key| {
            let chosen = self.overrides.get(key.name).map(|value| Sourced {
                name: key.name,
                value: value.clone(),
                source: Source::Topic,
            });
            let mut values: Vec<Sourced> = chosen.into_iter().collect();
            if let Some(name) = key.broker_name {
                values.extend(broker::changed(store, name));
            }
            values.extend(key.default_of_broker());
            Described::of(key, values)
        };
        KEYS.iter().map(describe).collect()
    }

    /// What was chosen, by key.
    pub(crate) fn overrides(&self) -> &BTreeMap<String, String> {
        &self.overrides
    }

    /// What the log acts on, if nothing else is said of all topics.
    pub(crate) fn log(&self) -> LogConfig {
        self.log_over(&Overrides::new())
    }

    /// What the log acts on, with what holds for topics that do not say otherwise.
    pub(crate) fn log_over(&self, defaults: &Overrides) -> LogConfig {
        let text = |name: &str| {
            let value = self.overrides.get(name).or_else(|| defaults.get(name));
            value.map(String::as_str)
        };
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
        for key in KEYS {
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
    fn no_setting_of_brokers_reaches_a_topic_of_the_broker_itself() {
        let internal = TopicConfig::internal();
        let stored = internal.overrides().clone();
        assert_eq!(TopicConfig::of(stored).unwrap(), internal);
        let others = [
            ("cleanup.policy", "delete"),
            ("compression.type", "zstd"),
            ("max.message.bytes", "0"),
            ("message.timestamp.type", "LogAppendTime"),
            ("message.timestamp.before.max.ms", "0"),
            ("retention.ms", "1"),
            ("segment.ms", "1"),
            ("delete.retention.ms", "0"),
        ];
        let others = others.map(|(name, value)| (name.to_owned(), value.to_owned()));
        let log = internal.log_over(&others.into());
        assert_eq!(log, internal.log());
        assert!(log.compact && !log.delete);
        assert_eq!(log.segment_bytes, 104_857_600);
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
