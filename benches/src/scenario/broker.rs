//! The broker beside Apache Kafka: the same client, on the same cores, in turns.
//!
//! Every server is a process of its own, so that its processor time and memory are its own. Kafka runs twice, flushing every
//! batch as this broker does and as it comes; without `--kafka` this broker runs alone. A slice is one server's turn: produce for
//! a while with acks=all, then fetch what was produced. Then latency at a steady rate, then many connections and partitions.

mod client;
mod many;
mod server;

pub use self::server::SERVE;

use std::time::Duration;

use serde_json::{Value, json};

use self::{
    client::{Load, Topic},
    server::Server,
};
use crate::{
    Options, Report, Result, Workplace,
    baseline::Baseline,
    progress::Progress,
    report::{Details, Findings, significant},
    slices::{self, GIB, MIB, Pair, Slice},
};

/// Partitions of the topics that are measured.
const PARTITIONS: [usize; 2] = [1, 100];
/// The steady rate at which latency is measured, in bytes per second.
const STEADY: f64 = 20.0 * MIB;
/// What is left over from a slice may end before the next begins.
const SETTLE: Duration = Duration::from_millis(500);

/// One server's turn.
#[derive(Clone, Debug, Default)]
struct Turn {
    produce: Slice,
    fetch: Slice,
    /// Of the server, for both.
    server_cpu: Duration,
}

impl Turn {
    fn cpu_s_per_gib(&self) -> Option<f64> {
        let gib = self.produce.bytes as f64 / GIB;
        (gib > 0.0).then(|| self.server_cpu.as_secs_f64() / gib)
    }
}

pub(crate) fn run(options: &Options, workplace: &Workplace) -> Result<Report> {
    let progress = Progress::new(options, 4 * PARTITIONS.len() * options.slices);
    progress.say("starting");
    let mut details = Details::new();
    let mut pairs = Vec::new();
    let servers = server::all(options, workplace)?;
    let load = Load::new(options.record_bytes);
    for partitions in PARTITIONS {
        let turns = in_turns(options, &servers, &load, partitions, &progress)?;
        details.insert(
            if partitions == 1 {
                "partitions_1"
            } else {
                "partitions_100"
            },
            compared(&servers, &turns),
        );
        if let [ours, flushing, ..] = &turns[..] {
            pairs = ours
                .iter()
                .zip(flushing)
                .map(|(ours, kafka)| Pair {
                    engine: ours.produce.clone(),
                    baseline: kafka.produce.clone(),
                })
                .collect();
        } else {
            pairs = alone(&turns);
        }
    }
    for partitions in PARTITIONS {
        progress.say(format!("steady, {partitions} partitions"));
        details.insert(
            if partitions == 1 {
                "steady_1"
            } else {
                "steady_100"
            },
            steady(options, &servers, &load, partitions)?,
        );
    }
    let peaks = servers
        .iter()
        .map(|server| (server.name, server.peak_mib()));
    details.insert("peak_rss_mib_by_server", peaks.collect::<Value>());
    drop(servers);
    progress.say("many partitions");
    details.insert("many", many::run(options, workplace, &load)?);
    let has_kafka = options.kafka.is_some();
    Ok(Report::new(
        options,
        Findings {
            pairs,
            baseline: Baseline {
                kind: if has_kafka { "kafka" } else { "none" },
                what: "Apache Kafka flushing every batch: produce, 100 partitions".to_owned(),
                ..Baseline::default()
            },
            details,
            ..Findings::default()
        },
    ))
}

fn alone(turns: &[Vec<Turn>]) -> Vec<Pair> {
    let of_ours = turns.iter().flatten();
    of_ours
        .map(|turn| Pair {
            engine: turn.produce.clone(),
            baseline: Slice::default(),
        })
        .collect()
}

/// Turn by turn, each server's turns together.
fn in_turns(
    options: &Options,
    servers: &[Server],
    load: &Load,
    partitions: usize,
    progress: &Progress,
) -> Result<Vec<Vec<Turn>>> {
    let length = options.slice();
    let mut topics = Vec::new();
    for server in servers {
        progress.say(format!("warming up {}", server.name));
        let mut topic = Topic::create(&server.address, &format!("of-{partitions}"), partitions)?;
        turn(server, &mut topic, load, length)?;
        topics.push(topic);
    }
    let mut turns = vec![Vec::new(); servers.len()];
    for _ in 0..options.slices {
        for ((server, topic), turns) in servers.iter().zip(&mut topics).zip(&mut turns) {
            progress.say(format!("{}, {partitions} partitions", server.name));
            turns.push(turn(server, topic, load, length)?);
            progress.step();
        }
    }
    for (server, topic) in servers.iter().zip(&topics) {
        topic.delete(&server.address)?;
    }
    Ok(turns)
}

fn turn(server: &Server, topic: &mut Topic, load: &Load, length: Duration) -> Result<Turn> {
    let cpu = server.cpu()?;
    let before = topic.ends().to_vec();
    let produce = load.produce(&server.address, topic, length)?;
    let fetch = load.fetch(&server.address, topic, &before)?;
    std::thread::sleep(SETTLE);
    Ok(Turn {
        produce,
        fetch,
        server_cpu: server.cpu()?.saturating_sub(cpu),
    })
}

/// What each server did, and the medians over the turns of ours / theirs.
fn compared(servers: &[Server], turns: &[Vec<Turn>]) -> Value {
    let mut all = json!({});
    for (server, turns) in servers.iter().zip(turns) {
        let produce = slices::total(turns.iter().map(|turn| &turn.produce));
        let fetch = slices::total(turns.iter().map(|turn| &turn.fetch));
        let cpu: Vec<f64> = turns.iter().filter_map(Turn::cpu_s_per_gib).collect();
        all[server.name] = json!({
            "produce_mib_s": produce.mib_per_s().map(significant),
            "fetch_mib_s": fetch.mib_per_s().map(significant),
            "ack_p50_ms": millis(&produce, 0.5),
            "ack_p99_ms": millis(&produce, 0.99),
            "server_cpu_s_per_gib": slices::median(cpu).map(significant),
            "client_cpu_s_per_gib": (produce.bytes > 0).then(|| {
                let cpu = produce.cpu + fetch.cpu;
                significant(cpu.as_secs_f64() / (produce.bytes as f64 / GIB))
            }),
        });
    }
    let Some((ours, others)) = turns.split_first() else {
        return all;
    };
    for (server, theirs) in servers.iter().skip(1).zip(others) {
        let ratio = |figure: fn(&Turn) -> Option<f64>| {
            let ratios = ours.iter().zip(theirs).filter_map(|(ours, theirs)| {
                let (ours, theirs) = (figure(ours)?, figure(theirs)?);
                (theirs > 0.0).then(|| ours / theirs)
            });
            slices::median(ratios.collect()).map(significant)
        };
        all[format!("ratio_to_{}", server.name)] = json!({
            "produce": ratio(|turn| turn.produce.mib_per_s()),
            "fetch": ratio(|turn| turn.fetch.mib_per_s()),
            "server_cpu_per_gib": ratio(Turn::cpu_s_per_gib),
        });
    }
    all
}

/// Latency at a steady rate, one server after another, as often as there are slices.
fn steady(options: &Options, servers: &[Server], load: &Load, partitions: usize) -> Result<Value> {
    let mut topics = Vec::new();
    for server in servers {
        let name = format!("steady-{partitions}");
        topics.push(Topic::create(&server.address, &name, partitions)?);
    }
    let mut turns = vec![Vec::new(); servers.len()];
    for _ in 0..options.slices {
        for ((server, topic), turns) in servers.iter().zip(&mut topics).zip(&mut turns) {
            let cpu = server.cpu()?;
            let produce = load.produce_steadily(&server.address, topic, options.slice(), STEADY)?;
            turns.push((produce, server.cpu()?.saturating_sub(cpu)));
        }
    }
    for (server, topic) in servers.iter().zip(&topics) {
        topic.delete(&server.address)?;
    }
    let mut all = json!({});
    for (server, turns) in servers.iter().zip(&turns) {
        let total = slices::total(turns.iter().map(|(produce, _)| produce));
        let cpu: Duration = turns.iter().map(|(_, cpu)| *cpu).sum();
        all[server.name] = json!({
            "mib_s": total.mib_per_s().map(significant),
            "ack_p50_ms": millis(&total, 0.5),
            "ack_p99_ms": millis(&total, 0.99),
            "ack_p999_ms": millis(&total, 0.999),
            "server_cores": significant(cpu.as_secs_f64() / total.elapsed.as_secs_f64().max(1e-9)),
        });
    }
    let [ours, others @ ..] = &turns[..] else {
        return Ok(all);
    };
    for (server, theirs) in servers.iter().skip(1).zip(others) {
        let pairs: Vec<Pair> = ours
            .iter()
            .zip(theirs)
            .map(|((engine, _), (baseline, _))| Pair {
                engine: engine.clone(),
                baseline: baseline.clone(),
            })
            .collect();
        let ratio = |at| slices::median_ratio(&pairs, |slice| slice.latency.micros(at));
        all[format!("ratio_to_{}", server.name)] = json!({
            "ack_p50": ratio(0.5).map(significant),
            "ack_p99": ratio(0.99).map(significant),
        });
    }
    Ok(all)
}

fn millis(slice: &Slice, quantile: f64) -> Option<f64> {
    let micros = slice.latency.micros(quantile)?;
    Some(significant(micros / 1000.0))
}
