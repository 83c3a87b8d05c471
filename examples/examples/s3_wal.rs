//! Nothing but a bucket: the log lies in it, too. What an acknowledgement costs, what a crash leaves, and what idle costs.
//!
//! `cargo run -p s3stream-examples --example s3_wal -- 's3://bucket/prefix?region=…'` takes a real one, with the credentials of its environment; without
//! a place it makes a directory that is a bucket until the end.

use std::{env, error::Error, time::Duration};

use futures::future::try_join_all;
use s3stream::{Engine, Requests, Stream, store::Credentials};

/// One at a time, each acknowledged before the next.
const ALONE: u64 = 20;
/// All at once.
const TOGETHER: u64 = 20_000;
const RECORD_BYTES: usize = 500;

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error + Send + Sync>> {
    let dir = tempfile::tempdir()?;
    let bucket = match env::args().nth(1) {
        Some(url) => url,
        None => format!("file:{}", dir.path().display()),
    };
    let engine = open(&bucket).await?;
    let stream = engine.create_stream().await?;
    let start = stream.next();

    let before = engine.requests();
    for _ in 0..ALONE {
        append(&stream).await?;
    }
    show(&format!("{ALONE} records, one at a time"), before, &engine);

    let before = engine.requests();
    try_join_all((0..TOGETHER).map(|_| append(&stream))).await?;
    show(&format!("{TOGETHER} records, all at once"), before, &engine);

    let before = engine.requests();
    tokio::time::sleep(Duration::from_secs(1)).await;
    show("a second without anything to do", before, &engine);

    // Not closed: what was acknowledged is in the log, and nothing else is known of it.
    drop((engine, stream.clone()));
    let engine = open(&bucket).await?;
    let stream = engine.open_stream(stream.id()).await?;
    let found = stream.confirm() - start;
    println!("after a crash: {found} records");
    if found != ALONE + TOGETHER {
        return Err("records are missing".into());
    }
    engine.close(Duration::from_secs(60)).await?;
    println!("closed: all of it is in objects, the log owes nothing");
    Ok(())
}

async fn open(bucket: &str) -> s3stream::Result<Engine> {
    Engine::builder()
        .bucket(bucket)
        .credentials(Credentials::from_pairs(env::vars()))
        .wal("object:")
        .open()
        .await
}

async fn append(stream: &Stream) -> s3stream::Result<()> {
    // Waits for room, where `append` alone would say `Full`.
    let permit = stream.ready(RECORD_BYTES).await?;
    stream
        .append_with(permit, 1, &[&[b'.'; RECORD_BYTES]])?
        .await
        .map(drop)
}

fn show(what: &str, before: Requests, engine: &Engine) {
    let after = engine.requests();
    println!(
        "{what}: {} put, {} other requests",
        after.put - before.put,
        after.total() - before.total() - (after.put - before.put)
    );
}
