//! Objects that are lost, rotten or in another's place: one typed error with its place, and nothing is put over it.

use object_store::path::Path;
use wal::{Error, LogEpoch, Position, object::Config, testing::Hear};

use crate::support::{Store, four_objects, is_commit, open, settle, start, state};

const NUMBER: u64 = 1 << 26;

fn assert_corrupt_at(refused: Option<Error>, number: u64, what: &str) {
    let expected = Position::new(number * NUMBER);
    assert!(
        matches!(&refused, Some(Error::Corrupt { position, .. }) if *position == expected),
        "{what}: {refused:?}"
    );
}

#[tokio::test(start_paused = true)]
async fn a_missing_object_below_one_that_knows_it_was_acknowledged_is_corrupt_and_not_fenced_over()
{
    for lost in 0..3 {
        let (store, state, commits) = four_objects().await;
        store.damage(|objects| drop(objects.remove(&commits[lost])));
        for _ in 0..2 {
            // The second opening finds the same: nothing was put over it.
            let refused = open(&store, &state).await.err();
            let expected = Position::new((lost as u64) << 26);
            assert!(
                matches!(&refused, Some(Error::Corrupt { position, .. }) if *position == expected),
                "{lost}: {refused:?}"
            );
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_missing_object_below_what_the_metadata_knows_is_corrupt() {
    for lost in 0..4 {
        let (store, mut state, commits) = four_objects().await;
        let end = Position::new((3 << 26) + 138);
        state.trim(Position::default(), end);
        store.damage(|objects| objects.retain(|path, _| !commits[lost..].contains(path)));
        let refused = open(&store, &state).await.err();
        assert!(
            matches!(refused, Some(Error::Corrupt { .. })),
            "{lost}: {refused:?}"
        );
    }
}

#[tokio::test(start_paused = true)]
async fn a_flipped_bit_is_corrupt_and_says_where_and_what_is_trimmed_is_not_looked_at() {
    for rotten in 0..4 {
        let (store, state, commits) = four_objects().await;
        store.damage(|objects| {
            let object = objects.get_mut(&commits[rotten]).unwrap();
            let mut bytes = object.to_vec();
            bytes[130] ^= 4;
            *object = bytes.into();
        });
        let refused = open(&store, &state).await.err();
        let expected = Position::new((rotten as u64) << 26);
        assert!(
            matches!(&refused, Some(Error::Corrupt { position, .. }) if *position == expected),
            "{rotten}: {refused:?}"
        );
        let mut trimmed = state.clone();
        trimmed.trim(
            Position::new(((rotten as u64) << 26) + 138),
            Position::default(),
        );
        let back = open(&store, &trimmed).await;
        match rotten {
            // The end rests on the last object.
            3 => assert!(back.is_err()),
            _ => assert_eq!(back.unwrap().len(), 3 - rotten),
        }
    }
}

#[tokio::test(start_paused = true)]
async fn objects_that_change_places_are_corrupt() {
    let (store, state, commits) = four_objects().await;
    store.damage(|objects| {
        let other = objects[&commits[2]].clone();
        objects.insert(commits[1].clone(), other);
    });
    let refused = open(&store, &state).await.err();
    assert!(
        matches!(refused, Some(Error::Corrupt { .. })),
        "{refused:?}"
    );
}

/// The commits of a log whose every record is `text`.
async fn history(text: &str) -> (Store, Vec<Path>) {
    let store = Store::default();
    let (log, hear) = start(store.host(1), Config::default(), &mut state()).await;
    for n in 1..=4 {
        log.append(&[text.as_bytes()]).unwrap();
        hear.until_durable(n).await;
    }
    let commits = store.objects().into_keys().filter(is_commit).collect();
    (store, commits)
}

#[tokio::test(start_paused = true)]
async fn an_object_of_another_history_is_corrupt_though_it_says_the_same_name() {
    // What a bucket that was put back to an older day holds: whole, under its own number, and not what followed.
    for strange in 0..4 {
        let (other, _) = history("record of another day").await;
        let (store, commits) = history("record").await;
        let path = &commits[strange];
        store.damage(|objects| drop(objects.insert(path.clone(), other.objects()[path].clone())));
        let mut state = state();
        state.begin(&[], Position::default());
        state.grant(LogEpoch::new(2));
        // Of the first, only its successor knows.
        let found_at = strange.max(1) as u64;
        let refused = open(&store, &state).await.err();
        assert_corrupt_at(refused, found_at, &format!("object {strange}"));
    }
}

#[tokio::test(start_paused = true)]
async fn a_lost_object_that_a_trim_ends_in_the_middle_of_is_corrupt_and_not_passed_over() {
    let (store, mut state) = (Store::default(), state());
    let (log, hear) = start(store.host(1), Config::default(), &mut state).await;
    // What comes while the first object is on its way is the second one.
    let first = Hear::append(&*log, &[b"first"]).unwrap();
    settle().await;
    store.hold(1);
    Hear::append(&*log, &[b"alone"]).unwrap();
    settle().await;
    let shared: Vec<_> = (0..3)
        .map(|_| Hear::append(&*log, &[b"shared"]).unwrap())
        .collect();
    store.release(1);
    for one in store.waiting() {
        store.apply(one.id);
        store.answer(one.id);
    }
    hear.until_durable(5).await;
    Hear::append(&*log, &[b"last"]).unwrap();
    hear.until_durable(6).await;
    drop(log);
    let number = shared[0].start.get() / NUMBER;
    assert_eq!((first.start.get() / NUMBER, number), (0, 2));
    assert_eq!(shared[2].end.get() / NUMBER, number);
    state.trim(shared[0].end, shared[0].end);
    state.grant(LogEpoch::new(2));
    assert_eq!(
        open(&store, &state).await.unwrap().len(),
        4,
        "of the object all is replayed"
    );
    let store = Store::holding(store.objects());
    store.damage(|objects| {
        objects.retain(|path, _| !is_commit(path) || path.filename() != Some("0000000000000002"));
    });
    assert_corrupt_at(open(&store, &state).await.err(), number, "lost");
}

#[tokio::test(start_paused = true)]
async fn a_state_that_lets_an_epoch_begin_below_its_own_start_is_refused_and_nothing_is_fenced() {
    let (store, mut state, _) = four_objects().await;
    // A second owner, which has written nothing yet: a fence below its start would not be in its way.
    let (_log, _) = start(store.host(2), Config::default(), &mut state).await;
    settle().await;
    let newest = state.owed.last_mut().unwrap();
    assert!(newest.trim.get() > 4 * NUMBER);
    newest.trim = Position::new(4 * NUMBER);
    newest.durable_end = newest.trim;
    state.grant(LogEpoch::new(3));
    let before = store.objects();
    let refused = open(&store, &state).await.err();
    assert!(
        matches!(refused, Some(Error::Mismatch { .. })),
        "{refused:?}"
    );
    assert_eq!(store.objects(), before);
}
