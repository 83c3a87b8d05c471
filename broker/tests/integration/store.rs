//! The program before a real S3 server, with a proxy between them that counts and stalls.
//!
//! Ignored by default, because only `.ci/run` brings SeaweedFS.

use std::{
    io::{Read, Write},
    net::{Shutdown, SocketAddr, TcpListener, TcpStream},
    path::Path,
    sync::{
        Arc, Condvar, Mutex,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use s3stream::testing::SeaweedFs;

use super::{
    program::{Places, Program},
    support::{Client, batch},
};

/// Passes bytes on, counts those to the store, and holds all back while it is stalled.
struct Proxy {
    address: SocketAddr,
    gate: Arc<Gate>,
}

#[derive(Default)]
struct Gate {
    stalled: Mutex<bool>,
    opened: Condvar,
    sent: AtomicU64,
}

impl Gate {
    fn pass(&self) {
        let stalled = self.stalled.lock().unwrap();
        drop(self.opened.wait_while(stalled, |stalled| *stalled).unwrap());
    }
}

impl Proxy {
    fn before(store: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let gate = Arc::new(Gate::default());
        let shared = Arc::clone(&gate);
        std::thread::spawn(move || {
            for client in listener.incoming().map_while(Result::ok) {
                let server = TcpStream::connect(store).unwrap();
                let (to_server, to_client) =
                    (server.try_clone().unwrap(), client.try_clone().unwrap());
                let (up, down) = (Arc::clone(&shared), Arc::clone(&shared));
                std::thread::spawn(move || copy(client, to_server, &up, Some(&up.sent)));
                std::thread::spawn(move || copy(server, to_client, &down, None));
            }
        });
        Self { address, gate }
    }

    fn stall(&self) {
        *self.gate.stalled.lock().unwrap() = true;
    }

    fn resume(&self) {
        *self.gate.stalled.lock().unwrap() = false;
        self.gate.opened.notify_all();
    }

    fn sent(&self) -> u64 {
        self.gate.sent.load(Ordering::SeqCst)
    }
}

fn copy(mut from: TcpStream, mut to: TcpStream, gate: &Gate, sent: Option<&AtomicU64>) {
    let mut buffer = vec![0; 64 << 10];
    while let Ok(read @ 1..) = from.read(&mut buffer) {
        gate.pass();
        if let Some(sent) = sent {
            sent.fetch_add(read as u64, Ordering::SeqCst);
        }
        if to.write_all(&buffer[..read]).is_err() {
            break;
        }
    }
    let _ = to.shutdown(Shutdown::Write);
}

/// A program whose bucket is behind `proxy`, and whose uploads are of 1 MiB.
fn places(server: &SeaweedFs, proxy: &Proxy, dir: &Path) -> (Places, String) {
    let direct = server.endpoint();
    let bucket = server.url("cluster").replace(
        direct.trim_start_matches("http://"),
        &proxy.address.to_string(),
    );
    assert!(bucket.contains(&proxy.address.to_string()), "{bucket}");
    let config = dir.join("config.toml");
    std::fs::write(&config, "[engine]\nupload_bytes = 1048576\n").unwrap();
    let places = Places {
        bucket,
        environment: server.environment().to_vec(),
        ..Places::under(dir)
    };
    (places, config.display().to_string())
}

fn address_of(server: &SeaweedFs) -> SocketAddr {
    let endpoint = server.endpoint();
    endpoint.trim_start_matches("http://").parse().unwrap()
}

/// Appends until the offset before `end` is acknowledged; each record says its offset.
fn produce_to(client: &mut Client, from: i64, end: i64) {
    for offset in from..end {
        let mut value = offset.to_be_bytes().to_vec();
        value.resize(32 << 10, offset as u8);
        assert_eq!(client.produce("t", 0, batch(1, &[&value])), offset);
    }
}

fn assert_holds(client: &mut Client, end: i64) {
    for offset in 0..end {
        let answer = client.fetch("t", 0, offset);
        let partition = &answer.responses[0].partitions[0];
        assert_eq!((partition.error_code, partition.high_watermark), (0, end));
        let records = partition.records.clone().unwrap();
        let expected = offset.to_be_bytes();
        let first = &records[..records.len().min(200)];
        assert!(first.windows(8).any(|bytes| bytes == expected), "{offset}");
    }
}

/// What the proxy counts no longer grows.
fn wait_for_silence(proxy: &Proxy) {
    let deadline = Instant::now() + Duration::from_secs(60);
    let mut before = proxy.sent();
    loop {
        std::thread::sleep(Duration::from_secs(2));
        let now = proxy.sent();
        if now == before {
            break;
        }
        assert!(Instant::now() < deadline, "it never falls silent");
        before = now;
    }
}

#[test]
#[ignore = "needs SeaweedFS: .ci/run s3"]
fn sixty_seconds_without_calls_send_no_byte_to_seaweedfs() {
    let server = SeaweedFs::start().unwrap();
    let dir = tempfile::tempdir().unwrap();
    let proxy = Proxy::before(address_of(&server));
    let (places, config) = places(&server, &proxy, dir.path());
    let program = Program::start(&places, &["--config", &config]);
    let mut client = program.client();
    client.create("t", 1);
    produce_to(&mut client, 0, 100);
    wait_for_silence(&proxy);
    let before = proxy.sent();
    assert!(before > 2 << 20, "uploads went through the proxy: {before}");
    std::thread::sleep(Duration::from_secs(60));
    assert_eq!(proxy.sent(), before);
    client.assert_serves();
    program.stop();
}

/// Longer than a request's timeout, its retries' deadline and that of a swap.
const STALL: Duration = Duration::from_secs(50);

#[test]
#[ignore = "needs SeaweedFS: .ci/run s3"]
fn a_seaweedfs_that_stalls_longer_than_every_timeout_costs_no_record() {
    let server = SeaweedFs::start().unwrap();
    let dir = tempfile::tempdir().unwrap();
    let proxy = Proxy::before(address_of(&server));
    let (places, config) = places(&server, &proxy, dir.path());
    let program = Program::start(&places, &["--config", &config]);
    let mut client = program.client();
    client.create("t", 1);
    produce_to(&mut client, 0, 100);
    proxy.stall();
    // The log takes what the store does not.
    produce_to(&mut client, 100, 400);
    std::thread::sleep(STALL);
    produce_to(&mut client, 400, 500);
    proxy.resume();
    produce_to(&mut client, 500, 600);
    assert_holds(&mut client, 600);
    program.kill();
    let program = Program::start(&places, &["--config", &config]);
    assert_holds(&mut program.client(), 600);
    program.stop();
    std::fs::remove_file(dir.path().join("wal")).unwrap();
    let program = Program::start(&places, &["--config", &config]);
    assert_holds(&mut program.client(), 600);
    program.stop();
}
