//! A log as a reader sees it: every batch with its records, and for a reader of committed data, what its client leaves out.

use segment_adapter::{AbortedTxn, BATCH_HEADER_LEN, BatchHeader};

use super::*;

/// A record, or the record of a marker.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Record {
    pub(super) offset: i64,
    pub(super) timestamp: i64,
    pub(super) key: Option<Vec<u8>>,
    pub(super) value: Option<Vec<u8>>,
    pub(super) is_control: bool,
}

impl Record {
    pub(super) fn key_text(&self) -> String {
        String::from_utf8_lossy(self.key.as_deref().unwrap_or(b"-")).into_owned()
    }
}

#[derive(Clone, PartialEq, Debug)]
pub(super) struct SeenBatch {
    pub(super) header: BatchHeader,
    pub(super) records: Vec<Record>,
    pub(super) bytes: Bytes,
}

/// All that a reader from the log start sees.
#[derive(Clone, PartialEq, Debug)]
pub(super) struct View {
    pub(super) batches: Vec<SeenBatch>,
}

fn varint(bytes: &mut &[u8]) -> i64 {
    let (mut value, mut shift) = (0u64, 0);
    loop {
        let byte = bytes[0];
        *bytes = &bytes[1..];
        value |= u64::from(byte & 0x7f) << shift;
        shift += 7;
        if byte & 0x80 == 0 {
            return (value >> 1) as i64 ^ -((value & 1) as i64);
        }
    }
}

fn field(bytes: &mut &[u8]) -> Option<Vec<u8>> {
    let len = usize::try_from(varint(bytes)).ok()?;
    let (field, rest) = bytes.split_at(len);
    *bytes = rest;
    Some(field.to_vec())
}

/// The records of a batch that is not compressed.
pub(super) fn records(batch: &Batch) -> Vec<Record> {
    let header = batch.header();
    let bytes = batch.bytes().slice(BATCH_HEADER_LEN..);
    let mut rest = &bytes[..];
    let mut records = Vec::new();
    for _ in 0..header.records_count {
        let len = varint(&mut rest) as usize;
        let (mut body, behind) = rest.split_at(len);
        rest = behind;
        body = &body[1..];
        let timestamp = header.record_timestamp(varint(&mut body));
        let offset = header.base_offset + varint(&mut body);
        records.push(Record {
            offset,
            timestamp,
            key: field(&mut body),
            value: field(&mut body),
            is_control: header.attributes.is_control(),
        });
    }
    assert!(rest.is_empty());
    records
}

impl View {
    pub(super) async fn of(log: &KafkaLog, isolation: Isolation) -> Self {
        Self::from(log, log.offsets().log_start, 2000, isolation).await
    }

    /// What is read from an offset on, `bytes` at a time.
    pub(super) async fn from(
        log: &KafkaLog,
        from: i64,
        bytes: usize,
        isolation: Isolation,
    ) -> Self {
        let mut at = from;
        let mut seen = Vec::new();
        let mut aborting = Vec::new();
        loop {
            let data = log.read(at, bytes, true, isolation).await.unwrap();
            let read = batches(&data);
            let Some(last) = read.last() else {
                break;
            };
            let next = last.header().last_offset() + 1;
            assert!(next > at, "a reader goes on");
            let mut told = data.aborted.unwrap_or_default();
            told.sort_by_key(|txn| std::cmp::Reverse(txn.first_offset));
            // Each answer stands alone, as for a client.
            aborting.clear();
            for batch in &read {
                if keeps(batch, &mut told, &mut aborting) {
                    seen.push(SeenBatch {
                        header: *batch.header(),
                        records: records(batch),
                        bytes: batch.bytes().clone(),
                    });
                }
            }
            at = next;
        }
        let view = Self { batches: seen };
        let offsets: Vec<i64> = view.records().map(|record| record.offset).collect();
        assert!(offsets.is_sorted_by(|one, next| one < next), "{offsets:?}");
        view
    }

    pub(super) fn records(&self) -> impl Iterator<Item = &Record> {
        self.batches.iter().flat_map(|batch| &batch.records)
    }

    /// Without markers.
    pub(super) fn data(&self) -> impl Iterator<Item = &Record> {
        self.records().filter(|record| !record.is_control)
    }

    /// The last value of every key, `None` for one that was deleted.
    pub(super) fn table(&self) -> BTreeMap<Vec<u8>, (i64, Option<Vec<u8>>)> {
        let keyed = self.data().filter_map(|record| {
            let key = record.key.clone()?;
            Some((key, (record.offset, record.value.clone())))
        });
        keyed.collect()
    }

    pub(super) fn bytes(&self) -> u64 {
        let sizes = self.batches.iter().map(|batch| batch.bytes.len() as u64);
        sizes.sum()
    }

    /// The first record at or after a time.
    pub(super) fn find(&self, timestamp: i64) -> (i64, i64) {
        let mut found = self
            .records()
            .filter(|record| record.timestamp >= timestamp);
        let found = found.next();
        found.map_or((-1, -1), |found| (found.offset, found.timestamp))
    }
}

/// Whether a client that was told of these aborted transactions, the first of them last, keeps a batch.
fn keeps(batch: &Batch, told: &mut Vec<AbortedTxn>, aborting: &mut Vec<i64>) -> bool {
    let header = batch.header();
    while let Some(txn) = told.pop_if(|txn| txn.first_offset <= header.last_offset()) {
        aborting.push(txn.producer_id);
    }
    let id = header.producer_id;
    if header.attributes.is_control() {
        let record = records(batch).pop();
        let aborts = record.is_some_and(|record| record.key.unwrap()[3] == 0);
        if aborts {
            aborting.retain(|aborting| *aborting != id);
        }
        return true;
    }
    !(header.attributes.is_transactional() && aborting.contains(&id))
}
