//! One entry of the metadata log. `docs/format.md` §Metadata.
//!
//! `entry.previous == hash(entry before)`, and `entry.index == index before + 1` (M8). An entry is decided as a whole by one state, in one order.

use std::fmt;

use bytes::Bytes;
use sha2::{Digest, Sha256};

use super::{
    command::{Command, LogRegistration},
    wire::{self, Reader, Wire, WireError, Writer, wire_enum, wire_struct},
};
use crate::{Error, NodeEpoch, NodeId, Result};

/// The version of an entry's bytes.
const ENTRY_VERSION: u8 = 1;

/// A sha256 over an entry's bytes, hence over all that went before (M8).
#[derive(Clone, Copy, PartialEq, Eq, Default)]
pub struct EntryHash(pub(crate) [u8; 32]);

impl fmt::Display for EntryHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Enough to compare by eye.
        for byte in &self.0[..8] {
            write!(f, "{byte:02x}")?;
        }
        Ok(())
    }
}

impl fmt::Debug for EntryHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "EntryHash({self})")
    }
}

impl Wire for EntryHash {
    const LEAST: usize = 32;
    fn put(&self, out: &mut Writer) {
        self.0.put(out);
    }
    fn get(from: &mut Reader<'_>) -> Result<Self, WireError> {
        Ok(Self(Wire::get(from)?))
    }
}

/// Where a log stands: its newest entry. An empty log has index 0 and the zero hash.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Tip {
    /// Index of the newest entry; the first is 1.
    pub index: u64,
    /// Its hash.
    pub hash: EntryHash,
}
wire_struct!(Tip { index, hash });

/// A node's first command of a life: it gets an epoch (M5).
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Registration {
    /// The node.
    pub node: NodeId,
    /// 128 random bits from process start.
    pub incarnation: u128,
    /// This incarnation's count of its own registrations, from 1.
    pub attempt: u64,
    /// The log the node will write, if it will.
    pub log: Option<LogRegistration>,
}
wire_struct!(Registration {
    node,
    incarnation,
    attempt,
    log
});

/// All later commands: one batch outstanding per node (M5).
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Batch {
    /// The node.
    pub node: NodeId,
    /// Its epoch: a stale one is refused as a whole (M2).
    pub epoch: NodeEpoch,
    /// 1 for the first batch of an epoch, then one more each; a repeated one gets the first answers.
    pub sequence: u64,
    /// Decided in order.
    pub commands: Vec<Command>,
}
wire_struct!(Batch {
    node,
    epoch,
    sequence,
    commands
});

/// What an entry asks.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum Body {
    /// A node's life begins.
    Register(Registration),
    /// Commands of a registered node.
    Batch(Batch),
}
// Persisted: never renumber.
wire_enum!(Body as "entry body" { 1 => Register(registration), 2 => Batch(batch) });

/// One entry: what comes before it, and what it asks.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Entry {
    /// One more than the entry before.
    pub index: u64,
    /// The hash of the entry before.
    pub previous: EntryHash,
    /// What it asks.
    pub body: Body,
}

impl Entry {
    /// The entry that follows `tip`.
    pub fn after(tip: Tip, body: Body) -> Self {
        Self {
            index: tip.index + 1,
            previous: tip.hash,
            body,
        }
    }

    /// The entry's bytes.
    pub fn encode(&self) -> EncodedEntry {
        let mut out = Writer::default();
        out.raw(&[ENTRY_VERSION]);
        out.raw(&self.index.to_be_bytes());
        self.previous.put(&mut out);
        self.body.put(&mut out);
        EncodedEntry::new(self.index, self.previous, Bytes::from(out.into_vec()))
    }
}

/// An entry's bytes, with what a sequencer needs to know of them.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct EncodedEntry {
    index: u64,
    previous: EntryHash,
    hash: EntryHash,
    bytes: Bytes,
}

impl EncodedEntry {
    fn new(index: u64, previous: EntryHash, bytes: Bytes) -> Self {
        let hash = EntryHash(Sha256::digest(&bytes).into());
        Self {
            index,
            previous,
            hash,
            bytes,
        }
    }

    /// Reads the fixed part: enough to check the chain.
    pub fn parse(bytes: Bytes) -> Result<Self> {
        let mut reader = Reader::new(&bytes);
        let fixed = |reader: &mut Reader<'_>| -> Result<_, WireError> {
            let [version] = reader.array()?;
            let index = u64::from_be_bytes(reader.array()?);
            Ok((version, index, EntryHash::get(reader)?))
        };
        let (version, index, previous) = fixed(&mut reader)
            .map_err(|error| Error::corrupt("metadata entry").caused_by(error))?;
        if version != ENTRY_VERSION {
            return Err(Error::invalid(
                "metadata entry of a newer format: this version must be upgraded",
            )
            .with("format", version)
            .with("known", ENTRY_VERSION)
            .with("index", index));
        }
        Ok(Self::new(index, previous, bytes))
    }

    /// Reads all of it. An unknown command is `Invalid`: the node must stop, not guess (M7).
    pub fn decode(&self) -> Result<Entry> {
        let body = self.bytes.slice(1 + 8 + 32..);
        match wire::decode::<Body>(&body) {
            Ok(body) => Ok(Entry {
                index: self.index,
                previous: self.previous,
                body,
            }),
            Err(error @ WireError::UnknownTag { .. }) => Err(Error::invalid(
                "metadata entry written by a newer version: this version must be upgraded",
            )
            .with("index", self.index)
            .caused_by(error)),
            Err(error) => Err(Error::corrupt("metadata entry")
                .with("index", self.index)
                .caused_by(error)),
        }
    }

    /// Its index.
    pub fn index(&self) -> u64 {
        self.index
    }

    /// The hash of the entry before.
    pub fn previous(&self) -> EntryHash {
        self.previous
    }

    /// The log's tip when this is its newest entry.
    pub fn tip(&self) -> Tip {
        Tip {
            index: self.index,
            hash: self.hash,
        }
    }

    /// The bytes.
    pub fn bytes(&self) -> &Bytes {
        &self.bytes
    }

    /// Whether it follows `tip` (M8).
    pub fn follows(&self, tip: Tip) -> bool {
        tip.index.checked_add(1) == Some(self.index) && tip.hash == self.previous
    }
}
