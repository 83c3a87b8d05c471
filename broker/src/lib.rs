//! A thin Kafka broker on s3stream: unchanged Kafka clients, and no state that another broker could not take over.
#![allow(
    dead_code,
    reason = "the connection loop that uses the wire layer lands next"
)]

mod wire;
