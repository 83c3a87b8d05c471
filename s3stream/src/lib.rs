//! Streams that are durable in a write-ahead log within one device barrier, and kept for ever in object storage.
//!
//! A [`Stream`] has dense offsets. An append resolves when its record is durable in the log; then it is readable. When
//! enough has gathered it is written to objects, committed, and its place in the log is free. What a node owes is
//! bounded by its log; everything else is in the bucket, and any node can open it.
//!
//! ```
//! use s3stream::Engine;
//!
//! # tokio::runtime::Runtime::new()?.block_on(async {
//! let dir = tempfile::tempdir()?;
//! let engine = Engine::builder()
//!     .bucket(format!("file://{}/bucket", dir.path().display()))
//!     .wal(format!("block:{}/wal?capacity=16MiB", dir.path().display()))
//!     .open()
//!     .await?;
//! let stream = engine.create_stream().await?;
//! let offsets = stream.append(1, &[b"hello"])?.await?; // durable
//! let fetched = stream.fetch(offsets.start, 1 << 20).await?;
//! assert_eq!(fetched.records[0].payload, "hello");
//! engine.close(std::time::Duration::from_secs(10)).await?; // now the bucket has it all
//! # Ok::<_, Box<dyn std::error::Error>>(())
//! # })?;
//! # Ok::<_, Box<dyn std::error::Error>>(())
//! ```
//!
//! **What it is not.** It knows no protocol: records are opaque. It does not replicate the log: how durable an
//! acknowledged and not yet uploaded record is, is the log's matter. A group of streams is written by one node at a time.
//!
//! **Where to look.** [`Engine::builder`] for places and components, [`Config`] for settings, [`ErrorKind`] for what to
//! do about an error, [`segment`] for logs made of slices, [`wal`] for a log of one's own, [`metadata`], [`object`] and
//! [`store`] for tools that look below.

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

pub use config::{Config, Problem};
pub use engine::{Engine, EngineBuilder, Permit, Reads, Usage};
pub use entropy::Entropy;
pub use error::{Error, ErrorKind, Result};
pub use id::{ClusterId, GroupId, NodeEpoch, NodeId, ObjectId, StreamEpoch, StreamId};
pub use metadata::Expect;
pub use record::{RECORD_HEADER_LEN, RecordBatch, RecordHeader};
pub use store::Requests;
pub use stream::{Append, Fetched, Stream, Tail};
pub use wal::{self, BootClock, Clock};

/// The README's quickstart runs as a test.
#[cfg(doctest)]
#[doc = include_str!("../../README.md")]
struct Readme;
