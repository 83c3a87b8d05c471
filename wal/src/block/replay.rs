//! An opened block log before it takes appends: what it replays, and how it starts.
//!
//! - A replay reads exactly the spans that the scan found, as often as it is asked, with the memory of one piece.
//! - Nothing is written before [`start`](Replay::start); then both superblock copies, before the first append.

use std::{collections::VecDeque, ops::Range, sync::Arc};

use async_trait::async_trait;

use super::{
    appends::Appends,
    config::{Config, Limits},
    device::Device,
    frame,
    pipeline::{Kept, Link, Pipeline},
    reader::{self, Reader},
    ring::{COPIES, POSITION_MAX, block_ceil},
    scan::{Scan, Span, Walk, replayed, scan},
    superblock::{Copies, Superblock},
};
use crate::{EpochEnd, Error, Log, LogEpoch, LogState, Position, Replay, Replayed, Sink};

/// A replay hands out pieces of about this many bytes.
const PIECE_BYTES: usize = 1 << 20;

/// The replay of a block log.
#[derive(Debug)]
pub(crate) struct BlockReplay {
    device: Arc<dyn Device>,
    copies: Copies,
    epoch: LogEpoch,
    start: u64,
    limits: Limits,
    walk: Walk,
    spans: Vec<Span>,
    ends: Vec<EpochEnd>,
    kept: VecDeque<Kept>,
    link: Option<Link>,
    /// The frames that were read since the beginning, which the scan passed over.
    read: VecDeque<Kept>,
    /// The span that is read, and where in it.
    span: usize,
    position: u64,
}

impl BlockReplay {
    /// Scans an admitted log: `copies` is what it says of itself, `reader` reads what it holds, and the granted epoch will write on `device`.
    pub(crate) async fn open(
        place: String,
        device: Arc<dyn Device>,
        copies: Copies,
        reader: Reader,
        config: &Config,
        state: &LogState,
    ) -> Result<Self, Error> {
        let superblock = &copies.newest;
        agrees(&place, superblock, state)?;
        let mut walk = Walk::new(reader, superblock, place);
        let scan = scan(&mut walk, superblock, state).await?;
        let trims: Vec<_> = state.started().map(|e| e.trim.get()).collect();
        let start = start_after(superblock, &scan.ends, &trims);
        // Frames reach at most a lap above the tail of either copy (F2), and above the first that is kept.
        let kept = scan.kept.front().map_or(start, |frame| frame.position);
        let lowest = kept.min(superblock.tail);
        if start.saturating_sub(lowest) > superblock.ring.capacity() {
            let what = format!(
                "the next epoch would begin there, more than the ring of {} bytes above the first frame at {lowest}",
                superblock.ring.capacity(),
            );
            return Err(walk.corrupt(start, what));
        }
        let limits = config.limits(superblock.ring);
        let granted = (state.epoch, start);
        Ok(Self::new(device, copies, granted, limits, walk, scan))
    }

    fn new(
        device: Arc<dyn Device>,
        copies: Copies,
        (epoch, start): (LogEpoch, u64),
        limits: Limits,
        walk: Walk,
        scan: Scan,
    ) -> Self {
        let Scan {
            spans,
            ends,
            kept,
            link,
        } = scan;
        let mut replay = Self {
            device,
            copies,
            epoch,
            start,
            limits,
            walk,
            spans,
            ends,
            kept,
            link,
            read: VecDeque::new(),
            span: 0,
            position: 0,
        };
        replay.begin_again();
        replay
    }

    fn begin_again(&mut self) {
        self.span = 0;
        self.position = self.spans.first().map_or(0, |span| span.first);
        self.read.clear();
        self.walk.restart();
        self.ahead();
    }

    /// The frames that may not be overwritten yet: one by one as far as they were read.
    fn kept(&mut self) -> VecDeque<Kept> {
        let mut kept = std::mem::take(&mut self.read);
        let unread = self.kept.iter().filter(|k| k.records_end > self.position);
        kept.extend(unread.map(|frames| Kept {
            position: frames.position.max(self.position),
            ..*frames
        }));
        kept
    }

    /// What ends the newest epoch and may not be durable: whole frames that nobody may have acknowledged. Below them is nothing like that, since a
    /// frame is written only when all that ends a window below its own end is acknowledged.
    pub(crate) fn unconfirmed(&self, state: &LogState) -> Option<(LogEpoch, Range<u64>)> {
        let newest = state
            .started()
            .next_back()
            .filter(|e| e.sealed_end.is_none())?;
        let span = self.spans.last().filter(|s| s.epoch == newest.epoch)?;
        let superblock = &self.copies.newest;
        let marked = superblock.started.filter(|(epoch, _)| *epoch == span.epoch);
        let durable = marked.map_or(0, |_| superblock.durable_end);
        let window = superblock.window.max(self.limits.window);
        let confirmed = durable
            .max(newest.durable_end.get())
            .max(span.end.saturating_sub(window));
        let first = self
            .kept
            .iter()
            .find(|frame| frame.position >= span.first && frame.records_end > confirmed)?;
        Some((span.epoch, first.position..block_ceil(span.end)))
    }

    /// The span at hand is read to its end, and ahead no further.
    fn ahead(&mut self) {
        let end = self.spans.get(self.span).map_or(0, |span| span.end);
        self.walk.ahead(block_ceil(end));
    }

    /// The records of the next frame, if there is one.
    async fn frame(&mut self) -> Result<Option<Vec<Replayed>>, Error> {
        while let Some(span) = self.spans.get(self.span).copied() {
            if self.position < span.end {
                let at = self.position;
                let (header, records) = match self.walk.step(span.epoch, at).await? {
                    Ok(found) => found,
                    Err(flaw) => return Err(self.walk.corrupt(at, flaw)),
                };
                if at == span.first {
                    span.begins_with(&header, &self.walk)?;
                }
                let frame = Kept {
                    position: at,
                    records_end: header.records_end(),
                };
                frame.add(&mut self.read, self.copies.newest.ring, span.first);
                self.position = header.end();
                return Ok(Some(replayed(&span, &header, records)));
            }
            self.span += 1;
            self.ahead();
            if let Some(next) = self.spans.get(self.span) {
                if next.first != self.position {
                    self.walk.restart();
                }
                self.position = next.first;
            }
        }
        Ok(None)
    }
}

#[async_trait]
impl Replay for BlockReplay {
    fn ends(&self) -> &[EpochEnd] {
        &self.ends
    }

    fn start_position(&self) -> Position {
        Position::new(self.start)
    }

    async fn next(&mut self) -> Result<Option<Vec<Replayed>>, Error> {
        let mut piece = Vec::new();
        let mut bytes = 0;
        while bytes < PIECE_BYTES {
            let Some(records) = self.frame().await? else {
                break;
            };
            bytes += records.iter().map(|r| r.footprint).sum::<usize>();
            piece.extend(records);
        }
        Ok((!piece.is_empty()).then_some(piece))
    }

    async fn rewind(&mut self) -> Result<(), Error> {
        self.begin_again();
        Ok(())
    }

    async fn start(mut self: Box<Self>, sink: Arc<dyn Sink>) -> Result<Arc<dyn Log>, Error> {
        let kept = self.kept();
        let before = &self.copies.newest;
        let superblock = Superblock {
            sequence: before.sequence + 1,
            started: Some((self.epoch, self.start)),
            closed: false,
            tail: kept.front().map_or(self.start, |frame| frame.position),
            durable_end: self.start,
            // Frames of earlier epochs may be as long as their own window allowed.
            window: before.window.max(self.limits.window),
            ..before.clone()
        };
        write_copies(&self.device, &superblock, self.copies.first).await?;
        let link = self.link.unwrap_or_else(|| Link {
            checksum: frame::origin(superblock.identity.log),
            records_end: self.start,
        });
        let pipeline = Pipeline::new(
            self.device.name(),
            self.limits,
            superblock,
            self.copies.first,
            link,
            kept,
        );
        Ok(Arc::new(Appends::new(pipeline, self.device, sink)))
    }
}

/// Writes both copies, the one at index `first` first.
pub(crate) async fn write_copies(
    device: &Arc<dyn Device>,
    superblock: &Superblock,
    first: usize,
) -> Result<(), Error> {
    let [a, b] = COPIES;
    for at in if first == 0 { [a, b] } else { [b, a] } {
        reader::write(device, at, superblock.encode()).await?;
    }
    Ok(())
}

/// Positions of a state are bounded before they are added to.
pub(crate) fn bounded(state: &LogState) -> Result<(), Error> {
    let positions = state
        .owed
        .iter()
        .flat_map(|e| [Some(e.trim), Some(e.durable_end), e.sealed_end]);
    match positions.flatten().find(|p| p.get() > POSITION_MAX) {
        None => Ok(()),
        Some(p) => Err(Error::Invalid(format!(
            "log state of {}: position {p}, at most {POSITION_MAX} are possible",
            state.identity
        ))),
    }
}

/// The state's first trim of the newest epoch is where the superblock says that it began, or above.
fn agrees(place: &str, superblock: &Superblock, state: &LogState) -> Result<(), Error> {
    let Some((epoch, start)) = superblock.started else {
        return Ok(());
    };
    match state
        .started()
        .find(|e| e.epoch == epoch && e.trim.get() < start)
    {
        None => Ok(()),
        Some(owed) => Err(Error::Mismatch {
            place: place.to_owned(),
            found: format!("epoch {epoch} from position {start}"),
            expected: format!("epoch {epoch} from position {}", owed.trim),
        }),
    }
}

/// Where an epoch begins that is granted after all that `ends`, the trims and the superblock know of.
fn start_after(superblock: &Superblock, ends: &[EpochEnd], trims: &[u64]) -> u64 {
    let ends = ends.iter().map(|end| end.end.get());
    let began = superblock.started.map(|(_, start)| start);
    let highest = ends
        .chain(trims.iter().copied())
        .chain(began)
        .max()
        .unwrap_or(0);
    block_ceil(highest.max(superblock.durable_end))
}
