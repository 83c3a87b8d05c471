//! The modelled bucket: calm, faulty, late.

use object_store::UpdateVersion;

use super::*;

fn bucket(rates: &[(Fault, u64)], lie: Option<BucketLie>) -> SimBucket {
    let clock = SimClock::default();
    clock.begin();
    SimBucket::new(
        Entropy::new(1),
        Faults::planned(Entropy::new(2), rates.iter().copied().collect()),
        clock,
        Trace::default(),
        lie,
    )
}

fn place() -> Path {
    Path::from("a")
}

async fn text(bucket: &SimBucket) -> Option<String> {
    let stored = bucket.0.stored.get(&place()).await.ok()?;
    let bytes = stored.bytes().await.ok()?;
    Some(String::from_utf8(bytes.to_vec()).unwrap())
}

#[tokio::test(start_paused = true)]
async fn a_calm_bucket_stores_and_lists() {
    let bucket = bucket(&[], None);
    bucket.put(&place(), "one".into()).await.unwrap();
    assert_eq!(bucket.get_range(&place(), 1..2).await.unwrap(), "n");
    let listed: Vec<_> = bucket.list(None).try_collect().await.unwrap();
    assert_eq!(listed.len(), 1);
    bucket.delete(&place()).await.unwrap();
    assert!(matches!(
        bucket.get(&place()).await,
        Err(Error::NotFound { .. })
    ));
    let mut upload = bucket.put_multipart(&place()).await.unwrap();
    upload.put_part("on".into()).await.unwrap();
    upload.put_part("e".into()).await.unwrap();
    upload.complete().await.unwrap();
    assert_eq!(text(&bucket).await.unwrap(), "one");
}

#[tokio::test(start_paused = true)]
async fn a_refused_put_is_not_stored_and_one_whose_answer_is_lost_is() {
    let refusing = bucket(&[(Fault::BucketFails, 1_000)], None);
    refusing.put(&place(), "one".into()).await.unwrap_err();
    assert_eq!(text(&refusing).await, None);
    let mute = bucket(&[(Fault::BucketAnswerLost, 1_000)], None);
    mute.put(&place(), "one".into()).await.unwrap_err();
    assert_eq!(text(&mute).await.unwrap(), "one");
}

#[tokio::test(start_paused = true)]
async fn a_late_put_arrives_after_its_error_unless_its_condition_failed_meanwhile() {
    let late = bucket(&[(Fault::BucketArrivesLate, 1_000)], None);
    late.put(&place(), "late".into()).await.unwrap_err();
    assert_eq!(text(&late).await, None);
    sleep(Duration::from_secs(121)).await;
    assert_eq!(text(&late).await.unwrap(), "late");

    let create = PutOptions::from(PutMode::Create);
    late.put_opts(&place(), "later".into(), create)
        .await
        .unwrap_err();
    sleep(Duration::from_secs(121)).await;
    assert_eq!(text(&late).await.unwrap(), "late");
}

#[tokio::test(start_paused = true)]
async fn a_put_whose_sender_gave_up_still_arrives() {
    let bucket = bucket(&[], None);
    let location = place();
    let put = bucket.put(&location, "one".into());
    assert!(
        tokio::time::timeout(Duration::from_micros(1), put)
            .await
            .is_err()
    );
    sleep(Duration::from_secs(1)).await;
    assert_eq!(text(&bucket).await.unwrap(), "one");
}

#[tokio::test(start_paused = true)]
async fn throttling_refuses_the_next_requests_too() {
    let bucket = bucket(&[(Fault::BucketThrottles, 1)], None);
    let mut runs = Vec::new();
    for _ in 0..20_000 {
        runs.push(bucket.fate() != Fate::Answered);
        tokio::time::advance(Duration::from_millis(20)).await;
    }
    assert!(
        runs.windows(5)
            .any(|run| run.iter().all(|refused| *refused))
    );
    assert!(
        runs.windows(5)
            .any(|run| run.iter().all(|refused| !*refused))
    );
}

#[tokio::test(start_paused = true)]
async fn the_lies_are_told() {
    let swallowing = bucket(&[], Some(BucketLie::SwallowUpload));
    let mut lost = 0;
    for _ in 0..40 {
        swallowing.put(&place(), "one".into()).await.unwrap();
        lost += u32::from(text(&swallowing).await.is_none());
        swallowing.delete(&place()).await.ok();
    }
    assert!((3..30).contains(&lost), "{lost} of 40");

    let swapping = bucket(&[], Some(BucketLie::SwapAlways));
    let head = Path::from("metadata/head");
    swapping.put(&head, "one".into()).await.unwrap();
    let stale = PutMode::Update(UpdateVersion {
        e_tag: Some("stale".into()),
        version: None,
    });
    swapping
        .put_opts(&head, "two".into(), stale.into())
        .await
        .unwrap();
    assert_eq!(swapping.get_range(&head, 0..3).await.unwrap(), "two");
}
