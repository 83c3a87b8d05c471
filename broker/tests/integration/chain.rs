//! Read, process, write, and all of it exactly once: processes that are killed at any moment, as is the broker.
//!
//! Workers are members of one group. Each takes what comes in, writes what becomes of it, and says how far it has read, in
//! one transaction. They know nothing of kills: whatever a client tells them cannot go on ends them, and they begin anew.
//! In the end each record that came in has become one that can be read, in order, and nothing else has.

use std::{
    path::Path,
    process::{Child, Command, Stdio},
    sync::atomic::{AtomicBool, Ordering},
    time::{Duration, Instant},
};

use rdkafka::{
    ClientConfig, Message, Offset, TopicPartitionList,
    consumer::{BaseConsumer, Consumer},
    producer::Producer,
};

use super::{
    clients::{Acknowledged, create_topic, idempotent, send},
    program::{Places, Program},
    support::Rng,
    transactional::{
        self, SOON, read_committed, read_committed_by_partition, retried, transactional,
    },
};

const PARTITIONS: i32 = 4;
const WORKERS: usize = 2;
/// Records of one transaction.
const RECORDS_MAX: usize = 50;
/// Where a worker finds the broker, and which one it is.
const WORKER: &str = "S3STREAM_CHAIN_WORKER";

#[test]
fn a_chain_under_kills_is_exactly_once() {
    run(Duration::from_secs(12), Duration::from_millis(900), 1);
}

#[test]
#[ignore = "takes ten minutes: .ci/run chain"]
fn ten_minutes_of_a_chain_under_kills_are_exactly_once() {
    run(Duration::from_secs(600), Duration::from_secs(3), 2);
}

/// Not a test by itself: the process that the tests above start, and kill.
#[test]
#[ignore = "a process of the tests of a chain: .ci/run chain"]
fn worker() {
    let Ok(said) = std::env::var(WORKER) else {
        return;
    };
    let (bootstrap, name) = said.split_once(' ').unwrap();
    // It does not outlive who started it.
    std::thread::spawn(|| {
        let _ = std::io::copy(&mut std::io::stdin(), &mut std::io::sink());
        std::process::exit(0);
    });
    work(bootstrap, name);
}

fn work(bootstrap: &str, name: &str) {
    let producer = transactional(bootstrap, name);
    retried(|| producer.init_transactions(SOON)).unwrap();
    let consumer: BaseConsumer = ClientConfig::new()
        .set("bootstrap.servers", bootstrap)
        .set("group.id", "chain")
        // The same member again after a kill, so that nobody has to wait for the end of its session.
        .set("group.instance.id", name)
        .set("session.timeout.ms", "6000")
        .set("enable.auto.commit", "false")
        .set("auto.offset.reset", "earliest")
        .set("isolation.level", "read_committed")
        .set("reconnect.backoff.ms", "20")
        .set("reconnect.backoff.max.ms", "100")
        .create()
        .unwrap();
    consumer.subscribe(&["in"]).unwrap();
    loop {
        let mut taken = TopicPartitionList::new();
        let mut values = Vec::new();
        while values.len() < RECORDS_MAX
            && let Some(message) = consumer.poll(Duration::from_millis(50))
        {
            // The client itself comes back from what it tells here; what it cannot come back from shows below.
            let Ok(message) = message else {
                continue;
            };
            let partition = message.partition();
            let next = Offset::Offset(message.offset() + 1);
            if taken.find_partition("in", partition).is_none() {
                taken.add_partition("in", partition);
            }
            taken.set_partition_offset("in", partition, next).unwrap();
            let value = String::from_utf8(message.payload().unwrap().to_vec()).unwrap();
            values.push((partition, value));
        }
        if values.is_empty() {
            continue;
        }
        producer.begin_transaction().unwrap();
        for (partition, value) in &values {
            transactional::send(&producer, "out", *partition, value);
        }
        let group = consumer.group_metadata().unwrap();
        retried(|| producer.send_offsets_to_transaction(&taken, &group, SOON)).unwrap();
        retried(|| producer.commit_transaction(SOON)).unwrap();
    }
}

/// A worker process; killed when it is dropped.
struct Worker(Child);

impl Worker {
    fn start(bootstrap: &str, index: usize) -> Self {
        let child = Command::new(std::env::current_exe().unwrap())
            .args(["--ignored", "--exact", "chain::worker"])
            .env(WORKER, format!("{bootstrap} worker-{index}"))
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn();
        Self(child.unwrap())
    }

    fn has_ended(&mut self) -> bool {
        self.0.try_wait().unwrap().is_some()
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// The broker and the workers, of which some are killed now and then.
struct Chain {
    places: Places,
    config: String,
    bootstrap: String,
    program: Option<Program>,
    workers: Vec<Worker>,
    /// Those that were replaced and not killed: they must find out by themselves.
    zombies: Vec<Worker>,
    rng: Rng,
    /// How often the broker was killed, a worker was, and one was replaced.
    kills: [u32; 3],
}

impl Chain {
    fn start(dir: &Path, seed: u64) -> Self {
        let places = Places::under(dir);
        let config = dir.join("broker.toml");
        let delay = "[coordinator]\ngroup_initial_rebalance_delay_ms = 0\n";
        std::fs::write(&config, delay).unwrap();
        let config = config.to_str().unwrap().to_owned();
        let program = Program::start(&places, &["--config", &config]);
        let bootstrap = program.address.to_string();
        create_topic(&bootstrap, "in", PARTITIONS);
        create_topic(&bootstrap, "out", PARTITIONS);
        let workers = (0..WORKERS).map(|index| Worker::start(&bootstrap, index));
        Self {
            workers: workers.collect(),
            places,
            config,
            bootstrap,
            program: Some(program),
            zombies: Vec::new(),
            rng: Rng::new(seed),
            kills: [0; 3],
        }
    }

    /// Workers that have ended begin anew.
    fn keep(&mut self) {
        for (index, worker) in self.workers.iter_mut().enumerate() {
            if worker.has_ended() {
                *worker = Worker::start(&self.bootstrap, index);
            }
        }
    }

    fn kill_one(&mut self) {
        let index = self.rng.below(WORKERS as u64) as usize;
        let kind = [0, 0, 1, 1, 2][self.rng.below(5) as usize];
        self.kills[kind] += 1;
        match kind {
            0 => {
                self.program.take().unwrap().kill();
                let again = ["--config", &self.config, "--listen", &self.bootstrap];
                self.program = Some(Program::start(&self.places, &again));
            }
            1 => self.workers[index] = Worker::start(&self.bootstrap, index),
            _ => {
                let new = Worker::start(&self.bootstrap, index);
                let replaced = std::mem::replace(&mut self.workers[index], new);
                self.zombies.push(replaced);
                self.zombies.retain_mut(|zombie| !zombie.has_ended());
                self.zombies.truncate(2);
            }
        }
    }

    /// For so long, with so much time between two kills.
    fn disturb(&mut self, lasts: Duration, pause: Duration) {
        let ends = Instant::now() + lasts;
        let mut next = Instant::now() + 2 * pause;
        while Instant::now() < ends {
            std::thread::sleep(Duration::from_millis(20));
            self.keep();
            if Instant::now() >= next {
                self.kill_one();
                let share = self.rng.below(100) as f64 / 100.0;
                next = Instant::now() + pause.mul_f64(0.5 + share);
            }
        }
    }

    /// Until so many records have come out.
    fn finish(&mut self, all: u64) {
        let deadline = Instant::now() + 2 * SOON;
        loop {
            let out = read_committed(&self.bootstrap, "out", PARTITIONS).len();
            if out as u64 >= all {
                return;
            }
            assert!(Instant::now() < deadline, "{out} of {all} records come out");
            self.keep();
        }
    }
}

fn run(lasts: Duration, pause: Duration, seed: u64) {
    let dir = tempfile::tempdir().unwrap();
    let mut chain = Chain::start(dir.path(), seed);
    let bootstrap = chain.bootstrap.clone();
    let over = AtomicBool::new(false);
    let sent = std::thread::scope(|scope| {
        let feeding = scope.spawn(|| feed(&bootstrap, &over));
        chain.disturb(lasts, pause);
        over.store(true, Ordering::Relaxed);
        feeding.join().unwrap()
    });
    chain.finish(sent.iter().sum());
    let expected = (0..PARTITIONS).zip(&sent).flat_map(|(partition, count)| {
        (0..*count).map(move |index| (partition, format!("{partition}/{index}")))
    });
    let expected: Vec<_> = expected.collect();
    let mut found = read_committed_by_partition(&bootstrap, "out", PARTITIONS);
    found.sort_by_key(|(partition, _)| *partition);
    assert_eq!(found.len(), expected.len());
    assert!(found == expected, "what came out is not what came in");
    println!("{:?} kills, {} records", chain.kills, found.len());
    assert!(
        chain.kills.iter().all(|kills| *kills > 0),
        "{:?}",
        chain.kills
    );
    assert!(sent.iter().all(|count| *count > 0));
    chain.program.take().unwrap().stop();
}

/// Writes numbered records until it is over; how many to each partition.
fn feed(bootstrap: &str, over: &AtomicBool) -> Vec<u64> {
    let acks = Acknowledged::default();
    let producer = idempotent(bootstrap, &acks);
    let mut sent = vec![0; PARTITIONS as usize];
    while !over.load(Ordering::Relaxed) {
        for (partition, count) in (0..).zip(&mut sent) {
            let value = format!("{partition}/{count}");
            send(&producer, "in", partition, value.as_bytes()).unwrap();
            *count += 1;
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    producer.flush(2 * SOON).unwrap();
    assert_eq!(acks.failed(), 0);
    sent
}
