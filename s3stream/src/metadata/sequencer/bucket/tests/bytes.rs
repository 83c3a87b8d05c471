//! The bytes of the head, and that what decodes has one form.

use super::damage::full_bucket;
use super::*;

#[test]
fn the_head_has_these_bytes() {
    let tip = |index| Tip {
        index,
        hash: Default::default(),
    };
    let object = |name: &str| ObjectRef::of(name.to_owned(), b"bytes");
    let head = Head {
        cluster: CLUSTER,
        sequence: 300,
        swept: 2,
        tip: tip(9),
        snapshot: Some(SnapshotRef {
            tip: tip(5),
            chunks: vec![object("snapshot/a")],
        }),
        segments: vec![SegmentRef {
            after: tip(4),
            tip: tip(7),
            object: object("log/b"),
            large: vec![object("entry/c")],
        }],
        condemned: vec!["log/d".to_owned()],
        inline_after: tip(7),
        inline: vec![
            InlineEntry::Here(Bytes::from_static(b"e")),
            InlineEntry::Object(object("entry/f")),
        ],
    };
    let zeros = "00".repeat(32);
    let hex = |bytes: &[u8]| -> String { bytes.iter().map(|byte| format!("{byte:02x}")).collect() };
    let bytes = head.encode();
    // Split at the hashes, which are zero here.
    let golden = [
        "7333736d68656164010000000000000000000000000000002aac020209",
        "0105",
        "010a736e617073686f742f6105d06e9c920104",
        "07",
        "056c6f672f6205d06e9c920107656e7472792f6305d06e9c9201056c6f672f6407",
        "020101650207656e7472792f6605d06e9c92f5e6bd76",
    ];
    assert_eq!(hex(&bytes), golden.join(&zeros));
    assert_eq!(Head::decode(&bytes, CLUSTER).unwrap(), head);
    for len in 0..bytes.len() {
        assert!(
            Head::decode(&bytes[..len], CLUSTER).is_err(),
            "cut to {len}"
        );
    }
    for at in 0..bytes.len() {
        let mut damaged = bytes.to_vec();
        damaged[at] ^= 1;
        assert!(Head::decode(&damaged, CLUSTER).is_err(), "byte {at}");
    }
}

#[tokio::test]
async fn a_damaged_body_behind_a_right_checksum_is_refused_or_has_one_form() {
    let bucket = full_bucket().await;
    let head = head_of(&bucket).await;
    let segment = head.segments.last().unwrap();
    let path = bucket.path(&format!("metadata/{}", segment.object.name));
    let (segment, _) = bucket.read(&path).await.unwrap().unwrap();
    let again = |bytes: &[u8]| {
        let segment = |entries: Vec<InlineEntry>| head::encode_segment(&entries);
        [
            Head::decode(bytes, CLUSTER).map(|head| head.encode()),
            head::decode_segment(bytes).map(segment),
        ]
    };
    let check = |content: &[u8]| {
        let bytes = [content, &crc32c::crc32c(content).to_be_bytes()].concat();
        let mut decoded = 0;
        for again in again(&bytes) {
            match again {
                Ok(again) => {
                    assert_eq!(again, bytes);
                    decoded += 1;
                }
                Err(error) => assert!(
                    matches!(error.kind(), ErrorKind::Corrupt | ErrorKind::Invalid),
                    "{error}"
                ),
            }
        }
        decoded
    };
    for whole in [head.encode(), segment] {
        let content = &whole[..whole.len() - 4];
        assert_eq!(check(content), 1);
        for len in 0..content.len() {
            assert_eq!(check(&content[..len]), 0, "cut to {len}");
        }
        for at in 0..content.len() {
            for flip in [1, 0x80, 0xff] {
                let mut damaged = content.to_vec();
                damaged[at] ^= flip;
                check(&damaged);
            }
        }
    }
}
