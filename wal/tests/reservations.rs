//! A volume that several hosts attach (F2): the taker's reservation keeps every other host from writing before it reads, whatever stops whom and when.

#![allow(clippy::unwrap_used, reason = "a test panics where it is surprised")]

use std::{
    collections::VecDeque,
    io,
    sync::{Arc, Condvar, Mutex},
    thread,
    time::Duration,
};

use wal::{
    Backend, Error, Log, LogEpoch, LogState, Replay,
    block::{BlockLog, Config},
    testing::{Hear, ReservationStep, SharedDisk, SharedHost, new_log},
};

const LEN: usize = (128 + 256) << 10;
const PATIENCE: Duration = Duration::from_secs(60);
const STEPS: [ReservationStep; 3] = [
    ReservationStep::Register,
    ReservationStep::Reserve,
    ReservationStep::Preempt,
];

fn place(host: &SharedHost) -> BlockLog {
    BlockLog::on(Arc::new(host.clone())).with_config(Config {
        overlap_bytes: 0,
        ..Config::default()
    })
}

fn healthy(disk: &SharedDisk, number: u32) -> SharedHost {
    disk.host(number, |_| Ok(()))
}

struct Owner {
    back: Vec<u8>,
    log: Arc<dyn Log>,
    hear: Arc<Hear>,
}

async fn back(replay: &mut dyn Replay) -> Vec<u8> {
    let mut back = Vec::new();
    while let Some(piece) = replay.next().await.unwrap() {
        back.extend(piece.iter().map(|r| r.payload[0]));
    }
    back
}

/// Opens and starts on `host`, and grants the next epoch.
async fn own(host: &SharedHost, state: &mut LogState) -> Result<Owner, Error> {
    let mut replay = place(host).open(state).await?;
    let back = back(&mut *replay).await;
    state.begin(replay.ends(), replay.start_position());
    let hear = Hear::new();
    let log = replay.start(Arc::clone(&hear) as _).await?;
    state.grant(LogEpoch::new(state.epoch.get() + 1));
    Ok(Owner { back, log, hear })
}

impl Owner {
    async fn append(&self, record: u8) {
        let heard = self.hear.count();
        Hear::append(&*self.log, &[&[record; 100]]).unwrap();
        self.hear.until_durable(heard + 1).await;
    }
}

#[tokio::test]
async fn the_writes_of_a_host_that_wakes_are_kept_out_and_its_log_ends_as_fenced() {
    // In flight when it fell asleep, and begun after it woke.
    for asleep_with in [0, 1, 3] {
        let disk = SharedDisk::new(LEN);
        let (first, second) = (healthy(&disk, 1), healthy(&disk, 2));
        let mut state = new_log();
        let zombie = own(&first, &mut state).await.unwrap();
        zombie.append(1).await;
        zombie.append(2).await;
        first.pause();
        for n in 0..asleep_with {
            Hear::append(&*zombie.log, &[&[10 + n; 100]]).unwrap();
        }
        let taker = own(&second, &mut state).await.unwrap();
        assert_eq!(taker.back, [1, 2]);
        taker.append(3).await;
        first.resume();
        // If it slept idle it learns of it by its next append.
        let _ = Hear::append(&*zombie.log, &[b"late"]);
        zombie.hear.until("its end", |h| h.failed.is_some()).await;
        let heard = zombie.hear.heard();
        assert_eq!(heard.records.len(), 2, "acknowledged after the take-over");
        assert!(
            matches!(&heard.failed, Some(Error::Fenced { by }) if by.contains("shared disk")),
            "{:?}",
            heard.failed
        );
        let later = Hear::append(&*zombie.log, &[b"x"]);
        assert!(matches!(later, Err(Error::Fenced { .. })), "{later:?}");
        taker.append(4).await;
        drop(taker);
        let third = own(&healthy(&disk, 3), &mut state).await.unwrap();
        assert_eq!(third.back, [1, 2, 3, 4], "asleep with {asleep_with}");
    }
}

#[tokio::test]
async fn what_the_owner_is_acknowledged_until_the_pre_emption_is_replayed() {
    // The owner goes on at every step of the taker: what is read before the fence may be too little.
    let disk = SharedDisk::new(LEN);
    let mut state = new_log();
    let owner = own(&healthy(&disk, 1), &mut state).await.unwrap();
    owner.append(1).await;
    let (log, hear) = (Arc::clone(&owner.log), Arc::clone(&owner.hear));
    let second = disk.host(2, move |_| {
        let count = hear.count();
        Hear::append(&*log, &[&[count as u8 + 1; 100]]).unwrap();
        for _ in 0..10_000 {
            if hear.count() > count {
                return Ok(());
            }
            thread::park_timeout(Duration::from_millis(5));
        }
        Err(io::ErrorKind::TimedOut.into())
    });
    let taker = own(&second, &mut state).await.unwrap();
    assert_eq!(taker.back, [1, 2, 3, 4]);
}

#[tokio::test]
async fn a_taker_that_dies_at_any_step_leaves_a_volume_that_the_next_one_takes() {
    for dies_at in STEPS {
        for fails_after in [false, true] {
            let disk = SharedDisk::new(LEN);
            let first = healthy(&disk, 1);
            let mut state = new_log();
            let owner = own(&first, &mut state).await.unwrap();
            owner.append(1).await;
            // It dies before the step, or right after it: at the next.
            let mut left = STEPS.iter().position(|step| *step == dies_at).unwrap();
            left += usize::from(fails_after);
            let left = Mutex::new(left);
            let dying = disk.host(2, move |_| {
                let mut left = left.lock().unwrap();
                *left = left.checked_sub(1).ok_or(io::ErrorKind::TimedOut)?;
                Ok(())
            });
            let died = own(&dying, &mut state.clone()).await;
            if fails_after && dies_at == ReservationStep::Preempt {
                // It was through, and dies as an owner that wrote nothing.
                assert!(died.is_ok());
                state.grant(LogEpoch::new(9));
            } else {
                assert!(matches!(died, Err(Error::Io { .. })), "{dies_at:?}");
                // Nobody was fenced: the owner goes on, as if nothing had been.
                owner.append(2).await;
            }
            drop(died);
            // The one that died comes back on its own host, then another takes over.
            let mut expected = vec![1];
            expected.extend((owner.hear.count() > 1).then_some(2));
            if expected.len() == 2 {
                let again = own(&healthy(&disk, 2), &mut state).await.unwrap();
                assert_eq!(again.back, expected, "{dies_at:?}");
                again.append(3).await;
                expected.push(3);
                let next = own(&healthy(&disk, 3), &mut state).await.unwrap();
                assert_eq!(next.back, expected, "{dies_at:?}");
            }
            assert_eq!(disk.writers().len(), 1, "{dies_at:?}");
        }
    }
}

/// Lets hosts take their steps in a given order, and the rest of it when one has ended.
#[derive(Default)]
struct Turns {
    order: Mutex<VecDeque<u32>>,
    moved: Condvar,
}

impl Turns {
    /// Ends the step before, and waits for the turn of the next.
    fn next(&self, host: u32, step: ReservationStep) {
        let mut order = self.order.lock().unwrap();
        if step != STEPS[0] {
            assert_eq!(order.pop_front(), Some(host));
            self.moved.notify_all();
        }
        let others = |order: &mut VecDeque<u32>| order.front().is_some_and(|next| *next != host);
        let waited = self.moved.wait_timeout_while(order, PATIENCE, others);
        assert!(!waited.unwrap().1.timed_out(), "host {host} waits");
    }

    fn leave(&self, host: u32) {
        self.order.lock().unwrap().retain(|next| *next != host);
        self.moved.notify_all();
    }
}

/// An opening whose steps wait for their turn: whether it has the volume.
fn open_in_turn(disk: &SharedDisk, turns: &Arc<Turns>, number: u32, state: &LogState) -> bool {
    let steps = Arc::clone(turns);
    let host = disk.host(number, move |step| {
        steps.next(number, step);
        Ok(())
    });
    let runtime = tokio::runtime::Builder::new_current_thread()
        .build()
        .unwrap();
    let opened = runtime.block_on(async { place(&host).open(state).await.map(drop) });
    turns.leave(number);
    match opened {
        Ok(()) => true,
        // The other was first, or came after it and before it was done.
        Err(Error::InUse { .. } | Error::Fenced { .. }) => false,
        Err(e) => panic!("{e}"),
    }
}

#[test]
fn of_two_takers_in_any_order_of_their_steps_one_can_write() {
    let orders = (0_u32..64).filter(|bits| bits.count_ones() == 3);
    for bits in orders {
        let disk = SharedDisk::new(LEN);
        let turns = Arc::new(Turns::default());
        *turns.order.lock().unwrap() = (0..6).map(|i| 1 + ((bits >> i) & 1)).collect();
        let states = [1, 2].map(|epoch| LogState::new(new_log().identity, LogEpoch::new(epoch)));
        let taken = thread::scope(|scope| {
            let one = scope.spawn(|| open_in_turn(&disk, &turns, 1, &states[0]));
            let two = scope.spawn(|| open_in_turn(&disk, &turns, 2, &states[1]));
            [one.join().unwrap(), two.join().unwrap()]
        });
        let writers = disk.writers();
        assert_eq!(writers.len(), 1, "{bits:06b}: {writers:?}");
        assert!(
            taken[writers[0] as usize - 1],
            "{bits:06b}: the loser has it"
        );
    }
}

#[tokio::test]
async fn a_process_that_was_started_by_mistake_fences_nobody() {
    let disk = SharedDisk::new(LEN);
    let mut state = new_log();
    let stale = state.clone();
    let owner = own(&healthy(&disk, 1), &mut state).await.unwrap();
    owner.append(1).await;
    let mut foreign = new_log();
    foreign.identity.cluster = 7;
    for state in [stale, foreign] {
        let refused = place(&healthy(&disk, 2)).open(&state).await.err();
        let named = matches!(
            refused,
            Some(Error::NotNew { .. } | Error::Fenced { .. } | Error::Mismatch { .. })
        );
        assert!(named, "{refused:?}");
        assert_eq!(disk.writers(), [1]);
    }
    owner.append(2).await;
}

#[tokio::test]
async fn a_shared_volume_that_takes_no_reservations_is_refused_and_another_is_used() {
    let disk = SharedDisk::new(LEN).without_reservations(true);
    let refused = own(&healthy(&disk, 1), &mut new_log()).await.err();
    assert!(
        matches!(&refused, Some(Error::Unguarded { place, .. }) if place == "shared disk"),
        "{refused:?}"
    );
    assert_eq!(disk.writes(), 0);
    let disk = SharedDisk::new(LEN).without_reservations(false);
    let owner = own(&healthy(&disk, 1), &mut new_log()).await.unwrap();
    owner.append(1).await;
}

#[tokio::test]
async fn an_owner_that_starts_again_on_its_host_keeps_the_volume() {
    let disk = SharedDisk::new(LEN);
    let mut state = new_log();
    for life in 0..4_u8 {
        let owner = own(&healthy(&disk, 1), &mut state).await.unwrap();
        assert_eq!(owner.back, (0..life).collect::<Vec<_>>());
        owner.append(life).await;
        assert_eq!(disk.writers(), [1]);
    }
}
