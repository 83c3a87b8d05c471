//! One life of the node: open, read everything back, serve clients, end.
//!
//! In a faulty world a life may end before it served; a healed one must do everything in time.

use std::{sync::Arc, time::Duration};

use futures::future::try_join_all;
use s3stream::{Clock, Config, Engine, Error, ErrorKind, Stream, StreamId, wal::Backend};
use tokio::time::{Instant, sleep, timeout_at};

use crate::{
    Entropy, SimClock, Violation,
    actor::{Actor, Role},
    checker::{Bounds, StreamChecker},
    outcome::Ending,
    world::World,
};

const GROUPS: usize = 2;
const STREAMS_PER_GROUP: u32 = 2;
/// Bytes asked for at once when everything is read back.
const READ_BYTES: usize = 64 << 10;
const PAUSE: Duration = Duration::from_millis(500);
/// After this long in a healed world nothing is left to be cleaned up.
const AT_REST: Duration = Duration::from_secs(600);
const IDLE: Duration = Duration::from_secs(60);

/// What a life is for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Purpose {
    /// Clients at work, faults all around.
    Serve,
    /// The world is healed: it must serve, come to rest, and close.
    ComeBack,
    /// The log is gone: what was appended in all lives must be there.
    ServeFromTheBucketAlone,
}

/// A node in its runtime.
#[derive(Debug)]
pub(crate) struct Life {
    pub(crate) world: Arc<World>,
    pub(crate) entropy: Entropy,
    /// One place for the whole life: its clones know of each other.
    log: Arc<dyn Backend>,
    deadline: Instant,
    purpose: Purpose,
}

impl Clock for SimClock {
    fn now(&self) -> Duration {
        Self::now(self)
    }
}

/// Small, so that everything fills; but the caches of what was read never do: moka looks at the machine's clock when it
/// evicts, and a seed would not always be the same run.
fn config() -> Config {
    Config {
        log_cache_bytes: 1 << 20,
        block_cache_bytes: 1 << 30,
        index_cache_bytes: 1 << 30,
        upload_bytes: 128 << 10,
        stream_object_bytes: 48 << 10,
        data_block_bytes: 8 << 10,
        read_bytes_max: 64 << 10,
        condemn_grace_ms: 60_000,
        ..Config::default()
    }
}

impl Life {
    pub(crate) fn new(
        world: Arc<World>,
        entropy: Entropy,
        length: Duration,
        purpose: Purpose,
    ) -> Self {
        Self {
            log: world.log(),
            world,
            entropy,
            deadline: Instant::now() + length,
            purpose,
        }
    }

    /// Lives to its end, or to the first violation.
    pub(crate) async fn live(self, ending: Ending) -> Result<(), Violation> {
        let deadline = self.deadline;
        let life = Arc::new(self);
        let Ok(served) = timeout_at(deadline, life.serve()).await else {
            return life.too_late("opening, reading back and creating streams");
        };
        let (engine, streams) = served?;
        if life.purpose == Purpose::Serve {
            life.work(&streams).await?;
        }
        if life.purpose == Purpose::ComeBack {
            life.come_to_rest(&engine, &streams).await?;
        }
        if ending == Ending::Close {
            life.close(&engine).await?;
        }
        Ok(())
    }

    async fn serve(self: &Arc<Self>) -> Result<(Engine, Vec<Stream>), Violation> {
        let engine = self.open().await?;
        let streams = self.streams(&engine).await?;
        for stream in &streams {
            self.read_back(stream).await?;
        }
        Ok((engine, streams))
    }

    async fn open(&self) -> Result<Engine, Violation> {
        loop {
            let opened = Engine::builder()
                .config(config())
                .object_store(Arc::new(self.world.bucket.clone()), "cluster")
                .wal_backend(Arc::clone(&self.log))
                .clock(Arc::new(self.world.clock.clone()))
                .seed(self.entropy.next())
                .open()
                .await;
            match opened {
                Ok(engine) => return Ok(engine),
                Err(error) => self.tolerate("open", &error)?,
            }
            sleep(PAUSE).await;
        }
    }

    /// The streams of all lives; missing ones are created.
    async fn streams(&self, engine: &Engine) -> Result<Vec<Stream>, Violation> {
        let known = self.world.promised.lock().groups.clone();
        let mut streams = Vec::new();
        for group in known {
            streams.extend(
                self.until_done("open a group", || engine.open_group(group))
                    .await?,
            );
        }
        while self.world.promised.lock().groups.len() < GROUPS {
            let create = || engine.create_group(STREAMS_PER_GROUP, Vec::new());
            let (group, created) = self.until_done("create a group", create).await?;
            let mut promised = self.world.promised.lock();
            promised.groups.push(group);
            for stream in &created {
                let checker = StreamChecker::new(self.world.seed, stream.id().get());
                promised.streams.insert(stream.id(), checker);
            }
            streams.extend(created);
        }
        Ok(streams)
    }

    /// Reads a stream from its start to `confirm`: all that was ever acknowledged and not trimmed is there.
    pub(crate) async fn read_back(&self, stream: &Stream) -> Result<(), Violation> {
        let (start, confirm) = (stream.start(), stream.confirm());
        self.observe(stream)?;
        let mut at = start;
        while at < confirm {
            let fetch = || stream.fetch(at, READ_BYTES);
            let fetched = self.until_done("read back", fetch).await?;
            let found = fetched
                .records
                .iter()
                .map(|record| (&record.offsets, &record.payload));
            self.check(stream.id(), |checker| {
                checker.fetched(at, found, stream.confirm())
            })?;
            match fetched.records.last() {
                Some(last) => at = last.offsets.end,
                None => {
                    let what = format!("a fetch from {at} found nothing, confirm is {confirm}");
                    return Err(Violation::new("S4", what));
                }
            }
        }
        self.check(stream.id(), |checker| checker.read_whole(start, confirm))
    }

    /// Clients at work until the life is over.
    async fn work(self: &Arc<Self>, streams: &[Stream]) -> Result<(), Violation> {
        let actors = streams.iter().flat_map(|stream| {
            Role::ALL.map(|role| Actor::new(Arc::clone(self), stream.clone(), role).act())
        });
        match timeout_at(self.deadline, try_join_all(actors)).await {
            Ok(ended) => ended.map(drop),
            Err(_) => Ok(()),
        }
    }

    /// A healed world: appends succeed, everything reads back, and after a while nothing is asked of the bucket.
    async fn come_to_rest(&self, engine: &Engine, streams: &[Stream]) -> Result<(), Violation> {
        let rest = async {
            for stream in streams {
                self.append_one(stream).await?;
            }
            self.until_done("flush", || engine.flush()).await?;
            for stream in streams {
                self.read_back(stream).await?;
            }
            sleep(AT_REST).await;
            let before = self.world.bucket.requests();
            sleep(IDLE).await;
            let asked = self.world.bucket.requests() - before;
            if asked > 0 {
                let what = format!("{asked} requests in {IDLE:?} without a call");
                return Err(Violation::new("idle", what));
            }
            Ok(())
        };
        match timeout_at(self.deadline, rest).await {
            Ok(rested) => rested,
            Err(_) => self.too_late("coming to rest"),
        }
    }

    async fn append_one(&self, stream: &Stream) -> Result<(), Violation> {
        let append = || async {
            let (sequence, payload) = {
                let mut promised = self.world.promised.lock();
                promised.checker(stream.id()).payload(100)
            };
            let append = stream.append(1, &[&payload])?;
            self.check(stream.id(), |checker| {
                checker.queued(sequence, append.offsets())
            })
            .map_err(|violation| Error::internal(violation.to_string()))?;
            Ok((sequence, append.await?))
        };
        let (sequence, offsets) = self.until_done("append", append).await?;
        self.check(stream.id(), |checker| {
            checker.acknowledged(sequence, &offsets)
        })
    }

    async fn close(&self, engine: &Engine) -> Result<(), Violation> {
        match engine.close(Duration::from_secs(600)).await {
            Ok(()) => Ok(()),
            Err(error) => {
                self.tolerate("close", &error)?;
                if self.purpose == Purpose::Serve {
                    return Ok(());
                }
                Err(Violation::new(
                    "close",
                    format!("in a healed world: {error:?}"),
                ))
            }
        }
    }

    /// Calls until it succeeds; whoever calls this has a deadline.
    pub(crate) async fn until_done<T, F: Future<Output = Result<T, Error>>>(
        &self,
        what: &str,
        mut call: impl FnMut() -> F,
    ) -> Result<T, Violation> {
        loop {
            match call().await {
                Ok(done) => return Ok(done),
                Err(error) => self.tolerate(what, &error)?,
            }
            sleep(PAUSE).await;
        }
    }

    /// Passing failures are tolerated. A lone node is never fenced, and nothing in this world rots.
    pub(crate) fn tolerate(&self, what: &str, error: &Error) -> Result<(), Violation> {
        self.world.note(format_args!("{what}: {error}"));
        match error.kind() {
            ErrorKind::Unavailable | ErrorKind::Full => Ok(()),
            _ => Err(Violation::new("S6", format!("{what}: {error:?}"))),
        }
    }

    /// Takes the bounds that a stream reports.
    pub(crate) fn observe(&self, stream: &Stream) -> Result<(), Violation> {
        let bounds = Bounds {
            start: stream.start(),
            confirm: stream.confirm(),
            next: stream.next(),
        };
        self.check(stream.id(), |checker| checker.bounds(bounds))
    }

    pub(crate) fn check(
        &self,
        stream: StreamId,
        question: impl FnOnce(&mut StreamChecker) -> Result<(), Violation>,
    ) -> Result<(), Violation> {
        let mut promised = self.world.promised.lock();
        promised.operations += 1;
        question(promised.checker(stream))
    }

    fn too_late(&self, what: &str) -> Result<(), Violation> {
        if self.purpose == Purpose::Serve {
            return Ok(());
        }
        Err(Violation::new(
            "stuck",
            format!("{what} was not done in an hour without faults"),
        ))
    }
}
