//! Storage that fails or rots: each is detected and typed, and rot is told from a torn tail.

use std::time::Duration;

use tokio::time::{Instant, sleep};
use wal::{
    Backend, Error, LogState,
    testing::{DirectoryFault, DirectoryImage, ModelDirectory},
};

use crate::support::*;

/// A log with records 0 to 4 and, of an owner that did not close, its next state.
async fn written(directory: &ModelDirectory) -> LogState {
    let (mut state, life) = first_life(&directory.host()).await;
    for record in 0..5 {
        append(&*life.log, record, 3000).unwrap();
        life.hear.until_durable(record as usize + 1).await;
    }
    grant_next(&mut state);
    state
}

fn files(image: &DirectoryImage, end: &str) -> Vec<String> {
    let names = image.contents().into_keys();
    names.filter(|name| name.ends_with(end)).collect()
}

async fn refused(image: DirectoryImage, state: &LogState) -> Option<Error> {
    let directory = ModelDirectory::<()>::holding(image);
    // What a body is worth that is known to have been durable is told by the replay.
    open(&log_on(&directory.host()), state).await.err()
}

#[test]
fn a_write_or_sync_that_fails_is_final_and_keeps_its_cause() {
    for errno in [EIO, ENOSPC, EDQUOT, ESTALE] {
        for parts in [0, 1, 3, 100] {
            run(async {
                let directory = ModelDirectory::<()>::default();
                let host = directory.host();
                let (mut state, life) = first_life(&host).await;
                append(&*life.log, 0, 3000).unwrap();
                life.hear.until_durable(1).await;
                host.fault(DirectoryFault {
                    operation: "write",
                    after: 0,
                    errno,
                    parts,
                });
                append(&*life.log, 1, 3000).unwrap();
                life.hear.until("the failure", |h| h.failed.is_some()).await;
                let failed = append(&*life.log, 2, 3000);
                let Err(Error::Failed { cause }) = &failed else {
                    panic!("{failed:?}")
                };
                let Error::Io { source, .. } = &**cause else {
                    panic!("{cause}")
                };
                assert_eq!(source.raw_os_error(), Some(errno));
                assert_eq!(heard(&life.hear), [0]);

                // The next epoch finds the record or does not; what was acknowledged is there.
                grant_next(&mut state);
                let again = open(&log_on(&directory.host()), &state).await.unwrap();
                assert!(
                    [&[0][..], &[0, 1]].contains(&&again.back[..]),
                    "{:?}",
                    again.back
                );
            });
        }
    }
}

#[test]
fn an_error_while_opening_is_that_error_and_never_an_end() {
    for operation in ["list", "open", "read", "create", "links", "write", "sync"] {
        for after in 0..30 {
            run(async {
                let directory = ModelDirectory::<()>::default();
                let state = written(&directory).await;
                let image = directory.image();
                let host = directory.host();
                host.fault(refuse(operation, after, EIO));
                match open(&log_on(&host), &state).await {
                    // It was not asked for so often, or it was only a clean-up.
                    Ok(opened) => assert_eq!(opened.back, [0, 1, 2, 3, 4], "{operation} {after}"),
                    Err(Error::Io { source, .. }) => {
                        assert_eq!(source.raw_os_error(), Some(EIO), "{operation} {after}");
                        // As it was: the next one finds all of it.
                        let again = open(&log_on(&directory.host()), &state).await.unwrap();
                        assert_eq!(again.back, [0, 1, 2, 3, 4]);
                    }
                    Err(e) => panic!("{operation} {after}: {e}"),
                }
                drop(image);
            });
        }
    }
}

#[test]
fn an_opening_that_fails_under_its_lease_gives_it_back() {
    // How long the next opening waited, after each list that fails.
    let mut waited = Vec::new();
    for after in 0..30 {
        run(async {
            let directory = ModelDirectory::<()>::default();
            let state = written(&directory).await;
            let host = directory.host();
            host.fault(refuse("list", after, EIO));
            if open(&log_on(&host), &state).await.is_err() {
                let began = Instant::now();
                open(&log_on(&directory.host()), &state).await.unwrap();
                waited.push(began.elapsed());
            }
        });
    }
    // Before it had the lease, that of the owner before it is what the next one waits for.
    assert!(waited[0] > Duration::from_secs(5), "{waited:?}");
    assert!(
        *waited.last().unwrap() < Duration::from_secs(1),
        "{waited:?}"
    );
}

#[test]
fn rot_is_told_from_a_torn_tail() {
    run(async {
        let directory = ModelDirectory::default();
        let state = written(&directory).await;
        let image = directory.image();
        for segment in 0..5 {
            let name = &files(&image, &format!(".{segment:02}"))[0];
            for at in [0, 20, 79, 90, 3000] {
                let mut rotten = image.clone();
                rotten.damage(name, |bytes| bytes[at] ^= 4);
                let refused = refused(rotten.clone(), &state).await;
                // Only the last record has nothing after it that knows it was durable.
                if segment < 4 {
                    assert!(
                        matches!(refused, Some(Error::Corrupt { .. })),
                        "segment {segment}, byte {at}: {refused:?}"
                    );
                } else {
                    assert!(refused.is_none(), "{refused:?}");
                    // Unless the metadata knows.
                    let mut knows = state.clone();
                    let end = wal::Position::new(4 * 4096 + 3084);
                    knows.owed[0].durable_end = end;
                    let directory = ModelDirectory::<()>::holding(rotten);
                    let refused = open(&log_on(&directory.host()), &knows).await.err();
                    assert!(
                        matches!(refused, Some(Error::Corrupt { .. })),
                        "{refused:?}"
                    );
                }
            }
        }
    });
}

#[test]
fn a_file_that_is_gone_or_cut_short_is_corrupt_and_not_an_end() {
    run(async {
        let directory = ModelDirectory::default();
        let state = written(&directory).await;
        let image = directory.image();
        for segment in 0..4 {
            let name = &files(&image, &format!(".{segment:02}"))[0];
            let holding = ModelDirectory::<()>::holding(image.clone());
            wal::nfs::Directory::remove(&holding.host(), name)
                .await
                .unwrap();
            let gone = refused(holding.image(), &state).await;
            assert!(
                matches!(gone, Some(Error::Corrupt { .. })),
                "{segment}: {gone:?}"
            );
            let mut short = image.clone();
            short.damage(name, |bytes| bytes.truncate(4096 - 512));
            let short = refused(short, &state).await;
            assert!(
                matches!(short, Some(Error::Io { .. })),
                "{segment}: {short:?}"
            );
        }
        let everything = refused(DirectoryImage::default(), &state).await;
        assert!(
            matches!(everything, Some(Error::Missing { .. })),
            "{everything:?}"
        );
    });
}

#[test]
fn one_superblock_copy_may_rot_and_two_are_corrupt() {
    run(async {
        let directory = ModelDirectory::default();
        let state = written(&directory).await;
        let image = directory.image();
        let head = &files(&image, ".head")[0];
        for copies in [&[0][..], &[65_536], &[0, 65_536]] {
            let mut rotten = image.clone();
            rotten.damage(head, |bytes| {
                copies.iter().for_each(|at| bytes[at + 30] ^= 1)
            });
            let refused = refused(rotten, &state).await;
            if copies.len() == 1 {
                assert!(refused.is_none(), "{refused:?}");
            } else {
                assert!(
                    matches!(refused, Some(Error::Corrupt { .. })),
                    "{refused:?}"
                );
            }
        }
        let mut newer = image.clone();
        newer.damage(head, |bytes| {
            bytes[11] = 2;
            let crc = crc32c::crc32c(&bytes[..508]).to_be_bytes();
            bytes[508..512].copy_from_slice(&crc);
        });
        let refused = refused(newer, &state).await;
        assert!(
            matches!(refused, Some(Error::UnknownFormat { .. })),
            "{refused:?}"
        );
    });
}

#[test]
fn what_a_log_leaves_behind_is_bounded() {
    run(async {
        let directory = ModelDirectory::<()>::default();
        let mut state = fresh();
        for _ in 0..12 {
            let life = open(&log_on(&directory.host()), &state).await.unwrap();
            let life = life.start(&mut state).await.unwrap();
            for record in 0..40 {
                append(&*life.log, record, 3000).unwrap();
                life.hear.until_durable(record as usize + 1).await;
                let end = life.log.durable_end();
                state.trim(end, end);
                life.log.trim(end);
                sleep(Duration::from_secs(1)).await;
            }
            drop(life);
            sleep(Duration::from_secs(1)).await;
            grant_next(&mut state);
        }
        let names: Vec<_> = directory.image().contents().into_keys().collect();
        // Two leases, what the log was made with, one head, its sixteen segments, and those of an epoch that the next start would remove.
        assert!(names.len() <= 2 + 1 + 2 * 17 + 1, "{names:?}");
    });
}

#[test]
fn a_directory_that_is_not_there_is_never_made() {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .build()
        .unwrap();
    runtime.block_on(async {
        let parent = tempfile::tempdir().unwrap();
        let path = parent.path().join("not mounted");
        let log = wal::nfs::NfsLog::at(&path, CAPACITY);
        for refused in [log.identify().await.err(), log.open(&fresh()).await.err()] {
            assert!(matches!(refused, Some(Error::Io { .. })), "{refused:?}");
        }
        assert!(!path.exists());
    });
}

#[test]
fn a_renewal_that_fails_once_is_tried_again_and_fences_nobody() {
    // After the link was made, and a draft that stays although its creation failed.
    for (operation, errno, parts) in [
        ("sync", EIO, 0),
        ("list", EIO, 0),
        ("open", ESTALE, 0),
        ("read", EIO, 0),
        ("create", ENOSPC, 1),
    ] {
        run(async {
            let directory = ModelDirectory::<()>::default();
            let host = directory.host();
            let (_, life) = first_life(&host).await;
            append(&*life.log, 0, 500).unwrap();
            life.hear.until_durable(1).await;
            // More than half of the lease: the next append renews it ahead of need.
            sleep(Duration::from_secs(6)).await;
            host.fault(DirectoryFault {
                operation,
                after: 0,
                errno,
                parts,
            });
            for record in 1..4 {
                let _ = append(&*life.log, record, 500);
                // What was appended last is acknowledged by a lease that is over, so by one that is renewed.
                let pause = if record == 2 { 20_000 } else { 200 };
                sleep(Duration::from_millis(pause)).await;
            }
            let failed = life.hear.heard().failed;
            assert!(failed.is_none(), "{operation}: {failed:?}");
            assert_eq!(heard(&life.hear), [0, 1, 2, 3], "{operation}");
        });
    }
}

#[test]
fn a_segment_that_was_named_and_not_opened_is_this_openings_own() {
    for operation in ["sync", "open"] {
        run(async {
            let directory = ModelDirectory::<()>::default();
            let host = directory.host();
            let (_, life) = first_life(&host).await;
            // The first write asks for the segment after its own before it makes its own.
            host.fault(refuse(operation, 0, EIO));
            for record in 0..5 {
                let _ = append(&*life.log, record, 3000);
                sleep(Duration::from_millis(200)).await;
            }
            let failed = life.hear.heard().failed;
            assert!(failed.is_none(), "{operation}: {failed:?}");
            assert_eq!(heard(&life.hear), [0, 1, 2, 3, 4], "{operation}");
        });
    }
}

#[test]
fn a_segment_whose_link_was_made_but_never_answered_nor_counted_is_this_openings_own() {
    // A soft mount that timed out twice in a row. The segment was asked for ahead of need, and the write that needs it finds its name taken.
    for spared in 0..4 {
        run(async {
            let directory = ModelDirectory::<()>::default();
            let host = directory.host();
            let (mut state, life) = first_life(&host).await;
            append(&*life.log, 0, 3000).unwrap();
            life.hear.until_durable(1).await;
            sleep(SETTLED).await;
            host.fault(DirectoryFault {
                operation: "link",
                after: spared,
                errno: EIO,
                parts: 1,
            });
            host.fault(refuse("links", 0, EIO));
            for record in 1..8 {
                append(&*life.log, record, 3000).unwrap();
                life.hear.until_durable(record as usize + 1).await;
                sleep(SETTLED).await;
            }
            assert!(host.no_faults(), "{spared}: nothing went wrong");
            drop(life);
            grant_next(&mut state);
            let again = open(&log_on(&directory.host()), &state).await.unwrap();
            assert_eq!(again.back, [0, 1, 2, 3, 4, 5, 6, 7], "{spared}");
        });
    }
}

#[test]
fn a_name_that_led_to_a_removed_file_is_looked_up_again_a_few_times() {
    let mut refused = 0;
    for (operation, count) in [("open", 1), ("open", 4), ("links", 4), ("open", 100)] {
        for after in 0..20 {
            run(async {
                let directory = ModelDirectory::<()>::default();
                let state = written(&directory).await;
                let host = directory.host();
                for n in 0..count {
                    host.fault(DirectoryFault {
                        operation,
                        after: if n == 0 { after } else { 0 },
                        errno: ESTALE,
                        parts: 0,
                    });
                }
                // Settled by the count of names.
                host.fault(DirectoryFault {
                    operation: "link",
                    after: 0,
                    errno: EIO,
                    parts: 1,
                });
                let opened = open(&log_on(&host), &state).await;
                let case = format!("{count} of {operation} after {after}");
                match opened {
                    Ok(opened) => assert_eq!(opened.back, [0, 1, 2, 3, 4], "{case}"),
                    Err(Error::Io { source, .. }) if count == 100 => {
                        assert_eq!(source.raw_os_error(), Some(ESTALE), "{case}");
                        refused += 1;
                        let again = open(&log_on(&directory.host()), &state).await.unwrap();
                        assert_eq!(again.back, [0, 1, 2, 3, 4], "{case}");
                    }
                    Err(error) => panic!("{case}: {error}"),
                }
            });
        }
    }
    assert!(refused > 5, "{refused}: it goes on for ever");
}

#[test]
fn many_old_lease_files_go_some_at_a_time_and_hold_up_nobody() {
    run(async {
        let directory = ModelDirectory::<()>::default();
        let mut state = written(&directory).await;
        let leases = || {
            let names = directory.image().contents().into_keys();
            names.filter(|name| name.starts_with("lease.")).count()
        };
        let life = open(&log_on(&directory.host()), &state).await.unwrap();
        let life = life.start(&mut state).await.unwrap();
        for record in 0..60 {
            append(&*life.log, record, 10).unwrap();
            life.hear.until_durable(record as usize + 1).await;
            let end = life.log.durable_end();
            state.trim(end, end);
            life.log.trim(end);
            sleep(Duration::from_secs(11)).await;
        }
        // What a host that slept for long, or a clean-up that could not remove, leaves behind.
        let mut image = directory.image();
        (1..=50).for_each(|n| image.put(&format!("lease.{n:020}"), vec![0; 4096]));
        directory.restore(image);
        drop(life);
        sleep(Duration::from_secs(1)).await;
        grant_next(&mut state);
        let opened = open(&log_on(&directory.host()), &state).await.unwrap();
        assert!((30..40).contains(&leases()), "{} at once", leases());
        let life = opened.start(&mut state).await.unwrap();
        for record in 0..4 {
            append(&*life.log, record, 10).unwrap();
            life.hear.until_durable(record as usize + 1).await;
            sleep(Duration::from_secs(11)).await;
        }
        assert_eq!(leases(), 2, "the two newest stay");
    });
}
