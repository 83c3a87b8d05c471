//! Owners of a log that are processes of their own, to be killed and stopped by signals. The process is the test program itself, told to run one ignored test.
//!
//! - An owner tells a line for what it replayed, and, in its sink, for each acknowledgement: whatever it tells, whenever, its successors must replay (W5).
//! - It starts only when it is told to: what its opening found is recorded before that (F0).
//! - It appends until an append fails, and ends then.
//!
//! Records say their number in their first four bytes.
#![allow(
    clippy::disallowed_methods,
    reason = "test support: a parent tells its child through the environment what to do, and waits for real processes"
)]

use std::{
    ffi::OsStr,
    fmt::Write as _,
    io::{self, BufRead, BufReader, Write},
    process::{Child, Command, Stdio},
    sync::Arc,
    thread::{self, JoinHandle},
    time::Duration,
};

use parking_lot::Mutex;
use tokio::time::{sleep, timeout};

use crate::{
    Backend, Commit, EpochEnd, EpochState, Error, Identity, LogEpoch, LogState, LogUuid, Position,
    Sink,
};

const STATE: &str = "S3STREAM_OWNER_STATE";
const FIRST: &str = "S3STREAM_OWNER_FIRST";
const START: &str = "start";
/// Longer than anything that an owner does takes.
const PATIENCE: Duration = Duration::from_secs(60);
/// Between two appends.
const PAUSE: Duration = Duration::from_millis(2);

fn tell(line: &str) {
    let mut out = io::stdout().lock();
    writeln!(out, "{line}").expect("a parent that listens");
    out.flush().expect("a parent that listens");
}

/// Tells its parent.
struct Teller;

fn name_of(payload: &[u8]) -> u32 {
    let name = payload.first_chunk().expect("a record with its number");
    u32::from_be_bytes(*name)
}

impl Sink for Teller {
    fn durable(&self, commit: Commit) {
        for record in commit.records {
            tell(&format!("acknowledged {}", name_of(&record.payload)));
        }
    }

    fn failed(&self, error: &Error) {
        tell(&format!("failed {error}"));
    }

    fn room(&self) {}
}

/// What the ignored test does that is the owner's process: owns the log until it fails. `payload` makes the record of a number.
///
/// # Panics
/// When the log does not open or start.
pub async fn own(backend: &dyn Backend, payload: impl Fn(u32) -> Vec<u8>) {
    let given =
        |name| std::env::var(name).expect("the state and the first record, from the parent");
    let (state, mut record) = (
        decode(&given(STATE)),
        given(FIRST).parse().expect("a number"),
    );
    // Whatever the test program has begun a line with.
    tell("");
    let mut replay = backend.open(&state).await.expect("an opening");
    while let Some(piece) = replay.next().await.expect("a replay") {
        for replayed in piece {
            tell(&format!("replayed {}", name_of(&replayed.payload)));
        }
    }
    for end in replay.ends() {
        tell(&format!("end {} {}", end.epoch, end.end));
    }
    tell(&format!("opened {}", replay.start_position()));
    let mut told = String::new();
    io::stdin().read_line(&mut told).expect("a parent");
    if told.trim() != START {
        return;
    }
    let log = match replay.start(Arc::new(Teller)).await {
        Ok(log) => log,
        Err(error) => return tell(&format!("failed {error}")),
    };
    loop {
        match log.append(&[&payload(record)]) {
            Ok(_) => record += 1,
            Err(Error::Full { .. }) => {}
            Err(_) => return,
        }
        sleep(PAUSE).await;
    }
}

/// An owner's process, and what it told.
#[derive(Debug)]
pub struct OwnerProcess {
    child: Child,
    told: Arc<Mutex<Vec<String>>>,
    reader: Option<JoinHandle<()>>,
}

impl OwnerProcess {
    /// Runs `test`, the full name of an ignored test of this program that calls [`own`]. It finds `state`, the number of its first record, and
    /// `variables`.
    ///
    /// # Panics
    /// When there can be no process.
    pub fn begin(test: &str, state: &LogState, first: u32, variables: &[(&str, &OsStr)]) -> Self {
        let program = std::env::current_exe().expect("this program");
        let mut child = Command::new(program)
            .args(["--ignored", "--exact", test, "--nocapture"])
            .env(STATE, encode(state))
            .env(FIRST, first.to_string())
            .envs(variables.iter().copied())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("a process");
        let lines = BufReader::new(child.stdout.take().expect("its output")).lines();
        let told = Arc::new(Mutex::new(Vec::new()));
        let listening = Arc::clone(&told);
        let reader = thread::Builder::new().name("listener".to_owned());
        let reader = reader.spawn(move || {
            for line in lines.map_while(Result::ok) {
                listening.lock().push(line);
            }
        });
        Self {
            child,
            told,
            reader: Some(reader.expect("a thread")),
        }
    }

    fn rest_of(&self, word: &str) -> Vec<String> {
        let told = self.told.lock();
        let rest = told.iter().filter_map(|line| line.strip_prefix(word));
        rest.map(str::to_owned).collect()
    }

    fn numbers(&self, word: &str) -> Vec<u32> {
        let rest = self.rest_of(word);
        rest.iter().map(|n| n.parse().expect("a number")).collect()
    }

    /// What it acknowledged so far, in order.
    pub fn acknowledged(&self) -> Vec<u32> {
        self.numbers("acknowledged ")
    }

    /// What it replayed so far.
    pub fn replayed(&self) -> Vec<u32> {
        self.numbers("replayed ")
    }

    /// Why its log failed, if it told.
    pub fn failed(&self) -> Option<String> {
        self.rest_of("failed ").pop()
    }

    async fn until(&self, what: &str, enough: impl Fn() -> bool) {
        let wait = async {
            while !enough() {
                sleep(Duration::from_millis(5)).await;
            }
        };
        let waited = timeout(PATIENCE, wait).await;
        let last = || self.told.lock().last().cloned();
        assert!(waited.is_ok(), "an owner that never {what}: {:?}", last());
    }

    /// Waits until it has acknowledged so many.
    ///
    /// # Panics
    /// After a minute, as all that waits here.
    pub async fn until_acknowledged(&self, count: usize) {
        let enough = || self.acknowledged().len() >= count;
        self.until("acknowledges", enough).await;
    }

    /// Waits until it has opened the log, and records that in the state that it was given.
    ///
    /// # Panics
    /// After a minute.
    pub async fn opened(&self, state: &mut LogState) {
        let opened = || !self.rest_of("opened ").is_empty();
        self.until("opens", opened).await;
        let number = |text: &str| text.parse::<u64>().expect("a number");
        let ends: Vec<_> = self
            .rest_of("end ")
            .iter()
            .map(|end| {
                let (epoch, end) = end.split_once(' ').expect("epoch and end");
                EpochEnd {
                    epoch: LogEpoch::new(number(epoch)),
                    end: Position::new(number(end)),
                }
            })
            .collect();
        let start = self.rest_of("opened ").pop().expect("just looked at");
        state.begin(&ends, Position::new(number(&start)));
    }

    /// Tells it to start.
    ///
    /// # Panics
    /// When it has ended.
    pub fn start(&mut self) {
        let to = self.child.stdin.as_mut().expect("its input");
        writeln!(to, "{START}").expect("an owner that waits");
    }

    /// Sends it a signal, by name.
    ///
    /// # Panics
    /// When it has ended.
    pub fn signal(&self, name: &str) {
        let process = self.child.id();
        let mut kill = Command::new("kill");
        let sent = kill
            .args([&format!("-{name}"), &process.to_string()])
            .status();
        let sent = sent.expect("the program kill");
        assert!(sent.success(), "kill -{name} {process}");
    }

    /// Waits until it has ended by itself and has told everything.
    ///
    /// # Panics
    /// After a minute.
    pub async fn ended(&mut self) {
        let wait = async {
            while self.child.try_wait().expect("a process").is_none() {
                sleep(Duration::from_millis(5)).await;
            }
        };
        timeout(PATIENCE, wait).await.expect("an owner that ends");
        if let Some(reader) = self.reader.take() {
            reader.join().expect("a listener");
        }
    }
}

impl Drop for OwnerProcess {
    fn drop(&mut self) {
        // Failing means that it has ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn encode(state: &LogState) -> String {
    let Identity { cluster, log, node } = &state.identity;
    let mut text = format!("{cluster} {} {node} {}", log.get(), state.epoch);
    for e in &state.owed {
        let end = e
            .sealed_end
            .map_or(String::from("-"), |end| end.to_string());
        let (epoch, trim, durable, started) = (e.epoch, e.trim, e.durable_end, e.started);
        let written = write!(text, " {epoch} {trim} {durable} {end} {started}");
        written.expect("a string takes all");
    }
    text
}

fn decode(text: &str) -> LogState {
    let words: Vec<_> = text.split(' ').collect();
    let number = |word: &str| word.parse::<u64>().expect("a number");
    let wide = |word: &str| word.parse::<u128>().expect("a number");
    let ([cluster, log, node, epoch], owed) = words.split_first_chunk().expect("a state");
    let owed = owed.as_chunks::<5>().0.iter();
    let owed = owed.map(|[epoch, trim, durable, end, started]| EpochState {
        epoch: LogEpoch::new(number(epoch)),
        trim: Position::new(number(trim)),
        durable_end: Position::new(number(durable)),
        sealed_end: (*end != "-").then(|| Position::new(number(end))),
        started: *started == "true",
    });
    LogState {
        identity: Identity {
            cluster: wide(cluster),
            log: LogUuid::new(wide(log)),
            node: number(node),
        },
        epoch: LogEpoch::new(number(epoch)),
        owed: owed.collect(),
    }
}
