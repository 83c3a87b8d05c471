//! Walking the records of a batch, compressed or not, in constant memory.
//!
//! A length or count in a record is checked against the bytes that are left before it is followed; no count is used
//! for an allocation. Keys, values and headers are skipped, not kept. Text is not checked for being UTF-8, as Kafka
//! does not.

use std::io::{self, BufRead, BufReader, Read};
use std::ops::ControlFlow;

use crate::compress::{Codec, DecodeFault};
use crate::error::LogError;

/// Bytes buffered between a codec and the walk.
const BUFFER_BYTES: usize = 16 * 1024;

/// What the walk tells of a record.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct RecordHead {
    /// Relative to the base timestamp of the batch, in milliseconds.
    pub timestamp_delta: i64,
    /// Relative to the base offset of the batch.
    pub offset_delta: i32,
    /// Whether the record has a key; an empty key is one.
    pub has_key: bool,
}

/// Visits `count` records in `bytes`; see [`crate::Batch::visit_records`].
pub(crate) fn walk(
    codec: Codec,
    bytes: &[u8],
    count: i32,
    decompressed_bytes_max: u64,
    visit: impl FnMut(u32, RecordHead) -> ControlFlow<()>,
) -> Result<(), LogError> {
    let walked = if codec == Codec::None {
        visit_all(SliceSource { bytes, at: 0 }, count, visit)
    } else {
        codec
            .decoder(bytes, decompressed_bytes_max)
            .map_err(Fault::Decode)
            .and_then(|decoder| {
                let source = ReadSource {
                    reader: BufReader::with_capacity(BUFFER_BYTES, decoder),
                    at: 0,
                    max: decompressed_bytes_max,
                };
                visit_all(source, count, visit)
            })
    };
    walked.map_err(|fault| match fault {
        Fault::Invalid(what) => LogError::invalid_record(what),
        Fault::Decode(DecodeFault::TooLarge { len }) => LogError::MessageTooLarge {
            len,
            max: decompressed_bytes_max,
        },
        Fault::Decode(DecodeFault::Damaged(reason)) => LogError::Undecodable { codec, reason },
    })
}

fn visit_all(
    mut source: impl Source,
    count: i32,
    mut visit: impl FnMut(u32, RecordHead) -> ControlFlow<()>,
) -> Result<(), Fault> {
    for index in 0..u32::try_from(count).unwrap_or(0) {
        let head = read_record(&mut source)?;
        if visit(index, head).is_break() {
            return Ok(());
        }
    }
    if source.is_at_end()? {
        Ok(())
    } else {
        Err(Fault::Invalid("bytes are left over after the last record"))
    }
}

enum Fault {
    Invalid(&'static str),
    Decode(DecodeFault),
}

fn read_record(source: &mut impl Source) -> Result<RecordHead, Fault> {
    let len = match varint(source, u64::MAX)? {
        len if len >= 0 => len as u64,
        _ => return Err(Fault::Invalid("negative record length")),
    };
    let end = source.at() + len;
    source.expect(len)?;
    let _attributes = byte(source, end)?;
    let timestamp_delta = varlong(source, end)?;
    let offset_delta = varint(source, end)?;
    let has_key = skip_field(source, end, Null::Allowed)?;
    skip_field(source, end, Null::Allowed)?;
    let headers = match varint(source, end)? {
        count if count >= 0 => count as u64,
        _ => return Err(Fault::Invalid("negative header count")),
    };
    if headers > end - source.at() {
        return Err(Fault::Invalid("more headers than bytes"));
    }
    for _ in 0..headers {
        skip_field(source, end, Null::Refused)?;
        skip_field(source, end, Null::Allowed)?;
    }
    if source.at() != end {
        return Err(Fault::Invalid("record length does not match its fields"));
    }
    Ok(RecordHead {
        timestamp_delta,
        offset_delta,
        has_key,
    })
}

#[derive(PartialEq)]
enum Null {
    Allowed,
    Refused,
}

/// Skips a field with its length; false if it is null.
fn skip_field(source: &mut impl Source, end: u64, null: Null) -> Result<bool, Fault> {
    match varint(source, end)? {
        -1 if null == Null::Allowed => Ok(false),
        len if len >= 0 && len as u64 <= end - source.at() => {
            source.skip(len as u64)?;
            Ok(true)
        }
        _ => Err(Fault::Invalid("field length outside its record")),
    }
}

fn byte(source: &mut impl Source, end: u64) -> Result<u8, Fault> {
    if source.at() >= end {
        return Err(Fault::Invalid("record ends within a field"));
    }
    source.byte()
}

fn varint(source: &mut impl Source, end: u64) -> Result<i32, Fault> {
    let mut value = 0u32;
    for shift in (0..35).step_by(7) {
        let byte = byte(source, end)?;
        value |= u32::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Ok((value >> 1) as i32 ^ -((value & 1) as i32));
        }
    }
    Err(Fault::Invalid("varint of more than 5 bytes"))
}

fn varlong(source: &mut impl Source, end: u64) -> Result<i64, Fault> {
    let mut value = 0u64;
    for shift in (0..70).step_by(7) {
        let byte = byte(source, end)?;
        value |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Ok((value >> 1) as i64 ^ -((value & 1) as i64));
        }
    }
    Err(Fault::Invalid("varlong of more than 10 bytes"))
}

/// Bytes in order; a slice, or a codec's output that is never held whole.
trait Source {
    /// How many bytes were taken.
    fn at(&self) -> u64;
    /// Refuses early when it is known that fewer than `len` bytes are left.
    fn expect(&self, len: u64) -> Result<(), Fault>;
    fn byte(&mut self) -> Result<u8, Fault>;
    fn skip(&mut self, len: u64) -> Result<(), Fault>;
    fn is_at_end(&mut self) -> Result<bool, Fault>;
}

const ENDS_EARLY: Fault = Fault::Invalid("the batch ends before its last record");

struct SliceSource<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl Source for SliceSource<'_> {
    fn at(&self) -> u64 {
        self.at as u64
    }

    fn expect(&self, len: u64) -> Result<(), Fault> {
        if len > (self.bytes.len() - self.at) as u64 {
            return Err(ENDS_EARLY);
        }
        Ok(())
    }

    fn byte(&mut self) -> Result<u8, Fault> {
        let byte = *self.bytes.get(self.at).ok_or(ENDS_EARLY)?;
        self.at += 1;
        Ok(byte)
    }

    fn skip(&mut self, len: u64) -> Result<(), Fault> {
        self.expect(len)?;
        self.at += len as usize;
        Ok(())
    }

    fn is_at_end(&mut self) -> Result<bool, Fault> {
        Ok(self.at == self.bytes.len())
    }
}

struct ReadSource<R> {
    reader: BufReader<R>,
    at: u64,
    max: u64,
}

impl<R: Read> ReadSource<R> {
    fn fill(&mut self) -> Result<&[u8], Fault> {
        if self.at > self.max {
            return Err(Fault::Decode(DecodeFault::TooLarge { len: self.at }));
        }
        self.reader
            .fill_buf()
            .map_err(|error: io::Error| Fault::Decode(DecodeFault::Damaged(error.to_string())))
    }
}

impl<R: Read> Source for ReadSource<R> {
    fn at(&self) -> u64 {
        self.at
    }

    fn expect(&self, _len: u64) -> Result<(), Fault> {
        Ok(())
    }

    fn byte(&mut self) -> Result<u8, Fault> {
        let byte = *self.fill()?.first().ok_or(ENDS_EARLY)?;
        self.reader.consume(1);
        self.at += 1;
        Ok(byte)
    }

    fn skip(&mut self, len: u64) -> Result<(), Fault> {
        let mut left = len;
        while left > 0 {
            let held = self.fill()?.len();
            if held == 0 {
                return Err(ENDS_EARLY);
            }
            let step = left.min(held as u64);
            self.reader.consume(step as usize);
            self.at += step;
            left -= step;
        }
        Ok(())
    }

    fn is_at_end(&mut self) -> Result<bool, Fault> {
        Ok(self.fill()?.is_empty())
    }
}
