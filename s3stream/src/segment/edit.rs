//! Edits: the small changes of a list of segments that are kept in its meta stream. `docs/format.md` §segment edits.
//!
//! One record holds one or more edits, which apply together or not at all (W4). `decode(encode(x)) == x`. An unknown
//! version or kind is refused: a reader that skipped an edit would have another log. Whether an edit makes sense is
//! `list`'s to say.

use std::ops::Range;

use bytes::{BufMut, Bytes};

use super::Segment;
use super::codec::{Reader, put_bytes, put_segment};
use crate::{Error, Result, StreamId};

const VERSION: u8 = 2;

// Persisted: never renumber.
const BEGIN: u8 = 1;
const SEAL: u8 = 2;
const TRIM: u8 = 3;
const REPLACE: u8 = 4;
const ANNOTATE: u8 = 5;
const CHECKPOINT: u8 = 6;
const STATE: u8 = 7;

/// One change of a list of segments.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Edit {
    /// A new active segment at `base`, whose one slice starts at `start` of `stream`.
    Begin {
        base: u64,
        stream: StreamId,
        start: u64,
    },
    /// The active segment ends at `end`.
    Seal { end: u64, attributes: Bytes },
    /// The log starts at `start`.
    Trim { start: u64 },
    /// The segments that make up `run` are replaced.
    Replace {
        run: Range<u64>,
        segments: Vec<Segment>,
    },
    /// A note to the active segment.
    Annotate { note: Bytes },
    /// A change of the state that the owner of the log keeps; nothing of the list.
    State { change: Bytes },
    /// One of `count` parts that together are the owner's state and the whole list; see `list`.
    Checkpoint { index: u32, count: u32, part: Bytes },
}

/// The record that holds `edits`.
pub(super) fn encode(edits: &[Edit]) -> Vec<u8> {
    let mut out = vec![VERSION];
    for edit in edits {
        let mut body = Vec::new();
        let kind = edit.put(&mut body);
        out.put_u8(kind);
        put_bytes(&mut out, &body);
    }
    out
}

/// The edits of a record.
pub(super) fn decode(record: Bytes) -> Result<Vec<Edit>> {
    let mut reader = Reader::new(record);
    let version = reader.u8()?;
    if version != VERSION {
        return Err(Error::corrupt("segment edits of an unknown version")
            .with("version", version)
            .with("known", VERSION));
    }
    let mut edits = Vec::new();
    while !reader.is_empty() {
        let kind = reader.u8()?;
        let mut body = Reader::new(reader.bytes()?);
        edits.push(Edit::take(kind, &mut body)?);
        if !body.is_empty() {
            return Err(Error::corrupt("segment edit is longer than its fields").with("kind", kind));
        }
    }
    if edits.is_empty() {
        return Err(Error::corrupt("segment record without an edit"));
    }
    Ok(edits)
}

impl Edit {
    fn put(&self, out: &mut Vec<u8>) -> u8 {
        match self {
            Self::Begin {
                base,
                stream,
                start,
            } => {
                out.put_u64(*base);
                out.put_u64(stream.get());
                out.put_u64(*start);
                BEGIN
            }
            Self::Seal { end, attributes } => {
                out.put_u64(*end);
                out.put_slice(attributes);
                SEAL
            }
            Self::Trim { start } => {
                out.put_u64(*start);
                TRIM
            }
            Self::Replace { run, segments } => {
                out.put_u64(run.start);
                out.put_u64(run.end);
                for segment in segments {
                    put_segment(out, segment);
                }
                REPLACE
            }
            Self::Annotate { note } => {
                out.put_slice(note);
                ANNOTATE
            }
            Self::State { change } => {
                out.put_slice(change);
                STATE
            }
            Self::Checkpoint { index, count, part } => {
                out.put_u32(*index);
                out.put_u32(*count);
                out.put_slice(part);
                CHECKPOINT
            }
        }
    }

    fn take(kind: u8, body: &mut Reader) -> Result<Self> {
        Ok(match kind {
            BEGIN => Self::Begin {
                base: body.u64()?,
                stream: StreamId::new(body.u64()?),
                start: body.u64()?,
            },
            SEAL => Self::Seal {
                end: body.u64()?,
                attributes: Bytes::copy_from_slice(&body.rest()),
            },
            TRIM => Self::Trim { start: body.u64()? },
            REPLACE => {
                let run = body.u64()?..body.u64()?;
                let mut segments = Vec::new();
                while !body.is_empty() {
                    segments.push(body.segment()?);
                }
                Self::Replace { run, segments }
            }
            ANNOTATE => Self::Annotate {
                note: Bytes::copy_from_slice(&body.rest()),
            },
            STATE => Self::State {
                change: body.rest(),
            },
            CHECKPOINT => Self::Checkpoint {
                index: body.u32()?,
                count: body.u32()?,
                part: body.rest(),
            },
            kind => {
                return Err(Error::corrupt("segment edit of an unknown kind").with("kind", kind));
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::segment::Slice;

    fn one_of_each() -> Vec<Edit> {
        vec![
            Edit::Seal {
                end: 10,
                attributes: Bytes::from_static(b"at"),
            },
            Edit::Begin {
                base: 10,
                stream: StreamId::new(7),
                start: 12,
            },
            Edit::Trim { start: 3 },
            Edit::Replace {
                run: 0..10,
                segments: vec![Segment {
                    base: 0,
                    end: Some(10),
                    slices: vec![Slice {
                        stream: StreamId::new(9),
                        start: 1,
                        end: Some(11),
                        base: 0,
                    }],
                    attributes: Bytes::from_static(b"x"),
                }],
            },
            Edit::Annotate {
                note: Bytes::from_static(b"n"),
            },
            Edit::Checkpoint {
                index: 1,
                count: 2,
                part: Bytes::from_static(b"pp"),
            },
            Edit::State {
                change: Bytes::from_static(b"st"),
            },
        ]
    }

    #[test]
    fn golden_bytes() {
        let golden = [
            &[2][..],
            &[2, 0, 0, 0, 10, 0, 0, 0, 0, 0, 0, 0, 10, b'a', b't'],
            &[1, 0, 0, 0, 24, 0, 0, 0, 0, 0, 0, 0, 10],
            &[0, 0, 0, 0, 0, 0, 0, 7, 0, 0, 0, 0, 0, 0, 0, 12],
            &[3, 0, 0, 0, 8, 0, 0, 0, 0, 0, 0, 0, 3],
            &[
                4, 0, 0, 0, 73, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 10,
            ],
            &[0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 10, 0, 0, 0, 1],
            &[0, 0, 0, 0, 0, 0, 0, 9, 0, 0, 0, 0, 0, 0, 0, 1],
            &[0, 0, 0, 0, 0, 0, 0, 11, 0, 0, 0, 0, 0, 0, 0, 0],
            &[0, 0, 0, 1, b'x'],
            &[5, 0, 0, 0, 1, b'n'],
            &[6, 0, 0, 0, 10, 0, 0, 0, 1, 0, 0, 0, 2, b'p', b'p'],
            &[7, 0, 0, 0, 2, b's', b't'],
        ]
        .concat();
        assert_eq!(encode(&one_of_each()), golden);
        assert_eq!(decode(golden.into()).unwrap(), one_of_each());
    }

    #[test]
    fn every_prefix_and_every_changed_byte_is_an_error_or_other_edits() {
        let golden = encode(&one_of_each());
        for len in 0..golden.len() {
            if let Ok(edits) = decode(Bytes::copy_from_slice(&golden[..len])) {
                assert!(one_of_each().starts_with(&edits), "{len}");
            }
        }
        for at in 0..golden.len() {
            let mut bytes = golden.clone();
            bytes[at] ^= 0xff;
            if let Ok(edits) = decode(bytes.into()) {
                assert_ne!(edits, one_of_each(), "{at}");
            }
        }
    }

    #[test]
    fn another_version_is_refused() {
        for version in [1, 3] {
            let mut bytes = encode(&[Edit::Trim { start: 1 }]);
            bytes[0] = version;
            let error = decode(bytes.into()).unwrap_err();
            let named = format!("version: {version}");
            assert!(error.to_string().contains(&named), "{error}");
        }
    }
}
