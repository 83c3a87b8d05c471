//! Streams that are durable in a write-ahead log and kept for ever in object storage.

mod clock;
mod config;
mod engine;
mod entropy;
mod error;
mod id;
pub mod metadata;
pub mod object;
mod record;
pub mod segment;
pub mod store;
mod stream;
#[cfg(feature = "testing")]
pub mod testing;

pub use clock::{BootClock, Clock};
pub use config::{Config, Problem};
pub use engine::{Engine, EngineBuilder, Permit, Usage};
pub use entropy::Entropy;
pub use error::{Error, ErrorKind, Result};
pub use id::{ClusterId, GroupId, NodeEpoch, NodeId, ObjectId, StreamEpoch, StreamId};
pub use record::{RECORD_HEADER_LEN, RecordBatch, RecordHeader};
pub use stream::{Append, Fetched, Stream, Tail};
pub use wal;
