//! The object decoder: any bytes either give records that make sense, or an error.
//!
//! If an index is accepted: its blocks tile the data, a look-up finds what a scan finds, and a block that is accepted
//! holds exactly the offsets that were promised. Records that were read make an object that gives them back.

use std::ops::Range;

use bytes::Bytes;
use s3stream::{
    ClusterId, ErrorKind, NodeEpoch, ObjectId, RecordBatch, StreamEpoch, StreamId,
    object::{BlockRef, FooterInfo, ObjectIndex, ObjectKind, ObjectWriter, TailStep, decode_block},
};

const CLUSTER: ClusterId = ClusterId::new(1);
const OBJECT: ObjectId = ObjectId::new(2);
const FOOTER_LEN: usize = 88;
const CRC_LEN: usize = 4;

/// Decodes `data` as it is, and again with everything right that a writer computes.
pub fn run(data: &[u8]) {
    check(data, &mut |_, _| {});
    if let Some(sealed) = sealed(data) {
        check(&sealed, &mut reseal_block);
    }
}

/// Small objects of one and of many runs, epochs and blocks.
pub fn seeds() -> Vec<Vec<u8>> {
    let record = |stream, epoch, offsets: Range<u64>, len: usize| RecordBatch {
        stream: StreamId::new(stream),
        epoch: StreamEpoch::new(epoch),
        offsets,
        payload: vec![stream as u8; len].into(),
    };
    let one = vec![record(1, 1, 0..1, 3)];
    let long = (0..20).map(|at| record(1, 1, at..at + 1, 10)).collect();
    let many = (0..8)
        .flat_map(|stream| {
            [
                record(stream, 1, 0..5, 20),
                record(stream, 2, 5..6, 0),
                record(stream, 3, 1 << 40..(1 << 40) + 1, 4),
            ]
        })
        .collect();
    let kinds = [
        (ObjectKind::Stream, one),
        (ObjectKind::Stream, long),
        (ObjectKind::StreamSet, many),
    ];
    kinds
        .into_iter()
        .map(|(kind, records): (_, Vec<RecordBatch>)| write(kind, 100, &records))
        .collect()
}

fn write(kind: ObjectKind, block_bytes: usize, records: &[RecordBatch]) -> Vec<u8> {
    let info = FooterInfo {
        cluster: CLUSTER,
        object: OBJECT,
        node_epoch: NodeEpoch::new(3),
        kind,
    };
    let mut writer = ObjectWriter::new(info, block_bytes);
    for record in records {
        writer.push(record).expect("records are in order");
    }
    writer.finish().expect("there are records").parts.concat()
}

/// The input with the ids, the length, the constants and the checksums of its end made right.
fn sealed(data: &[u8]) -> Option<Vec<u8>> {
    let mut object = data.to_vec();
    let len = object.len();
    let at = len.checked_sub(FOOTER_LEN)?;
    let index_at: usize = read_u64(&object, at + 40).try_into().ok()?;
    let index_crc = crc32c::crc32c(object.get(index_at..at)?);
    let footer = object.get_mut(at..)?;
    footer[..16].copy_from_slice(&CLUSTER.get().to_be_bytes());
    footer[16..24].copy_from_slice(&OBJECT.get().to_be_bytes());
    footer[32..40].copy_from_slice(&(len as u64).to_be_bytes());
    footer[64..68].copy_from_slice(&index_crc.to_be_bytes());
    footer[72..84].copy_from_slice(b"\0\0\0\x58\0\0\0\x01S3SO");
    let crc = crc32c::crc32c(&footer[..84]);
    footer[84..].copy_from_slice(&crc.to_be_bytes());
    Some(object)
}

fn reseal_block(block: &BlockRef, bytes: &mut [u8]) {
    assert!(block.len() >= CRC_LEN as u64);
    let body = bytes.len() - CRC_LEN;
    let crc = crc32c::crc32c(&bytes[..body]);
    bytes[body..].copy_from_slice(&crc.to_be_bytes());
}

fn read_u64(bytes: &[u8], at: usize) -> u64 {
    let field = bytes[at..].first_chunk().expect("the field is there");
    u64::from_be_bytes(*field)
}

fn check(object: &[u8], prepare: &mut dyn FnMut(&BlockRef, &mut [u8])) {
    let len = object.len() as u64;
    let index = match ObjectIndex::decode_tail(object, len, CLUSTER, OBJECT) {
        Ok(TailStep::Index(index)) => index,
        Ok(TailStep::NeedMore { from }) => panic!("needs more than the whole, from {from}"),
        Err(error) => {
            let kind = error.kind();
            assert!(
                matches!(kind, ErrorKind::Corrupt | ErrorKind::Invalid),
                "{error}"
            );
            return;
        }
    };
    let blocks: Vec<_> = index.all_blocks().collect();
    check_blocks(&index, &blocks);
    let mut records = Vec::new();
    for block in &blocks {
        let place = block.position.start as usize..block.position.end as usize;
        let mut bytes = object[place].to_vec();
        prepare(block, &mut bytes);
        match decode_block(bytes.into(), block) {
            Ok(found) => {
                check_records(block, &found);
                records.extend(found);
            }
            Err(error) => {
                assert_eq!(error.kind(), ErrorKind::Corrupt);
                return;
            }
        }
    }
    check_round_trip(index.info().kind, &records);
}

fn check_blocks(index: &ObjectIndex, blocks: &[BlockRef]) {
    assert_eq!(blocks.len(), index.block_count());
    let mut position = 0;
    for block in blocks {
        assert_eq!(block.position.start, position);
        assert!(!block.offsets.is_empty() && block.position.end > position);
        position = block.position.end;
        let middle = block.offsets.start + (block.offsets.end - block.offsets.start) / 2;
        let mut found = index.blocks(block.stream, middle..middle + 1);
        assert_eq!(found.next().as_ref(), Some(block));
        assert_eq!(found.next(), None);
    }
    assert_eq!(position, index.data_len());
    for range in index.ranges() {
        let found = index.blocks(range.stream, range.offsets.clone());
        let scanned = blocks.iter().filter(|block| {
            block.stream == range.stream && range.offsets.contains(&block.offsets.start)
        });
        assert!(found.eq(scanned.cloned()));
    }
}

fn check_records(block: &BlockRef, records: &[RecordBatch]) {
    let mut next = block.offsets.start;
    for record in records {
        assert_eq!(record.stream, block.stream);
        assert_eq!(record.epoch, block.epoch);
        assert_eq!(record.offsets.start, next);
        next = record.offsets.end;
    }
    assert_eq!(next, block.offsets.end);
}

fn check_round_trip(kind: ObjectKind, records: &[RecordBatch]) {
    // The format allows a gap within an epoch, the writer does not make one.
    let gap = records.windows(2).any(|pair| {
        (pair[0].stream, pair[0].epoch) == (pair[1].stream, pair[1].epoch)
            && pair[0].offsets.end != pair[1].offsets.start
    });
    if gap {
        return;
    }
    let object: Bytes = write(kind, 200, records).into();
    let len = object.len() as u64;
    let index = match ObjectIndex::decode_tail(&object, len, CLUSTER, OBJECT) {
        Ok(TailStep::Index(index)) => index,
        other => panic!("an object that was just written: {other:?}"),
    };
    let again: Vec<_> = index
        .all_blocks()
        .flat_map(|block| {
            let place = block.position.start as usize..block.position.end as usize;
            decode_block(object.slice(place), &block).expect("a block that was just written")
        })
        .collect();
    assert_eq!(again, records);
}
