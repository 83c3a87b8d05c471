//! The superblock codec, and which of two copies counts.

use super::*;

fn superblock(sequence: u64) -> Superblock {
    Superblock {
        sequence,
        identity: Identity {
            cluster: 0xc1,
            log: LogUuid::new(0x10_0000),
            node: 0x0d,
        },
        started: Some((LogEpoch::new(5), 0x2000)),
        closed: false,
        tail: 0x1000,
        durable_end: 0x2abc,
        ring: Ring::new(0x10_0000).unwrap(),
        window: 0x8000,
    }
}

/// docs/format.md, "Superblock", byte for byte: bytes 0 to 127 and the checksum. A change here is a new version.
const GOLDEN: [u8; 128] = [
    b'S', b'3', b'W', b'A', b'L', b'S', b'B', b'\n', // magic
    0, 0, 0, 1, 0, 0, 0, 1, // version, flags
    0, 0, 0, 0, 0, 0, 0, 9, // sequence
    0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xc1, // cluster
    0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x10, 0, 0, // log
    0, 0, 0, 0, 0, 0, 0, 0x0d, // node
    0, 0, 0, 0, 0, 0, 0, 5, // epoch
    0, 0, 0, 0, 0, 0, 0x20, 0, // epoch start
    0, 0, 0, 0, 0, 0, 0x10, 0, // tail
    0, 0, 0, 0, 0, 0, 0x2a, 0xbc, // durable end
    0, 0, 0, 0, 0, 0x10, 0, 0, // capacity
    0, 0, 0, 0, 0, 0, 0x80, 0, // window
    0, 0, 0, 0, 0, 2, 0, 0, // ring start
    0, 0, 0x10, 0, 0, 0, 0, 0, // block, reserved
];
const GOLDEN_CRC: u32 = 0xc780_411f;

#[test]
fn a_superblock_of_version_1_keeps_its_bytes() {
    let block = superblock(9).encode();
    assert_eq!(block.len(), 4096);
    assert_eq!(block[..128], GOLDEN);
    assert_eq!(
        block[508..512],
        GOLDEN_CRC.to_be_bytes(),
        "{:02x?}",
        &block[508..512]
    );
    assert!(block[128..508].iter().chain(&block[512..]).all(|b| *b == 0));
    assert_eq!(Superblock::decode(&block), Copy::Valid(superblock(9)));
}

#[test]
fn a_superblock_without_a_started_epoch_reads_back() {
    let made = Superblock {
        started: None,
        closed: true,
        ..superblock(1)
    };
    assert_eq!(Superblock::decode(&made.encode()), Copy::Valid(made));
}

#[test]
fn every_flipped_bit_of_a_superblock_is_noticed() {
    for bit in 0..512 * 8 {
        let mut block = superblock(9).encode().to_vec();
        block[bit / 8] ^= 1 << (bit % 8);
        assert!(
            matches!(Superblock::decode(&block), Copy::Bad(_)),
            "bit {bit}"
        );
    }
}

#[test]
fn the_higher_sequence_counts_and_the_other_copy_is_written_first() {
    // Lesson 10: no clock is in it.
    let (old, new) = (Copy::Valid(superblock(9)), Copy::Valid(superblock(10)));
    for (copies, first) in [([old.clone(), new.clone()], 0), ([new, old], 1)] {
        let copies = Copies::judge("x", copies).unwrap().unwrap();
        assert_eq!((copies.newest.sequence, copies.first), (10, first));
    }
}

#[test]
fn one_damaged_copy_leaves_the_other() {
    let good = Copy::Valid(superblock(9));
    for bad in [Copy::Bad("torn".to_owned()), Copy::Blank] {
        let copies = Copies::judge("x", [bad.clone(), good.clone()])
            .unwrap()
            .unwrap();
        assert_eq!((copies.newest.sequence, copies.first), (9, 0));
        let copies = Copies::judge("x", [good.clone(), bad]).unwrap().unwrap();
        assert_eq!((copies.newest.sequence, copies.first), (9, 1));
    }
}

#[test]
fn two_damaged_copies_are_corrupt_and_two_blank_ones_are_no_log() {
    let torn = Copy::Bad("torn".to_owned());
    let refused = Copies::judge("disk7", [torn, Copy::Blank]).unwrap_err();
    assert!(
        matches!(&refused, Error::Corrupt { what, .. } if what.contains("disk7")),
        "{refused}"
    );
    assert_eq!(
        Copies::judge("x", [Copy::Blank, Copy::Blank]).unwrap(),
        None
    );
}

#[test]
fn a_newer_version_is_refused_even_beside_a_known_one() {
    let mut block = superblock(9).encode().to_vec();
    block[11] = 2;
    let crc = crc32c::crc32c(&block[..508]);
    block[508..512].copy_from_slice(&crc.to_be_bytes());
    let newer = Superblock::decode(&block);
    assert_eq!(newer, Copy::Unknown(2));
    let refused = Copies::judge("x", [Copy::Valid(superblock(8)), newer]).unwrap_err();
    assert!(
        matches!(
            refused,
            Error::UnknownFormat {
                found: 2,
                known: 1,
                ..
            }
        ),
        "{refused}"
    );
}

#[test]
fn fields_that_make_no_sense_are_refused_with_the_checksum_right() {
    for (at, byte) in [
        (15, 0x80),
        (79, 1),
        (80, 0x80),
        (103, 1),
        (104, 1),
        (118, 1),
        (123, 1),
    ] {
        let mut block = superblock(9).encode().to_vec();
        block[at] = byte;
        let crc = crc32c::crc32c(&block[..508]);
        block[508..512].copy_from_slice(&crc.to_be_bytes());
        assert!(
            matches!(Superblock::decode(&block), Copy::Bad(_)),
            "byte {at}"
        );
    }
}

#[test]
fn a_superblock_that_contradicts_itself_is_bad() {
    let bad = [
        Superblock {
            tail: 0x4000,
            ..superblock(9)
        },
        Superblock {
            window: 0x10_1000,
            ..superblock(9)
        },
        superblock(u64::MAX),
    ];
    for superblock in bad {
        let copy = Superblock::decode(&superblock.encode());
        assert!(matches!(copy, Copy::Bad(_)), "{superblock:?}");
    }
    // A tail is a block's start, and all may be trimmed.
    let trimmed = Superblock {
        tail: 0x3000,
        ..superblock(9)
    };
    assert_eq!(Superblock::decode(&trimmed.encode()), Copy::Valid(trimmed));
}
