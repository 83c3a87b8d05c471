//! Opening a segment log: the meta stream is replayed, the data stream is only compared with.

use std::collections::{BTreeMap, VecDeque};

use bytes::Bytes;
use parking_lot::Mutex;

use super::{LogBounds, SegmentLog, State};
use crate::segment::edit;
use crate::segment::list::{Replay, SegmentList};
use crate::{Error, Result, Stream};

/// Bytes of the meta stream read at once when opening.
const REPLAY_BYTES: usize = 1 << 20;

impl SegmentLog {
    /// Opens the log whose records are in `data` and whose list of segments is in `meta`, two streams of one group
    /// that nobody else appends to. Reads the meta stream only. Two empty streams are an empty log.
    ///
    /// # Errors
    /// `Corrupt`: the meta stream does not make a list, or the list speaks of records that `data` does not have.
    /// `Unavailable`: appends are in flight, or storage does not answer; try again.
    pub async fn open(data: Stream, meta: Stream) -> Result<Self> {
        let epoch = meta.epoch();
        for stream in [&data, &meta] {
            if stream.confirm() != stream.next() || stream.epoch() != epoch {
                return Err(Error::unavailable("appends are in flight").with("stream", stream.id()));
            }
        }
        let (list, owner_state, edits) = replay(&meta).await?.finish();
        check_against(&list, &data)?;
        let log = Self {
            data,
            meta,
            epoch,
            state: Mutex::new(State {
                list,
                others: BTreeMap::new(),
                pending: VecDeque::new(),
                confirm_floor: 0,
                jumping: false,
                edits,
                owner_state_bytes: owner_state.iter().map(Bytes::len).sum(),
                owner_state,
                checkpoint: None,
                next_checkpoint: None,
                last: LogBounds::default(),
                stopped: None,
            }),
            exclusive: tokio::sync::Mutex::new(()),
            moved: tokio::sync::Notify::new(),
        };
        {
            // Nothing is in flight, so all of it is durable.
            let mut state = log.usable()?;
            state.confirm_floor = log.next_of(&state.list);
            state.last = LogBounds {
                start: state.list.start(),
                confirm: state.confirm_floor,
                next: state.confirm_floor,
                active_base: state.list.active_base(),
            };
        }
        Ok(log)
    }
}

async fn replay(meta: &Stream) -> Result<Replay> {
    let mut replay = Replay::default();
    let mut at = meta.start();
    let end = meta.confirm();
    while at < end {
        for record in meta.fetch(at, REPLAY_BYTES).await?.records {
            at = record.offsets.end;
            let edits = edit::decode(record.payload).map_err(|error| {
                error
                    .with("stream", meta.id())
                    .with("offset", record.offsets.start)
            })?;
            replay.apply(edits).map_err(|error| {
                error
                    .with("stream", meta.id())
                    .with("offset", record.offsets.start)
            })?;
        }
    }
    Ok(replay)
}

/// The list must not speak of records that the data stream does not have: its edits come after them in one log.
fn check_against(list: &SegmentList, data: &Stream) -> Result<()> {
    if let Some(active) = list
        .active_slice()
        .filter(|slice| slice.stream != data.id())
    {
        return Err(Error::corrupt("the active slice is of another stream")
            .with("slice", format!("{active:?}"))
            .with("stream", data.id()));
    }
    check_slices(list, data)
}

/// Every slice of a stream must lie in it.
pub(super) fn check_slices(list: &SegmentList, stream: &Stream) -> Result<()> {
    let (start, confirm) = (stream.start(), stream.confirm());
    let slices = list.segments().iter().flat_map(|segment| &segment.slices);
    for slice in slices.filter(|slice| slice.stream == stream.id()) {
        if slice.start < start || slice.end.unwrap_or(slice.start) > confirm {
            return Err(Error::corrupt("a slice lies outside its stream")
                .with("slice", format!("{slice:?}"))
                .with("start", start)
                .with("confirm", confirm));
        }
    }
    Ok(())
}
