//! What the log says of itself, in the file `label`, replaced as a whole.
//!
//! | offset | size | what |
//! |---:|---:|---|
//! | 0 | 8 | `dirlabel` |
//! | 8 | 4 | format version, 1 |
//! | 12 | 1 | 1 if an epoch was started |
//! | 13 | 1 | 1 if nothing is owed |
//! | 14 | 16 | cluster |
//! | 30 | 16 | log |
//! | 46 | 8 | node |
//! | 54 | 8 | the newest started epoch, or 0 |
//! | 62 | 8 | a position that the log's end is not below |
//! | 70 | 4 | crc32c of all before |
//!
//! Numbers are big-endian.

use bytes::{Buf, BufMut};
use s3stream::wal::{Claim, Error, Identity, LogEpoch, LogUuid, Position};

use super::directory::Directory;

const NAME: &str = "label";
const MAGIC: &[u8; 8] = b"dirlabel";
const VERSION: u32 = 1;

#[derive(Clone, Debug)]
pub(super) struct Label {
    pub(super) identity: Identity,
    pub(super) epoch: Option<LogEpoch>,
    /// Nothing is owed: never started, or closed when all was trimmed.
    pub(super) closed: bool,
    pub(super) end: Position,
}

impl Label {
    /// What [`admit`](s3stream::wal::admit) judges.
    pub(super) fn claim(&self) -> Claim {
        Claim {
            identity: self.identity.clone(),
            epoch: self.epoch,
            closed: self.closed,
        }
    }

    pub(super) fn write(&self, directory: &Directory) -> Result<(), Error> {
        let mut bytes = Vec::new();
        bytes.put_slice(MAGIC);
        bytes.put_u32(VERSION);
        bytes.put_u8(self.epoch.is_some().into());
        bytes.put_u8(self.closed.into());
        bytes.put_u128(self.identity.cluster);
        bytes.put_u128(self.identity.log.get());
        bytes.put_u64(self.identity.node);
        bytes.put_u64(self.epoch.unwrap_or_default().get());
        bytes.put_u64(self.end.get());
        let crc = crc32c::crc32c(&bytes);
        bytes.put_u32(crc);
        directory.write(NAME, &bytes)
    }

    /// None in a blank place.
    pub(super) fn read(directory: &Directory) -> Result<Option<Self>, Error> {
        let Some(bytes) = directory.read(NAME)? else {
            // A log that lost its label is not blank.
            return match directory.commits()?.first() {
                None => Ok(None),
                Some(commit) => Err(damaged(format!("{commit} is there, {NAME} is not"))),
            };
        };
        let Some((covered, crc)) = bytes.split_last_chunk::<4>() else {
            return Err(damaged(format!("{NAME} has {} bytes", bytes.len())));
        };
        let mut rest = covered;
        let (magic, version) = (rest.try_get_u64(), rest.try_get_u32());
        if magic != Ok(u64::from_be_bytes(*MAGIC)) {
            return Err(damaged(format!("{NAME} is none of this log")));
        }
        // Before the checksum, which another version may keep elsewhere.
        match version {
            Ok(VERSION) => {}
            found => {
                return Err(Error::UnknownFormat {
                    place: NAME.to_owned(),
                    found: found.unwrap_or_default(),
                    known: VERSION,
                });
            }
        }
        let (found, expected) = (crc32c::crc32c(covered), u32::from_be_bytes(*crc));
        if found != expected {
            return Err(damaged(format!(
                "{NAME} has crc {found:#010x}, expected {expected:#010x}"
            )));
        }
        Self::decode(rest)
            .map(Some)
            .map_err(|e| damaged(format!("{NAME}: {e}")))
    }

    fn decode(mut rest: &[u8]) -> Result<Self, bytes::TryGetError> {
        let (started, closed) = (rest.try_get_u8()?, rest.try_get_u8()?);
        let identity = Identity {
            cluster: rest.try_get_u128()?,
            log: LogUuid::new(rest.try_get_u128()?),
            node: rest.try_get_u64()?,
        };
        let epoch = LogEpoch::new(rest.try_get_u64()?);
        Ok(Self {
            identity,
            epoch: (started != 0).then_some(epoch),
            closed: closed != 0,
            end: Position::new(rest.try_get_u64()?),
        })
    }
}

fn damaged(what: String) -> Error {
    Error::Corrupt {
        position: Position::default(),
        what,
    }
}
