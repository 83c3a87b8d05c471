//! Kafka's log on s3stream: record batches, offsets, retention.
//!
//! A [`KafkaLog`] is the log of one partition, on the three streams of one group: batches, the list of segments, and
//! batches that compaction has written anew. It checks what producers send as a Kafka leader does, gives out offsets, reads back stored bytes as
//! they are, finds offsets by time, rolls segments and deletes old ones. A batch that an idempotent producer sends again
//! is answered and not written again; transactions and their markers are followed, and a reader of committed data is told
//! what was aborted. What is acknowledged survives the process.
//!
//! A follower appends what its leader has stored, and cuts its log where the leader's is another.
//!
//! It is not a broker: no topics, no requests, no groups of consumers, no coordinator of transactions. It
//! compacts what a [`Compactor`] is lent for, and runs nothing by itself.
//!
//! ```
//! use std::sync::Arc;
//!
//! use s3stream::Engine;
//! use segment_adapter::{BatchBuilder, Codec, Isolation, KafkaLog, LogConfig, WallClock};
//!
//! struct NoClock;
//! impl WallClock for NoClock {
//!     fn now_ms(&self) -> i64 {
//!         1_700_000_000_000
//!     }
//! }
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let engine = Engine::builder().bucket("memory:").wal("memory:").open().await?;
//! let (_group, streams) = engine.create_group(KafkaLog::STREAMS, Vec::new()).await?;
//! let log = KafkaLog::open(streams, LogConfig::default(), Arc::new(NoClock)).await?;
//!
//! let batch = BatchBuilder::new(Codec::Zstd)
//!     .record(1_700_000_000_000, Some(b"key"), Some(b"value"))
//!     .build()?;
//! let append = log.append_as_leader(batch, 0)?;
//! assert_eq!(append.info.first_offset, 0);
//! append.durable().await?;
//!
//! let read = log.read(0, 1 << 20, true, Isolation::HighWatermark).await?;
//! assert_eq!((read.records.len(), read.offsets.hw), (1, 1));
//! # Ok(())
//! # }
//! ```

mod aborted;
mod batch;
mod builder;
mod compact;
mod compactor;
mod compress;
mod config;
mod epochs;
mod error;
mod header;
mod log;
mod marker;
mod position;
mod producers;
mod record;
mod summary;
#[cfg(feature = "testing")]
pub mod testing;
mod validate;
mod verification;

pub use batch::{Batch, Batches};
pub use builder::BatchBuilder;
pub use compactor::{Compactor, CompactorConfig};
pub use compress::Codec;
pub use config::LogConfig;
pub use epochs::{EpochEnd, EpochStart};
pub use error::{LogError, RECORD_ERRORS_MAX, RecordError, RecordFault};
pub use header::{Attributes, BATCH_HEADER_LEN, BATCH_LENGTH_OVERHEAD, BatchHeader, TimestampType};
pub use log::{AppendHandle, Compacted, Dirty, EndTxn, KafkaLog, WallClock};
pub use position::{
    AbortedTxn, ActiveProducer, AppendInfo, AppendOptions, FetchData, Isolation, Offsets, Origin,
    TimestampOffset, TimestampSpec, TransactionVersion,
};
pub use record::RecordHead;
pub use validate::{Validated, validate_as_leader};
pub use verification::Guard;
