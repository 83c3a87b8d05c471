//! What may be chosen about a block log. None of it is part of the format: each may change between two openings.

use super::{
    file::Io,
    frame::{BODY_LEN_MAX, HEADER_LEN, PREFIX_LEN},
    ring::{BLOCK, Ring, block_ceil},
};
use crate::Error;

/// See [`Limits::unmarked_max`]: two writes of a block for so many bytes cost nothing, and are read again in a moment.
const UNMARKED_MAX: u64 = 16 << 20;

/// Settings of a block log. The defaults suit an NVMe or virtio disk.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Config {
    /// The most bytes that are gathered into one commit; a record that alone needs more gets a commit of its own. Default 1 MiB. Lower it when the
    /// time of one write matters more than throughput.
    pub commit_bytes_max: usize,
    /// Commits that may be in flight at once. Default 4. Raise it for devices that are slow to answer and wide.
    pub in_flight_max: usize,
    /// While a commit is in flight, a further one is begun only when this many bytes wait for it; less waits for the completion and goes with it. Default
    /// 64 KiB: small records then share commits instead of occupying the device with blocks of padding. 0 begins one at every append.
    pub overlap_bytes: usize,
    /// Bytes of one slab of the log's memory; commits are cut from it. Default 2 MiB. A slab lives as long as any record in it is held; up to eight that
    /// nobody holds wait to be used again.
    pub slab_bytes: usize,
    /// Appended bytes that may wait for the device beyond those in flight; more is refused as `Full`. Default 64 MiB.
    /// A quarter of the ring is always let in, so that the longest record fits.
    pub queue_bytes_max: usize,
    /// The longest record that is accepted. Default 32 MiB. A quarter of the ring is the most that takes effect.
    pub record_bytes_max: usize,
    /// Whether a file or block device is asked for `O_DIRECT`. Default true. Without it writes go through the page cache, each with an `fdatasync`: for file
    /// systems where direct writes are slower.
    pub direct_io: bool,
    /// What drives a file or block device. Default: an io_uring, and threads where there is none to be had.
    pub io: Io,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            commit_bytes_max: 1 << 20,
            in_flight_max: 4,
            overlap_bytes: 64 << 10,
            slab_bytes: 2 << 20,
            queue_bytes_max: 64 << 20,
            record_bytes_max: 32 << 20,
            direct_io: true,
            io: Io::default(),
        }
    }
}

impl Config {
    /// Whether a log can run with it.
    ///
    /// # Errors
    /// [`Error::Invalid`] that names every setting that is out of bounds.
    pub fn validate(&self) -> Result<(), Error> {
        let block = BLOCK as usize;
        let body_max = usize::try_from(BODY_LEN_MAX).unwrap_or(usize::MAX);
        let bounds = [
            ("commit_bytes_max", self.commit_bytes_max, block, 1 << 30),
            ("in_flight_max", self.in_flight_max, 1, 1024),
            ("overlap_bytes", self.overlap_bytes, 0, 1 << 30),
            ("slab_bytes", self.slab_bytes, block, 1 << 30),
            ("queue_bytes_max", self.queue_bytes_max, block, usize::MAX),
            (
                "record_bytes_max",
                self.record_bytes_max,
                1,
                body_max - PREFIX_LEN,
            ),
        ];
        let problems: Vec<_> = bounds
            .iter()
            .filter(|(_, value, min, max)| value < min || value > max)
            .map(|(name, value, min, max)| format!("{name} {value} is not within {min} to {max}"))
            .collect();
        if problems.is_empty() {
            Ok(())
        } else {
            Err(Error::Invalid(problems.join("; ")))
        }
    }

    /// What the settings come to on a ring.
    pub(crate) fn limits(&self, ring: Ring) -> Limits {
        let quarter = usize::try_from(ring.capacity() / 4).unwrap_or(usize::MAX);
        let overhead = HEADER_LEN + PREFIX_LEN;
        let record_bytes_max = self.record_bytes_max.min(quarter - overhead);
        let commit_bytes_max = self.commit_bytes_max.min(quarter);
        let largest = block_ceil((record_bytes_max + overhead) as u64).max(commit_bytes_max as u64);
        let in_flight = (commit_bytes_max as u64).saturating_mul(self.in_flight_max as u64);
        Limits {
            commit_bytes_max,
            record_bytes_max,
            in_flight_max: self.in_flight_max,
            overlap_bytes: self.overlap_bytes,
            slab_bytes: self.slab_bytes,
            queue_bytes_max: self.queue_bytes_max.max(quarter) as u64,
            window: block_ceil(in_flight.max(largest)).min(ring.capacity()),
            unmarked_max: UNMARKED_MAX.min(ring.capacity() / 4),
        }
    }
}

/// The settings as one ring bounds them.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Limits {
    pub(crate) commit_bytes_max: usize,
    pub(crate) record_bytes_max: usize,
    pub(crate) in_flight_max: usize,
    pub(crate) overlap_bytes: usize,
    pub(crate) slab_bytes: usize,
    pub(crate) queue_bytes_max: u64,
    /// No frame is submitted whose end is further than this past the end of the acknowledged frames; at least one largest frame.
    pub(crate) window: u64,
    /// The superblock is written anew when the durable end is this far past the one that it tells of: an opening reads what lies above that.
    pub(crate) unmarked_max: u64,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_defaults_are_valid() {
        Config::default().validate().unwrap();
    }

    #[test]
    fn every_setting_out_of_bounds_is_named() {
        let config = Config {
            in_flight_max: 0,
            commit_bytes_max: 1,
            ..Config::default()
        };
        let Err(Error::Invalid(text)) = config.validate() else {
            panic!("accepted")
        };
        assert!(
            text.contains("in_flight_max 0") && text.contains("commit_bytes_max 1"),
            "{text}"
        );
    }

    #[test]
    fn a_small_ring_bounds_records_and_the_window() {
        let ring = Ring::new(16 * BLOCK).unwrap();
        let limits = Config::default().limits(ring);
        assert_eq!(limits.record_bytes_max, 4 * 4096 - 84);
        assert_eq!(limits.window, ring.capacity());
    }
}
