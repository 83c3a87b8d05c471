//! Turns of ends, and ends that cannot be made beside others that can.

use segment_adapter::{AppendOptions, BatchBuilder, Codec, Isolation};

use super::*;
use crate::{
    coordinator::transactions::{rules::Holder, transaction::Partitions},
    node::testing,
    topics::config::TopicConfig,
};

const SOON: Duration = Duration::from_secs(20);

fn place(id: &str) -> Place {
    (0, id.to_owned())
}

#[tokio::test]
async fn turns_come_in_the_order_of_time_and_a_new_decision_does_not_wait() {
    let outbox = Outbox::default();
    let now = Instant::now();
    let soon = now + PAUSE_MIN;
    outbox.put_at(place("later"), soon);
    outbox.put_at(place("b"), now);
    outbox.put_at(place("a"), now);
    let none = BTreeSet::new();
    let busy = BTreeSet::from([place("b")]);
    assert_eq!(outbox.take(&busy, now), Ok(place("a")));
    assert_eq!(outbox.take(&none, now), Ok(place("b")));
    assert_eq!(outbox.take(&none, now), Err(Some(soon)));
    // It is loaded again, say.
    outbox.put_at(place("later"), now);
    outbox.put_at(place("later"), soon);
    assert_eq!(outbox.take(&none, now), Ok(place("later")));
    assert_eq!((outbox.take(&none, soon), outbox.len()), (Err(None), 0));
}

struct World {
    node: Arc<Node>,
}

impl World {
    async fn new(topics: &[&str]) -> Self {
        let node = Arc::new(testing::node().await);
        node.transactions.ensure().await.unwrap();
        for topic in topics {
            let config = TopicConfig::default();
            node.topics.create(topic, 1, config).await.unwrap();
        }
        Self { node }
    }

    async fn log(&self, topic: &str) -> Leading {
        find_partition(&self.node, topic, 0).await.unwrap().1
    }

    /// A transaction that is of one partition.
    async fn begin(&self, id: &str, topic: &str) -> Holder {
        let transactions = &self.node.transactions;
        let loaded = async {
            loop {
                // Its partition may be being loaded.
                match transactions.init(&self.node, id, None, 60_000).await {
                    Ok(holder) => return holder,
                    Err(_) => tokio::time::sleep(Duration::from_millis(1)).await,
                }
            }
        };
        let holder = timeout(SOON, loaded).await.unwrap();
        let partitions = Partitions::from([(topic.to_owned(), [0].into())]);
        let added = transactions.add(id, holder, partitions, TransactionVersion::V0);
        added.await.unwrap();
        holder
    }

    async fn write(&self, topic: &str, (id, epoch): Holder) {
        let leading = self.log(topic).await;
        let guard = leading.log.start_verification(id, epoch, 0, false).unwrap();
        let batch = BatchBuilder::new(Codec::None)
            .producer(id, epoch, 0)
            .transactional()
            .record(1, None, Some(b"v"))
            .build()
            .unwrap();
        let options = AppendOptions {
            guard,
            ..AppendOptions::default()
        };
        let appended = leading.log.append_with(batch, leading.epoch, &options);
        appended.unwrap().durable().await.unwrap();
    }

    /// The end of a coordinator that nobody has, and that is newer than any.
    async fn end_by_nobody(&self, topic: &str, (producer_id, producer_epoch): Holder) {
        let leading = self.log(topic).await;
        let end = EndTxn {
            producer_id,
            producer_epoch,
            coordinator_epoch: i32::MAX,
            commit: true,
            version: TransactionVersion::V1,
        };
        append(&leading, end).await.unwrap();
    }

    async fn decide(&self, id: &str, holder: Holder) {
        let transactions = &self.node.transactions;
        let ended = transactions.end(&self.node, id, holder, true, TransactionVersion::V0);
        ended.await.unwrap();
    }

    async fn status(&self, id: &str) -> Status {
        let found = self.node.transactions.describe(id).await.unwrap();
        found.unwrap().status
    }

    async fn until_complete(&self, id: &str) {
        let complete = async {
            while self.status(id).await != Status::CompleteCommit {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        };
        timeout(SOON, complete).await.unwrap();
    }
}

/// More of them than there are places must not stop the end of all other transactions of the broker.
#[tokio::test]
async fn ends_that_cannot_be_made_do_not_keep_others_from_theirs() {
    let world = World::new(&["stuck", "t"]).await;
    let ends = tokio::spawn(run_at_most(world.node.clone(), 2));
    let mut stuck = Vec::new();
    for id in ["one", "two", "three"] {
        let holder = world.begin(id, "stuck").await;
        world.end_by_nobody("stuck", holder).await;
        world.write("stuck", holder).await;
        world.decide(id, holder).await;
        stuck.push((id, holder));
    }
    let holder = world.begin("other", "t").await;
    world.write("t", holder).await;
    world.decide("other", holder).await;
    world.until_complete("other").await;
    // What is open is not called complete, though its marker is refused for good.
    for (id, (producer_id, _)) in &stuck {
        assert_eq!(world.status(id).await, Status::PrepareCommit);
        assert!(world.log("stuck").await.log.is_in_transaction(*producer_id));
    }
    // Once an operator has ended it, it is.
    let (id, holder) = stuck[0];
    world.end_by_nobody("stuck", holder).await;
    world.until_complete(id).await;
    ends.abort();
}

#[tokio::test]
async fn an_operator_does_not_speak_for_a_coordinator_that_is_to_come() {
    let world = World::new(&["t"]).await;
    let leading = world.log("t").await;
    let end = |coordinator_epoch| EndTxn {
        producer_id: 7,
        producer_epoch: 0,
        coordinator_epoch,
        commit: false,
        version: TransactionVersion::V1,
    };
    let refused = write_for_operator(&world.node, "t", 0, end(leading.epoch + 1)).await;
    assert_eq!(refused, Err(ResponseError::InvalidRequest.code()));
    let written = write_for_operator(&world.node, "t", 0, end(leading.epoch)).await;
    assert_eq!(written, Ok(()));
    // What has been said may be said again.
    world.end_by_nobody("t", (7, 0)).await;
    let written = write_for_operator(&world.node, "t", 0, end(i32::MAX)).await;
    assert_eq!(written, Ok(()));
}

/// Nor is a partition told again, if only the coordinator was not able to take it in.
#[tokio::test]
async fn what_has_been_told_is_not_told_again() {
    let world = World::new(&["t"]).await;
    let holder = world.begin("id", "t").await;
    world.write("t", holder).await;
    world.decide("id", holder).await;
    let coordinator = &world.node.transactions.coordinator;
    let partition = coordinator.partition_of("id").unwrap();
    let of_partition = world.node.transactions.of_partition(partition);
    let ending = of_partition.ending("id").await.unwrap().unwrap();
    let told = Progress {
        left: Vec::new(),
        ..Progress::new(ending)
    };
    let place = (partition, "id".to_owned());
    let done = attempt(world.node.clone(), place, Some(told)).await;
    assert!(matches!(done, Attempt::Done));
    assert_eq!(world.status("id").await, Status::CompleteCommit);
    let leading = world.log("t").await;
    let read = leading
        .log
        .read(0, 1 << 20, true, Isolation::HighWatermark)
        .await
        .unwrap();
    assert_eq!((read.records.len(), leading.log.offsets().leo), (1, 1));
}

/// A log that ended between the decision and its marker.
#[tokio::test]
async fn a_partition_whose_log_has_ended_is_opened_again_and_told() {
    let world = World::new(&["t"]).await;
    let holder = world.begin("id", "t").await;
    world.write("t", holder).await;
    world.log("t").await.log.close().await.unwrap();
    world.decide("id", holder).await;
    let ends = tokio::spawn(run(world.node.clone()));
    world.until_complete("id").await;
    let offsets = world.log("t").await.log.offsets();
    assert_eq!((offsets.lso, offsets.hw), (2, 2));
    ends.abort();
}
