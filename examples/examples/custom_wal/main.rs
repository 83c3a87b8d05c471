//! A write-ahead log of one's own, and an engine on it.
//!
//! `directory_log` is the log. This program runs the suite that every log must pass on it, then an engine in a second process, which it kills while
//! that appends, and then opens the same places again: everything that was acknowledged is there.

mod directory_log;

use std::{
    env,
    error::Error,
    io::{BufRead, BufReader},
    path::Path,
    process::{Command, Stdio},
    sync::Arc,
    time::Duration,
};

use futures::TryStreamExt;
use s3stream::{
    Engine, StreamId,
    wal::{
        Backend, Found,
        testing::{Storage, conformance},
    },
};
use tokio::runtime::Runtime;

use self::directory_log::DirectoryLog;

const LOG_BYTES: u64 = 16 << 20;
/// The writer is killed after so many acknowledgements.
const KILLED_AFTER: usize = 300;

fn main() -> Result<(), Box<dyn Error>> {
    let runtime = Runtime::new()?;
    // With an argument it is the second process.
    if let Some(dir) = env::args_os().nth(1) {
        return runtime.block_on(append_for_ever(dir.as_ref()));
    }
    runtime.block_on(conformance(|| {
        Blank(tempfile::tempdir().expect("a directory for one case"))
    }));
    println!("the log keeps the contract: every case of the suite passed");

    let dir = tempfile::tempdir()?;
    std::fs::create_dir(dir.path().join("log"))?;
    let (stream, acknowledged) = kill_a_writer(dir.path())?;
    println!("killed the writer after {acknowledged} acknowledged appends");
    runtime.block_on(read_back(dir.path(), stream, acknowledged))
}

/// A blank place for each case of the suite.
struct Blank(tempfile::TempDir);

impl Storage for Blank {
    fn backend(&self) -> Arc<dyn Backend> {
        Arc::new(DirectoryLog::new(self.0.path(), LOG_BYTES))
    }
}

async fn open(dir: &Path) -> s3stream::Result<Engine> {
    Engine::builder()
        .bucket(format!("file:{}/bucket", dir.display()))
        .wal_backend(Arc::new(DirectoryLog::new(dir.join("log"), LOG_BYTES)))
        .open()
        .await
}

/// What stands at an offset.
fn text(offset: u64) -> String {
    format!("record {offset}")
}

/// The second process: prints its stream, then every offset once its append is acknowledged.
async fn append_for_ever(dir: &Path) -> Result<(), Box<dyn Error>> {
    let engine = open(dir).await?;
    let stream = engine.create_stream().await?;
    println!("{}", stream.id());
    loop {
        // Sixteen at once, so that a group commit has something to gather.
        let queued: Vec<_> = (0..16)
            .map(|_| stream.append(1, &[text(stream.next()).as_bytes()]))
            .collect::<Result<_, _>>()?;
        for append in queued {
            println!("{}", append.await?.start);
        }
    }
}

/// Runs the second process and kills it. Returns its stream, and how many appends it was told to be durable.
fn kill_a_writer(dir: &Path) -> Result<(StreamId, usize), Box<dyn Error>> {
    let mut child = Command::new(env::current_exe()?)
        .arg(dir)
        .stdout(Stdio::piped())
        .spawn()?;
    let output = child.stdout.take().ok_or("the output is not piped")?;
    let mut lines = BufReader::new(output).lines();
    let first = lines.next().ok_or("the writer did not start")??;
    let mut acknowledged = lines.by_ref().take(KILLED_AFTER).count();
    child.kill()?;
    child.wait()?;
    // What it said before it died, which may be more.
    acknowledged += lines.map_while(Result::ok).count();
    Ok((StreamId::new(first.parse()?), acknowledged))
}

async fn read_back(
    dir: &Path,
    stream: StreamId,
    acknowledged: usize,
) -> Result<(), Box<dyn Error>> {
    let engine = open(dir).await?;
    let stream = engine.open_stream(stream).await?;
    let end = stream.confirm();
    if end < acknowledged as u64 {
        return Err(format!("{acknowledged} were acknowledged, only {end} are there").into());
    }
    let mut records = stream.tail(0);
    for offset in 0..end {
        let record = records.try_next().await?.ok_or("the stream ended")?;
        if record.offsets != (offset..offset + 1) || record.payload != text(offset) {
            return Err(format!("offset {offset}: found {:?}", record.offsets).into());
        }
    }
    println!("reopened: all of them are there, in order, and nothing that was not appended");

    engine.close(Duration::from_secs(10)).await?;
    match DirectoryLog::new(dir.join("log"), LOG_BYTES)
        .identify()
        .await?
    {
        Found::Closed(identity) => println!("closed: {identity} owes nothing"),
        found => return Err(format!("closed, but the log says {found:?}").into()),
    }
    Ok(())
}
