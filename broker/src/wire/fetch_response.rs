//! The Fetch response, versions 4 to 18, written around record batches instead of copying them.
//!
//! The codec would copy every batch twice, once to join the batches of a partition and once into its buffer; here they
//! stay slices of the engine's memory. A test decodes what is written with the codec.

use bytes::{BufMut, Bytes, BytesMut};
use segment_adapter::EpochEnd;
use uuid::Uuid;

use super::response::{Head, Response, start};
use crate::node::Endpoint;

/// First version with compact lengths and tagged fields.
const FLEXIBLE: i16 = 12;
/// First version that names topics by id alone.
const IDS: i16 = 13;
/// First version that says where leaders are.
const ENDPOINTS: i16 = 16;

/// The answer for one topic.
#[derive(Debug)]
pub(crate) struct FetchedTopic {
    /// Written in versions that have names.
    pub(crate) name: String,
    /// Written in versions that have ids.
    pub(crate) id: Uuid,
    pub(crate) partitions: Vec<FetchedPartition>,
}

/// The answer for one partition. The three offsets are set in every answer, empty ones included (F21).
#[derive(Debug)]
pub(crate) struct FetchedPartition {
    pub(crate) index: i32,
    pub(crate) error_code: i16,
    pub(crate) high_watermark: i64,
    pub(crate) last_stable_offset: i64,
    pub(crate) log_start_offset: i64,
    /// Producer id and first offset of each aborted transaction in the range; `None` when the reader did not ask.
    pub(crate) aborted: Option<Vec<(i64, i64)>>,
    /// Where the history of the asker leaves that of the log; told from version 12 on, and without records.
    pub(crate) diverging: Option<EpochEnd>,
    /// Who leads the partition and since which epoch, for an asker who knows another one; told from version 16 on.
    pub(crate) leader: Option<(i32, i32)>,
    /// Whole record batches, in order.
    pub(crate) records: Vec<Bytes>,
}

impl FetchedPartition {
    /// Bytes of records.
    pub(crate) fn records_len(&self) -> usize {
        self.records.iter().map(Bytes::len).sum()
    }
}

/// Builds the answer. `error_code` is the whole request's (version 7 and above), `leaders` are those that partitions name.
pub(crate) fn encode(
    head: Head,
    error_code: i16,
    topics: Vec<FetchedTopic>,
    leaders: Vec<Endpoint>,
) -> Response {
    let mut out = Out {
        buf: start(head),
        pieces: Vec::new(),
        flexible: head.version >= FLEXIBLE,
    };
    out.buf.put_i32(0); // throttle time
    if head.version >= 7 {
        out.buf.put_i16(error_code);
        out.buf.put_i32(0); // F23: no sessions, ever
    }
    out.count(Some(topics.len()));
    for topic in topics {
        if head.version >= IDS {
            out.buf.put_slice(topic.id.as_bytes());
        } else {
            out.text(&topic.name);
        }
        out.count(Some(topic.partitions.len()));
        for partition in topic.partitions {
            out.partition(head.version, partition);
        }
        out.no_tagged_fields();
    }
    if head.version >= ENDPOINTS && !leaders.is_empty() {
        out.endpoints(leaders);
    } else {
        out.no_tagged_fields();
    }
    out.finish()
}

struct Out {
    /// What was written after the last piece.
    buf: BytesMut,
    pieces: Vec<Bytes>,
    flexible: bool,
}

impl Out {
    fn partition(&mut self, version: i16, partition: FetchedPartition) {
        let records_len = partition.records_len();
        self.buf.put_i32(partition.index);
        self.buf.put_i16(partition.error_code);
        self.buf.put_i64(partition.high_watermark);
        self.buf.put_i64(partition.last_stable_offset);
        if version >= 5 {
            self.buf.put_i64(partition.log_start_offset);
        }
        self.count(partition.aborted.as_ref().map(Vec::len));
        for (producer_id, first_offset) in partition.aborted.into_iter().flatten() {
            self.buf.put_i64(producer_id);
            self.buf.put_i64(first_offset);
            self.no_tagged_fields();
        }
        if version >= 11 {
            self.buf.put_i32(-1); // preferred read replica
        }
        // Never null: librdkafka cannot parse that.
        self.count(Some(records_len));
        for batch in partition.records {
            self.pieces.push(self.buf.split().freeze());
            self.pieces.push(batch);
        }
        match (partition.diverging, partition.leader) {
            (Some(end), _) if self.flexible => self.diverging(end),
            (None, Some((id, epoch))) if version >= ENDPOINTS => {
                // The one tagged field: number 1.
                self.buf.put_slice(&[1, 1, 4 + 4 + 1]);
                self.buf.put_i32(id);
                self.buf.put_i32(epoch);
                self.no_tagged_fields();
            }
            _ => self.no_tagged_fields(),
        }
    }

    /// The one tagged field of an answer: number 0, an array of nodes.
    fn endpoints(&mut self, leaders: Vec<Endpoint>) {
        let mut array = Self {
            buf: BytesMut::new(),
            pieces: Vec::new(),
            flexible: true,
        };
        array.count(Some(leaders.len()));
        for leader in leaders {
            array.buf.put_i32(leader.id);
            array.text(&leader.host);
            array.buf.put_i32(i32::from(leader.port));
            array.buf.put_u8(0); // no rack
            array.no_tagged_fields();
        }
        self.buf.put_slice(&[1, 0]);
        self.varint(array.buf.len() as u32);
        self.buf.extend_from_slice(&array.buf);
    }

    /// The one tagged field: number 0, and as many bytes as there are.
    fn diverging(&mut self, end: EpochEnd) {
        self.buf.put_slice(&[1, 0, 4 + 8 + 1]);
        self.buf.put_i32(end.epoch);
        self.buf.put_i64(end.end_offset);
        self.no_tagged_fields();
    }

    /// The count of an array or the length of bytes.
    fn count(&mut self, count: Option<usize>) {
        // Every count is that of a request that arrived, every length below `limits.fetch_bytes_max`: both fit.
        if self.flexible {
            self.varint(count.map_or(0, |count| count as u32 + 1));
        } else {
            self.buf.put_i32(count.map_or(-1, |count| count as i32));
        }
    }

    fn text(&mut self, text: &str) {
        if self.flexible {
            self.varint(text.len() as u32 + 1);
        } else {
            // A name that came from a request or passed the check of names.
            self.buf.put_i16(text.len() as i16);
        }
        self.buf.put_slice(text.as_bytes());
    }

    fn varint(&mut self, mut value: u32) {
        while value >= 0x80 {
            self.buf.put_u8(value as u8 | 0x80);
            value >>= 7;
        }
        self.buf.put_u8(value as u8);
    }

    /// F2: fields at their default are not written.
    fn no_tagged_fields(&mut self) {
        if self.flexible {
            self.buf.put_u8(0);
        }
    }

    fn finish(mut self) -> Response {
        self.pieces.push(self.buf.freeze());
        Response::of(self.pieces)
    }
}

#[cfg(test)]
mod tests {
    use kafka_protocol::{
        messages::{ApiKey, FetchResponse, ResponseHeader},
        protocol::Decodable,
    };

    use super::*;

    fn topics() -> Vec<FetchedTopic> {
        let partition = |index, error_code, records: Vec<Bytes>| FetchedPartition {
            index,
            error_code,
            high_watermark: 300,
            last_stable_offset: 200,
            log_start_offset: 100,
            aborted: (index == 1).then(|| vec![(9, 150)]),
            diverging: (index == 8).then_some(EpochEnd {
                epoch: 4,
                end_offset: 170,
            }),
            leader: (index == 7).then_some((2, 6)),
            records,
        };
        let batch = |byte: u8| Bytes::from(vec![byte; 200]);
        vec![
            FetchedTopic {
                name: "a".repeat(249),
                id: Uuid::from_u128(0xa),
                partitions: vec![
                    partition(0, 0, vec![batch(1), batch(2)]),
                    partition(1, 0, vec![]),
                ],
            },
            FetchedTopic {
                name: "b".into(),
                id: Uuid::from_u128(0xb),
                partitions: vec![partition(7, 1, vec![]), partition(8, 0, vec![batch(3)])],
            },
        ]
    }

    #[test]
    fn the_codec_reads_every_version_back() {
        for version in 4..=18 {
            let head = Head {
                key: ApiKey::Fetch,
                version,
                correlation_id: 5,
            };
            let leader = Endpoint {
                id: 2,
                host: "host".into(),
                port: 9093,
            };
            let response = encode(head, 0, topics(), vec![leader]);
            let mut bytes = Bytes::from(response.pieces.concat());
            let header_version = ApiKey::Fetch.response_header_version(version);
            let header = ResponseHeader::decode(&mut bytes, header_version).unwrap();
            assert_eq!(header.correlation_id, 5);
            let found = FetchResponse::decode(&mut bytes, version).unwrap();
            assert!(bytes.is_empty(), "{version}");
            assert_eq!(found.session_id, 0);
            assert_eq!(found.responses.len(), 2);
            let first = &found.responses[0];
            let ids = version >= IDS;
            assert_eq!(first.topic.len(), if ids { 0 } else { 249 });
            assert_eq!(first.topic_id.as_u128(), if ids { 0xa } else { 0 });
            let nodes = &found.node_endpoints;
            let nodes: Vec<_> = nodes
                .iter()
                .map(|node| (node.node_id.0, node.port))
                .collect();
            let told = version >= ENDPOINTS;
            assert_eq!(nodes, if told { vec![(2, 9093)] } else { vec![] });
            let leader = &found.responses[1].partitions[0].current_leader;
            let leader = (leader.leader_id.0, leader.leader_epoch);
            assert_eq!(leader, if told { (2, 6) } else { (-1, -1) });
            let records = first.partitions[0].records.as_ref().unwrap();
            assert_eq!(records[..], [[1; 200], [2; 200]].concat());
            assert_eq!(first.partitions[0].aborted_transactions, None);
            let second = &first.partitions[1];
            assert_eq!(second.records.as_ref().map(Bytes::len), Some(0));
            let aborted = second.aborted_transactions.as_ref().unwrap();
            assert_eq!(
                (aborted[0].producer_id.0, aborted[0].first_offset),
                (9, 150)
            );
            let third = &found.responses[1].partitions[0];
            assert_eq!((third.partition_index, third.error_code), (7, 1));
            assert_eq!((third.high_watermark, third.last_stable_offset), (300, 200));
            assert_eq!(third.log_start_offset, if version >= 5 { 100 } else { -1 });
            let ends = found.responses.iter().flat_map(|topic| &topic.partitions);
            let ends = ends.map(|partition| &partition.diverging_epoch);
            let ends: Vec<_> = ends.map(|end| (end.epoch, end.end_offset)).collect();
            let told = if version >= 12 { (4, 170) } else { (-1, -1) };
            assert_eq!(ends, [(-1, -1), (-1, -1), (-1, -1), told]);
        }
    }
}
