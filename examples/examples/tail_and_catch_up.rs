//! Three readers of one stream: one that follows the writer, one that begins late and from the start, one in another life with another log.
//!
//! The reader that follows costs no request. The late one reads from the bucket what is no longer in memory. The last one has nothing but the bucket.

use std::{error::Error, path::Path, time::Duration};

use futures::TryStreamExt;
use s3stream::{Config, Engine, Requests, Stream};

const RECORDS: u64 = 8_000;
const RECORD_BYTES: usize = 1_024;

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error + Send + Sync>> {
    let dir = tempfile::tempdir()?;
    let (bucket, log) = (dir.path().join("bucket"), dir.path().join("log"));
    let engine = open(&bucket, &log).await?;
    let stream = engine.create_stream().await?;

    // It waits at offset 0 before there is anything.
    let follower = tokio::spawn(read(stream.clone()));
    tokio::spawn(write(stream.clone())).await??;
    println!("written: {RECORDS} records, all durable");
    println!("followed: {} records as they came", follower.await??);
    show("to write and to follow", engine.requests());

    let before = engine.requests();
    println!(
        "caught up: {} records from the start",
        read(stream.clone()).await?
    );
    println!(
        "  of these, {} reads of the bucket",
        engine.requests().get - before.get
    );

    engine.close(Duration::from_secs(30)).await?;
    std::fs::remove_file(&log)?;
    println!("closed, and the log is deleted");

    let elsewhere = tempfile::tempdir()?;
    let engine = open(&bucket, &elsewhere.path().join("log")).await?;
    let stream = engine.open_stream(stream.id()).await?;
    println!("from the bucket alone: {} records", read(stream).await?);
    show("to open and to read all", engine.requests());
    engine.close(Duration::from_secs(30)).await?;
    Ok(())
}

/// Small limits, so that a few MiB show what otherwise takes hundreds: 4 MiB of records are kept in memory, and uploaded 1 MiB at a time.
async fn open(bucket: &Path, log: &Path) -> s3stream::Result<Engine> {
    Engine::builder()
        .bucket(format!("file:{}", bucket.display()))
        .wal(format!("block:{}?capacity=32MiB", log.display()))
        .config(Config {
            log_cache_bytes: 4 << 20,
            upload_bytes: 1 << 20,
            ..Config::default()
        })
        .open()
        .await
}

/// What stands at an offset.
fn payload(offset: u64) -> Vec<u8> {
    let mut payload = format!("record {offset} ").into_bytes();
    payload.resize(RECORD_BYTES, b'.');
    payload
}

async fn write(stream: Stream) -> s3stream::Result<()> {
    let mut last = None;
    for offset in 0..RECORDS {
        // Waits for room in memory and log: this, and not the acknowledgement, is what slows a writer down.
        let permit = stream.ready(RECORD_BYTES).await?;
        last = Some(stream.append_with(permit, 1, &[&payload(offset)])?);
    }
    // Appends of a stream resolve in order: when the last is durable, all are.
    if let Some(last) = last {
        last.await?;
    }
    Ok(())
}

/// Reads all records from the first on, and checks each.
async fn read(stream: Stream) -> Result<u64, Box<dyn Error + Send + Sync>> {
    let mut records = stream.tail(0);
    for offset in 0..RECORDS {
        let record = records.try_next().await?.ok_or("the stream ended")?;
        if record.offsets != (offset..offset + 1) || record.payload != payload(offset) {
            return Err(format!("offset {offset}: found {:?}", record.offsets).into());
        }
    }
    Ok(RECORDS)
}

fn show(what: &str, requests: Requests) {
    let Requests {
        put,
        get,
        list,
        delete,
        ..
    } = requests;
    println!("requests {what}: {put} put, {get} get, {list} list, {delete} delete");
}
