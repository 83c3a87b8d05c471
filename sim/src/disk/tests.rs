//! The modelled disk: what a power cut leaves.

use tokio::sync::oneshot;

use super::*;

fn disk(lie: Option<Lie>) -> SimDisk {
    SimDisk::new(65_536, Entropy::new(1), Faults::none(), lie)
}

fn filled(byte: u8) -> Bytes {
    Bytes::from(vec![byte; 4_096])
}

async fn write(disk: &AttachedDisk, at: u64, byte: u8) -> io::Result<()> {
    let (send, receive) = oneshot::channel();
    disk.write(at, filled(byte), Box::new(|done| send.send(done).unwrap()));
    receive.await.unwrap()
}

async fn sync(disk: &AttachedDisk) {
    let (send, receive) = oneshot::channel();
    disk.sync(Box::new(|done| send.send(done).unwrap()));
    receive.await.unwrap().unwrap();
}

async fn read(disk: &AttachedDisk, at: u64) -> Bytes {
    let (send, receive) = oneshot::channel();
    disk.read(at, 4_096, Box::new(|done| send.send(done).unwrap()));
    receive.await.unwrap().unwrap()
}

#[tokio::test(start_paused = true)]
async fn what_was_acknowledged_survives_a_power_cut() {
    let disk = disk(None);
    let attached = disk.attach();
    write(&attached, 4_096, 7).await.unwrap();
    disk.crash(Crash::Power);
    assert_eq!(read(&disk.attach(), 4_096).await, filled(7));
}

#[tokio::test(start_paused = true)]
async fn a_write_in_flight_tears_by_sector() {
    let torn = {
        let mut torn = 0;
        for seed in 0..64 {
            let disk = SimDisk::new(8_192, Entropy::new(seed), Faults::none(), None);
            disk.attach().write(0, filled(7), Box::new(|_| ()));
            disk.crash(Crash::Process);
            let bytes = read(&disk.attach(), 0).await;
            assert!(
                bytes
                    .chunks(512)
                    .all(|sector| sector.iter().all(|byte| *byte == sector[0]))
            );
            torn += u32::from(bytes.contains(&7) && bytes.contains(&0));
        }
        torn
    };
    assert!(torn > 5, "{torn} of 64");
}

#[tokio::test(start_paused = true)]
async fn what_only_the_cache_holds_is_lost_in_a_power_cut_unless_it_was_synced() {
    let (mut seen, mut lost, mut kept) = (0, 0, 0);
    for seed in 0..64 {
        let disk = SimDisk::new(8_192, Entropy::new(seed), Faults::none(), None);
        disk.attach().write(0, filled(7), Box::new(|_| ()));
        disk.crash(Crash::Process);
        let before = read(&disk.attach(), 0).await;
        let synced = seed % 2 == 0;
        if synced {
            sync(&disk.attach()).await;
        }
        disk.crash(Crash::Power);
        let after = read(&disk.attach(), 0).await;
        seen += u32::from(before.contains(&7));
        kept += u32::from(synced && before == after && before.contains(&7));
        lost += u32::from(!synced && before != after);
        assert!(!synced || before == after);
    }
    assert!(seen > 20 && lost > 5 && kept > 5, "{seen} {lost} {kept}");
}

#[tokio::test(start_paused = true)]
async fn an_earlier_life_has_no_effect_any_more() {
    let disk = disk(None);
    let old = disk.attach();
    disk.crash(Crash::Process);
    old.write(
        0,
        filled(9),
        Box::new(|_| panic!("completed after the crash")),
    );
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert_eq!(read(&disk.attach(), 0).await, filled(0));
}

#[tokio::test(start_paused = true)]
async fn a_disk_that_lies_loses_what_it_acknowledged() {
    let mut lost = 0;
    for seed in 0..16 {
        let lie = Some(Lie::WriteBeforeDurable);
        let disk = SimDisk::new(8_192, Entropy::new(seed), Faults::none(), lie);
        let attached = disk.attach();
        write(&attached, 0, 7).await.unwrap();
        disk.crash(Crash::Power);
        lost += u32::from(read(&disk.attach(), 0).await != filled(7));
    }
    assert!(lost > 8, "{lost} of 16");
}
