//! Reading from stores that behave, and from stores that do not.

use std::fmt;

use async_trait::async_trait;
use futures::stream::BoxStream;
use object_store::{
    CopyOptions, ListResult, MultipartUpload, ObjectMeta, PutMultipartOptions, PutOptions,
    PutPayload, PutResult, local::LocalFileSystem, memory::InMemory,
};
use parking_lot::Mutex;

use super::*;
use crate::{
    ErrorKind, NodeEpoch, StreamEpoch, StreamId,
    object::{FooterInfo, ObjectKind, ObjectWriter, object_path},
};

const CLUSTER: ClusterId = ClusterId::new(7);
const OBJECT: ObjectId = ObjectId::new(0x1F);

/// What the store does to the answers of GETs.
#[derive(Clone, Copy, Debug)]
enum Fault {
    None,
    /// Bodies come in chunks of this many bytes, with empty ones between.
    Chunks(usize),
    /// Bodies end this many bytes early.
    Short(usize),
    /// The body breaks off with an error after this many bytes.
    Breaks(usize),
    /// The request fails.
    Fails,
    /// The object says that it is this much shorter.
    Smaller(u64),
    /// Another range is answered.
    Shifted,
    /// One bit of each body is wrong.
    Flipped,
}

#[derive(Debug)]
struct OddStore {
    inner: Arc<dyn ObjectStore>,
    fault: Mutex<Fault>,
    /// Start and end of all GETs.
    gets: Mutex<Vec<(u64, u64)>>,
}

impl fmt::Display for OddStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("odd store")
    }
}

fn outage() -> object_store::Error {
    object_store::Error::Generic {
        store: "odd",
        source: "connection reset: https://me:hush@host:9/b/o?X-Signature=hush (os error 104)"
            .into(),
    }
}

#[async_trait]
impl ObjectStore for OddStore {
    async fn put_opts(
        &self,
        location: &Path,
        payload: PutPayload,
        options: PutOptions,
    ) -> object_store::Result<PutResult> {
        self.inner.put_opts(location, payload, options).await
    }

    async fn put_multipart_opts(
        &self,
        location: &Path,
        options: PutMultipartOptions,
    ) -> object_store::Result<Box<dyn MultipartUpload>> {
        self.inner.put_multipart_opts(location, options).await
    }

    async fn get_opts(
        &self,
        location: &Path,
        options: GetOptions,
    ) -> object_store::Result<GetResult> {
        let fault = *self.fault.lock();
        if let Some(GetRange::Bounded(range)) = &options.range {
            self.gets.lock().push((range.start, range.end));
            if matches!(fault, Fault::Fails) {
                return Err(outage());
            }
        }
        let mut got = self.inner.get_opts(location, options).await?;
        if matches!(fault, Fault::None | Fault::Fails) {
            return Ok(got);
        }
        let (range, mut meta) = (got.range.clone(), got.meta.clone());
        let mut body = got.bytes().await?.to_vec();
        let mut chunks: Vec<object_store::Result<Bytes>> = Vec::new();
        let mut answered = range;
        match fault {
            Fault::Chunks(len) => {
                for chunk in body.chunks(len) {
                    chunks.push(Ok(Bytes::copy_from_slice(chunk)));
                    chunks.push(Ok(Bytes::new()));
                }
                body.clear();
            }
            Fault::Short(by) => body.truncate(body.len().saturating_sub(by)),
            Fault::Breaks(after) => {
                chunks.push(Ok(Bytes::copy_from_slice(&body[..after.min(body.len())])));
                chunks.push(Err(outage()));
                body.clear();
            }
            Fault::Smaller(by) => meta.size -= by,
            Fault::Shifted => answered = answered.start + 1..answered.end + 1,
            Fault::Flipped => body[0] ^= 1,
            Fault::None | Fault::Fails => unreachable!(),
        }
        chunks.push(Ok(body.into()));
        got = GetResult {
            payload: GetResultPayload::Stream(stream::iter(chunks).boxed()),
            meta,
            range: answered,
            attributes: Default::default(),
            extensions: Default::default(),
        };
        Ok(got)
    }

    fn delete_stream(
        &self,
        locations: BoxStream<'static, object_store::Result<Path>>,
    ) -> BoxStream<'static, object_store::Result<Path>> {
        self.inner.delete_stream(locations)
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, object_store::Result<ObjectMeta>> {
        self.inner.list(prefix)
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> object_store::Result<ListResult> {
        self.inner.list_with_delimiter(prefix).await
    }

    async fn copy_opts(
        &self,
        from: &Path,
        to: &Path,
        options: CopyOptions,
    ) -> object_store::Result<()> {
        self.inner.copy_opts(from, to, options).await
    }
}

/// An object of 50 blocks, stored.
struct Fixture {
    odd: Arc<OddStore>,
    store: Arc<dyn ObjectStore>,
    path: Path,
    len: u64,
    records: Vec<RecordBatch>,
}

impl Fixture {
    async fn new(inner: Arc<dyn ObjectStore>) -> Self {
        let info = FooterInfo {
            cluster: CLUSTER,
            object: OBJECT,
            node_epoch: NodeEpoch::new(1),
            kind: ObjectKind::StreamSet,
        };
        let mut writer = ObjectWriter::new(info, 256);
        let mut records = Vec::new();
        for stream in 1..=5 {
            for at in 0..10 {
                let record = RecordBatch {
                    stream: StreamId::new(stream),
                    epoch: StreamEpoch::new(1),
                    offsets: at..at + 1,
                    payload: vec![at as u8; 200].into(),
                };
                writer.push(&record).unwrap();
                records.push(record);
            }
        }
        let built = writer.finish().unwrap();
        let path = object_path(&Path::from("c"), OBJECT);
        let payload: PutPayload = built.parts.into_iter().collect();
        inner.put(&path, payload).await.unwrap();
        let odd = Arc::new(OddStore {
            inner,
            fault: Mutex::new(Fault::None),
            gets: Mutex::default(),
        });
        Self {
            store: Arc::clone(&odd) as Arc<dyn ObjectStore>,
            odd,
            path,
            len: built.len,
            records,
        }
    }

    async fn in_memory() -> Self {
        Self::new(Arc::new(InMemory::new())).await
    }

    fn fault(&self, fault: Fault) {
        *self.odd.fault.lock() = fault;
    }

    fn gets(&self) -> Vec<(u64, u64)> {
        std::mem::take(&mut *self.odd.gets.lock())
    }

    async fn index_with(&self, tail_bytes: u64) -> Result<ObjectIndex> {
        let limits = ReadLimits {
            tail_bytes,
            ..ReadLimits::default()
        };
        read_index(&self.store, &self.path, self.len, CLUSTER, OBJECT, &limits).await
    }

    async fn index(&self) -> Result<ObjectIndex> {
        self.index_with(64 << 10).await
    }

    async fn read(&self, blocks: &[BlockRef], get_bytes_max: u64) -> Result<Vec<RecordBatch>> {
        let limits = ReadLimits {
            get_bytes_max,
            gets_in_flight: 2,
            ..ReadLimits::default()
        };
        let read = read_blocks(&self.store, &self.path, self.len, blocks, &limits).await?;
        assert_eq!(read.len(), blocks.len());
        Ok(read.into_iter().flatten().collect())
    }
}

#[tokio::test]
async fn an_index_takes_one_get_or_two_when_it_is_larger_than_the_tail() {
    let fixture = Fixture::in_memory().await;
    let index = fixture.index().await.unwrap();
    assert_eq!(fixture.gets(), [(0, fixture.len)]);
    assert_eq!(index.block_count(), 50);

    fixture.index_with(2_000).await.unwrap();
    assert_eq!(fixture.gets(), [(fixture.len - 2_000, fixture.len)]);

    let (len, data) = (fixture.len, index.data_len());
    fixture.index_with(100).await.unwrap();
    assert_eq!(fixture.gets(), [(len - 100, len), (data, len - 100)]);

    for tail in [0, 1, 15, 16, 87, 88] {
        fixture.index_with(tail).await.unwrap();
        assert!(fixture.gets().len() <= 3, "{tail}");
    }
}

#[tokio::test]
async fn blocks_that_lie_end_to_end_share_gets_up_to_the_limit() {
    let fixture = Fixture::in_memory().await;
    let blocks: Vec<_> = fixture.index().await.unwrap().all_blocks().collect();
    let block_len = blocks[0].len();
    let gets_for = async |blocks: &[BlockRef], max: u64| {
        fixture.gets();
        let read = fixture.read(blocks, max).await.unwrap();
        (fixture.gets(), read)
    };
    let (gets, read) = gets_for(&blocks, u64::MAX).await;
    assert_eq!(gets, [(0, 50 * block_len)]);
    assert_eq!(read, fixture.records);

    let (gets, read) = gets_for(&blocks, 20 * block_len + 1).await;
    assert_eq!(
        gets,
        [(0, 20), (20, 40), (40, 50)].map(|(start, end)| (start * block_len, end * block_len))
    );
    assert_eq!(read, fixture.records);

    let (gets, read) = gets_for(&blocks, 0).await;
    assert_eq!(
        gets.len(),
        50,
        "a block larger than the limit is fetched alone"
    );
    assert_eq!(read, fixture.records);

    let some = [&blocks[3..5], &blocks[9..10], &blocks[5..6]].concat();
    let (gets, read) = gets_for(&some, u64::MAX).await;
    assert_eq!(gets.len(), 3, "neither a gap nor a step back is joined");
    let wanted = [3, 4, 9, 5].map(|block: usize| fixture.records[block].clone());
    assert_eq!(read, wanted, "in the order asked for");

    let (gets, _) = gets_for(&[], 1).await;
    assert!(gets.is_empty());
}

#[tokio::test]
async fn chunks_of_any_size_and_files_give_the_same_records() {
    let fixture = Fixture::in_memory().await;
    let blocks: Vec<_> = fixture.index().await.unwrap().all_blocks().collect();
    for len in [1, 7, 244, 245, 1_000, 1 << 20] {
        fixture.fault(Fault::Chunks(len));
        for max in [0, 1_000, u64::MAX] {
            assert_eq!(fixture.read(&blocks, max).await.unwrap(), fixture.records);
        }
        fixture.index_with(100).await.unwrap();
    }

    let folder = tempfile::tempdir().unwrap();
    let files = LocalFileSystem::new_with_prefix(folder.path()).unwrap();
    let fixture = Fixture::new(Arc::new(files)).await;
    for max in [0, 1_000, u64::MAX] {
        assert_eq!(fixture.read(&blocks, max).await.unwrap(), fixture.records);
    }
    fixture.index_with(100).await.unwrap();
}

#[tokio::test]
async fn a_block_does_not_keep_the_bytes_that_came_with_it() {
    let fixture = Fixture::in_memory().await;
    let blocks: Vec<_> = fixture.index().await.unwrap().all_blocks().collect();
    let limits = ReadLimits::default();
    let read = read_blocks(
        &fixture.store,
        &fixture.path,
        fixture.len,
        &blocks[..2],
        &limits,
    )
    .await
    .unwrap();
    // A payload that is the only owner of its memory can be taken as mutable: nothing else is in that allocation.
    for records in read {
        let [record] = <[RecordBatch; 1]>::try_from(records).unwrap();
        assert!(record.payload.try_into_mut().is_ok());
    }
}

#[tokio::test]
async fn a_missing_object_stays_not_found() {
    let fixture = Fixture::in_memory().await;
    let blocks: Vec<_> = fixture.index().await.unwrap().all_blocks().collect();
    fixture.store.delete(&fixture.path).await.unwrap();
    for error in [
        fixture.index().await.unwrap_err(),
        fixture.read(&blocks, 1).await.unwrap_err(),
    ] {
        assert_eq!(error.kind(), ErrorKind::NotFound);
        assert!(error.to_string().contains("c/objects/f1"), "{error}");
    }
}

#[tokio::test]
async fn hiccups_are_unavailable_damage_is_corrupt_and_nothing_is_other_data() {
    let fixture = Fixture::in_memory().await;
    let blocks: Vec<_> = fixture.index().await.unwrap().all_blocks().collect();
    let cases = [
        (Fault::Short(1), ErrorKind::Unavailable),
        (Fault::Short(usize::MAX), ErrorKind::Unavailable),
        (Fault::Breaks(0), ErrorKind::Unavailable),
        (Fault::Breaks(77), ErrorKind::Unavailable),
        (Fault::Fails, ErrorKind::Unavailable),
        (Fault::Shifted, ErrorKind::Unavailable),
        (Fault::Smaller(1), ErrorKind::Corrupt),
        (Fault::Flipped, ErrorKind::Corrupt),
    ];
    for (fault, kind) in cases {
        fixture.fault(fault);
        for max in [0, 1_000, u64::MAX] {
            let error = fixture.read(&blocks, max).await.unwrap_err();
            assert_eq!(error.kind(), kind, "{fault:?}: {error}");
            assert!(error.to_string().contains("c/objects/f1"), "{error}");
            assert!(!format!("{error:?}").contains("hush"), "{error:?}");
        }
        let error = fixture.index_with(88).await.unwrap_err();
        assert_eq!(error.kind(), kind, "{fault:?}: {error}");
    }
}

#[tokio::test]
async fn an_object_that_was_cut_short_is_corrupt_and_both_lengths_are_named() {
    let fixture = Fixture::in_memory().await;
    let blocks: Vec<_> = fixture.index().await.unwrap().all_blocks().collect();
    for len in [1, 88, fixture.len - 1] {
        let short = PutPayload::from(vec![0; len as usize]);
        fixture.store.put(&fixture.path, short).await.unwrap();
        for error in [
            fixture.index_with(88).await.unwrap_err(),
            fixture.read(&blocks[49..], 1).await.unwrap_err(),
        ] {
            assert_eq!(error.kind(), ErrorKind::Corrupt, "{len}: {error}");
            assert!(
                error.to_string().contains(&format!("found: {len}")),
                "{error}"
            );
        }
    }
}

#[tokio::test]
async fn a_block_outside_of_its_object_is_refused_without_a_request() {
    let fixture = Fixture::in_memory().await;
    let mut block = fixture.index().await.unwrap().all_blocks().next().unwrap();
    fixture.gets();
    block.position.end = fixture.len + 1;
    let error = fixture.read(&[block], 1).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Invalid);
    assert!(fixture.gets().is_empty());
}

#[test]
fn urls_lose_their_secrets_and_keep_their_places() {
    let cases = [
        ("plain text", "plain text"),
        ("a (https://h:1/p?sig=x) b", "a (https://h:1/p?...) b"),
        ("\"s3://key:word@h/p\"", "\"s3://h/p\""),
        ("https://u@h", "https://h"),
        ("https://h/a@b", "https://h/a@b"),
        ("x://h?a=b://c@d y://e#f", "x://h?... y://e?..."),
        ("://", "://"),
    ];
    for (text, clean) in cases {
        assert_eq!(without_secrets(text), clean);
    }
}
