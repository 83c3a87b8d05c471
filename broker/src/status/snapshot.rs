//! What the page shows, looked up at one moment.
//!
//! `rows of partitions <= ROWS_MAX`, however many there are: totals say the rest. A look takes a lock of each log for a moment
//! and gives others their turn in between.

use s3stream::store::Requests;
use serde::Serialize;

use super::process;
use crate::{
    metrics::{ApiCounts, CLASSES},
    node::Node,
    topics::Topics,
};

/// Most rows of a table.
pub(super) const ROWS_MAX: usize = 50;
/// Partitions that are looked at before others have their turn.
const TURN: usize = 256;

/// US dollars for a thousand PUTs or LISTs, and for a thousand GETs: S3 Standard's list price in us-east-1. Deletes are free.
const USD_PER_1000_PUT: f64 = 0.005;
const USD_PER_1000_GET: f64 = 0.0004;

/// Everything, as `/status.json` has it.
#[derive(Clone, Default, Debug, Serialize)]
pub(super) struct Snapshot {
    pub(super) node: OfNode,
    pub(super) topics: Totals,
    pub(super) partitions: Vec<PartitionRow>,
    pub(super) group_totals: GroupTotals,
    pub(super) groups: Vec<GroupRow>,
    pub(super) log: OfLog,
    pub(super) reads: OfReads,
    pub(super) store: OfStore,
    pub(super) connections: OfConnections,
    pub(super) budgets: Vec<BudgetRow>,
    pub(super) requests: Vec<RequestRow>,
    pub(super) process: process::Usage,
}

#[derive(Clone, Default, Debug, Serialize)]
pub(super) struct OfNode {
    pub(super) version: &'static str,
    pub(super) cluster: String,
    pub(super) id: i32,
    pub(super) uptime_s: f64,
    /// Empty when it can serve.
    pub(super) problem: String,
}

/// Of all topics together.
#[derive(Clone, Default, Debug, Serialize)]
pub(super) struct Totals {
    pub(super) topics: usize,
    pub(super) partitions: usize,
    /// Partitions whose log is not open.
    pub(super) closed: usize,
    pub(super) segments: usize,
    pub(super) bytes: u64,
    /// Offsets between the ends of logs and what is durable of them.
    pub(super) waiting: u64,
}

/// A partition with much that waits, or much that is kept.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub(super) struct PartitionRow {
    pub(super) topic: String,
    pub(super) partition: i32,
    pub(super) open: bool,
    pub(super) log_start: i64,
    pub(super) high_watermark: i64,
    /// Offsets that were appended and are not durable yet.
    pub(super) waiting: u64,
    pub(super) segments: usize,
    pub(super) bytes: u64,
}

/// Of all groups together.
#[derive(Clone, Default, Debug, Serialize)]
pub(super) struct GroupTotals {
    pub(super) groups: usize,
    pub(super) members: usize,
    /// Offsets between what was committed and the high watermarks.
    pub(super) lag: u64,
    /// That of the group that is the furthest behind.
    pub(super) lag_max: u64,
}

/// A group that is far behind.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub(super) struct GroupRow {
    pub(super) group: String,
    pub(super) state: &'static str,
    pub(super) members: usize,
    /// Partitions that it has committed an offset of.
    pub(super) partitions: usize,
    pub(super) lag: u64,
}

/// The write-ahead log, and what it owes to the bucket.
#[derive(Clone, Default, Debug, Serialize)]
pub(super) struct OfLog {
    pub(super) used_bytes: u64,
    pub(super) capacity_bytes: u64,
    /// Acknowledged and not in the bucket yet.
    pub(super) upload_lag_bytes: u64,
    pub(super) cache_bytes: u64,
    pub(super) cache_bytes_max: u64,
}

#[derive(Clone, Default, Debug, Serialize)]
pub(super) struct OfReads {
    pub(super) from_log_cache: u64,
    pub(super) from_objects: u64,
    pub(super) block_hits: u64,
    pub(super) block_misses: u64,
}

/// Requests to the bucket since the start.
#[derive(Clone, Default, Debug, Serialize)]
pub(super) struct OfStore {
    pub(super) put: u64,
    pub(super) get: u64,
    pub(super) list: u64,
    pub(super) delete: u64,
    pub(super) put_bytes: u64,
    pub(super) get_bytes: u64,
    /// What they cost at the list price.
    pub(super) price_usd: f64,
}

#[derive(Clone, Default, Debug, Serialize)]
pub(super) struct OfConnections {
    pub(super) open: usize,
    pub(super) max: usize,
    pub(super) accepted: u64,
    pub(super) refused: u64,
    pub(super) broken: u64,
}

/// A share of memory that all connections have together.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub(super) struct BudgetRow {
    pub(super) name: &'static str,
    pub(super) used_bytes: u64,
    pub(super) max_bytes: u64,
}

#[derive(Clone, PartialEq, Debug, Serialize)]
pub(super) struct RequestRow {
    pub(super) api: String,
    pub(super) requests: u64,
    pub(super) mean_ms: f64,
    pub(super) p50_ms: f64,
    pub(super) p99_ms: f64,
    pub(super) seconds: f64,
    pub(super) bytes_in: u64,
    pub(super) bytes_out: u64,
    /// By the bounds of [`BOUNDS_MICROS`](crate::metrics::BOUNDS_MICROS).
    #[serde(skip)]
    pub(super) classes: [u64; CLASSES],
}

impl Snapshot {
    /// Looks.
    pub(super) async fn of(node: &Node, uptime_s: f64) -> Self {
        let (topics, partitions) = partitions(&node.topics).await;
        let (group_totals, groups) = groups(node).await;
        let engine = node.topics.engine();
        let usage = engine.usage();
        let reads = engine.reads();
        let counted = &node.metrics.connections;
        Self {
            node: OfNode {
                version: env!("CARGO_PKG_VERSION"),
                cluster: node.cluster_id.clone(),
                id: node.id(),
                uptime_s,
                problem: engine
                    .health()
                    .err()
                    .map_or(String::new(), |error| error.to_string()),
            },
            topics,
            partitions,
            group_totals,
            groups,
            log: OfLog {
                used_bytes: usage.log_used_bytes,
                capacity_bytes: usage.log_capacity_bytes,
                upload_lag_bytes: usage.unsettled_bytes,
                cache_bytes: usage.held_bytes,
                cache_bytes_max: node.config.engine.log_cache_bytes,
            },
            reads: OfReads {
                from_log_cache: reads.from_log_cache,
                from_objects: reads.from_objects,
                block_hits: reads.block_hits,
                block_misses: reads.block_misses,
            },
            store: OfStore::of(engine.requests()),
            connections: OfConnections {
                open: node.admission.open(),
                max: node.config.limits.connections_max,
                accepted: counted.accepted.get(),
                refused: counted.refused.get(),
                broken: counted.broken.get(),
            },
            budgets: node
                .budget
                .used()
                .map(|(name, used, max)| BudgetRow {
                    name,
                    used_bytes: used as u64,
                    max_bytes: max as u64,
                })
                .to_vec(),
            requests: node.metrics.apis().iter().map(RequestRow::of).collect(),
            process: process::Usage::now(),
        }
    }
}

/// The totals of all partitions, and the rows of those with the most that waits, then the most that is kept.
async fn partitions(topics: &Topics) -> (Totals, Vec<PartitionRow>) {
    let mut totals = Totals::default();
    let mut rows: Vec<PartitionRow> = Vec::new();
    let mut seen = 0;
    for topic in topics.all() {
        totals.topics += 1;
        for partition in &topic.partitions {
            let mut row = PartitionRow {
                topic: topic.name.clone(),
                partition: partition.index,
                open: false,
                log_start: 0,
                high_watermark: 0,
                waiting: 0,
                segments: 0,
                bytes: 0,
            };
            if let Some(leading) = partition.current() {
                let offsets = leading.log.offsets();
                row.open = true;
                row.log_start = offsets.log_start;
                row.high_watermark = offsets.hw;
                row.waiting = offsets.leo.saturating_sub(offsets.hw).max(0) as u64;
                row.segments = leading.log.segment_count();
                // Of a log whose attributes cannot be read the size is not known.
                row.bytes = leading.log.size().unwrap_or(0);
            }
            totals.add(&row);
            rows.push(row);
            seen += 1;
            if seen % TURN == 0 {
                keep_largest(&mut rows);
                tokio::task::yield_now().await;
            }
        }
    }
    keep_largest(&mut rows);
    (totals, rows)
}

/// The totals of all groups, and the rows of those that are the furthest behind. What is being loaded is left out.
async fn groups(node: &Node) -> (GroupTotals, Vec<GroupRow>) {
    let lag = |topic: &str, partition: i32, committed: i64| {
        let topic = node.topics.get(topic);
        let partition = topic.and_then(|topic| topic.partition(partition).cloned());
        let leading = partition.and_then(|partition| partition.current());
        let behind = leading.map_or(0, |leading| leading.log.offsets().hw - committed);
        behind.max(0) as u64
    };
    let mut totals = GroupTotals::default();
    let mut rows: Vec<GroupRow> = Vec::new();
    for index in 0..node.groups.partitions() {
        let standings = node
            .groups
            .ask_at(index, |groups, _, _| groups.standings(lag));
        for standing in standings.answer().await.unwrap_or_default() {
            totals.groups += 1;
            totals.members += standing.members;
            totals.lag += standing.lag;
            totals.lag_max = totals.lag_max.max(standing.lag);
            rows.push(GroupRow {
                group: standing.id,
                state: standing.state,
                members: standing.members,
                partitions: standing.partitions,
                lag: standing.lag,
            });
        }
        rows.sort_by(|one, other| {
            let by_lag = other.lag.cmp(&one.lag);
            by_lag.then_with(|| one.group.cmp(&other.group))
        });
        rows.truncate(ROWS_MAX);
        tokio::task::yield_now().await;
    }
    (totals, rows)
}

impl Totals {
    fn add(&mut self, row: &PartitionRow) {
        self.partitions += 1;
        self.closed += usize::from(!row.open);
        self.segments += row.segments;
        self.bytes += row.bytes;
        self.waiting += row.waiting;
    }
}

/// Closed ones first, then by what waits and what is kept; ties by name.
fn keep_largest(rows: &mut Vec<PartitionRow>) {
    rows.sort_by(|one, other| {
        let by_size = |row: &PartitionRow| (!row.open, row.waiting, row.bytes);
        let by_name = |row: &PartitionRow| (row.topic.clone(), row.partition);
        by_size(other)
            .cmp(&by_size(one))
            .then_with(|| by_name(one).cmp(&by_name(other)))
    });
    rows.truncate(ROWS_MAX);
}

impl OfStore {
    fn of(sent: Requests) -> Self {
        let put = (sent.put + sent.list) as f64 / 1000.0 * USD_PER_1000_PUT;
        let get = sent.get as f64 / 1000.0 * USD_PER_1000_GET;
        Self {
            put: sent.put,
            get: sent.get,
            list: sent.list,
            delete: sent.delete,
            put_bytes: sent.put_bytes,
            get_bytes: sent.get_bytes,
            price_usd: put + get,
        }
    }
}

impl RequestRow {
    fn of(counts: &ApiCounts) -> Self {
        let requests = counts.requests();
        let ms = |micros: u64| micros as f64 / 1000.0;
        Self {
            api: format!("{:?}", counts.key),
            requests,
            mean_ms: ms(counts.micros) / requests.max(1) as f64,
            p50_ms: ms(counts.quantile_micros(0.5)),
            p99_ms: ms(counts.quantile_micros(0.99)),
            seconds: counts.micros as f64 / 1e6,
            bytes_in: counts.bytes_in,
            bytes_out: counts.bytes_out,
            classes: counts.classes,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::node::testing;

    #[test]
    fn the_price_is_the_list_price() {
        let of = OfStore::of(Requests {
            put: 1000,
            get: 1000,
            list: 1000,
            delete: 1000,
            ..Requests::default()
        });
        assert!((of.price_usd - 0.0104).abs() < 1e-12, "{of:?}");
    }

    #[tokio::test]
    async fn many_partitions_are_totals_and_a_bounded_number_of_rows() {
        let node = testing::node().await;
        let config = crate::topics::config::TopicConfig::new([]).unwrap();
        let many = TURN as u32 * 2 + 7;
        node.topics
            .create("many", many, config.clone())
            .await
            .unwrap();
        let large = node.topics.create("large", 1, config).await.unwrap();
        let leading = large.partitions[0].current().unwrap();
        let batch = segment_adapter::BatchBuilder::new(segment_adapter::Codec::None)
            .record(1, None, Some(b"v"))
            .build()
            .unwrap();
        let appended = leading.log.append_as_leader(batch, leading.epoch).unwrap();
        appended.durable().await.unwrap();
        let snapshot = Snapshot::of(&node, 1.0).await;
        assert_eq!(snapshot.topics.topics, 2);
        assert_eq!(snapshot.topics.partitions, many as usize + 1);
        assert_eq!(snapshot.topics.closed, 0);
        assert_eq!(snapshot.partitions.len(), ROWS_MAX);
        assert_eq!(snapshot.partitions[0].topic, "large");
        assert_eq!(snapshot.partitions[0].high_watermark, 1);
        assert!(serde_json::to_string(&snapshot).unwrap().len() < 32 << 10);
    }
}
