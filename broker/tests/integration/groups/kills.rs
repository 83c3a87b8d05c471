//! `kill -9` of the broker in the middle of rebalances and commits: every acknowledged commit is found.

use std::io::Write;

use rdkafka::{
    Offset, TopicPartitionList,
    consumer::{CommitMode, Consumer},
};

use super::{
    consumers::{consumer, held},
    *,
};
use crate::{
    clients::create_topic,
    program::{Places, Program},
    support::Rng,
};

const PARTITIONS: i32 = 4;

#[test]
fn acknowledged_commits_outlive_kills_and_groups_find_together_again() {
    let dir = tempfile::tempdir().unwrap();
    let config = dir.path().join("broker.toml");
    let mut file = std::fs::File::create(&config).unwrap();
    writeln!(
        file,
        "[coordinator]\npartitions = 4\ngroup_initial_rebalance_delay_ms = 100"
    )
    .unwrap();
    let config = config.display().to_string();
    let places = Places::under(dir.path());
    let mut program = Program::start(&places, &["--config", &config]);
    let bootstrap = program.address.to_string();
    create_topic(&bootstrap, "t", PARTITIONS);
    let first = consumer(&bootstrap, "g", &[]);
    first.subscribe(&["t"]).unwrap();
    let mut rng = Rng::new(9);
    let mut acknowledged: BTreeMap<i32, i64> = BTreeMap::new();
    let mut offset = 0;
    for round in 0..3 {
        // In every round somebody else comes, so that kills hit rebalances as well.
        let second = consumer(&bootstrap, "g", &[]);
        second.subscribe(&["t"]).unwrap();
        let until = Instant::now() + Duration::from_millis(500 + rng.below(2_000));
        let mut killed = false;
        let deadline = Instant::now() + 2 * SOON;
        loop {
            let mut sizes = Vec::new();
            for consumer in [&first, &second] {
                let _ = consumer.poll(Duration::from_millis(5));
                let held = held(consumer);
                for partition in &held {
                    offset += 1;
                    let mut list = TopicPartitionList::new();
                    list.add_partition_offset("t", *partition, Offset::Offset(offset))
                        .unwrap();
                    if consumer.commit(&list, CommitMode::Sync).is_ok() {
                        acknowledged.insert(*partition, offset);
                    }
                }
                sizes.push(held.len());
            }
            if !killed && Instant::now() > until {
                program.kill();
                program = Program::start(&places, &["--config", &config, "--listen", &bootstrap]);
                killed = true;
            } else if killed && sizes == [2, 2] {
                break;
            }
            assert!(Instant::now() < deadline, "round {round}: {sizes:?}");
        }
        drop(second);
    }
    drop(first);
    assert!(
        acknowledged.len() == PARTITIONS as usize && offset > 20,
        "{acknowledged:?}"
    );
    program.kill();
    let program = Program::start(&places, &["--config", &config, "--listen", &bootstrap]);
    let reader = consumer(&bootstrap, "g", &[]);
    let mut asked = TopicPartitionList::new();
    asked.add_partition_range("t", 0, PARTITIONS - 1);
    let found = reader.committed_offsets(asked, SOON).unwrap();
    for (partition, offset) in acknowledged {
        let found = found.find_partition("t", partition).unwrap().offset();
        // A commit whose answer was lost may be there: it is a later one.
        let Offset::Offset(found) = found else {
            panic!("partition {partition}: nothing instead of {offset}");
        };
        assert!(
            found >= offset,
            "partition {partition}: {found} instead of {offset}"
        );
    }
    program.stop();
}
