//! `kill -9` under load: what was acknowledged is there, once, in order, at its offset, and nothing else is.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
    time::{Duration, Instant},
};

use rdkafka::producer::{Producer, PurgeConfig};

use super::{
    clients::{Acknowledged, create_topic, idempotent, producer, read_all, send},
    program::{Places, Program},
    support::Rng,
};

const PARTITIONS: i32 = 4;

#[test]
fn three_kills_lose_nothing_and_invent_nothing() {
    rounds(3, 1, |_, _| None);
}

/// A start after each kill is with a log of another kind: the one before is settled first (M6).
#[test]
fn four_kills_with_another_log_each_time_lose_nothing_and_invent_nothing() {
    rounds(4, 3, |dir, round| match round % 3 {
        0 => Some("object:".to_owned()),
        1 => None,
        _ => {
            let dir = dir.join("shared");
            std::fs::create_dir_all(&dir).unwrap();
            Some(format!("nfs:{}?capacity=64MiB", dir.display()))
        }
    });
}

#[test]
#[ignore = "takes minutes: .ci/run kill9"]
fn twenty_kills_lose_nothing_and_invent_nothing() {
    rounds(20, 2, |_, _| None);
}

/// `log` says which log a round has, if it is not the block log.
fn rounds(count: u64, seed: u64, log: impl Fn(&Path, u64) -> Option<String>) {
    let dir = tempfile::tempdir().unwrap();
    let places = |round| {
        let places = Places::under(dir.path());
        let wal = log(dir.path(), round).unwrap_or_else(|| places.wal.clone());
        Places { wal, ..places }
    };
    let mut rng = Rng::new(seed);
    let mut sent = BTreeSet::new();
    let mut acknowledged = BTreeMap::new();
    for round in 0..count {
        let program = Program::start(&places(round), &[]);
        let bootstrap = program.address.to_string();
        if round == 0 {
            create_topic(&bootstrap, "t", PARTITIONS);
        }
        verify(&bootstrap, &sent, &acknowledged, round);
        let load = Duration::from_millis(300 + rng.below(1_500));
        let acks = Acknowledged::default();
        let producer = producer(&bootstrap, "none", &acks);
        let killing = std::thread::spawn(move || {
            std::thread::sleep(load);
            program.kill();
        });
        let mut index = 0u64;
        let deadline = Instant::now() + load + Duration::from_millis(200);
        while Instant::now() < deadline {
            let partition = rng.below(PARTITIONS as u64) as i32;
            let value = format!(
                "{round}/{index}/{partition}/{}",
                "x".repeat(rng.below(900) as usize)
            );
            index += 1;
            if send(&producer, "t", partition, value.as_bytes()).is_ok() {
                sent.insert(value.into_bytes());
            }
            if index.is_multiple_of(64) {
                std::thread::sleep(Duration::from_millis(1));
            }
        }
        killing.join().unwrap();
        producer.purge(PurgeConfig::default().queue().inflight());
        let _ = producer.flush(Duration::from_secs(10));
        let new = acks.by_place();
        assert!(
            !new.is_empty(),
            "round {round}: nothing was acknowledged before the kill"
        );
        for (place, value) in new {
            let twice = acknowledged.insert(place, value);
            assert!(
                twice.is_none(),
                "round {round}: {place:?} was acknowledged in two rounds"
            );
        }
    }
    let program = Program::start(&places(count), &[]);
    verify(&program.address.to_string(), &sent, &acknowledged, count);
    program.stop();
}

fn verify(
    bootstrap: &str,
    sent: &BTreeSet<Vec<u8>>,
    acknowledged: &BTreeMap<(i32, i64), Vec<u8>>,
    round: u64,
) {
    let found = read_all(bootstrap, "t", PARTITIONS);
    for (place, value) in acknowledged {
        let found = found.get(place);
        assert_eq!(
            found,
            Some(value),
            "round {round}: what was acknowledged at {place:?}"
        );
    }
    let mut seen = BTreeSet::new();
    let mut last: BTreeMap<i32, (u64, u64)> = BTreeMap::new();
    for ((partition, offset), value) in &found {
        assert!(
            sent.contains(value),
            "round {round}: {partition}/{offset} was never sent"
        );
        assert!(
            seen.insert(value),
            "round {round}: {partition}/{offset} is there twice"
        );
        let text = std::str::from_utf8(value).unwrap();
        let mut numbers = text.split('/').map(|part| part.parse::<u64>().unwrap_or(0));
        let order = (numbers.next().unwrap(), numbers.next().unwrap());
        if let Some(before) = last.insert(*partition, order) {
            assert!(
                before < order,
                "round {round}: {partition}/{offset} is out of order"
            );
        }
    }
}

#[test]
fn after_a_clean_stop_the_bucket_alone_serves_everything() {
    let dir = tempfile::tempdir().unwrap();
    let mut places = Places::under(dir.path());
    let program = Program::start(&places, &[]);
    let bootstrap = program.address.to_string();
    create_topic(&bootstrap, "t", PARTITIONS);
    let acks = Acknowledged::default();
    let producer = producer(&bootstrap, "zstd", &acks);
    for index in 0..5_000 {
        send(
            &producer,
            "t",
            index % PARTITIONS,
            format!("value {index}").as_bytes(),
        )
        .unwrap();
    }
    producer.flush(Duration::from_secs(60)).unwrap();
    let expected = acks.by_place();
    assert_eq!(expected.len(), 5_000);
    program.stop();
    std::fs::remove_file(dir.path().join("wal")).unwrap();
    // Another directory, another log, the same bucket.
    let elsewhere = tempfile::tempdir().unwrap();
    places.wal = Places::under(elsewhere.path()).wal;
    let program = Program::start(&places, &[]);
    let found = read_all(&program.address.to_string(), "t", PARTITIONS);
    assert_eq!(found, expected);
    program.stop();
}

/// What is not acknowledged is sent again, to a broker that may have it: it is written once all the same, and in order.
#[test]
fn an_idempotent_producer_writes_every_record_once_over_five_kills() {
    let dir = tempfile::tempdir().unwrap();
    let places = Places::under(dir.path());
    let mut program = Program::start(&places, &[]);
    let bootstrap = program.address.to_string();
    create_topic(&bootstrap, "t", PARTITIONS);
    let acks = Acknowledged::default();
    let producer = idempotent(&bootstrap, &acks);
    let mut rng = Rng::new(4);
    let mut sent = vec![Vec::new(); PARTITIONS as usize];
    for kills in 0..=5 {
        let until = Instant::now() + Duration::from_millis(200 + rng.below(500));
        while Instant::now() < until {
            let partition = rng.below(PARTITIONS as u64) as usize;
            let value = format!("{partition}/{}", sent[partition].len());
            send(&producer, "t", partition as i32, value.as_bytes()).unwrap();
            sent[partition].push(value.into_bytes());
        }
        if kills < 5 {
            program.kill();
            program = Program::start(&places, &["--listen", &bootstrap]);
        }
    }
    producer.flush(Duration::from_secs(60)).unwrap();
    assert_eq!(acks.failed(), 0);
    let found = read_all(&bootstrap, "t", PARTITIONS);
    for (partition, sent) in (0..).zip(sent) {
        let written = found.range((partition, 0)..(partition + 1, 0));
        let written: Vec<_> = written.map(|(_, value)| value.clone()).collect();
        assert!(written == sent, "partition {partition}");
    }
}
