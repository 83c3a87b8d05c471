//! Walking the records of a batch, compressed or not, in constant memory.
//!
//! A length or count in a record is checked against the bytes that are left before it is followed; no count is used
//! for an allocation. Keys, values and headers are skipped, not kept, but for [`Records`], which go over decompressed
//! bytes. Text is not checked for being UTF-8, as Kafka does not.

use std::io::{BufRead, BufReader, Read};
use std::ops::ControlFlow;

use crate::builder::put_varlong;
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
        visit_all(bytes, count, visit)
    } else {
        codec
            .decoder(bytes, decompressed_bytes_max)
            .map_err(Fault::Decode)
            .and_then(|decoder| {
                let stream = Stream {
                    reader: BufReader::with_capacity(BUFFER_BYTES, decoder),
                    at: 0,
                    max: decompressed_bytes_max,
                };
                visit_all(stream, count, visit)
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

/// Uncompressed records with offset deltas 0, 1, 2 and so on, otherwise as they are.
pub(crate) fn renumbered(bytes: &[u8], count: i32) -> Result<Vec<u8>, LogError> {
    let renumber = || {
        let mut rest = bytes;
        let mut out = Vec::with_capacity(bytes.len());
        let mut record = Vec::new();
        for index in 0..count {
            let len = record_len(&mut rest)?;
            let mut body = rest.get(..len).ok_or(ENDS_EARLY)?;
            rest = &rest[len..];
            let whole = body;
            let _attributes = body.byte()?;
            varlong(&mut body)?;
            let before = whole.len() - body.len();
            varint(&mut body)?;
            record.clear();
            record.extend_from_slice(&whole[..before]);
            put_varlong(&mut record, i64::from(index));
            record.extend_from_slice(body);
            put_varlong(&mut out, record.len() as i64);
            out.extend_from_slice(&record);
        }
        Ok(out)
    };
    renumber().map_err(Fault::of_plain)
}

/// Key and value of the first of some uncompressed records; `None` if there is none with both.
pub(crate) fn first_key_and_value(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let mut rest = bytes;
    let len = record_len(&mut rest).ok()?;
    let mut body = rest.get(..len)?;
    let _attributes = body.byte().ok()?;
    varlong(&mut body).ok()?;
    varint(&mut body).ok()?;
    Some((field(&mut body)?, field(&mut body)?))
}

fn field<'a>(body: &mut &'a [u8]) -> Option<&'a [u8]> {
    let len = usize::try_from(varint(body).ok()?).ok()?;
    let (field, rest) = body.split_at_checked(len)?;
    *body = rest;
    Some(field)
}

/// A record within decompressed bytes, and its parts that compaction goes by.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct RecordView<'a> {
    /// The whole record, its length field included.
    pub(crate) bytes: &'a [u8],
    pub(crate) timestamp_delta: i64,
    pub(crate) offset_delta: i32,
    /// An empty key is one.
    pub(crate) key: Option<&'a [u8]>,
    pub(crate) has_value: bool,
    attributes: u8,
    /// All that follows the timestamp.
    tail: &'a [u8],
}

impl RecordView<'_> {
    /// Appends the record with another timestamp delta, otherwise as it is.
    pub(crate) fn put_with_timestamp_delta(&self, delta: i64, out: &mut Vec<u8>) {
        let len = 1 + varlong_len(delta) + self.tail.len();
        put_varlong(out, len as i64);
        out.push(self.attributes);
        put_varlong(out, delta);
        out.extend_from_slice(self.tail);
    }
}

/// The records of a batch in its decompressed bytes; ends after the first error. What is left over after the last record
/// is one.
pub(crate) struct Records<'a> {
    rest: &'a [u8],
    left: u32,
    ended: bool,
}

impl<'a> Records<'a> {
    pub(crate) fn new(bytes: &'a [u8], count: i32) -> Self {
        Self {
            rest: bytes,
            left: u32::try_from(count).unwrap_or(0),
            ended: false,
        }
    }

    fn record(&mut self) -> Result<Option<RecordView<'a>>, Fault> {
        if self.left == 0 {
            return match self.rest.is_empty() {
                true => Ok(None),
                false => Err(LEFT_OVER),
            };
        }
        self.left -= 1;
        let whole = self.rest;
        let len = record_len(&mut self.rest)?;
        let (body, rest) = self.rest.split_at_checked(len).ok_or(ENDS_EARLY)?;
        self.rest = rest;
        read_view(&whole[..whole.len() - rest.len()], body).map(Some)
    }
}

impl<'a> Iterator for Records<'a> {
    type Item = Result<RecordView<'a>, LogError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.ended {
            return None;
        }
        let next = self.record().map_err(Fault::of_plain).transpose();
        self.ended = !matches!(next, Some(Ok(_)));
        next
    }
}

/// Reads a record whose fields are `body`.
fn read_view<'a>(bytes: &'a [u8], mut body: &'a [u8]) -> Result<RecordView<'a>, Fault> {
    let attributes = body.byte()?;
    let timestamp_delta = varlong(&mut body)?;
    let tail = body;
    let offset_delta = varint(&mut body)?;
    let before_key = body;
    let key = if skip_field(&mut body, Null::Allowed)? {
        let field = &before_key[..before_key.len() - body.len()];
        let digits = field.iter().take_while(|byte| **byte & 0x80 != 0).count();
        Some(&field[digits + 1..])
    } else {
        None
    };
    let has_value = skip_field(&mut body, Null::Allowed)?;
    skip_headers(&mut body)?;
    Ok(RecordView {
        bytes,
        timestamp_delta,
        offset_delta,
        key,
        has_value,
        attributes,
        tail,
    })
}

fn varlong_len(value: i64) -> usize {
    let bits = 64 - (((value << 1) ^ (value >> 63)) as u64 | 1).leading_zeros() as usize;
    bits.div_ceil(7)
}

enum Fault {
    Invalid(&'static str),
    Decode(DecodeFault),
}

impl Fault {
    /// Of records that are not compressed, or not any more.
    fn of_plain(self) -> LogError {
        match self {
            Self::Invalid(what) => LogError::invalid_record(what),
            Self::Decode(_) => LogError::invalid_record("the records are compressed"),
        }
    }
}

const ENDS_EARLY: Fault = Fault::Invalid("the batch ends before its last record");
const LEFT_OVER: Fault = Fault::Invalid("bytes are left over after the last record");
const RECORD_ENDS: Fault = Fault::Invalid("a record ends within a field");

fn visit_all(
    mut source: impl Source,
    count: i32,
    mut visit: impl FnMut(u32, RecordHead) -> ControlFlow<()>,
) -> Result<(), Fault> {
    for index in 0..u32::try_from(count).unwrap_or(0) {
        if visit(index, source.record()?).is_break() {
            return Ok(());
        }
    }
    if source.is_at_end()? {
        Ok(())
    } else {
        Err(LEFT_OVER)
    }
}

/// Records one after the other: a slice, or a codec's output that is never held whole.
trait Source {
    fn record(&mut self) -> Result<RecordHead, Fault>;
    fn is_at_end(&mut self) -> Result<bool, Fault>;
}

/// Bytes of one record, taken from the front.
trait Body {
    fn left(&self) -> u64;
    fn byte(&mut self) -> Result<u8, Fault>;
    /// `len` is at most what is left.
    fn skip(&mut self, len: u64) -> Result<(), Fault>;
}

/// Numbers of at most three bytes, as nearly all are.
trait Short {
    /// Takes one, zig-zag decoded, if it is one.
    fn short_signed(&mut self) -> Option<i32>;
}

impl Short for &[u8] {
    #[inline(always)]
    fn short_signed(&mut self) -> Option<i32> {
        let low = |byte: u8| u32::from(byte & 0x7f);
        let (value, rest) = match *self {
            [a, rest @ ..] if *a < 0x80 => (low(*a), rest),
            [a, b, rest @ ..] if *b < 0x80 => (low(*a) | low(*b) << 7, rest),
            [a, b, c, rest @ ..] if *c < 0x80 => (low(*a) | low(*b) << 7 | low(*c) << 14, rest),
            _ => return None,
        };
        *self = rest;
        Some((value >> 1) as i32 ^ -((value & 1) as i32))
    }
}

/// Reads the fields of a record; there must be nothing behind them.
fn read_fields(body: &mut impl Body) -> Result<RecordHead, Fault> {
    let _attributes = body.byte()?;
    let timestamp_delta = varlong(body)?;
    let offset_delta = varint(body)?;
    let has_key = skip_field(body, Null::Allowed)?;
    skip_field(body, Null::Allowed)?;
    skip_headers(body)?;
    Ok(RecordHead {
        timestamp_delta,
        offset_delta,
        has_key,
    })
}

/// Skips the headers, which end the record.
fn skip_headers(body: &mut impl Body) -> Result<(), Fault> {
    let headers = match varint(body)? {
        count if count >= 0 => count as u64,
        _ => return Err(Fault::Invalid("negative header count")),
    };
    if headers > body.left() {
        return Err(Fault::Invalid("more headers than bytes"));
    }
    for _ in 0..headers {
        skip_field(body, Null::Refused)?;
        skip_field(body, Null::Allowed)?;
    }
    if body.left() > 0 {
        return Err(Fault::Invalid("record length does not match its fields"));
    }
    Ok(())
}

#[derive(PartialEq)]
enum Null {
    Allowed,
    Refused,
}

/// Skips a field with its length; false if it is null.
fn skip_field(body: &mut impl Body, null: Null) -> Result<bool, Fault> {
    match varint(body)? {
        -1 if null == Null::Allowed => Ok(false),
        len if len >= 0 && len as u64 <= body.left() => {
            body.skip(len as u64)?;
            Ok(true)
        }
        _ => Err(Fault::Invalid("field length outside its record")),
    }
}

fn record_len(body: &mut impl Body) -> Result<usize, Fault> {
    match varint(body) {
        Ok(len) if len >= 0 => Ok(len as usize),
        Ok(_) => Err(Fault::Invalid("negative record length")),
        Err(Fault::Invalid(_)) if body.left() == 0 => Err(ENDS_EARLY),
        Err(fault) => Err(fault),
    }
}

fn varint(body: &mut impl Body) -> Result<i32, Fault> {
    let mut value = 0u32;
    for shift in (0..35).step_by(7) {
        let byte = body.byte()?;
        value |= u32::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Ok((value >> 1) as i32 ^ -((value & 1) as i32));
        }
    }
    Err(Fault::Invalid("varint of more than 5 bytes"))
}

fn varlong(body: &mut impl Body) -> Result<i64, Fault> {
    let mut value = 0u64;
    for shift in (0..70).step_by(7) {
        let byte = body.byte()?;
        value |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Ok((value >> 1) as i64 ^ -((value & 1) as i64));
        }
    }
    Err(Fault::Invalid("varlong of more than 10 bytes"))
}

impl Body for &[u8] {
    #[inline]
    fn left(&self) -> u64 {
        self.len() as u64
    }

    #[inline]
    fn byte(&mut self) -> Result<u8, Fault> {
        let (byte, rest) = self.split_first().ok_or(RECORD_ENDS)?;
        *self = rest;
        Ok(*byte)
    }

    #[inline]
    fn skip(&mut self, len: u64) -> Result<(), Fault> {
        *self = self.get(len as usize..).ok_or(RECORD_ENDS)?;
        Ok(())
    }
}

/// The record at the front and what follows it, if it is an ordinary one: whole, with short numbers and without headers. All others are for
/// [`read_fields`], which also says what is wrong with one.
#[inline]
fn ordinary(bytes: &[u8]) -> Option<(RecordHead, &[u8])> {
    let mut rest = bytes;
    let len = usize::try_from(rest.short_signed()?).ok()?;
    let (mut body, rest) = rest.split_at_checked(len)?;
    body = body.get(1..)?;
    let timestamp_delta = body.short_signed()?;
    let offset_delta = body.short_signed()?;
    let key = body.short_signed()?;
    if key >= 0 {
        body = body.get(key as usize..)?;
    }
    let value = body.short_signed()?;
    if value >= 0 {
        body = body.get(value as usize..)?;
    }
    if key < -1 || value < -1 || body.len() != 1 || body[0] != 0 {
        return None;
    }
    let head = RecordHead {
        timestamp_delta: timestamp_delta.into(),
        offset_delta,
        has_key: key >= 0,
    };
    Some((head, rest))
}

impl Source for &[u8] {
    #[inline]
    fn record(&mut self) -> Result<RecordHead, Fault> {
        if let Some((head, rest)) = ordinary(self) {
            *self = rest;
            return Ok(head);
        }
        let len = record_len(self)?;
        let (mut body, rest) = self.split_at_checked(len).ok_or(ENDS_EARLY)?;
        *self = rest;
        read_fields(&mut body)
    }

    fn is_at_end(&mut self) -> Result<bool, Fault> {
        Ok(self.is_empty())
    }
}

/// A codec's output.
struct Stream<R> {
    reader: BufReader<R>,
    /// Bytes taken so far; at most a buffer more than `max`.
    at: u64,
    max: u64,
}

impl<R: Read> Stream<R> {
    fn fill(&mut self) -> Result<&[u8], Fault> {
        if self.at > self.max {
            return Err(Fault::Decode(DecodeFault::TooLarge { len: self.at }));
        }
        self.reader
            .fill_buf()
            .map_err(|error| Fault::Decode(DecodeFault::Damaged(error.to_string())))
    }

    fn take(&mut self, len: usize) {
        self.reader.consume(len);
        self.at += len as u64;
    }
}

impl<R: Read> Source for Stream<R> {
    fn record(&mut self) -> Result<RecordHead, Fault> {
        let mut unbounded = StreamBody {
            stream: self,
            left: u64::MAX,
        };
        let len = record_len(&mut unbounded)?;
        if let Some(mut body) = self.reader.buffer().get(..len) {
            let head = read_fields(&mut body)?;
            self.take(len);
            return Ok(head);
        }
        // Longer than what is buffered: field by field, so that it is never held whole.
        read_fields(&mut StreamBody {
            stream: self,
            left: len as u64,
        })
    }

    fn is_at_end(&mut self) -> Result<bool, Fault> {
        Ok(self.fill()?.is_empty())
    }
}

struct StreamBody<'a, R> {
    stream: &'a mut Stream<R>,
    left: u64,
}

impl<R: Read> Body for StreamBody<'_, R> {
    fn left(&self) -> u64 {
        self.left
    }

    fn byte(&mut self) -> Result<u8, Fault> {
        if self.left == 0 {
            return Err(RECORD_ENDS);
        }
        let byte = *self.stream.fill()?.first().ok_or(ENDS_EARLY)?;
        self.stream.take(1);
        self.left -= 1;
        Ok(byte)
    }

    fn skip(&mut self, len: u64) -> Result<(), Fault> {
        let mut to_skip = len;
        while to_skip > 0 {
            let held = self.stream.fill()?.len();
            if held == 0 {
                return Err(ENDS_EARLY);
            }
            let step = held.min(usize::try_from(to_skip).unwrap_or(held));
            self.stream.take(step);
            to_skip -= step as u64;
        }
        self.left -= len;
        Ok(())
    }
}

#[cfg(test)]
mod tests;
