//! Kafka's log on s3stream: record batches, offsets, retention.

mod batch;
mod builder;
mod compress;
mod config;
mod error;
mod header;
mod record;
mod validate;

pub use batch::{Batch, Batches};
pub use builder::BatchBuilder;
pub use compress::Codec;
pub use config::LogConfig;
pub use error::{LogError, RECORD_ERRORS_MAX, RecordError, RecordFault};
pub use header::{Attributes, BATCH_HEADER_LEN, BATCH_LENGTH_OVERHEAD, BatchHeader, TimestampType};
pub use record::RecordHead;
pub use validate::{Validated, validate_as_leader};
