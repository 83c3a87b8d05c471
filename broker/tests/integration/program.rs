//! The program itself: what it prints, how it stops, and what it says when it cannot start.

use std::{
    io::{BufRead, BufReader, Write},
    net::SocketAddr,
    path::Path,
    process::{Child, Command, ExitStatus, Output, Stdio},
    time::{Duration, Instant},
};

use super::support::{Client, batch};

/// Where a program keeps its data.
#[derive(Clone, Debug)]
pub(crate) struct Places {
    pub(crate) bucket: String,
    pub(crate) wal: String,
    pub(crate) environment: Vec<(&'static str, &'static str)>,
}

impl Places {
    pub(crate) fn under(dir: &Path) -> Self {
        Self {
            bucket: format!("file:{}", dir.join("bucket").display()),
            wal: format!("block:{}?capacity=256MiB", dir.join("wal").display()),
            environment: Vec::new(),
        }
    }

    pub(crate) fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_s3stream-broker"));
        if !arguments.contains(&"--listen") {
            command.args(["--listen", "127.0.0.1:0"]);
        }
        command
            .args(["--bucket", &self.bucket, "--wal", &self.wal])
            .args(arguments)
            .env("RUST_LOG", "warn")
            .envs(self.environment.iter().copied())
            .stdin(Stdio::null());
        command
    }

    /// Starts it with the expectation that it does not start.
    fn refused(&self, arguments: &[&str]) -> Refusal {
        let mut command = self.command(arguments);
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let deadline = Instant::now() + Duration::from_secs(30);
        while child.try_wait().unwrap().is_none() {
            if Instant::now() > deadline {
                child.kill().unwrap();
                panic!("it started: {:?}", child.wait_with_output().unwrap());
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        Refusal::of(&child.wait_with_output().unwrap())
    }
}

/// What a program said that did not start.
#[derive(Debug)]
struct Refusal {
    code: Option<i32>,
    message: String,
}

impl Refusal {
    fn of(output: &Output) -> Self {
        let stderr = String::from_utf8_lossy(&output.stderr);
        let lines: Vec<&str> = stderr
            .lines()
            .filter(|line| line.starts_with("s3stream-broker: "))
            .collect();
        assert_eq!(lines.len(), 1, "one message, but: {stderr}");
        assert!(output.stdout.is_empty(), "{output:?}");
        Self {
            code: output.status.code(),
            message: lines[0].to_owned(),
        }
    }

    #[track_caller]
    fn assert(&self, code: i32, parts: &[&str]) {
        assert_eq!(self.code, Some(code), "{self:?}");
        for part in parts {
            assert!(self.message.contains(part), "{part:?} is not in: {self:?}");
        }
    }
}

/// A running program. Killed when it is dropped.
pub(crate) struct Program {
    child: Child,
    pub(crate) address: SocketAddr,
}

impl Program {
    pub(crate) fn start(places: &Places, arguments: &[&str]) -> Self {
        let mut command = places.command(arguments);
        let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let address = loop {
            let line = lines.next().expect("it ended before it served").unwrap();
            if let Some((_, rest)) = line.split_once("clients on ") {
                break rest.split(' ').next().unwrap().parse().unwrap();
            }
        };
        Self { child, address }
    }

    pub(crate) fn client(&self) -> Client {
        Client::connect(self.address)
    }

    /// The largest resident set so far.
    pub(crate) fn peak_bytes(&self) -> u64 {
        let path = format!("/proc/{}/status", self.child.id());
        let status = std::fs::read_to_string(path).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
        let kib = line.unwrap().split_whitespace().next().unwrap();
        kib.parse::<u64>().unwrap() * 1024
    }

    fn signal(&self, signal: rustix::process::Signal) {
        let pid = rustix::process::Pid::from_child(&self.child);
        rustix::process::kill_process(pid, signal).unwrap();
    }

    /// kill -9.
    pub(crate) fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// SIGTERM; it must end well.
    pub(crate) fn stop(mut self) {
        self.signal(rustix::process::Signal::TERM);
        let status = self.wait();
        assert!(status.success(), "{status}");
    }

    fn wait(&mut self) -> ExitStatus {
        self.child.wait().unwrap()
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A program that was killed with a record in its log.
fn with_a_record(places: &Places) {
    let program = Program::start(places, &[]);
    let mut client = program.client();
    client.create("t", 1);
    for index in 0..20u8 {
        assert_eq!(
            client.produce("t", 0, batch(1, &[&[index; 3_000]])),
            i64::from(index)
        );
    }
    program.kill();
}

/// The record is still served: nothing was overwritten.
fn assert_unharmed(places: &Places) {
    let program = Program::start(places, &[]);
    let answer = program.client().fetch("t", 0, 19);
    let partition = &answer.responses[0].partitions[0];
    assert_eq!((partition.error_code, partition.high_watermark), (0, 20));
    program.stop();
}

#[test]
fn it_says_what_it_serves_where_its_data_is_and_what_to_try() {
    let dir = tempfile::tempdir().unwrap();
    let places = Places::under(dir.path());
    let mut child = places.command(&[]).stdout(Stdio::piped()).spawn().unwrap();
    let mut said = String::new();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    while !said.contains("kcat") {
        said.push_str(&lines.next().unwrap().unwrap());
        said.push('\n');
    }
    for part in [
        "127.0.0.1:",
        &places.bucket,
        &places.wal,
        "kcat -P -b 127.0.0.1:",
    ] {
        assert!(said.contains(part), "{part:?} is not in: {said}");
    }
    child.kill().unwrap();
    child.wait().unwrap();
}

#[test]
fn both_signals_stop_it_cleanly_and_a_second_one_ends_it_at_once() {
    use rustix::process::Signal;
    let dir = tempfile::tempdir().unwrap();
    let places = Places::under(dir.path());
    for signal in [Signal::INT, Signal::TERM] {
        let mut program = Program::start(&places, &[]);
        program.signal(signal);
        assert_eq!(program.wait().code(), Some(0));
    }
    // A client that has pipelined large answers and reads none of them holds up the stop.
    let mut program = Program::start(&places, &[]);
    let mut client = program.client();
    client.create("t", 1);
    for _ in 0..10 {
        client.produce("t", 0, batch(1, &[&[7; 900_000]]));
    }
    let mut request = super::support::fetch("t", &[(0, 0)]);
    request.max_bytes = 50 << 20;
    request.topics[0].partitions[0].partition_max_bytes = 50 << 20;
    client.send(kafka_protocol::messages::ApiKey::Fetch, 11, &request);
    std::thread::sleep(Duration::from_millis(300));
    program.signal(Signal::TERM);
    std::thread::sleep(Duration::from_millis(500));
    assert!(
        program.child.try_wait().unwrap().is_none(),
        "it waits for the client"
    );
    program.signal(Signal::TERM);
    assert_eq!(program.wait().code(), Some(130));
    let program = Program::start(&places, &[]);
    let answer = program.client().fetch("t", 0, 9);
    assert_eq!(answer.responses[0].partitions[0].high_watermark, 10);
    program.stop();
}

#[test]
fn a_port_in_use_is_named_before_any_data_is_touched() {
    let dir = tempfile::tempdir().unwrap();
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let places = Places::under(dir.path());
    let refusal = places.refused(&["--listen", &address]);
    refusal.assert(3, &[&address, "--listen"]);
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
}

#[test]
fn a_directory_that_cannot_be_made_is_named() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("file"), "").unwrap();
    let good = Places::under(dir.path());
    let bad = Places::under(&dir.path().join("file"));
    let bucket = Places {
        bucket: bad.bucket.clone(),
        ..good.clone()
    };
    bucket.refused(&[]).assert(6, &["file/bucket", "--bucket"]);
    let wal = Places {
        wal: bad.wal,
        ..good
    };
    wal.refused(&[])
        .assert(6, &["directory of the log", "/file", "--wal"]);
}

#[test]
fn the_directory_of_a_log_is_made_as_that_of_a_bucket_is() {
    let dir = tempfile::tempdir().unwrap();
    let mut places = Places::under(&dir.path().join("one/two"));
    places.bucket = "memory:".into();
    let program = Program::start(&places, &[]);
    program.stop();
    assert!(dir.path().join("one/two/wal").is_file());
}

#[test]
fn data_in_use_is_left_to_who_uses_it() {
    let dir = tempfile::tempdir().unwrap();
    let places = Places::under(dir.path());
    let program = Program::start(&places, &[]);
    let mut client = program.client();
    client.create("t", 1);
    assert_eq!(client.produce("t", 0, batch(1, &[b"v"])), 0);
    places.refused(&[]).assert(4, &["wal", "another broker"]);
    assert_eq!(client.produce("t", 0, batch(1, &[b"v"])), 1);
    program.stop();
}

#[test]
fn a_full_disk_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let mut places = Places::under(dir.path());
    places.wal = format!(
        "block:{}?capacity=8192TiB",
        dir.path().join("wal").display()
    );
    let refusal = places.refused(&[]);
    assert!(matches!(refusal.code, Some(4 | 6)), "{refusal:?}");
    refusal.assert(refusal.code.unwrap(), &["wal"]);
}

#[test]
fn the_bucket_of_another_cluster_is_refused() {
    let (one, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let (mine, theirs) = (Places::under(one.path()), Places::under(other.path()));
    with_a_record(&mine);
    with_a_record(&theirs);
    let mixed = Places {
        bucket: theirs.bucket.clone(),
        ..mine.clone()
    };
    mixed
        .refused(&[])
        .assert(4, &["wal", "nothing was overwritten"]);
    assert_unharmed(&mine);
    assert_unharmed(&theirs);
}

#[test]
fn another_log_is_taken_when_the_registered_one_can_be_settled_and_else_refused() {
    let dir = tempfile::tempdir().unwrap();
    let places = Places::under(dir.path());
    with_a_record(&places);
    let elsewhere = tempfile::tempdir().unwrap();
    let other = Places {
        wal: Places::under(elsewhere.path()).wal,
        ..places.clone()
    };
    let wal = dir.path().join("wal");
    let kept = dir.path().join("kept");
    std::fs::rename(&wal, &kept).unwrap();
    // It is gone: not made anew, and no other is begun in its stead.
    for places in [&places, &other] {
        let refusal = places.refused(&[]);
        assert!(matches!(refusal.code, Some(4 | 5)), "{refusal:?}");
        refusal.assert(refusal.code.unwrap(), &[&wal.display().to_string()]);
    }
    assert!(!wal.exists() && !elsewhere.path().join("wal").exists());
    std::fs::rename(&kept, &wal).unwrap();
    assert_unharmed(&other);
    // Nothing is owed in the first any more.
    std::fs::remove_file(&wal).unwrap();
    assert_unharmed(&other);
    assert_unharmed(&places);
}

#[test]
fn a_damaged_log_is_refused_and_left_as_it_is() {
    let dir = tempfile::tempdir().unwrap();
    let places = Places::under(dir.path());
    with_a_record(&places);
    let wal = dir.path().join("wal");
    let mut bytes = std::fs::read(&wal).unwrap();
    // Into the body of the third record: later frames say that it was durable.
    let needle = [2u8; 64];
    let at = bytes
        .windows(64)
        .position(|window| window == needle)
        .unwrap();
    bytes[at] ^= 1;
    std::fs::write(&wal, &bytes).unwrap();
    places
        .refused(&[])
        .assert(5, &["wal", "nothing was overwritten"]);
    assert!(std::fs::read(&wal).unwrap() == bytes, "the log was changed");
    bytes[at] ^= 1;
    std::fs::write(&wal, &bytes).unwrap();
    assert_unharmed(&places);
}

/// Every file under `dir`.
fn files(dir: &Path) -> Vec<std::path::PathBuf> {
    let entries = std::fs::read_dir(dir)
        .unwrap()
        .map(|entry| entry.unwrap().path());
    let (dirs, mut found): (Vec<_>, Vec<_>) = entries.partition(|path| path.is_dir());
    found.extend(dirs.iter().flat_map(|dir| files(dir)));
    found
}

#[test]
fn a_damaged_object_fails_who_reads_it_and_nobody_else() {
    let dir = tempfile::tempdir().unwrap();
    let places = Places::under(dir.path());
    let program = Program::start(&places, &[]);
    let mut client = program.client();
    for topic in ["bad", "good"] {
        client.create(topic, 1);
        let value = if topic == "bad" {
            [2u8; 400_000]
        } else {
            [3u8; 400_000]
        };
        client.produce(topic, 0, batch(1, &[&value]));
    }
    program.stop();
    let objects = files(&dir.path().join("bucket")).into_iter();
    let damaged = objects.filter_map(|path| {
        let mut bytes = std::fs::read(&path).unwrap();
        let at = bytes.windows(64).position(|window| window == [2u8; 64])?;
        bytes[at] ^= 1;
        std::fs::write(&path, &bytes).unwrap();
        Some((path, at))
    });
    let damaged: Vec<_> = damaged.collect();
    assert_eq!(damaged.len(), 1, "a record is in one object");
    let program = Program::start(&places, &[]);
    let mut client = program.client();
    let mut code = |topic| {
        let answer = client.fetch(topic, 0, 0);
        let partition = &answer.responses[0].partitions[0];
        (
            partition.error_code,
            partition.records.as_ref().unwrap().len() > 400_000,
        )
    };
    assert_eq!(code("bad"), (56, false));
    assert_eq!(code("good"), (0, true));
    assert_eq!(code("bad"), (56, false));
    let (path, at) = &damaged[0];
    let mut bytes = std::fs::read(path).unwrap();
    bytes[*at] ^= 1;
    std::fs::write(path, &bytes).unwrap();
    assert_eq!(code("bad"), (0, true));
    program.stop();
}

#[test]
fn a_bucket_of_a_newer_format_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let places = Places::under(dir.path());
    with_a_record(&places);
    let path = dir.path().join("bucket/cluster");
    let kept = std::fs::read(&path).unwrap();
    std::fs::write(&path, b"a format of the future").unwrap();
    let refusal = places.refused(&[]);
    assert!(matches!(refusal.code, Some(4 | 5)), "{refusal:?}");
    refusal.assert(refusal.code.unwrap(), &["cluster"]);
    std::fs::write(&path, kept).unwrap();
    assert_unharmed(&places);
}

#[test]
fn every_problem_of_a_configuration_is_named_at_once() {
    let dir = tempfile::tempdir().unwrap();
    let mut file = tempfile::NamedTempFile::new().unwrap();
    file.write_all(b"[limits]\nconnections_max = 0\n[engine]\nuploads_in_flight = 0\n")
        .unwrap();
    let path = file.path().to_str().unwrap();
    let places = Places::under(dir.path());
    let refusal = places.refused(&["--config", path]);
    refusal.assert(2, &["limits.connections_max", "engine.uploads_in_flight"]);
    let mut unknown = tempfile::NamedTempFile::new().unwrap();
    unknown.write_all(b"litsen = \"x\"\n").unwrap();
    let path = unknown.path().to_str().unwrap();
    places
        .refused(&["--config", path])
        .assert(2, &["litsen", path]);
    places
        .refused(&["--config", "/no/such/file"])
        .assert(2, &["/no/such/file"]);
}
