//! The object format as a whole: golden bytes, round trips, damage.

use bytes::Bytes;

use super::*;
use crate::{Error, RecordBatch, Result};

const CLUSTER: ClusterId = ClusterId::new(0x0102_0304_0506_0708_090A_0B0C_0D0E_0F10);
const OBJECT: ObjectId = ObjectId::new(0x2A);

fn info(kind: ObjectKind) -> FooterInfo {
    FooterInfo {
        cluster: CLUSTER,
        object: OBJECT,
        node_epoch: NodeEpoch::new(9),
        kind,
    }
}

fn record(stream: u64, epoch: u64, offsets: Range<u64>, payload: &[u8]) -> RecordBatch {
    RecordBatch {
        stream: StreamId::new(stream),
        epoch: StreamEpoch::new(epoch),
        offsets,
        payload: Bytes::copy_from_slice(payload),
    }
}

fn build(records: &[RecordBatch], block_bytes: usize) -> Built {
    let mut writer = ObjectWriter::new(info(ObjectKind::StreamSet), block_bytes);
    for record in records {
        writer.push(record).unwrap();
    }
    writer.finish().unwrap()
}

fn joined(built: &Built) -> Bytes {
    built.parts.concat().into()
}

/// Reads everything an object holds, as a reader that knows its ids would.
fn read_all(object: &Bytes) -> Result<Vec<RecordBatch>> {
    let len = object.len() as u64;
    let index = match ObjectIndex::decode_tail(object, len, CLUSTER, OBJECT)? {
        TailStep::Index(index) => index,
        TailStep::NeedMore { from } => {
            return Err(Error::corrupt("needs more than there is").with("from", from));
        }
    };
    let mut records = Vec::new();
    for block in index.all_blocks() {
        let bytes = object.slice(block.position.start as usize..block.position.end as usize);
        records.extend(decode_block(bytes, &block)?);
    }
    Ok(records)
}

fn small() -> Vec<RecordBatch> {
    vec![
        record(3, 1, 10..12, b"ab"),
        record(3, 1, 12..13, b""),
        record(3, 2, 13..20, b"cde"),
        record(8, 1, 0..1, b"f"),
    ]
}

#[test]
fn what_was_pushed_is_read_back_whatever_the_block_size() {
    for block_bytes in [0, 1, 90, 128, 1 << 20] {
        let built = build(&small(), block_bytes);
        let object = joined(&built);
        assert_eq!(object.len() as u64, built.len);
        assert_eq!(read_all(&object).unwrap(), small(), "{block_bytes}");
    }
}
