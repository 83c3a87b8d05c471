//! How far a group has read, as a part of a transaction whose producer adds the group by itself.

use kafka_protocol::messages::{
    AddOffsetsToTxnRequest, AddOffsetsToTxnResponse, GroupId, OffsetFetchRequest,
    OffsetFetchResponse, TxnOffsetCommitRequest, TxnOffsetCommitResponse,
    offset_fetch_request::OffsetFetchRequestTopic,
    txn_offset_commit_request::{TxnOffsetCommitRequestPartition, TxnOffsetCommitRequestTopic},
};

use super::*;

fn group(id: &str) -> GroupId {
    GroupId(StrBytes::from_string(id.to_owned()))
}

impl Transactional {
    fn ask_add_offsets(&mut self, version: i16, of: &str) -> i16 {
        let request = AddOffsetsToTxnRequest::default()
            .with_transactional_id(transactional_id(&self.id))
            .with_producer_id(ProducerId(self.producer.0))
            .with_producer_epoch(self.producer.1)
            .with_group_id(group(of));
        let answer: AddOffsetsToTxnResponse =
            self.client.call(ApiKey::AddOffsetsToTxn, version, &request);
        answer.error_code
    }

    fn ask_commit_offset(&mut self, version: i16, of: &str, offset: i64) -> i16 {
        let partition = TxnOffsetCommitRequestPartition::default().with_committed_offset(offset);
        let topic = TxnOffsetCommitRequestTopic::default()
            .with_name(topic_name("t"))
            .with_partitions(vec![partition]);
        let request = TxnOffsetCommitRequest::default()
            .with_transactional_id(transactional_id(&self.id))
            .with_group_id(group(of))
            .with_producer_id(ProducerId(self.producer.0))
            .with_producer_epoch(self.producer.1)
            .with_topics(vec![topic]);
        let answer: TxnOffsetCommitResponse =
            self.client.call(ApiKey::TxnOffsetCommit, version, &request);
        answer.topics[0].partitions[0].error_code
    }

    /// The committed offset of the group, and the code.
    fn offset(&mut self, of: &str, stable: bool) -> (i64, i16) {
        let topic = OffsetFetchRequestTopic::default()
            .with_name(topic_name("t"))
            .with_partition_indexes(vec![0]);
        let request = OffsetFetchRequest::default()
            .with_group_id(group(of))
            .with_topics(Some(vec![topic]))
            .with_require_stable(stable);
        let answer = until(|| {
            let answer: OffsetFetchResponse = self.client.call(ApiKey::OffsetFetch, 7, &request);
            (answer.error_code == 0).then_some(answer)
        });
        let partition = &answer.topics[0].partitions[0];
        (partition.committed_offset, partition.error_code)
    }
}

#[test]
fn f51_offsets_count_when_their_transaction_is_committed() {
    let running = Running::in_memory();
    running.client().create("t", 1);
    let mut producer = Transactional::new(&running, "id");
    for group in ["g", "other"] {
        find(&mut producer.client, 0, group);
    }
    let until_loaded = |ask: &mut dyn FnMut() -> i16| {
        until(|| Some(ask()).filter(|code| ![14, 15, 16, CONCURRENT].contains(code)))
    };
    // Not before the group is of the transaction.
    assert_eq!(
        until_loaded(&mut || producer.ask_add_offsets(0, "other")),
        0
    );
    let code = until_loaded(&mut || producer.ask_commit_offset(3, "g", 5));
    assert_eq!(code, INVALID_STATE);
    assert_eq!(producer.ask_commit_offset(4, "g", 5), ABORTABLE);
    for (version, offset) in (0..).zip([5, 6, 7, 8, 9]) {
        let commit = offset != 7;
        let before = producer.offset("g", false);
        let code = until_loaded(&mut || producer.ask_add_offsets(version, "g"));
        assert_eq!(code, 0, "v{version}");
        assert_eq!(producer.ask_commit_offset(3, "g", offset), 0);
        assert_eq!(producer.offset("g", false), before, "v{version}");
        assert_eq!(producer.offset("g", true), (-1, 88), "v{version}");
        producer.end(commit);
        let after = until(|| Some(producer.offset("g", true)).filter(|(_, code)| *code == 0));
        assert_eq!(
            after.0,
            if commit { offset } else { before.0 },
            "v{version}"
        );
    }
    running.stop();
}

#[test]
fn who_may_not_add_a_group_is_told_why() {
    let running = Running::in_memory();
    let mut producer = Transactional::new(&running, "id");
    let mut second = Transactional::new(&running, "id");
    for (version, code) in [(0, OLD_EPOCH), (1, OLD_EPOCH), (2, FENCED), (4, FENCED)] {
        assert_eq!(producer.ask_add_offsets(version, "g"), code, "v{version}");
    }
    second.producer.0 += 1;
    assert_eq!(second.ask_add_offsets(4, "g"), INVALID_MAPPING);
    second.id = String::new();
    assert_eq!(second.ask_add_offsets(4, "g"), 42);
    running.stop();
}
