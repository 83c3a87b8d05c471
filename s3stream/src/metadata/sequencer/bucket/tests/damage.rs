//! What was damaged, forged, rolled back or is another's is refused, and nothing is overwritten.

use super::*;

#[tokio::test]
async fn a_head_whose_entries_do_not_end_at_its_tip_is_refused() {
    let bucket = full_bucket().await;
    let path = bucket.path("metadata/head");
    let whole = head_of(&bucket).await;
    let mut forged = whole.clone();
    forged.tip.hash = Tip::default().hash;
    overwrite(&bucket, &path, forged.encode().to_vec()).await;
    let error = open_with(&bucket, 5, SMALL).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Corrupt, "{error}");
    // A snapshot of another history.
    let mut forged = whole;
    if let Some(snapshot) = &mut forged.snapshot {
        snapshot.tip.hash = Tip::default().hash;
    }
    overwrite(&bucket, &path, forged.encode().to_vec()).await;
    let error = open_with(&bucket, 5, SMALL).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Corrupt, "{error}");
}

/// A bucket with a head, segments, a snapshot and a large entry.
pub(super) async fn full_bucket() -> Bucket {
    let bucket = memory();
    let metadata = open_with(&bucket, 1, SMALL).await.unwrap();
    metadata.register(registration(1, 1)).await.unwrap();
    for count in 0..40 {
        put_done(&metadata, &format!("{count}")).await;
    }
    // After the snapshot: a large entry in a segment, and one more.
    metadata
        .submit_one(put("large", &"x".repeat(400)))
        .await
        .unwrap();
    for count in 40..44 {
        put_done(&metadata, &format!("{count}")).await;
    }
    bucket
}

fn objects_of(head: &Head) -> Vec<ObjectRef> {
    let from = head
        .snapshot
        .as_ref()
        .map(|snapshot| snapshot.tip.index)
        .unwrap();
    let chunks = head
        .snapshot
        .iter()
        .flat_map(|snapshot| snapshot.chunks.clone());
    let needed = head
        .segments
        .iter()
        .filter(|segment| segment.tip.index > from);
    let segments = needed
        .flat_map(|segment| std::iter::once(segment.object.clone()).chain(segment.large.clone()));
    chunks.chain(segments).collect()
}

async fn overwrite(bucket: &Bucket, path: &Path, bytes: Vec<u8>) {
    use object_store::ObjectStoreExt;
    bucket.store().put(path, bytes.into()).await.unwrap();
}

#[tokio::test]
async fn damage_is_refused_with_its_place_and_nothing_is_overwritten() {
    use object_store::ObjectStoreExt;
    let bucket = full_bucket().await;
    let head = head_of(&bucket).await;
    let mut paths: Vec<Path> = vec![bucket.path("metadata/head")];
    let named = objects_of(&head).into_iter();
    paths.extend(named.map(|object| bucket.path(&format!("metadata/{}", object.name))));
    assert!(paths.len() >= 4, "{paths:?}");
    for path in paths {
        let (whole, _) = bucket.read(&path).await.unwrap().unwrap();
        for damage in ["flip", "cut", "missing"] {
            let mut bytes = whole.to_vec();
            match damage {
                "flip" => {
                    let middle = bytes.len() / 2;
                    bytes[middle] ^= 0x10;
                }
                "cut" => bytes.truncate(whole.len() - 1),
                // No head at all is a new cluster: there nothing but the cluster file tells.
                _ if path == bucket.path("metadata/head") => continue,
                _ => bytes.clear(),
            }
            match bytes.is_empty() {
                true => bucket.store().delete(&path).await.unwrap(),
                false => overwrite(&bucket, &path, bytes).await,
            }
            let puts = bucket.requests().put;
            let error = open_with(&bucket, 5, SMALL).await.unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Corrupt, "{damage} {path}: {error}");
            assert!(format!("{error:?}").contains("metadata"), "{error:?}");
            assert_eq!(bucket.requests().put, puts);
            overwrite(&bucket, &path, whole.to_vec()).await;
        }
    }
    open_with(&bucket, 5, SMALL).await.unwrap();
}

#[tokio::test]
async fn a_rolled_back_head_is_refused_by_whoever_saw_more_and_not_overwritten() {
    let bucket = memory();
    let path = bucket.path("metadata/head");
    let metadata = open(&bucket, 1).await;
    metadata.register(registration(1, 1)).await.unwrap();
    put_done(&metadata, "a").await;
    let (old, _) = bucket.read(&path).await.unwrap().unwrap();
    put_done(&metadata, "b").await;
    overwrite(&bucket, &path, old.to_vec()).await;
    for attempt in 0..2 {
        let error = metadata.submit_one(put("c", "x")).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Corrupt, "{attempt}: {error}");
        assert!(error.to_string().contains("rolled back"), "{error}");
    }
    assert!(metadata.look().await.is_err());
    assert_eq!(bucket.read(&path).await.unwrap().unwrap().0, old);
}

#[tokio::test]
async fn a_forked_head_of_the_same_length_is_refused() {
    let bucket = memory();
    let path = bucket.path("metadata/head");
    let metadata = open(&bucket, 1).await;
    metadata.register(registration(1, 1)).await.unwrap();
    let (fork, _) = bucket.read(&path).await.unwrap().unwrap();
    put_done(&metadata, "a").await;
    // Another history with as many swaps, and one that is longer.
    let other = memory();
    overwrite(&other, &path, fork.to_vec()).await;
    let stranger = open(&other, 2).await;
    stranger.register(registration(2, 2)).await.unwrap();
    for longer in ["x", "y"] {
        let (forked, _) = other.read(&path).await.unwrap().unwrap();
        let keeper = open(&bucket, 3).await;
        let (kept, _) = bucket.read(&path).await.unwrap().unwrap();
        overwrite(&bucket, &path, forked.to_vec()).await;
        let error = keeper.look().await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Corrupt, "{error}");
        overwrite(&bucket, &path, kept.to_vec()).await;
        put_done(&stranger, longer).await;
    }
}

#[tokio::test]
async fn another_clusters_head_is_refused() {
    let bucket = memory();
    let metadata = open(&bucket, 1).await;
    metadata.register(registration(1, 1)).await.unwrap();
    let other = BucketSequencer::new(bucket.clone(), ClusterId::new(7), Entropy::seeded(1));
    let error = Metadata::open(Box::new(other), Arc::new(BootClock), Entropy::seeded(1))
        .await
        .unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Invalid, "{error}");
    assert!(error.to_string().contains("another cluster"), "{error}");
}
