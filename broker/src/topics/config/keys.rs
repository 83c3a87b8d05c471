//! The settings of topics: every key that Kafka has, by name. Numbers are bytes or milliseconds as the key's last word
//! says; ranges and defaults are Kafka's.

use crate::settings::{INT, Key, Kind, LONG};

const fn key(name: &'static str, default: &'static str, kind: Kind, about: &'static str) -> Key {
    Key {
        name,
        default,
        kind,
        broker_name: None,
        broker_unset: false,
        about,
    }
}

impl Key {
    /// The broker's setting of this name has the same value.
    const fn of(mut self, broker_name: &'static str) -> Self {
        self.broker_name = Some(broker_name);
        self
    }

    /// The broker's setting of this name has the same value, if it has any.
    const fn of_unset(mut self, broker_name: &'static str) -> Self {
        self.broker_unset = true;
        self.of(broker_name)
    }
}

/// The key of this name.
pub(crate) fn find(name: &str) -> Option<&'static Key> {
    KEYS.iter().find(|key| key.name == name)
}

pub(crate) static KEYS: &[Key] = &[
    key(
        "cleanup.policy",
        "delete",
        Kind::ListOf(&["compact", "delete"]),
        "What happens to old segments: they are deleted, compacted to the newest record of each key, or both.",
    )
    .of("log.cleanup.policy"),
    key(
        "compression.gzip.level",
        "-1",
        Kind::Number(-1, 9),
        "The level of gzip where compression.type is gzip. Kept; the usual level is used.",
    )
    .of("compression.gzip.level"),
    key(
        "compression.lz4.level",
        "9",
        Kind::Number(1, 17),
        "The level of lz4 where compression.type is lz4. Kept; the usual level is used.",
    )
    .of("compression.lz4.level"),
    key(
        "compression.type",
        "producer",
        Kind::OneOf(&["uncompressed", "zstd", "lz4", "snappy", "gzip", "producer"]),
        "What batches are compressed with; producer keeps what the producer chose.",
    )
    .of("compression.type"),
    key(
        "compression.zstd.level",
        "3",
        Kind::Number(-131_072, 22),
        "The level of zstd where compression.type is zstd. Kept; the usual level is used.",
    )
    .of("compression.zstd.level"),
    key(
        "delete.retention.ms",
        "86400000",
        Kind::Number(0, LONG),
        "How long a deletion can still be read after it was first compacted.",
    )
    .of("log.cleaner.delete.retention.ms"),
    key(
        "file.delete.delay.ms",
        "60000",
        Kind::Number(0, LONG),
        "How long a file stays after its deletion. Kept; segments are no files here.",
    )
    .of("log.segment.delete.delay.ms"),
    key(
        "flush.messages",
        "9223372036854775807",
        Kind::Number(1, LONG),
        "After how many records a file is synced. Kept; every record is durable when it is acknowledged.",
    )
    .of("log.flush.interval.messages"),
    key(
        "flush.ms",
        "9223372036854775807",
        Kind::Number(0, LONG),
        "After what time a file is synced. Kept; every record is durable when it is acknowledged.",
    )
    .of_unset("log.flush.interval.ms"),
    key(
        "follower.replication.throttled.replicas",
        "",
        Kind::List,
        "Followers whose copying is slowed down. Kept; nothing is copied between nodes.",
    ),
    key(
        "index.interval.bytes",
        "4096",
        Kind::Number(0, INT),
        "How dense the index of offsets is. Kept; the index has a density of its own.",
    )
    .of("log.index.interval.bytes"),
    key(
        "leader.replication.throttled.replicas",
        "",
        Kind::List,
        "Leaders whose copying is slowed down. Kept; nothing is copied between nodes.",
    ),
    key(
        "local.retention.bytes",
        "-2",
        Kind::Number(-2, LONG),
        "How much stays local with remote storage. Kept; there is no remote storage beside the bucket.",
    )
    .of("log.local.retention.bytes"),
    key(
        "local.retention.ms",
        "-2",
        Kind::Number(-2, LONG),
        "How long data stays local with remote storage. Kept; there is no remote storage beside the bucket.",
    )
    .of("log.local.retention.ms"),
    key(
        "max.compaction.lag.ms",
        "9223372036854775807",
        Kind::Number(1, LONG),
        "After what time a record is compacted at the latest.",
    )
    .of("log.cleaner.max.compaction.lag.ms"),
    key(
        "max.message.bytes",
        "1048588",
        Kind::Number(0, INT),
        "The largest batch, as it is sent.",
    )
    .of("message.max.bytes"),
    key(
        "message.timestamp.after.max.ms",
        "3600000",
        Kind::Number(0, LONG),
        "How far the time of a record may be ahead of the broker's clock.",
    )
    .of("log.message.timestamp.after.max.ms"),
    key(
        "message.timestamp.before.max.ms",
        "9223372036854775807",
        Kind::Number(0, LONG),
        "How far the time of a record may be behind the broker's clock.",
    )
    .of("log.message.timestamp.before.max.ms"),
    key(
        "message.timestamp.type",
        "CreateTime",
        Kind::OneOf(&["CreateTime", "LogAppendTime"]),
        "Whose time a record has: its producer's, or that of its append.",
    )
    .of("log.message.timestamp.type"),
    key(
        "min.cleanable.dirty.ratio",
        "0.5",
        Kind::Ratio,
        "How much of a log must be new before it is compacted again.",
    )
    .of("log.cleaner.min.cleanable.ratio"),
    key(
        "min.compaction.lag.ms",
        "0",
        Kind::Number(0, LONG),
        "How long a record is not compacted.",
    )
    .of("log.cleaner.min.compaction.lag.ms"),
    key(
        "min.insync.replicas",
        "1",
        Kind::Number(1, INT),
        "How many replicas must have a record. Kept; durability is the log's and the bucket's.",
    )
    .of("min.insync.replicas"),
    key(
        "preallocate",
        "false",
        Kind::Bool,
        "Whether files are made in full at once. Kept; segments are no files here.",
    )
    .of("log.preallocate"),
    key(
        "remote.log.copy.disable",
        "false",
        Kind::Bool,
        "Whether copying to remote storage is off. Kept; every segment is in the bucket.",
    ),
    key(
        "remote.log.delete.on.disable",
        "false",
        Kind::Bool,
        "Whether remote data goes when remote storage is turned off. Kept; it cannot be turned on.",
    ),
    key(
        "remote.storage.enable",
        "false",
        // Every segment is in the bucket already.
        Kind::OneOf(&["false"]),
        "Whether segments are also kept in remote storage. They are in the bucket in any case.",
    ),
    key(
        "retention.bytes",
        "-1",
        Kind::Number(-1, LONG),
        "How large a partition may grow before old segments are deleted; -1 for no limit.",
    )
    .of("log.retention.bytes"),
    key(
        "retention.ms",
        "604800000",
        Kind::Number(-1, LONG),
        "After what time old segments are deleted; -1 for never.",
    )
    .of_unset("log.retention.ms"),
    key(
        "segment.bytes",
        "1073741824",
        Kind::Number(1_048_576, INT),
        "How large a segment may grow.",
    )
    .of("log.segment.bytes"),
    key(
        "segment.index.bytes",
        "10485760",
        Kind::Number(4, INT),
        "How large the index of a segment may grow. Kept; the index has a bound of its own.",
    )
    .of("log.index.size.max.bytes"),
    key(
        "segment.jitter.ms",
        "0",
        Kind::Number(0, LONG),
        "Up to how much segment.ms is shortened at random.",
    )
    .of_unset("log.roll.jitter.ms"),
    key(
        "segment.ms",
        "604800000",
        Kind::Number(1, LONG),
        "After what time of its records a segment is closed.",
    )
    .of_unset("log.roll.ms"),
    key(
        "unclean.leader.election.enable",
        "false",
        Kind::Bool,
        "Whether a replica that misses records may lead. Kept; none ever misses any.",
    )
    .of("unclean.leader.election.enable"),
];
