//! Slow ways, and stores that stall: a large object arrives, and nobody waits long for a connection that is dead.

use futures::{StreamExt, stream, stream::BoxStream};
use object_store::throttle::{ThrottleConfig, ThrottledStore};
use tokio::time::Instant;

use super::*;

fn slow(len: usize, bytes_per_s: u64) -> Bucket {
    let millis = len as u64 * 1000 / bytes_per_s;
    let config = ThrottleConfig {
        wait_put_per_call: Duration::from_millis(millis),
        wait_get_per_call: Duration::from_millis(20),
        wait_get_per_byte: Duration::from_nanos(1_000_000_000 / bytes_per_s),
        ..ThrottleConfig::default()
    };
    let store = ThrottledStore::new(InMemory::new(), config);
    Bucket::new(Arc::new(store), "p", &Entropy::seeded(1)).unwrap()
}

#[tokio::test(start_paused = true)]
async fn a_way_of_64_kib_a_second_carries_every_object_in_the_end() {
    for len in [0, 64 << 10, 1 << 20, 8 << 20, 64 << 20] {
        let bucket = slow(len, 64 << 10);
        let path = bucket.path("x");
        let payload = Bytes::from(vec![7; len]);
        let put = bucket.store().put(&path, payload.clone().into()).await;
        put.unwrap_or_else(|error| panic!("{len} bytes: {error}"));
        let got = bucket.read(&path).await.unwrap().unwrap().0;
        assert!(got == payload, "{len} bytes");
    }
}

/// A store that takes no request for a while; those that it had then are never answered, as on connections that are dead.
#[derive(Debug)]
struct Gone {
    store: InMemory,
    until: Instant,
}

impl Gone {
    async fn answers(&self) {
        if Instant::now() < self.until {
            std::future::pending::<()>().await;
        }
    }
}

impl std::fmt::Display for Gone {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("gone")
    }
}

#[async_trait::async_trait]
impl ObjectStore for Gone {
    async fn put_opts(
        &self,
        path: &Path,
        payload: PutPayload,
        options: PutOptions,
    ) -> object_store::Result<PutResult> {
        self.answers().await;
        self.store.put_opts(path, payload, options).await
    }

    async fn put_multipart_opts(
        &self,
        path: &Path,
        options: PutMultipartOptions,
    ) -> object_store::Result<Box<dyn MultipartUpload>> {
        self.answers().await;
        self.store.put_multipart_opts(path, options).await
    }

    async fn get_opts(&self, path: &Path, options: GetOptions) -> object_store::Result<GetResult> {
        self.answers().await;
        self.store.get_opts(path, options).await
    }

    fn delete_stream(
        &self,
        _paths: BoxStream<'static, object_store::Result<Path>>,
    ) -> BoxStream<'static, object_store::Result<Path>> {
        stream::pending().boxed()
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, object_store::Result<ObjectMeta>> {
        self.store.list(prefix).chain(stream::pending()).boxed()
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> object_store::Result<ListResult> {
        self.answers().await;
        self.store.list_with_delimiter(prefix).await
    }

    async fn copy_opts(
        &self,
        from: &Path,
        to: &Path,
        options: CopyOptions,
    ) -> object_store::Result<()> {
        self.answers().await;
        self.store.copy_opts(from, to, options).await
    }
}

fn gone_for(stall: Duration) -> Bucket {
    let until = Instant::now() + stall;
    let store = InMemory::new();
    Bucket::new(Arc::new(Gone { store, until }), "p", &Entropy::seeded(1)).unwrap()
}

#[tokio::test(start_paused = true)]
async fn a_store_that_stalled_is_found_again_soon_after_it_comes_back() {
    for stall in [1, 9, 15, 50, 3600].map(Duration::from_secs) {
        let bucket = gone_for(stall);
        let (began, path) = (Instant::now(), bucket.path("x"));
        // As an upload does: for as long as it takes.
        while bucket.store().put(&path, "x".into()).await.is_err() {}
        let late = began.elapsed() - stall;
        assert!(late <= Duration::from_secs(20), "{stall:?}: {late:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn no_request_and_no_piece_of_an_answer_is_waited_for_without_a_limit() {
    let bucket = gone_for(Duration::ZERO);
    let path = bucket.path("x");
    bucket.put_new(&path, bytes("x")).await.unwrap();
    let began = Instant::now();
    assert!(bucket.list(bucket.prefix(), 10).await.is_err());
    assert!(bucket.delete(&path).await.is_err());
    assert!(began.elapsed() <= Duration::from_secs(60));
    let bucket = gone_for(Duration::from_secs(1 << 20));
    let began = Instant::now();
    let store = bucket.store();
    assert!(bucket.read(&path).await.is_err());
    assert!(store.list_with_delimiter(None).await.is_err());
    assert!(store.copy(&path, &path).await.is_err());
    assert!(store.put_multipart(&path).await.is_err());
    let swap = bucket.compare_and_swap(&path, None, bytes("x")).await;
    assert!(matches!(swap, Ok(Swap::Unknown(_))), "{swap:?}");
    assert!(began.elapsed() <= Duration::from_secs(120));
}

/// Answers a PUT when it has read all of it, so many pieces of 16 KiB a second.
#[cfg(feature = "aws")]
async fn trickles(pieces_per_s: u32) -> std::net::SocketAddr {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((mut connection, _)) = listener.accept().await {
            tokio::spawn(async move {
                let (mut seen, mut piece) = (Vec::new(), [0; 16 << 10]);
                while let Ok(read @ 1..) = connection.read(&mut piece).await {
                    seen.extend_from_slice(&piece[..read]);
                    if body_len(&seen).is_some_and(|(head, len)| seen.len() == head + len) {
                        let answer = b"HTTP/1.1 200 OK\r\nETag: \"1\"\r\nContent-Length: 0\r\n\r\n";
                        return connection.write_all(answer).await.unwrap();
                    }
                    tokio::time::sleep(Duration::from_secs(1) / pieces_per_s).await;
                }
            });
        }
    });
    address
}

/// The lengths of a request's head and body, once the head is there.
#[cfg(feature = "aws")]
fn body_len(request: &[u8]) -> Option<(usize, usize)> {
    let head = request.windows(4).position(|end| end == b"\r\n\r\n")?;
    let text = String::from_utf8_lossy(&request[..head]).to_ascii_lowercase();
    let len = text.split("content-length: ").nth(1)?.lines().next()?;
    Some((head + 4, len.parse().ok()?))
}

#[cfg(feature = "aws")]
fn over_http(address: std::net::SocketAddr) -> Bucket {
    let place =
        format!("s3://b/p?endpoint=http://{address}&allow_http=true&skip_signature=true&region=x");
    let place: BucketPlace = place.parse().unwrap();
    place
        .open(&Credentials::none(), &Entropy::seeded(1))
        .unwrap()
}

#[cfg(feature = "aws")]
#[tokio::test]
async fn a_put_that_trickles_arrives_though_it_takes_many_times_the_limit_of_an_empty_one() {
    // 12 MiB, of which the system takes some at once, and then 16 MiB a second at most.
    let bucket = over_http(trickles(1000).await).with_retries(RetryPolicy {
        attempt: Duration::from_millis(50),
        deadline: Duration::from_millis(150),
        ..RetryPolicy::default()
    });
    let payload = Bytes::from(vec![7; 12 << 20]);
    let began = Instant::now();
    let put = bucket.store().put(&bucket.path("x"), payload.into()).await;
    put.unwrap();
    assert!(
        began.elapsed() > Duration::from_millis(300),
        "too quick to tell"
    );
}

#[cfg(feature = "aws")]
#[tokio::test]
async fn the_client_has_no_shorter_limit_of_its_own() {
    let bucket = over_http(trickles(200).await).with_retries(RetryPolicy {
        tries: 1,
        ..RetryPolicy::default()
    });
    let payload = Bytes::from(vec![7; 12 << 20]);
    let store = bucket.counted();
    let path = bucket.path("x");
    let put = tokio::spawn(async move { store.put(&path, payload.into()).await });
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert!(!put.is_finished(), "too quick to tell");
    tokio::time::pause();
    tokio::time::advance(Duration::from_secs(600)).await;
    tokio::time::resume();
    put.await.unwrap().unwrap();
}
