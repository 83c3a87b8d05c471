//! Several reads of a log for one answer.
//!
//! One read of the log ends where its records change places, from the bucket to memory for one, and a fetch that stopped
//! there would wait for records that are there already. The answer is as if there had been one read: it ends where the
//! first one saw the log end, and holds one history.

use bytes::Bytes;
use segment_adapter::{BatchHeader, FetchData, Isolation, KafkaLog, LogError};

/// What is read.
pub(super) trait Source {
    fn isolation(&self) -> Isolation;

    /// One read: see [`KafkaLog::read`].
    fn read(
        &self,
        from: i64,
        bytes_max: usize,
        min_one: bool,
    ) -> impl Future<Output = Result<FetchData, LogError>> + Send;

    /// How often it was cut.
    fn cuts(&self) -> u64;
}

/// A log, for a reader of this isolation.
pub(super) struct OfLog<'a> {
    pub(super) log: &'a KafkaLog,
    pub(super) isolation: Isolation,
}

impl Source for OfLog<'_> {
    fn isolation(&self) -> Isolation {
        self.isolation
    }

    fn read(
        &self,
        from: i64,
        bytes_max: usize,
        min_one: bool,
    ) -> impl Future<Output = Result<FetchData, LogError>> + Send {
        self.log.read(from, bytes_max, min_one, self.isolation)
    }

    fn cuts(&self) -> u64 {
        self.log.cuts()
    }
}

/// Reads until the bytes are used up, or the reader's sight ended when the first read began.
pub(super) async fn read_on(
    source: &impl Source,
    from: i64,
    bytes_max: usize,
    min_one: bool,
) -> Result<FetchData, LogError> {
    let cuts = source.cuts();
    let mut data = source.read(from, bytes_max, min_one).await?;
    let bound = data.offsets.bound(source.isolation());
    let mut left = bytes_max;
    let mut read = data.records.len();
    while read > 0 {
        let new = data.records.len() - read;
        left = left.saturating_sub(data.records[new..].iter().map(Bytes::len).sum());
        let next = data.records.last().and_then(next_offset);
        let Some(next) = next.filter(|next| *next < bound && left > 0) else {
            break;
        };
        // What was found is worth an answer even if the rest cannot be read now.
        let Ok(more) = source.read(next, left, false).await else {
            break;
        };
        // Cut meanwhile: this may be of another history than what was found.
        if source.cuts() != cuts {
            break;
        }
        // What came into sight meanwhile is above the bounds that the answer tells.
        let below = |batch: &Bytes| next_offset(batch).is_some_and(|end| end <= bound);
        let records = more.records.into_iter().take_while(below);
        let before = data.records.len();
        data.records.extend(records);
        read = data.records.len() - before;
        for txn in more.aborted.into_iter().flatten() {
            // One that began below was decided by then, and is listed.
            if txn.first_offset >= next && txn.first_offset < bound {
                data.aborted.get_or_insert_default().push(txn);
            }
        }
    }
    // The log knows them by their ends; some clients take them in this order without looking (F24).
    if let Some(aborted) = &mut data.aborted {
        aborted.sort_by_key(|txn| txn.first_offset);
    }
    Ok(data)
}

/// The offset after a stored batch.
fn next_offset(batch: &Bytes) -> Option<i64> {
    let header = BatchHeader::decode(batch.first_chunk()?).ok()?;
    header.last_offset().checked_add(1)
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;

    use parking_lot::Mutex;
    use segment_adapter::{AbortedTxn, BatchBuilder, Codec, Offsets};

    use super::*;

    /// Gives what it is told to, read by read; each with how often the log was cut by then.
    struct Told {
        isolation: Isolation,
        reads: Mutex<VecDeque<(u64, FetchData)>>,
        cuts: Mutex<u64>,
    }

    impl Source for Told {
        fn isolation(&self) -> Isolation {
            self.isolation
        }

        async fn read(&self, from: i64, _: usize, _: bool) -> Result<FetchData, LogError> {
            let (cuts, data) = self.reads.lock().pop_front().expect("a read too many");
            assert_eq!(data.records.first().map(base_offset), Some(from));
            *self.cuts.lock() = cuts;
            Ok(data)
        }

        fn cuts(&self) -> u64 {
            *self.cuts.lock()
        }
    }

    fn base_offset(batch: &Bytes) -> i64 {
        next_offset(batch).unwrap() - 1
    }

    fn batch(offset: i64) -> Bytes {
        let built = BatchBuilder::new(Codec::None).record(1, None, Some(b"v"));
        let mut batch = built.build().unwrap().to_vec();
        batch[..8].copy_from_slice(&offset.to_be_bytes());
        batch.into()
    }

    /// A read of these offsets while the log was durable up to `hw` and stable up to `lso`.
    fn found(offsets: &[i64], hw: i64, lso: i64, aborted: &[i64]) -> FetchData {
        let txns = aborted.iter().map(|first| AbortedTxn {
            producer_id: 1,
            first_offset: *first,
        });
        FetchData {
            records: offsets.iter().copied().map(batch).collect(),
            offsets: Offsets {
                log_start: 0,
                lso,
                hw,
                confirmed: hw,
                leo: hw,
            },
            aborted: Some(txns.collect()),
        }
    }

    /// What an answer has, and what became of the reads that were ready.
    async fn answer(isolation: Isolation, reads: Vec<(u64, FetchData)>) -> (FetchData, usize) {
        let told = Told {
            isolation,
            reads: Mutex::new(reads.into()),
            cuts: Mutex::new(0),
        };
        let data = read_on(&told, 0, 1 << 20, true).await.unwrap();
        (data, told.reads.into_inner().len())
    }

    fn offsets(data: &FetchData) -> Vec<i64> {
        data.records.iter().map(base_offset).collect()
    }

    #[tokio::test]
    async fn nothing_is_given_that_is_above_the_high_watermark_of_the_answer() {
        let reads = vec![
            (0, found(&[0, 1], 3, 3, &[])),
            (0, found(&[2, 3, 4], 5, 5, &[])),
        ];
        let (data, left) = answer(Isolation::HighWatermark, reads).await;
        assert_eq!(offsets(&data), [0, 1, 2]);
        assert_eq!((data.offsets.hw, left), (3, 0));
    }

    #[tokio::test]
    async fn nothing_is_given_that_is_above_the_last_stable_offset_of_the_answer() {
        let reads = vec![
            (0, found(&[0], 9, 3, &[])),
            (0, found(&[1, 2, 3, 4], 9, 5, &[2, 3])),
        ];
        let (data, left) = answer(Isolation::TxnCommitted, reads).await;
        assert_eq!(offsets(&data), [0, 1, 2]);
        let aborted = data.aborted.unwrap_or_default();
        let aborted: Vec<_> = aborted.iter().map(|txn| txn.first_offset).collect();
        assert_eq!((aborted, data.offsets.lso, left), (vec![2], 3, 0));
    }

    #[tokio::test]
    async fn an_answer_goes_on_over_reads_up_to_its_bound() {
        let reads = vec![
            (0, found(&[0], 3, 3, &[])),
            (0, found(&[1], 4, 4, &[])),
            (0, found(&[2], 5, 5, &[])),
        ];
        let (data, left) = answer(Isolation::HighWatermark, reads).await;
        assert_eq!((offsets(&data), left), (vec![0, 1, 2], 0));
    }

    #[tokio::test]
    async fn what_is_read_after_a_cut_is_not_joined_to_what_was_read_before() {
        let reads = vec![
            (0, found(&[0], 3, 3, &[])),
            (0, found(&[1], 3, 3, &[])),
            (1, found(&[2], 3, 3, &[])),
        ];
        let (data, left) = answer(Isolation::HighWatermark, reads).await;
        assert_eq!((offsets(&data), left), (vec![0, 1], 0));
    }
}
