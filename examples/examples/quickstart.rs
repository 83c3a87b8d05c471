//! Open, append, fetch, close: everything else is a variation of it.

use std::{error::Error, time::Duration};

use s3stream::Engine;

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let dir = tempfile::tempdir()?;
    let engine = Engine::builder()
        .bucket(format!("file:{}/bucket", dir.path().display()))
        .wal(format!("block:{}/log?capacity=16MiB", dir.path().display()))
        .open()
        .await?;

    let stream = engine.create_stream().await?;
    let offsets = stream.append(1, &[b"hello, stream"])?.await?; // durable when this resolves
    println!("durable at offset {}", offsets.start);

    let fetched = stream.fetch(offsets.start, 1024 * 1024).await?;
    for record in &fetched.records {
        let text = String::from_utf8_lossy(&record.payload);
        println!("fetched offset {}: {text}", record.offsets.start);
    }

    engine.close(Duration::from_secs(10)).await?; // uploads what is left
    println!("closed: the bucket has it all, the log owes nothing");
    Ok(())
}
