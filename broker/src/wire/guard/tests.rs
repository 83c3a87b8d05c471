//! Every length of a request is checked before the codec sees it.

use bytes::{Bytes, BytesMut};
use kafka_protocol::{
    messages::{ApiKey, FetchRequest, InitProducerIdRequest, TopicName, TransactionalId},
    protocol::{Decodable, Encodable, StrBytes},
};
use proptest::prelude::*;

use super::*;
use crate::wire::apis::{self, APIS, Api};

mod admin;
mod groups;
mod records;
mod topics;
mod transactions;

/// How requests of one API are made and read, for these tests.
struct Row {
    key: ApiKey,
    /// A request in which every field that the version has is filled.
    filled: fn(i16) -> Bytes,
    decode: fn(&mut Bytes, i16) -> Result<(), String>,
    /// The largest structure of an array in it.
    element_bytes: usize,
}

/// Every API that is served, in the file of its kind: the guard is only as good as these lists.
const ROWS: &[&[Row]] = &[
    admin::ROWS,
    groups::ROWS,
    records::ROWS,
    topics::ROWS,
    transactions::ROWS,
];

const fn row<M: Decodable>(key: ApiKey, filled: fn(i16) -> Bytes, element_bytes: usize) -> Row {
    Row {
        key,
        filled,
        decode: |body, version| {
            let decoded = M::decode(body, version);
            decoded.map(drop).map_err(|error| error.to_string())
        },
        element_bytes,
    }
}

fn row_of(api: &Api) -> &'static Row {
    let mut rows = ROWS.iter().copied().flatten();
    let found = rows.find(|row| row.key == api.key);
    found.unwrap_or_else(|| panic!("{:?} has no row in guard/tests", api.key))
}

/// The largest of some sizes.
const fn largest<const N: usize>(sizes: [usize; N]) -> usize {
    let (mut most, mut at) = (0, 0);
    while at < N {
        if sizes[at] > most {
            most = sizes[at];
        }
        at += 1;
    }
    most
}

fn text(text: &'static str) -> StrBytes {
    StrBytes::from_static_str(text)
}

fn name(name: &'static str) -> TopicName {
    TopicName(text(name))
}

fn encoded(message: &impl Encodable, version: i16) -> Bytes {
    let mut buf = BytesMut::new();
    message.encode(&mut buf, version).unwrap();
    buf.freeze()
}

fn filled(api: &Api, version: i16) -> Bytes {
    (row_of(api).filled)(version)
}

/// Decodes with the codec; an array that the guard let pass with a forged count would end the test process here.
fn decode(api: &Api, version: i16, mut body: Bytes) -> Result<usize, String> {
    (row_of(api).decode)(&mut body, version)?;
    Ok(body.len())
}

fn guarded(api: &Api, version: i16, body: &[u8]) -> Result<usize, Refusal> {
    check(api.layout, version, api.is_flexible(version), body)
}

/// Where the walk ends: the shortest prefix that it accepts.
fn walked(api: &Api, version: i16, body: &[u8]) -> usize {
    (0..=body.len())
        .find(|&len| guarded(api, version, &body[..len]).is_ok())
        .unwrap()
}

#[test]
fn the_walk_of_every_request_in_every_version_ends_where_the_codec_ends() {
    for api in APIS {
        for version in api.accepted.clone() {
            let body = filled(api, version);
            assert_eq!(decode(api, version, body.clone()), Ok(0));
            assert_eq!(
                walked(api, version, &body),
                body.len(),
                "{:?} v{version}",
                api.key
            );
        }
    }
}

#[test]
fn forged_counts_of_a_few_bytes_are_refused() {
    let check = |key: ApiKey, version, body: &[u8]| {
        let api = apis::find(key as i16).unwrap();
        assert!(guarded(api, version, body).is_err(), "{key:?} v{version}");
    };
    // Four bytes: 2^31 - 1 topics.
    check(ApiKey::Metadata, 1, &[0x7f, 0xff, 0xff, 0xff]);
    // Twelve bytes: no transactional id, acks, timeout, 2^31 - 1 topics.
    let produce = [0xff, 0xff, 0xff, 0xff, 0, 0, 0, 1, 0x7f, 0xff, 0xff, 0xff];
    check(ApiKey::Produce, 7, &produce);
    // A varint of 2^32 - 1: that many topics but one.
    check(ApiKey::Metadata, 12, &[0xff, 0xff, 0xff, 0xff, 0x0f]);
    check(ApiKey::DeleteTopics, 6, &[0xff, 0xff, 0xff, 0xff, 0x0f]);
    check(ApiKey::CreateTopics, 2, &[0x7f, 0xff, 0xff, 0xff]);
}

#[test]
fn every_length_and_count_forged_one_at_a_time_never_reaches_the_codec_unchecked() {
    for api in APIS {
        for version in api.accepted.clone() {
            let body = filled(api, version);
            for at in 0..body.len() {
                for forged in [
                    [0x7f, 0xff, 0xff, 0xff],
                    [0xff, 0xff, 0xff, 0x0f],
                    [0x80; 4],
                ] {
                    let mut bytes = body.to_vec();
                    let end = (at + 4).min(bytes.len());
                    bytes[at..end].copy_from_slice(&forged[..end - at]);
                    if guarded(api, version, &bytes).is_ok() {
                        let _ = decode(api, version, bytes.into());
                    }
                }
            }
        }
    }
}

#[test]
fn a_number_of_more_than_32_bits_is_refused() {
    // The codec drops the bits above; the walk must not disagree with it about the rest.
    let api = apis::find(ApiKey::Metadata as i16).unwrap();
    let bytes = [0x80, 0x80, 0x80, 0x80, 0x10, 0, 0, 0];
    assert_eq!(guarded(api, 12, &bytes), Err(Refusal::Overlong));
}

#[test]
fn a_known_tagged_field_of_another_size_is_refused() {
    let api = apis::find(ApiKey::Fetch as i16).unwrap();
    let mut body = encoded(&FetchRequest::default(), 12).to_vec();
    assert_eq!(body.pop(), Some(0)); // no tagged fields
    body.extend_from_slice(&[1, 0, 5, 2, b'c', 0, 0, 0]); // cluster id: 2 bytes in 5
    let refused = Refusal::TaggedSize { tag: 0, extra: 3 };
    assert_eq!(guarded(api, 12, &body), Err(refused));
}

#[test]
fn a_compact_text_is_no_longer_than_others_can_be() {
    let api = apis::find(ApiKey::InitProducerId as i16).unwrap();
    let request = |len: usize| {
        let id = TransactionalId(StrBytes::from_string("a".repeat(len)));
        let request = InitProducerIdRequest::default().with_transactional_id(Some(id));
        guarded(api, 4, &encoded(&request, 4))
    };
    assert_eq!(request(32_767), Ok(0));
    assert_eq!(request(32_768), Err(Refusal::LongText(32_768)));
}

#[test]
fn more_elements_than_the_limit_are_refused_even_if_they_are_there() {
    let api = apis::find(ApiKey::DeleteTopics as i16).unwrap();
    let request = |count: usize| {
        let mut body = (count as u32).to_be_bytes().to_vec();
        body.resize(4 + 2 * count + 4, 0);
        body
    };
    assert_eq!(guarded(api, 1, &request(ELEMENTS_MAX)), Ok(ELEMENTS_MAX));
    assert_eq!(
        guarded(api, 1, &request(ELEMENTS_MAX + 1)),
        Err(Refusal::TooMany)
    );
}

#[test]
fn an_element_costs_no_more_than_it_is_charged() {
    for row in ROWS.iter().copied().flatten() {
        assert!(row.element_bytes <= ELEMENT_BYTES, "{:?}", row.key);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    #[test]
    fn arbitrary_bytes_are_refused_or_decoded_in_bounds(
        index in 0..APIS.len(),
        step in 0i16..16,
        body in proptest::collection::vec(prop_oneof![3 => 0u8..4, 1 => any::<u8>()], 0..200),
    ) {
        let api = &APIS[index];
        let versions = api.accepted.end() - api.accepted.start() + 1;
        let version = api.accepted.start() + step % versions;
        if guarded(api, version, &body).is_ok() {
            let end = walked(api, version, &body);
            // What the codec still refuses is text that is not UTF-8 or a null where none may be.
            if let Ok(rest) = decode(api, version, Bytes::from(body.clone())) {
                prop_assert_eq!(rest, body.len() - end);
            }
        }
    }
}
