//! The list of segments as a value: edits in, the same list out, whoever applies them.
//!
//! Segments ascend, do not overlap and end above `start`; only the last may be active; a sealed one is not empty, the
//! active one has exactly one slice that is open. So no two begin or end at the same offset. An edit that would break this is refused and changes nothing. It does no I/O.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;

use bytes::{BufMut, Bytes};

use super::codec::{Reader, put_bytes, put_segment};
use super::edit::Edit;
use super::{
    ANNOTATION_BYTES_MAX, ANNOTATIONS_MAX, ATTRIBUTES_BYTES_MAX, SLICES_MAX, Segment, Slice,
};
use crate::{Error, Result, StreamId};

/// Log and stream offsets stay below this, so that sums of two cannot overflow.
const OFFSET_MAX: u64 = u64::MAX / 4;

/// The segments of a log, its start, and the notes to its active segment.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(super) struct SegmentList {
    start: u64,
    /// The highest end that a segment ever had; kept for when that segment is gone.
    sealed_end: u64,
    /// Shared, so that a list is cheap to copy: an edit is tried on a copy before it is queued.
    segments: Vec<Arc<Segment>>,
    annotations: Vec<Bytes>,
}

impl SegmentList {
    pub(super) fn start(&self) -> u64 {
        self.start
    }

    pub(super) fn segments(&self) -> &[Arc<Segment>] {
        &self.segments
    }

    pub(super) fn annotations(&self) -> &[Bytes] {
        &self.annotations
    }

    /// The slice that takes appends.
    pub(super) fn active_slice(&self) -> Option<&Slice> {
        self.segments
            .last()
            .filter(|segment| !segment.is_sealed())
            .and_then(|segment| segment.slices.last())
    }

    /// Where the active segment begins.
    pub(super) fn active_base(&self) -> Option<u64> {
        let last = self.segments.last()?;
        (!last.is_sealed()).then_some(last.base)
    }

    /// Where a segment may begin: no sealed segment ever ended above.
    pub(super) fn sealed_end(&self) -> u64 {
        self.sealed_end.max(self.start)
    }

    /// The slice that holds `offset`, or the first after it.
    pub(super) fn slice_at(&self, offset: u64) -> Option<&Slice> {
        let first = self
            .segments
            .partition_point(|segment| segment.end.is_some_and(|end| end <= offset));
        self.segments[first..]
            .iter()
            .flat_map(|segment| &segment.slices)
            .find(|slice| slice.log_end().is_none_or(|end| end > offset))
    }

    /// The lowest offset of `stream` that a slice still shows.
    pub(super) fn lowest_offset_of(&self, stream: StreamId) -> Option<u64> {
        self.segments
            .iter()
            .flat_map(|segment| &segment.slices)
            .filter(|slice| slice.stream == stream)
            .map(|slice| slice.start)
            .min()
    }

    /// For each stream that sealed slices name, where the last of them ends.
    pub(super) fn closed_ends(&self) -> BTreeMap<StreamId, u64> {
        let mut ends = BTreeMap::new();
        for slice in self.segments.iter().flat_map(|segment| &segment.slices) {
            if let Some(end) = slice.end {
                let highest = ends.entry(slice.stream).or_insert(end);
                *highest = end.max(*highest);
            }
        }
        ends
    }

    /// Applies one edit; parts of a checkpoint are for [`Replay`].
    pub(super) fn apply(&mut self, edit: &Edit) -> Result<()> {
        match edit {
            Edit::Begin {
                base,
                stream,
                start,
            } => self.begin(*base, *stream, *start),
            Edit::Seal { end, attributes } => self.seal(*end, attributes),
            Edit::Trim { start } => self.trim(*start),
            Edit::Replace { run, segments } => self.replace(run, segments),
            Edit::Annotate { note } => self.annotate(note),
            Edit::State { .. } => Ok(()),
            Edit::Checkpoint { .. } => {
                Err(Error::internal("a checkpoint is not an edit of a list"))
            }
        }
    }

    fn begin(&mut self, base: u64, stream: StreamId, start: u64) -> Result<()> {
        if self.active_slice().is_some() {
            return Err(Error::invalid("a segment is active").with("base", base));
        }
        if base < self.sealed_end() {
            return Err(
                Error::invalid("a segment would begin below the end of the log")
                    .with("base", base)
                    .with("end", self.sealed_end()),
            );
        }
        check_offset(base)?;
        check_offset(start)?;
        self.segments.push(Arc::new(Segment {
            base,
            end: None,
            slices: vec![Slice {
                stream,
                start,
                end: None,
                base,
            }],
            attributes: Bytes::new(),
        }));
        if self.segments.len() == 1 {
            self.start = base;
        }
        Ok(())
    }

    fn seal(&mut self, end: u64, attributes: &Bytes) -> Result<()> {
        check_len("attributes", attributes.len(), ATTRIBUTES_BYTES_MAX)?;
        check_offset(end)?;
        let Some(segment) = self.segments.last_mut().filter(|last| !last.is_sealed()) else {
            return Err(Error::invalid("no segment is active").with("end", end));
        };
        let segment = Arc::make_mut(segment);
        let slice = segment
            .slices
            .last_mut()
            .filter(|slice| end >= slice.base)
            .ok_or_else(|| Error::invalid("a segment would end below its base").with("end", end))?;
        let slice_end = slice.stream_offset(end);
        check_offset(slice_end)?;
        slice.end = Some(slice_end);
        let is_empty = end == segment.base;
        segment.end = Some(end);
        segment.attributes = attributes.clone();
        self.sealed_end = end;
        self.annotations.clear();
        if is_empty {
            self.segments.pop();
        }
        self.drop_below_start();
        Ok(())
    }

    fn trim(&mut self, start: u64) -> Result<()> {
        check_offset(start)?;
        self.start = self.start.max(start);
        self.drop_below_start();
        Ok(())
    }

    /// A trim and a roll commute: what a trim would have dropped had it been sealed goes when it is.
    fn drop_below_start(&mut self) {
        let start = self.start;
        self.segments
            .retain(|segment| segment.end.is_none_or(|end| end > start));
    }

    fn replace(&mut self, run: &Range<u64>, with: &[Segment]) -> Result<()> {
        let at = self.run(run)?;
        let mut end = run.start;
        for segment in with {
            check_segment(segment)?;
            let sealed_end = segment.end.filter(|_| segment.base >= end);
            end = sealed_end.filter(|end| *end <= run.end).ok_or_else(|| {
                Error::invalid("segments must be sealed, ascend, and lie within what they replace")
                    .with("base", segment.base)
                    .with("run", format!("{run:?}"))
            })?;
        }
        self.segments.splice(at, with.iter().cloned().map(Arc::new));
        self.drop_below_start();
        Ok(())
    }

    /// The list of a log that is cut at `cut`, where a record or a segment begins, and has no active segment until it is
    /// begun anew. A segment that goes on past the cut is sealed there with `attributes`.
    pub(super) fn cut(&self, cut: u64, attributes: &Bytes) -> Result<Self> {
        check_len("attributes", attributes.len(), ATTRIBUTES_BYTES_MAX)?;
        let mut list = self.clone();
        list.annotations.clear();
        list.segments.retain(|segment| segment.base < cut);
        if let Some(last) = list.segments.last_mut()
            && last.end.is_none_or(|end| end > cut)
        {
            let last = Arc::make_mut(last);
            last.slices.retain(|slice| slice.base < cut);
            if let Some(slice) = last.slices.last_mut()
                && slice.log_end().is_none_or(|end| end > cut)
            {
                slice.end = Some(slice.stream_offset(cut));
            }
            last.end = Some(cut);
            last.attributes = attributes.clone();
        }
        list.sealed_end = list.segments.last().and_then(|last| last.end).unwrap_or(0);
        Ok(list)
    }

    /// The log starts at `start`, at or below its end; it may be moved down where nothing lies.
    pub(super) fn start_at(&mut self, start: u64) -> Result<()> {
        check_offset(start)?;
        self.start = start;
        self.drop_below_start();
        Ok(())
    }

    /// The places of the sealed segments that make up exactly `run`.
    fn run(&self, run: &Range<u64>) -> Result<Range<usize>> {
        let from = self
            .segments
            .binary_search_by_key(&run.start, |segment| segment.base);
        let last = self
            .segments
            .iter()
            .position(|segment| segment.end == Some(run.end));
        match (from, last) {
            (Ok(from), Some(last)) if from <= last => Ok(from..last + 1),
            _ => {
                Err(Error::invalid("not a run of sealed segments").with("run", format!("{run:?}")))
            }
        }
    }

    fn annotate(&mut self, note: &Bytes) -> Result<()> {
        check_len("annotation", note.len(), ANNOTATION_BYTES_MAX)?;
        if self.active_slice().is_none() {
            return Err(Error::invalid("no segment is active"));
        }
        if self.annotations.len() == ANNOTATIONS_MAX {
            return Err(
                Error::invalid("the active segment has too many annotations")
                    .with("max", ANNOTATIONS_MAX),
            );
        }
        self.annotations.push(note.clone());
        Ok(())
    }

    /// The whole list, for a checkpoint.
    pub(super) fn encode(&self) -> Vec<u8> {
        let mut out = Vec::new();
        out.put_u64(self.start);
        out.put_u64(self.sealed_end);
        out.put_u32(self.segments.len() as u32);
        for segment in &self.segments {
            put_segment(&mut out, segment);
        }
        for note in &self.annotations {
            put_bytes(&mut out, note);
        }
        out
    }

    fn decode(bytes: Bytes) -> Result<Self> {
        let mut reader = Reader::new(bytes);
        let mut list = Self {
            start: reader.u64()?,
            sealed_end: reader.u64()?,
            ..Self::default()
        };
        for _ in 0..reader.u32()? {
            list.segments.push(Arc::new(reader.segment()?));
        }
        while !reader.is_empty() {
            let note = Bytes::copy_from_slice(&reader.bytes()?);
            list.annotations.push(note);
        }
        list.check()?;
        Ok(list)
    }

    /// The invariants of the list, for one that was read whole.
    fn check(&self) -> Result<()> {
        check_offset(self.start)?;
        check_offset(self.sealed_end)?;
        let mut end = Some(0);
        for segment in &self.segments {
            check_segment(segment)?;
            let ascends = end.is_some_and(|end| segment.base >= end);
            let lies = |end| end > self.start && end <= self.sealed_end;
            if !ascends || !segment.end.is_none_or(lies) {
                return Err(Error::invalid("segments overlap or lie outside the log")
                    .with("base", segment.base)
                    .with("start", self.start)
                    .with("end", self.sealed_end));
            }
            end = segment.end;
        }
        if !self.annotations.is_empty() && self.active_slice().is_none() {
            return Err(Error::invalid("annotations without an active segment"));
        }
        Ok(())
    }
}

/// A segment that may be in a list: its slices ascend, do not overlap, lie in it, and only its last may be open.
fn check_segment(segment: &Segment) -> Result<()> {
    check_len("attributes", segment.attributes.len(), ATTRIBUTES_BYTES_MAX)?;
    check_len("slices", segment.slices.len(), SLICES_MAX)?;
    let wrong = |what: &str| Err(Error::invalid(what).with("segment", segment.base));
    if segment.end.is_some_and(|end| end <= segment.base) {
        return wrong("a sealed segment is empty");
    }
    let mut end = segment.base;
    check_offset(segment.end.unwrap_or(segment.base))?;
    for (index, slice) in segment.slices.iter().enumerate() {
        check_offset(slice.base)?;
        check_offset(slice.end.unwrap_or(slice.start))?;
        if slice.base < end {
            return wrong("slices of a segment overlap or lie below it");
        }
        let last = index + 1 == segment.slices.len();
        end = match slice.end {
            None if last && !segment.is_sealed() => slice.base,
            Some(slice_end) if slice_end >= slice.start && (!last || segment.is_sealed()) => {
                slice.log_offset(slice_end)
            }
            _ => return wrong("a slice is open or closed where it must not be"),
        };
    }
    if segment.end.is_some_and(|segment_end| end > segment_end) {
        return wrong("slices of a segment pass its end");
    }
    if !segment.is_sealed() && segment.slices.is_empty() {
        return wrong("an active segment has no slice");
    }
    Ok(())
}

fn check_offset(offset: u64) -> Result<()> {
    if offset > OFFSET_MAX {
        return Err(Error::invalid("no such offset").with("offset", offset));
    }
    Ok(())
}

fn check_len(what: &'static str, len: usize, max: usize) -> Result<()> {
    if len > max {
        return Err(Error::invalid("too large for a segment")
            .with(what, len)
            .with("max", max));
    }
    Ok(())
}

/// Rebuilds a list from the records of its meta stream, the newest whole checkpoint and the edits after it.
#[derive(Debug, Default)]
pub(super) struct Replay {
    list: SegmentList,
    /// The owner's state: as the newest whole checkpoint has it, then its changes.
    state: Vec<Bytes>,
    parts: Vec<Bytes>,
    /// Edits since the newest whole checkpoint.
    edits: u64,
}

impl Replay {
    /// Applies what one record holds. An edit that does not fit the list means that the stream is damaged.
    pub(super) fn apply(&mut self, edits: Vec<Edit>) -> Result<()> {
        for edit in edits {
            match edit {
                Edit::Checkpoint { index, count, part } => self.part(index, count, part)?,
                edit => {
                    self.parts.clear();
                    self.edits += 1;
                    self.list.apply(&edit).map_err(damaged)?;
                    if let Edit::State { change } = edit {
                        self.state.push(change);
                    }
                }
            }
        }
        Ok(())
    }

    /// Parts come one after another; a checkpoint that was cut short by a full log is followed by a new one.
    fn part(&mut self, index: u32, count: u32, part: Bytes) -> Result<()> {
        if index == 0 {
            self.parts.clear();
        }
        if index as usize != self.parts.len() || index >= count {
            return Err(Error::corrupt("checkpoint part out of order")
                .with("index", index)
                .with("count", count)
                .with("held", self.parts.len()));
        }
        self.parts.push(part);
        if index + 1 == count {
            let mut whole = Reader::new(self.parts.concat().into());
            self.parts.clear();
            self.state = vec![whole.bytes()?];
            self.list = SegmentList::decode(whole.rest()).map_err(damaged)?;
            self.edits = 0;
        }
        Ok(())
    }

    /// The list, the owner's state, and how many edits there were since the newest whole checkpoint.
    pub(super) fn finish(self) -> (SegmentList, Vec<Bytes>, u64) {
        (self.list, self.state, self.edits)
    }
}

fn damaged(error: Error) -> Error {
    Error::corrupt("segment edits that do not fit together").caused_by(error)
}

#[cfg(test)]
mod tests;
