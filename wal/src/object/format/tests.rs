//! Commits and fences as bytes: golden ones, damaged ones.

use super::*;

fn identity() -> Identity {
    Identity {
        cluster: 1,
        log: LogUuid::new(2),
        node: 3,
    }
}

fn commit() -> (Header, Vec<u8>) {
    let body = b"\0\0\0\x03abc\0\0\0\x01d";
    let header = Header {
        kind: Kind::Commit,
        identity: identity(),
        epoch: LogEpoch::new(4),
        number: 5,
        incarnation: 6,
        writer: LogEpoch::new(4),
        durable_through: (4 << 26) + 200,
        body_len: body.len() as u32,
        records: 2,
        predecessor: 0x0708_090a,
        body_crc: crc32c::crc32c(body),
    };
    let object = [&header.encode().0[..], body].concat();
    (header, object)
}

fn fence() -> (Header, Vec<u8>) {
    let header = Header::fence(&identity(), (LogEpoch::new(4), 5), LogEpoch::new(9), 7);
    let object = header.encode().0.to_vec();
    (header, object)
}

fn golden(tail: &[&[u8]]) -> Vec<u8> {
    let head: [&[u8]; 6] = [
        &1u128.to_be_bytes(),
        &2u128.to_be_bytes(),
        &3u64.to_be_bytes(),
        &4u64.to_be_bytes(),
        &5u64.to_be_bytes(),
        &[],
    ];
    [&head[..], tail].concat().concat()
}

#[test]
fn a_commit_is_the_bytes_of_the_table() {
    let (header, object) = commit();
    let expected = golden(&[
        &6u128.to_be_bytes(),
        &4u64.to_be_bytes(),
        &((4u64 << 26) + 200).to_be_bytes(),
        &12u32.to_be_bytes(),
        &2u32.to_be_bytes(),
        &[7, 8, 9, 10],
        &[0xf1, 0xab, 0xad, 0x19],
        &[0; 4],
        &[0x5d, 0x6c, 0xaf, 0xad],
        b"\0\0\0\x03abc\0\0\0\x01d",
    ]);
    assert_eq!(
        object,
        [b"S3WALOB\n\0\0\0\x01\x01\0\0\0", &expected[..]].concat()
    );
    assert_eq!(Header::decode(&object).unwrap().0, header);
    assert_eq!(header.end(), (5 << 26) + 140);
    let at = (5 << 26) + 128;
    let records = header.records(&Bytes::from(object)).unwrap();
    assert_eq!(records[0], (at, Bytes::from_static(b"abc")));
    assert_eq!(records[1], (at + 7, Bytes::from_static(b"d")));
}

#[test]
fn a_fence_is_the_bytes_of_the_table() {
    let (header, object) = fence();
    let expected = golden(&[
        &7u128.to_be_bytes(),
        &9u64.to_be_bytes(),
        &[0; 28],
        &[0x6f, 0xa0, 0x74, 0x62],
    ]);
    assert_eq!(
        object,
        [b"S3WALOB\n\0\0\0\x01\x02\0\0\0", &expected[..]].concat()
    );
    assert_eq!(Header::decode(&object).unwrap().0, header);
}

#[test]
fn every_flipped_bit_and_every_cut_is_noticed() {
    for (_, object) in [commit(), fence()] {
        for bit in 0..object.len() * 8 {
            let mut bad = object.clone();
            bad[bit / 8] ^= 1 << (bit % 8);
            assert!(Header::decode(&bad).is_err(), "bit {bit}");
        }
        for len in 0..object.len() {
            assert!(Header::decode(&object[..len]).is_err(), "{len} bytes");
        }
    }
}

#[test]
fn a_header_that_contradicts_itself_is_refused_though_its_checksum_is_right() {
    let (good, _) = commit();
    let body = b"\0\0\0\x03abc\0\0\0\x01d";
    for bad in [
        Header {
            number: NUMBER_MAX + 1,
            ..good.clone()
        },
        Header {
            writer: LogEpoch::new(5),
            ..good.clone()
        },
        Header {
            records: 0,
            ..good.clone()
        },
        Header {
            durable_through: (5 << 26) + 1,
            ..good.clone()
        },
    ] {
        let object = [&bad.encode().0[..], body].concat();
        assert_eq!(Header::decode(&object), Err(Flaw::Contradiction), "{bad:?}");
    }
    let (good, _) = fence();
    for bad in [
        Header {
            writer: good.epoch,
            ..good.clone()
        },
        Header {
            predecessor: 1,
            ..good.clone()
        },
    ] {
        let refused = Header::decode(&bad.encode().0);
        assert_eq!(refused, Err(Flaw::Contradiction), "{bad:?}");
    }
}

#[test]
fn an_object_of_another_place_and_one_of_a_later_version_are_told() {
    let (header, object) = commit();
    header.is_at(&identity(), (LogEpoch::new(4), 5)).unwrap();
    let other = Identity {
        node: 4,
        ..identity()
    };
    for (identity, at) in [
        (&other, (LogEpoch::new(4), 5)),
        (&identity(), (LogEpoch::new(5), 5)),
        (&identity(), (LogEpoch::new(4), 6)),
    ] {
        let refused = header.is_at(identity, at);
        assert!(
            matches!(refused, Err(Flaw::Elsewhere { .. })),
            "{refused:?}"
        );
    }
    let mut later = object;
    later[11] = 2;
    sealed::seal(later.first_chunk_mut::<HEADER_LEN>().unwrap());
    assert_eq!(Header::decode(&later), Err(Flaw::Version(2)));
}

#[test]
fn lengths_of_records_that_do_not_add_up_are_refused() {
    for (body, records) in [
        (&b"\0\0\0\x04abc"[..], 1),
        (b"\0\0\0\0", 1),
        (b"\0\0\0\x01a\0\0", 1),
        (b"\0\0\0\x01a", 2),
    ] {
        let (good, _) = commit();
        let header = Header {
            body_len: body.len() as u32,
            body_crc: crc32c::crc32c(body),
            records,
            ..good
        };
        let object = Bytes::from([&header.encode().0[..], body].concat());
        let (header, _) = Header::decode(&object).unwrap();
        assert_eq!(
            header.records(&object),
            Err(Flaw::Contradiction),
            "{body:?}"
        );
    }
}
