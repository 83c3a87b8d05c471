//! A node dies, or seems to: another process takes its log in the bucket, and serves within moments all that was acknowledged.
//!
//! The first owner is a process of its own that is stopped in the middle of its work, as a paused machine is. It does not know that it was
//! replaced. When it goes on, the fence in the log refuses its next write: it acknowledges nothing that the new owner does not have.

#![allow(
    clippy::disallowed_methods,
    reason = "how long it took is for whoever watches"
)]

use std::{
    env,
    error::Error,
    io::{BufRead, BufReader, Write},
    path::Path,
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use rustix::process::{Pid, Signal, kill_process};
use s3stream::{Engine, ErrorKind, Stream, StreamId};

type Result<T, E = Box<dyn Error + Send + Sync>> = std::result::Result<T, E>;

/// Records that the first owner acknowledges before it is stopped.
const RECORDS: u64 = 200;
const LONG: Duration = Duration::from_secs(60);

#[tokio::main]
async fn main() -> Result<()> {
    // With a directory it is the first owner.
    if let Some(dir) = env::args_os().nth(1) {
        return own(Path::new(&dir)).await;
    }
    let dir = tempfile::tempdir()?;
    let mut first = Owner::start(dir.path())?;
    let (stream, acknowledged) = first.work(RECORDS)?;
    first.signal(Signal::STOP)?;
    println!("the first owner has acknowledged {acknowledged} records, and is stopped");

    let began = Instant::now();
    let engine = open(dir.path()).await?;
    let stream = engine.open_stream(stream).await?;
    println!(
        "the second owner serves after {} ms",
        began.elapsed().as_millis()
    );
    let found = stream.confirm();
    if found < acknowledged {
        return Err(format!("{found} records, {acknowledged} were acknowledged").into());
    }
    check(&stream, found).await?;
    println!("it has all of them");
    let offset = stream.append(1, &[b"of the second owner"])?.await?;
    println!("and goes on");

    first.signal(Signal::CONT)?;
    let (late, last_words) = first.end()?;
    if late > found {
        return Err(format!("{late} records were acknowledged, {found} are there").into());
    }
    println!("the first owner goes on, and hears: {last_words}");

    check(&stream, found).await?;
    let after = stream.fetch(found, 1 << 20).await?;
    let own = after.records.first().ok_or("its own record is not there")?;
    if own.offsets != offset || own.payload != "of the second owner" {
        return Err("its own record is another".into());
    }
    engine.close(LONG).await?;
    println!("closed: nothing is lost, nothing forked");
    Ok(())
}

/// Both owners are node 0, with their log and everything else in one bucket.
async fn open(dir: &Path) -> s3stream::Result<Engine> {
    Engine::builder()
        .bucket(format!("file:{}", dir.join("bucket").display()))
        .wal("object:")
        .open()
        .await
}

fn payload(offset: u64) -> String {
    format!("record {offset}")
}

async fn check(stream: &Stream, end: u64) -> Result<()> {
    let mut next = 0;
    while next < end {
        for record in stream.fetch(next, 1 << 20).await?.records {
            if record.offsets.start < end && record.payload != payload(record.offsets.start) {
                return Err(format!("offset {next} is another record").into());
            }
            next = record.offsets.end;
        }
    }
    Ok(())
}

/// The first owner: appends, and says what is durable, until it is told that it owns nothing any more.
async fn own(dir: &Path) -> Result<()> {
    let engine = open(dir).await?;
    let stream = engine.create_stream().await?;
    println!("stream {}", stream.id().get());
    let mut next = 0;
    let error = loop {
        let appended = async { stream.append(1, &[payload(next).as_bytes()])?.await };
        match appended.await {
            Ok(_) => {
                next += 1;
                println!("acknowledged {next}");
            }
            Err(error) if error.kind() == ErrorKind::Fenced => break error,
            // Not certain, or not now: what it is shows by itself.
            Err(_) => tokio::time::sleep(Duration::from_millis(10)).await,
        }
    };
    println!("{error}");
    Ok(std::io::stdout().flush()?)
}

/// The process of the first owner. Ends with this one.
struct Owner {
    child: Child,
    said: std::io::Lines<BufReader<std::process::ChildStdout>>,
}

impl Owner {
    fn start(dir: &Path) -> Result<Self> {
        let mut command = Command::new(env::current_exe()?);
        let mut child = command.arg(dir).stdout(Stdio::piped()).spawn()?;
        let stdout = child.stdout.take().ok_or("a pipe")?;
        let said = BufReader::new(stdout).lines();
        Ok(Self { child, said })
    }

    /// The stream, and how many records are acknowledged when it is at least `records`.
    fn work(&mut self, records: u64) -> Result<(StreamId, u64)> {
        let mut stream = None;
        loop {
            let line = self.said.next().ok_or("the first owner ended")??;
            match line.split_once(' ') {
                Some(("stream", id)) => stream = Some(StreamId::new(id.parse()?)),
                Some(("acknowledged", count)) if count.parse::<u64>()? >= records => {
                    let stream = stream.ok_or("a stream is created first")?;
                    return Ok((stream, count.parse()?));
                }
                _ => {}
            }
        }
    }

    fn signal(&self, signal: Signal) -> Result<()> {
        Ok(kill_process(Pid::from_child(&self.child), signal)?)
    }

    /// The most that it said to be acknowledged, and the last that it said.
    fn end(mut self) -> Result<(u64, String)> {
        let mut acknowledged = 0;
        let mut last = String::new();
        for line in &mut self.said {
            last = line?;
            if let Some(count) = last.strip_prefix("acknowledged ") {
                acknowledged = count.parse()?;
            }
        }
        self.child.wait()?;
        Ok((acknowledged, last))
    }
}

impl Drop for Owner {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
