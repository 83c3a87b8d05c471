//! Many partitions on one node: what an idle one costs, and how fast they are opened after a crash.
//!
//! Each has a batch that was uploaded and one that the crash left in the write-ahead log. Opening counts from the start of
//! the engine: the log is recovered, then every partition is opened, some at a time.

use std::{sync::Arc, time::Instant};

use s3stream::{Config, Engine, GroupId};
use segment_adapter::{KafkaLog, LogConfig};
use tokio::task::JoinSet;

use super::{Standing, batch};
use crate::{
    Failure, Options, Result, Workplace,
    engine::Running,
    measure::{Surroundings, runtime},
    place::Places,
    process::{process_cpu, resident_kib},
    report::{Details, significant},
    slices,
};

/// Partitions that are made or opened at one time.
const AT_ONCE: usize = 64;
/// As many of a run of a moment.
const FEW: usize = 200;
/// Opened one by one, before the others.
const ALONE: usize = 50;
const _: () = assert!(ALONE < FEW);

pub(super) fn run(options: &Options, workplace: &Workplace) -> Result<Details> {
    let count = if options.seconds < 1.0 {
        options.partitions.min(FEW)
    } else {
        options.partitions
    };
    let places = Places::own(options, workplace, "partitions");
    // What making them leaves to the allocator counts: what a partition costs is rather less than what is reported.
    let resident = resident_kib();
    let groups = make(&places, count)?;
    let (started, cpu) = (Instant::now(), process_cpu());
    let running = Running::open(&places, Config::default(), runtime()?)?;
    let engine_s = started.elapsed().as_secs_f64();
    let asked = running.requests();
    let mut alone_ms = Vec::new();
    let mut logs = Vec::with_capacity(count);
    for group in groups.iter().take(ALONE) {
        let begun = Instant::now();
        logs.push(
            running
                .runtime
                .block_on(open(running.engine.clone(), *group))?,
        );
        alone_ms.push(begun.elapsed().as_secs_f64() * 1e3);
    }
    let rest: Vec<GroupId> = groups.iter().skip(ALONE).copied().collect();
    logs.extend(each(&running, rest, open)?);
    let all_s = started.elapsed().as_secs_f64();
    let cpu_s = process_cpu().saturating_sub(cpu).as_secs_f64();
    let gets = running.requests().since(asked).get;
    running.flush()?;
    running.settle();
    let grown = resident.and_then(|before| Some(resident_kib()? - before));
    for log in &logs {
        let hw = log.offsets().hw;
        if hw != 2 {
            return Err(format!("{hw} records came back of 2").into());
        }
    }
    let slowest_ms = alone_ms.iter().copied().fold(0.0, f64::max);
    let alone_ms = slices::median(alone_ms);
    drop(logs);
    running.crash();
    let per_partition = |amount: f64| significant(amount / count as f64);
    Ok(Details::from([
        ("partitions", count.into()),
        (
            "partitions_opened_per_s",
            significant(count as f64 / all_s).into(),
        ),
        (
            "partitions_opened_per_s_engine_open",
            significant((count - ALONE.min(count)) as f64 / (all_s - engine_s)).into(),
        ),
        (
            "partitions_engine_open_ms",
            significant(engine_s * 1e3).into(),
        ),
        ("partition_open_ms_median", alone_ms.map(significant).into()),
        ("partition_open_ms_max", significant(slowest_ms).into()),
        ("partition_open_cpu_us", per_partition(cpu_s * 1e6).into()),
        ("partition_open_gets", per_partition(gets as f64).into()),
        ("partition_resident_kib", grown.map(per_partition).into()),
    ]))
}

/// Makes the partitions and crashes.
fn make(places: &Places, count: usize) -> Result<Vec<GroupId>> {
    let running = Running::open(places, Config::default(), runtime()?)?;
    let made = each(&running, vec![(); count], |engine, ()| async move {
        let (group, streams) = engine.create_group(KafkaLog::STREAMS, Vec::new()).await?;
        let log = KafkaLog::open(streams, LogConfig::default(), Arc::new(Standing)).await?;
        log.append_as_leader(batch(1, 256, 0)?, 0)?
            .durable()
            .await?;
        Ok((group, log))
    })?;
    running.flush()?;
    let (groups, logs): (Vec<_>, Vec<_>) = made.into_iter().unzip();
    let logs = each(&running, logs, |_, log| async move {
        log.append_as_leader(batch(1, 256, 1)?, 0)?
            .durable()
            .await?;
        Ok(log)
    })?;
    drop(logs);
    running.crash();
    Ok(groups)
}

async fn open(engine: Engine, group: GroupId) -> Result<KafkaLog> {
    let streams = engine.open_group(group).await?;
    Ok(KafkaLog::open(streams, LogConfig::default(), Arc::new(Standing)).await?)
}

/// Does `work` for each of `items`, [`AT_ONCE`] at a time.
fn each<T, U, F>(
    running: &Running,
    items: Vec<T>,
    work: impl Fn(Engine, T) -> F + Copy + Send + 'static,
) -> Result<Vec<U>>
where
    T: Send + 'static,
    U: Send + 'static,
    F: Future<Output = Result<U>> + Send + 'static,
{
    running.runtime.block_on(async {
        let mut tasks = JoinSet::new();
        let mut done = Vec::with_capacity(items.len());
        for item in items {
            if tasks.len() == AT_ONCE
                && let Some(ended) = tasks.join_next().await
            {
                done.push(ended??);
            }
            tasks.spawn(work(running.engine.clone(), item));
        }
        while let Some(ended) = tasks.join_next().await {
            done.push(ended??);
        }
        Ok::<_, Failure>(done)
    })
}
