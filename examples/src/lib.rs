//! Programs to read first, each in `examples/examples`; run one with `cargo run -p s3stream-examples --example NAME`.
//!
//! | name | what it shows |
//! |---|---|
//! | `quickstart` | open, append, fetch, close |
//! | `tail_and_catch_up` | readers at the end and from the beginning; a bucket that has everything without the log |
//! | `minimal_broker` | a line protocol over TCP: names, several connections, limits, a graceful end |
//! | `s3_wal` | nothing but a bucket: what an acknowledgement costs, what a crash leaves |
//! | `failover` | a node that is replaced while it is paused: its log in the bucket, the fence, and what it hears |
//! | `custom_wal` | a write-ahead log of one's own that keeps the contract, and an engine on it that is killed |
//!
//! Each ends by itself within seconds, needs no arguments, and leaves nothing behind. There is no code here.
