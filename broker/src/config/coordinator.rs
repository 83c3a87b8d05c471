//! Groups and transactions: where their state is kept, how long, and how much of it there may be.

use serde::{Deserialize, Serialize};

/// The coordinators of groups and transactions. Milliseconds and minutes.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Coordinator {
    /// Partitions of `__consumer_offsets` and of `__transaction_state` when they are made.
    pub partitions: u32,
    /// How long the first rebalance of an empty group waits for more members.
    pub group_initial_rebalance_delay_ms: u64,
    /// Most members of a group.
    pub group_members_max: usize,
    /// Most groups of one partition of `__consumer_offsets`.
    pub groups_per_partition_max: usize,
    /// Shortest session that a member may ask for.
    pub group_session_min_ms: u64,
    /// Longest session that a member may ask for.
    pub group_session_max_ms: u64,
    /// How long a member of a consumer group may be silent.
    pub consumer_session_timeout_ms: u64,
    /// How often a member of a consumer group is asked to send.
    pub consumer_heartbeat_interval_ms: i32,
    /// Most bytes of what a client may note with an offset.
    pub offset_metadata_bytes_max: usize,
    /// How long an offset is kept after its group was last used.
    pub offsets_retention_minutes: u32,
    /// How often offsets are looked through for old ones.
    pub offsets_retention_check_interval_ms: u64,
}

impl Default for Coordinator {
    fn default() -> Self {
        Self {
            partitions: 50,
            group_initial_rebalance_delay_ms: 3_000,
            group_members_max: 10_000,
            groups_per_partition_max: 10_000,
            group_session_min_ms: 6_000,
            group_session_max_ms: 1_800_000,
            consumer_session_timeout_ms: 45_000,
            consumer_heartbeat_interval_ms: 5_000,
            offset_metadata_bytes_max: 4096,
            offsets_retention_minutes: 10_080,
            offsets_retention_check_interval_ms: 600_000,
        }
    }
}

/// An engine's group for each partition, and a task.
const PARTITIONS_LIMIT: u32 = 1_000;
/// A string of the protocol.
const METADATA_LIMIT: usize = 32_000;

impl Coordinator {
    pub(super) fn validate(&self, check: &mut impl FnMut(bool, &'static str, String)) {
        check(
            (1..=PARTITIONS_LIMIT).contains(&self.partitions),
            "coordinator.partitions",
            format!("{} is not within 1..={PARTITIONS_LIMIT}", self.partitions),
        );
        for (key, value) in [
            ("coordinator.group_members_max", self.group_members_max),
            (
                "coordinator.groups_per_partition_max",
                self.groups_per_partition_max,
            ),
        ] {
            check(value > 0, key, "0 would allow none".into());
        }
        check(
            (1..=self.group_session_max_ms).contains(&self.group_session_min_ms),
            "coordinator.group_session_min_ms",
            format!(
                "{} is not within 1..={} (coordinator.group_session_max_ms)",
                self.group_session_min_ms, self.group_session_max_ms
            ),
        );
        let heartbeat_ms = u64::try_from(self.consumer_heartbeat_interval_ms).unwrap_or(0);
        check(
            (1..self.consumer_session_timeout_ms).contains(&heartbeat_ms),
            "coordinator.consumer_heartbeat_interval_ms",
            format!(
                "{} is not within 1..{} (coordinator.consumer_session_timeout_ms)",
                self.consumer_heartbeat_interval_ms, self.consumer_session_timeout_ms
            ),
        );
        check(
            self.offset_metadata_bytes_max <= METADATA_LIMIT,
            "coordinator.offset_metadata_bytes_max",
            format!(
                "{} is above {METADATA_LIMIT}",
                self.offset_metadata_bytes_max
            ),
        );
        check(
            self.offsets_retention_minutes > 0,
            "coordinator.offsets_retention_minutes",
            "0 would keep none".into(),
        );
        check(
            self.offsets_retention_check_interval_ms > 0,
            "coordinator.offsets_retention_check_interval_ms",
            "0 would never rest".into(),
        );
    }
}
