//! The broker from outside: raw sockets, librdkafka, and the program killed and started again.
#![allow(
    clippy::unwrap_used,
    reason = "tests end where something is not as expected"
)]
#![allow(
    clippy::disallowed_methods,
    reason = "real sockets, processes and clients, in real time"
)]

mod aborted;
mod admin;
mod admin_client;
mod chain;
mod clients;
mod compaction;
mod configs;
mod fetch;
mod groups;
mod kcat;
mod kill;
mod limits;
mod nodes;
mod overload;
mod partitions;
mod program;
mod protocol;
mod status;
mod store;
mod support;
mod topic_ids;
mod topics;
mod transactional;
mod transactions;
