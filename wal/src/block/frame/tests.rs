//! The frame codec: golden bytes, and every flaw by its name.

use super::*;

fn header() -> Header {
    Header {
        salt: salt(LogUuid::new(0x0011_2233_4455_6677_8899_aabb_ccdd_eeff)),
        epoch: LogEpoch::new(3),
        sequence: 7,
        position: 0x0001_0000_0000_2000,
        predecessor_end: 0x0001_0000_0000_1ffd,
        durable_through: 0x0001_0000_0000_0abc,
        body_len: 12,
        records: 2,
        predecessor: 0xdead_beef,
        body_crc: crc32c::crc32c(b"\0\0\0\x03abc\0\0\0\x01d"),
    }
}

fn frame(header: &Header, body: &[u8]) -> Bytes {
    let mut bytes = header.encode().0.to_vec();
    bytes.extend_from_slice(body);
    bytes.resize(4096, 0);
    bytes.into()
}

/// docs/format.md, "Frame", byte for byte. A change here is a new version.
const GOLDEN: [u8; HEADER_LEN] = [
    b'S', b'3', b'W', b'F', 0, 1, 0, 80, // magic, version, header length
    0x88, 0x88, 0x88, 0x88, 0x88, 0x88, 0x88, 0x88, // salt
    0, 0, 0, 0, 0, 0, 0, 3, // epoch
    0, 0, 0, 0, 0, 0, 0, 7, // sequence
    0, 1, 0, 0, 0, 0, 0x20, 0, // position
    0, 1, 0, 0, 0, 0, 0x1f, 0xfd, // predecessor end
    0, 1, 0, 0, 0, 0, 0x0a, 0xbc, // durable through
    0, 0, 0, 12, 0, 0, 0, 2, // body length, records
    0xde, 0xad, 0xbe, 0xef, // predecessor
    0xf1, 0xab, 0xad, 0x19, // body crc
    0, 0, 0, 0, // reserved
    0xef, 0x51, 0xfb, 0xef, // crc
];

#[test]
fn a_frame_of_version_1_keeps_its_bytes() {
    let (bytes, checksum) = header().encode();
    assert_eq!(bytes, GOLDEN, "{bytes:02x?}");
    assert_eq!(Header::decode(&GOLDEN).unwrap(), (header(), checksum));
}

#[test]
fn records_come_back_at_their_positions() {
    let header = header();
    let frame = frame(&header, b"\0\0\0\x03abc\0\0\0\x01d");
    let base = header.position + 80;
    let records = header.records(&frame).unwrap();
    assert_eq!(
        records,
        [(base, Bytes::from("abc")), (base + 7, Bytes::from("d"))]
    );
    assert_eq!(header.records_end(), base + 12);
    assert_eq!(header.end(), header.position + 4096);
}

#[test]
fn every_flipped_bit_of_a_header_is_noticed() {
    for bit in 0..HEADER_LEN * 8 {
        let (mut bytes, _) = header().encode();
        bytes[bit / 8] ^= 1 << (bit % 8);
        assert!(Header::decode(&bytes).is_err(), "bit {bit}");
    }
}

#[test]
fn every_flipped_bit_of_a_body_is_noticed() {
    let header = header();
    for bit in 0..12 * 8 {
        let mut body = *b"\0\0\0\x03abc\0\0\0\x01d";
        body[bit / 8] ^= 1 << (bit % 8);
        let flaw = header.records(&frame(&header, &body)).unwrap_err();
        assert!(matches!(flaw, Flaw::BodyCrc { .. }), "bit {bit}: {flaw}");
    }
}

#[test]
fn a_body_that_contradicts_its_header_is_refused_with_every_checksum_right() {
    for (body, records) in [
        (&b"\0\0\0\0"[..], 1),          // an empty record
        (b"\0\0\0\x05abcd", 1),         // longer than the body
        (b"\xff\xff\xff\xffabcd", 1),   // far longer
        (b"\0\0\0\x01a\0\0", 1),        // half a length
        (b"\0\0\0\x01a\0\0\0\x01b", 1), // more records than announced
        (b"\0\0\0\x01a", u32::MAX),     // fewer: and no allocation from the count
    ] {
        let header = Header {
            body_len: body.len() as u32,
            records,
            body_crc: crc32c::crc32c(body),
            ..header()
        };
        assert_eq!(
            header.records(&frame(&header, body)),
            Err(Flaw::Contradiction),
            "{body:?}"
        );
    }
}

#[test]
fn a_header_that_contradicts_itself_is_refused_with_its_checksum_right() {
    let good = header();
    for bad in [
        Header {
            position: 4097,
            ..good
        },
        Header {
            position: u64::MAX - 4095,
            ..good
        },
        Header {
            durable_through: good.position + 1,
            ..good
        },
        Header {
            predecessor_end: good.position + 1,
            ..good
        },
        Header { records: 0, ..good },
    ] {
        assert_eq!(
            Header::decode(&bad.encode().0),
            Err(Flaw::Contradiction),
            "{bad:?}"
        );
    }
}

#[test]
fn an_unknown_frame_version_is_named() {
    let (mut bytes, _) = header().encode();
    bytes[5] = 9;
    let crc = crc32c::crc32c(&bytes[..76]);
    bytes[76..].copy_from_slice(&crc.to_be_bytes());
    assert_eq!(
        Header::decode(&bytes),
        Err(Flaw::Version {
            version: 9,
            header_len: 80
        })
    );
}
