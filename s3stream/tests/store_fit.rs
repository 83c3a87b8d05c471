//! What a store that takes less than it is asked for makes of an opening: a real one (moto), behind a way that refuses things. Run by `.ci/run s3`.
#![cfg(all(feature = "aws", feature = "testing"))]
#![allow(
    clippy::disallowed_methods,
    reason = "a process of its own has the names of hosts lead here, and is told its place through the environment"
)]

use std::{
    env, fmt,
    net::SocketAddr,
    process::Command,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use bytes::Bytes;
use futures::TryStreamExt;
use object_store::ObjectStore;
use parking_lot::Mutex;
use s3stream::{
    Engine, ErrorKind,
    store::Credentials,
    testing::{Moto, SeaweedFs},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
};
use tracing::{
    Event, Level, Metadata, Subscriber,
    field::{Field, Visit},
    span,
};

const BUCKET: &str = "s3stream-test";
/// moto knows everybody.
const ANYBODY: [(&str, &str); 3] = [
    ("aws_access_key_id", "test"),
    ("aws_secret_access_key", "testtest"),
    ("aws_region", "us-east-1"),
];
const HEAD_BYTES_MAX: usize = 16 << 10;
/// The place that the child opens.
const PLACE: &str = "S3STREAM_FIT_PLACE";

/// What the way to the store does not let through.
#[derive(Clone, Copy, Default)]
struct Picky {
    /// Requests that name the bucket in the path.
    paths: bool,
    /// Those that name it in the host.
    hosts: bool,
    checksums: bool,
    /// Deletions of many objects.
    batches: bool,
    /// Everything, for now: 503 for so many requests.
    busy: u64,
    /// The range of a read: all of it is answered.
    ranges: bool,
    /// Everything under the name of one bucket; and the host is not looked at.
    denied: bool,
    /// The token of a page: the first is answered again.
    tokens: bool,
}

/// The way to a store, on loopback: a request, its answer, the end of the connection.
struct Way {
    address: SocketAddr,
    refused: Arc<AtomicU64>,
}

impl Way {
    async fn to(moto: &Moto, picky: Picky) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0))
            .await
            .expect("a loopback port");
        let address = listener.local_addr().expect("its address");
        let refused = Arc::new(AtomicU64::new(0));
        let (counted, store) = (Arc::clone(&refused), moto.address());
        tokio::spawn(async move {
            loop {
                let (client, _) = listener.accept().await.expect("a client");
                let refused = Arc::clone(&counted);
                tokio::spawn(async move {
                    // A client that goes away is no matter of this.
                    let _ended = carry(client, store, picky, &refused).await;
                });
            }
        });
        Self { address, refused }
    }

    fn refused(&self) -> u64 {
        self.refused.load(Ordering::Relaxed)
    }

    fn place(&self, parameters: &str) -> String {
        format!(
            "s3://{BUCKET}/fit?endpoint=http://{}&allow_http=true{parameters}",
            self.address
        )
    }
}

async fn carry(
    mut client: TcpStream,
    store: SocketAddr,
    picky: Picky,
    refused: &AtomicU64,
) -> std::io::Result<()> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") && head.len() < HEAD_BYTES_MAX {
        head.push(client.read_u8().await?);
    }
    let head = String::from_utf8_lossy(&head).into_owned();
    let mut lines = head.trim_end().split("\r\n");
    let mut request = lines.next().unwrap_or_default().splitn(3, ' ');
    let (method, target) = (request.next().unwrap_or(""), request.next().unwrap_or(""));
    let headers: Vec<&str> = lines.collect();
    let header = |name: &str| {
        let pairs = headers.iter().filter_map(|line| line.split_once(": "));
        let mut found = pairs.filter(|(key, _)| key.eq_ignore_ascii_case(name));
        found.next().map(|(_, value)| value.to_owned())
    };
    let len = header("content-length").and_then(|len| len.parse().ok());
    let mut body = vec![0; len.unwrap_or(0)];
    client.read_exact(&mut body).await?;

    // To a proxy the target is a whole URL.
    let target = target
        .strip_prefix("http://")
        .map_or(target, |url| url.find('/').map_or("/", |path| &url[path..]));
    let host = header("host").unwrap_or_default();
    let hosted = host.ends_with(".store.test") && !picky.denied;
    if refused.load(Ordering::Relaxed) < picky.busy {
        refused.fetch_add(1, Ordering::Relaxed);
        let answer: &[u8] =
            b"HTTP/1.1 503 Slow Down\r\nConnection: close\r\nContent-Length: 0\r\n\r\n";
        return client.write_all(answer).await;
    }
    let is_refused = (hosted && picky.hosts)
        || (!hosted && picky.paths)
        || (picky.denied && target.starts_with("/denied"))
        || (picky.batches && target.ends_with("?delete"))
        || (picky.checksums && header("x-amz-checksum-sha256").is_some());
    if is_refused {
        refused.fetch_add(1, Ordering::Relaxed);
        let answer: &[u8] =
            b"HTTP/1.1 400 Bad Request\r\nConnection: close\r\nContent-Length: 0\r\n\r\n";
        return client.write_all(answer).await;
    }
    let mut target = match hosted {
        true => format!("/{BUCKET}{target}"),
        false => target.to_owned(),
    };
    if picky.tokens {
        target = target.replace("continuation-token=", "ignored=");
    }
    let mut asked = format!("{method} {target} HTTP/1.1\r\nHost: {store}\r\nConnection: close\r\n");
    for line in headers {
        let name = line.split(':').next().unwrap_or_default();
        let dropped = ["host", "connection"]
            .iter()
            .any(|other| name.eq_ignore_ascii_case(other));
        let is_range = name.eq_ignore_ascii_case("range");
        if !(dropped || picky.ranges && is_range) {
            asked.push_str(line);
            asked.push_str("\r\n");
        }
    }
    asked.push_str("\r\n");
    let mut server = TcpStream::connect(store).await?;
    server.write_all(asked.as_bytes()).await?;
    server.write_all(&body).await?;
    tokio::io::copy(&mut server, &mut client).await?;
    client.shutdown().await
}

/// What is said at the level of a warning.
#[derive(Clone, Default)]
struct Said(Arc<Mutex<Vec<String>>>);

impl Said {
    fn has(&self, part: &str) -> bool {
        self.0.lock().iter().any(|line| line.contains(part))
    }
}

impl Subscriber for Said {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        *metadata.level() <= Level::WARN
    }
    fn new_span(&self, _: &span::Attributes<'_>) -> span::Id {
        span::Id::from_u64(1)
    }
    fn record(&self, _: &span::Id, _: &span::Record<'_>) {}
    fn record_follows_from(&self, _: &span::Id, _: &span::Id) {}
    fn event(&self, event: &Event<'_>) {
        struct Line(String);
        impl Visit for Line {
            fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
                self.0 += &format!("{field}={value:?} ");
            }
        }
        let mut line = Line(String::new());
        event.record(&mut line);
        self.0.lock().push(line.0);
    }
    fn enter(&self, _: &span::Id) {}
    fn exit(&self, _: &span::Id) {}
}

async fn open(place: &str) -> s3stream::Result<Engine> {
    open_as(place, ANYBODY).await
}

async fn open_as(place: &str, pairs: [(&str, &str); 3]) -> s3stream::Result<Engine> {
    let pairs = pairs.map(|(key, value)| (key.to_owned(), value.to_owned()));
    let credentials = Credentials::from_pairs(pairs);
    let engine = Engine::builder().bucket(place).credentials(credentials);
    engine.wal("object:").open().await
}

/// A record goes in and comes out, twice: by the life that made the bucket and by the next.
async fn serves(place: &str) {
    serves_as(place, ANYBODY).await;
}

async fn serves_as(place: &str, pairs: [(&str, &str); 3]) {
    for _ in 0..2 {
        let engine = open_as(place, pairs).await.expect("the engine opens");
        let stream = engine.create_stream().await.expect("a stream");
        let appended = stream.append(1, &[b"record"]).expect("queued");
        appended.await.expect("durable");
        let fetched = stream.fetch(0, 1 << 20).await.expect("a fetch");
        assert_eq!(fetched.records[0].payload, Bytes::from_static(b"record"));
        engine
            .close(std::time::Duration::from_secs(30))
            .await
            .expect("closed");
    }
}

#[tokio::test]
#[ignore = "needs SeaweedFS: .ci/run s3"]
async fn seaweedfs_is_asked_as_its_place_says() {
    let server = SeaweedFs::start().expect("an S3 server");
    let said = Said::default();
    let _default = tracing::subscriber::set_default(said.clone());
    let checksums = "checksum_algorithm=sha256";
    let place = format!("{}&{checksums}", server.url("fit"));
    serves_as(&place, server.environment()).await;
    assert_eq!(*said.0.lock(), [""; 0]);
}

#[tokio::test]
#[ignore = "needs moto: .ci/run s3"]
async fn a_store_that_takes_everything_is_asked_as_its_place_says_on_moto() {
    let moto = Moto::start().expect("moto");
    let way = Way::to(&moto, Picky::default()).await;
    let said = Said::default();
    let _default = tracing::subscriber::set_default(said.clone());
    serves(&way.place("&checksum_algorithm=sha256")).await;
    assert_eq!(way.refused(), 0);
    assert_eq!(*said.0.lock(), [""; 0]);
}

#[tokio::test]
#[ignore = "needs moto: .ci/run s3"]
async fn a_store_that_refuses_checksums_gets_none_on_moto() {
    let moto = Moto::start().expect("moto");
    let picky = Picky {
        checksums: true,
        ..Picky::default()
    };
    let way = Way::to(&moto, picky).await;
    let said = Said::default();
    let _default = tracing::subscriber::set_default(said.clone());
    serves(&way.place("&checksum_algorithm=sha256")).await;
    assert!(said.has("given_up=\"checksums\""), "{:?}", said.0);
    assert!(said.has("400"), "the reason: {:?}", said.0);
    // A batch of deletions always has one, which a store that demands it knows.
    assert!(said.has("one by one"), "{:?}", said.0);
    // Only the trials of two openings.
    assert_eq!(way.refused(), 2 * (3 + 1));
}

#[tokio::test]
#[ignore = "needs moto: .ci/run s3"]
async fn a_store_without_batches_of_deletions_is_asked_one_by_one_on_moto() {
    let moto = Moto::start().expect("moto");
    let picky = Picky {
        batches: true,
        ..Picky::default()
    };
    let way = Way::to(&moto, picky).await;
    let said = Said::default();
    let _default = tracing::subscriber::set_default(said.clone());
    serves(&way.place("")).await;
    assert!(said.has("one by one"), "{:?}", said.0);
    assert_eq!(way.refused(), 2);
}

#[tokio::test]
#[ignore = "needs moto: .ci/run s3"]
async fn a_store_whose_pages_begin_again_is_used_and_said_on_moto() {
    let moto = Moto::start().expect("moto");
    let picky = Picky {
        tokens: true,
        ..Picky::default()
    };
    let way = Way::to(&moto, picky).await;
    let said = Said::default();
    let _default = tracing::subscriber::set_default(said.clone());
    serves(&way.place("")).await;
    assert!(said.has("a page comes again"), "{:?}", said.0);
}

#[tokio::test]
#[ignore = "needs moto: .ci/run s3"]
async fn a_store_that_ignores_ranges_is_refused_at_every_opening_on_moto() {
    let moto = Moto::start().expect("moto");
    let way = Way::to(&moto, Picky::default()).await;
    serves(&way.place("")).await;
    let picky = Picky {
        ranges: true,
        ..Picky::default()
    };
    let way = Way::to(&moto, picky).await;
    let error = open(&way.place("")).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Invalid);
    assert!(error.to_string().contains("range"), "{error}");
}

#[tokio::test]
#[ignore = "needs moto: .ci/run s3"]
async fn a_store_that_refuses_everything_is_an_error_in_time_on_moto() {
    let moto = Moto::start().expect("moto");
    let picky = Picky {
        paths: true,
        hosts: true,
        ..Picky::default()
    };
    let way = Way::to(&moto, picky).await;
    let error = open(&way.place("&checksum_algorithm=sha256"))
        .await
        .unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable, "{error}");
}

/// Runs a test of this file as a process for which every name of a host leads to the way.
fn child(way: &Way, place: &str, test: &str) {
    let child = Command::new(env::current_exe().expect("this program"))
        .args(["--ignored", "--exact", test, "--nocapture"])
        .env("http_proxy", format!("http://{}", way.address))
        .env_remove("no_proxy")
        .env(PLACE, place)
        .status();
    assert!(child.expect("a process").success());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs moto: .ci/run s3"]
async fn a_bucket_is_named_where_the_store_takes_it_on_moto() {
    let moto = Moto::start().expect("moto");
    const HOSTED: &str = "&virtual_hosted_style_request=true";
    let paths = Picky {
        paths: true,
        ..Picky::default()
    };
    let hosts = Picky {
        hosts: true,
        ..Picky::default()
    };
    for (picky, host, parameters) in [
        (paths, "store.test", ""),
        (hosts, "s3stream-test.store.test", HOSTED),
    ] {
        let way = Way::to(&moto, picky).await;
        let place = format!("s3://{BUCKET}/fit?endpoint=http://{host}&allow_http=true{parameters}");
        child(&way, &place, "opens_what_it_is_told");
        assert_eq!(way.refused(), 2 * 3);
    }
}

#[tokio::test]
#[ignore = "the process of another test: .ci/run s3"]
async fn opens_what_it_is_told() {
    let said = Said::default();
    let _default = tracing::subscriber::set_default(said.clone());
    serves(&env::var(PLACE).expect("a place")).await;
    assert!(said.has("given_up=\"the addressing\""), "{:?}", said.0);
}

/// A store that is busy is asked again, and in no other way: its checksums are not given up for that.
#[tokio::test]
#[ignore = "needs moto: .ci/run s3"]
async fn a_store_that_is_busy_is_waited_for_and_not_asked_otherwise_on_moto() {
    let moto = Moto::start().expect("moto");
    let picky = Picky {
        busy: 5,
        ..Picky::default()
    };
    let way = Way::to(&moto, picky).await;
    let said = Said::default();
    let _default = tracing::subscriber::set_default(said.clone());
    serves(&way.place("&checksum_algorithm=sha256")).await;
    assert!(said.has("takes no write yet"), "{:?}", said.0);
    assert!(!said.has("given_up"), "{:?}", said.0);
}

/// Every name of a host leads to a server that looks at none: what is put with the bucket in the host is put into another bucket.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs moto: .ci/run s3"]
async fn another_bucket_of_the_same_server_is_not_taken_for_the_one_on_moto() {
    let moto = Moto::start().expect("moto");
    let picky = Picky {
        denied: true,
        ..Picky::default()
    };
    let way = Way::to(&moto, picky).await;
    // The bucket of a path is the first part of the prefix then, and that is there.
    let place = format!("s3://denied/{BUCKET}/fit?endpoint=http://store.test&allow_http=true");
    child(&way, &place, "is_denied_where_it_is_told");
    assert!(way.refused() > 0);
    let store = moto.store().expect("a client");
    let names: Vec<_> = store.list(None).try_collect().await.unwrap();
    assert_eq!(names, [], "what was put by mistake is gone");
}

#[tokio::test]
#[ignore = "the process of another test: .ci/run s3"]
async fn is_denied_where_it_is_told() {
    let error = open(&env::var(PLACE).expect("a place")).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable, "{error}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs moto: .ci/run s3"]
async fn a_bucket_that_is_missing_is_not_looked_for_under_another_name_on_moto() {
    let moto = Moto::start().expect("moto");
    let way = Way::to(
        &moto,
        Picky {
            hosts: true,
            ..Picky::default()
        },
    )
    .await;
    let place = "s3://no-such-bucket/fit?endpoint=http://store.test&allow_http=true";
    child(&way, place, "finds_no_bucket_where_it_is_told");
    assert_eq!(way.refused(), 0);
}

#[tokio::test]
#[ignore = "the process of another test: .ci/run s3"]
async fn finds_no_bucket_where_it_is_told() {
    let error = open(&env::var(PLACE).expect("a place")).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotFound, "{error}");
}
