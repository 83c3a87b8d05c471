//! Where the log and the bucket of a run are: the ones given by URL, else below the workplace.

use std::{
    fs,
    os::unix::fs::FileTypeExt,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use object_store::throttle::{ThrottleConfig, ThrottledStore};
use s3stream::{
    Entropy,
    store::{Bucket, BucketPlace, Credentials},
};
use wal::{
    Backend,
    block::{BlockLog, Config, Io},
    memory::MemoryLog,
    nfs::NfsLog,
    object::ObjectLog,
};

use crate::{Options, Result, Workplace, price::Requests};

/// As large as the raw device's file.
const LOG_CAPACITY: u64 = 512 << 20;
/// Writes that a block log keeps in flight by default.
const DEPTH: usize = 4;

/// The places of one run.
#[derive(Clone, Debug)]
pub(crate) struct Places {
    pub(crate) wal: String,
    pub(crate) bucket: String,
    /// The log's file, when it is the run's own.
    pub(crate) log_file: Option<PathBuf>,
    /// What drives a block log.
    pub(crate) io: Io,
    /// What a put of an object log takes more.
    pub(crate) put_latency: Duration,
}

/// A log to measure.
#[derive(Debug)]
pub(crate) struct LogPlace {
    pub(crate) backend: Arc<dyn Backend>,
    pub(crate) in_memory: bool,
    /// Where its file is, if it is a file.
    pub(crate) dir: Option<PathBuf>,
    /// Writes the log keeps in flight by default.
    pub(crate) depth: usize,
    /// Where it puts its objects, if it is an object log.
    pub(crate) bucket: Option<Bucket>,
}

impl LogPlace {
    /// What the log has asked of a bucket: every attempt and every hedge, also one that was given up before it reached the store.
    pub(crate) fn requests(&self) -> Requests {
        let asked = self.bucket.as_ref().map(Bucket::requests);
        asked.map_or_else(Requests::default, Requests::from)
    }
}

impl Places {
    /// Those of `--wal` and `--bucket`, or new ones below the workplace.
    pub(crate) fn of(options: &Options, workplace: &Workplace) -> Self {
        let log_file = workplace.join("log");
        let own_log = || format!("block:{}?capacity={LOG_CAPACITY}", log_file.display());
        let own_bucket = || format!("file://{}", workplace.join("bucket").display());
        Self {
            wal: options.wal.clone().unwrap_or_else(own_log),
            bucket: options
                .bucket
                .as_deref()
                .map_or_else(own_bucket, |url| within(url, workplace)),
            log_file: options.wal.is_none().then_some(log_file),
            io: options.log_io.into(),
            put_latency: Duration::from_millis(options.put_latency_ms),
        }
    }

    /// New ones below the workplace, whatever was asked for, called after `name`.
    pub(crate) fn own(options: &Options, workplace: &Workplace, name: &str) -> Self {
        let log_file = workplace.join(&format!("{name}-log"));
        let bucket = workplace.join(&format!("{name}-bucket"));
        Self {
            wal: format!("block:{}?capacity={LOG_CAPACITY}", log_file.display()),
            bucket: format!("file://{}", bucket.display()),
            log_file: Some(log_file),
            io: options.log_io.into(),
            put_latency: Duration::ZERO,
        }
    }

    /// The same bucket, and another new log: what a node on another machine would have.
    pub(crate) fn elsewhere(&self, workplace: &Workplace) -> Self {
        let file = workplace.join("other-log");
        Self {
            wal: format!("block:{}?capacity={LOG_CAPACITY}", file.display()),
            bucket: self.bucket.clone(),
            log_file: Some(file),
            io: self.io,
            put_latency: self.put_latency,
        }
    }

    /// Whether log and bucket outlive an engine. `needs` says for what.
    pub(crate) fn check_lasting(&self, needs: &str) -> Result<()> {
        for url in [&self.wal, &self.bucket] {
            if url.starts_with("memory:") {
                return Err(format!(
                    "{needs} needs a log and a bucket that outlive an engine, not {url}"
                )
                .into());
            }
        }
        Ok(())
    }

    /// Removes everything of this run from the bucket.
    pub(crate) async fn empty_bucket(&self) -> Result<()> {
        let place: BucketPlace = self.bucket.parse()?;
        let bucket = place.open(&credentials(), &Entropy::from_os())?;
        for path in bucket.list(bucket.prefix(), usize::MAX).await? {
            bucket.delete(&path).await?;
        }
        Ok(())
    }

    /// The log in a bucket, each put of which takes as much longer as was asked.
    fn object_log(&self, place: Option<BucketPlace>) -> Result<(ObjectLog, Bucket)> {
        let entropy = Entropy::from_os();
        let place = place.map_or_else(|| self.bucket.parse(), Ok)?;
        let mut bucket = place.open(&credentials(), &entropy)?;
        if !self.put_latency.is_zero() {
            let config = ThrottleConfig {
                wait_put_per_call: self.put_latency,
                ..ThrottleConfig::default()
            };
            // Counted before they wait.
            let store = Arc::new(ThrottledStore::new(bucket.counted(), config));
            bucket = Bucket::new(store, bucket.prefix().as_ref(), &entropy)?;
        }
        // A log of this run's own: what an earlier one has left is not looked at.
        let prefix = bucket.path(&format!("bench-wal/{:016x}", entropy.next_u64()));
        let log = ObjectLog::new(bucket.counted(), prefix.as_ref(), entropy.next_u128())?;
        Ok((log, bucket))
    }

    /// The log.
    pub(crate) fn log(&self) -> Result<LogPlace> {
        Ok(match self.wal.parse()? {
            s3stream::store::LogPlace::Memory => LogPlace {
                backend: Arc::new(MemoryLog::new()),
                in_memory: true,
                dir: None,
                depth: 1,
                bucket: None,
            },
            s3stream::store::LogPlace::Block { path, capacity } => LogPlace {
                in_memory: false,
                dir: directory(&path),
                depth: DEPTH,
                bucket: None,
                backend: Arc::new(
                    BlockLog::file(path, capacity.unwrap_or(LOG_CAPACITY)).with_config(Config {
                        io: self.io,
                        ..Config::default()
                    }),
                ),
            },
            // No device stands below it: a copy and a checksum is what it is compared with.
            s3stream::store::LogPlace::Object(place) => {
                let (log, bucket) = self.object_log(place)?;
                LogPlace {
                    backend: Arc::new(log),
                    in_memory: true,
                    dir: None,
                    depth: 1,
                    bucket: Some(bucket),
                }
            }
            s3stream::store::LogPlace::Nfs { path, capacity } => LogPlace {
                in_memory: false,
                backend: Arc::new(NfsLog::at(&path, capacity.unwrap_or(LOG_CAPACITY))),
                dir: Some(path),
                depth: DEPTH,
                bucket: None,
            },
        })
    }
}

/// As the cloud's own tools take them: this is a program, not the library.
pub(crate) fn credentials() -> Credentials {
    Credentials::from_pairs(std::env::vars())
}

/// Where a log's file is; nothing for a block device.
fn directory(path: &Path) -> Option<PathBuf> {
    let is_device = fs::metadata(path).is_ok_and(|found| found.file_type().is_block_device());
    let parent = path
        .parent()
        .filter(|parent| !parent.as_os_str().is_empty());
    (!is_device).then(|| parent.unwrap_or(Path::new(".")).to_owned())
}

/// A prefix of this run's own in a bucket that may hold other things.
fn within(url: &str, workplace: &Workplace) -> String {
    if url.starts_with("memory:") {
        return url.to_owned();
    }
    let name = workplace
        .path()
        .file_name()
        .unwrap_or_default()
        .to_string_lossy()
        .into_owned();
    let name = name.trim_start_matches('.');
    let (place, parameters) = url.find('?').map_or((url, ""), |at| url.split_at(at));
    format!("{}/{name}{parameters}", place.trim_end_matches('/'))
}
