//! The same as text for Prometheus, format 0.0.4: totals and APIs, no series per partition.

use std::fmt::Write;

use super::snapshot::{BudgetRow, RequestRow, Snapshot};
use crate::metrics::BOUNDS_MICROS;

/// What the answer says of itself.
pub(super) const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// Every metric begins so.
const PREFIX: &str = "s3stream_";

#[derive(Clone, Copy)]
enum Kind {
    Counter,
    Gauge,
}

/// The text.
pub(super) fn render(of: &Snapshot) -> String {
    let mut text = Text::default();
    node_and_topics(of, &mut text);
    log_and_bucket(of, &mut text);
    clients(of, &mut text);
    text.requests(&of.requests);
    let process = &of.process;
    let memory = process.resident_bytes;
    text.gauge("process_resident_memory_bytes", "Resident memory.", memory);
    text.counter(
        "process_cpu_seconds_total",
        "Processor time.",
        process.cpu_seconds,
    );
    text.gauge("process_threads", "Threads.", process.threads);
    text.0
}

fn node_and_topics(of: &Snapshot, text: &mut Text) {
    let up = u64::from(of.node.problem.is_empty());
    text.gauge("up", "Whether the engine can serve.", up);
    text.gauge("uptime_seconds", "Since the start.", of.node.uptime_s);
    let topics = &of.topics;
    text.gauge("topics", "Topics.", topics.topics);
    text.gauge("partitions", "Partitions.", topics.partitions);
    text.gauge(
        "partitions_closed",
        "Partitions whose log is not open.",
        topics.closed,
    );
    text.gauge("segments", "Segments of all partitions.", topics.segments);
    text.gauge(
        "partition_bytes",
        "Bytes that all partitions keep.",
        topics.bytes,
    );
    let waiting = topics.waiting;
    text.gauge(
        "waiting_offsets",
        "Offsets appended and not durable yet.",
        waiting,
    );
    let groups = &of.group_totals;
    text.gauge("groups", "Consumer groups.", groups.groups);
    text.gauge("group_members", "Members of all groups.", groups.members);
    let lag = "Offsets between what groups have committed and the high watermarks.";
    text.gauge("group_lag", lag, groups.lag);
    let lag = "That of the group that is the furthest behind.";
    text.gauge("group_lag_max", lag, groups.lag_max);
}

fn log_and_bucket(of: &Snapshot, text: &mut Text) {
    let (log, store, reads) = (&of.log, &of.store, &of.reads);
    text.gauge(
        "log_used_bytes",
        "Used of the write-ahead log.",
        log.used_bytes,
    );
    text.gauge(
        "log_capacity_bytes",
        "Size of the write-ahead log.",
        log.capacity_bytes,
    );
    let lag = log.upload_lag_bytes;
    text.gauge(
        "upload_lag_bytes",
        "Acknowledged and not in the bucket yet.",
        lag,
    );
    text.gauge("log_cache_bytes", "Records in memory.", log.cache_bytes);
    text.gauge(
        "log_cache_bytes_max",
        "Most records in memory.",
        log.cache_bytes_max,
    );
    let fetches = [
        ("log_cache", reads.from_log_cache),
        ("objects", reads.from_objects),
    ];
    text.counters(
        "fetches_total",
        "Fetches by where the records were.",
        "from",
        &fetches,
    );
    let blocks = [("hit", reads.block_hits), ("miss", reads.block_misses)];
    text.counters(
        "blocks_total",
        "Blocks that fetches of objects wanted.",
        "cache",
        &blocks,
    );
    let requests = [
        ("put", store.put),
        ("get", store.get),
        ("list", store.list),
        ("delete", store.delete),
    ];
    text.counters(
        "store_requests_total",
        "Requests to the bucket.",
        "kind",
        &requests,
    );
    let bytes = [("put", store.put_bytes), ("get", store.get_bytes)];
    text.counters(
        "store_bytes_total",
        "Bytes to and from the bucket.",
        "kind",
        &bytes,
    );
    let price = store.price_usd;
    text.counter(
        "store_price_usd_total",
        "Cost of these requests at S3's list price.",
        price,
    );
}

fn clients(of: &Snapshot, text: &mut Text) {
    let connections = &of.connections;
    text.gauge("connections", "Open connections.", connections.open);
    text.gauge("connections_max", "Most open connections.", connections.max);
    let ways = [
        ("accepted", connections.accepted),
        ("refused", connections.refused),
        ("broken", connections.broken),
    ];
    text.counters(
        "connections_total",
        "Connections by what became of them.",
        "what",
        &ways,
    );
    let budgets = |bytes: fn(&BudgetRow) -> u64| -> Vec<_> {
        let rows = of.budgets.iter();
        rows.map(|row| (row.name, bytes(row))).collect()
    };
    let (used, max) = (budgets(|row| row.used_bytes), budgets(|row| row.max_bytes));
    let what = "Memory that clients make the broker hold.";
    text.many("budget_used_bytes", Kind::Gauge, what, "of", &used);
    text.many(
        "budget_max_bytes",
        Kind::Gauge,
        "The most of it.",
        "of",
        &max,
    );
}

#[derive(Default)]
struct Text(String);

impl Text {
    fn head(&mut self, name: &str, kind: &str, help: &str) {
        self.line(format_args!("# HELP {PREFIX}{name} {help}"));
        self.line(format_args!("# TYPE {PREFIX}{name} {kind}"));
    }

    fn line(&mut self, line: std::fmt::Arguments<'_>) {
        writeln!(self.0, "{line}").expect("a string takes everything");
    }

    fn gauge(&mut self, name: &str, help: &str, value: impl std::fmt::Display) {
        self.one(name, Kind::Gauge, help, value);
    }

    fn counter(&mut self, name: &str, help: &str, value: impl std::fmt::Display) {
        self.one(name, Kind::Counter, help, value);
    }

    fn counters(&mut self, name: &str, help: &str, label: &str, values: &[(&str, u64)]) {
        self.many(name, Kind::Counter, help, label, values);
    }

    fn one(&mut self, name: &str, kind: Kind, help: &str, value: impl std::fmt::Display) {
        self.head(name, kind.name(), help);
        self.line(format_args!("{PREFIX}{name} {value}"));
    }

    fn many(&mut self, name: &str, kind: Kind, help: &str, label: &str, values: &[(&str, u64)]) {
        self.head(name, kind.name(), help);
        for (of, value) in values {
            self.line(format_args!("{PREFIX}{name}{{{label}=\"{of}\"}} {value}"));
        }
    }

    fn requests(&mut self, rows: &[RequestRow]) {
        let name = "request_duration_seconds";
        self.head(
            name,
            "histogram",
            "Requests by API, from the last byte in to the last byte out.",
        );
        for row in rows {
            let api = &row.api;
            let mut below = 0;
            for (count, bound) in row.classes.iter().zip(BOUNDS_MICROS) {
                below += count;
                let bound = bound as f64 / 1e6;
                self.line(format_args!(
                    "{PREFIX}{name}_bucket{{api=\"{api}\",le=\"{bound}\"}} {below}"
                ));
            }
            let all = row.requests;
            self.line(format_args!(
                "{PREFIX}{name}_bucket{{api=\"{api}\",le=\"+Inf\"}} {all}"
            ));
            self.line(format_args!(
                "{PREFIX}{name}_sum{{api=\"{api}\"}} {}",
                row.seconds
            ));
            self.line(format_args!("{PREFIX}{name}_count{{api=\"{api}\"}} {all}"));
        }
        type Bytes = fn(&RequestRow) -> u64;
        let directions: [(&str, &str, Bytes); 2] = [
            ("request_bytes_total", "Bytes of requests.", |row| {
                row.bytes_in
            }),
            ("response_bytes_total", "Bytes of answers.", |row| {
                row.bytes_out
            }),
        ];
        for (name, help, bytes) in directions {
            let values: Vec<_> = rows
                .iter()
                .map(|row| (row.api.as_str(), bytes(row)))
                .collect();
            self.many(name, Kind::Counter, help, "api", &values);
        }
    }
}

impl Kind {
    fn name(self) -> &'static str {
        match self {
            Self::Counter => "counter",
            Self::Gauge => "gauge",
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{collections::BTreeSet, time::Duration};

    use kafka_protocol::messages::ApiKey;

    use super::*;
    use crate::node::testing;

    /// Every line is as the format says: a comment, or a name that was introduced, labels and a number.
    #[tokio::test]
    async fn every_line_is_of_the_format_and_belongs_to_a_metric_that_was_introduced() {
        let node = testing::node().await;
        for micros in [1, 300, 99_000_000] {
            node.metrics
                .done(ApiKey::Produce, Duration::from_micros(micros), 10, 20);
        }
        let text = render(&Snapshot::of(&node, 7.0).await);
        let mut introduced = BTreeSet::new();
        let mut samples = BTreeSet::new();
        for line in text.lines() {
            if let Some(rest) = line.strip_prefix("# TYPE ") {
                let (name, kind) = rest.split_once(' ').unwrap();
                assert!(["counter", "gauge", "histogram"].contains(&kind), "{line}");
                assert!(introduced.insert(name.to_owned()), "twice: {line}");
                continue;
            }
            if line.starts_with("# HELP ") {
                continue;
            }
            let (series, value) = line.rsplit_once(' ').unwrap();
            value.parse::<f64>().unwrap();
            assert!(samples.insert(series.to_owned()), "twice: {line}");
            let name = series.split('{').next().unwrap();
            let of_histogram = ["_bucket", "_sum", "_count"]
                .iter()
                .find_map(|end| name.strip_suffix(end))
                .filter(|base| introduced.contains(*base));
            assert!(introduced.contains(of_histogram.unwrap_or(name)), "{line}");
        }
        let bucket = |bound: &str| {
            format!("s3stream_request_duration_seconds_bucket{{api=\"Produce\",le=\"{bound}\"}} ")
        };
        for (bound, count) in [("0.00025", 1), ("0.0005", 2), ("10", 2), ("+Inf", 3)] {
            assert!(
                text.contains(&format!("{}{count}\n", bucket(bound))),
                "{bound}: {text}"
            );
        }
        assert!(text.ends_with('\n'));
    }
}
