//! Producer ids: never the same twice in a cluster, whoever asks and however often a broker dies.
//!
//! The metadata has the first that was never given out, under one key. A broker takes a block of them at a time, by a
//! conditional put, and forgets what is left of it when it ends: 2⁶³ are enough.

use std::ops::Range;

use s3stream::{Engine, ErrorKind, metadata::Expect};

const KEY: &[u8] = b"kafka/producer-ids";
/// How many are taken at a time.
const BLOCK: i64 = 1000;
/// Another broker takes a block only now and then.
const TRIES_MAX: u32 = 20;

/// Those that this broker may give out.
#[derive(Debug, Default)]
pub(crate) struct ProducerIds {
    left: tokio::sync::Mutex<Range<i64>>,
}

impl ProducerIds {
    /// An id that nobody has.
    pub(crate) async fn next(&self, engine: &Engine) -> s3stream::Result<i64> {
        let mut left = self.left.lock().await;
        if left.is_empty() {
            *left = take_block(engine).await?;
        }
        let id = left.start;
        left.start += 1;
        Ok(id)
    }
}

async fn take_block(engine: &Engine) -> s3stream::Result<Range<i64>> {
    for _ in 0..TRIES_MAX {
        let (first, expect) = match engine.kv_get(KEY) {
            None => (0, Expect::Absent),
            Some((value, version)) => (decode(&value)?, Expect::Version(version)),
        };
        let end = first
            .checked_add(BLOCK)
            .ok_or_else(|| s3stream::Error::internal("no producer ids are left"))?;
        let value = end.to_be_bytes().to_vec().into();
        if engine
            .kv_put(KEY.into(), Some(value), Some(expect))
            .await?
            .is_ok()
        {
            return Ok(first..end);
        }
    }
    Err(s3stream::Error::new(
        ErrorKind::Unavailable,
        "other brokers take all producer ids",
    ))
}

fn decode(value: &[u8]) -> s3stream::Result<i64> {
    let first = value.try_into().map(i64::from_be_bytes);
    first
        .ok()
        .filter(|first| *first >= 0)
        .ok_or_else(|| s3stream::Error::corrupt("producer ids").with("len", value.len()))
}
