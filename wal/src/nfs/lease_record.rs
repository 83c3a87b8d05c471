//! What a lease file says. `docs/format.md`, "NFS log", "Lease".
//!
//! - A lease file has its name only once all of it is durable, so one that does not decode was damaged.

use std::time::Duration;

use bytes::{Buf, BufMut, Bytes, BytesMut};

use super::config::LEASE_MAX;
use crate::{Error, Identity, LogEpoch, LogUuid};

/// The format this version writes.
pub(crate) const VERSION: u32 = 1;
/// Bytes of a lease file.
pub(crate) const FILE_BYTES: u64 = 4096;
const LEN: usize = 128;
const CRC_AT: usize = LEN - 4;
const MAGIC: [u8; 8] = *b"S3WLEASE";
const RELEASED: u32 = 1;
/// Far below what cannot be counted on.
const NUMBER_MAX: u64 = 1 << 62;

/// One number of the chain.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct LeaseRecord {
    pub(crate) number: u64,
    /// For whom: the log that is opened, and the epoch that was granted.
    pub(crate) identity: Identity,
    pub(crate) epoch: LogEpoch,
    /// Of one opening: tells it from another one of the same epoch.
    pub(crate) nonce: u128,
    /// What the next holder waits before it reads.
    pub(crate) wait: Duration,
    /// The holder acknowledges nothing any more: the next one need not wait.
    pub(crate) released: bool,
}

impl LeaseRecord {
    /// Who holds it, for messages.
    pub(crate) fn holder(&self) -> String {
        format!(
            "epoch {} of {}, lease {}",
            self.epoch, self.identity, self.number
        )
    }

    /// How long its holder may still acknowledge after the next number was made.
    pub(crate) fn left(&self) -> Duration {
        if self.released {
            Duration::ZERO
        } else {
            self.wait
        }
    }

    pub(crate) fn encode(&self) -> Bytes {
        let mut bytes = BytesMut::with_capacity(LEN);
        bytes.put_slice(&MAGIC);
        bytes.put_u32(VERSION);
        bytes.put_u32(if self.released { RELEASED } else { 0 });
        bytes.put_u64(self.number);
        bytes.put_u128(self.identity.cluster);
        bytes.put_u128(self.identity.log.get());
        bytes.put_u64(self.identity.node);
        bytes.put_u64(self.epoch.get());
        bytes.put_u128(self.nonce);
        bytes.put_u64(u64::try_from(self.wait.as_nanos().div_ceil(1_000_000)).unwrap_or(u64::MAX));
        bytes.resize(CRC_AT, 0);
        let crc = crc32c::crc32c(&bytes);
        bytes.put_u32(crc);
        bytes.freeze()
    }

    /// Reads the file of `number`.
    ///
    /// # Errors
    /// `UnknownFormat`; `Invalid` that says what is wrong with it.
    pub(crate) fn decode(place: &str, number: u64, bytes: &[u8]) -> Result<Self, Error> {
        let flaw = |what: String| Error::Invalid(format!("{place}: lease {number}: {what}"));
        let Some(bytes) = bytes.first_chunk::<LEN>() else {
            return Err(flaw(format!("{} bytes", bytes.len())));
        };
        let mut from = &bytes[..];
        let mut magic = [0; 8];
        from.copy_to_slice(&mut magic);
        if magic != MAGIC {
            return Err(flaw("no lease".to_owned()));
        }
        let (covered, mut crc) = bytes.split_at(CRC_AT);
        let (found, expected) = (crc32c::crc32c(covered), crc.get_u32());
        if found != expected {
            return Err(flaw(format!(
                "crc {found:#010x}, expected {expected:#010x}"
            )));
        }
        let version = from.get_u32();
        if version != VERSION {
            return Err(Error::UnknownFormat {
                place: place.to_owned(),
                found: version,
                known: VERSION,
            });
        }
        let flags = from.get_u32();
        let record = Self {
            released: flags == RELEASED,
            number: from.get_u64(),
            identity: Identity {
                cluster: from.get_u128(),
                log: LogUuid::new(from.get_u128()),
                node: from.get_u64(),
            },
            epoch: LogEpoch::new(from.get_u64()),
            nonce: from.get_u128(),
            wait: Duration::from_millis(from.get_u64()),
        };
        let sound = flags & !RELEASED == 0
            && record.number == number
            && (1..=NUMBER_MAX).contains(&number)
            && record.wait <= LEASE_MAX;
        if !sound {
            let (number, wait) = (record.number, record.wait);
            return Err(flaw(format!(
                "flags {flags}, number {number}, wait {wait:?}"
            )));
        }
        Ok(record)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record() -> LeaseRecord {
        LeaseRecord {
            number: 9,
            identity: Identity {
                cluster: 1,
                log: LogUuid::new(2),
                node: 3,
            },
            epoch: LogEpoch::new(4),
            nonce: 5,
            wait: Duration::from_secs(10),
            released: true,
        }
    }

    #[test]
    fn the_bytes_of_version_1_stay() {
        let bytes = record().encode();
        let mut golden = b"S3WLEASE\0\0\0\x01\0\0\0\x01".to_vec();
        for (value, len) in [
            (9, 8),
            (1, 16),
            (2, 16),
            (3, 8),
            (4, 8),
            (5, 16),
            (10_000, 8),
        ] {
            let value: u128 = value;
            golden.extend_from_slice(&value.to_be_bytes()[16 - len..]);
        }
        golden.resize(124, 0);
        golden.extend_from_slice(&crc32c::crc32c(&golden).to_be_bytes());
        assert_eq!(bytes, golden);
        assert_eq!(LeaseRecord::decode("x", 9, &bytes).unwrap(), record());
    }

    #[test]
    fn a_damaged_or_foreign_record_is_refused() {
        let bytes = record().encode();
        for at in 0..bytes.len() {
            let mut bad = bytes.to_vec();
            bad[at] ^= 1;
            let refused = LeaseRecord::decode("x", 9, &bad);
            assert!(
                matches!(refused, Err(Error::Invalid(_))),
                "{at}: {refused:?}"
            );
        }
        for (number, bytes) in [(8, &bytes[..]), (9, &bytes[..127]), (9, &[])] {
            let refused = LeaseRecord::decode("x", number, bytes);
            assert!(matches!(refused, Err(Error::Invalid(_))), "{refused:?}");
        }
        let mut newer = bytes.to_vec();
        newer[11] = 2;
        let crc = crc32c::crc32c(&newer[..124]);
        newer[124..].copy_from_slice(&crc.to_be_bytes());
        let refused = LeaseRecord::decode("x", 9, &newer);
        assert!(matches!(
            refused,
            Err(Error::UnknownFormat { found: 2, .. })
        ));
    }
}
