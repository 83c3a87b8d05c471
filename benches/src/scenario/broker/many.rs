//! Much at once: thousands of partitions, a thousand connections, a hundred groups. How much memory that takes, whether latency stays what it
//! was, and how soon a broker with all of it serves again.

use std::{
    io::{Read, Write},
    net::TcpStream,
    time::{Duration, Instant},
};

use rdkafka::{
    ClientConfig,
    consumer::{BaseConsumer, Consumer},
};
use serde_json::{Value, json};

use super::{
    STEADY,
    client::{Load, Topic},
    millis,
    server::Server,
};
use crate::{Options, Result, Workplace, report::significant, slices::Slice};

/// Topics that the partitions are divided over.
const TOPICS: usize = 10;
/// Connections that have asked once and stay.
const CONNECTIONS: usize = 1_000;
/// Groups of one member each, and the partitions that each is assigned.
const GROUPS: usize = 100;
const OF_A_GROUP: usize = 4;
/// How long all groups together may take to have their assignments.
const ASSIGNED: Duration = Duration::from_secs(120);
/// Partitions of the topic whose latency is measured.
const MEASURED: usize = 100;
/// As many of a run of a moment.
const FEW: usize = 50;

pub(super) fn run(options: &Options, workplace: &Workplace, load: &Load) -> Result<Value> {
    let is_short = options.seconds < 1.0;
    let few = |count: usize| if is_short { count.min(FEW) } else { count };
    let dir = workplace.join("many");
    let server = Server::ours(options, &dir)?;
    let resident_before = server.resident_mib();
    let mut topic = Topic::create(&server.address, "measured", few(MEASURED))?;
    let length = Duration::from_secs_f64(options.seconds);
    let mut steady =
        |server: &Server| load.produce_steadily(&server.address, &mut topic, length, STEADY);
    steady(&server)?; // warm
    let alone = steady(&server)?;
    let created = Instant::now();
    let partitions = few(options.partitions);
    for number in 0..TOPICS {
        let name = format!("many-{number}");
        let mut topic = Topic::create(&server.address, &name, partitions.div_ceil(TOPICS))?;
        load.produce_to_each(&server.address, &mut topic)?;
    }
    let created = created.elapsed();
    let connections = (0..few(CONNECTIONS))
        .map(|_| connection(&server.address))
        .collect::<Result<Vec<_>>>()?;
    let begun = Instant::now();
    let members = groups(&server.address, few(GROUPS))?;
    let groups_s = seconds(begun);
    let resident_after = server.resident_mib();
    let among_many = steady(&server)?;
    let (resident, peak) = (server.resident_mib(), server.peak_mib());
    drop(connections);
    drop(members);
    let begun = Instant::now();
    server.stop()?;
    let stop_s = seconds(begun);
    let begun = Instant::now();
    let server = Server::ours(options, &dir)?;
    let start_after_stop_s = seconds(begun);
    let start_cpu_s = significant(server.cpu()?.as_secs_f64());
    drop(server);
    let begun = Instant::now();
    let server = Server::ours(options, &dir)?;
    let start_after_kill_s = seconds(begun);
    drop(server);
    Ok(json!({
        "partitions": partitions,
        "connections": few(CONNECTIONS),
        "groups": few(GROUPS),
        "groups_join_s": groups_s,
        "create_and_fill_s": significant(created.as_secs_f64()),
        "resident_mib_before": resident_before,
        "resident_mib_filled": resident_after,
        "resident_mib_under_load": resident,
        "resident_mib_peak": peak,
        "steady_alone": latency(&alone),
        "steady_among_many": latency(&among_many),
        "stop_s": stop_s,
        "start_after_stop_s": start_after_stop_s,
        "start_after_stop_cpu_s": start_cpu_s,
        "start_after_kill_s": start_after_kill_s,
    }))
}

fn seconds(begun: Instant) -> f64 {
    significant(begun.elapsed().as_secs_f64())
}

/// A member for each group, with its assignment.
fn groups(address: &str, count: usize) -> Result<Vec<BaseConsumer>> {
    let topic = Topic::create(address, "of-groups", OF_A_GROUP)?;
    let members = (0..count).map(|number| {
        let member: BaseConsumer = ClientConfig::new()
            .set("bootstrap.servers", address)
            .set("group.id", format!("group-{number}"))
            .create()?;
        member.subscribe(&[topic.name()])?;
        Ok(member)
    });
    let members = members.collect::<Result<Vec<_>>>()?;
    let begun = Instant::now();
    for member in &members {
        while member.assignment()?.count() < OF_A_GROUP {
            if begun.elapsed() > ASSIGNED {
                return Err("groups have no assignments".into());
            }
            // What a member does it does when it is asked for records; there are none.
            if let Some(record) = member.poll(Duration::from_millis(10)) {
                record?;
            }
        }
    }
    Ok(members)
}

fn latency(slice: &Slice) -> Value {
    json!({
        "ack_p50_ms": millis(slice, 0.5),
        "ack_p99_ms": millis(slice, 0.99),
        "ack_p999_ms": millis(slice, 0.999),
    })
}

/// A connection that has asked for the versions and had its answer.
fn connection(address: &str) -> Result<TcpStream> {
    // ApiVersions, version 0, number 1, no client id.
    const REQUEST: [u8; 14] = [0, 0, 0, 10, 0, 18, 0, 0, 0, 0, 0, 1, 255, 255];
    let mut stream = TcpStream::connect(address)?;
    stream.set_read_timeout(Some(Duration::from_secs(10)))?;
    stream.write_all(&REQUEST)?;
    let mut len = [0; 4];
    stream.read_exact(&mut len)?;
    let mut answer = vec![0; usize::try_from(u32::from_be_bytes(len))?];
    stream.read_exact(&mut answer)?;
    Ok(stream)
}
