//! The raw thing the engine stands on: O_DSYNC writes of given sizes to a preallocated file, or memcpy + crc32c.
//!
//! The sizes are those of the commits that the engine just made, so that the ratio says what the engine adds to the
//! device, not how well it batches. It does no batching, no framing and no recovery.

use std::{
    fs::{File, OpenOptions},
    os::unix::fs::{FileExt, OpenOptionsExt},
    path::Path,
    sync::atomic::{AtomicU64, Ordering::Relaxed},
    thread,
    time::{Duration, Instant},
};

use rustix::{
    fs::{FallocateFlags, OFlags, fallocate},
    io::Errno,
};
use serde::Serialize;

use crate::{
    BaselineSync, Result,
    load::pause_until,
    report::rounded,
    slices::{MIB, Slice},
};

/// Direct I/O is aligned to this on every device in use; commits are padded to it.
const BLOCK: usize = 4_096;
/// The fill and read unit.
const CHUNK: usize = 1 << 20;
/// What memcpy walks through: far more than a cache holds.
const ARENA: usize = 64 << 20;

/// What the raw device's writes walk through: about what a busy log has in memory.
const SOURCE: usize = 32 << 20;

/// The baseline's part of a report.
#[derive(Clone, Debug, Default, Serialize)]
pub(crate) struct Baseline {
    /// `device`, `memory`, `log_read`, `bucket_read` or `none`.
    pub(crate) kind: &'static str,
    pub(crate) what: String,
    #[serde(serialize_with = "rounded")]
    pub(crate) throughput_mib_s: Option<f64>,
    #[serde(serialize_with = "rounded")]
    pub(crate) p50_us: Option<f64>,
    #[serde(serialize_with = "rounded")]
    pub(crate) p99_us: Option<f64>,
    #[serde(serialize_with = "rounded")]
    pub(crate) operation_bytes: Option<f64>,
    #[serde(serialize_with = "rounded")]
    pub(crate) operations_per_s: Option<f64>,
    pub(crate) depth: Option<usize>,
    #[serde(serialize_with = "rounded")]
    pub(crate) memcpy_crc32c_mib_s: Option<f64>,
}

impl Baseline {
    /// The figures of all its slices together.
    pub(crate) fn with(mut self, total: &Slice) -> Self {
        self.throughput_mib_s = total.mib_per_s();
        self.operations_per_s = total.records_per_s();
        self.p50_us = total.latency.micros(0.5);
        self.p99_us = total.latency.micros(0.99);
        self.operation_bytes =
            (total.records > 0).then(|| total.bytes as f64 / total.records as f64);
        self
    }
}

/// A preallocated, written file that is written again and again, each write durable when it returns. It has no name
/// any more when it is used: nothing of it is left, however the run ends.
#[derive(Debug)]
pub(crate) struct Device {
    file: File,
    place: &'static str,
    len: u64,
    direct: bool,
    sync: BaselineSync,
    next: AtomicU64,
}

impl Device {
    /// Makes and fills the file in `dir`, which the report calls `place`; `len` is rounded up to whole chunks.
    pub(crate) fn create(
        dir: &Path,
        place: &'static str,
        len: u64,
        sync: BaselineSync,
    ) -> Result<Self> {
        let len = len.next_multiple_of(CHUNK as u64);
        let named = tempfile::Builder::new()
            .prefix(".s3stream-bench-")
            .tempfile_in(dir)?;
        let file = named.as_file();
        match fallocate(file, FallocateFlags::empty(), 0, len) {
            // A directory of a server: filling does the same, later.
            Err(Errno::OPNOTSUPP | Errno::NOSYS) => {}
            result => result?,
        }
        // Written, not only allocated: a first write to an unwritten extent costs a metadata commit.
        let zeros = vec![0u8; CHUNK];
        for at in (0..len).step_by(CHUNK) {
            file.write_all_at(&zeros, at)?;
        }
        file.sync_all()?;
        let (file, direct) = open_durable(named.path(), sync)?;
        named.close()?;
        Ok(Self {
            file,
            place,
            len,
            direct,
            sync,
            next: AtomicU64::new(0),
        })
    }

    /// One line on what is written how.
    pub(crate) fn describe(&self) -> String {
        let direct = if self.direct { "O_DIRECT" } else { "buffered" };
        let durable = match self.sync {
            BaselineSync::Dsync => "O_DSYNC pwrite",
            BaselineSync::Fdatasync => "pwrite and fdatasync",
        };
        format!(
            "{direct} {durable} to a written file of {} MiB in {}",
            self.len >> 20,
            self.place
        )
    }

    /// Writes of `sizes`, over and over, from `depth` threads for `length`; one every `interval` if it is given.
    pub(crate) fn slice(
        &self,
        sizes: &[usize],
        depth: usize,
        interval: Option<Duration>,
        length: Duration,
    ) -> Result<Slice> {
        let largest = sizes.iter().copied().max().unwrap_or(BLOCK);
        let source = Source::new(padded(largest).min(usize::try_from(self.len)?));
        let start = Instant::now();
        let end = start + length;
        let parts: Vec<Result<Slice>> = thread::scope(|scope| {
            let writers: Vec<_> = (0..depth)
                .map(|writer| {
                    let source = &source;
                    scope.spawn(move || self.write(source, sizes, writer, interval, end))
                })
                .collect();
            writers
                .into_iter()
                .map(|writer| {
                    writer
                        .join()
                        .unwrap_or_else(|_| Err("a baseline writer panicked".into()))
                })
                .collect()
        });
        let mut slice = Slice::default();
        for part in parts {
            let part = part?;
            slice.latency.merge(&part.latency);
            slice.bytes += part.bytes;
            slice.records += part.records;
        }
        slice.elapsed = start.elapsed();
        Ok(slice)
    }

    fn write(
        &self,
        source: &Source,
        sizes: &[usize],
        writer: usize,
        interval: Option<Duration>,
        end: Instant,
    ) -> Result<Slice> {
        let mut slice = Slice::default();
        let mut next_start = Instant::now();
        for size in sizes.iter().cycle().skip(writer * 7 % sizes.len().max(1)) {
            if Instant::now() >= end {
                break;
            }
            if let Some(interval) = interval {
                next_start += interval;
                if next_start >= end {
                    break;
                }
                pause_until(next_start);
            }
            let data = source.next(padded(*size))?;
            // As for the engine: from the start that was intended, when there is one.
            let started = interval.map_or_else(Instant::now, |_| next_start);
            self.file.write_all_at(data, self.reserve(data.len())?)?;
            if self.sync == BaselineSync::Fdatasync {
                self.file.sync_data()?;
            }
            slice.latency.record(started.elapsed());
            slice.bytes += data.len() as u64;
            slice.records += 1;
        }
        Ok(slice)
    }

    /// The next place in the ring for `len` bytes.
    fn reserve(&self, len: usize) -> Result<u64> {
        let len = u64::try_from(len)?;
        let place = |next: u64| if next + len > self.len { 0 } else { next };
        let before = self
            .next
            .fetch_update(Relaxed, Relaxed, |next| Some(place(next) + len))
            .unwrap_or_else(|unchanged| unchanged);
        Ok(place(before))
    }
}

/// What is written: memory that is walked through, as a log walks through its own. One buffer over and over would stay in the
/// processor's cache, and the host of a virtual disk, which copies it, would be faster than it is for anybody else.
struct Source {
    memory: Vec<u8>,
    largest: usize,
    next: AtomicU64,
}

impl Source {
    fn new(largest: usize) -> Self {
        Self {
            memory: (0..SOURCE + largest + BLOCK)
                .map(|index| (index * 31) as u8)
                .collect(),
            largest,
            next: AtomicU64::new(0),
        }
    }

    /// The next aligned `len` bytes, at most the largest.
    fn next(&self, len: usize) -> Result<&[u8]> {
        let len = len.min(self.largest);
        let at = usize::try_from(self.next.fetch_add(len as u64, Relaxed))? % SOURCE;
        let start = self.memory.as_ptr().align_offset(BLOCK) + at;
        self.memory
            .get(start..start + len)
            .ok_or_else(|| "a write larger than the largest".into())
    }
}

fn open_durable(path: &Path, sync: BaselineSync) -> Result<(File, bool)> {
    let durable = match sync {
        BaselineSync::Dsync => OFlags::DSYNC,
        BaselineSync::Fdatasync => OFlags::empty(),
    };
    let open = |flags: OFlags| {
        OpenOptions::new()
            .write(true)
            .custom_flags(i32::try_from(flags.bits()).unwrap_or(0))
            .open(path)
    };
    match open(OFlags::DIRECT | durable) {
        Ok(file) => Ok((file, true)),
        // The file system has no direct I/O; the report says so.
        Err(error) if error.kind() == std::io::ErrorKind::InvalidInput => {
            Ok((open(durable)?, false))
        }
        Err(error) => Err(error.into()),
    }
}

fn padded(size: usize) -> usize {
    size.max(1).next_multiple_of(BLOCK)
}

/// What the processor can do: a copy and a crc32c of each byte, nothing else.
#[derive(Debug)]
pub(crate) struct Memory {
    source: Vec<u8>,
    target: Vec<u8>,
    at: usize,
}

impl Memory {
    pub(crate) fn new() -> Self {
        Self {
            source: (0..ARENA).map(|index| (index * 31) as u8).collect(),
            // Written once, so that no page is touched for the first time while it is measured.
            target: vec![1u8; ARENA],
            at: 0,
        }
    }

    /// Copies and checksums pieces of `sizes` for `length`; one every `interval` if it is given.
    pub(crate) fn slice(
        &mut self,
        sizes: &[usize],
        interval: Option<Duration>,
        length: Duration,
    ) -> Result<Slice> {
        let start = Instant::now();
        let end = start + length;
        let mut slice = Slice::default();
        let mut next_start = start;
        for size in sizes.iter().cycle() {
            if let Some(interval) = interval {
                next_start += interval;
                if next_start >= end {
                    break;
                }
                pause_until(next_start);
            }
            if Instant::now() >= end {
                break;
            }
            let started = interval.map_or_else(Instant::now, |_| next_start);
            let size = (*size).clamp(1, ARENA);
            if self.at + size > ARENA {
                self.at = 0;
            }
            let piece = self.at..self.at + size;
            let (Some(from), Some(to)) =
                (self.source.get(piece.clone()), self.target.get_mut(piece))
            else {
                return Err("a piece outside the arena".into());
            };
            to.copy_from_slice(from);
            std::hint::black_box(crc32c::crc32c(to));
            self.at += size;
            slice.latency.record(started.elapsed());
            slice.bytes += size as u64;
            slice.records += 1;
        }
        slice.elapsed = start.elapsed();
        Ok(slice)
    }

    /// MiB/s of pieces of `sizes`, in a few milliseconds.
    pub(crate) fn mib_per_s(&mut self, sizes: &[usize]) -> Result<f64> {
        let slice = self.slice(sizes, None, Duration::from_millis(20))?;
        Ok(slice.bytes as f64 / MIB / slice.elapsed.as_secs_f64())
    }
}

/// Reads `len` bytes of a file with direct I/O and checksums them: what a recovery scan costs at least.
pub(crate) fn read_and_checksum(path: &Path, len: u64) -> Result<Slice> {
    let file = OpenOptions::new()
        .read(true)
        .custom_flags(i32::try_from(OFlags::DIRECT.bits())?)
        .open(path)?;
    let mut memory = vec![0u8; CHUNK + BLOCK];
    let aligned = memory.as_ptr().align_offset(BLOCK);
    let buffer = memory
        .get_mut(aligned..aligned + CHUNK)
        .ok_or("no aligned memory")?;
    let start = Instant::now();
    let mut slice = Slice::default();
    while slice.bytes < len {
        let started = Instant::now();
        let read = file.read_at(buffer, slice.bytes)?;
        if read == 0 {
            break;
        }
        std::hint::black_box(crc32c::crc32c(buffer.get(..read).unwrap_or_default()));
        slice.latency.record(started.elapsed());
        slice.bytes += read as u64;
        slice.records += 1;
    }
    slice.elapsed = start.elapsed();
    Ok(slice)
}

/// Reads the first `len` bytes of a file in order with direct I/O, `depth` reads at once, and does nothing with them.
pub(crate) fn read_whole(path: &Path, len: u64, depth: usize) -> Result<Slice> {
    let file = OpenOptions::new()
        .read(true)
        .custom_flags(i32::try_from(OFlags::DIRECT.bits())?)
        .open(path)?;
    let next = AtomicU64::new(0);
    let read = || -> Result<u64> {
        let mut memory = vec![0u8; CHUNK + BLOCK];
        let aligned = memory.as_ptr().align_offset(BLOCK);
        let buffer = memory
            .get_mut(aligned..aligned + CHUNK)
            .ok_or("no aligned memory")?;
        let mut bytes = 0;
        loop {
            let at = next.fetch_add(CHUNK as u64, Relaxed);
            if at >= len {
                return Ok(bytes);
            }
            bytes += file.read_at(buffer, at)? as u64;
        }
    };
    let start = Instant::now();
    let parts: Vec<Result<u64>> = thread::scope(|scope| {
        let readers: Vec<_> = (0..depth).map(|_| scope.spawn(read)).collect();
        let ended = readers.into_iter().map(|reader| reader.join());
        ended
            .map(|part| part.unwrap_or_else(|_| Err("a baseline reader panicked".into())))
            .collect()
    });
    let mut slice = Slice::default();
    for part in parts {
        slice.bytes += part?;
    }
    slice.elapsed = start.elapsed();
    Ok(slice)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SOON: Duration = Duration::from_millis(20);

    #[test]
    fn the_device_is_given_whole_blocks_of_the_sizes_used_and_wraps() {
        let dir = tempfile::tempdir_in(".").unwrap();
        let device = Device::create(dir.path(), "a test", 1, BaselineSync::Dsync).unwrap();
        let slice = device.slice(&[1_000, 300_000], 2, None, SOON).unwrap();
        assert!(slice.records > 0);
        assert_eq!(slice.bytes % BLOCK as u64, 0);
        assert_eq!(slice.latency.count(), slice.records);
        let places: Vec<u64> = (0..300).map(|_| device.reserve(8_192).unwrap()).collect();
        assert!(places.iter().all(|at| at + 8_192 <= device.len));
        assert!(places.contains(&0), "it never wrapped");
    }

    #[test]
    fn a_paced_baseline_keeps_to_its_interval() {
        let dir = tempfile::tempdir_in(".").unwrap();
        let device = Device::create(dir.path(), "a test", 1, BaselineSync::Dsync).unwrap();
        let interval = Some(Duration::from_millis(5));
        let slice = device.slice(&[4_096], 1, interval, SOON).unwrap();
        assert!((1..=4).contains(&slice.records), "{}", slice.records);
        let slice = Memory::new().slice(&[4_096], interval, SOON).unwrap();
        assert!((1..=4).contains(&slice.records), "{}", slice.records);
    }

    #[test]
    fn a_whole_file_is_read() {
        let dir = tempfile::tempdir_in(".").unwrap();
        let path = dir.path().join("log");
        std::fs::write(&path, vec![1u8; 3 << 20]).unwrap();
        assert_eq!(read_and_checksum(&path, u64::MAX).unwrap().bytes, 3 << 20);
        assert!(Memory::new().mib_per_s(&[4_096]).unwrap() > 0.0);
    }
}
