//! A thin Kafka broker on s3stream: unchanged Kafka clients, and no state that another broker could not take over.
//!
//! Records are durable in a write-ahead log when they are acknowledged and in a bucket soon after; topics and their
//! configurations are in the bucket's metadata. Served are topics, produce (idempotent, and in transactions), fetch with long
//! poll, and offsets by time, groups and transactions ([`Broker`] lists the APIs).
//!
//! ```
//! # tokio::runtime::Runtime::new()?.block_on(async {
//! let config = broker::Config {
//!     listen: "127.0.0.1:0".into(),
//!     bucket: "memory:".into(),
//!     wal: "memory:".into(),
//!     ..broker::Config::default()
//! };
//! let broker = broker::Broker::start(config).await?;
//! println!("bootstrap.servers={}", broker.address());
//! broker.stop().await?;
//! # Ok::<_, Box<dyn std::error::Error>>(())
//! # })?;
//! # Ok::<_, Box<dyn std::error::Error>>(())
//! ```
//!
//! What clients send is untrusted: limits, timeouts and a guard before the codec bound what a connection can make the
//! broker hold, and whatever goes wrong on a connection ends that connection alone.

mod admission;
mod api;
mod broker;
mod budget;
mod cleaner;
mod cli;
mod clock;
mod config;
mod connection;
mod coordinator;
mod listeners;
mod metrics;
mod node;
mod producer_ids;
mod retention;
mod server;
mod settings;
mod start_error;
mod status;
mod topics;
mod wire;

pub use broker::Broker;
pub use cli::{main, main_with};
pub use config::{
    Cleaner, Config, ConfigError, Coordinator, Limits, Problem, TopicDefaults, Transactions,
};
pub use start_error::StartError;
