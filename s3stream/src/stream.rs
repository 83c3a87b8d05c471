//! A stream: dense offsets, appended in order, durable before they are readable.
//!
//! `start <= confirm <= next` (S2); a fetch returns nothing at or past `confirm` (S3). A `Stream` is a cheap handle;
//! clones and handles from other calls are the same stream.

pub(crate) mod append;
pub(crate) mod progress;
mod tail;

use std::{fmt, ops::RangeTo, sync::Arc};

use bytes::Bytes;

pub use append::Append;
pub use tail::Tail;

use self::{
    append::Confirmed,
    progress::{Bounds, Progress},
};
use crate::{
    Error, GroupId, Permit, RECORD_HEADER_LEN, RecordBatch, RecordHeader, Result, StreamEpoch,
    StreamId, engine::Core,
};

/// A handle of one stream that is open for writing on this node. It answers `Closed` once its engine is closed or its
/// last [`Engine`](crate::Engine) clone is dropped.
#[derive(Clone)]
pub struct Stream {
    core: Arc<Core>,
    progress: Arc<Progress>,
}

/// What a fetch found.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Fetched {
    /// Whole records in offset order without gaps; the first holds the offset asked for. Empty at `confirm`.
    pub records: Vec<RecordBatch>,
    /// The first offset the stream has, when the fetch was answered.
    pub start: u64,
    /// The end of what is durable, when the fetch began.
    pub confirm: u64,
}

impl Stream {
    pub(crate) fn new(core: Arc<Core>, progress: Arc<Progress>) -> Self {
        Self { core, progress }
    }

    /// Its id.
    pub fn id(&self) -> StreamId {
        self.progress.stream
    }

    /// The group that it shares its owner with.
    pub fn group(&self) -> GroupId {
        self.progress.group
    }

    /// The ownership under which it is appended to now.
    pub fn epoch(&self) -> StreamEpoch {
        self.progress.epoch()
    }

    /// The first offset it has.
    pub fn start(&self) -> u64 {
        self.progress.bounds().start
    }

    /// One past the last offset that is durable and readable, as this node knows it; see [`Self::latest`].
    pub fn confirm(&self) -> u64 {
        self.progress.bounds().confirm
    }

    /// The offset that the next append will get.
    pub fn next(&self) -> u64 {
        self.progress.bounds().next
    }

    /// Where it is, and under which ownership, at one moment.
    pub(crate) fn bounds(&self) -> Bounds {
        self.progress.bounds()
    }

    /// Appends one record that occupies `count` offsets; its payload is the parts, joined.
    ///
    /// The record is queued when this returns: the order of calls is the order of records. It never waits.
    ///
    /// # Errors
    /// `Full`: no room, nothing was reserved; wait with [`Self::ready`]. `Invalid`: no offsets, or a record that
    /// could never fit. `Unavailable`: the log is being reopened. `Fenced`, `Closed`, `NotFound`: for good.
    pub fn append(&self, count: u64, payload: &[&[u8]]) -> Result<Append> {
        let bytes = record_len(payload)?;
        let permit = match self.core.admission.try_admit(bytes) {
            Ok(permit) => permit,
            Err(error) if error.kind() == crate::ErrorKind::Full => {
                self.check_writable()?;
                self.core.make_room(bytes);
                self.core.admission.try_admit(bytes)?
            }
            Err(error) => return Err(error),
        };
        self.append_admitted(permit, count, payload)
    }

    /// As [`Self::append`], with room that [`Self::ready`] waited for.
    ///
    /// # Errors
    /// As [`Self::append`]; `Invalid` also when the record is larger than the permit.
    pub fn append_with(&self, permit: Permit, count: u64, payload: &[&[u8]]) -> Result<Append> {
        let bytes = record_len(payload)?;
        if bytes > permit.bytes() {
            return Err(Error::invalid("the record is larger than its permit")
                .with("bytes", bytes)
                .with("permit", permit.bytes()));
        }
        if !permit.is_current() {
            return self.append(count, payload);
        }
        self.append_admitted(permit, count, payload)
    }

    /// Waits until a record with `payload_len` bytes has room in memory and in the log, first come first served.
    ///
    /// # Errors
    /// `Invalid` if it could never fit; `Full` if too many wait already; `Closed`, `Fenced` when the engine ends.
    pub async fn ready(&self, payload_len: usize) -> Result<Permit> {
        let bytes = (RECORD_HEADER_LEN + payload_len) as u64;
        self.check_fits(bytes)?;
        let admitted = self.core.admission.admit(bytes)?;
        self.core.make_room(bytes);
        admitted.await
    }

    /// The largest payload that one append can have.
    ///
    /// # Errors
    /// `Unavailable` while the log is being reopened, or the error that ended the engine.
    pub fn payload_len_max(&self) -> Result<usize> {
        let log = self.core.session()?.log.max_record_len();
        let budget = usize::try_from(self.core.admission.limit()).unwrap_or(usize::MAX);
        Ok(log.min(budget).saturating_sub(RECORD_HEADER_LEN))
    }

    /// Whole records from the one that holds `from` on, up to about `bytes_max` bytes; the first whatever its size.
    /// Answers at once with no records when `from` is `confirm`.
    ///
    /// # Errors
    /// `OutOfRange`: `from` is trimmed or past `confirm`; the error names both bounds. `Corrupt`: stored bytes are
    /// not what was written. `Unavailable`: the bucket or the log does not answer; try again.
    pub async fn fetch(&self, from: u64, bytes_max: usize) -> Result<Fetched> {
        self.check_closed()?;
        let bounds = self.progress.bounds();
        if from < bounds.start || from > bounds.confirm {
            return Err(out_of_range(from, bounds.start, bounds.confirm));
        }
        let records = if from == bounds.confirm {
            Vec::new()
        } else {
            self.core
                .read(&self.progress, from..bounds.confirm, bytes_max.max(1))
                .await?
        };
        let start = self.progress.bounds().start;
        if start > from {
            return Err(out_of_range(from, start, bounds.confirm));
        }
        Ok(Fetched {
            records,
            start,
            confirm: bounds.confirm,
        })
    }

    /// Every record from the one that holds `from` on, then those to come, as they become durable.
    pub fn tail(&self, from: u64) -> Tail {
        Tail::new(self.clone(), from)
    }

    /// Waits until `confirm` is beyond `offset`, and returns it.
    ///
    /// # Errors
    /// `Closed`, `Fenced`, `NotFound` when the stream is over.
    pub async fn wait_confirm(&self, offset: u64) -> Result<u64> {
        Confirmed::new(self.progress.clone(), offset).await
    }

    /// `confirm` as it is in an epoch, or was when that ended; `None` if that is too long ago.
    pub(crate) fn confirm_in(&self, epoch: StreamEpoch) -> Option<u64> {
        self.progress.confirm_in(epoch)
    }

    /// Waits until everything that was appended before the call is durable.
    ///
    /// # Errors
    /// The epoch that it was appended in is over, and some of it may be lost.
    pub(crate) async fn drained(&self) -> Result<()> {
        self.progress.drained().await
    }

    /// `confirm`, after making sure that this node still owns the stream (S8). Costs a request at most once per
    /// [`staleness_ms`](crate::Config::staleness_ms), and none when it is not called.
    ///
    /// # Errors
    /// `Fenced`: another node took over. `Unavailable`: it could not be made sure.
    pub async fn latest(&self) -> Result<u64> {
        self.check_closed()?;
        self.core.check_current().await?;
        Ok(self.confirm())
    }

    /// Gives up everything below the bound; what is exactly at it stays. A bound below `start` changes nothing.
    /// It is kept when this returns.
    ///
    /// # Errors
    /// `OutOfRange`: the bound is past `confirm`.
    pub async fn trim(&self, below: RangeTo<u64>) -> Result<()> {
        self.check_closed()?;
        let bounds = self.progress.bounds();
        if below.end > bounds.confirm {
            return Err(out_of_range(below.end, bounds.start, bounds.confirm));
        }
        if below.end <= bounds.start {
            return Ok(());
        }
        self.core.trim(&self.progress, below.end).await
    }

    /// Uploads everything that is durable now, of every stream, and returns when it is committed.
    ///
    /// # Errors
    /// `Unavailable` if the log was reopened meanwhile: call again.
    pub async fn flush(&self) -> Result<()> {
        self.check_closed()?;
        self.core.flush().await
    }

    /// Closes the stream's group: uploads what is left and gives up ownership. Its streams answer `Closed` then.
    ///
    /// # Errors
    /// `Unavailable`: it stays open; call again.
    pub async fn close(&self) -> Result<()> {
        self.core.close_group(self.group()).await
    }

    /// Destroys the stream's group with all its data. Its streams answer `NotFound` then.
    ///
    /// # Errors
    /// `Unavailable`: it may have happened; call again.
    pub async fn destroy(&self) -> Result<()> {
        self.core.destroy_group(self.group()).await
    }

    fn append_admitted(&self, permit: Permit, count: u64, payload: &[&[u8]]) -> Result<Append> {
        let bytes = record_len(payload)?;
        let stream = self.id();
        let (epoch, offsets) = self.progress.append(count, |log, epoch, offsets| {
            let header = RecordHeader {
                stream,
                epoch,
                offsets,
                payload_len: (bytes as usize - RECORD_HEADER_LEN) as u32,
            }
            .encode();
            let result = match payload {
                [payload] => log.append(&[&header, payload]),
                _ => {
                    let mut parts = Vec::with_capacity(payload.len() + 1);
                    parts.push(&header[..]);
                    parts.extend_from_slice(payload);
                    log.append(&parts)
                }
            };
            result.map(drop).map_err(Error::from)
        })?;
        permit.spend(bytes);
        Ok(Append::new(self.progress.clone(), epoch, offsets))
    }

    fn check_fits(&self, bytes: u64) -> Result<()> {
        let most = self.core.session()?.log.max_record_len() as u64;
        if bytes > most {
            return Err(Error::invalid("the record is larger than the log takes")
                .with("bytes", bytes)
                .with("most", most));
        }
        Ok(())
    }

    /// The stream's own reason first: an engine that is reopening or over is not merely full.
    fn check_writable(&self) -> Result<()> {
        self.check_closed()?;
        self.core.session().map(drop)
    }

    fn check_closed(&self) -> Result<()> {
        self.progress.closed().map_or(Ok(()), Err)
    }
}

impl fmt::Debug for Stream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let bounds = self.progress.bounds();
        f.debug_struct("Stream")
            .field("id", &self.id())
            .field("group", &self.group())
            .field("start", &bounds.start)
            .field("confirm", &bounds.confirm)
            .field("next", &bounds.next)
            .finish()
    }
}

impl cache::Entry for RecordBatch {
    fn stream(&self) -> u64 {
        self.stream.get()
    }

    fn range(&self) -> std::ops::Range<u64> {
        self.offsets.clone()
    }

    fn size(&self) -> usize {
        self.encoded_len()
    }
}

fn record_len(payload: &[&[u8]]) -> Result<u64> {
    let len: usize = payload.iter().map(|part| part.len()).sum();
    if u32::try_from(len).is_err() {
        return Err(Error::invalid("a payload is at most 4 GiB less one byte").with("len", len));
    }
    Ok((RECORD_HEADER_LEN + len) as u64)
}

fn out_of_range(offset: u64, start: u64, confirm: u64) -> Error {
    Error::out_of_range("no such offset")
        .with("offset", offset)
        .with("start", start)
        .with("confirm", confirm)
}

/// What a fetch may hold before it must be given back; for callers that collect payloads.
impl Fetched {
    /// The payloads, in order.
    pub fn payloads(&self) -> impl Iterator<Item = &Bytes> {
        self.records.iter().map(|record| &record.payload)
    }
}
